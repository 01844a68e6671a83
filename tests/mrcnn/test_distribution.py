"""Several devices give the losses, the gradients and the weights of one.

What is set before a backend starts, such as the number of its devices, needs a process of its own:
this file, run as a program, is that process.
"""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from mrcnn import callbacks, data, distribution
from mrcnn.config import Config
from mrcnn.data import Batches
from mrcnn.model import MaskRCNN
from mrcnn.tensors import step_by_step
from mrcnn.weights import named_weights

ROOT = Path(__file__).resolve().parents[2]
BATCH = 4
# Samples of matterport's ROIAlign lie on the border, where the last bit decides if they count.
# Gradients exceed the norm, so that clipping has its part: a step is as long as the learning rate.
SETTINGS = {
    "ROI_ALIGNED": True,
    "ADD_GT_TO_PROPOSALS": True,
    "GRADIENT_CLIP_NORM": 1.0,
    "SEMANTIC_BRANCH": True,
    "SEMANTIC_CHANNELS": 8,
    "SEMANTIC_LOSS": "crossentropy_dice",
    "STEPS_PER_EPOCH": 1,
}
LEARNING_RATE = 0.1

backend = keras.backend.backend()
under_tensorflow = pytest.mark.skipif(backend != "tensorflow", reason="holds for TensorFlow alone")
under_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)


class TestWithoutSeveral:
    def test_more_devices_than_there_are(self, tiny_config, tmp_path):
        with pytest.raises(ValueError, match="GPU_COUNT is 99, but"):
            MaskRCNN("training", tiny_config(GPU_COUNT=99), tmp_path)

    @under_tensorflow
    def test_message_counts_what_there_is(self, tensorflow, tiny_config, monkeypatch):
        there = {"GPU": [], "CPU": [SimpleNamespace(name="/device:CPU:0")]}
        monkeypatch.setattr(tensorflow.config, "list_logical_devices", there.get)
        distribution._mirrored_strategy.cache_clear()
        with pytest.raises(ValueError, match=r"sees 0 GPU\(s\) and 1 logical processor"):
            distribution.training_scope(tiny_config(GPU_COUNT=2))

    def test_one_needs_no_scope(self, tiny_config):
        with distribution.training_scope(tiny_config())():
            assert distribution.replica_count() == 1

    def test_device_of_the_weights(self):
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
        (name,) = distribution.device_names(layer)
        assert "cpu" in name or "gpu" in name or "cuda" in name

    def test_all_rows_are_its_own(self):
        rows = distribution.own_rows(lambda shape: keras.ops.ones(shape), (2, 3))
        assert rows.shape == (2, 3)

    def test_whole_batch_is_its_own(self):
        assert distribution.process_share() == (0, 1)

    @pytest.mark.skipif(backend == "jax", reason="holds for the other backends")
    def test_processes_are_for_jax(self):
        with pytest.raises(RuntimeError, match="set KERAS_BACKEND=jax"):
            distribution.join("127.0.0.1:1", 2, 0)


