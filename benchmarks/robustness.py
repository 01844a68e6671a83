"""How much a task's score falls when its images are blurred, dim, noisy, compressed and so on.

Every image of a part of the split is changed in one way after the other, with its masks where they
move, and scored as lesion/evaluate.py does it, from a file and at the size that it then has.

    python benchmarks/robustness.py --task boundary --weights PATH --dataset DIR --json OUT
"""

import dataclasses
import io
import os
import platform
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import timing  # noqa: F401  (puts the repository on the path)
from PIL import Image, ImageFilter, ImageOps
from PIL.Image import Resampling
from tqdm import tqdm

from lesion import NOTICE
from lesion.augment import rim_colour
from lesion.evaluate import name_and_hash
from lesion.layouts import find_collections
from lesion.nearby import NearbyAttributes, NearbyDiagnosis
from lesion.options import add_views, natural, positive
from lesion.phantom_canvas import Frame, Layer
from lesion.phantom_layers import draw_aperture, draw_hair, draw_ruler
from lesion.printing import CommandParser
from lesion.samples import TASKS, Sample
from lesion.selection import select_samples
from lesion.splits import Split
from lesion.tables import aligned
from lesion.weights import learned_by, split_of, weights_path
from mrcnn.files import write_json
from mrcnn.images import read_image, read_mask, write_image

# === Changes: (image uint8 [h, w, 3], masks bool [h, w, n], rng) -> the same, perhaps larger ===

Pair = tuple[np.ndarray, np.ndarray]
Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], Sequence[np.ndarray]]


def unchanged(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
    return image, masks


def blur(share: float) -> Change:
    """Gaussian of a standard deviation of a share of the longer side."""

    def change(image, masks, rng):
        blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(share * max(image.shape)))
        return np.asarray(blurred), masks

    return change


def compressed(quality: int) -> Change:
    def change(image, masks, rng):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file)), masks

    return change


def coloured(*gains: float) -> Change:
    """Each channel, or all, times a factor."""

    def change(image, masks, rng):
        return np.clip(np.rint(image * np.array(gains)), 0, 255).astype(np.uint8), masks

    return change


