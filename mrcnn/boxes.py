"""Box arithmetic, for NumPy arrays and backend tensors alike.

Boxes are `(y1, x1, y2, x2)` along the last axis. Pixel boxes are half-open: `y2, x2` lie just
outside. Normalised boxes have both corners inside, so that the pixel box `(0, 0, h, w)` becomes
`(0, 0, 1, 1)` (`norm_boxes`). Functions that do not name a unit work in either.
"""

import math
from collections.abc import Sequence

import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from mrcnn.tensors import Tensor

# A box grows at most by the factor 1000 / 16 in one refinement (Detectron's bound); the
# exponential of an unbounded prediction overflows.
MAX_LOG_SCALE = math.log(1000.0 / 16.0)
# Without that bound: what leaves boxes finite in float32, where infinite ones would become NaN.
_FINITE_LOG_SCALE = 80.0


def _namespace(array):
    return np if isinstance(array, np.ndarray) else ops


def box_area(boxes: Tensor) -> Tensor:
    """Areas [...] of boxes [..., 4]; inverted boxes have area zero."""
    xp = _namespace(boxes)
    height = xp.maximum(boxes[..., 2] - boxes[..., 0], 0)
    width = xp.maximum(boxes[..., 3] - boxes[..., 1], 0)
    return height * width


def box_refinement(box: Tensor, gt_box: Tensor) -> Tensor:
    """Deltas that move `box` onto `gt_box` (Girshick et al., R-CNN, appendix C).

    Args:
        box, gt_box: [..., 4] of positive height and width, both in the same unit.

    Returns:
        [..., 4] as `(dy, dx, log(dh), log(dw))`.
    """
    xp = _namespace(box)
    if xp is np:  # integer pixels would wrap or truncate
        box, gt_box = np.asarray(box, np.float32), np.asarray(gt_box, np.float32)
    height = box[..., 2] - box[..., 0]
    width = box[..., 3] - box[..., 1]
    gt_height = gt_box[..., 2] - gt_box[..., 0]
    gt_width = gt_box[..., 3] - gt_box[..., 1]
    dy = (gt_box[..., 0] + 0.5 * gt_height - box[..., 0] - 0.5 * height) / height
    dx = (gt_box[..., 1] + 0.5 * gt_width - box[..., 1] - 0.5 * width) / width
    return xp.stack([dy, dx, xp.log(gt_height / height), xp.log(gt_width / width)], axis=-1)


def apply_box_deltas(boxes: Tensor, deltas: Tensor, max_log_scale: float | None = None) -> Tensor:
    """Inverse of `box_refinement`.

    Args:
        boxes: [..., 4].
        deltas: [..., 4] as `(dy, dx, log(dh), log(dw))`.
        max_log_scale: bound of `log(dh)` and `log(dw)` from above; with None it is 80, so that
            boxes are finite.
    """
    xp = _namespace(boxes)
    if xp is np:
        boxes = boxes.astype(np.float32)
    bound = _FINITE_LOG_SCALE if max_log_scale is None else max_log_scale
    log_scale = xp.minimum(deltas[..., 2:4], bound)
    size = boxes[..., 2:4] - boxes[..., 0:2]
    centre = boxes[..., 0:2] + 0.5 * size + deltas[..., 0:2] * size
    size = size * xp.exp(log_scale)
    corner = centre - 0.5 * size
    return xp.concatenate([corner, corner + size], axis=-1)


def clip_boxes(boxes: Tensor, window: Tensor) -> Tensor:
    """Boxes [..., 4] clipped to `window`, broadcastable [..., 4]."""
    xp = _namespace(boxes)
    y1, x1, y2, x2 = (window[..., i] for i in range(4))
    return xp.stack(
        [
            xp.maximum(xp.minimum(boxes[..., 0], y2), y1),
            xp.maximum(xp.minimum(boxes[..., 1], x2), x1),
            xp.maximum(xp.minimum(boxes[..., 2], y2), y1),
            xp.maximum(xp.minimum(boxes[..., 3], x2), x1),
        ],
        axis=-1,
    )


