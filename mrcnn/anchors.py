"""Anchor boxes: reference boxes of fixed scales and ratios at every position of the pyramid."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mrcnn.boxes import clip_boxes, compute_overlaps, norm_boxes
from mrcnn.config import Config
from mrcnn.dataset import Dataset
from mrcnn.masks import extract_bboxes
from mrcnn.molding import resize_image


def generate_anchors(
    scales: float | Sequence[float],
    ratios: Sequence[float],
    shape: tuple[int, int],
    feature_stride: float,
    anchor_stride: int,
) -> np.ndarray:
    """Anchors of one pyramid level (Ren et al., Faster R-CNN, section 3.1.1).

    Args:
        scales: sides in pixels of the squares whose area the anchors have.
        ratios: width / height of the anchors.
        shape: (height, width) of the feature map.
        feature_stride: pixels of the image from one feature to the next.
        anchor_stride: features from one anchor position to the next.

    Returns:
        float64 [anchors, (y1, x1, y2, x2)] in pixels, not clipped to the image. The last of
        position (row by row), ratio, scale changes fastest. The first position's anchors are
        centred on pixel coordinate (0, 0), not on the middle of its cell.
    """
    scales = np.atleast_1d(np.asarray(scales, np.float64))
    root_ratios = np.sqrt(np.asarray(ratios, np.float64))[:, np.newaxis]
    sizes = np.stack([scales / root_ratios, scales * root_ratios], axis=-1).reshape(-1, 2)

    rows = np.arange(0, shape[0], anchor_stride) * feature_stride
    columns = np.arange(0, shape[1], anchor_stride) * feature_stride
    centres = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 1, 2)

    return np.concatenate([centres - 0.5 * sizes, centres + 0.5 * sizes], axis=-1).reshape(-1, 4)


def generate_pyramid_anchors(
    scales: Sequence[float | Sequence[float]],
    ratios: Sequence[float],
    feature_shapes: Sequence[tuple[int, int]],
    feature_strides: Sequence[float],
    anchor_stride: int,
) -> np.ndarray:
    """Anchors of all levels, one after the other (Lin et al., FPN, section 4.1).

    Args:
        scales: one entry for each level.
        ratios: the same for all levels.
        feature_shapes: (height, width) of each level's feature map.
        feature_strides: pixels from one feature to the next, by level.
        anchor_stride: features from one anchor position to the next.

    Returns:
        float64 [anchors, (y1, x1, y2, x2)] in pixels; within a level as `generate_anchors`.

    Raises:
        ValueError: if there is not one scale, one shape and one stride for each level.
    """
    if not len(scales) == len(feature_shapes) == len(feature_strides):
        raise ValueError(
            "Anchors need one scale, one feature shape and one stride for each pyramid level; "
            f"received {len(scales)} scales, {len(feature_shapes)} feature shapes and "
            f"{len(feature_strides)} strides."
        )
    return np.concatenate(
        [
            generate_anchors(scale, ratios, shape, stride, anchor_stride)
            for scale, shape, stride in zip(scales, feature_shapes, feature_strides, strict=True)
        ]
    )


def compute_backbone_shapes(config: Config, image_shape: Sequence[int]) -> np.ndarray:
    """Sizes of the pyramid's feature maps.

    Args:
        config: gives BACKBONE_STRIDES; or COMPUTE_BACKBONE_SHAPE, for a callable BACKBONE.
        image_shape: (height, width, ...) of the network's input.

    Returns:
        int [levels, (height, width)].
    """
    if callable(config.BACKBONE) and config.COMPUTE_BACKBONE_SHAPE is not None:
        return np.asarray(config.COMPUTE_BACKBONE_SHAPE(image_shape))
    height, width = image_shape[:2]
    # The negative of a floor division of the negative is the ceiling, without floats.
    return np.array(
        [[-(-height // stride), -(-width // stride)] for stride in config.BACKBONE_STRIDES]
    )


def anchors_of(config: Config, image_shape: Sequence[int]) -> np.ndarray:
    """All anchors of a configuration's pyramid, as `generate_pyramid_anchors` gives them.

    Args:
        config: gives the anchors' scales, ratios and strides.
        image_shape: (height, width, ...) of the network's input.
    """
    return generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        compute_backbone_shapes(config, image_shape),
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
    )


def normalised_anchors(config: Config, image_shape: Sequence[int]) -> np.ndarray:
    """`anchors_of` float32 [a, 4], normalised."""
    return norm_boxes(anchors_of(config, image_shape), image_shape[:2])


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
    of their area), one for each level of `BACKBONE_STRIDES`; ratios those of the logarithm of
    width / height, as many as `config` has. It begins at quantiles, so that the same boxes give
    the same anchors. Only masks are loaded, no images.

    Args:
        dataset: a prepared `Dataset`; crowds do not count.
        config: says how images are resized and which anchors to compare with.
        limit: largest number of images to look at, every n-th of the data set; None takes all.

    Raises:
        ValueError: if these images show nothing.
    """
    ids = dataset.image_ids
    ids = ids if limit is None else ids[:: max(1, -(-len(ids) // limit))]
    rng = np.random.default_rng(0)  # of crops
    images = [_boxes_in_network(*dataset.load_mask(image_id), config, rng) for image_id in ids]
    boxes = np.concatenate([np.zeros((0, 4)), *(boxes for boxes, _ in images)])
    if not len(boxes):
        raise ValueError(f"The {len(ids)} images looked at show no instance to fit anchors to.")
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    scales = _log_centres(np.sqrt(height * width), len(config.BACKBONE_STRIDES))
    ratios = _log_centres(width / height, len(config.RPN_ANCHOR_RATIOS))
    scales = tuple(max(1, round(scale)) for scale in scales)
    ratios = [round(ratio, 2) for ratio in ratios]
    return AnchorSuggestion(
        {"RPN_ANCHOR_SCALES": scales, "RPN_ANCHOR_RATIOS": ratios},
        len(boxes),
        _recall(images, config, config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS),
        _recall(images, config, scales, ratios),
    )


def _boxes_in_network(masks, class_ids, config, rng):
    """Boxes float [n, 4] of one image's instances in the network's input, and its shape."""
    boxes = extract_bboxes(masks)[np.asarray(class_ids) > 0].astype(np.float64)
    if not len(boxes):
        return boxes, config.IMAGE_SHAPE
    size = masks.shape[:2]
    resized, window, scale, _, crop = resize_image(
        np.zeros(size, np.uint8),
        min_dim=config.IMAGE_MIN_DIM,
        max_dim=config.IMAGE_MAX_DIM,
        min_scale=config.IMAGE_MIN_SCALE,
        mode=config.IMAGE_RESIZE_MODE,
        rng=rng,
    )
    window = np.array(window, np.float64)
    if crop:
        factors, origin = np.full(2, scale), -np.array(crop[:2])
    else:
        factors, origin = (window[2:] - window[:2]) / size, window[:2]
    boxes = clip_boxes(boxes * np.tile(factors, 2) + np.tile(origin, 2), window)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)], resized.shape


class AnchorCache:
    """Anchors of a configuration by the shape of the input, kept for the last few shapes."""

    LARGEST = 8  # with inputs of any size they would pile up

    def __init__(self, config: Config):
        self.config = config
        self._known = {}

    def __call__(self, image_shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Normalised anchors float32 [a, 4] and those in pixels."""
        key = tuple(int(side) for side in image_shape[:2])
        both = self._known.get(key)  # another thread may clear it at any moment
        if both is None:
            if len(self._known) >= self.LARGEST:
                self._known.clear()
            anchors = anchors_of(self.config, key)
            both = self._known[key] = norm_boxes(anchors, key), anchors
        return both


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


def _recall(images, config, scales, ratios):
    """Share of the boxes of (boxes, input shape) pairs that an anchor overlaps, by IoU."""
    best = [_best_overlaps(boxes, shape, config, scales, ratios) for boxes, shape in images]
    best = np.concatenate(best)
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
