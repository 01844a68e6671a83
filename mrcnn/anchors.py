"""Anchor boxes: reference boxes of fixed scales and ratios at every position of the pyramid."""

from collections.abc import Sequence

import numpy as np

from mrcnn.boxes import norm_boxes
from mrcnn.config import Config


def generate_anchors(
    scales: float | Sequence[float],
    ratios: Sequence[float],
    shape: tuple[int, int],
    feature_stride: float,
    anchor_stride: int,
) -> np.ndarray:
    """Anchors of one pyramid level (Ren et al., Faster R-CNN, section 3.1.1).

    Args:
        scales: sides in pixels of the squares whose area the anchors have.
        ratios: width / height of the anchors.
        shape: (height, width) of the feature map.
        feature_stride: pixels of the image from one feature to the next.
        anchor_stride: features from one anchor position to the next.

    Returns:
        float64 [anchors, (y1, x1, y2, x2)] in pixels, not clipped to the image. The last of
        position (row by row), ratio, scale changes fastest. The first position's anchors are
        centred on pixel coordinate (0, 0), not on the middle of its cell.
    """
    sides = np.atleast_1d(np.asarray(scales, np.float64))
    root_ratios = np.sqrt(np.asarray(ratios, np.float64))[:, np.newaxis]
    sizes = np.stack([sides / root_ratios, sides * root_ratios], axis=-1).reshape(-1, 2)

    rows = np.arange(0, shape[0], anchor_stride) * feature_stride
    columns = np.arange(0, shape[1], anchor_stride) * feature_stride
    centres = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 1, 2)

    return np.concatenate([centres - 0.5 * sizes, centres + 0.5 * sizes], axis=-1).reshape(-1, 4)


def generate_pyramid_anchors(
    scales: Sequence[float | Sequence[float]],
    ratios: Sequence[float],
    feature_shapes: Sequence[tuple[int, int]] | np.ndarray,
    feature_strides: Sequence[float],
    anchor_stride: int,
) -> np.ndarray:
    """Anchors of all levels, one after the other (Lin et al., FPN, section 4.1).

    Args:
        scales: one entry for each level.
        ratios: the same for all levels.
        feature_shapes: (height, width) of each level's feature map.
        feature_strides: pixels from one feature to the next, by level.
        anchor_stride: features from one anchor position to the next.

    Returns:
        float64 [anchors, (y1, x1, y2, x2)] in pixels; within a level as `generate_anchors`.

    Raises:
        ValueError: if there is not one scale, one shape and one stride for each level.
    """
    if not len(scales) == len(feature_shapes) == len(feature_strides):
        raise ValueError(
            "Anchors need one scale, one feature shape and one stride for each pyramid level; "
            f"received {len(scales)} scales, {len(feature_shapes)} feature shapes and "
            f"{len(feature_strides)} strides."
        )
    return np.concatenate(
        [
            generate_anchors(scale, ratios, shape, stride, anchor_stride)
            for scale, shape, stride in zip(scales, feature_shapes, feature_strides, strict=True)
        ]
    )


def compute_backbone_shapes(config: Config, image_shape: Sequence[int] | np.ndarray) -> np.ndarray:
    """Sizes of the pyramid's feature maps.

    Args:
        config: gives BACKBONE_STRIDES; or COMPUTE_BACKBONE_SHAPE, for a callable BACKBONE.
        image_shape: (height, width, ...) of the network's input.

    Returns:
        int [levels, (height, width)].
    """
    if callable(config.BACKBONE) and config.COMPUTE_BACKBONE_SHAPE is not None:
        return np.asarray(config.COMPUTE_BACKBONE_SHAPE(image_shape))
    height, width = image_shape[:2]
    # The negative of a floor division of the negative is the ceiling, without floats.
    return np.array(
        [[-(-height // stride), -(-width // stride)] for stride in config.BACKBONE_STRIDES]
    )


def anchors_of(config: Config, image_shape: Sequence[int] | np.ndarray) -> np.ndarray:
    """All anchors of a configuration's pyramid, as `generate_pyramid_anchors` gives them.

    Args:
        config: gives the anchors' scales, ratios and strides.
        image_shape: (height, width, ...) of the network's input.
    """
    return generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        compute_backbone_shapes(config, image_shape),
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
    )


def normalised_anchors(config: Config, image_shape: Sequence[int] | np.ndarray) -> np.ndarray:
    """`anchors_of` float32 [a, 4], normalised."""
    return norm_boxes(anchors_of(config, image_shape), image_shape[:2])


class AnchorCache:
    """Anchors of a configuration by the shape of the input, kept for the last few shapes."""

    LARGEST = 8  # with inputs of any size they would pile up

    def __init__(self, config: Config):
        self.config = config
        self._known: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, image_shape: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normalised anchors float32 [a, 4] and those in pixels."""
        key = tuple(int(side) for side in image_shape[:2])
        both = self._known.get(key)  # another thread may clear it at any moment
        if both is None:
            if len(self._known) >= self.LARGEST:
                self._known.clear()
            anchors = anchors_of(self.config, key)
            both = self._known[key] = norm_boxes(anchors, key), anchors
        return both
