"""ROIAlign on the feature pyramid (He et al. 2017, section 3; Lin et al. 2017, equation 1).

Two ways of sampling are offered. matterport's takes one bilinear sample per bin on a grid that
reaches from corner to corner of the box. The aligned one follows the paper: the mean of 2x2
samples per bin, pixel centres at half-integers.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mrcnn.tensors import Tensor, batch_indices, has_quick_kernels

SAMPLES_PER_BIN = 2


@keras.saving.register_keras_serializable("mrcnn")
class PyramidROIAlign(keras.layers.Layer):
    """Pools each box from the pyramid level that suits its size.

    Args:
        pool_shape: `(height, width)` of the pooled features.
        aligned: sample as in the paper instead of as in matterport.
        rounding: "round" (matterport) or "floor" (the paper) of the level.
        canonical_size: pixels of the box that is pooled from level 4.
    """

    def __init__(
        self,
        pool_shape: Sequence[int],
        aligned: bool = False,
        rounding: str = "round",
        canonical_size: float = 224,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # boxes stay float32
        self.pool_shape = tuple(pool_shape)
        self.aligned = aligned
        self.rounding = rounding
        self.canonical_size = canonical_size
        self.built = True  # it has no weights

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "pool_shape": self.pool_shape,
            "aligned": self.aligned,
            "rounding": self.rounding,
            "canonical_size": self.canonical_size,
        }

    def call(self, boxes: Tensor, pyramid: Sequence[Tensor]) -> Tensor:
        """Pooled features [batch, n, height, width, channels] of normalised `boxes` [batch, n, 4].

        `pyramid` is [P2, P3, P4, P5].
        """
        batch, count = ops.shape(boxes)[0], boxes.shape[1]
        flat = ops.reshape(boxes, (-1, 4))
        pooled = self.pool(flat, batch_indices(batch, count), pyramid)
        return ops.reshape(pooled, (-1, count) + tuple(pooled.shape[1:]))

    def pool(self, boxes: Tensor, box_indices: Tensor, pyramid: Sequence[Tensor]) -> Tensor:
        """Pooled features [n, height, width, channels] of `boxes` [n, 4] of images [n]."""
        boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
        height, width = (ops.shape(pyramid[0])[axis] * 4 for axis in (1, 2))  # P2 has stride 4
        level = self.levels(boxes, height, width)
        maps = [_frame(features) if self.aligned else features for features in pyramid]
        grids = [self._sampling_box(boxes, features, height, width) for features in pyramid]
        size = self.pool_shape
        if self.aligned:
            size = tuple(SAMPLES_PER_BIN * side for side in size)
        samples = crop_levels(maps, grids, level, box_indices, size)
        samples = ops.cast(samples, self.compute_dtype)
        if self.aligned:
            samples = ops.average_pool(samples, SAMPLES_PER_BIN, SAMPLES_PER_BIN)
        return samples

    def levels(self, boxes: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
        """Index int32 [n] into [P2, ..., P5] for normalised boxes [n, 4]."""
        extent = ops.maximum(boxes[:, 2:4] - boxes[:, 0:2], 0.0)
        area = ops.cast(height, "float32") * ops.cast(width, "float32")
        # Padded boxes have no extent; the floor keeps their logarithm finite.
        side = ops.sqrt(ops.maximum(extent[:, 0] * extent[:, 1], 1e-12))
        level = ops.log(side / (self.canonical_size / ops.sqrt(area))) / ops.log(2.0)
        level = ops.floor(level + 1e-6) if self.rounding == "floor" else ops.round(level)
        return ops.clip(ops.cast(level, "int32") + 2, 0, 3)

    def _sampling_box(self, boxes, features, height, width):
        """Boxes whose corner-to-corner grid holds the samples, for `crop_and_resize`."""
        if not self.aligned:
            return boxes
        rows, columns = ops.shape(features)[1], ops.shape(features)[2]
        y1, y2 = _aligned_span(
            boxes[:, 0], boxes[:, 2], height, rows, SAMPLES_PER_BIN * self.pool_shape[0]
        )
        x1, x2 = _aligned_span(
            boxes[:, 1], boxes[:, 3], width, columns, SAMPLES_PER_BIN * self.pool_shape[1]
        )
        return ops.stack([y1, x1, y2, x2], axis=1)


def _aligned_span(start, stop, image_size, map_size, samples):
    """First and last sample of an axis, normalised for a map framed by one pixel."""
    image_size = ops.cast(image_size, "float32")
    map_size = ops.cast(map_size, "float32")
    start = start * (image_size - 1.0) * map_size / image_size
    stop = (stop * (image_size - 1.0) + 1.0) * map_size / image_size
    return framed_samples(start, stop, map_size, samples)


def framed_samples(
    start: Tensor, stop: Tensor, map_size: float | Tensor, samples: int
) -> tuple[Tensor, Tensor]:
    """Centres of the first and last of equal parts of an axis, as `crop_and_resize` takes them.

    Args:
        start, stop: float32 [n], edges in pixels of a map without its frame.
        map_size: pixels of the map on that axis, without the frame of one pixel.
        samples: number of parts.

    Returns:
        Two float32 [n], normalised for the map with its frame.
    """
    margin = (stop - start) / (2.0 * samples)
    # Half a pixel from edge to centre is taken off, one for the frame is added.
    return (start + margin + 0.5) / (map_size + 1.0), (stop - margin + 0.5) / (map_size + 1.0)


def _frame(features):
    """The map with its border repeated once, so that samples up to one pixel outside are its."""
    return ops.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="symmetric")


def crop_and_resize(
    images: Tensor, boxes: Tensor, box_indices: Tensor, size: Sequence[int]
) -> Tensor:
    """Bilinear crops; the first and last samples of each axis lie on the box's corners.

    Args:
        images: [batch, height, width, channels].
        boxes: float32 [n, 4], normalised: 0 and 1 are the centres of the border pixels.
        box_indices: int32 [n], the image of each box.
        size: `(height, width)` of the crops.

    Returns:
        float32 [n, *size, channels]; samples outside the image are zero.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.image.crop_and_resize(images, boxes, box_indices, size)
    return crop_levels_ops([images], [boxes], ops.zeros_like(box_indices), box_indices, size)


