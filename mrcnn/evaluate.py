"""Average precision and recall of single images, by matterport's names.

These are VOC's measures of one image over all its classes, useful to look at examples; they are not
the COCO average precision of a data set.
"""

from collections.abc import Sequence

import numpy as np

from mrcnn.boxes import compute_overlaps
from mrcnn.masks import CompactMasks, compute_overlaps_masks, some_masks
from mrcnn.printing import log


def trim_zeros(x: np.ndarray) -> np.ndarray:
    """The rows of [rows, columns] that are not all zero: arrays without their padding."""
    x = np.asarray(x)
    return x[_is_filled(x)]


def reported_order(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Indices int [n] of detections in the order in which `compute_matches` numbers them.

    Args:
        boxes: [detections, 4]; those that are all zero are padding and left out.
        scores: float [detections]; the best comes first, equal ones in their order.
    """
    filled = np.flatnonzero(_is_filled(boxes))
    return filled[np.argsort(-np.asarray(scores)[filled], kind="stable")]


def compute_matches(
    gt_boxes: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_masks: np.ndarray,
    pred_boxes: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: np.ndarray | CompactMasks,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Assign predictions, best score first, to the instances of their class they overlap most.

    Args:
        gt_boxes: [instances, 4]; instances and predictions whose box is all zero are padding.
        gt_class_ids: int [instances].
        gt_masks: bool [height, width, instances].
        pred_boxes: [predictions, 4].
        pred_class_ids: int [predictions].
        pred_scores: float [predictions].
        pred_masks: bool [height, width, predictions], or compact.
        iou_threshold: smallest overlap, of the masks, of a match.
        score_threshold: predictions of a lower score match nothing.

    Returns:
        gt_match: int [instances], the index of the matched prediction, or -1.
        pred_match: int [predictions], the index of the matched instance, or -1; predictions are
            numbered from the best score to the worst (`reported_order`).
        overlaps: float32 [predictions, instances], IoU of the masks, in the same order.
    """
    gt_class_ids, pred_class_ids, pred_scores, overlaps = _compared(
        gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks
    )
    candidates = pred_class_ids[:, np.newaxis] == gt_class_ids
    candidates &= (pred_scores >= score_threshold)[:, np.newaxis]
    return *_matched(np.where(candidates, overlaps, -1.0), iou_threshold), overlaps


def compute_ap(
    gt_boxes: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_masks: np.ndarray,
    pred_boxes: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: np.ndarray | CompactMasks,
    iou_threshold: float = 0.5,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Average precision of one image: the area under its precision-recall curve.

    Where there is nothing to find it is 1 if nothing was predicted and 0 otherwise; where nothing
    was predicted though there was something to find, it is 0.

    Args:
        As `compute_matches`.

    Returns:
        mAP: 0 to 1.
        precisions: [predictions + 2], largest precision at this or a higher recall.
        recalls: [predictions + 2], from 0 to 1.
        overlaps: as `compute_matches`.
    """
    _, pred_match, overlaps = compute_matches(
        gt_boxes,
        gt_class_ids,
        gt_masks,
        pred_boxes,
        pred_class_ids,
        pred_scores,
        pred_masks,
        iou_threshold,
    )
    return *_average_precision(pred_match, overlaps.shape[1]), overlaps


def compute_ap_range(
    gt_box: np.ndarray,
    gt_class_id: np.ndarray,
    gt_mask: np.ndarray,
    pred_box: np.ndarray,
    pred_class_id: np.ndarray,
    pred_score: np.ndarray,
    pred_mask: np.ndarray | CompactMasks,
    iou_thresholds: Sequence[float] | None = None,
    verbose: int = 1,
) -> float:
    """Mean of `compute_ap` over IoU thresholds; by default, and of none, 0.50, 0.55, ..., 0.95.

    Args:
        As `compute_ap`; `verbose` prints the value at every threshold, and their mean.
    """
    if iou_thresholds is None or not len(iou_thresholds):
        iou_thresholds = np.arange(0.5, 1.0, 0.05).tolist()
    gt_class_ids, pred_class_ids, _, overlaps = _compared(
        gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask
    )
    overlaps = np.where(pred_class_ids[:, np.newaxis] == gt_class_ids, overlaps, -1.0)
    precisions = []
    for threshold in iou_thresholds:
        _, pred_match = _matched(overlaps, threshold)
        precisions.append(_average_precision(pred_match, overlaps.shape[1])[0])
        if verbose:
            log(f"AP @{threshold:.2f}: {precisions[-1]:.3f}")
    mean = float(np.mean(precisions))
    if verbose:
        log(f"AP @{iou_thresholds[0]:.2f}-{iou_thresholds[-1]:.2f}: {mean:.3f}")
    return mean


def compute_recall(
    pred_boxes: np.ndarray, gt_boxes: np.ndarray, iou: float
) -> tuple[float, np.ndarray]:
    """Share of the ground truth boxes that some predicted box finds.

    Args:
        pred_boxes: [predictions, 4].
        gt_boxes: [instances, 4].
        iou: smallest overlap of the boxes that counts; each prediction counts for the instance it
            overlaps most.

    Returns:
        recall: 0 to 1; 1 if there is nothing to find.
        positive_ids: int [n], the predictions that found something.
    """
    if not len(pred_boxes) or not len(gt_boxes):
        return float(not len(gt_boxes)), np.zeros(0, np.intp)
    overlaps = compute_overlaps(np.asarray(pred_boxes), np.asarray(gt_boxes))
    positive_ids = np.flatnonzero(overlaps.max(axis=1) >= iou)
    found = np.unique(overlaps.argmax(axis=1)[positive_ids])
    return len(found) / len(gt_boxes), positive_ids


def _is_filled(boxes: np.ndarray | Sequence) -> np.ndarray:
    boxes = np.asarray(boxes)  # of which none at all may have but one axis
    return np.asarray(boxes.any(axis=tuple(range(1, boxes.ndim))))


def _compared(
    gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Classes of the instances, classes and scores of the predictions, and the masks' overlaps.

    Padding is left out; predictions come in the order of falling scores.
    """
    instances = np.flatnonzero(_is_filled(gt_boxes))
    predictions = reported_order(pred_boxes, pred_scores)
    return (
        np.asarray(gt_class_ids)[instances],
        np.asarray(pred_class_ids)[predictions],
        np.asarray(pred_scores)[predictions],
        compute_overlaps_masks(
            some_masks(pred_masks, predictions), some_masks(gt_masks, instances)
        ),
    )


def _matched(overlaps: np.ndarray, iou_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Greedy matches of overlaps [predictions, instances], negative where none is allowed."""
    gt_match = np.full(overlaps.shape[1], -1)
    pred_match = np.full(overlaps.shape[0], -1)
    free = np.ones(overlaps.shape[1], bool)
    for i, row in enumerate(overlaps):
        allowed = np.flatnonzero(free & (row >= max(iou_threshold, 0)))
        if allowed.size:
            best = allowed[row[allowed].argmax()]
            gt_match[best], pred_match[i], free[best] = i, best, False
    return gt_match, pred_match


def _average_precision(
    pred_match: np.ndarray, instances: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Area under the precision-recall curve, and its precisions and recalls."""
    if not instances and not len(pred_match):
        return 1.0, np.ones(2), np.array([0.0, 1.0])
    hits = np.cumsum(pred_match > -1)
    precisions = np.concatenate([[0.0], hits / (np.arange(len(hits)) + 1), [0.0]])
    recalls = np.concatenate([[0.0], hits / max(instances, 1), [1.0]])
    precisions = np.maximum.accumulate(precisions[::-1])[::-1]
    return float(np.sum(np.diff(recalls) * precisions[1:])), precisions, recalls
