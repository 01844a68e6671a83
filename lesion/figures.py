"""Figures of an evaluation, with the notice: sheets of cases, histograms, and what others share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Stroke, withStroke
from matplotlib.text import Text
from PIL import Image

from lesion import NOTICE
from lesion.attribute_overlay import ATTRIBUTE_COLORS, ATTRIBUTE_LABELS, DASHED, attribute_overlay
from lesion.metrics import THRESHOLD
from lesion.overlay import DASH, GAP, PREDICTION_COLOR, TRUTH_COLOR, boundary_overlay
from lesion.reading import chunks
from lesion.samples import printable
from mrcnn.files import atomic_path
from mrcnn.images import fitted_size

SERIES_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_PICTURE_SIDE = 420


@dataclass(frozen=True)
class Case:
    """One image of a contact sheet: uint8 `[height, width, 3]` and bool `[height, width]`."""

    name: str
    jaccard: float
    image: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class AttributeCase:
    """One image of an attribute sheet.

    Attributes:
        jaccard: of the case, as whoever compares cases reckons it.
        image: uint8 `[height, width, 3]`.
        prediction: bool `[height, width]` by attribute; one that is not named is blank.
        truth: likewise.
    """

    name: str
    jaccard: float
    image: np.ndarray
    prediction: Mapping[str, np.ndarray]
    truth: Mapping[str, np.ndarray]


def contact_sheet(cases: Mapping[str, Sequence[Case]], path: str | Path) -> None:
    """Writes a figure with one row of images for each group of cases.

    Args:
        cases: the cases of each row by the row's title, such as "worst"; empty rows are left out.
        path: of the PNG.

    Raises:
        ValueError: there is no case.
    """
    _picture_sheet(
        [
            (title, [(_picture(case), _caption(case)) for case in row])
            for title, row in cases.items()
        ],
        [
            _legend_line(TRUTH_COLOR, "true boundary", 4.4),
            _legend_line(PREDICTION_COLOR, "predicted boundary", 2.2),
        ],
        path,
    )


def _picture_sheet(
    rows: Sequence[tuple[str, Sequence[tuple[np.ndarray, str]]]],
    legend: Sequence[Line2D],
    path: str | Path,
) -> None:
    """Writes a figure with rows of pictures, and the notice.

    Args:
        rows: a title, which may be empty, and pictures uint8 `[height, width, 3]` with a caption
            each; rows without a picture are left out.
        legend: lines with their labels.
        path: of the PNG.

    Raises:
        ValueError: there is no picture.
    """
    rows = [(title, row) for title, row in rows if row]
    if not rows:
        raise ValueError("A contact sheet needs at least one case, received none.")
    columns = max(len(row) for _, row in rows)
    figure = Figure(figsize=(0.5 + 2.9 * max(columns, 2), 0.9 + 2.6 * len(rows)))
    foot, head = 0.35 / figure.get_figheight(), 0.4 / figure.get_figheight()
    figure.set_layout_engine("constrained", rect=(0, foot, 1, 1 - foot - head))
    axes = figure.subplots(len(rows), max(columns, 2), squeeze=False)
    for line, (title, row) in zip(axes, rows, strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(title, fontsize=12, fontweight="bold")
        for axis, (picture, caption) in zip(line, row, strict=False):
            axis.imshow(picture, interpolation="nearest")
            axis.set_xlabel(caption, fontsize=9, parse_math=False)
    figure.legend(handles=legend, loc="upper center", ncols=len(legend), frameon=False)
    add_notice(figure)
    save_figure(figure, path)


def jaccard_histogram(values_by_name: Mapping[str, Sequence[float]], path: str | Path) -> None:
    """Writes a histogram of the Jaccard index per image, a line for each data set.

    Shares of images are shown, so that data sets of different size can be compared.

    Args:
        values_by_name: the Jaccard index, 0..1, of each image of each data set.
        path: of the PNG.

    Raises:
        ValueError: there is no value.
    """
    series = {name: np.asarray(v, float) for name, v in values_by_name.items() if len(v)}
    if not series:
        raise ValueError("A histogram needs at least one value, received none.")
    figure = Figure(figsize=(7.2, 4.4))
    figure.set_layout_engine("constrained", rect=(0, 0.07, 1, 0.93))
    axis = figure.subplots()
    bins = np.linspace(0, 1, 41).tolist()
    for number, (name, values) in enumerate(series.items()):
        color = SERIES_COLORS[number % len(SERIES_COLORS)]
        failed = np.mean(values < THRESHOLD)
        label = (
            f"{name}: {len(values):,} images, median {np.median(values):.3f}, "
            f"{failed:.1%} below {THRESHOLD}"
        )
        shares = np.full(len(values), 100 / len(values))
        if len(series) == 1:
            axis.hist(values, bins, weights=shares, color=color, alpha=0.25)
        axis.hist(
            values,
            bins,
            weights=shares,
            color=color,
            histtype="step",
            linewidth=1.8,
            label=f"\u200b{label}",  # a legend reads "_" at the beginning as "do not show"
        )
    axis.axvline(THRESHOLD, color="0.35", linestyle="--", linewidth=1)
    axis.annotate(
        "scored 0 left of this line",
        (THRESHOLD, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-6, -6),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=9,
        color="0.35",
    )
    axis.set(xlim=(0, 1), xlabel="Jaccard index of an image", ylabel="images, %")
    axis.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(loc="outside upper left", frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    add_notice(figure)
    save_figure(figure, path)


def attribute_sheet(cases: Sequence[AttributeCase], path: str | Path) -> None:
    """Writes a figure of cases, two a row: each one's truth, and beside it its prediction.

    Args:
        cases: in the order in which they are shown.
        path: of the PNG.

    Raises:
        ValueError: there is no case, or a case's masks are not as `attribute_overlay` wants them.
    """
    pictures = []
    for case in cases:
        score = f"predicted, Jaccard {case.jaccard:.3f}"
        pictures.append((_attribute_picture(case.image, case.truth), f"{case.name}\ntrue"))
        pictures.append((_attribute_picture(case.image, case.prediction), f"{case.name}\n{score}"))
    rows = [("", row) for row in chunks(pictures, 4)]
    legend = [
        _legend_line(color, ATTRIBUTE_LABELS[name], 2.2, name in DASHED)
        for name, color in ATTRIBUTE_COLORS.items()
    ]
    _picture_sheet(rows, legend, path)


def _attribute_picture(image: np.ndarray, masks: Mapping[str, np.ndarray]) -> np.ndarray:
    image, *reduced = for_sheet(image, *masks.values())
    return attribute_overlay(image, dict(zip(masks, reduced, strict=True)), legend=False)


def _picture(case: Case) -> np.ndarray:
    image, prediction, truth = for_sheet(case.image, case.prediction, case.truth)
    return boundary_overlay(image, prediction, truth)


def _caption(case: Case) -> str:
    failed = f" (below {THRESHOLD})" if case.jaccard < THRESHOLD else ""
    return f"{case.name}\nJaccard {case.jaccard:.3f}{failed}"


def for_sheet(image: np.ndarray, *masks: np.ndarray) -> list[np.ndarray]:
    """An image and its masks at a sheet's resolution, so that lines are equally wide on all.

    What has that resolution stays as it is.
    """
    height, width = image.shape[:2]
    size = fitted_size(width, height, _PICTURE_SIDE)
    method = Image.Resampling.BILINEAR
    return [np.asarray(Image.fromarray(image).resize(size, method))] + [
        np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, method)) > 127
        for mask in masks
    ]


def _legend_line(
    color: tuple[int, int, int], label: str, width: float, dashed: bool = False
) -> Line2D:
    """What a legend shows of an outline."""
    red, green, blue = (value / 255 for value in color)
    return Line2D(
        [],
        [],
        color=(red, green, blue),
        linewidth=width,
        linestyle=(0, (DASH / 2, GAP / 2)) if dashed else "-",
        label=label,
        path_effects=[Stroke(linewidth=width + 1.6, foreground="0.1"), withStroke(linewidth=0)],
    )


def add_notice(figure: Figure) -> None:
    """Writes the notice below a figure, which must leave 0.35 inches for it."""
    figure.text(0.5, 0.1 / figure.get_figheight(), NOTICE, ha="center", fontsize=9, color="0.3")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a PNG."""
    for text in figure.findobj(Text):  # names of files among it
        text.set_text(printable(text.get_text()))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
