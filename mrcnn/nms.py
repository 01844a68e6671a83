"""Non-maximum suppression of a batch of boxes, with static output shapes.

TensorFlow has a quick batched kernel on the processor, which forgets classes where it compares
across them; there, and with the other backends, a form in `keras.ops` compares boxes all at once.
Both give the same boxes.
"""

from collections.abc import Sequence

import keras
from keras import ops

from mrcnn.boxes import compute_overlaps
from mrcnn.tensors import Tensor, gather_rows


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
    if keras.backend.backend() == "tensorflow" and not across:
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
    valid = values >= 0
    outputs = (
        ops.where(valid[..., None], gather_rows(boxes, chosen), 0.0),
        ops.where(valid, values, 0.0),
        ops.where(valid, gather_rows(classes[..., None], chosen)[..., 0], 0),
    )
    padding = [[0, 0], [0, limit - size]]
    return (
        ops.pad(outputs[0], [*padding, [0, 0]]),
        ops.pad(outputs[1], padding),
        ops.pad(outputs[2], padding),
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
