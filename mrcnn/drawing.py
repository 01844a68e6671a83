"""Boxes, masks and captions on images, and the figures they are drawn in.

The names matterport has are imported from `mrcnn.visualize`.
"""

import colorsys
import functools
import logging
import math
import os
from collections.abc import Sequence, Sized
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends import BackendFilter, backend_registry
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.typing import ColorType as Color
from skimage.measure import find_contours

from mrcnn.files import atomic_path
from mrcnn.images import ImageError, as_rgb8
from mrcnn.masks import CompactMasks, extract_bboxes, one_mask, paste_mask

logger = logging.getLogger(__name__)

SaveTo = str | os.PathLike | None

# plt.show() warns under these.
_BACKENDS_WITHOUT_WINDOWS = backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE)


def random_colors(N: int, bright: bool = True) -> list[tuple[float, float, float]]:
    """N RGB colours in 0..1, evenly spaced in hue, the same in every call.

    Of neighbours in hue one is pale and one is dark, so that colours stay apart under protanopia
    and deuteranopia, too: any two of up to six by a CIEDE2000 difference of 19, for which the
    numbers were chosen. Neighbours in the list are far apart in hue, but for N = 4 and 6.
    """
    # About the golden section of the circle, and coprime to N so that every hue comes up once.
    step = next((s for s in range(round(0.382 * N), N) if math.gcd(s, N) == 1), 1)
    colors = []
    for position in (i * step % N for i in range(N)):
        saturation, value = (1.0, 0.65) if position % 2 else (0.65, 1.0)
        hue = (0.14 + position / N) % 1
        colors.append(colorsys.hsv_to_rgb(hue, saturation, value if bright else 0.7 * value))
    return colors


def apply_mask(
    image: np.ndarray, mask: np.ndarray, color: Sequence[float], alpha: float = 0.5
) -> np.ndarray:
    """Tints the pixels of a mask, in place.

    Args:
        image: [height, width, channels], 0 to 255; the first three channels are changed.
        mask: [height, width]; pixels equal to 1 are tinted.
        color: RGB, 0 to 1.
        alpha: the tint's share, 0 to 1.

    Returns:
        `image` itself.
    """
    inside = np.asarray(mask) == 1
    tint = np.array([alpha * part * 255 for part in color[:3]])
    image[inside, :3] = image[inside, :3] * (1 - alpha) + tint
    return image


def draw_box(image: np.ndarray, box: Sequence[int], color: Sequence[int]) -> np.ndarray:
    """Draws lines two pixels wide along the sides of a box, in place.

    Args:
        image: [height, width, channels].
        box: (y1, x1, y2, x2) in pixels, where the lines begin; what lies outside is left out.
        color: one value per channel, on the image's scale.

    Returns:
        `image` itself.
    """
    y1, x1, y2, x2 = (int(side) for side in box[:4])
    for top, left, bottom, right in (
        (y1, x1, y1 + 2, x2),
        (y2, x1, y2 + 2, x2),
        (y1, x1, y2, x1 + 2),
        (y1, x2, y2, x2 + 2),
    ):
        # A negative index would count from the other end of the image.
        image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = color
    return image


