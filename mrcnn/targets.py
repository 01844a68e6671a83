"""What the network should have said: targets of the anchors and of the regions of interest."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from mrcnn.boxes import box_refinement, compute_overlaps, denorm_boxes_graph, scale_boxes
from mrcnn.config import Config
from mrcnn.distribution import own_rows
from mrcnn.roi_align import crop_and_resize, framed_samples
from mrcnn.tensors import Tensor, batch_indices, gather_rows


def build_rpn_targets(
    image_shape: Sequence[int] | np.ndarray | None,
    anchors: np.ndarray,
    gt_class_ids: ArrayLike,
    gt_boxes: ArrayLike,
    config: Config,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels the anchors of one image (Ren et al. 2015, section 3.1.2).

    Args:
        image_shape: unused, kept for compatibility.
        anchors: [a, 4] in pixels.
        gt_class_ids: int [g]; negative ones are crowds.
        gt_boxes: int [g, 4] in pixels.
        config: gives `RPN_TRAIN_ANCHORS_PER_IMAGE` and `RPN_BBOX_STD_DEV`.
        rng: `numpy.random.Generator` of the sampling; the global NumPy state by default.

    Returns:
        int32 [a] of 1 (object), -1 (background) or 0 (ignored), and float32
        [RPN_TRAIN_ANCHORS_PER_IMAGE, 4] whose first rows are the deltas of the objects' anchors
        in their order.
    """
    choice = np.random.choice if rng is None else rng.choice
    limit = config.RPN_TRAIN_ANCHORS_PER_IMAGE
    match = np.zeros(len(anchors), np.int32)
    deltas = np.zeros((limit, 4), np.float32)
    gt_class_ids, gt_boxes = np.asarray(gt_class_ids), np.asarray(gt_boxes)
    crowd = gt_class_ids < 0
    near_crowd = np.zeros(len(anchors), bool)
    if crowd.any():
        near_crowd = _best_boxes(anchors, gt_boxes[crowd])[0] >= 0.001
        gt_boxes = gt_boxes[~crowd]
    if len(gt_boxes):
        best, assigned, best_of_a_box = _best_boxes(anchors, gt_boxes)
        match[(best < 0.3) & ~near_crowd] = -1
        match[best_of_a_box] = 1  # however small its overlap
        match[best >= 0.7] = 1
    else:
        match[~near_crowd] = -1

    for label in (1, -1):
        quota = limit // 2 if label == 1 else limit - np.count_nonzero(match == 1)
        indices = np.flatnonzero(match == label)
        if len(indices) > quota:
            match[choice(indices, len(indices) - quota, replace=False)] = 0

    positive = np.flatnonzero(match == 1)
    if len(positive):
        refinement = box_refinement(anchors[positive], gt_boxes[assigned[positive]])
        deltas[: len(positive)] = refinement / config.RPN_BBOX_STD_DEV
    return match, deltas


def _best_boxes(anchors, boxes):
    """For each anchor [a]: its largest overlap, with which box, and whether a box has no larger.

    Box by box, since all overlaps at once take memory by the gigabyte where instances are many, and
    of anchors that touch the box alone, which are few of the quarter of a million.
    """
    best, assigned = np.zeros(len(anchors)), np.zeros(len(anchors), int)
    best_of_a_box = np.zeros(len(anchors), bool)
    top, left, bottom, right = np.ascontiguousarray(np.transpose(anchors))
    for number, box in enumerate(boxes):
        y1, x1, y2, x2 = box
        near = np.flatnonzero((top < y2) & (bottom > y1) & (left < x2) & (right > x1))
        if not len(near):
            continue
        overlaps = compute_overlaps(anchors[near], box[None])[:, 0]
        larger = overlaps > best[near]
        best[near[larger]], assigned[near[larger]] = overlaps[larger], number
        if (highest := overlaps.max()) > 0:
            best_of_a_box[near[overlaps == highest]] = True
    return best, assigned, best_of_a_box


