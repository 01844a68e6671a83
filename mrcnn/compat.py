"""What matterport's scripts find in `mrcnn.model` and call as matterport did.

The first part names functions that are at home elsewhere. Below are adapters: old arguments and
lists of inputs on the one side, the layers and functions that do the work on the other.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn import detection, heads, resnet, roi_align, rpn, targets
from mrcnn.anchors import compute_backbone_shapes, generate_pyramid_anchors
from mrcnn.boxes import (
    apply_box_deltas,
    box_refinement,
    clip_boxes,
    compute_overlaps,
    denorm_boxes,
    denorm_boxes_graph,
    norm_boxes,
    norm_boxes_graph,
)
from mrcnn.config import Config
from mrcnn.data import load_image_gt
from mrcnn.download import download, known_file
from mrcnn.generator import build_detection_targets, data_generator, generate_random_rois
from mrcnn.losses import (
    mrcnn_bbox_loss_graph,
    mrcnn_class_loss_graph,
    mrcnn_mask_loss_graph,
    rpn_bbox_loss_graph,
    rpn_class_loss_graph,
    smooth_l1_loss,
)
from mrcnn.masks import extract_bboxes, minimize_mask
from mrcnn.molding import (
    META,
    compose_image_meta,
    mold_image,
    parse_image_meta,
    resize_image,
    unmold_image,
)
from mrcnn.printing import log
from mrcnn.resnet import conv_block, identity_block, resnet_graph
from mrcnn.rpn import build_rpn_model
from mrcnn.targets import build_rpn_targets
from mrcnn.tensors import Tensor

__all__ = [
    "BatchNorm",
    "DetectionLayer",
    "DetectionTargetLayer",
    "ProposalLayer",
    "PyramidROIAlign",
    "apply_box_deltas_graph",
    "batch_pack_graph",
    "build_detection_targets",
    "build_fpn_mask_graph",
    "build_rpn_model",
    "build_rpn_targets",
    "clip_boxes_graph",
    "compose_image_meta",
    "compute_backbone_shapes",
    "conv_block",
    "data_generator",
    "denorm_boxes",
    "denorm_boxes_graph",
    "detection_targets_graph",
    "fpn_classifier_graph",
    "generate_pyramid_anchors",
    "generate_random_rois",
    "identity_block",
    "load_image_gt",
    "log",
    "log2_graph",
    "mold_image",
    "mrcnn_bbox_loss_graph",
    "mrcnn_class_loss_graph",
    "mrcnn_mask_loss_graph",
    "norm_boxes",
    "norm_boxes_graph",
    "overlaps_graph",
    "parse_image_meta",
    "parse_image_meta_graph",
    "refine_detections_graph",
    "resize_image",
    "resnet_graph",
    "rpn_bbox_loss_graph",
    "rpn_class_loss_graph",
    "rpn_graph",
    "smooth_l1_loss",
    "trim_zeros_graph",
    "unmold_image",
]

COCO_MODEL_URL = known_file("mask_rcnn_coco.h5").url

# One function serves NumPy arrays and tensors.
apply_box_deltas_graph = apply_box_deltas
box_refinement_graph = box_refinement
clip_boxes_graph = clip_boxes
overlaps_graph = compute_overlaps
log2_graph = ops.log2


# ---- layers, called with one list of inputs or as here -------------------------------------------


class BatchNorm(resnet.BatchNorm):
    """Batch normalization that keeps to the `training` it is given when a network is built."""

    def __call__(self, inputs: Tensor, *args, training: bool | None = None, **kwargs) -> Tensor:
        if training is not None and isinstance(inputs, keras.KerasTensor):
            self.train_bn = training
        return super().__call__(inputs, *args, training=training, **kwargs)


class ProposalLayer(rpn.ProposalLayer):
    """`mrcnn.rpn.ProposalLayer` of a `Config`; takes `[scores, deltas, anchors]`."""

    def __init__(
        self, proposal_count: int, nms_threshold: float, config: Config | None = None, **kwargs
    ):
        if config is not None:
            kwargs = {
                "pre_nms_limit": config.PRE_NMS_LIMIT,
                "bbox_std_dev": config.RPN_BBOX_STD_DEV,
                "clamp_deltas": config.CLAMP_DELTAS,
                **kwargs,
            }
        super().__init__(proposal_count, nms_threshold, **kwargs)

    def __call__(self, inputs: Tensor | Sequence[Tensor], *rest, **kwargs) -> Tensor:
        parts = (inputs, *rest) if rest else inputs
        return super().__call__(*parts, **kwargs)


class PyramidROIAlign(roi_align.PyramidROIAlign):
    """`mrcnn.roi_align.PyramidROIAlign`; takes `[boxes, image_meta, P2, P3, P4, P5]`."""

    def __call__(self, inputs: Tensor | Sequence[Tensor], *rest, **kwargs) -> Tensor:
        if rest:
            return super().__call__(inputs, *rest, **kwargs)
        boxes, _, *pyramid = inputs  # the size of the image follows from P2
        return super().__call__(boxes, pyramid, **kwargs)


class DetectionTargetLayer(targets.DetectionTargetLayer):
    """`mrcnn.targets.DetectionTargetLayer`; takes `[proposals, gt_class_ids, gt_boxes, gt_masks]`.

    Called so, it gives masks for all `TRAIN_ROIS_PER_IMAGE` regions.
    """

    def __call__(self, inputs: Tensor | Sequence[Tensor], *rest, **kwargs) -> tuple[Tensor, ...]:
        if rest:
            return super().__call__(inputs, *rest, **kwargs)
        frame = self.config.IMAGE_SHAPE[:2]
        rois, class_ids, deltas, masks = super().__call__(*inputs, frame, **kwargs)
        spare = rois.shape[1] - masks.shape[1]
        return rois, class_ids, deltas, ops.pad(masks, [[0, 0], [0, spare], [0, 0], [0, 0]])


class DetectionLayer(detection.DetectionLayer):
    """`mrcnn.detection.DetectionLayer`; takes `[rois, mrcnn_class, mrcnn_bbox, image_meta]`."""

    def __call__(self, inputs: Tensor | Sequence[Tensor], *rest, **kwargs) -> Tensor:
        if rest:
            return super().__call__(inputs, *rest, **kwargs)
        *regions, metas = inputs
        meta = parse_image_meta_graph(metas)
        frame = meta["image_shape"][0, :2]
        return super().__call__(*regions, meta["window"], frame, **kwargs)


# ---- graphs of one part --------------------------------------------------------------------------


def rpn_graph(feature_map: Tensor, anchors_per_location: int, anchor_stride: int) -> list[Tensor]:
    """Class logits, probabilities and deltas of one pyramid level, by a head of its own."""
    return build_rpn_model(anchor_stride, anchors_per_location, feature_map.shape[-1])(feature_map)


def fpn_classifier_graph(
    rois: Tensor,
    feature_maps: Sequence[Tensor],
    image_meta: Tensor,
    pool_size: int,
    num_classes: int,
    train_bn: bool | None = True,
    fc_layers_size: int = 1024,
) -> tuple[Tensor, Tensor, Tensor]:
    """Class logits [B, n, c], probabilities and deltas [B, n, c, 4] of normalised regions.

    `image_meta` is not needed.
    """
    depth = feature_maps[0].shape[-1]
    align = roi_align.PyramidROIAlign((pool_size, pool_size), name="roi_align_classifier")
    head = heads.box_head(pool_size, depth, fc_layers_size, num_classes, train_bn)
    return heads.BoxBranch(align, head, name="mrcnn_box_branch")(rois, feature_maps)


def build_fpn_mask_graph(
    rois: Tensor,
    feature_maps: Sequence[Tensor],
    image_meta: Tensor,
    pool_size: int,
    num_classes: int,
    train_bn: bool | None = True,
) -> Tensor:
    """Masks [B, n, 2 pool, 2 pool, c] of normalised regions; `image_meta` is not needed."""
    depth = feature_maps[0].shape[-1]
    align = roi_align.PyramidROIAlign((pool_size, pool_size), name="roi_align_mask")
    head = heads.mask_head(pool_size, depth, 256, num_classes, train_bn)
    return heads.MaskBranch(align, head, name="mrcnn_mask_branch")(rois, feature_maps)


def detection_targets_graph(
    proposals: Tensor, gt_class_ids: Tensor, gt_boxes: Tensor, gt_masks: Tensor, config: Config
) -> tuple[Tensor, ...]:
    """`DetectionTargetLayer` for one image: arrays as there without the batch's axis."""
    inputs = (proposals, gt_class_ids, gt_boxes, gt_masks)
    outputs = DetectionTargetLayer(config)([ops.expand_dims(part, 0) for part in inputs])
    return tuple(output[0] for output in outputs)


