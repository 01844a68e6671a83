"""Finds the lesion in images of any kind and size: masks, overlays, numbers and a report.

    python lesion/analyze.py IMAGE_OR_FOLDER... --weights=PATH --out=DIR

For each image `<stem>_segmentation.png` (0 and 255, the image's own size, as the ISIC challenge
asks for), `<stem>_overlay.jpg` and `<stem>.json` are written, for all together `report.html`. A
file that cannot be read stops nothing; it is named at the end, and the exit code is 1.
"""

import sys
from pathlib import Path

if __package__ in (
    None,
    "",
):  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse  # noqa: E402
import json  # noqa: E402
import re  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Iterable, Iterator, Sequence  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from typing import Any, NamedTuple  # noqa: E402

import numpy as np  # noqa: E402
from scipy import ndimage  # noqa: E402
from tqdm import tqdm  # noqa: E402

from lesion import NOTICE  # noqa: E402
from lesion.overlay import boundary_overlay  # noqa: E402
from lesion.report import write_report  # noqa: E402
from lesion.samples import Problem  # noqa: E402
from mrcnn.files import atomic_path  # noqa: E402
from mrcnn.images import ImageError, read_image, write_image  # noqa: E402

SCHEMA_VERSION = 1
"""Version of the JSON records; a field that changes its meaning raises it."""

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_SEGMENTATION, _OVERLAY, _RECORD = "_segmentation.png", "_overlay.jpg", ".json"
# Files that data sets and this command put beside images, and that are none themselves.
_NO_IMAGE = re.compile(r"_(segmentation|mask|overlay|superpixels|attribute_\w+)$", re.IGNORECASE)
_READERS = 2


class Prediction(NamedTuple):
    """An image with what was predicted for it, or the reason why it could not be read."""

    path: Path
    image: np.ndarray | None
    boundary: Any | None
    error: str | None


@dataclass
class Analysis:
    """Records of the images analysed, in their order, and the files that failed."""

    records: list[dict] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def predict_images(
    predictor: Any, paths: Sequence[str | Path], batch: int = 8
) -> Iterator[Prediction]:
    """Reads and predicts images in batches; the next batch is read while one is predicted.

    Args:
        predictor: has `predict(images)`, which takes a list of uint8 `[height, width, 3]` and
            returns for each an object with `mask` (bool `[height, width]`), `score` and `box`.
        paths: image files.
        batch: images predicted at once. At most twice as many are held in memory.

    Yields:
        One `Prediction` per path, in order.
    """
    if batch < 1:
        raise ValueError(f"`batch` must be at least 1, received {batch}.")
    paths = [Path(path) for path in paths]
    with ThreadPoolExecutor(_READERS) as pool:
        upcoming = [pool.submit(_read, path) for path in paths[:batch]]
        for start in range(0, len(paths), batch):
            read = [future.result() for future in upcoming]
            after = paths[start + batch : start + 2 * batch]
            upcoming = [pool.submit(_read, path) for path in after]
            images = [image for image, _ in read if image is not None]
            boundaries = iter(predictor.predict(images) if images else [])
            for path, (image, error) in zip(paths[start : start + batch], read, strict=True):
                boundary = None if image is None else next(boundaries)
                yield Prediction(path, image, boundary, error)


def analyze_images(
    predictor: Any, paths: Sequence[str | Path], out: str | Path, batch: int = 8
) -> Analysis:
    """Analyses images and writes the results into a folder, without the report.

    Args:
        predictor: as for `predict_images`; its `describe()` goes into each record.
        paths: image files.
        out: the folder; it is made where it is missing. Files of an earlier run are replaced.
        batch: images predicted at once.

    Returns:
        The records that were written, and the files that could not be read.
    """
    out = Path(out)
    stems = output_stems(paths)
    model = predictor.describe()
    analysis = Analysis()
    predictions = predict_images(predictor, list(stems), batch)
    # `disable=None` shows the bar on a terminal only.
    for path, image, boundary, error in tqdm(
        predictions, "Analysing", len(stems), unit="image", disable=None
    ):
        if error is not None:
            analysis.problems.append(Problem(path, error))
            continue
        record = describe_boundary(path, boundary, model)
        stem = stems[path]
        record["outputs"] = {
            "segmentation": stem + _SEGMENTATION,
            "overlay": stem + _OVERLAY,
        }
        write_image(out / record["outputs"]["segmentation"], boundary.mask)
        write_image(out / record["outputs"]["overlay"], boundary_overlay(image, boundary.mask))
        with atomic_path(out / f"{stem}{_RECORD}") as temporary:
            temporary.write_text(json.dumps(record, indent=2, allow_nan=False), encoding="utf-8")
        analysis.records.append(record)
    return analysis


def describe_boundary(path: Path, boundary: Any, model: dict) -> dict:
    """The record of one image, as plain values for JSON.

    `box` is (y1, x1, y2, x2) in pixels, half-open; `box` and `score` are null where no lesion was
    found. Areas are of the mask, in pixels and as a share of the image.
    """
    height, width = boundary.mask.shape
    area = int(np.count_nonzero(boundary.mask))
    found = area > 0
    return {
        "schema_version": SCHEMA_VERSION,
        "notice": NOTICE,
        "task": "boundary",
        "file": path.name,
        "path": str(path),
        "size": {"height": height, "width": width},
        "found": found,
        "score": float(boundary.score) if found else None,
        "box": [round(float(side)) for side in boundary.box] if found else None,
        "area": {"pixels": area, "fraction": area / (height * width)},
        "warnings": boundary_warnings(boundary.mask),
        "model": model,
    }


