"""The residual networks of matterport's Mask R-CNN, layer by layer under its names.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv 1512.03385), in the
form of its Caffe release: biased convolutions, and the stride on a block's first 1x1.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from mrcnn.tensors import Tensor

# Blocks in the stages 2 to 5 (table 1 of the paper).
BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


@keras.saving.register_keras_serializable(package="mrcnn")
class BatchNorm(layers.BatchNormalization):
    """Batch normalization that keeps to one mode, whatever `fit` or a caller asks for.

    `training=False` in a functional call does not do it: a model called with `training=True`
    overrides it in Keras 3.

    Args:
        train_bn: False: moving statistics always, while gamma and beta remain trainable;
            None: as usual, batch statistics in training; True: batch statistics always, also
            while not trainable; the moving ones follow in training alone.
        **kwargs: of `keras.layers.BatchNormalization`.
    """

    def __init__(self, train_bn: bool | None = None, **kwargs):
        super().__init__(**kwargs)
        self.train_bn = train_bn

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        if self.train_bn is False:
            training = False
        # Batch statistics normalise, and what moves the moving ones: with True these part.
        moving = bool(training) and self.trainable
        learning = moving or self.train_bn is True
        maps = len(inputs.shape) == 4 and self.axis in (-1, 3)
        renorm = getattr(self, "renorm", False)  # which Keras 3.10 lacks
        other = self.synchronized or renorm
        if maps and mask is None and not other and keras.backend.backend() == "tensorflow":
            return self._normalise_tensorflow(inputs, learning, moving)
        if learning == moving or renorm:
            return super().call(inputs, training=learning, mask=mask)
        # Keras normalises by the batch only where it moves the averages too.
        values = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        mean, variance = self._moments(values, mask)
        outputs = ops.batch_normalization(
            values,
            mean,
            variance,
            self.axis,
            offset=ops.cast(self.beta, values.dtype) if self.center else None,
            scale=ops.cast(self.gamma, values.dtype) if self.scale else None,
            epsilon=self.epsilon,
        )
        return ops.cast(outputs, self.compute_dtype)

    def _normalise_tensorflow(self, inputs, learning, moving):
        """The same numbers by one kernel instead of several passes over the maps.

        It takes a quarter off a residual network's time in bfloat16, in training too.
        """
        import tensorflow as tf

        ones = tf.ones_like(self.moving_mean.value)
        none = tf.zeros([0])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value if self.scale else ones,
            offset=self.beta.value if self.center else 0 * ones,
            mean=none if learning else self.moving_mean.value,
            variance=none if learning else self.moving_variance.value,
            epsilon=self.epsilon,
            is_training=learning,
        )
        if moving:
            count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), variance.dtype)
            # The kernel's variance is of a sample, divided by the count less one; Keras's is not.
            variance *= tf.maximum(count - 1, 1) / count
            for average, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
                average.assign(average * self.momentum + now * (1 - self.momentum))
        return outputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "train_bn": self.train_bn}


def identity_block(
    input_tensor: Tensor,
    kernel_size: int,
    filters: Sequence[int],
    stage: int,
    block: str,
    use_bias: bool = True,
    train_bn: bool | None = True,
) -> Tensor:
    """A residual block whose shortcut is the input itself.

    Args:
        input_tensor: [B, H, W, filters[2]].
        kernel_size: of the middle convolution.
        filters: channels of the three convolutions.
        stage: number in the layers' names.
        block: letter in the layers' names.
        use_bias: whether the convolutions have biases.
        train_bn: see `BatchNorm`.

    Returns:
        [B, H, W, filters[2]]
    """
    x = _residual_branch(input_tensor, kernel_size, filters, stage, block, 1, use_bias, train_bn)
    x = layers.Add(name=f"res{stage}{block}_add")([x, input_tensor])
    return layers.Activation("relu", name=f"res{stage}{block}_out")(x)


def conv_block(
    input_tensor: Tensor,
    kernel_size: int,
    filters: Sequence[int],
    stage: int,
    block: str,
    strides: int | tuple[int, int] = (2, 2),
    use_bias: bool = True,
    train_bn: bool | None = True,
) -> Tensor:
    """A residual block whose shortcut is a 1x1 convolution, for other sizes and channels.

    Args:
        strides: of the shortcut and of the first convolution; the others as for
            `identity_block`.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), filters[2]]
    """
    x = _residual_branch(
        input_tensor, kernel_size, filters, stage, block, strides, use_bias, train_bn
    )
    shortcut = layers.Conv2D(
        filters[2], 1, strides=strides, use_bias=use_bias, name=f"res{stage}{block}_branch1"
    )(input_tensor)
    shortcut = BatchNorm(train_bn, name=f"bn{stage}{block}_branch1")(shortcut)
    x = layers.Add(name=f"res{stage}{block}_add")([x, shortcut])
    return layers.Activation("relu", name=f"res{stage}{block}_out")(x)


def resnet_graph(
    input_image: Tensor, architecture: str, stage5: bool = False, train_bn: bool | None = True
) -> list[Tensor | None]:
    """The feature maps of a ResNet.

    Args:
        input_image: [B, H, W, C], the mean subtracted.
        architecture: "resnet50" or "resnet101".
        stage5: whether to build the last stage.
        train_bn: see `BatchNorm`.

    Returns:
        [C1, C2, C3, C4, C5]: at strides 4, 4, 8, 16, 32 with 64, 256, 512, 1024, 2048 channels;
        C5 is None without stage5. C1 is the pooled stem.

    Raises:
        ValueError: for another architecture.
    """
    if architecture not in BLOCKS:
        raise ValueError(
            f"architecture must be one of {', '.join(BLOCKS)}; received {architecture!r}."
        )
    x = layers.ZeroPadding2D(3, name="conv1_pad")(input_image)
    x = layers.Conv2D(64, 7, strides=2, name="conv1")(x)
    x = BatchNorm(train_bn, name="bn_conv1")(x)
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="pool1")(x)
    stages = [x]
    for stage, count in enumerate(BLOCKS[architecture], start=2):
        if stage == 5 and not stage5:
            stages.append(None)
            break
        width = 32 * 2 ** (stage - 1)  # 64, 128, 256, 512
        filters = (width, width, 4 * width)
        strides = (1, 1) if stage == 2 else (2, 2)
        x = conv_block(x, 3, filters, stage, "a", strides=strides, train_bn=train_bn)
        for number in range(1, count):
            x = identity_block(x, 3, filters, stage, chr(ord("a") + number), train_bn=train_bn)
        stages.append(x)
    return stages


def _residual_branch(x, kernel_size, filters, stage, block, strides, use_bias, train_bn):
    """1x1, kernel_size and 1x1 convolutions with normalization; no activation after the last."""
    for letter, channels, kernel, step in [
        ("a", filters[0], 1, strides),
        ("b", filters[1], kernel_size, 1),
        ("c", filters[2], 1, 1),
    ]:
        name = f"{stage}{block}_branch2{letter}"
        x = layers.Conv2D(
            channels, kernel, strides=step, padding="same", use_bias=use_bias, name=f"res{name}"
        )(x)
        x = BatchNorm(train_bn, name=f"bn{name}")(x)
        if letter != "c":
            x = layers.Activation("relu", name=f"res{name}_relu")(x)
    return x
