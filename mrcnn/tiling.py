"""Large images tile by tile, in which small instances keep their pixels."""

from typing import Any

import numpy as np

from mrcnn.masks import CompactMasks

SAME = 0.5
"""Instances of two tiles that share more than this part of the smaller one are one."""


def detect_tiles(
    model: Any,
    image: np.ndarray,
    tile: int | None = None,
    overlap: float = 0.25,
    whole: bool = True,
) -> dict:
    """Finds the instances in one large image, of which the network sees a tile at a time.

    An instance that is no larger than the overlap lies in one tile completely, and is taken from
    there. Larger ones are found in the image as a whole, or else come in pieces.

    Args:
        model: a `mrcnn.model.MaskRCNN`.
        image: [height, width] or [height, width, channels], as for `MaskRCNN.detect`.
        tile: side of the tiles in the image's pixels; `IMAGE_MAX_DIM` by default, at which most
            resize modes leave pixels as they are.
        overlap: share of a tile that neighbours see, too, 0 to below 1.
        whole: whether to look at all of the image as well, reduced as `detect` does.

    Returns:
        As an element of what `MaskRCNN.detect` gives with `compact=True`, without semantic maps;
        any number of instances, `DETECTION_MAX_INSTANCES` of each tile.

    Raises:
        ValueError: for several images, or a tile or an overlap out of range.
    """
    if np.ndim(image) not in (2, 3):
        raise ValueError(
            "detect_tiles takes one image, [height, width] or [height, width, channels]; received "
            f"an array of shape {np.shape(image)}."
        )
    tile = model.config.IMAGE_MAX_DIM if tile is None else tile
    if tile < 1 or not 0 <= overlap < 1:
        raise ValueError(
            "tile must be at least 1 pixel and overlap from 0 to below 1; received "
            f"tile={tile} and overlap={overlap}."
        )
    height, width = image.shape[:2]
    views = [
        (y, x, min(y + tile, height), min(x + tile, width))
        for y in _starts(height, tile, overlap)
        for x in _starts(width, tile, overlap)
    ]
    if whole and len(views) > 1:
        views.append((0, 0, height, width))
    results = model.detect([image[y1:y2, x1:x2] for y1, x1, y2, x2 in views], compact=True)
    found = [
        instance
        for number, (view, result) in enumerate(zip(views, results, strict=True))
        for instance in _instances(result, number, view, (height, width))
    ]
    kept = _without_doubles(found, model.config.DETECTION_NMS_ACROSS_CLASSES)
    kept.sort(key=lambda instance: -instance["score"])
    boxes = [instance["place"] for instance in kept]
    return {
        "rois": np.array([instance["roi"] for instance in kept], np.int32).reshape(-1, 4),
        "class_ids": np.array([instance["class_id"] for instance in kept], np.int32),
        "scores": np.array([instance["score"] for instance in kept], np.float32),
        "masks": CompactMasks(
            [instance["mask"] for instance in kept],
            np.array(boxes, np.int32).reshape(-1, 4),
            (height, width),
        ),
    }


def _starts(length, size, overlap):
    """Where tiles begin along an axis: evenly, and with at least the overlap in common."""
    if length <= size:
        return [0]
    step = max(1, int(size * (1 - overlap)))
    count = -(-(length - size) // step) + 1
    return np.linspace(0, length - size, count).astype(int).tolist()


def _instances(result, number, view, image_shape):
    """The instances of a view in the image's pixels, and whether the view's edges cut them."""
    (y1, x1, y2, x2), (height, width) = view, image_shape
    offset = np.array([y1, x1, y1, x1])
    inner = np.array([y1 > 0, x1 > 0, y2 < height, x2 < width])
    margin = max(2, (y2 - y1) // 50)  # boxes are not placed to the pixel
    for roi, class_id, score, mask, place in zip(
        result["rois"],
        result["class_ids"],
        result["scores"],
        result["masks"].parts,
        result["masks"].boxes,
        strict=True,
    ):
        distances = np.array([roi[0], roi[1], y2 - y1 - roi[2], x2 - x1 - roi[3]])
        yield {
            "roi": roi + offset,
            "class_id": class_id,
            "score": score,
            "mask": mask,
            "place": place + offset,
            "area": np.count_nonzero(mask),
            "view": number,
            "cut": bool((inner & (distances < margin)).any()),
        }


def _without_doubles(instances, across_classes):
    """The instances without what another view saw better: whole before cut, then by score."""
    kept = []
    for instance in sorted(instances, key=lambda i: (i["cut"], -i["score"])):
        if not any(_same(instance, other, across_classes) for other in kept):
            kept.append(instance)
    return kept


def _same(one, other, across_classes):
    if one["view"] == other["view"]:  # the network has told them apart
        return False
    if one["class_id"] != other["class_id"] and not across_classes:
        return False
    top, left = np.maximum(one["place"][:2], other["place"][:2])
    bottom, right = np.minimum(one["place"][2:], other["place"][2:])
    if top >= bottom or left >= right:
        return False
    here, there = (
        i["mask"][top - i["place"][0] : bottom - i["place"][0]][
            :, left - i["place"][1] : right - i["place"][1]
        ]
        for i in (one, other)
    )
    shared = np.count_nonzero(here & there)
    return shared > SAME * max(1, min(one["area"], other["area"]))
