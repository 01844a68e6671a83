"""Outlines of dermoscopic attributes on images, with a legend.

One colour for each attribute everywhere. Among themselves, and from the colours of boundaries, they
lie at least 16 apart (CIEDE2000) in normal vision, protanopia, deuteranopia and tritanopia (Machado
et al. 2009), and at least 7 from any skin or pigment, mostly more than 16; a dark edge parts them
from the rest, and the negative network's line is broken as well.
"""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lesion.overlay import DASH, GAP, PREDICTION_COLOR, boundary_overlay, outline
from lesion.samples import ATTRIBUTES

ATTRIBUTE_COLORS = {
    "pigment_network": (255, 255, 255),
    "negative_network": (153, 153, 153),
    "streaks": (0, 102, 255),
    "milia_like_cyst": (204, 0, 153),
    "globules": (102, 153, 0),
}
ATTRIBUTE_LABELS = {
    "pigment_network": "pigment network",
    "negative_network": "negative network",
    "streaks": "streaks",
    "milia_like_cyst": "milia-like cysts",
    "globules": "globules",
}
DASHED = ("negative_network",)
# The image's longer side over a line's width, and over the size of the legend's letters.
_SIDE_PER_WIDTH = 256
_MIN_WIDTH = 2.0
_SIDE_PER_LETTER = 36
_MIN_LETTER, _LEAST_LETTER = 12, 7
_STRIP_COLOR, _TEXT_COLOR = (40, 40, 40), (235, 235, 235)


def attribute_overlay(
    image: np.ndarray,
    masks: Mapping[str, np.ndarray],
    boundary: np.ndarray | None = None,
    legend: bool = True,
) -> np.ndarray:
    """Draws the outlines of attributes, and below the image a legend of those that are present.

    Args:
        image: uint8 `[height, width, 3]`; it is not changed.
        masks: bool `[height, width]` by names of `ATTRIBUTES`.
        boundary: the lesion's mask, bool `[height, width]`, drawn as `boundary_overlay` does and
            below the rest; or None.
        legend: whether the legend is added.

    Returns:
        uint8 `[height + strip, width, 3]`: the image's size, and below it the legend's strip.

    Raises:
        ValueError: a name is no attribute's, or a mask is not bool or not of the image's size.
    """
    unknown = [name for name in masks if name not in ATTRIBUTE_COLORS]
    if unknown:
        raise ValueError(
            f"`masks` are named {', '.join(ATTRIBUTES)}; received {', '.join(map(str, unknown))}."
        )
    for name, mask in masks.items():
        if mask.dtype != np.dtype(bool) or mask.shape != image.shape[:2]:
            raise ValueError(
                f"The mask of {name} must be bool and as large as the image, received "
                f"{mask.dtype} {mask.shape} for an image {image.shape}."
            )
    width = max(_MIN_WIDTH, max(image.shape[:2]) / _SIDE_PER_WIDTH)
    entries: list[tuple[tuple[int, int, int] | None, str, bool]] = []
    drawn = image
    if boundary is not None:
        drawn = boundary_overlay(drawn, boundary)
        if boundary.any():
            entries.append((PREDICTION_COLOR, "boundary", False))
    for name in ATTRIBUTES:
        if name in masks:
            color, dashed = ATTRIBUTE_COLORS[name], name in DASHED
            drawn = outline(drawn, masks[name], color, width, dashed)
            if masks[name].any():
                entries.append((color, ATTRIBUTE_LABELS[name], dashed))
    if not any(mask.any() for mask in masks.values()):
        entries.append((None, "none of the attributes", False))
    if not legend:
        return drawn.copy() if drawn is image else drawn
    return np.concatenate([drawn, _legend(entries, image.shape, width)])


def _legend(entries: list[tuple], shape: tuple, line_width: float) -> np.ndarray:
    """A strip of the image's width, uint8, with a piece of line and a label for each entry."""
    columns = shape[1]
    wanted = max(_MIN_LETTER, max(shape[:2]) / _SIDE_PER_LETTER)
    longest = max(_entry_width(entry, wanted) for entry in entries)
    letter = max(_LEAST_LETTER, wanted * min(1, columns / longest))
    font, margin, height = ImageFont.load_default(letter), round(0.5 * letter), round(1.5 * letter)
    places, x, row = [], 0.0, 0
    for entry in entries:
        space = _entry_width(entry, letter)
        if x and x + space > columns:
            x, row = 0, row + 1
        places.append((x, row))
        x += space
    strip = Image.new("RGB", (columns, (row + 1) * height + margin), _STRIP_COLOR)
    draw = ImageDraw.Draw(strip)
    thick = max(2, round(1.3 * line_width))
    for (color, label, dashed), (x, row) in zip(entries, places, strict=True):
        left, middle = x + margin, margin // 2 + (row + 0.5) * height
        if color is not None:
            end, dash, gap = left + 2 * letter, DASH * thick, GAP * thick
            starts = np.arange(left, end, dash + gap) if dashed else [left]
            for start in starts:
                stop = min(end, start + dash) if dashed else end
                draw.line([(start, middle), (stop, middle)], fill=color, width=thick)
            left = end + margin
        draw.text((left, middle), label, fill=_TEXT_COLOR, font=font, anchor="lm")
    return np.asarray(strip)


def _entry_width(entry: tuple, letter: float) -> float:
    """Width in pixels of a line's piece, a label, and the space around them."""
    color, label, _ = entry
    piece = 0.0 if color is None else 2.5 * letter
    return piece + ImageFont.load_default(letter).getlength(label) + 1.5 * letter
