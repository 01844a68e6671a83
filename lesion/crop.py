"""Cutting an image down to its lesion, as the boundary network finds it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lesion.cache import ImageCache
from lesion.reading import chunks
from lesion.records import read_record, stamp_of, write_record
from mrcnn.masks import mask_extent

MARGIN = 1.4
"""Side of the crop over the longer side of the lesion: the skin around it matters, too."""
MIN_SHARE = 0.35
"""Least side of the crop as a share of the image's shorter side: a speck is not blown up."""

_BATCH = 8


def lesion_square(
    mask: np.ndarray, margin: float = MARGIN, least: float = MIN_SHARE
) -> tuple[int, int, int]:
    """The square around a lesion that is cut out of an image.

    It is moved into the image where it would go beyond its edge, and is never larger than the
    image's shorter side.

    Args:
        mask: bool [height, width]; without a lesion the largest square in the middle is taken.
        margin, least: as `MARGIN` and `MIN_SHARE`.

    Returns:
        (top, left, side) in pixels.
    """
    height, width = mask.shape
    shorter = min(height, width)
    if not mask.any():
        return (height - shorter) // 2, (width - shorter) // 2, shorter
    ends = mask_ends(mask)
    longer = max(end - start for start, end in ends)
    side = int(np.clip(round(margin * longer), round(least * shorter), shorter))
    top, left = (centred(span, side, size) for span, size in zip(ends, mask.shape, strict=True))
    return top, left, side


def centred(span: tuple[int, int], side: int, size: int) -> int:
    """Where `side` pixels begin that have a span in their middle, moved into 0 to `size`."""
    return int(np.clip((sum(span) - side) // 2, 0, size - side))


def mask_ends(mask: np.ndarray) -> list[tuple[int, int]]:
    """First row and the one after the last of a mask that is not empty; columns likewise."""
    top, left, bottom, right = mask_extent(mask)
    return [(top, bottom), (left, right)]


def crop_to_lesion(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The part of an image [height, width, ...] in the `lesion_square` of its mask."""
    top, left, side = lesion_square(mask)
    return image[top : top + side, left : left + side]


def find_crops(
    boundary: Any, paths: Iterable[Path], cache: ImageCache, record: str | Path
) -> dict[str, tuple[int, int, int]]:
    """The `lesion_square` of each image of the cache, by its path.

    Args:
        boundary: predicts masks, as `lesion.boundary.BoundaryPredictor`.
        paths: of image files.
        cache: in whose images the squares are measured.
        record: JSON file that keeps them for the next time, as long as the boundary's weights and
            the size of the cache are the same, and the image has not changed.
    """
    record = Path(record)
    source = [boundary.describe()["sha256"], cache.max_side]
    content = read_record(record, "lesions")
    known = content.get("stamped", {}) if content.get("source") == source else {}
    stamps = {str(path): stamp_of(path) for path in paths}
    missing = [path for path, stamp in stamps.items() if known.get(path, [None])[0] != stamp]
    try:
        batches = chunks(missing, _BATCH)
        for chunk in tqdm(batches, "Finding lesions", unit="batch", disable=None):
            found = boundary.predict([cache.image(path) for path in chunk])
            for path, lesion in zip(chunk, found, strict=True):
                known[path] = stamps[path], lesion_square(lesion.mask)
    finally:  # what was found before an interruption need not be found again
        if missing:
            write_record(record, {"source": source, "stamped": known}, "lesions")
    return {path: tuple(known[path][1]) for path in stamps}