class DetectionTargetLayer(keras.layers.Layer):
    """Samples proposals and gives each its class, deltas and mask (Girshick 2015, section 2.3).

    The rows are: positives, then negatives, then zero padding. Masks are given for the first
    `config.TRAIN_MASK_ROIS` rows, the only ones that can be positive.

    Args:
        config: the network's `Config`.
        seed: of the sampling, whose state is saved with the layer.
    """

    def __init__(self, config: Config, seed: int = 0, **kwargs):
        super().__init__(dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.config = config
        self.random = keras.random.SeedGenerator(seed)

    def compute_output_spec(
        self,
        proposals: Tensor,
        gt_class_ids: Tensor,
        gt_boxes: Tensor,
        gt_masks: Tensor,
        frame: Tensor,
    ) -> tuple[keras.KerasTensor, ...]:
        config = self.config
        rows = (proposals.shape[0], config.TRAIN_ROIS_PER_IMAGE)
        masks = (proposals.shape[0], config.TRAIN_MASK_ROIS, *config.MASK_SHAPE)
        return (
            keras.KerasTensor((*rows, 4), dtype="float32"),
            keras.KerasTensor(rows, dtype="int32"),
            keras.KerasTensor((*rows, 4), dtype="float32"),
            keras.KerasTensor(masks, dtype="float32"),
        )

    def call(
        self,
        proposals: Tensor,
        gt_class_ids: Tensor,
        gt_boxes: Tensor,
        gt_masks: Tensor,
        frame: Tensor,
    ) -> tuple[Tensor, ...]:
        """Targets of one batch.

        Args:
            proposals: [batch, p, 4], normalised, zero-padded.
            gt_class_ids: int [batch, g], zero-padded; negative ones are crowds.
            gt_boxes: [batch, g, 4], normalised, zero-padded.
            gt_masks: [batch, h, w, g], of whole images or of boxes (mini-masks).
            frame: `(height, width)` of the network's input in pixels.

        Returns:
            rois [batch, t, 4], class ids int32 [batch, t], deltas [batch, t, 4] and masks
            [batch, m, *MASK_SHAPE] of 0 and 1 (and between, with `MASK_SOFT_TARGETS`).
        """
        config = self.config
        gt_class_ids = ops.cast(gt_class_ids, "int32")
        if config.ADD_GT_TO_PROPOSALS:
            instances = ops.cast(gt_class_ids > 0, "float32")[..., None]
            proposals = ops.concatenate([proposals, gt_boxes * instances], axis=1)
        total, positive_limit = config.TRAIN_ROIS_PER_IMAGE, config.TRAIN_MASK_ROIS
        positive, negative, assigned = self._label(proposals, gt_class_ids, gt_boxes)

        random = own_rows(
            lambda shape: keras.random.uniform(shape, seed=self.random), ops.shape(positive)
        )
        positive_rows, positive_valid = _sample(positive, random, positive_limit)
        positive_count = ops.sum(ops.cast(positive_valid, "float32"), axis=1, keepdims=True)
        negative_rows, negative_valid = _sample(negative, random, total)
        if config.SAMPLE_NEGATIVES_ALWAYS:
            negative_count = total - positive_count
        else:
            ratio = 1.0 / config.ROI_POSITIVE_RATIO
            negative_count = ops.floor(ratio * positive_count) - positive_count
            # An image without instances, which matterport left out, has nothing but negatives.
            empty = ops.logical_not(ops.any(gt_class_ids > 0, axis=1, keepdims=True))
            negative_count = ops.where(empty, float(total), negative_count)
        place = ops.arange(negative_rows.shape[1], dtype="float32")[None]
        negative_valid = ops.logical_and(negative_valid, place < negative_count)

        # Close the gap between positives and negatives: valid rows first, in their order.
        spare = [[0, 0], [0, max(0, total - positive_rows.shape[1] - negative_rows.shape[1])]]
        rows = ops.pad(ops.concatenate([positive_rows, negative_rows], axis=1), spare)
        valid = ops.pad(ops.concatenate([positive_valid, negative_valid], axis=1), spare)
        is_positive = ops.concatenate([positive_valid, ops.zeros_like(negative_valid)], axis=1)
        is_positive = ops.pad(is_positive, spare)
        order = _stable_order(valid, total)
        rows = gather_rows(rows[..., None], order)[..., 0]
        valid = ops.cast(gather_rows(valid[..., None], order)[..., 0], "float32")
        is_positive = gather_rows(is_positive[..., None], order)[..., 0]

        rois = gather_rows(proposals, rows) * valid[..., None]
        instance = gather_rows(assigned[..., None], rows)[..., 0]
        class_ids = gather_rows(gt_class_ids[..., None], instance)[..., 0]
        class_ids = ops.where(is_positive, class_ids, 0)
        deltas = self._deltas(rois, gather_rows(gt_boxes, instance), is_positive)
        masks = self._masks(
            rois[:, :positive_limit],
            instance[:, :positive_limit],
            is_positive[:, :positive_limit],
            gt_boxes,
            gt_masks,
            frame,
        )
        outputs = (rois, class_ids, deltas, masks)
        return tuple(ops.stop_gradient(output) for output in outputs)

    def _label(self, proposals, gt_class_ids, gt_boxes):
        """Which proposals [batch, p] are positive, which negative, and their instance."""
        there = ops.any(proposals != 0, axis=-1)
        overlaps = compute_overlaps(proposals, gt_boxes)  # [batch, p, g]
        crowd = ops.cast(gt_class_ids < 0, "float32")[:, None, :]
        instances = ops.cast(gt_class_ids > 0, "float32")[:, None, :]
        near_crowd = ops.max(overlaps * crowd, axis=2) >= 0.001
        overlaps = overlaps * instances
        best = ops.max(overlaps, axis=2)
        positive = ops.logical_and(there, best >= 0.5)
        negative = ops.logical_and(there, best < 0.5)
        negative = ops.logical_and(negative, ops.logical_not(near_crowd))
        return positive, negative, ops.cast(ops.argmax(overlaps, axis=2), "int32")

    def _deltas(self, rois, gt_boxes, is_positive):
        unit = ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])
        chosen = is_positive[..., None]
        # Rows that are not positive get a harmless box: no logarithm of zero, no gradient of it.
        deltas = box_refinement(ops.where(chosen, rois, unit), ops.where(chosen, gt_boxes, unit))
        return deltas / ops.convert_to_tensor([float(v) for v in self.config.BBOX_STD_DEV])

    def _masks(self, rois, instance, is_positive, gt_boxes, gt_masks, frame):
        config = self.config
        batch, instances = ops.shape(gt_boxes)[0], gt_boxes.shape[1]
        height, width = gt_masks.shape[1:3]
        flat = ops.reshape(
            ops.transpose(ops.cast(gt_masks, "float32"), (0, 3, 1, 2)), (-1, height, width, 1)
        )
        count = rois.shape[1]
        source = batch_indices(batch, count) * instances + ops.reshape(instance, (-1,))
        boxes = scale_boxes(rois, config.MASK_BOX_SCALE)
        boxes = ops.reshape(boxes, (-1, 4))
        side = tuple(config.MASK_SHAPE)
        frames = None
        if config.USE_MINI_MASK:
            frames = ops.take(ops.reshape(gt_boxes, (-1, 4)), source, axis=0)
        if config.ROI_ALIGNED:
            # A rim of zeros: the mask ends at the edges of its cells, not at their centres.
            flat = ops.pad(flat, [[0, 0], [1, 1], [1, 1], [0, 0]])
            boxes = _aligned_crops(boxes, frames, frame, (height, width), side)
        elif frames is not None:
            origin = ops.tile(frames[:, 0:2], (1, 2))
            extent = ops.tile(ops.maximum(frames[:, 2:4] - frames[:, 0:2], 1e-6), (1, 2))
            boxes = (boxes - origin) / extent
        masks = crop_and_resize(flat, boxes, source, side)
        masks = masks[..., 0] if config.MASK_SOFT_TARGETS else ops.round(masks[..., 0])
        masks = ops.reshape(masks, (-1, count, *side))
        return masks * ops.cast(is_positive, "float32")[..., None, None]


