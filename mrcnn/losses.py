"""The five losses (Ren et al. 2015, equation 1; He et al. 2017, section 3), and the semantic two.

Every one is a mean over what counts, and zero where nothing does. On several devices each gives
its share of the mean over the whole batch (`mrcnn.distribution`).
"""

from typing import Any

from keras import ops

from mrcnn.distribution import replica_count, sum_over_replicas
from mrcnn.tensors import Tensor, gather_rows, own_class


def smooth_l1_loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Huber's loss with its knee at 1 (Girshick 2015, equation 3), element by element."""
    difference = ops.abs(y_true - y_pred)
    return ops.where(difference < 1.0, 0.5 * ops.square(difference), difference - 0.5)


def rpn_class_loss_graph(rpn_match: Tensor, rpn_class_logits: Tensor) -> Tensor:
    """Cross-entropy of object against background over the anchors that are not ignored.

    Args:
        rpn_match: [batch, anchors, 1] of 1, -1 or 0 (ignored).
        rpn_class_logits: [batch, anchors, 2].
    """
    match = rpn_match[..., 0]
    weight = ops.cast(match != 0, "float32")
    return _weighted_mean(_crossentropy(ops.cast(match == 1, "int32"), rpn_class_logits), weight)


def rpn_bbox_loss_graph(
    config: Any, target_bbox: Tensor, rpn_match: Tensor, rpn_bbox: Tensor
) -> Tensor:
    """Smooth L1 over the deltas of the objects' anchors.

    Args:
        config: unused, kept for compatibility.
        target_bbox: [batch, rows, 4], one row per object's anchor in their order.
        rpn_match: [batch, anchors, 1].
        rpn_bbox: [batch, anchors, 4].
    """
    positive = ops.cast(rpn_match[..., 0] == 1, "int32")
    row = ops.clip(ops.cumsum(positive, axis=1) - 1, 0, target_bbox.shape[1] - 1)
    loss = smooth_l1_loss(gather_rows(target_bbox, row), rpn_bbox)
    return _weighted_mean(ops.mean(loss, axis=-1), ops.cast(positive, "float32"))


def mrcnn_class_loss_graph(
    target_class_ids: Tensor,
    pred_class_logits: Tensor,
    active_class_ids: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the regions' classes.

    A region counts only if the class predicted for it exists in its image's data set.

    Args:
        target_class_ids: int [batch, rois], zero for background and for padding.
        pred_class_logits: [batch, rois, classes].
        active_class_ids: [batch, classes] of 0 and 1.
        weight: [batch, rois] of 0 and 1, or None to count padding as matterport does.
    """
    loss = _crossentropy(target_class_ids, pred_class_logits)
    predicted = ops.argmax(pred_class_logits, axis=2)
    active = gather_rows(ops.cast(active_class_ids, "float32")[..., None], predicted)[..., 0]
    return _weighted_mean(loss, active if weight is None else active * weight)


def mrcnn_bbox_loss_graph(
    target_bbox: Tensor, target_class_ids: Tensor, pred_bbox: Tensor
) -> Tensor:
    """Smooth L1 over the deltas that the positive regions' own classes predict.

    Args:
        target_bbox: [batch, rois, 4].
        target_class_ids: int [batch, rois].
        pred_bbox: [batch, rois, classes, 4].
    """
    positive = ops.cast(target_class_ids > 0, "float32")
    predicted = own_class(pred_bbox, target_class_ids, axis=2)
    return _weighted_mean(ops.mean(smooth_l1_loss(target_bbox, predicted), axis=-1), positive)


def mrcnn_mask_loss_graph(
    target_masks: Tensor, target_class_ids: Tensor, pred_masks: Tensor, dice: bool = False
) -> Tensor:
    """Binary cross-entropy of the mask of each positive region's own class.

    Args:
        target_masks: [batch, rois, height, width] in 0..1, between with `MASK_SOFT_TARGETS` alone.
        target_class_ids: int [batch, rois].
        pred_masks: [batch, rois, height, width, classes] in 0..1.
        dice: adds the soft Dice loss (Milletari et al. 2016), the mean over regions.
    """
    target_masks = ops.cast(target_masks, "float32")
    positive = ops.cast(target_class_ids > 0, "float32")
    predicted = own_class(pred_masks, target_class_ids)
    bounded = ops.clip(predicted, 1e-7, 1.0 - 1e-7)
    pixel = -(target_masks * ops.log(bounded) + (1.0 - target_masks) * ops.log(1.0 - bounded))
    loss = ops.mean(pixel, axis=(2, 3))
    if dice:
        loss = loss + _soft_dice(*_dice_sums(target_masks, predicted, (2, 3)))
    return _weighted_mean(loss, positive)


def semantic_loss_graph(target: Tensor, logits: Tensor, dice: bool = False) -> Tensor:
    """Binary cross-entropy of every cell and class (Kirillov et al. 2019 have one class a cell).

    Args:
        target: [batch, rows, columns, classes] in 0..1.
        logits: of the same shape.
        dice: adds the soft Dice loss (Milletari et al. 2016) of each class over the whole batch,
            the mean of those that occur in it: rare classes and small regions count as others do.
    """
    target = ops.cast(target, "float32")
    loss = _weighted_mean(_binary_crossentropy(target, logits), ops.ones_like(logits))
    if not dice:
        return loss
    predicted, cells = ops.sigmoid(logits), (0, 1, 2)
    shared, squares, area = sum_over_replicas(
        [*_dice_sums(target, predicted, cells), ops.sum(target, axis=cells)]
    )
    occurs = ops.cast(area > 0, "float32")
    missed = _soft_dice(shared, squares) * occurs
    return loss + ops.sum(missed) / ops.maximum(ops.sum(occurs), 1.0) / replica_count()


def presence_loss_graph(target: Tensor, logits: Tensor) -> Tensor:
    """Binary cross-entropy of which classes an image shows.

    Args:
        target: of the semantic branch, [batch, rows, columns, classes].
        logits: [batch, classes].
    """
    present = ops.cast(ops.any(target > 0, axis=(1, 2)), "float32")
    return _weighted_mean(_binary_crossentropy(present, logits), ops.ones_like(logits))


def _dice_sums(target, predicted, axes):
    """The sums over `axes` that `_soft_dice` takes, of what both share and of their squares."""
    shared = ops.sum(target * predicted, axis=axes)
    return shared, ops.sum(ops.square(target) + ops.square(predicted), axis=axes)


def _soft_dice(shared, squares):
    return 1.0 - (2.0 * shared + 1.0) / (squares + 1.0)


def _binary_crossentropy(target, logits):
    """Element by element, from logits of any size."""
    return ops.softplus(logits) - target * logits


def _crossentropy(class_ids, logits):
    """Cross-entropy [...] of int classes [...] with logits [..., classes]."""
    return -own_class(ops.log_softmax(logits, axis=-1), class_ids)


def _weighted_mean(values, weights):
    total = sum_over_replicas(ops.sum(weights))
    # What does not count may not be finite; zero times infinity would not be zero.
    values = ops.where(weights > 0, values * weights, 0.0)
    return ops.sum(values) / ops.maximum(total, 1.0)
