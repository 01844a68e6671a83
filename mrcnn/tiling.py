"""Large images tile by tile, in which small instances keep their pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn.boxes import compute_overlaps
from mrcnn.images import as_channels
from mrcnn.masks import CompactMasks

SAME = 0.5
"""Instances of two views are one above this intersection over union, and a part that a view's edge
cut off is of another instance above this share of it."""

_REDUCING = ("square", "stretch")  # the modes in which a large image becomes an input of fixed size


def detect_tiles(
    model: Any,
    image: np.ndarray,
    tile: int | None = None,
    overlap: float = 0.25,
    whole: bool = True,
) -> dict:
    """Finds the instances in one large image, of which the network sees a tile at a time.

    An instance that is smaller than the overlap by 4 % of a tile lies well inside of one tile, and
    is taken from there. Larger ones are found in the image as a whole, or else come in pieces.

    Args:
        model: a `mrcnn.model.MaskRCNN`.
        image: [height, width] or [height, width, channels], as for `MaskRCNN.detect`.
        tile: side of the tiles in the image's pixels, which are resized as any image; by default
            `IMAGE_MAX_DIM`, at which "square", "pad64" and "none" leave them as they are, unless
            the image is narrower than `IMAGE_MIN_DIM`.
        overlap: share of a tile that neighbours see, too, 0 to below 1.
        whole: whether to look at all of the image as well, reduced. `IMAGE_RESIZE_MODE` "pad64"
            and "none" reduce nothing; with them there are tiles alone.

    Returns:
        As an element of what `MaskRCNN.detect` gives with `compact=True`, without semantic maps
        and without instances whose mask is empty; up to `DETECTION_MAX_INSTANCES` of each view.

    Raises:
        ValueError: for several images, or a tile or an overlap out of range.
    """
    if np.ndim(image) not in (2, 3):
        raise ValueError(
            "detect_tiles takes one image, [height, width] or [height, width, channels]; received "
            f"an array of shape {np.shape(image)}."
        )
    config = model.config
    tile = config.IMAGE_MAX_DIM if tile is None else tile
    if tile < 1 or tile != int(tile) or not 0 <= overlap < 1:
        raise ValueError(
            "tile must be a whole number of pixels, at least 1, and overlap from 0 to below 1; "
            f"received tile={tile} and overlap={overlap}."
        )
    tile = int(tile)
    image = as_channels(image, config.IMAGE_CHANNEL_COUNT)  # whose range is that of the whole
    size = image.shape[:2]
    views = [
        (y, x, min(y + tile, size[0]), min(x + tile, size[1]))
        for y in _starts(size[0], tile, overlap)
        for x in _starts(size[1], tile, overlap)
    ]
    tiles = len(views)
    if whole and tiles > 1 and config.IMAGE_RESIZE_MODE in _REDUCING:
        views.append((0, 0, *size))
    found = []
    for start in range(0, len(views), config.BATCH_SIZE):
        chunk = views[start : start + config.BATCH_SIZE]
        results = model.detect([image[y1:y2, x1:x2] for y1, x1, y2, x2 in chunk], compact=True)
        for number, (view, result) in enumerate(zip(chunk, results, strict=True), start):
            found.extend(_instances(result, number, number == tiles, view, size))
    kept = _without_doubles(found, config.DETECTION_NMS_ACROSS_CLASSES)
    kept.sort(key=lambda instance: -instance.score)
    return {
        "rois": _rows([instance.roi for instance in kept]),
        "class_ids": np.array([instance.class_id for instance in kept], np.int32),
        "scores": np.array([instance.score for instance in kept], np.float32),
        "masks": CompactMasks([i.mask for i in kept], _rows([i.place for i in kept]), size),
    }


@dataclass
class _Instance:
    """What was found in one view, in the pixels of the image."""

    roi: np.ndarray
    class_id: int
    score: float
    mask: np.ndarray
    place: np.ndarray  # the box that the mask fills
    area: int
    view: int
    reduced: bool  # the view is the whole image
    cut: bool  # by an edge of the view that is none of the image


def _rows(boxes):
    return np.array(boxes, np.int32).reshape(-1, 4)


def _starts(length, size, overlap):
    """Where tiles begin along an axis: evenly, and with at least the overlap in common."""
    if length <= size:
        return [0]
    step = max(1, int(size * (1 - overlap)))
    count = -(-(length - size) // step) + 1
    return np.linspace(0, length - size, count).astype(int).tolist()


def _instances(result, number, reduced, view, image_shape):
    """The instances of a view that have a mask."""
    (y1, x1, y2, x2), (height, width) = view, image_shape
    offset = np.array([y1, x1, y1, x1])
    inner = np.array([y1 > 0, x1 > 0, y2 < height, x2 < width])
    margin = max(2, max(y2 - y1, x2 - x1) // 50)  # boxes are not placed to the pixel
    masks = result["masks"]
    rows = zip(result["rois"], result["class_ids"], result["scores"], strict=True)
    for (roi, class_id, score), mask, place in zip(rows, masks.parts, masks.boxes, strict=True):
        if area := np.count_nonzero(mask):
            distances = np.array([roi[0], roi[1], y2 - y1 - roi[2], x2 - x1 - roi[3]])
            cut = bool((inner & (distances < margin)).any())
            box = roi + offset, place + offset
            yield _Instance(box[0], class_id, score, mask, box[1], area, number, reduced, cut)


def _without_doubles(instances, across_classes):
    """The instances without what another view shows better.

    Better is what is whole, then what is not reduced, then the higher score; of parts the larger.
    """
    order = sorted(
        instances, key=lambda i: (i.cut, -i.area) if i.cut else (i.cut, i.reduced, -i.score)
    )
    places = _rows([instance.place for instance in order]).astype(np.float32)
    kept, rows = [], []
    for row, instance in enumerate(order):
        near = compute_overlaps(places[row : row + 1], places[rows])[0] > 0
        if not any(_same(instance, kept[other], across_classes) for other in np.flatnonzero(near)):
            kept.append(instance)
            rows.append(row)
    return kept


def _same(one, other, across_classes):
    """Whether `one` is what `other`, which is kept, shows better."""
    if one.view == other.view:  # the network has told them apart
        return False
    if one.class_id != other.class_id and not across_classes:
        return False
    top, left = np.maximum(one.place[:2], other.place[:2])
    bottom, right = np.minimum(one.place[2:], other.place[2:])
    here, there = (
        i.mask[top - i.place[0] : bottom - i.place[0], left - i.place[1] : right - i.place[1]]
        for i in (one, other)
    )
    shared = np.count_nonzero(here & there)
    return shared > SAME * (one.area if one.cut else one.area + other.area - shared)
