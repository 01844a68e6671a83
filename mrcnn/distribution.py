"""Training on several devices, with the losses and gradients of one.

TensorFlow runs a copy of the step, a replica, on every device and adds up what they give. A loss is
a mean over what counts in the whole batch, so that a replica gives its share: its own sum divided
by the weight of all. JAX writes the step for the whole batch, wherever its parts lie; there nothing
needs to be added up.
"""

import contextlib
import functools
from collections.abc import Callable

import keras

from mrcnn.config import Config
from mrcnn.tensors import Tensor


def training_scope(config: Config) -> Callable[[], contextlib.AbstractContextManager]:
    """Where a network that trains on `GPU_COUNT` devices is built and compiled.

    Under TensorFlow these are the GPUs or, where there are fewer, the logical processors that
    `tf.config.set_logical_device_configuration` has made. Under JAX they are those of `join`.

    Returns:
        A function that gives the context manager, each time it is needed.

    Raises:
        ValueError: if there are not as many devices.
    """
    count, backend = config.GPU_COUNT, keras.backend.backend()
    if backend == "tensorflow" and count > 1:
        return _mirrored_strategy(count).scope
    distribution = keras.distribution.distribution()
    there = distribution.device_mesh.devices.size if distribution is not None else 1
    if count != there:
        way = " Call mrcnn.distribution.join() before the network is built." * (backend == "jax")
        raise ValueError(
            f"GPU_COUNT is {count}, but with KERAS_BACKEND={backend} training would run on "
            f"{there} device(s).{way}"
        )
    return contextlib.nullcontext


def device_names(network: keras.layers.Layer) -> list[str]:
    """Names of the devices that hold a network's weights, such as `["gpu:0"]`."""
    value = network.variables[0].value
    backend = keras.backend.backend()
    if backend == "jax":
        devices = sorted(value.devices(), key=lambda device: device.id)
        return [f"{device.platform}:{device.id}" for device in devices]
    if backend == "torch":
        return [str(value.device).replace("cuda", "gpu")]
    replicas = getattr(value, "values", None) or [value]
    return [replica.device.rpartition("device:")[2].lower() for replica in replicas]


@functools.cache  # a second one over the same devices would get in the way of its reductions
def _mirrored_strategy(count):
    import tensorflow as tf

    found = {}
    for kind in ("GPU", "CPU"):
        found[kind] = [device.name for device in tf.config.list_logical_devices(kind)]
        if len(found[kind]) >= count:
            return tf.distribute.MirroredStrategy(found[kind][:count])
    raise ValueError(
        f"GPU_COUNT is {count}, but TensorFlow sees {len(found['GPU'])} GPU(s) and "
        f"{len(found['CPU'])} logical processor(s). Lower GPU_COUNT, and raise IMAGES_PER_GPU for "
        "a batch of the same size."
    )


# ---- TensorFlow: replicas ------------------------------------------------------------------------


def replica_count() -> int:
    """Number of replicas among which the batch at hand is divided; 1 without a strategy."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def sum_over_replicas(values: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    """The sum of a tensor, or of each tensor of a list, over all replicas."""
    if replica_count() == 1:
        return values
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    if replica is None:  # while Keras tries out the network before the first step
        return values
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, values)


def own_rows(draw: Callable[[tuple], Tensor], shape: tuple[int | Tensor, ...]) -> Tensor:
    """The rows of this replica in what `draw` gives for the whole batch.

    With it random numbers are those of one device, whose generator stands at the same place.

    Args:
        draw: function of a shape.
        shape: of this replica's rows.
    """
    replicas = replica_count()
    if replicas == 1:
        return draw(shape)
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    first = 0 if replica is None else replica.replica_id_in_sync_group * shape[0]
    return draw((replicas * shape[0], *shape[1:]))[first : first + shape[0]]


class _ClipsWholeGradient:
    """Clips the gradient of the whole batch; Keras 3.15 clips each replica's before adding up.

    Every replica passes on the whole gradient divided by their number. Its norm counts against a
    `global_clipnorm` divided likewise, and the sum that the optimizer takes is the whole, clipped.
    """

    def __init__(self, *args, global_clipnorm=None, **kwargs):
        if global_clipnorm is not None:
            global_clipnorm = global_clipnorm / replica_count()
        super().__init__(*args, global_clipnorm=global_clipnorm, **kwargs)

    def apply(self, grads, trainable_variables=None):
        known = iter(sum_over_replicas([grad for grad in grads if grad is not None]))
        share = 1.0 / replica_count()
        grads = [None if grad is None else next(known) * share for grad in grads]
        super().apply(grads, trainable_variables)


class ReplicatedSGD(_ClipsWholeGradient, keras.optimizers.SGD):
    """`keras.optimizers.SGD` for a network built in `training_scope`."""


class ReplicatedAdamW(_ClipsWholeGradient, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` for a network built in `training_scope`."""


# ---- JAX: processes ------------------------------------------------------------------------------


def join(
    address: str | None = None, processes: int | None = None, index: int | None = None
) -> None:
    """Makes all devices of all processes train one network together; JAX only.

    Every process calls it with the same address before anything is computed, builds the same
    network and trains it on the same data set; `GPU_COUNT` is the number of all devices together.
    Each process prepares its own part of every batch.

    Args:
        address: "host:port" of the first process, reachable for all; None for a single process.
        processes: their number.
        index: of this one, from 0.

    Raises:
        RuntimeError: under another backend.
    """
    if keras.backend.backend() != "jax":
        raise RuntimeError(
            "Several processes train together under JAX only: set KERAS_BACKEND=jax before Keras "
            f"is imported; it is {keras.backend.backend()}."
        )
    if address is not None:
        keras.distribution.initialize(address, processes, index)
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))


def process_share() -> tuple[int, int]:
    """`(index, count)`: which of how many equal parts of a batch this process prepares."""
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is None:
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()