def crop_levels(
    maps: Sequence[Tensor],
    boxes: Sequence[Tensor],
    level: Tensor,
    box_indices: Tensor,
    size: Sequence[int],
) -> Tensor:
    """Crops of each box from its own level, as quickly as the backend can.

    Args:
        maps: list of [batch, height_l, width_l, channels].
        boxes: list of float32 [n, 4], the boxes as normalised for each map.
        level: int32 [n], the map of each box.
        box_indices: int32 [n], the image of each box.
        size: `(height, width)` of the crops.

    Returns:
        float32 [n, *size, channels]; samples outside the image are zero.
    """
    if has_quick_kernels():
        return _crop_levels_tensorflow(maps, boxes, level, box_indices, size)
    return crop_levels_ops(maps, boxes, level, box_indices, size)


def _crop_levels_tensorflow(maps, boxes, level, box_indices, size):
    """The crops by TensorFlow's kernel, which is the quickest, each level's boxes apart."""
    import tensorflow as tf

    def crop(*maps):
        rows, crops = [], []
        for index, (features, grid) in enumerate(zip(maps, boxes, strict=True)):
            of_level = tf.cast(tf.where(level == index)[:, 0], tf.int32)
            rows.append(of_level)
            crops.append(
                tf.image.crop_and_resize(
                    features,
                    tf.gather(grid, of_level),
                    tf.gather(box_indices, of_level),
                    size,
                )
            )
        stitched = tf.dynamic_stitch(rows, crops)
        return tf.ensure_shape(stitched, [None, *size, maps[0].shape[-1]])

    @tf.custom_gradient
    def crop_on_processor(*maps):
        # There, the gradient of TensorFlow's kernel adds up in threads without a lock, so that
        # summands are lost wherever boxes overlap: in a third of the steps, up to a quarter.
        return crop(*maps), lambda upstream: _uncrop_levels_tensorflow(
            upstream, maps, boxes, level, box_indices
        )

    maps = [tf.cast(features, tf.float32) for features in maps]
    on_processor = any("GPU" not in device for device in _devices())
    return (crop_on_processor if on_processor else crop)(*maps)


def _devices():
    """Names of the devices that may run what is computed here by TensorFlow."""
    import tensorflow as tf

    if tf.distribute.has_strategy():
        return tf.distribute.get_strategy().extended.worker_devices
    with tf.init_scope():  # a function that is traced does not know where it is called
        return [tf.zeros(()).device]


