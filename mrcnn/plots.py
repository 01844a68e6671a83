"""The curve and the overlaps of one image's evaluation, and the confusion of a data set's."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from mrcnn.drawing import (
    SaveTo,
    check_at_least,
    check_counts,
    class_name,
    new_figure,
    save_or_show,
)


def plot_precision_recall(
    AP: float, precisions: ArrayLike, recalls: ArrayLike, *, save_to: SaveTo = None
) -> Axes:
    """Plots the curve that `mrcnn.evaluate.compute_ap` returns, and returns the axes."""
    axes = new_figure((6.4, 4.8), save_to).subplots()
    axes.plot(recalls, precisions)
    axes.set(xlim=(0, 1.1), ylim=(0, 1.1), xlabel="Recall", ylabel="Precision")
    axes.set_title(f"Precision-Recall Curve. AP@50 = {AP:.3f}")
    save_or_show(axes.figure, save_to, show=False)
    return axes


def plot_overlaps(
    gt_class_ids: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: Sequence[float] | np.ndarray,
    overlaps: np.ndarray,
    class_names: Sequence[str] | None,
    threshold: float = 0.5,
    *,
    save_to: SaveTo = None,
) -> Axes:
    """Plots a grid of the overlaps of predictions and ground truth, and returns the axes.

    Args:
        gt_class_ids: int [instances]; zeros are padding.
        pred_class_ids: int [predictions], in the order of `overlaps`; zeros are padding.
        pred_scores: float [predictions].
        overlaps: [predictions, instances], as `mrcnn.evaluate.compute_matches` returns them.
        class_names: names by class id.
        threshold: overlap above which a cell says "match", or "wrong" if the classes differ.
        save_to: file to write.

    Raises:
        ValueError: if lengths do not fit one another, or a class has no name.
    """
    gt_class_ids, pred_class_ids, overlaps = map(
        np.asarray, (gt_class_ids, pred_class_ids, overlaps)
    )
    gt_class_ids = gt_class_ids[gt_class_ids != 0]
    pred_class_ids = pred_class_ids[pred_class_ids != 0]
    predictions, instances = overlaps.shape
    check_counts("rows of overlaps", predictions, pred_class_ids=len(pred_class_ids))
    check_counts("columns of overlaps", instances, gt_class_ids=len(gt_class_ids))
    check_at_least("rows of overlaps", predictions, pred_scores=pred_scores)
    axes = new_figure((12, 10), save_to).subplots()
    if overlaps.size:
        axes.imshow(overlaps, interpolation="nearest", cmap="Blues")
    axes.set(xlabel="Ground truth", ylabel="Predictions")
    axes.set_xticks(
        range(len(gt_class_ids)),
        [class_name(class_names, i) for i in gt_class_ids],
        rotation=90,
        parse_math=False,
    )
    axes.set_yticks(
        range(len(pred_class_ids)),
        [
            f"{class_name(class_names, i)} ({score:.2f})"
            for i, score in zip(pred_class_ids, pred_scores, strict=False)
        ],
        parse_math=False,
    )
    for (row, column), overlap in np.ndenumerate(overlaps):
        verdict = ""
        if overlap > threshold:
            same = gt_class_ids[column] == pred_class_ids[row]
            verdict = "match" if same else "wrong"
        axes.text(
            column,
            row,
            f"{overlap:.3f}\n{verdict}",
            horizontalalignment="center",
            verticalalignment="center",
            fontsize=9,
            color="white" if overlap > overlaps.max() / 2 else "black" if overlap else "gray",
        )
    save_or_show(axes.figure, save_to, show=False)
    return axes


def plot_confusion_matrix(
    counts: np.ndarray, class_names: Sequence[str], *, save_to: SaveTo = None
) -> Axes:
    """Plots which class instances were found as, and returns the axes.

    Cells hold counts and are shaded by their share of the row: of the true class, or of what was
    detected where there is nothing.

    Args:
        counts: int [classes, classes], as `mrcnn.coco_metrics.confusion_matrix` gives them: rows
            by the true class, columns by the detected one, the first of both for nothing.
        class_names: names by class id, the background's first.
        save_to: file to write.

    Raises:
        ValueError: if counts are not square, or the number of names is another.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(
            f"counts must be of shape [classes, classes]; received {counts.shape}. "
            "mrcnn.coco_metrics.confusion_matrix gives them."
        )
    check_counts("rows of counts", len(counts), class_names=len(class_names))
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, np.newaxis]
    side = min(3 + 0.55 * len(counts), 40)
    axes = new_figure((side + 1, side), save_to).subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the row")
    axes.set(xlabel="Detected", ylabel="Ground truth")
    names = [str(name) for name in class_names[1:]]
    axes.set_xticks(range(len(counts)), ["not found", *names], rotation=90, parse_math=False)
    labels = [
        f"{name} ({total:,})" for name, total in zip(["nothing", *names], totals, strict=True)
    ]
    axes.set_yticks(range(len(counts)), labels, parse_math=False)
    for row, column in zip(*np.nonzero(counts), strict=True):
        axes.text(
            column,
            row,
            f"{counts[row, column]:,}",
            horizontalalignment="center",
            verticalalignment="center",
            fontsize=9,
            color="white" if shares[row, column] > 0.5 else "black",
        )
    save_or_show(axes.figure, save_to, show=False)
    return axes
