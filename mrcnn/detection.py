"""From classified regions to final detections."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from mrcnn.boxes import (
    MAX_LOG_SCALE,
    apply_box_deltas,
    clip_boxes,
    denorm_boxes,
    norm_boxes,
    norm_boxes_graph,
    scale_boxes,
)
from mrcnn.config import Config
from mrcnn.masks import CompactMasks, compact_masks
from mrcnn.nms import suppress
from mrcnn.tensors import Tensor, argmax, gather_rows, own_class

MAX_CANDIDATES = 2000


class DetectionLayer(keras.layers.Layer):
    """Takes each region's best class, refines its box and drops the doubtful and the double.

    With `DETECTION_ALL_CLASSES` every class of a region that is probable enough counts, as in
    Detectron, not the best alone: with one class that is a region of any probability above
    `DETECTION_MIN_CONFIDENCE` rather than of at least one half.

    Args:
        config: the network's `Config`.
    """

    def __init__(self, config: Config, **kwargs):
        super().__init__(dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.config = config

    def compute_output_spec(
        self, rois: Tensor, probabilities: Tensor, deltas: Tensor, windows: Tensor, frame: Tensor
    ) -> keras.KerasTensor:
        shape = (rois.shape[0], self.config.DETECTION_MAX_INSTANCES, 6)
        return keras.KerasTensor(shape, dtype="float32")

    def call(
        self, rois: Tensor, probabilities: Tensor, deltas: Tensor, windows: Tensor, frame: Tensor
    ) -> Tensor:
        """Detections [batch, DETECTION_MAX_INSTANCES, 6], zero-padded, best score first.

        Args:
            rois: [batch, n, 4], normalised.
            probabilities: [batch, n, classes].
            deltas: [batch, n, classes, 4].
            windows: [batch, 4] in pixels: where the image lies in the network's input.
            frame: `(height, width)` of the network's input in pixels.

        Returns:
            Rows `(y1, x1, y2, x2, class_id, score)`, normalised.
        """
        config = self.config
        deltas = deltas * ops.convert_to_tensor([float(v) for v in config.BBOX_STD_DEV])
        choose = _all_classes if config.DETECTION_ALL_CLASSES else _best_class
        rois, scores, class_ids, deltas = choose(rois, probabilities, deltas)
        limit = MAX_LOG_SCALE if config.CLAMP_DELTAS else None
        windows = norm_boxes_graph(windows, frame)[:, None, :]
        boxes = clip_boxes(apply_box_deltas(rois, deltas, limit), windows)
        kept = ops.logical_and(class_ids > 0, scores >= (config.DETECTION_MIN_CONFIDENCE or 0))
        boxes, scores, class_ids = suppress(
            boxes,
            ops.where(kept, scores, -1.0),
            class_ids,
            config.NUM_CLASSES,
            config.DETECTION_NMS_THRESHOLD,
            config.DETECTION_MAX_INSTANCES,
            config.DETECTION_NMS_ACROSS_CLASSES,
        )
        rest = ops.stack([ops.cast(class_ids, "float32"), scores], axis=-1)
        return ops.concatenate([boxes, rest], axis=-1)


def _best_class(rois, probabilities, deltas):
    """One candidate per region: its best class, which may be the background, as of padding."""
    there = ops.cast(ops.any(rois != 0, axis=-1), "int32")
    class_ids = argmax(probabilities, axis=2) * there
    return rois, ops.max(probabilities, axis=2), class_ids, own_class(deltas, class_ids, axis=2)


def _all_classes(rois, probabilities, deltas):
    """A candidate per region and class but the background; the best `MAX_CANDIDATES` of them."""
    count, classes = rois.shape[1], probabilities.shape[2]
    there = ops.any(rois != 0, axis=-1, keepdims=True)
    # Below every probability, since of a threshold of 0 even a score of 0 would count.
    scores = ops.where(there, probabilities[:, :, 1:], -1.0)
    scores = ops.reshape(scores, (-1, count * (classes - 1)))
    scores, best = ops.top_k(scores, min(MAX_CANDIDATES, count * (classes - 1)))
    deltas = ops.reshape(deltas[:, :, 1:], (-1, count * (classes - 1), 4))
    class_ids = ops.cast(best % (classes - 1) + 1, "int32")
    return gather_rows(rois, best // (classes - 1)), scores, class_ids, gather_rows(deltas, best)


def unmold_detections(
    detections: np.ndarray,
    mrcnn_mask: np.ndarray,
    original_image_shape: Sequence[int] | np.ndarray,
    image_shape: Sequence[int] | np.ndarray,
    window: Sequence[int] | np.ndarray,
    box_scale: float = 1.0,
    threshold: float | None = 0.5,
    compact: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | CompactMasks]:
    """Detections of one image in the pixels of the original image.

    Boxes that reach beyond the image, as of a network that was told of no window, are cut at its
    edges, and those wholly beyond are left out.

    Args:
        detections: [n, 6], normalised, zero-padded.
        mrcnn_mask: [n, height, width, classes] in 0..1; or [n, height, width], each of its
            detection's class.
        original_image_shape: `(height, width, channels)` of the image given.
        image_shape: shape of the network's input.
        window: `(y1, x1, y2, x2)` of the image in the network's input, pixels.
        box_scale: factor by which the masks' boxes were enlarged (`MASK_BOX_SCALE`).
        threshold: pixels of at least this probability belong to a mask; None keeps them.
        compact: whether masks are `mrcnn.masks.CompactMasks`.

    Returns:
        boxes int32 [m, 4], class ids int32 [m], scores float32 [m], masks [h, w, m], bool or,
        without a threshold, float32; or compact.
    """
    height, width = (int(side) for side in original_image_shape[:2])
    count = int(np.count_nonzero(detections[:, 4]))
    detections = detections[:count]
    window = np.asarray(window)
    side = window[2:] - window[:2]
    normalised = norm_boxes(window, image_shape[:2])
    origin = np.tile(normalised[:2], 2)
    extent = np.tile(normalised[2:] - normalised[:2], 2)
    # Of a window of one pixel there is no part: on that axis a box has all of the image.
    thick = extent > 0
    relative = (detections[:, :4] - origin) / np.where(thick, extent, 1)
    relative = np.where(thick, relative, [0, 0, 1, 1]).astype(np.float32)
    places = denorm_boxes(relative, (height, width))
    boxes = np.clip(places, 0, np.array([height, width, height, width], np.int32))
    solid = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    boxes, class_ids = boxes[solid], detections[solid, 4].astype(np.int32)
    scores = detections[solid, 5].astype(np.float32)
    # A mask is one of all of its box, also where that is cut.
    places, exact = places[solid], box_scale != 1.0
    if exact:
        # matterport's masks fill the rounded box; enlarged ones lie exactly where they were
        # pooled, from the edges of the network's pixels to those of the image.
        reach = scale_boxes(detections[:, :4], box_scale)
        reach = reach * np.tile(np.subtract(image_shape[:2], 1), 2) + [0, 0, 1, 1]
        reach = (reach - np.tile(window[:2], 2)) * np.tile((height, width) / side, 2)
        places = reach[solid]
    if mrcnn_mask.ndim == 3:
        own = list(mrcnn_mask[solid])
    else:
        own = [mrcnn_mask[i, :, :, class_id] for i, class_id in zip(solid, class_ids, strict=True)]
    masks = compact_masks(own, places, (height, width), threshold, exact)
    return boxes, class_ids, scores, masks if compact else masks.full()
