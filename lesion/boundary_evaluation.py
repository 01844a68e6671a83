"""Scores of the boundary task: Jaccard and its like for each image, tables and figures of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lesion.figures import Case, contact_sheet, for_sheet, jaccard_histogram
from lesion.grouping import independent_groups
from lesion.mask_evaluation import MaskEvaluation, predict_again, predict_samples
from lesion.metrics import METRICS, aggregate, bootstrap_interval, boundary_metrics
from lesion.reading import read_truth_mask
from lesion.samples import Problem, Sample
from lesion.tables import aligned, write_table
from mrcnn.images import read_mask

_INTERVAL_METRICS = ("jaccard", "threshold_jaccard")
_CASES_PER_ROW = 4


class BoundaryEvaluation(MaskEvaluation):
    """A `MaskEvaluation` whose `scores` are what `lesion.metrics.boundary_metrics` gives.

    Attributes:
        empty, full: numbers of true masks that are scored and show no lesion, or nothing else.
    """

    empty = 0
    full = 0

    def remarks(self) -> dict[str, Any]:
        return {**super().remarks(), "empty_masks": self.empty, "full_masks": self.full}

    def by_collection(self) -> dict[str, list[int]]:
        """Positions in `samples` of each collection's samples."""
        positions: dict[str, list[int]] = {}
        for position, sample in enumerate(self.samples):
            positions.setdefault(sample.collection, []).append(position)
        return positions


def evaluate_boundary(
    predictor: Any,
    samples: Sequence[Sample],
    batch: int = 8,
    predictions: str | Path | None = None,
) -> BoundaryEvaluation:
    """Predicts the lesion of each sample and scores it at the image's own size.

    Args:
        predictor: has `predict`, as `lesion.boundary.BoundaryPredictor`.
        samples: with boundary masks.
        batch: images predicted at once.
        predictions: folder for the masks, also of images without one to compare with
            (`lesion.submission`); None writes none.

    Returns:
        The scores; samples without a mask unless predictions are written, with one of another size
        than their image, or whose image or mask cannot be read, are among its problems.
    """
    evaluation = BoundaryEvaluation()
    predicted = predict_samples(
        *(evaluation, "boundary", predictor.predict, samples, batch, predictions),
        masks_of=lambda boundary: {"segmentation": boundary.mask},
    )
    for sample, image, boundary in predicted:
        truth = read_truth_mask(sample.mask, image.shape)  # type: ignore[arg-type]  # it has one
        if isinstance(truth, Problem):
            evaluation.problems.append(truth)
        else:
            evaluation.samples.append(sample)
            evaluation.scores.append(boundary_metrics(boundary.mask, truth))
            evaluation.empty += not truth.any()
            evaluation.full += bool(truth.all())
    return evaluation


def summarize_boundary(evaluation: BoundaryEvaluation, names: Sequence[str] = ()) -> dict:
    """Means over images as plain values for JSON.

    Args:
        evaluation: what `evaluate_boundary` gave.
        names: of collections that are to be listed even if none of their samples was scored.

    Returns:
        `images` and the means of all images; `datasets`, the same for each collection; `intervals`,
        95 % bootstrap intervals by lesion (by image where the lesion is unknown) for all and for
        each collection; `grouped_by`, in words what these go by; `unscored`, `failed` and
        `problems`; `empty_masks` and `full_masks`, counted among those that are scored. Means of no
        image are null.
    """
    groups = independent_groups(evaluation.samples)
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
        **evaluation.remarks(),
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
    write_table(
        table,
        ["dataset", "image_id", "lesion_id", *METRICS],
        (
            [
                *(sample.collection, sample.image_id, sample.lesion_id or ""),
                *(format(scores[name], ".6f") for name in METRICS),
            ]
            for sample, scores in zip(evaluation.samples, evaluation.scores, strict=True)
        ),
    )
    jaccards = [scores["jaccard"] for scores in evaluation.scores]
    positions = evaluation.by_collection()
    jaccard_histogram(
        {name: [jaccards[i] for i in chosen] for name, chosen in positions.items()}, histogram
    )
    rows = choose_cases(jaccards, _CASES_PER_ROW)
    chosen = [position for row in rows.values() for position in row]
    cases = {}
    again = predict_again(predictor.predict, [evaluation.samples[i] for i in chosen], batch)
    for position, (sample, image, boundary) in zip(chosen, again, strict=True):
        name = sample.key if len(positions) > 1 else sample.image_id
        # There may be photographs among them.
        truth = read_mask(sample.mask)  # type: ignore[arg-type]  # it was scored by one
        shown = for_sheet(image, boundary.mask, truth)
        cases[position] = Case(name, jaccards[position], *shown)
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
    text = aligned(rows)
    for metric, interval in summary["intervals"]["all"].items():
        if interval is not None:
            low, high = interval
            unit = summary["grouped_by"]
            text.append(f"95 % interval of {metric}, by {unit}: {low:.4f} to {high:.4f}")
    if summary["empty_masks"] or summary["full_masks"]:
        text.append(
            f"True masks that are all black: {summary['empty_masks']}, all white: "
            f"{summary['full_masks']}; scored as they are. `lesion dataset` names them."
        )
    return "\n".join(text)
