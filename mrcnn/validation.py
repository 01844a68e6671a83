"""Whether the settings of a `Config` fit one another, and where they do not, what they may be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # it imports this module
    from mrcnn.config import Config

logger = logging.getLogger(__name__)

AT_LEAST_ONE = (
    "NUM_CLASSES",
    "GPU_COUNT",
    "IMAGES_PER_GPU",
    "TRAIN_ROIS_PER_IMAGE",
    "MAX_GT_INSTANCES",
    "DETECTION_MAX_INSTANCES",
)
SHARES = ("RPN_NMS_THRESHOLD", "DETECTION_NMS_THRESHOLD", "DETECTION_MIN_CONFIDENCE")
CHOICES = {
    "IMAGE_RESIZE_MODE": ("none", "square", "pad64", "crop", "stretch"),
    "ROI_LEVEL_ROUNDING": ("round", "floor"),
    "PRECISION": ("float32", "mixed_bfloat16"),
    "MASK_LOSS": ("crossentropy", "crossentropy_dice"),
    "SEMANTIC_LOSS": ("crossentropy", "crossentropy_dice"),
    "OPTIMIZER": ("sgd", "adamw"),
    "LEARNING_RATE_DECAY": (None, "cosine"),
}
# In the order in which a network gives them.
LOSS_NAMES = (
    "rpn_class_loss",
    "rpn_bbox_loss",
    "mrcnn_class_loss",
    "mrcnn_bbox_loss",
    "mrcnn_mask_loss",
)
SEMANTIC_LOSS_NAMES = ("semantic_loss", "presence_loss")
MASK_SIDE = 28
"""Of matterport's masks, for which mini-masks as coarse as they are do for small objects."""


def validate(config: Config) -> None:
    """See `Config.validate`.

    Raises:
        ValueError: naming the setting, its value and what it may be.
    """
    _check_input(config)
    _check_anchors(config)
    _check_heads(config)
    _check_choices(config)
    _check_numbers(config)


def _check_input(config):
    sides = config.IMAGE_SHAPE[:2]
    if config.IMAGE_RESIZE_MODE != "none" and any(side < 32 or side % 32 for side in sides):
        raise ValueError(
            "Height and width of the network's input must be divisible by 32, since the "
            f"pyramid halves them five times; IMAGE_SHAPE is {config.IMAGE_SHAPE}. Use for "
            "example 256, 320, 384, 448, 512, 768 or 1024."
        )
    if config.IMAGE_RESIZE_MODE == "pad64" and config.IMAGE_MIN_DIM and config.IMAGE_MIN_DIM % 64:
        raise ValueError(
            "With IMAGE_RESIZE_MODE 'pad64', IMAGE_MIN_DIM must be divisible by 64, or 0; "
            f"received {config.IMAGE_MIN_DIM}. Use for example 512, 768 or 832."
        )
    if np.size(config.MEAN_PIXEL) not in (1, config.IMAGE_CHANNEL_COUNT):
        raise ValueError(
            "MEAN_PIXEL needs one value for each of the IMAGE_CHANNEL_COUNT="
            f"{config.IMAGE_CHANNEL_COUNT} channels, or one for all; received {config.MEAN_PIXEL}."
        )


def _check_anchors(config):
    if not len(config.BACKBONE_STRIDES) or set(config.BACKBONE_STRIDES) - {4, 8, 16, 32, 64}:
        raise ValueError(
            "BACKBONE_STRIDES names the pyramid levels with anchors, some of 4, 8, 16, 32 and "
            f"64; received {config.BACKBONE_STRIDES}."
        )
    if len(config.RPN_ANCHOR_SCALES) != len(config.BACKBONE_STRIDES):
        raise ValueError(
            "RPN_ANCHOR_SCALES needs one scale per level of BACKBONE_STRIDES; received "
            f"{config.RPN_ANCHOR_SCALES} for {config.BACKBONE_STRIDES}."
        )
    for name in ("RPN_ANCHOR_SCALES", "RPN_ANCHOR_RATIOS"):
        values = np.asarray(getattr(config, name), float)
        if not values.size or not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"{name} are numbers above 0; received {getattr(config, name)}.")