def scale_boxes(boxes: Tensor, factor: float) -> Tensor:
    """Boxes [..., 4] enlarged by `factor` about their centres."""
    xp = _namespace(boxes)
    margin = 0.5 * (factor - 1.0) * (boxes[..., 2:4] - boxes[..., 0:2])
    return xp.concatenate([boxes[..., 0:2] - margin, boxes[..., 2:4] + margin], axis=-1)


def compute_overlaps(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union [..., n1, n2] of boxes [..., n1, 4] and [..., n2, 4].

    Zero where a union is empty (padding against padding).
    """
    xp = _namespace(boxes1)
    if xp is np:
        boxes1, boxes2 = _wide_enough(boxes1), _wide_enough(boxes2)
    first, second = boxes1[..., :, None, :], boxes2[..., None, :, :]
    height = xp.minimum(first[..., 2], second[..., 2]) - xp.maximum(first[..., 0], second[..., 0])
    width = xp.minimum(first[..., 3], second[..., 3]) - xp.maximum(first[..., 1], second[..., 1])
    intersection = xp.maximum(height, 0) * xp.maximum(width, 0)
    union = box_area(first) + box_area(second) - intersection
    return xp.where(union > 0, intersection / xp.where(union > 0, union, 1), 0)


def _wide_enough(boxes: np.ndarray) -> np.ndarray:
    """Boxes of a type whose areas neither wrap around nor overflow."""
    boxes = np.asarray(boxes)
    return boxes if boxes.dtype in (np.float32, np.float64) else boxes.astype(np.float64)


def compute_iou(
    box: ArrayLike,
    boxes: ArrayLike,
    box_area: float | None = None,
    boxes_area: ArrayLike | None = None,
) -> np.ndarray:
    """Intersection over union [n] of one box [4] with boxes [n, 4].

    The areas are accepted for compatibility and not needed.
    """
    return compute_overlaps(np.asarray(box)[None], np.asarray(boxes))[0]


def norm_boxes(boxes: ArrayLike, shape: Sequence[int] | np.ndarray) -> np.ndarray:
    """Pixel boxes [..., 4] in normalised coordinates; `shape` is `(height, width)` in pixels."""
    scale, shift = _pixel_frame(shape)
    return ((np.asarray(boxes) - shift) / scale).astype(np.float32)


def denorm_boxes(boxes: ArrayLike, shape: Sequence[int] | np.ndarray) -> np.ndarray:
    """Inverse of `norm_boxes`, rounded to int32 pixels."""
    scale, shift = _pixel_frame(shape)
    return np.around(np.asarray(boxes) * scale + shift).astype(np.int32)


def norm_boxes_graph(boxes: Tensor, shape: Tensor | Sequence[int]) -> Tensor:
    """`norm_boxes` for tensors; `shape` is a tensor or pair `(height, width)`."""
    scale, shift = _pixel_frame_graph(shape)
    return (ops.cast(boxes, "float32") - shift) / scale


def denorm_boxes_graph(boxes: Tensor, shape: Tensor | Sequence[int]) -> Tensor:
    """`denorm_boxes` for tensors; the result is int32."""
    scale, shift = _pixel_frame_graph(shape)
    return ops.cast(ops.round(boxes * scale + shift), "int32")


def _pixel_frame(shape):
    height, width = shape
    scale = np.array([height - 1, width - 1, height - 1, width - 1])
    return scale, np.array([0, 0, 1, 1])


def _pixel_frame_graph(shape):
    height, width = ops.cast(shape[0], "float32"), ops.cast(shape[1], "float32")
    scale = ops.stack([height, width, height, width]) - 1.0
    return scale, ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])


def non_max_suppression(boxes: ArrayLike, scores: ArrayLike, threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression in NumPy.

    Args:
        boxes: [n, 4].
        scores: [n].
        threshold: a box that overlaps a better one by more than this IoU is dropped.

    Returns:
        int32 indices of the boxes kept, best score first.

    Raises:
        ValueError: if there are no boxes.
    """
    boxes = np.asarray(boxes, np.float32)
    if not boxes.shape[0]:
        raise ValueError("non_max_suppression needs at least one box; received none.")
    order = np.argsort(np.asarray(scores))[::-1]
    keep = []
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(best)
        order = rest[compute_iou(boxes[best], boxes[rest]) <= threshold]
    return np.array(keep, np.int32)
