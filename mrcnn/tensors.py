"""Small tensor helpers shared by the network's layers."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

# Of Keras's backend (TensorFlow, JAX, PyTorch), or a symbolic one.
Tensor = Any

_for_converters = contextvars.ContextVar("for_converters", default=False)


def gather_rows(values: Tensor, indices: Tensor) -> Tensor:
    """Rows [batch, k, ...] of `values` [batch, n, ...] at int `indices` [batch, k].

    One gather over the flattened rows: quicker than `take_along_axis` on every backend.
    """
    batch, count = ops.shape(values)[0], ops.shape(values)[1]
    first = ops.arange(batch, dtype="int32")[:, None] * count
    flat = ops.reshape(values, (-1,) + tuple(ops.shape(values)[2:]))
    return ops.take(flat, first + ops.cast(indices, "int32"), axis=0)


def own_class(values: Tensor, class_ids: Tensor, axis: int = -1) -> Tensor:
    """What `values` hold for each row's own class.

    By selection and a sum: unlike a gather, whose gradient adds up rows, it is the same on every
    device each time; and unlike a product, other classes may hold what is not finite.

    Args:
        values: [..., classes, ...], whose first axes are those of `class_ids`.
        class_ids: int [...]; values of an id below 0 are 0.
        axis: of the classes.

    Returns:
        `values` without that axis.
    """
    rank, rows = len(values.shape), len(class_ids.shape)
    axis %= rank
    class_ids = ops.cast(class_ids, "int32")[..., None]
    own = class_ids == ops.arange(values.shape[axis], dtype="int32")
    every = (slice(None),)
    own = own[every * rows + (None,) * (axis - rows) + every + (None,) * (rank - 1 - axis)]
    return ops.sum(ops.where(own, values, 0.0), axis=axis)


def argmax(values: Tensor, axis: int) -> Tensor:
    """`ops.argmax` as int32, which under TensorFlow also looks at bits: no converter can."""
    if not is_for_converters():
        return ops.cast(ops.argmax(values, axis=axis), "int32")
    import tensorflow as tf

    return tf.argmax(values, axis, tf.int32)


def batch_indices(batch: int | Tensor, count: int) -> Tensor:
    """int32 [batch * count]: the image's number for each of `count` rows of each image."""
    return ops.repeat(ops.arange(batch, dtype="int32"), count)


@contextlib.contextmanager
def precision_policy(policy: str) -> Iterator[None]:
    """Layers built inside get this dtype policy; variables stay float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def step_by_step() -> Iterator[None]:
    """Networks run operation by operation inside, where TensorFlow is the backend.

    Each step takes longer, and a few of them less than compiling does.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextlib.contextmanager
def for_converters() -> Iterator[None]:
    """Graphs of TensorFlow traced inside hold operations that TFLite, ONNX and others know, too.

    Their shapes are fixed, and nothing in them loops; the numbers are the same up to rounding.
    """
    before = _for_converters.set(True)
    try:
        yield
    finally:
        _for_converters.reset(before)


def is_for_converters() -> bool:
    """Whether operations of TensorFlow alone are to be avoided; see `for_converters`."""
    return _for_converters.get()


def has_quick_kernels() -> bool:
    """Whether TensorFlow's own kernels, which are the quickest, may be used."""
    return keras.backend.backend() == "tensorflow" and not is_for_converters()


def leave_uncompiled(network: keras.Model) -> None:
    """On a GPU Keras would have XLA compile predictions, which lacks the suppression of boxes."""
    if keras.backend.backend() == "tensorflow":
        network.jit_compile = False


def require_eager() -> None:
    """Raises RuntimeError where TensorFlow builds graphs for sessions, as its first version did."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    if not tf.executing_eagerly():
        raise RuntimeError(
            "TensorFlow does not execute eagerly, without which Keras 3 builds no network. Drop "
            "tf.compat.v1.disable_eager_execution(), tf.compat.v1.disable_v2_behavior() or "
            "graph.as_default() from the script: there are no sessions and graphs to look after."
        )
