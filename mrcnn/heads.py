"""The two heads on pooled regions: class and box, and mask (He et al. 2017, figure 4 right)."""

from collections.abc import Sequence

import keras
from keras import ops

from mrcnn.boxes import scale_boxes
from mrcnn.config import Config
from mrcnn.resnet import BatchNorm
from mrcnn.roi_align import PyramidROIAlign
from mrcnn.tensors import Tensor, batch_indices, has_quick_kernels


@keras.saving.register_keras_serializable("mrcnn")
class WholeConv2D(keras.layers.Conv2D):
    """A convolution whose kernel covers its whole input, computed as one matrix product.

    The same weights and numbers as `Conv2D` with "valid" padding; its gradient is several times
    quicker on processors.

    Args:
        filters: channels of the output.
        kernel_size: height and width of the kernel and of the input.
        **kwargs: of `keras.layers.Conv2D`; those that would change more than the bias and the
            activation are a ValueError.
    """

    def __init__(self, filters: int, kernel_size: int | tuple[int, int], **kwargs):
        super().__init__(filters, kernel_size, **kwargs)
        only = {"padding": "valid", "groups": 1, "dilation_rate": (1, 1)}
        only["data_format"] = "channels_last"
        for name, value in only.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name} of a WholeConv2D must be {value!r}; received {getattr(self, name)!r}. "
                    "Use keras.layers.Conv2D."
                )

    def build(self, input_shape: Sequence[int | None]) -> None:
        if tuple(input_shape[1:3]) != self.kernel_size:
            raise ValueError(
                f"The kernel of a WholeConv2D must be as large as its input; received kernel_size="
                f"{self.kernel_size} for an input of {input_shape}. Use keras.layers.Conv2D."
            )
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        kernel = ops.reshape(self.kernel, (-1, self.filters))
        outputs = ops.matmul(ops.reshape(inputs, (-1, kernel.shape[0])), kernel)
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        outputs = ops.reshape(outputs, (-1, 1, 1, self.filters))
        return outputs if self.activation is None else self.activation(outputs)


def box_head(
    pool_size: int, depth: int, channels: int, class_count: int, train_bn: bool | None
) -> keras.Model:
    """Model from pooled features [n, pool, pool, depth] to logits [n, c] and deltas [n, c, 4]."""
    pooled = keras.Input((pool_size, pool_size, depth), name="input_box_features")
    x = WholeConv2D(channels, pool_size, name="mrcnn_class_conv1")(pooled)
    x = BatchNorm(train_bn, name="mrcnn_class_bn1")(x)
    x = keras.layers.Activation("relu", name="mrcnn_class_relu1")(x)
    x = keras.layers.Conv2D(channels, 1, name="mrcnn_class_conv2")(x)
    x = BatchNorm(train_bn, name="mrcnn_class_bn2")(x)
    x = keras.layers.Activation("relu", name="mrcnn_class_relu2")(x)
    shared = keras.layers.Reshape((channels,), name="pool_squeeze")(x)
    logits = keras.layers.Dense(class_count, dtype="float32", name="mrcnn_class_logits")(shared)
    deltas = keras.layers.Dense(4 * class_count, dtype="float32", name="mrcnn_bbox_fc")(shared)
    deltas = keras.layers.Reshape((class_count, 4), dtype="float32", name="mrcnn_bbox_rows")(deltas)
    return keras.Model(pooled, [logits, deltas], name="mrcnn_box_head")


def mask_head(
    pool_size: int, depth: int, channels: int, class_count: int, train_bn: bool | None
) -> keras.Model:
    """Model from pooled features [n, pool, pool, depth] to masks [n, 2 pool, 2 pool, c] in 0..1."""
    pooled = x = keras.Input((pool_size, pool_size, depth), name="input_mask_features")
    for index in (1, 2, 3, 4):
        x = keras.layers.Conv2D(channels, 3, padding="same", name=f"mrcnn_mask_conv{index}")(x)
        x = BatchNorm(train_bn, name=f"mrcnn_mask_bn{index}")(x)
        x = keras.layers.Activation("relu", name=f"mrcnn_mask_relu{index}")(x)
    x = keras.layers.Conv2DTranspose(
        channels, 2, strides=2, activation="relu", name="mrcnn_mask_deconv"
    )(x)
    masks = keras.layers.Conv2D(class_count, 1, dtype="float32", name="mrcnn_mask")(x)
    masks = keras.layers.Activation("sigmoid", dtype="float32", name="mrcnn_mask_sigmoid")(masks)
    return keras.Model(pooled, masks, name="mrcnn_mask_head")


