"""Lesion outlines on images.

Outlines, not tinted areas: whoever judges a boundary must see the skin on both sides of it. Yellow
and sky blue (Okabe and Ito 2008) stay apart for every common kind of colour blindness and in grey;
a thin dark edge keeps both readable on pale and on dark skin.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.measure import find_contours

from mrcnn.masks import mask_extent

PREDICTION_COLOR = (86, 180, 233)
TRUTH_COLOR = (240, 228, 66)
_EDGE_COLOR = (16, 16, 16)
_EDGE_OPACITY = 0.65
# The image's longer side over the width of a line. Below 2 pixels a line would be a mixture with
# its dark edge.
_SIDE_PER_WIDTH = 200
_MIN_WIDTH = 2.0
# Lengths of a dash and of the gap after it, in widths of the line.
DASH, GAP = 3.5, 2.5
# Reach of a line, in pixels, beyond which half a pixel does not show.
_WIDE = 8
# So many visits of a pixel on average take as long as a distance transform of the image.
_MANY = 16


def outline(
    image: np.ndarray,
    mask: np.ndarray,
    color: tuple[int, int, int],
    width: float,
    dashed: bool = False,
) -> np.ndarray:
    """Draws the boundary of a mask, smoothly and with a thin dark edge on both sides.

    The line is centred between the last pixel inside and the first outside; where the mask
    touches the frame, the line runs along the frame.

    Args:
        image: uint8 `[height, width, 3]`; it is not changed.
        mask: bool `[height, width]`.
        color: RGB, 0 to 255.
        width: of the coloured line, in pixels, at least 1.
        dashed: whether the line is broken, so that another below it shows.

    Returns:
        A new uint8 image.

    Raises:
        ValueError: the mask is not bool or not of the image's size, or `width` is below 1.
    """
    if mask.dtype != np.dtype(bool) or mask.shape != image.shape[:2]:
        raise ValueError(
            "`mask` must be bool and as large as the image, "
            f"received {mask.dtype} {mask.shape} for an image {image.shape}."
        )
    if width < 1:
        raise ValueError(f"`width` must be at least 1 pixel, received {width}.")
    drawn = image.copy()
    if not mask.any():
        return drawn
    edge = max(0.8, width / 4)
    dash = (DASH * width, GAP * width) if dashed else None
    window, distance = _distance_to_boundary(mask, width / 2 + edge + 1, dash)
    near = np.nonzero(distance < width / 2 + edge + 0.5)
    distance = distance[near]
    pixels = drawn[window][near].astype(np.float32)
    for layer, half, opacity in (
        (_EDGE_COLOR, width / 2 + edge, _EDGE_OPACITY),
        (color, width / 2, 1.0),
    ):
        cover = opacity * np.clip(half + 0.5 - distance, 0, 1)[:, np.newaxis]
        pixels += cover * (np.asarray(layer, np.float32) - pixels)
    drawn[window][near] = np.rint(pixels)
    return drawn


def boundary_overlay(
    image: np.ndarray, prediction: np.ndarray, truth: np.ndarray | None = None
) -> np.ndarray:
    """Draws the predicted boundary and, below it and wider, the true one.

    Args:
        image: uint8 `[height, width, 3]`.
        prediction: bool `[height, width]`.
        truth: bool `[height, width]`, or None.

    Returns:
        uint8, of the image's size. The width of the lines follows that size.
    """
    width = max(_MIN_WIDTH, max(image.shape[:2]) / _SIDE_PER_WIDTH)
    if truth is not None:
        # Where both agree the truth still shows as a rim on either side of the prediction.
        image = outline(image, truth, TRUTH_COLOR, 2 * width)
    return outline(image, prediction, PREDICTION_COLOR, width)


def _distance_to_boundary(
    mask: np.ndarray, reach: float, dash: tuple[float, float] | None = None
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Distance of pixels to the mask's boundary, exact up to `reach` and more than that beyond.

    Of a very long boundary in a large image, for wide lines, it is half a pixel more than that to
    the pixels beside it: visiting the surroundings of every point would take many seconds.
    With `dash` the boundary is cut into pieces of the first length with gaps of the second.

    Returns:
        the part of the image that was looked at, and float32 distances in it.
    """
    margin = int(np.ceil(reach))
    top, left, bottom, right = mask_extent(mask)
    top, left = max(top - margin, 0), max(left - margin, 0)
    window = (
        slice(top, min(bottom + margin, mask.shape[0])),
        slice(left, min(right + margin, mask.shape[1])),
    )
    # The added frame of False makes the image's border a boundary, too, and has room for whatever
    # is within reach of it.
    frame = margin + 1
    padded = np.pad(mask[window], frame)
    below, right = _sides(padded) if dash is None else _dashed_sides(padded, *dash)
    stride = padded.shape[1]
    inside = np.s_[frame:-frame, frame:-frame]
    if margin > _WIDE and (len(below) + len(right)) * (2 * margin) ** 2 > _MANY * padded.size:
        apart = np.ones(padded.size, bool)
        for beside in (below, below + stride, right, right + 1):
            apart[beside] = False
        distance = distance_transform_edt(apart.reshape(padded.shape)) + 0.5
        return window, distance[inside].astype(np.float32)
    distance = np.full(padded.size, np.inf, np.float32)
    # Only pixels near the line are visited: a distance transform would visit all, several times.
    # As their distances are written in falling order, the least is what stays.
    steps = [
        (np.hypot(y - half_y, x - half_x), points, y * stride + x)
        for points, half_y, half_x in ((below, 0.5, 0), (right, 0, 0.5))
        for y in range(-margin, margin + 1)
        for x in range(-margin, margin + 1)
    ]
    for away, points, step in sorted(steps, key=lambda entry: -entry[0]):
        if away <= reach:
            distance[points + step] = away
    return window, distance.reshape(padded.shape)[inside]


def _sides(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of pixels of a mask, framed by False, that differ from the next below or right.

    The middles of the sides between such two pixels are points of the boundary, at most 1 apart.
    """
    flat, stride = padded.ravel(), padded.shape[1]
    return np.flatnonzero(flat[stride:] != flat[:-stride]), np.flatnonzero(flat[1:] != flat[:-1])


def _dashed_sides(padded: np.ndarray, length: float, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Those of `_sides` that lie on a dash."""
    middles = _dashes(find_contours(padded, 0.5), length, gap)
    flat = np.floor(middles).astype(int) @ [padded.shape[1], 1]
    is_below = middles[:, 0] % 1 > 0
    return flat[is_below], flat[~is_below]


def _dashes(contours: Sequence[np.ndarray], length: float, gap: float) -> np.ndarray:
    """Those points of closed contours, `[points, 2]`, that lie on a dash."""
    kept = []
    for contour in contours:
        steps = np.linalg.norm(np.diff(contour, axis=0, prepend=contour[:1]), axis=1)
        along = np.cumsum(steps)
        # A whole number of periods, so that no dash is cut where the contour closes.
        periods = max(1, round(along[-1] / (length + gap)))
        share = length / (length + gap)
        kept.append(contour[(along / along[-1] * periods) % 1 < share])
    return np.concatenate(kept)