def refine_detections_graph(
    rois: Tensor, probs: Tensor, deltas: Tensor, window: Tensor, config: Config
) -> Tensor:
    """`DetectionLayer` for one image; `window` is normalised.

    Returns:
        [DETECTION_MAX_INSTANCES, 6], see there.
    """
    # For an image of two pixels, pixel coordinates are normalised ones but for the shift.
    window = ops.cast(window, "float32") + ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])
    inputs = (ops.expand_dims(part, 0) for part in (rois, probs, deltas, window))
    return detection.DetectionLayer(config)(*inputs, ops.convert_to_tensor([2, 2]))[0]


# ---- tensors -------------------------------------------------------------------------------------


def parse_image_meta_graph(meta: Tensor) -> dict[str, Tensor]:
    """`parse_image_meta` for a tensor [batch, 12 + classes]; all parts keep its type."""
    return {name: meta[:, place] for name, place in META.items()}


def trim_zeros_graph(boxes: Tensor, name: str = "trim_zeros") -> tuple[Tensor, Tensor]:
    """The rows of [n, 4] that are not all zero, and a bool [n] of which these are."""
    there = ops.any(ops.convert_to_tensor(boxes) != 0, axis=1)
    return ops.take(boxes, ops.nonzero(there)[0], axis=0), there