class BoxBranch(keras.Model):
    """Pools regions of interest and classifies and refines each.

    Args:
        align: the `PyramidROIAlign` of the branch.
        head: the model built by `box_head`.
    """

    def __init__(self, align: PyramidROIAlign, head: keras.Model, **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes stay float32
        self.align = align
        self.head = head
        self.built = True  # the head came with its weights

    def compute_output_spec(
        self, rois: Tensor, pyramid: Sequence[Tensor]
    ) -> tuple[keras.KerasTensor, ...]:
        logits, deltas = (output.shape[1:] for output in self.head.outputs)
        return tuple(
            keras.KerasTensor((*rois.shape[:2], *shape), dtype="float32")
            for shape in (logits, logits, deltas)
        )

    def call(self, rois: Tensor, pyramid: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [batch, n, c], probabilities [batch, n, c], deltas [batch, n, c, 4]."""
        count = rois.shape[1]
        pooled = self.align(rois, pyramid)
        logits, deltas = self.head(ops.reshape(pooled, (-1,) + tuple(pooled.shape[2:])))
        logits = ops.reshape(logits, (-1, count, logits.shape[-1]))
        deltas = ops.reshape(deltas, (-1, count) + tuple(deltas.shape[1:]))
        return logits, ops.softmax(logits), deltas


class MaskBranch(keras.Model):
    """Pools boxes and predicts a mask for each; zero-padded boxes give zero masks.

    Under TensorFlow only the boxes that are there reach the head, whatever the padding.

    Args:
        align: the `PyramidROIAlign` of the branch.
        head: the model built by `mask_head`.
        box_scale: factor by which boxes are enlarged first.
    """

    def __init__(self, align: PyramidROIAlign, head: keras.Model, box_scale: float = 1.0, **kwargs):
        super().__init__(autocast=False, **kwargs)  # boxes stay float32
        self.align = align
        self.head = head
        self.built = True  # the head came with its weights
        self.box_scale = box_scale

    def compute_output_spec(self, boxes: Tensor, pyramid: Sequence[Tensor]) -> keras.KerasTensor:
        shape = (*boxes.shape[:2], *self.head.outputs[0].shape[1:])
        return keras.KerasTensor(shape, dtype="float32")

    def call(self, boxes: Tensor, pyramid: Sequence[Tensor]) -> Tensor:
        """Masks float32 [batch, n, m, m, c] in 0..1 of normalised boxes [batch, n, 4]."""
        batch, count = ops.shape(boxes)[0], boxes.shape[1]
        rows = ops.reshape(boxes, (-1, 4))
        images = batch_indices(batch, count)
        there = ops.any(rows != 0, axis=1)
        if self.box_scale != 1.0:
            rows = scale_boxes(rows, self.box_scale)
        if has_quick_kernels():
            masks = self._masks_of_valid(rows, images, there, pyramid)
        else:
            masks = self.head(self.align.pool(rows, images, pyramid))
            masks = masks * ops.cast(there, masks.dtype)[:, None, None, None]
        return ops.reshape(masks, (-1, count) + tuple(masks.shape[1:]))

    def _masks_of_valid(self, rows, images, there, pyramid):
        import tensorflow as tf

        # Batch statistics of no box would not be numbers, so one padded box stands in for none.
        alone = tf.logical_and(~tf.reduce_any(there), tf.range(tf.size(there)) == 0)
        valid = tf.where(there | alone)
        masks = self.head(
            self.align.pool(tf.gather_nd(rows, valid), tf.gather_nd(images, valid), pyramid)
        )
        masks = masks * tf.cast(tf.gather_nd(there, valid), masks.dtype)[:, None, None, None]
        side, classes = masks.shape[1], masks.shape[-1]
        shape = tf.concat([tf.shape(there, tf.int64), [side, side, classes]], 0)
        masks = tf.scatter_nd(valid, masks, shape)
        return tf.ensure_shape(masks, [None, side, side, classes])


def build_branches(
    config: Config, depth: int, train_bn: bool | None
) -> tuple[BoxBranch, MaskBranch]:
    """The box and the mask branch of a configuration, on a pyramid of `depth` channels."""

    def align(size, canonical_size, name):
        return PyramidROIAlign(
            (size, size),
            aligned=config.ROI_ALIGNED,
            rounding=config.ROI_LEVEL_ROUNDING,
            canonical_size=canonical_size,
            name=name,
        )

    boxes = BoxBranch(
        align(config.POOL_SIZE, config.ROI_CANONICAL_SIZE, "roi_align_classifier"),
        box_head(
            config.POOL_SIZE,
            depth,
            config.FPN_CLASSIF_FC_LAYERS_SIZE,
            config.NUM_CLASSES,
            train_bn,
        ),
        name="mrcnn_box_branch",
    )
    masks = MaskBranch(
        align(config.MASK_POOL_SIZE, config.MASK_CANONICAL_SIZE, "roi_align_mask"),
        mask_head(
            config.MASK_POOL_SIZE,
            depth,
            config.MASK_CONV_CHANNELS,
            config.NUM_CLASSES,
            train_bn,
        ),
        box_scale=config.MASK_BOX_SCALE,
        name="mrcnn_mask_branch",
    )
    return boxes, masks
