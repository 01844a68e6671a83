"""Scores predictions against the truth with the metrics of the ISIC 2018 challenge.

    python lesion/evaluate.py --dataset=DIR --task=boundary --weights=PATH [--split=FILE]

Prints a table with a line for each data set and one for all images together, and writes
`evaluation.json`, `jaccard.csv` (a line per image), a histogram and a contact sheet of the worst,
median and best cases. A sample that cannot be read or has no truth is named, counted and left out
of the means; the exit code is then 1.
"""

import sys
from pathlib import Path

# Run as a script, import the packages beside this one, not the modules in it.
if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse  # noqa: E402
import csv  # noqa: E402
import json  # noqa: E402
from collections.abc import Mapping, Sequence  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from typing import Any  # noqa: E402

from tqdm import tqdm  # noqa: E402

from lesion import NOTICE  # noqa: E402
from lesion.analyze import predict_images  # noqa: E402
from lesion.layouts import find_collections  # noqa: E402
from lesion.metrics import METRICS, aggregate, bootstrap_interval, boundary_metrics  # noqa: E402
from lesion.overlay import Case, contact_sheet, jaccard_histogram  # noqa: E402
from lesion.samples import Collection, DatasetError, Problem, Sample  # noqa: E402
from lesion.splits import Split, SplitError, split_beside  # noqa: E402
from mrcnn.files import atomic_path  # noqa: E402
from mrcnn.images import ImageError, read_mask  # noqa: E402
from mrcnn.runs import weights_path  # noqa: E402

# What data sets and split files call the part that is trained on differs.
_PARTS = {"train": "training", "validation": "validation", "test": "test"}
_INTERVAL_METRICS = ("jaccard", "threshold_jaccard")
_CASES_PER_ROW = 4