def batch_pack_graph(x: Tensor, counts: Tensor | Sequence[int], num_rows: int) -> Tensor:
    """The first `counts[i]` values of each of `num_rows` rows, one after the other."""
    return ops.concatenate([x[row, : counts[row]] for row in range(num_rows)], axis=0)


def batch_slice(
    inputs: Tensor | list[Tensor] | tuple[Tensor, ...],
    graph_fn: Callable[..., Any],
    batch_size: int,
    names: Sequence[str] | None = None,
) -> Tensor | list[Tensor]:
    """Applies a function for single images to each image of a batch.

    Args:
        inputs: tensor, or list of tensors, each [batch, ...].
        graph_fn: takes one slice of each input; returns a tensor or several.
        batch_size: number of images.
        names: accepted for compatibility.

    Returns:
        The stacked results: a list, or a tensor where the function gives one.
    """
    inputs = inputs if isinstance(inputs, list | tuple) else [inputs]
    results = [graph_fn(*(part[row] for part in inputs)) for row in range(batch_size)]
    if not isinstance(results[0], list | tuple):
        return ops.stack(results)
    stacked = [ops.stack(parts) for parts in zip(*results, strict=True)]
    return stacked[0] if len(stacked) == 1 else stacked


# ---- the rest ------------------------------------------------------------------------------------


def mold_mask(mask: np.ndarray, config: Config) -> np.ndarray:
    """Masks bool [h, w, n] as the network takes them: cut to their boxes with `USE_MINI_MASK`."""
    if not config.USE_MINI_MASK:
        return mask
    return minimize_mask(extract_bboxes(mask), mask, config.MINI_MASK_SHAPE)


def download_trained_weights(coco_model_path: str | os.PathLike, verbose: int = 1) -> None:
    """Fetches the weights trained on COCO to a path.

    Raises:
        mrcnn.download.DownloadError: if they cannot be fetched.
    """
    file = known_file("mask_rcnn_coco.h5")
    if verbose:
        log(f"Downloading the weights trained on COCO to {coco_model_path} ...")
    download(file.url, coco_model_path, file.size, file.md5, file.sha256)
