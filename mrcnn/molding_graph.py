"""`molding` and `masks` once more, in TensorFlow, for graphs that are to run without Python.

NumPy and Pillow do not go into a graph; the tests hold the two forms together.
"""

import numpy as np
import tensorflow as tf

from mrcnn.config import Config

_BITS = 22  # of Pillow's weights


def mold_image(image: tf.Tensor, config: Config) -> tuple[tf.Tensor, tf.Tensor]:
    """`molding.mold_inputs` of one image uint8 [h, w, 3].

    Returns:
        molded: float32 [height, width, 3].
        window: int32 (y1, x1, y2, x2), of the image in it.
    """
    resized_size, frame = _sizes(tf.shape(image)[:2], config)
    if config.IMAGE_RESIZE_MODE != "none":
        resize = resize_antialias if config.IMAGE_ANTIALIAS else resize_bilinear
        image = resize(image, resized_size)
    start = (frame - resized_size) // 2
    stop = start + resized_size
    padding = tf.stack([start, frame - stop], axis=1)
    padded = tf.pad(image, tf.pad(padding, [[0, 1], [0, 0]]))
    mean = np.asarray(config.MEAN_PIXEL, np.float32)
    return tf.cast(padded, tf.float32) - mean, tf.concat([start, stop], 0)


