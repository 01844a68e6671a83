"""Long images as squares, for networks that have learned from squares filled by skin."""

from collections.abc import Sequence

import numpy as np

NEARLY_SQUARE = 1.1
"""Images whose longer side is at most so many shorter ones are taken as they are."""
LONGEST = 4
"""So are those whose longer side is more than so many: no photograph, and a strip could have
thousands of squares."""

Part = tuple[slice, slice]
"""Rows and columns of an image."""


def squares(shape: Sequence[int]) -> list[Part]:
    """The fewest squares of the shorter side that cover an image, evenly spaced along the longer.

    Args:
        shape: [height, width, ...] of the image. Of one that is nearly square, or a strip, all is
            one part.
    """
    height, width = shape[:2]
    side, longer = sorted((height, width))
    if not NEARLY_SQUARE * side < longer <= LONGEST * side:
        return [(slice(0, height), slice(0, width))]
    count = -(-longer // side)
    starts = [(longer - side) * place // (count - 1) for place in range(count)]
    along = [slice(start, start + side) for start in starts]
    across = slice(0, side)
    return [(across, part) if width == longer else (part, across) for part in along]


def joined(parts: Sequence[Part], maps: Sequence[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """Maps float32 [h, w, ...] of parts as one [height, width, ...].

    Where parts overlap it is their mean, in which a pixel weighs by its distance from the ends of
    the part: what a part sees cut off at its end leaves no seam.

    Args:
        parts: as `squares` gives them, of an image of this `shape`.
    """
    beyond = [1] * (maps[0].ndim - 2)
    total = np.zeros((*shape[:2], *maps[0].shape[2:]), np.float32)
    weights = np.zeros((*shape[:2], *beyond), np.float32)
    for part, values in zip(parts, maps, strict=True):
        # Across the image's longer axis a part reaches from edge to edge, and has no ends.
        ramp = _ramp(values.shape[int(shape[1] > shape[0])])
        ramp = ramp[np.newaxis] if shape[1] > shape[0] else ramp[:, np.newaxis]
        weight = np.broadcast_to(ramp, values.shape[:2]).reshape(*values.shape[:2], *beyond)
        total[part] += weight * values
        weights[part] += weight
    return total / weights


def _ramp(length):
    """float32 [length]: how far pixels lie from the nearer end."""
    places = np.arange(length, dtype=np.float32) + 0.5
    return np.minimum(places, length - places)