class TestProcess:
    """The second of two processes, for what depends on its number alone."""

    @pytest.fixture(autouse=True)
    def second(self, monkeypatch):
        monkeypatch.setattr(data, "process_share", lambda: (1, 2))
        monkeypatch.setattr(callbacks, "process_share", lambda: (1, 2))

    def test_prepares_its_half_of_the_batch(self, tiny_config, rectangles, monkeypatch):
        config = tiny_config(IMAGES_PER_GPU=BATCH)
        batches = Batches(rectangles(), config)
        monkeypatch.undo()
        (whole,) = Batches(rectangles(), config)[0]
        with ThreadPoolExecutor(1) as pool:  # Keras knows its distribution in the main thread only
            (half,) = pool.submit(batches.__getitem__, 0).result()
        for part, all_rows in zip(half, whole, strict=True):
            np.testing.assert_array_equal(part, all_rows[BATCH // 2 :])

    def test_leaves_the_files_to_the_first(self, tmp_path):
        assert callbacks.log_callbacks(tmp_path, 0) == []
        run = SimpleNamespace(checkpoint_path=tmp_path / "{epoch}.h5")
        callbacks.Checkpoint(run, {}).on_epoch_end(0)
        callbacks.State(tmp_path, None).on_epoch_end(0)
        assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trainings")


def start(folder, backend, *arguments):
    environment = {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    log = open(folder / f"{'-'.join(arguments).replace(':', '')}.log", "w+")
    command = [sys.executable, __file__, str(folder), *arguments]
    process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
    return process, log


def finish(*started):
    for process, log in started:
        status = process.wait(timeout=1800)
        log.seek(0)
        assert status == 0, log.read()
        log.close()


def compare(found, expected, rtol=1e-4):
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=1e-4, err_msg=name)


def load(folder, name):
    with np.load(folder / f"{name}.npz") as arrays:
        return dict(arrays)


@under_tensorflow
class TestReplicas:
    @pytest.fixture(scope="class")
    @staticmethod
    def done(folder):
        """Folder of what trainings and optimizers on one device and on two left behind."""
        finish(start(folder, "tensorflow", "replicas"))
        return folder

    def test_same_losses_and_weights(self, done):
        compare(load(done, "training2"), load(done, "training1"))

    def test_every_loss_has_its_part(self, done):
        history = load(done, "training1")
        assert all(values.all() for name, values in history.items() if name.endswith("loss"))

    @pytest.mark.parametrize("name", ["sgd", "adamw"])
    def test_whole_gradient_is_clipped(self, done, name):
        steps = load(done, "optimizers")
        np.testing.assert_allclose(steps[f"{name}2"], steps[f"{name}1"], rtol=1e-5)


@under_jax
class TestProcesses:
    def test_same_losses_and_weights(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        finish(start(folder, "jax", "process", address, "1", "0"))
        finish(*(start(folder, "jax", "process", address, "2", str(index)) for index in (0, 1)))
        one, *two = (load(folder, f"process{n}") for n in ("1-0", "2-0", "2-1"))
        assert one["history/mrcnn_mask_loss"].any()
        for found in two:
            compare(found, one)


# ---- the process of its own ----------------------------------------------------------------------


def train(folder, name, count):
    """Trains on `count` devices and stores losses and weights."""
    from conftest import ONE_OR_TWO_EACH, Rectangles, TinyConfig

    keras.utils.set_random_seed(0)
    config = TinyConfig(GPU_COUNT=count, IMAGES_PER_GPU=BATCH // count, **SETTINGS)
    model = MaskRCNN("training", config, folder / name)
    history = model.train(Rectangles(ONE_OR_TWO_EACH), None, LEARNING_RATE, 2, "all").history
    weights = {key: w.variable.numpy() for key, w in named_weights(model.keras_model).items()}
    np.savez(folder / name, **weights, **{f"history/{key}": v for key, v in history.items()})
    return model


def optimizer_steps(optimizer):
    """A variable after two steps, each along the sum of two gradients that is to be clipped."""
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    variable = keras.Variable(np.float32([1, -2, 3]))
    optimizer.build([variable])

    @tf.function
    def step(gradients):
        def of_replica():
            own = distribution.own_rows(lambda shape: gradients, (2 // replicas, 3))
            optimizer.apply([tf.reduce_sum(own, axis=0)], [variable])

        strategy.run(of_replica)

    for gradients in ([[3, 0, 4], [1, 8, -4]], [[1, 1, 0], [-1, 0, 2]]):
        step(tf.constant(gradients, tf.float32))
    return variable.numpy()


def compare_optimizers(folder, scope):
    sgd = {"learning_rate": 0.1, "momentum": 0.9, "global_clipnorm": 1.0}
    adamw = {"learning_rate": 0.1, "weight_decay": 0.1, "global_clipnorm": 1.0}
    one = {
        "sgd1": optimizer_steps(keras.optimizers.SGD(**sgd)),
        "adamw1": optimizer_steps(keras.optimizers.AdamW(**adamw)),
    }
    with scope():
        two = {
            "sgd2": optimizer_steps(distribution.ReplicatedSGD(**sgd)),
            "adamw2": optimizer_steps(distribution.ReplicatedAdamW(**adamw)),
        }
    np.savez(folder / "optimizers", **one, **two)


def main(folder, task, *arguments):
    folder = Path(folder)
    if task == "process":
        address, count, index = arguments
        if int(count) > 1:
            distribution.join(address, int(count), int(index))
        train(folder, f"process{count}-{index}", int(count))
        return
    import tensorflow as tf

    (processor,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, two)
    compare_optimizers(folder, distribution.training_scope(Config(GPU_COUNT=2)))
    for count in (1, 2):
        with step_by_step() if count == 1 else contextlib.nullcontext():  # which takes less time
            model = train(folder, f"training{count}", count)
        expected = [f"cpu:{number}" for number in range(count)]
        assert distribution.device_names(model.keras_model) == expected
    with step_by_step():
        assert len(model.detect([np.zeros((40, 50, 3), np.uint8)] * 5)) == 5


if __name__ == "__main__":
    main(*sys.argv[1:])