def _sizes(size, config):
    """Of an image of `size`: (height, width) when resized, and of the network's input."""
    mode = config.IMAGE_RESIZE_MODE
    if mode == "none":
        return size, size
    if mode == "stretch":
        return (tf.constant([config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM]),) * 2
    sides = tf.cast(size, tf.float64)
    scale = tf.constant(max(1.0, config.IMAGE_MIN_SCALE or 0.0), tf.float64)
    if config.IMAGE_MIN_DIM:
        scale = tf.maximum(scale, config.IMAGE_MIN_DIM / tf.reduce_min(sides))
    if mode == "square":
        side, longest = config.IMAGE_MAX_DIM, tf.reduce_max(sides)
        scale = tf.where(tf.round(longest * scale) > side, side / longest, scale)
    resized = tf.maximum(tf.cast(tf.round(sides * scale), tf.int32), 1)
    return resized, tf.constant([side, side]) if mode == "square" else -(-resized // 64) * 64


def resize_bilinear(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """`molding.resize_bilinear` to the last bit: uint8 [h, w, c] to [*size, c], truncated."""
    source = tf.shape(image)
    pixels = tf.cast(image, tf.float64)
    # The axis that leaves less for the other comes first.
    values = tf.cond(
        size[0] * source[1] <= source[0] * size[1],
        lambda: _interpolate(_interpolate(pixels, 0, size), 1, size),
        lambda: _interpolate(_interpolate(pixels, 1, size), 0, size),
    )
    return tf.cast(tf.maximum(values, tf.reduce_min(pixels)), tf.uint8)


def _interpolate(values, axis, size):
    source, target = tf.shape(values)[axis], size[axis]
    positions = (_range(target) + 0.5) * (source / target) - 0.5
    inside = tf.clip_by_value(positions, 0, tf.cast(source - 1, tf.float64))
    before = tf.cast(tf.floor(inside), tf.int32)
    after = tf.minimum(before + 1, source - 1)

    def along(vector):
        return tf.reshape(vector, [-1, 1, 1] if axis == 0 else [-1, 1])

    first = tf.gather(values, before, axis=axis)
    step = tf.gather(values, after, axis=axis) - first
    result = first + step * along(inside - tf.floor(inside))
    return result * along(1 - tf.abs(positions - inside))


def resize_antialias(image: tf.Tensor, size: tf.Tensor, box: bool = False) -> tf.Tensor:
    """Pillow's bilinear filter, or its box, to the last bit: uint8 [h, w, c] to [*size, c].

    As there, each axis is rounded to whole levels, and weights are whole numbers of 22 bits.
    """
    source = tf.shape(image)[:2]

    def rows(pixels):
        return _filter_rows(pixels, size[0], box)

    def columns(pixels):
        turned = tf.transpose(pixels, [1, 0, 2])
        return tf.transpose(_filter_rows(turned, size[1], box), [1, 0, 2])

    # Pillow begins with the rows, from its version 13 on, where it takes many more of them away
    # than columns.
    fewer_rows, fewer_columns = tf.unstack(source - size)
    return tf.cond(
        (fewer_rows > 0) & (fewer_rows > 2 * fewer_columns),
        lambda: columns(rows(image)),
        lambda: rows(columns(image)),
    )


def _filter_rows(pixels, target, box):
    source, width, channels = tf.unstack(tf.shape(pixels))
    scale = tf.maximum(source / target, 1.0)
    reach = scale / 2 if box else scale
    centres = (_range(target) + 0.5) * (source / target)
    first = tf.cast(tf.maximum(centres - reach + 0.5, 0), tf.int32)
    taken = first[:, None] + tf.range(2 * tf.cast(tf.math.ceil(reach), tf.int32) + 1)
    distances = (_double(taken) + 0.5 - centres[:, None]) / scale
    if box:
        weights = _double((distances > -0.5) & (distances <= 0.5))
    else:
        weights = tf.maximum(1 - tf.abs(distances), 0)
    weights = tf.where(taken < source, weights, 0)
    weights = weights / tf.reduce_sum(weights, axis=1, keepdims=True)
    weights = tf.cast(weights * 2.0**_BITS + 0.5, tf.int32)
    of = tf.broadcast_to(tf.range(target)[:, None], tf.shape(taken))
    places = tf.stack([of, tf.minimum(taken, source - 1)], axis=-1)
    matrix = tf.SparseTensor(
        tf.cast(tf.reshape(places, [-1, 2]), tf.int64),
        tf.reshape(weights, [-1]),
        tf.cast([target, source], tf.int64),
    )
    flat = tf.reshape(tf.cast(pixels, tf.int32), [source, width * channels])
    sums = tf.sparse.sparse_dense_matmul(matrix, flat) + 2 ** (_BITS - 1)
    filtered = tf.cast(tf.bitwise.right_shift(sums, _BITS), tf.uint8)
    return tf.reshape(filtered, [target, width, channels])


def paste_mask(
    mask: tf.Tensor, edges: tf.Tensor, size: tf.Tensor, canvas: tf.Tensor, fade: bool
) -> tf.Tensor:
    """A mask of a box in an image that lies at the top left of a larger canvas.

    Args:
        mask: float32 [m, m] in 0..1.
        edges: float64 (y1, x1, y2, x2) of the box in pixels.
        size, canvas: int32 (height, width) of the image and of the result.
        fade: whether values fall off at the box's edges, as in `masks.paste_mask`; else it is
            `masks.place_mask`.

    Returns:
        float32 `canvas` in 0..1, zero outside the box.
    """
    rows, of_rows = _box_weights(edges[0], edges[2], size[0], canvas[0], mask.shape[0], fade)
    columns, of_columns = _box_weights(edges[1], edges[3], size[1], canvas[1], mask.shape[1], fade)
    values = tf.matmul(tf.matmul(rows, mask), columns, transpose_b=True)
    if fade:
        values = tf.maximum(values, tf.reduce_min(mask))
    return tf.where(of_rows[:, None] & of_columns, values, 0.0)


def _box_weights(start, stop, size, length, cells, fade):
    """Weights float32 [length, cells] of a mask's cells in pixels, and which are in the box."""
    centres = _range(length) + 0.5
    positions = (centres - start) * (cells / (stop - start)) - 0.5
    nearest = tf.clip_by_value(positions, 0, cells - 1)
    weights = _tents(nearest, cells)
    if fade:
        weights *= tf.cast(1 - tf.abs(positions - nearest), tf.float32)[:, None]
    inside = (centres >= start) & (centres < stop) & (centres < tf.cast(size, tf.float64))
    return weights, inside


def unmold_semantic(
    cells: tf.Tensor, size: tf.Tensor, frame: tf.Tensor, window: tf.Tensor, canvas: tf.Tensor
) -> tf.Tensor:
    """`semantic.unmold_semantic` at the top left of a larger canvas of zeros.

    Args:
        cells: float32 [rows, columns, classes] of the whole input.
        size, frame, canvas: int32 (height, width) of the image, the input and the result.
        window: int32 (y1, x1, y2, x2) of the image in the input.

    Returns:
        float32 [*canvas, classes].
    """
    weights = []
    for axis in (0, 1):
        start, stop = (tf.cast(window[end], tf.float64) for end in (axis, axis + 2))
        count = tf.shape(cells)[axis]
        centres = start + (_range(size[axis]) + 0.5) * ((stop - start) / _double(size[axis]))
        positions = centres * (count / frame[axis]) - 0.5
        positions = tf.clip_by_value(positions, 0, _double(count - 1))
        weights.append(tf.pad(_tents(positions, count), [[0, canvas[axis] - size[axis]], [0, 0]]))
    half = tf.einsum("yi,ijc->yjc", weights[0], cells)
    return tf.einsum("yjc,xj->yxc", half, weights[1])


def _tents(positions, cells):
    """Weights float32 [n, cells] of a bilinear interpolation at positions [n] between cells."""
    return tf.cast(tf.maximum(1 - tf.abs(positions[:, None] - _range(cells)), 0), tf.float32)


def _range(count):
    return tf.cast(tf.range(count), tf.float64)


def _double(value):
    return tf.cast(value, tf.float64)
