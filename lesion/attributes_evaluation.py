"""Scores of the attributes task: the challenge's global index, each attribute's, and the files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lesion.attribute_thresholds import METHODS
from lesion.figures import AttributeCase, attribute_sheet, for_sheet
from lesion.grouping import independent_groups
from lesion.mask_evaluation import MaskEvaluation, predict_again, predict_samples
from lesion.metrics import Confusion, bootstrap_weights, percentile_interval
from lesion.reading import read_truth_mask
from lesion.samples import ATTRIBUTES, Problem, Sample
from lesion.tables import aligned, write_table

_CASES = 8


class AttributesEvaluation(MaskEvaluation):
    """A `MaskEvaluation` whose `scores` are normalised `Confusion`s, by method and attribute.

    Attributes whose mask is missing have none. `unscored` are samples without any mask.
    """

    @property
    def incomplete(self) -> int:
        """Number of scored samples that lack masks of some attributes."""
        return sum(len(scores[METHODS[0]]) < len(ATTRIBUTES) for scores in self.scores)


def evaluate_attributes(
    predictor: Any,
    samples: Sequence[Sample],
    batch: int = 8,
    predictions: str | Path | None = None,
) -> AttributesEvaluation:
    """Predicts the attributes of each sample and scores them at the image's own size.

    Args:
        predictor: a `lesion.attributes.AttributesPredictor`.
        samples: with attribute masks; one that is missing is not scored.
        batch: images predicted at once.
        predictions: folder for the masks of the predictor's own method, also of images without any
            to compare with (`lesion.submission`); None writes none.

    Returns:
        The scores; images that cannot be read, those without any mask unless predictions are
        written, and masks that cannot be read or are of another size than their image, are among
        its problems.
    """
    evaluation = AttributesEvaluation()
    predicted = predict_samples(
        *(evaluation, "attributes", predictor.predict_by_method, samples, batch, predictions),
        masks_of=lambda masks: {f"attribute_{n}": m for n, m in masks[predictor.method].items()},
    )
    for sample, image, masks in predicted:
        truths = _truths(sample, image.shape[:2], evaluation.problems)
        if truths:
            evaluation.samples.append(sample)
            evaluation.scores.append(
                {
                    method: {
                        name: Confusion.of(masks[method][name], truth).normalized
                        for name, truth in truths.items()
                    }
                    for method in METHODS
                }
            )
    return evaluation


def _truths(sample, shape, problems):
    """The masks of a sample that can be scored, by attribute."""
    truths = {}
    for name, path in sample.attributes.items():
        truth = read_truth_mask(path, shape)
        if isinstance(truth, Problem):
            problems.append(truth)
        else:
            truths[name] = truth
    return truths


def summarize_attributes(evaluation: AttributesEvaluation, method: str) -> dict:
    """Scores as plain values for JSON.

    Args:
        evaluation: what `evaluate_attributes` gave.
        method: one of `METHODS`, whose scores are the evaluation's own.

    Returns:
        `images`, `jaccard` (the challenge's, with `interval`, 95 % by lesion), `dice`,
        `attributes` (of each `jaccard` and `dice`, null where no image has a mask of it, `images`,
        `images_present`, `images_predicted`),
        `methods` (the same of every method), `grouped_by` (in words what the interval goes by),
        `unscored`, `incomplete`, `failed` and `problems`, of files.
    """
    tables = {by: _table([scores[by] for scores in evaluation.scores]) for by in METHODS}
    groups = independent_groups(evaluation.samples)
    return {
        "images": len(evaluation.samples),
        **tables[method],
        "interval": _interval([scores[method] for scores in evaluation.scores], groups),
        "method": method,
        "methods": tables,
        "incomplete": evaluation.incomplete,
        **evaluation.remarks(),
    }


def _table(scores: Sequence[Mapping[str, Confusion]]) -> dict:
    if not scores:
        return {"jaccard": None, "dice": None, "attributes": {}}
    attributes = {}
    for name in ATTRIBUTES:
        own = [score[name] for score in scores if name in score]
        total = Confusion.total(own)
        attributes[name] = {
            "jaccard": total.jaccard if own else None,
            "dice": total.dice if own else None,
            "images": len(own),
            "images_present": sum(s.true_positive + s.false_negative > 0 for s in own),
            "images_predicted": sum(s.true_positive + s.false_positive > 0 for s in own),
        }
    total = Confusion.total(c for score in scores for c in score.values())
    return {"jaccard": total.jaccard, "dice": total.dice, "attributes": attributes}


def _interval(scores, groups):
    """95 % bootstrap interval of the global Jaccard index, by whole groups."""
    if not scores:
        return None
    totals = [Confusion.total(score.values()) for score in scores]
    shared = np.array([total.true_positive for total in totals])
    united = shared + [total.false_positive + total.false_negative for total in totals]
    ratios = [
        (weights @ shared) / (weights @ united) if weights @ united else 1.0
        for weights in bootstrap_weights(groups)
    ]
    return list(percentile_interval(ratios))


def format_attributes(summary: Mapping[str, Any]) -> str:
    """The scores as text: a line for each attribute, and a column for each method."""
    if not summary["images"]:
        return "No image could be scored."
    rows = [["attribute", "present", "predicted", "Jaccard", "Dice", *METHODS]]
    methods = summary["methods"]
    for name in ATTRIBUTES:
        own = summary["attributes"][name]
        rows.append(
            [
                name,
                str(own["images_present"]),
                str(own["images_predicted"]),
                _figure(own["jaccard"]),
                _figure(own["dice"]),
                *(_figure(methods[by]["attributes"][name]["jaccard"]) for by in METHODS),
            ]
        )
    whole = [f"{summary['jaccard']:.4f}", f"{summary['dice']:.4f}"]
    whole += [f"{methods[by]['jaccard']:.4f}" for by in METHODS]
    rows.append(["all (global)", "", "", *whole])
    lines = aligned(rows)
    low, high = summary["interval"]
    lines.append(
        f"{summary['images']} images; 95 % interval by {summary['grouped_by']}: {low:.4f} to "
        f"{high:.4f}"
    )
    if summary["incomplete"]:
        lines.append(
            f"{summary['incomplete']} of these images lack masks of some attributes, and are "
            "scored by the others."
        )
    unscored = [n for n, own in summary["attributes"].items() if not own["images"]]
    if unscored:
        lines.append(f"No image has a mask of {', '.join(unscored)}: not scored.")
    never = [
        name
        for name, own in summary["attributes"].items()
        if own["images"] and not own["images_present"]
    ]
    if never:
        lines.append(
            f"Not in any of these images: {', '.join(never)}; a Jaccard index of 1 there says that "
            "it was not predicted either."
        )
    return "\n".join(lines)


def _figure(value):
    return "–" if value is None else f"{value:.4f}"


def write_attributes(
    evaluation: AttributesEvaluation, predictor: Any, out: str | Path, batch: int = 8
) -> list[Path]:
    """Writes `attributes.csv` and `disagreements.png`, the images whose masks differ most.

    Returns:
        The paths written; none where no sample was scored.
    """
    if not evaluation.samples:
        return []
    out, method = Path(out), predictor.method
    table, sheet = out / "attributes.csv", out / "disagreements.png"
    rows = []
    for sample, scores in zip(evaluation.samples, evaluation.scores, strict=True):
        for name, own in scores[method].items():
            truth = own.true_positive + own.false_negative
            predicted = own.true_positive + own.false_positive
            values = [f"{value:.6f}" for value in (own.jaccard, truth, predicted)]
            lesion = sample.lesion_id or ""
            rows.append([sample.collection, sample.image_id, lesion, name, *values])
    header = ["dataset", "image_id", "lesion_id", "attribute", "jaccard", "truth", "predicted"]
    write_table(table, header, rows)

    # What costs most of the global index: pixels that one side marked and the other did not.
    totals = [Confusion.total(scores[method].values()) for scores in evaluation.scores]
    cost = [total.false_positive + total.false_negative for total in totals]
    chosen = sorted(range(len(cost)), key=cost.__getitem__, reverse=True)[:_CASES]
    again = predict_again(predictor.predict, [evaluation.samples[i] for i in chosen], batch)
    cases = []
    for place, (sample, image, found) in zip(chosen, again, strict=True):
        truths = _truths(sample, image.shape[:2], [])
        # There may be photographs among them.
        small, *masks = for_sheet(image, *found.masks.values(), *truths.values())
        predicted = dict(zip(found.masks, masks[: len(found.masks)], strict=True))
        truths = dict(zip(truths, masks[len(found.masks) :], strict=True))
        cases.append(
            AttributeCase(sample.image_id, totals[place].jaccard, small, predicted, truths)
        )
    attribute_sheet(cases, sheet)
    return [table, sheet]
