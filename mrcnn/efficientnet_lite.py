"""EfficientNet-Lite0 to -Lite4, small backbones; ImageNet weights of some come with the project.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019
(arXiv 1905.11946), in the Lite form: no squeeze-and-excitation, ReLU6, stem and head unscaled.
"""

import math
from collections.abc import Iterable

from keras import layers

from mrcnn.resnet import BatchNorm
from mrcnn.tensors import Tensor

MEAN_PIXEL = 127.0  # of its training, for all three channels
PIXEL_SCALE = 128.0

# Multiples of the channels and of the repeats of Lite0.
SCALES = {
    "efficientnetlite0": (1.0, 1.0),
    "efficientnetlite1": (1.0, 1.1),
    "efficientnetlite2": (1.1, 1.2),
    "efficientnetlite3": (1.2, 1.4),
    "efficientnetlite4": (1.4, 1.8),
}
# Of Lite0: repeats, kernel, stride of the first repeat, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Stages whose last output is a feature map, at strides 2, 4, 8, 16, 32.
TAPS = (1, 2, 3, 5, 7)


def scaled_stages(name: str) -> tuple[tuple[int, ...], ...]:
    """`STAGES` of a network of `SCALES`: channels to the nearest eight, repeats rounded up.

    Channels that would lose more than a tenth go up instead. The first stage and the last are as
    often repeated as Lite0's.
    """
    width, depth = SCALES[name]
    result = []
    for stage, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
        wide = channels * width
        rounded = max(8, int(wide + 4) // 8 * 8)
        if rounded < 0.9 * wide:
            rounded += 8
        if 0 < stage < len(STAGES) - 1:
            repeats = math.ceil(repeats * depth)
        result.append((repeats, kernel, stride, expansion, rounded))
    return tuple(result)


def efficientnet_lite(
    input_image: Tensor,
    name: str = "efficientnetlite0",
    train_bn: bool | None = False,
    include_top: bool = False,
    mean_pixel: float | Iterable[float] = MEAN_PIXEL,
) -> list[Tensor] | Tensor:
    """The feature maps of an EfficientNet-Lite, or its classification.

    Args:
        input_image: [B, H, W, 3], RGB 0..255 less `mean_pixel`. The division by 128 happens here.
        name: one of `SCALES`.
        train_bn: see `mrcnn.resnet.BatchNorm`.
        include_top: whether to go on to the classes.
        mean_pixel: what the caller subtracted, a number or one per channel.

    Returns:
        [C1, C2, C3, C4, C5] at strides 2, 4, 8, 16, 32, of Lite0 with 16, 24, 40, 112, 320
        channels; with include_top the probabilities [B, 1000].
    """
    means = [mean_pixel] * 3 if isinstance(mean_pixel, int | float) else list(mean_pixel)
    # The offset is zero where the caller's mean is the network's own.
    x = layers.Rescaling(
        1 / PIXEL_SCALE,
        offset=[(float(mean) - MEAN_PIXEL) / PIXEL_SCALE for mean in means],
        name="stem_rescaling",
    )(input_image)
    x = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(x)
    x = BatchNorm(train_bn, name="stem_bn")(x)
    x = layers.ReLU(6.0, name="stem_act")(x)
    taps = []
    for stage, (repeats, kernel, stride, expansion, channels) in enumerate(
        scaled_stages(name), start=1
    ):
        for repeat in range(repeats):
            x = _inverted_residual(
                x,
                kernel,
                stride if repeat == 0 else 1,
                expansion,
                channels,
                name=f"block{stage}{chr(ord('a') + repeat)}",
                train_bn=train_bn,
            )
        if stage in TAPS:
            taps.append(x)
    if not include_top:
        return taps
    x = top_features(x, train_bn)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return layers.Dense(1000, activation="softmax", name="predictions")(x)


def top_features(x: Tensor, train_bn: bool | None = False) -> Tensor:
    """The 1280 channels from which the network classifies, of its last feature map."""
    x = layers.Conv2D(1280, 1, padding="same", use_bias=False, name="top_conv")(x)
    x = BatchNorm(train_bn, name="top_bn")(x)
    return layers.ReLU(6.0, name="top_act")(x)


def _inverted_residual(x, kernel, stride, expansion, channels, name, train_bn):
    """Expansion, depthwise convolution and linear projection (MobileNetV2's block)."""
    shortcut = x
    if expansion > 1:
        expanded = x.shape[-1] * expansion
        x = layers.Conv2D(expanded, 1, padding="same", use_bias=False, name=f"{name}_expand_conv")(
            x
        )
        x = BatchNorm(train_bn, name=f"{name}_expand_bn")(x)
        x = layers.ReLU(6.0, name=f"{name}_expand_act")(x)
    x = layers.DepthwiseConv2D(
        kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_dwconv"
    )(x)
    x = BatchNorm(train_bn, name=f"{name}_bn")(x)
    x = layers.ReLU(6.0, name=f"{name}_act")(x)
    x = layers.Conv2D(channels, 1, padding="same", use_bias=False, name=f"{name}_project_conv")(x)
    x = BatchNorm(train_bn, name=f"{name}_project_bn")(x)
    if stride == 1 and shortcut.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([x, shortcut])
    return x