class PixelDetectionTargetLayer(DetectionTargetLayer):
    """The same targets with boxes compared in whole pixels, as they are drawn.

    The network's normalised boxes are a pixel shorter at their ends (`mrcnn.boxes.norm_boxes`),
    which small boxes feel: matterport's function for given regions compared pixels.

    Args:
        config, seed: as there.
        size: (height, width) of the network's input.
    """

    def __init__(self, config: Config, size: Sequence[int] | np.ndarray, seed: int = 0):
        super().__init__(config, seed)
        self._size = size

    def _label(self, proposals, gt_class_ids, gt_boxes):
        return super()._label(self._pixels(proposals), gt_class_ids, self._pixels(gt_boxes))

    def _deltas(self, rois, gt_boxes, is_positive):
        return super()._deltas(self._pixels(rois), self._pixels(gt_boxes), is_positive)

    def _pixels(self, boxes):
        return ops.cast(denorm_boxes_graph(boxes, self._size), "float32")


def _aligned_crops(boxes, frames, image_size, mask_size, samples):
    """Boxes for `crop_and_resize` that sample a mask at the centres of the crop's cells.

    The mask, of `mask_size` without it, has a rim of one cell of zeros around it. `frames` are
    the normalised boxes that the masks fill, or None for whole images.
    """
    spans = []
    for axis in (0, 1):
        size = ops.cast(image_size[axis], "float32")
        start, stop = boxes[:, axis] * (size - 1.0), boxes[:, axis + 2] * (size - 1.0) + 1.0
        origin, extent = 0.0, size
        if frames is not None:
            origin = frames[:, axis] * (size - 1.0)
            extent = frames[:, axis + 2] * (size - 1.0) + 1.0 - origin
        scale = mask_size[axis] / extent
        start, stop = (start - origin) * scale, (stop - origin) * scale
        spans.append(framed_samples(start, stop, mask_size[axis], samples[axis]))
    (y1, y2), (x1, x2) = spans
    return ops.stack([y1, x1, y2, x2], axis=1)


def _sample(candidates, random, limit):
    """Up to `limit` random rows of `candidates` [batch, n], and which of them are real."""
    limit = min(limit, candidates.shape[1])
    value, rows = ops.top_k(ops.where(candidates, random, -1.0), limit)
    return rows, value >= 0


def _stable_order(valid, total):
    """Indices [batch, total] that bring the valid ones of [batch, n] to the front, in order."""
    count = valid.shape[1]
    position = ops.arange(count, dtype="float32")[None]
    key = ops.where(valid, 2.0 * count - position, count - 1.0 - position)
    return ops.top_k(key, total)[1]