@dataclass
class BoundaryEvaluation:
    """Scores of the boundary task.

    Attributes:
        samples: the samples that were scored.
        scores: of each of them, what `lesion.metrics.boundary_metrics` gives.
        problems: samples that could not be scored.
    """

    samples: list[Sample] = field(default_factory=list)
    scores: list[dict[str, float]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def by_collection(self) -> dict[str, list[int]]:
        """Positions in `samples` of each collection's samples."""
        positions: dict[str, list[int]] = {}
        for position, sample in enumerate(self.samples):
            positions.setdefault(sample.collection, []).append(position)
        return positions


def evaluate_boundary(
    predictor: Any, samples: Sequence[Sample], batch: int = 8
) -> BoundaryEvaluation:
    """Predicts the lesion of each sample and scores it at the image's own size.

    Args:
        predictor: as for `lesion.analyze.predict_images`.
        samples: with boundary masks.
        batch: images predicted at once.

    Returns:
        The scores; samples without a mask, with one of another size than their image, or whose
        image or mask cannot be read, are among its problems.
    """
    evaluation = BoundaryEvaluation()
    evaluation.problems += [
        Problem(sample.image, "image without a mask") for sample in samples if sample.mask is None
    ]
    masked = [sample for sample in samples if sample.mask is not None]
    predictions = predict_images(predictor, [sample.image for sample in masked], batch)
    progress = tqdm(predictions, "Evaluating", len(masked), unit="image", disable=None)
    for sample, (path, image, boundary, error) in zip(masked, progress, strict=True):
        if error is not None:
            evaluation.problems.append(Problem(path, error))
            continue
        try:
            truth = read_mask(sample.mask)
        except (ImageError, OSError) as failure:
            reason = str(failure).removeprefix(f"{sample.mask}: ")
            evaluation.problems.append(Problem(sample.mask, reason))
            continue
        if truth.shape != image.shape[:2]:
            sizes = f"{truth.shape[1]} x {truth.shape[0]} pixels, its image {image.shape[1]} x "
            evaluation.problems.append(
                Problem(sample.mask, f"mask of another size: {sizes}{image.shape[0]}")
            )
            continue
        evaluation.samples.append(sample)
        evaluation.scores.append(boundary_metrics(boundary.mask, truth))
    return evaluation


def summarize_boundary(evaluation: BoundaryEvaluation, names: Sequence[str] = ()) -> dict:
    """Means over images as plain values for JSON.

    Args:
        evaluation: what `evaluate_boundary` gave.
        names: of collections that are to be listed even if none of their samples was scored.

    Returns:
        `images` and the means of all images; `datasets`, the same for each collection; `intervals`,
        95 % bootstrap intervals by lesion (by image where the lesion is unknown) for all and for
        each collection; `failed` and `problems`. Means of no image are null.
    """
    groups = [sample.lesion_id or sample.image_id for sample in evaluation.samples]
    positions = evaluation.by_collection()
    parts = {name: positions.get(name, []) for name in [*names, *positions]}

    def means(chosen: Sequence[int]) -> dict:
        if not chosen:
            return {"images": 0, **dict.fromkeys(METRICS)}
        return aggregate(evaluation.scores[i] for i in chosen)

    def intervals(chosen: Sequence[int]) -> dict:
        if not chosen:
            return dict.fromkeys(_INTERVAL_METRICS)
        return {
            metric: bootstrap_interval(
                [evaluation.scores[i][metric] for i in chosen], [groups[i] for i in chosen]
            )
            for metric in _INTERVAL_METRICS
        }

    everything = range(len(evaluation.samples))
    return {
        **means(everything),
        "datasets": {name: means(chosen) for name, chosen in parts.items()},
        "intervals": {
            "level": 0.95,
            "all": intervals(everything),
            "datasets": {name: intervals(chosen) for name, chosen in parts.items()},
        },
        "failed": len(evaluation.problems),
        "problems": [{"path": str(p.path), "reason": p.reason} for p in evaluation.problems],
    }


def write_boundary(
    evaluation: BoundaryEvaluation, predictor: Any, out: str | Path, batch: int = 8
) -> list[Path]:
    """Writes `jaccard.csv`, `jaccard.png` and `cases.png` into a folder.

    The cases shown are predicted once more, so that no image has to be kept until they are known.

    Returns:
        The paths written; none where no sample was scored.
    """
    if not evaluation.samples:
        return []
    out = Path(out)
    table, histogram, sheet = out / "jaccard.csv", out / "jaccard.png", out / "cases.png"
    with (
        atomic_path(table) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["dataset", "image_id", "lesion_id", *METRICS])
        for sample, scores in zip(evaluation.samples, evaluation.scores, strict=True):
            values = [format(scores[name], ".6f") for name in METRICS]
            writer.writerow([sample.collection, sample.image_id, sample.lesion_id or "", *values])
    jaccards = [scores["jaccard"] for scores in evaluation.scores]
    positions = evaluation.by_collection()
    jaccard_histogram(
        {name: [jaccards[i] for i in chosen] for name, chosen in positions.items()}, histogram
    )
    rows = choose_cases(jaccards, _CASES_PER_ROW)
    chosen = [position for row in rows.values() for position in row]
    images = [evaluation.samples[position].image for position in chosen]
    cases = {}
    for position, (_, image, boundary, error) in zip(
        chosen, predict_images(predictor, images, batch), strict=True
    ):
        if error is not None:
            raise ImageError(f"{evaluation.samples[position].image} has gone meanwhile: {error}")
        sample = evaluation.samples[position]
        name = sample.key if len(positions) > 1 else sample.image_id
        truth = read_mask(sample.mask)
        cases[position] = Case(name, jaccards[position], image, boundary.mask, truth)
    contact_sheet({title: [cases[i] for i in row] for title, row in rows.items()}, sheet)
    return [table, histogram, sheet]


def choose_cases(values: Sequence[float], per_row: int) -> dict[str, list[int]]:
    """Positions of the lowest, middle and highest values, each in rising order, none twice."""
    order = sorted(range(len(values)), key=values.__getitem__)
    size = min(per_row, len(order) // 3)
    if size == 0:
        return {"all": order}
    middle = (len(order) - size) // 2
    return {
        "worst": order[:size],
        "median": order[middle : middle + size],
        "best": order[-size:],
    }


def format_table(summary: Mapping[str, Any]) -> str:
    """The means as text: a line for each data set, and one for all where there are several."""
    lines = dict(summary["datasets"])
    if len(lines) != 1:
        lines["all"] = summary
    rows = [["data set", "images", *METRICS]]
    for name, means in lines.items():
        values = ["–" if means[metric] is None else f"{means[metric]:.4f}" for metric in METRICS]
        rows.append([name, f"{means['images']:,}", *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    ]
    for metric, interval in summary["intervals"]["all"].items():
        if interval is not None:
            low, high = interval
            text.append(f"95 % interval of {metric}, by lesion: {low:.4f} to {high:.4f}")
    return "\n".join(text)


def select_samples(
    collections: Sequence[Collection], split: Split | None, part: str, limit: int | None
) -> list[Sample]:
    """The samples to be scored: a split's part or all of them, and of each data set the first."""
    samples = [sample for collection in collections for sample in collection.samples]
    if split is not None:
        samples = split.select(samples, part)
    if limit is None:
        return samples
    return [
        sample
        for collection in collections
        for sample in [s for s in samples if s.collection == collection.name][:limit]
    ]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Scores predictions with the metrics of the ISIC 2018 challenge.",
        epilog=NOTICE,
    )
    parser.add_argument(
        "--dataset", action="append", required=True, metavar="DIR", help="data set; repeatable"
    )
    parser.add_argument("--task", choices=["boundary"], default="boundary", help="what to score")
    parser.add_argument("--weights", required=True, metavar="PATH", help="trained weights")
    parser.add_argument(
        "--split",
        metavar="FILE",
        help="split file; default: the one beside the weights, if it knows the data; "
        "none: score all samples, learned from or not",
    )
    parser.add_argument(
        "--part",
        choices=list(_PARTS),
        help="part of the split (test); without a split the challenge's own part (all)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="the result (evaluation.json in --out)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("evaluation"),
        metavar="DIR",
        help="folder for tables and figures (./evaluation)",
    )
    parser.add_argument(
        "--batch", type=int, default=8, metavar="N", help="images predicted at once (8)"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="score the first N samples of each data set only"
    )
    return parser


def _split_path(arguments: argparse.Namespace, collections: Sequence[Collection]) -> Path | None:
    if arguments.split == "none":
        return None
    if arguments.split:
        return Path(arguments.split)
    weights = weights_path(arguments.weights, "logs", arguments.task)
    samples = [sample for collection in collections for sample in collection.samples]
    path = split_beside(weights, samples)
    if path:
        print(f"Scoring what these weights have not learned from, by {path}.")
    return path


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    for name in ("batch", "limit"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1, received {value}.")
    if arguments.out.exists() and not arguments.out.is_dir():
        parser.error(f"--out {arguments.out} is a file; give a folder.")
    try:
        collections = find_collections(arguments.dataset)
        split_path = _split_path(arguments, collections)
        split = Split.load(split_path) if split_path else None
        if split is None and arguments.part:
            collections = find_collections(arguments.dataset, _PARTS[arguments.part])
        part = arguments.part or ("test" if split else "all")
        samples = select_samples(collections, split, part, arguments.limit)
    except (DatasetError, SplitError, FileNotFoundError) as error:
        parser.error(str(error))
    if not any(sample.mask for sample in samples):
        parser.error(
            f"None of the {len(samples)} samples of part {part!r} has a lesion mask to compare "
            "with; give a data set or a split that has some."
        )

    # TensorFlow is loaded here and not above, so that a mistyped command answers at once.
    from lesion.boundary import load_predictor

    try:
        predictor = load_predictor(arguments.weights)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    evaluation = evaluate_boundary(predictor, samples, arguments.batch)
    model = predictor.describe()
    summary = {
        **summarize_boundary(evaluation, [collection.name for collection in collections]),
        "task": arguments.task,
        "part": part,
        "split": str(split_path) if split_path else None,
        "limit": arguments.limit,
        "weights": {"name": model["weights"], "sha256": model["sha256"]},
        "model": model,
        "notice": NOTICE,
    }
    print(f"Boundary, part {part}, weights {model['weights']} (sha256 {model['sha256'][:12]})")
    print(format_table(summary))
    try:
        written = write_boundary(evaluation, predictor, arguments.out, arguments.batch)
        result = arguments.json or arguments.out / "evaluation.json"
        with atomic_path(result) as temporary:
            temporary.write_text(json.dumps(summary, indent=2, allow_nan=False), encoding="utf-8")
    except (OSError, ImageError) as error:
        print(f"The results cannot be written: {error}", file=sys.stderr)
        return 1
    print(f"Written: {', '.join(map(str, [*written, result]))}")
    print(NOTICE)

    # Images that the data set could not offer at all; a split never named them.
    left_out = 0 if split else sum(collection.left_out for collection in collections)
    for collection in collections:
        for problem in collection.problems:
            print(f"Data set {collection.name}: {problem}", file=sys.stderr)
    if evaluation.problems:
        print(f"{len(evaluation.problems)} of {len(samples)} samples failed:", file=sys.stderr)
        for problem in evaluation.problems:
            print(f"  {problem}", file=sys.stderr)
    return 1 if evaluation.problems or left_out else 0


if __name__ == "__main__":
    sys.exit(main())
