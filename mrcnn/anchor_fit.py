"""Anchors that fit the boxes of a data set."""

import warnings
from typing import NamedTuple

import numpy as np

from mrcnn.anchors import compute_backbone_shapes, generate_anchors
from mrcnn.boxes import clip_boxes, compute_overlaps
from mrcnn.config import Config
from mrcnn.data import NamedInFailure, problems_of
from mrcnn.dataset import Dataset, every_nth
from mrcnn.masks import extract_bboxes
from mrcnn.molding import resize_for


class AnchorSuggestion(NamedTuple):
    """Anchors that fit a data set, and how much they help.

    Attributes:
        settings: `RPN_ANCHOR_SCALES` and `RPN_ANCHOR_RATIOS`, as keywords for a `Config`.
        boxes: number of boxes they were chosen from.
        recall_before: share of the boxes that some anchor of the given configuration overlaps by
            an IoU of at least 0.5 and 0.7, by that IoU.
        recall_after: the same with the settings suggested.
    """

    settings: dict
    boxes: int
    recall_before: dict[float, float]
    recall_after: dict[float, float]


def suggest_anchors(dataset: Dataset, config: Config, limit: int | None = 1000) -> AnchorSuggestion:
    """Anchor scales and ratios from the boxes of a data set, as the network will see them.

    Scales are the centres of a k-means clustering of the logarithm of the boxes' sides (the root
    of their area), ratios those of the logarithm of width / height, as many as `config` has. It
    begins at quantiles, so that the same boxes give the same anchors.

    Small anchors fit nothing at levels of `BACKBONE_STRIDES` where they lie far apart. Therefore
    each number of clusters is tried, for the first levels, with the scales that the others have;
    and the ratios likewise that are there. What is suggested is what overlaps the boxes most, by
    the mean of their best IoU. Only masks are loaded, no images.

    Args:
        dataset: a prepared `Dataset`; crowds do not count.
        config: says how images are resized and which anchors to compare with.
        limit: largest number of images to look at, every n-th of the data set; None takes all.

    Raises:
        ValueError: if these images show nothing, or the data set cannot be used.
        mrcnn.data.SampleError: if the masks of an image cannot be loaded.
    """
    if problem := next(problems_of(dataset), None):
        raise ValueError(problem)
    ids = every_nth(dataset.image_ids, limit)
    rng = np.random.default_rng(0)  # of crops
    images = []
    for image_id in ids:
        with NamedInFailure(dataset, image_id, "loaded"):
            images.append(_boxes_in_network(*dataset.load_mask(image_id), config, rng))
    boxes = np.concatenate([np.zeros((0, 4)), *(boxes for boxes, _ in images)])
    if not len(boxes):
        raise ValueError(f"The {len(ids)} images looked at show no instance to fit anchors to.")
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    given = tuple(config.RPN_ANCHOR_SCALES)
    scales = []
    for levels in range(len(given), 0, -1):
        centres = _log_centres(np.sqrt(height * width), levels)
        scales.append((*(max(1, round(centre)) for centre in centres), *given[levels:]))
    ratios = _log_centres(width / height, len(config.RPN_ANCHOR_RATIOS))
    ratios = [float(f"{ratio:.3g}") for ratio in ratios]  # of thin objects far below 0.01, too
    choices = [
        {"RPN_ANCHOR_SCALES": some, "RPN_ANCHOR_RATIOS": others}
        for some in (*scales, given)
        for others in (ratios, list(config.RPN_ANCHOR_RATIOS))
    ]
    by_shape: dict[tuple[int, ...], list[np.ndarray]] = {}
    for found, shape in images:
        by_shape.setdefault(tuple(shape), []).append(found)
    grouped = [(np.concatenate(found), shape) for shape, found in by_shape.items()]
    overlaps = [_all_overlaps(grouped, config, *choice.values()) for choice in choices]
    chosen = int(np.argmax([best.mean() for best in overlaps]))
    return AnchorSuggestion(
        choices[chosen], len(boxes), _recall(overlaps[-1]), _recall(overlaps[chosen])
    )


def _boxes_in_network(masks, class_ids, config, rng):
    """Boxes float [n, 4] of one image's instances in the network's input, and its shape."""
    if len(class_ids) != masks.shape[-1]:
        raise ValueError(f"{masks.shape[-1]} masks have {len(class_ids)} class ids.")
    boxes = extract_bboxes(masks)[np.asarray(class_ids) > 0].astype(np.float64)
    if not len(boxes):
        return boxes, config.IMAGE_SHAPE
    size = masks.shape[:2]
    resized, window, scale, _, crop = resize_for(np.zeros(size, np.uint8), config, rng)
    window = np.array(window, np.float64)
    if crop:
        factors, origin = np.full(2, scale), -np.array(crop[:2])
    else:
        factors, origin = (window[2:] - window[:2]) / size, window[:2]
    boxes = clip_boxes(boxes * np.tile(factors, 2) + np.tile(origin, 2), window)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)], resized.shape


def _log_centres(values, count):
    """Centres of `count` clusters of positive values, rising, by k-means of their logarithms."""
    from scipy.cluster.vq import kmeans2  # which nothing else of a training needs

    logs = np.log(values)
    start = np.quantile(logs, (np.arange(count) + 0.5) / count)
    with warnings.catch_warnings():
        # With fewer different values than clusters some stay empty and where they were.
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        centres, _ = kmeans2(logs[:, np.newaxis], start[:, np.newaxis], minit="matrix", iter=50)
    return np.sort(np.exp(centres[:, 0])).tolist()


def _all_overlaps(images, config, scales, ratios):
    """`_best_overlaps` of the boxes of all (boxes, input shape) pairs."""
    best = [_best_overlaps(boxes, shape, config, scales, ratios) for boxes, shape in images]
    return np.concatenate(best)


def _recall(best):
    """Share of the boxes that an anchor overlaps, by IoU, from the best IoU of each."""
    return {iou: float(np.mean(best >= iou)) for iou in (0.5, 0.7)}


def _best_overlaps(boxes, image_shape, config, scales, ratios):
    """The largest IoU [n] of each box [n, 4] with any anchor of an input of `image_shape`.

    Of the anchors of one level and ratio, the one whose centre is nearest overlaps most.
    """
    best = np.zeros(len(boxes))
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    shapes = compute_backbone_shapes(config, image_shape)
    for scale, stride, shape in zip(scales, config.BACKBONE_STRIDES, shapes, strict=True):
        step = stride * config.RPN_ANCHOR_STRIDE
        last = (np.array(shape) - 1) // config.RPN_ANCHOR_STRIDE
        nearest = np.clip(np.rint(centres / step), 0, last) * step
        at_origin = generate_anchors(scale, ratios, (1, 1), stride, 1)
        anchors = at_origin + np.tile(nearest, 2)[:, np.newaxis]
        overlaps = compute_overlaps(boxes[:, np.newaxis], anchors)[:, 0]
        best = np.maximum(best, overlaps.max(axis=1))
    return best