def boundary_warnings(mask: np.ndarray) -> list[str]:
    """What a reader should know before using the mask, as sentences."""
    if not mask.any():
        return ["No lesion was found."]
    warnings = []
    sides = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    if any(side.any() for side in sides):
        warnings.append("The lesion touches the edge of the image and may extend beyond it.")
    regions = ndimage.label(mask, structure=np.ones((3, 3)))[1]
    if regions > 1:
        warnings.append(f"The boundary consists of {regions} separate regions.")
    return warnings


def find_images(inputs: Iterable[str | Path], out: str | Path) -> list[Path]:
    """Lists images: files as given, and those in folders and their subfolders, each once.

    In folders, masks and overlays (by their names), hidden files and the folder `out` are passed
    over.

    Raises:
        ValueError: a folder holds no image, or an output would replace an input.
    """
    out = Path(out).resolve()
    found: dict[Path, Path] = {}
    for entry in map(Path, inputs):
        if not entry.is_dir():
            found.setdefault(entry.resolve(), entry)
            continue
        images = [path for path in sorted(entry.rglob("*")) if _is_image(path, entry, out)]
        if not images:
            raise ValueError(
                f"The folder {entry} holds no image to analyse; "
                f"looked for {', '.join(IMAGE_SUFFIXES)}, not for masks and overlays."
            )
        for path in images:
            found.setdefault(path.resolve(), path)
    for stem in output_stems(found.values()).values():
        for ending in (_SEGMENTATION, _OVERLAY, _RECORD):
            if out / f"{stem}{ending}" in found:
                raise ValueError(
                    f"The result {out / f'{stem}{ending}'} would replace an image that is to be "
                    "analysed; choose another folder with --out."
                )
    return list(found.values())


def output_stems(paths: Iterable[str | Path]) -> dict[Path, str]:
    """What each image's results are named after: its stem, numbered where another has it, too.

    Case is ignored, as some file systems do. A number never takes a name that an image has itself.
    """
    paths = list(dict.fromkeys(map(Path, paths)))
    times = Counter(path.stem.casefold() for path in paths)
    taken: set[str] = set()
    stems = {}
    for path in paths:
        stem, number = path.stem, 1
        while stem.casefold() in taken or (number > 1 and stem.casefold() in times):
            number += 1
            stem = f"{path.stem}_{number}"
        taken.add(stem.casefold())
        stems[path] = stem
    return stems


def _read(path: Path) -> tuple[np.ndarray | None, str | None]:
    """An image and None, or None and what is wrong with it."""
    try:
        return read_image(path), None
    except (ImageError, OSError) as error:
        # The message begins with the path, which its listing names already.
        return None, str(error).removeprefix(f"{path}: ")


def _is_image(path: Path, folder: Path, out: Path) -> bool:
    inside = path.relative_to(folder)
    hidden = any(part.startswith(".") for part in inside.parts)
    # Where the results go into the folder of the images itself, only their names tell them apart.
    result = folder.resolve() != out and out in path.resolve().parents
    return (
        path.suffix.lower() in IMAGE_SUFFIXES
        and not hidden
        and not result
        and not _NO_IMAGE.search(path.stem)
        and path.is_file()
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Finds the lesion's boundary in dermoscopic images and reports it.",
        epilog=NOTICE,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="IMAGE_OR_FOLDER", help="images, or folders of images"
    )
    parser.add_argument("--weights", required=True, metavar="PATH", help="trained weights")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the results"
    )
    parser.add_argument(
        "--batch", type=int, default=8, metavar="N", help="images predicted at once (8)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.batch < 1:
        parser.error(f"--batch must be at least 1, received {arguments.batch}.")
    if arguments.out.exists() and not arguments.out.is_dir():
        parser.error(f"--out {arguments.out} is a file; give a folder.")
    try:
        paths = find_images(arguments.inputs, arguments.out)
    except ValueError as error:
        parser.error(str(error))

    # TensorFlow is loaded here and not above, so that a mistyped command answers at once.
    from lesion.boundary import load_predictor

    try:
        predictor = load_predictor(arguments.weights)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        analysis = analyze_images(predictor, paths, arguments.out, arguments.batch)
        report = arguments.out / "report.html"
        write_report(
            report, analysis.records, analysis.problems, arguments.out, predictor.describe()
        )
    except OSError as error:
        print(f"The results cannot be written: {error}", file=sys.stderr)
        return 1
    missing = sum(not record["found"] for record in analysis.records)
    print(f"{len(analysis.records)} images analysed, no lesion found in {missing}: {report}")
    print(NOTICE)
    if analysis.problems:
        print(f"{len(analysis.problems)} of {len(paths)} files failed:", file=sys.stderr)
        for problem in analysis.problems:
            print(f"  {problem}", file=sys.stderr)
    return 1 if analysis.problems else 0


if __name__ == "__main__":
    sys.exit(main())
