"""Non-maximum suppression of a batch of boxes, with static output shapes.

TensorFlow has a quick batched kernel on the processor, which forgets classes where it compares
across them; there, and with the other backends, a form in `keras.ops` compares boxes all at once.
Both give the same boxes. Graphs that are converted to other formats have a third one.
"""

import math
from collections.abc import Sequence

import numpy as np
from keras import ops

from mrcnn.boxes import compute_overlaps
from mrcnn.tensors import Tensor, gather_rows, has_quick_kernels, is_for_converters

_FAR = 1000.0  # from all boxes in 0..1, whatever their class


def suppress(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    class_count: int,
    iou_threshold: float,
    limit: int,
    across: bool = False,
    sizes: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Greedy non-maximum suppression within each class.

    Args:
        boxes: float32 [batch, n, 4].
        scores: float32 [batch, n]; a negative score marks a box that does not take part.
        classes: int32 [batch, n] in `range(class_count)`.
        class_count: number of classes.
        iou_threshold: a box that overlaps a better one by more than this is dropped.
        limit: number of boxes returned per image, best score first, zero-padded.
        across: whether a box also drops boxes of other classes.
        sizes: where the boxes are ordered by class, how many there are of each, one at least,
            which may save comparisons; not with `across`.

    Returns:
        boxes [batch, limit, 4], scores [batch, limit], classes int32 [batch, limit].
    """
    if is_for_converters():
        places = boxes if across or class_count == 1 else _apart(boxes, classes, class_count)
        return _suppress_for_converters(boxes, places, scores, classes, iou_threshold, limit)
    if has_quick_kernels() and not across:
        return _suppress_tensorflow(boxes, scores, classes, class_count, iou_threshold, limit)
    return suppress_ops(boxes, scores, classes, class_count, iou_threshold, limit, across, sizes)


def _suppress_tensorflow(boxes, scores, classes, class_count, iou_threshold, limit):
    import tensorflow as tf

    if class_count > 1:
        of_class = tf.one_hot(classes, class_count, on_value=True, off_value=False, dtype=tf.bool)
        scores = tf.where(of_class, scores[..., None], -1.0)
    else:
        scores = scores[..., None]
    kept_boxes, kept_scores, kept_classes, _ = tf.image.combined_non_max_suppression(
        boxes[:, :, None, :],
        scores,
        max_output_size_per_class=limit,
        max_total_size=limit,
        iou_threshold=iou_threshold,
        score_threshold=-1e-30,  # scores above it count: zero does, no negative one
        clip_boxes=False,
    )
    kept_boxes = tf.ensure_shape(kept_boxes, [None, limit, 4])
    return kept_boxes, kept_scores, tf.cast(kept_classes, tf.int32)


def _suppress_for_converters(boxes, places, scores, classes, iou_threshold, limit):
    """By the one suppression that every format has: of one image's boxes, whatever their class.

    `places` are the boxes that are compared, those of different classes apart.
    """
    import tensorflow as tf

    # What has no area overlaps nothing, but TFLite would take it again and again: it gets an area
    # where nothing else is.
    away = 2.0 * np.arange(boxes.shape[1])[:, None] + [0, 0, 1, 1] + _FAR
    flat = tf.reduce_any(places[..., 2:] <= places[..., :2], axis=-1, keepdims=True)
    places = tf.where(flat, away.astype(np.float32), places)
    kept = [
        tf.raw_ops.NonMaxSuppressionV4(
            boxes=of_image,
            scores=scores_of_image,
            max_output_size=limit,
            iou_threshold=iou_threshold,
            score_threshold=-1e-30,  # scores above it count: zero does, no negative one
            pad_to_max_output_size=True,
        )
        for of_image, scores_of_image in zip(tf.unstack(places), tf.unstack(scores), strict=True)
    ]
    chosen, counts = map(tf.stack, zip(*kept, strict=True))
    chosen = tf.ensure_shape(chosen, [len(kept), limit])
    return _picked(boxes, scores, classes, chosen, tf.range(limit) < counts[:, None])


def _apart(boxes, classes, class_count):
    """Boxes in 0..1, those of each class moved into a square of their own.

    In a grid around zero coordinates stay small: of 81 classes they are rounded to 2.4e-7.
    """
    side = math.isqrt(class_count - 1) + 1
    squares = np.stack(np.divmod(np.arange(class_count), side), axis=1) - side // 2
    return boxes + ops.take(np.tile(squares, 2).astype(np.float32), classes, axis=0)


def suppress_ops(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    class_count: int,
    iou_threshold: float,
    limit: int,
    across: bool = False,
    sizes: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`suppress` in `keras.ops` alone.

    A box is kept when no kept box of better score suppresses it. Starting from "all kept", each
    round applies that rule to all boxes at once; a round settles at least the best box that is
    not yet settled, so that the fixed point is the greedy answer. It is mostly reached in a
    handful of rounds.
    """
    parts, start = [], 0
    for size in [boxes.shape[1]] if sizes is None else sizes:
        cut = slice(start, start + size)
        part = boxes[:, cut], scores[:, cut], classes[:, cut]
        apart = class_count > 1 and not across and sizes is None
        parts.append(_survivors(*part, apart, iou_threshold))
        start += size
    boxes, scores, classes = (ops.concatenate(rows, axis=1) for rows in zip(*parts, strict=True))
    size = min(limit, boxes.shape[1])
    values, chosen = ops.top_k(scores, size)
    outputs = _picked(boxes, scores, classes, chosen, values >= 0)
    padding = [[0, 0], [0, limit - size]]
    return (
        ops.pad(outputs[0], [*padding, [0, 0]]),
        ops.pad(outputs[1], padding),
        ops.pad(outputs[2], padding),
    )


def _picked(boxes, scores, classes, chosen, valid):
    """The `chosen` [batch, k] of boxes, scores and classes; zeros where they are not `valid`."""
    return (
        ops.where(valid[..., None], gather_rows(boxes, chosen), 0.0),
        ops.where(valid, gather_rows(scores[..., None], chosen)[..., 0], 0.0),
        ops.where(valid, gather_rows(classes[..., None], chosen)[..., 0], 0),
    )


def _survivors(boxes, scores, classes, apart, iou_threshold):
    """Boxes by falling score, scores [batch, n], -1 of what was suppressed, and classes."""
    count = boxes.shape[1]
    order = ops.argsort(-scores, axis=1)
    boxes = gather_rows(boxes, order)
    scores = gather_rows(scores[..., None], order)[..., 0]
    classes = gather_rows(classes[..., None], order)[..., 0]
    overlap = compute_overlaps(boxes, boxes) > iou_threshold
    if apart:
        overlap = ops.logical_and(overlap, classes[:, :, None] == classes[:, None, :])
    better = ops.arange(count)[:, None] < ops.arange(count)[None, :]
    suppresses = ops.cast(ops.logical_and(overlap, better), "float32")  # [batch, by, of]
    taking_part = scores >= 0

    def round_of(kept, _):
        hits = ops.matmul(ops.cast(kept, "float32")[:, None, :], suppresses)[:, 0]
        return ops.logical_and(taking_part, hits == 0), kept

    kept, _ = ops.while_loop(
        lambda kept, previous: ops.any(kept != previous),
        round_of,
        (taking_part, ops.logical_not(taking_part)),
        maximum_iterations=count + 1,
    )
    return boxes, ops.where(kept, scores, -1.0), classes
