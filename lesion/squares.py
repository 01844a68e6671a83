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
    """Maps float32 [h, w, ...] of parts as one [height, width, ...]: the mean where they overlap.

    Args:
        parts: as `squares` gives them, of an image of this `shape`.
    """
    total = np.zeros((*shape[:2], *maps[0].shape[2:]), np.float32)
    number = np.zeros((*shape[:2], *[1] * (total.ndim - 2)), np.float32)
    for part, values in zip(parts, maps, strict=True):
        total[part] += values
        number[part] += 1
    return total / number
