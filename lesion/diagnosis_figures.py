"""The figures of an evaluation of the diagnosis task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from lesion.calibration import coverage_curve, expected_calibration_error, reliability, top_label
from lesion.figures import SERIES_COLORS, add_notice, save_figure
from lesion.samples import DIAGNOSES


def confusion_figure(confusion: np.ndarray, path: str | Path) -> None:
    """Writes the confusion matrix: counts, shaded by their share of the true category.

    Args:
        confusion: int [7, 7], true categories by decided ones.
        path: of the PNG.
    """
    confusion = np.asarray(confusion)
    totals = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    figure, axis = _figure(6.6, 6.2)
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(confusion.shape):
        if totals[row]:
            axis.text(
                *(column, row, f"{confusion[row, column]:,}\n{shares[row, column]:.0%}"),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[row, column] > 0.55 else "0.15",
            )
    counts = [f"{name} ({total:,})" for name, total in zip(DIAGNOSES, totals[:, 0], strict=True)]
    axis.set_xticks(range(len(DIAGNOSES)), DIAGNOSES)
    axis.set_yticks(range(len(DIAGNOSES)), counts)
    axis.set(xlabel="decided", ylabel="true (images)")
    figure.colorbar(picture, ax=axis, shrink=0.8, label="share of the true category")
    _finish(figure, path)


def roc_figure(labels: np.ndarray, probabilities: np.ndarray, path: str | Path) -> None:
    """Writes the ROC curve of each category against the others, where it has one."""
    figure, axis = _figure(5.6, 5.6)
    axis.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label="chance, area 0.500")
    for number, name in enumerate(DIAGNOSES):
        positive = labels == number
        if positive.all() or not positive.any():
            continue
        false_rate, true_rate, _ = roc_curve(positive, probabilities[:, number])
        area = np.trapezoid(true_rate, false_rate)
        axis.plot(
            *(false_rate, true_rate),
            color=SERIES_COLORS[number],
            linewidth=2.4 if name == "MEL" else 1.4,
            label=f"{name}, area {area:.3f}, {positive.sum():,} images",
        )
    axis.set(xlim=(0, 1), ylim=(0, 1.005), xlabel="1 − specificity", ylabel="sensitivity")
    axis.set_aspect("equal")
    axis.legend(loc="lower right", frameon=False, fontsize=9)
    _finish(figure, path)


def reliability_figure(
    labels: np.ndarray, probabilities: Mapping[str, np.ndarray], path: str | Path
) -> None:
    """Writes reliability diagrams side by side.

    Args:
        labels: int [images].
        probabilities: [images, 7] by title, such as "before" and "after the temperature".
        path: of the PNG.
    """
    figure = Figure(figsize=(4.4 * len(probabilities), 5.0))
    figure.set_layout_engine("constrained", rect=(0, 0.07, 1, 0.93))
    axes = figure.subplots(2, len(probabilities), squeeze=False, height_ratios=[3, 1], sharex=True)
    for (upper, lower), (title, values) in zip(axes.T, probabilities.items(), strict=True):
        table = reliability(values, labels)
        width = table.edges[1] - table.edges[0]
        middles = table.edges[:-1] + width / 2
        upper.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
        upper.bar(middles, table.accuracy, 0.94 * width, color=SERIES_COLORS[0], label="accuracy")
        upper.plot(
            *(table.confidence, table.accuracy),
            *("o",),
            markersize=4,
            color=SERIES_COLORS[1],
            label="at the mean confidence",
        )
        error = expected_calibration_error(values, labels)
        upper.set(ylim=(0, 1), title=f"{title}: calibration error {error:.3f}", ylabel="accuracy")
        upper.legend(loc="upper left", edgecolor="none", framealpha=0.85, fontsize=8)
        lower.bar(middles, table.count, 0.94 * width, color="0.6")
        lower.set(xlim=(0, 1), xlabel="confidence", ylabel="images")
    _finish(figure, path)


def coverage_figure(labels: np.ndarray, probabilities: np.ndarray, path: str | Path) -> None:
    """Writes how accuracy grows as the least confident images are referred."""
    curve = coverage_curve(*top_label(probabilities, labels))
    figure, axis = _figure(6.0, 4.2)
    axis.plot(curve.coverage, curve.accuracy, color=SERIES_COLORS[0])
    lowest = min(curve.accuracy.min(), curve.accuracy[-1])
    axis.set(
        xlim=(0, 1),
        ylim=(max(0, lowest - 0.05), 1.005),
        xlabel="share of images answered",
        ylabel="share of these answered rightly",
    )
    axis.grid(color="0.9")
    _finish(figure, path)


@dataclass(frozen=True)
class Explained:
    """One image with the heat map of what was predicted: uint8 [h, w, 3] and float [side, side]."""

    title: str
    image: np.ndarray
    heat: np.ndarray


def heat_figure(cases: Sequence[Explained], label: str, path: str | Path) -> None:
    """Writes images and, below each, the same with its heat map.

    Args:
        cases: at least one.
        label: what the maps are, written above all.
        path: of the PNG.
    """
    columns = min(6, len(cases))
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(2.2 * max(columns, 3), 0.9 + 4.6 * rows))
    foot = 0.35 / figure.get_figheight()
    figure.set_layout_engine("constrained", rect=(0, foot, 1, 1 - foot))
    figure.suptitle(label, fontsize=11)
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, case in enumerate(cases):
        row, column = divmod(number, columns)
        side = case.heat.shape[0]
        top, left = ((extent - side) // 2 for extent in case.image.shape[:2])
        square = case.image[top : top + side, left : left + side]
        axes[2 * row, column].imshow(square)
        axes[2 * row, column].set_title(case.title, fontsize=8, parse_math=False)
        axes[2 * row + 1, column].imshow(square)
        axes[2 * row + 1, column].imshow(case.heat, cmap="inferno", alpha=0.5, vmin=0, vmax=1)
    _finish(figure, path)


def _figure(width, height):
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", rect=(0, 0.06, 1, 0.94))
    return figure, figure.subplots()


def _finish(figure, path):
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    add_notice(figure)
    save_figure(figure, path)