def _uncrop_levels_tensorflow(crops, maps, boxes, level, box_indices):
    """Transpose of cropping: the sum that each pixel of each map takes from `crops`.

    A sample is a weighted sum of pixels, and all of them one sparse matrix. The product with its
    transpose is computed row by row, a pixel never by two threads.
    """
    import tensorflow as tf

    size, channels = tuple(crops.shape[1:3]), crops.shape[-1]
    pixels, weights = _corners(maps, boxes, level, box_indices, size)
    samples = tf.range(tf.size(pixels) // 4, dtype=tf.int64)
    # [samples, 4], so that the entries come in the order of a sparse matrix.
    pixels, weights = (tf.transpose(tf.reshape(part, [4, -1])) for part in (pixels, weights))
    entries = tf.stack(
        [tf.broadcast_to(samples[:, None], tf.shape(pixels)), tf.cast(pixels, tf.int64)], axis=-1
    )
    areas = [tf.size(features) // channels for features in maps]
    matrix = tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.reshape(entries, [-1, 2]),
        values=tf.reshape(weights, [-1]),
        dense_shape=tf.cast(tf.stack([tf.size(samples), tf.add_n(areas)]), tf.int64),
    )
    flat = tf.raw_ops.SparseMatrixMatMul(
        a=tf.raw_ops.SparseMatrixTranspose(input=matrix, type=tf.float32),
        b=tf.reshape(crops, [-1, channels]),
    )
    parts = tf.split(flat, areas)
    return [
        tf.reshape(part, tf.shape(features)) for part, features in zip(parts, maps, strict=True)
    ]


def crop_levels_ops(
    maps: Sequence[Tensor],
    boxes: Sequence[Tensor],
    level: Tensor,
    box_indices: Tensor,
    size: Sequence[int],
) -> Tensor:
    """`crop_levels` on any backend: one gather over all flattened maps."""
    channels = maps[0].shape[-1]
    flat = ops.concatenate([ops.reshape(m, (-1, channels)) for m in maps], axis=0)
    pixels, weights = _corners(maps, boxes, level, box_indices, size)
    result = 0.0
    for corner in range(4):
        values = ops.take(flat, pixels[corner], axis=0)
        result = result + ops.cast(values, "float32") * weights[corner][..., None]
    return result


def _corners(maps, boxes, level, box_indices, size):
    """The four pixels around each sample, as rows of all flattened maps, and their weights.

    Arguments are those of `crop_levels`. Returns int32 and float32 [4, n, *size].
    """
    heights = ops.stack([ops.shape(m)[1] for m in maps])
    widths = ops.stack([ops.shape(m)[2] for m in maps])
    areas = ops.stack([ops.shape(m)[0] * ops.shape(m)[1] * ops.shape(m)[2] for m in maps])
    first = ops.cumsum(areas) - areas
    height, width = ops.take(heights, level), ops.take(widths, level)  # [n]
    grid = ops.take_along_axis(ops.stack(boxes), level[None, :, None], axis=0)[0]
    offset = ops.take(first, level) + box_indices * height * width

    y, y_inside = _samples(grid[:, 0], grid[:, 2], height, size[0])
    x, x_inside = _samples(grid[:, 1], grid[:, 3], width, size[1])
    inside = ops.cast(ops.logical_and(y_inside[:, :, None], x_inside[:, None, :]), "float32")
    top, left = ops.floor(y), ops.floor(x)
    pixels, weights = [], []
    for row, row_weight in ((top, 1.0 - (y - top)), (top + 1, y - top)):
        for column, column_weight in ((left, 1.0 - (x - left)), (left + 1, x - left)):
            row_index = ops.minimum(ops.cast(row, "int32"), height[:, None] - 1)
            column_index = ops.minimum(ops.cast(column, "int32"), width[:, None] - 1)
            index = offset[:, None, None] + row_index[:, :, None] * width[:, None, None]
            pixels.append(index + column_index[:, None, :])
            weights.append(row_weight[:, :, None] * column_weight[:, None, :] * inside)
    return ops.stack(pixels), ops.stack(weights)


def _samples(start, stop, map_size, count):
    """Sample positions [n, count] in pixels, clamped, and whether they lay inside."""
    last = ops.cast(map_size, "float32")[:, None] - 1.0
    steps = ops.arange(count, dtype="float32")[None, :]
    if count > 1:
        # In the order of TensorFlow's kernel, so that rounding puts the same samples outside. The
        # divisor is no constant, which XLA would turn into a product with its inverse.
        step = (stop - start)[:, None] * last / (0.0 * last + (count - 1))
        position = _rounded(start[:, None] * last) + _rounded(steps * step)
    else:
        position = 0.5 * (start + stop)[:, None] * last
    inside = ops.logical_and(position >= 0, position <= last)
    return ops.clip(position, 0.0, last), inside


def _rounded(product):
    """The product, which XLA would else fuse with a sum and round once instead of twice."""
    return ops.clip(product, -1e30, 1e30)