def draw_rois(
    image: np.ndarray,
    rois: np.ndarray,
    refined_rois: np.ndarray,
    mask: np.ndarray,
    class_ids: np.ndarray,
    class_names: Sequence[str],
    limit: int = 10,
    *,
    save_to: SaveTo = None,
) -> Axes:
    """Shows regions, what they were refined to and their masks, and returns the axes.

    Background is grey. The title tells how many regions there are of either kind.

    Args:
        image: as of `display_instances`.
        rois, refined_rois: int [regions, (y1, x1, y2, x2)] in pixels.
        mask: [regions, height, width], 0 to 1, each filling its region.
        class_ids: int [regions]; 0 is background.
        class_names: names by class id.
        limit: how many regions to show, drawn by lot but the same ones in every call.
        save_to: file to write.

    Raises:
        ValueError: if lengths do not fit one another, or a class has no name.
    """
    count = len(rois)
    check_counts(
        "rois", count, refined_rois=len(refined_rois), mask=len(mask), class_ids=len(class_ids)
    )
    rows = np.arange(count)
    if count > limit:
        rows = np.sort(np.random.default_rng(0).choice(rows, limit, replace=False))
    masks = np.zeros((*image.shape[:2], len(rows)), bool)
    for place, row in enumerate(rows):
        if class_ids[row]:
            masks[:, :, place] = paste_mask(mask[row], rois[row][:4], image.shape)
    positive = np.count_nonzero(class_ids)
    return draw_boxes(
        image,
        np.take(rois, rows, axis=0),
        np.take(refined_rois, rows, axis=0),
        masks,
        captions=[class_name(class_names, i) if i else "" for i in np.take(class_ids, rows)],
        visibilities=[1 if i else 0 for i in np.take(class_ids, rows)],
        title=f"{len(rows)} of {count} ROIs; {positive} are positive "
        f"({positive / max(count, 1):.0%}), {count - positive} negative",
        save_to=save_to,
    )


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray | None = None,
    refined_boxes: np.ndarray | None = None,
    masks: np.ndarray | CompactMasks | None = None,
    captions: Sequence[str] | None = None,
    visibilities: Sequence[int] | None = None,
    title: str = "",
    ax: Axes | None = None,
    *,
    save_to: SaveTo = None,
) -> Axes:
    """Draws boxes and what they were refined to, and returns the axes.

    Args:
        image: as of `display_instances`.
        boxes: [n, (y1, x1, y2, x2)] in pixels, or None; those all zero are left out.
        refined_boxes: as `boxes`, drawn solid and joined to them by a line.
        masks: [height, width, n], or None.
        captions: one per box.
        visibilities: one per box: 0 is grey and shows no refined box, 1 coloured and dotted, 2
            coloured and solid. 1 by default.
        title: above the image.
        ax: matplotlib's axes to draw on.
        save_to: file to write.

    Raises:
        ValueError: if there are no boxes of either kind, lengths or sizes do not fit one another,
            or a visibility is none of 0, 1 and 2.
    """
    either = refined_boxes if boxes is None else boxes
    if either is None:
        raise ValueError("draw_boxes needs boxes, refined_boxes or both; received neither.")
    count = len(either)
    check_at_least(
        "boxes", count, refined_boxes=refined_boxes, captions=captions, visibilities=visibilities
    )
    picture = as_picture(image)
    if masks is not None:
        check_counts("boxes", count, masks=masks.shape[-1])
        check_masks(masks, picture)
    axes = new_axes(picture, title, (12, 12), ax, save_to, margin=0.1)
    colors = random_colors(count)
    for i in range(count):
        visibility = 1 if visibilities is None else visibilities[i]
        if visibility not in (0, 1, 2):
            raise ValueError(f"A visibility is 0, 1 or 2; received {visibility!r} for box {i}.")
        color = colors[i] if visibility else "gray"
        labelled = None
        if boxes is not None:
            if not np.any(boxes[i]):  # lost when the image was cropped
                continue
            labelled = boxes[i][:4]
            draw_rectangle(
                axes,
                labelled,
                color,
                linestyle="solid" if visibility == 2 else "dotted",
                alpha=1 if visibility else 0.5,
            )
        if refined_boxes is not None and visibility:
            labelled = refined_boxes[i][:4]
            draw_rectangle(axes, labelled, color)
            if boxes is not None:
                (y1, x1), (y2, x2) = boxes[i][:2], labelled[:2]
                axes.plot([x1 - 0.5, x2 - 0.5], [y1 - 0.5, y2 - 0.5], color=color)
        if captions is not None and labelled is not None:
            draw_caption(axes, picture, labelled, captions[i], color)
        if masks is not None:
            draw_mask(axes, picture, one_mask(masks, i), color)
    axes.imshow(picture)
    save_or_show(axes.figure, save_to, show=False)
    return axes


def as_picture(image: np.ndarray) -> np.ndarray:
    """An image to draw on, uint8 [height, width, 3], a copy.

    As `mrcnn.images.as_rgb8` makes it; numbers out of range, as of a molded image, are cut to 0
    and 255 with a warning: whoever looks at a picture sees what it is of. Of more channels than
    four the first three are shown as RGB, and of two the first as grey, which is said once.

    Raises:
        mrcnn.images.ImageError: for another shape or type, or numbers that are not finite.
    """
    try:
        return np.array(as_rgb8(image))
    except ImageError:
        values = np.asarray(image)
        if values.ndim == 3 and values.shape[2] not in (0, 1, 3, 4):
            shown = 3 if values.shape[2] > 4 else 1
            _warn_of_channels(values.shape[2], shown)
            return as_picture(values[:, :, :shown])
        if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
            raise
        cut = np.clip(values.astype(float), 0, 255)
        picture = np.array(as_rgb8(cut if values.dtype.kind == "f" else cut.astype(np.uint8)))
        logger.warning(
            "The image holds %s values from %.5g to %.5g; they are drawn cut to 0 to 255. Draw it "
            "as it was before, or what mrcnn.model.unmold_image makes of it.",
            *(values.dtype, values.min(), values.max()),
        )
        return picture


@functools.cache  # so that it is said once
def _warn_of_channels(count, shown):
    logger.warning("An image of %d channels is no picture: its first %d are drawn.", count, shown)


def new_figure(size: tuple[float, float], save_to: str | os.PathLike | None) -> Figure:
    """A figure of `size` inches; one that is only written to a file stays out of pyplot."""
    make = plt.figure if save_to is None else Figure
    return make(figsize=size, layout="constrained")


def new_axes(
    picture: np.ndarray,
    title: str,
    size: tuple[float, float],
    ax: Axes | None,
    save_to: str | os.PathLike | None,
    margin: float,
) -> Axes:
    """`ax`, or the axes of a new figure, for a picture and a margin, a share of its side."""
    axes = new_figure(size, save_to).subplots() if ax is None else ax
    height, width = picture.shape[:2]
    margin = margin * max(height, width)
    axes.set(xlim=(-margin, width + margin), ylim=(height + margin, -margin))
    axes.axis("off")
    axes.set_title(title, wrap=True, parse_math=False)
    return axes


