"""matterport's helper functions under the name they are imported from; nothing lives here."""

from mrcnn.anchors import generate_anchors, generate_pyramid_anchors
from mrcnn.boxes import (
    apply_box_deltas,
    box_refinement,
    compute_iou,
    compute_overlaps,
    denorm_boxes,
    non_max_suppression,
    norm_boxes,
)
from mrcnn.dataset import Dataset
from mrcnn.evaluate import (
    compute_ap,
    compute_ap_range,
    compute_matches,
    compute_recall,
    trim_zeros,
)
from mrcnn.masks import (
    compute_overlaps_masks,
    expand_mask,
    extract_bboxes,
    minimize_mask,
    resize_mask,
    unmold_mask,
)
from mrcnn.molding import resize, resize_image

__all__ = [
    "Dataset",
    "apply_box_deltas",
    "box_refinement",
    "compute_ap",
    "compute_ap_range",
    "compute_iou",
    "compute_matches",
    "compute_overlaps",
    "compute_overlaps_masks",
    "compute_recall",
    "denorm_boxes",
    "expand_mask",
    "extract_bboxes",
    "generate_anchors",
    "generate_pyramid_anchors",
    "minimize_mask",
    "non_max_suppression",
    "norm_boxes",
    "resize",
    "resize_image",
    "resize_mask",
    "trim_zeros",
    "unmold_mask",
]