def _check_heads(config):
    if list(config.MASK_SHAPE) != [2 * config.MASK_POOL_SIZE] * 2:
        raise ValueError(
            "The mask head doubles its input, so MASK_SHAPE must be "
            f"[2 * MASK_POOL_SIZE, 2 * MASK_POOL_SIZE]; received MASK_SHAPE="
            f"{list(config.MASK_SHAPE)} and MASK_POOL_SIZE={config.MASK_POOL_SIZE}."
        )
    if not 0 < config.ROI_POSITIVE_RATIO <= 1:
        raise ValueError(
            "ROI_POSITIVE_RATIO is the share of positive regions, above 0 and at most 1; "
            f"received {config.ROI_POSITIVE_RATIO}."
        )
    mask_side, mini_side = min(config.MASK_SHAPE), min(config.MINI_MASK_SHAPE)
    coarse = mini_side < mask_side or mini_side == mask_side > MASK_SIDE
    if config.USE_MINI_MASK and coarse:
        logger.warning(
            "Masks of %d cells are learned from mini-masks of %d, which are no finer: set "
            "MINI_MASK_SHAPE to (%d, %d) or more, or USE_MINI_MASK = False.",
            *(mask_side, mini_side, 2 * mask_side, 2 * mask_side),
        )


def _check_choices(config):
    losses = LOSS_NAMES + SEMANTIC_LOSS_NAMES
    if unknown := set(config.LOSS_WEIGHTS).difference(losses):
        raise ValueError(
            f"LOSS_WEIGHTS names the loss {min(unknown)!r}, and there are {', '.join(losses)}."
        )
    for name, allowed in CHOICES.items():
        value = getattr(config, name)
        if name == "OPTIMIZER" and callable(value):
            continue
        if value not in allowed:
            more = ", or a function of the learning rate" if name == "OPTIMIZER" else ""
            raise ValueError(
                f"{name} must be one of {', '.join(map(repr, allowed))}{more}; received {value!r}."
            )


def _check_numbers(config):
    if config.FREEZE_BACKBONE_STAGES not in range(6):
        raise ValueError(
            "FREEZE_BACKBONE_STAGES is the number of the last stage that does not learn, 1 to "
            f"5, or 0; received {config.FREEZE_BACKBONE_STAGES}."
        )
    for name in AT_LEAST_ONE:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1; received {getattr(config, name)}.")
    for name in ("STEPS_PER_EPOCH", "VALIDATION_STEPS"):
        if (value := getattr(config, name)) is not None and value < 0:
            raise ValueError(
                f"{name} is a number of batches, or None for every image once; received {value}."
            )
    for name in SHARES:
        value = getattr(config, name)
        if value is None and name == "DETECTION_MIN_CONFIDENCE":  # no threshold, to matterport
            continue
        if not isinstance(value, Real) or not 0 <= value <= 1:
            raise ValueError(
                f"{name} is a share between 0 and 1; received {value!r}. Of a percentage give the "
                "hundredth part."
            )


def check_stages(
    backbone: Callable, image: Sequence[int | None], stages: Sequence, strides: Sequence[int]
) -> None:
    """Raises ValueError unless a callable backbone gave maps at these strides, but for the first's.

    Args:
        backbone: the callable, for the message.
        image: shape of its input [B, H, W, C]; sides that are None are not looked at.
        stages: what it returned.
        strides: of C1 to C5.
    """
    if len(stages) != len(strides):
        raise ValueError(
            "A callable BACKBONE must return the five feature maps [C1, C2, C3, C4, C5]; "
            f"{backbone} returned {len(stages)}."
        )
    for number, (stride, features) in enumerate(zip(strides[1:], stages[1:], strict=True), 2):
        for side, size in zip(image[1:3], features.shape[1:3], strict=True):
            # Without padding a map is somewhat smaller.
            if None not in (side, size) and not 0.7 < size * stride / side < 1.4:
                raise ValueError(
                    f"A callable BACKBONE must return C2 to C5 at the strides {strides[1:]}, by "
                    f"which regions are placed; of an input of {image[1]}x{image[2]} {backbone} "
                    f"returned C{number} of {features.shape[1]}x{features.shape[2]}."
                )