def save_or_show(
    figure: Figure | SubFigure, save_to: str | os.PathLike | None, show: bool = True
) -> None:
    """Writes a figure to a file, or opens its window where matplotlib can and `show` is set.

    Raises:
        ValueError: if the file's suffix names no format of matplotlib.
    """
    if save_to is not None:
        if not Path(save_to).suffix:
            raise ValueError(f"save_to needs a suffix such as .png or .pdf; received {save_to}.")
        with atomic_path(save_to) as temporary:
            # All of it, where somebody's axes are in a part of a figure.
            figure.figure.savefig(temporary, bbox_inches="tight")
    elif show and plt.get_backend().lower() not in _BACKENDS_WITHOUT_WINDOWS:
        plt.show()


def draw_rectangle(axes: Axes, box: Sequence[float], color: Color, **style) -> None:
    """The box (y1, x1, y2, x2) around the pixels it holds; `style` as of matplotlib's patches."""
    y1, x1, y2, x2 = box[:4]
    # Integers are the centres of pixels in matplotlib, and their upper left corners in boxes.
    corner = x1 - 0.5, y1 - 0.5
    size = x2 - x1, y2 - y1
    axes.add_patch(
        Rectangle(corner, *size, linewidth=2, edgecolor=color, facecolor="none", **style)
    )


def draw_mask(
    axes: Axes, picture: np.ndarray, mask: np.ndarray, color: Color, tinted: bool = True
) -> None:
    """Outlines a mask [height, width] on the axes, and tints it in the picture, in place."""
    inside = mask > 0.5
    y1, x1, y2, x2 = extract_bboxes(inside[:, :, np.newaxis])[0]
    inside = inside[y1:y2, x1:x2]
    if tinted:
        apply_mask(picture[y1:y2, x1:x2], inside, to_rgb(color))
    # Padded, so that an outline is closed where the mask touches the edge of the image.
    for line in find_contours(np.pad(inside, 1).astype(float), 0.5):
        # add_patch would search the limits of each line, which are known, at great cost.
        axes.add_artist(
            Polygon(
                line[:, ::-1] + (x1 - 1, y1 - 1),
                facecolor="none",
                edgecolor=color,
                linewidth=1.5,
                path_effects=[withStroke(linewidth=3, foreground="black", alpha=0.5)],
            )
        )


def draw_caption(
    axes: Axes, picture: np.ndarray, box: Sequence[float], caption: str, color: Color
) -> None:
    """Writes on a ground of `color` above a box, or inside where there is no room above.

    The text begins or ends at that side of the box from which it runs towards the image's middle.
    """
    if not caption:
        return
    y1, x1, _, x2 = box[:4]
    height, width = picture.shape[:2]
    to_left = x1 + x2 > width
    red, green, blue = to_rgb(color)
    axes.text(
        x2 - 0.5 if to_left else x1 - 0.5,
        y1 - 0.5,
        caption,
        size=11,
        color="black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white",
        horizontalalignment="right" if to_left else "left",
        verticalalignment="bottom" if y1 > 0.05 * height else "top",
        wrap=True,
        parse_math=False,
        bbox={"facecolor": color, "alpha": 0.8, "edgecolor": "none", "pad": 2},
    )


def class_name(class_names: Sequence[str] | None, class_id: int) -> str:
    """The name of a class; a crowd has the negative id of its class.

    Raises:
        ValueError: if the class has no name.
    """
    names = [] if class_names is None else class_names
    try:
        return str(names[abs(int(class_id))])
    except (IndexError, KeyError, TypeError):
        known = "is not given" if class_names is None else f"has {len(class_names)} names"
        raise ValueError(
            f"Class {class_id} has no name: class_names {known}. They begin with the background "
            "(id 0), as Dataset.class_names does."
        ) from None


def check_counts(name: str, count: int, **lengths: int) -> None:
    """Raises a ValueError unless all lengths are `count`, that of what `name` names."""
    for other, length in lengths.items():
        if length != count:
            raise ValueError(
                f"There are {count} {name} but {length} {other}; there must be as many."
            )


def check_at_least(name: str, count: int, **values: Sized | None) -> None:
    """Raises a ValueError if anything given is shorter than `count`; as `check_counts` else."""
    given = {other: len(value) for other, value in values.items() if value is not None}
    check_counts(name, count, **{other: min(length, count) for other, length in given.items()})


def check_masks(masks: np.ndarray | CompactMasks, picture: np.ndarray) -> None:
    """Raises a ValueError unless masks [height, width, instances] are of the picture's size."""
    if masks.shape[:2] != picture.shape[:2]:
        raise ValueError(
            f"The masks' shape {masks.shape} does not begin with the image's {picture.shape[:2]}. "
            "Mini masks are brought to its size by mrcnn.utils.expand_mask."
        )