def noise(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
    """Of each pixel and channel its own, as a sensor's in little light: 12 of 255."""
    noisy = image + rng.normal(0, 12, image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), masks


def drawn(draw: Callable[[Frame, np.random.Generator], list[Layer]]) -> Change:
    """Layers of the phantoms laid over the image; the lesion reaches below them."""

    def change(image, masks, rng):
        for layer in _layers(draw, image.shape[:2], rng):
            image = _over(layer, image)
        return image, masks

    return change


def vignette(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
    """The dark surround of a round window; masks end where it begins."""
    (surround,) = _layers(draw_aperture, image.shape[:2], rng)
    return _over(surround, image), masks & ~surround.mask[..., np.newaxis]


def _layers(draw, shape, rng):
    """What is drawn the first time that there is anything: most drawings are empty now and then."""
    frame = Frame(*shape)
    while True:
        layers = draw(frame, rng)
        layers = layers if isinstance(layers, list) else [layers]
        if any(layer.coverage.any() for layer in layers):
            return layers


def _over(layer, image):
    painted = layer.over(image.astype(np.float32) / 255)
    return np.rint(np.clip(painted, 0, 1) * 255).astype(np.uint8)


def quarter_turn(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
    return np.rot90(image), np.rot90(masks)


def eighth_turn(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
    """45 degrees about the middle, in a frame that stays; what leaves it is gone."""
    return _each(image, masks, lambda p, fill: p.rotate(45, Resampling.BILINEAR, fillcolor=fill))


def enlarged(times: int) -> Change:
    """So many times as wide and high (bicubic), then JPEG of quality 75: detail that is none."""

    def change(image, masks, rng):
        size = (times * image.shape[1], times * image.shape[0])
        image, masks = _each(image, masks, lambda p, fill: p.resize(size, Resampling.BICUBIC))
        return compressed(75)(image, masks, rng)

    return change


def close_up(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
    """The middle 60 % of each side alone: most lesions reach beyond the frame."""
    part = tuple(slice(round(0.2 * side), round(0.8 * side)) for side in image.shape[:2])
    return image[part], masks[part]


def far_away(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
    """The image in the middle of a frame three times as wide and high."""
    border = (image.shape[1], image.shape[0])
    return _each(image, masks, lambda p, fill: ImageOps.expand(p, border, fill))


def small(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
    """The same in as many pixels as before: the image takes a ninth of them."""
    size = (image.shape[1], image.shape[0])
    return _each(*far_away(image, masks, rng), lambda p, fill: p.resize(size, Resampling.BOX))


def wider(image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Half as wide again: beside each side a mirror image of a quarter of the width."""
    quarter = image.shape[1] // 4
    return [
        np.pad(each, ((0, 0), (quarter, quarter), (0, 0)), "reflect") for each in (image, masks)
    ]


def _each(image, masks, move):
    """Image and masks after `move(picture, fill)`, which is given Pillow's images.

    What comes into the frame has the median colour of the image's border, which is skin's or the
    surround's, and belongs to no mask. A mask's pixel is one that it has half of.
    """
    moved = [
        np.asarray(move(Image.fromarray(masks[..., place].astype(np.uint8) * 255), 0)) >= 128
        for place in range(masks.shape[2])
    ]
    fill = tuple(int(value) for value in rim_colour(image))
    image = np.asarray(move(Image.fromarray(image), fill))
    return image, np.stack(moved, axis=-1) if moved else np.zeros((*image.shape[:2], 0), bool)


CHANGES = {
    "as it is": unchanged,
    "blur 0.5 % of the side": blur(0.005),
    "blur 1 % of the side": blur(0.01),
    "JPEG quality 30": compressed(30),
    "warm light": coloured(1.15, 1.0, 0.8),
    "cold light": coloured(0.8, 1.0, 1.15),
    "darker, x 0.6": coloured(0.6),
    "brighter, x 1.3": coloured(1.3),
    "noise": noise,
    "hair": drawn(draw_hair),
    "ruler": drawn(draw_ruler),
    "vignette": vignette,
    "turned by 90 degrees": quarter_turn,
    "turned by 45 degrees": eighth_turn,
    "enlarged 4 x, JPEG 75": enlarged(4),
    "enlarged 12 x, JPEG 75": enlarged(12),
    "the middle 60 % of each side": close_up,
    "half as wide again, mirrored": wider,
    "a third of a larger frame": far_away,
    "a third of the frame": small,
}


def changed_samples(
    task: str, samples: Sequence[Sample], change: Change, folder: Path, seed: int
) -> list[Sample]:
    """Writes samples as a change leaves them; returns them with the new files.

    What is drawn on an image depends on the seed and the image's name alone.
    """
    result = []
    for number, sample in enumerate(samples):
        rng = np.random.default_rng([seed, zlib.crc32(sample.image_id.encode())])
        image = read_image(sample.image)
        truths = {
            "boundary": {"mask": sample.mask} if sample.mask else {},
            "attributes": sample.attributes,
            "diagnosis": {},
        }[task]
        masks = np.zeros((*image.shape[:2], len(truths)), bool)
        for place, path in enumerate(truths.values()):
            masks[..., place] = read_mask(path)
        image, masks = change(image, masks, rng)
        # Lossless: whatever compression is meant is in the pixels.
        paths = {name: folder / f"{number}_{name}.png" for name in truths}
        for place, path in enumerate(paths.values()):
            write_image(path, masks[..., place])
        write_image(folder / f"{number}.png", image)
        mask = paths.pop("mask", None)
        result.append(
            dataclasses.replace(sample, image=folder / f"{number}.png", mask=mask, attributes=paths)
        )
    return result


# === Scores ===


def load(task: str, weights: str | Path, views: int, boundary: str | Path | None = None) -> Any:
    """The predictor of a task, with the boundary's weights that find small lesions, if given."""
    from lesion.boundary import load_predictor

    if task == "boundary":
        return load_predictor(weights, views=views)
    if task == "attributes":
        from lesion.attributes import load_attributes

        predictor, nearby = load_attributes(weights), NearbyAttributes
    else:
        from lesion.ensemble import load_classifiers

        predictor, nearby = load_classifiers([weights], views), NearbyDiagnosis
    return nearby(predictor, load_predictor(boundary, views=views)) if boundary else predictor


def score(task: str, predictor: Any, samples: Sequence[Sample]) -> dict[str, float | None]:
    """Figures of samples by name, the task's main one first; their number as `images`."""
    if task == "boundary":
        from lesion.boundary_evaluation import evaluate_boundary
        from lesion.metrics import aggregate

        evaluation = evaluate_boundary(predictor, samples)
        means = aggregate(evaluation.scores)
        figures = {name: means[name] for name in ("jaccard", "threshold_jaccard")}
    elif task == "attributes":
        from lesion.attributes_evaluation import evaluate_attributes, summarize_attributes

        evaluation = evaluate_attributes(predictor, samples)
        figures = {"jaccard": summarize_attributes(evaluation, predictor.method)["jaccard"]}
    else:
        from lesion.diagnosis_evaluation import evaluate_diagnosis

        evaluation = evaluate_diagnosis(predictor, samples)
        scores = evaluation.scored().summary(intervals=False)
        figures = {name: scores[name] for name in ("balanced_accuracy", "melanoma_auc", "ece")}
    return {"images": len(evaluation.samples), **figures}


def format_results(results: Mapping[str, Mapping[str, float | None]]) -> str:
    """A line for each change: its figures, and how far they are from those of the first line."""
    clean = next(iter(results.values()))
    names = [name for name in clean if name != "images"]
    rows = [["change", "images", *(cell for name in names for cell in (name, "difference"))]]
    for change, figures in results.items():
        row = [change, str(figures["images"])]
        for name in names:
            here, before = figures[name], clean[name]
            row.append("–" if here is None else f"{here:.4f}")
            row.append("–" if here is None or before is None else f"{here - before:+.4f}")
        rows.append(row)
    return "\n".join(aligned(rows))


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=TASKS, default="boundary")
    parser.add_argument("--weights", required=True, metavar="PATH", help='or "last", or "lesion"')
    parser.add_argument(
        "--boundary-weights",
        metavar="PATH",
        help="of attributes and diagnosis: show lesions that are small from nearby, as these find "
        'them; "lesion": the project\'s (none)',
    )
    parser.add_argument("--dataset", action="append", required=True, metavar="DIR")
    parser.add_argument(
        "--split", metavar="FILE", help="default: the one of the weights; none: all images"
    )
    parser.add_argument(
        "--part",
        help="of the split (validation, or test where that is empty)",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="first N of each data set")
    parser.add_argument("--change", choices=CHANGES, action="append", help="default: all")
    add_views(parser)
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the results")
    arguments = parser.parse_args(argv)
    if arguments.boundary_weights == "none":
        arguments.boundary_weights = None
    if arguments.boundary_weights and arguments.task == "boundary":
        parser.error("--boundary-weights is of the tasks that a boundary is found for.")

    collections = find_collections(arguments.dataset, task=arguments.task)
    split, learned = arguments.split, set()
    if split is None:
        everything = [sample for collection in collections for sample in collection.samples]
        weights = weights_path(arguments.weights, arguments.task)
        split = split_of(weights, everything)
        if split is None:
            learned = learned_by([weights], everything)
    split = None if split in (None, "none") else Split.load(split)
    default = "validation" if split and split.parts.get("validation") else "test"
    part = (arguments.part or default) if split else "all"
    samples = select_samples(collections, split, part, arguments.limit, learned)
    if not samples:
        parser.error(f"Part {part!r} has no image.")
    try:
        predictor = load(
            arguments.task, arguments.weights, arguments.views, arguments.boundary_weights
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    changes = ["as it is", *(arguments.change or CHANGES)]
    results = {}
    for name in tqdm(dict.fromkeys(changes), "Changes", disable=None):
        with tempfile.TemporaryDirectory() as folder:
            changed = changed_samples(
                arguments.task, samples, CHANGES[name], Path(folder), arguments.seed
            )
            results[name] = score(arguments.task, predictor, changed)
    model, nearby = predictor.describe(), arguments.boundary_weights is not None
    names = [collection.name for collection in collections]
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        **{library: version(library) for library in ("tensorflow", "keras", "numpy", "pillow")},
    }
    print(
        f"{arguments.task.capitalize()}, part {part} of {', '.join(names)}, weights "
        f"{model['weights']} (sha256 {model['sha256'][:12]}), seed {arguments.seed}"
    )
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(format_results(results))
    print(NOTICE)
    if arguments.json:
        content = {
            "task": arguments.task,
            "weights": name_and_hash(predictor),
            "collections": names,
            "part": part,
            "limit": arguments.limit,
            "boundary_weights": name_and_hash(predictor.boundary) if nearby else None,
            "views": None if arguments.task == "attributes" else arguments.views,
            "seed": arguments.seed,
            "machine": machine,
            "changes": results,
            "notice": NOTICE,
        }
        write_json(arguments.json, content)


if __name__ == "__main__":
    main()
