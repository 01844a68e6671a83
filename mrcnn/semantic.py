"""A semantic branch on the pyramid, beside the instances (`Config.SEMANTIC_BRANCH`).

Kirillov et al. 2019, "Panoptic Feature Pyramid Networks", figure 3: every level is brought to
stride 4 by convolutions and upsampling, and their sum is classified cell by cell. Unlike there, a
class has a probability of its own, as classes may overlap, and a presence: the probability that
the image shows the class at all.
"""

import math
from collections.abc import Sequence

import keras
import numpy as np

from mrcnn.masks import sample_axis
from mrcnn.tensors import Tensor

STRIDE = 4
"""Pixels of the network's input per cell of the branch."""


def semantic_head(
    pyramid: Sequence[Tensor], channels: int, class_count: int
) -> tuple[Tensor, Tensor]:
    """Logits of the classes, background left out.

    Args:
        pyramid: levels [P2, ..., P5] of strides 4 to 32.
        channels: of the branch; 128 in the paper.
        class_count: without the background.

    Returns:
        Logits float32 [batch, height / 4, width / 4, classes], and of presence [batch, classes].
    """
    levels = []
    for level, features in enumerate(pyramid, start=2):
        for stage in range(1, max(1, level - 2) + 1):
            name = f"mrcnn_semantic_p{level}_%s{stage}"
            features = keras.layers.Conv2D(
                channels, 3, padding="same", use_bias=False, name=name % "conv"
            )(features)
            features = keras.layers.GroupNormalization(math.gcd(32, channels), name=name % "norm")(
                features
            )
            features = keras.layers.Activation("relu", name=name % "relu")(features)
            if level > 2:
                features = keras.layers.UpSampling2D(2, interpolation="bilinear", name=name % "up")(
                    features
                )
        levels.append(features)
    merged = keras.layers.Add(name="mrcnn_semantic_sum")(levels)
    cells = keras.layers.Conv2D(class_count, 1, dtype="float32", name="mrcnn_semantic")(merged)
    # A faint texture shows in the mean, a small spot in the maximum.
    whole = keras.layers.Concatenate(name="mrcnn_semantic_whole")(
        [
            keras.layers.GlobalAveragePooling2D(name="mrcnn_semantic_mean")(merged),
            keras.layers.GlobalMaxPooling2D(name="mrcnn_semantic_max")(merged),
        ]
    )
    presence = keras.layers.Dense(class_count, dtype="float32", name="mrcnn_presence")(whole)
    return cells, presence


def semantic_targets(masks: np.ndarray, class_ids: np.ndarray, class_count: int) -> np.ndarray:
    """What the branch should say: the share of each cell that instances of a class cover.

    Args:
        masks: bool [height, width, n] of the network's input size, which `STRIDE` divides.
        class_ids: int [n]; negative ones, crowds, count as well.
        class_count: without the background.

    Returns:
        float32 [height / 4, width / 4, classes] in 0..1.
    """
    height, width = masks.shape[0] // STRIDE, masks.shape[1] // STRIDE
    targets = np.zeros((height, width, class_count), np.float32)
    for class_id in range(1, class_count + 1):
        own = np.abs(class_ids) == class_id
        if own.any():
            union = masks[:, :, own].any(axis=2)
            cells = union.reshape(height, STRIDE, width, STRIDE)
            targets[:, :, class_id - 1] = cells.mean(axis=(1, 3))
    return targets


def unmold_semantic(
    cells: np.ndarray,
    original_image_shape: Sequence[int] | np.ndarray,
    image_shape: Sequence[int] | np.ndarray,
    window: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """The branch's map of one image in the pixels of the original image.

    Args:
        cells: float [rows, columns, classes] of the whole input.
        original_image_shape: `(height, width, ...)` of the image given.
        image_shape: shape of the network's input.
        window: `(y1, x1, y2, x2)` of the image in the network's input, pixels.

    Returns:
        float32 [height, width, classes]: the bilinear value at each pixel's centre.
    """
    for axis in (0, 1):
        size, start, stop = original_image_shape[axis], window[axis], window[axis + 2]
        centres = start + (np.arange(size) + 0.5) * ((stop - start) / size)
        positions = centres * (cells.shape[axis] / image_shape[axis]) - 0.5
        positions = np.clip(positions, 0, cells.shape[axis] - 1)
        rows = np.moveaxis(cells, axis, 0)
        shape = rows.shape[1:]
        sampled = sample_axis(rows.reshape(len(rows), -1), positions.astype(np.float32))
        cells = np.moveaxis(sampled.reshape(size, *shape), 0, axis)
    return np.ascontiguousarray(cells, np.float32)
