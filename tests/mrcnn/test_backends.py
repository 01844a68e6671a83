"""One network under TensorFlow, JAX and PyTorch: the same detections, losses and training.

A process has one backend; this file, run as a program, is a process of another one.
"""

import contextlib
import importlib.util
import os
import subprocess
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest

from mrcnn.data import Batches
from mrcnn.model import MaskRCNN
from mrcnn.weights import named_weights

ROOT = Path(__file__).resolve().parents[2]
# All regions take part, so that it does not matter what the backends draw; and no sample lies on
# the border of the image, where the last bit decides if it counts.
SETTINGS = {
    "ROI_ALIGNED": True,
    "ADD_GT_TO_PROPOSALS": True,
    "SAMPLE_NEGATIVES_ALWAYS": True,
    "TRAIN_ROIS_PER_IMAGE": 40,
    "ROI_POSITIVE_RATIO": 0.6,
    "GRADIENT_CLIP_NORM": 1.0,
}
# Of kernels, so that no score comes near 0 or 1, where scores tie and their order is open.
GAINS = {
    "res1_conv": 1 / 64,
    "rpn_class_raw": 0.3,
    "rpn_bbox_pred": 0.1,
    "mrcnn_bbox_fc": 0.1,
    "mrcnn_class_logits": 0.3,
    "mrcnn_mask": 0.3,
}
LEARNING_RATE = 0.1  # the length of a step, since gradients are longer than the norm


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Makes the arrays that `main` stores under a backend."""
    folder, known = tmp_path_factory.mktemp("backends"), {}

    def under(backend):
        if backend not in known:
            environment = {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
            command = [sys.executable, __file__, str(folder / backend)]
            finished = subprocess.run(
                command, env=os.environ | environment, capture_output=True, text=True
            )
            assert finished.returncode == 0, finished.stderr
            with np.load(folder / f"{backend}.npz") as arrays:
                known[backend] = dict(arrays)
        return known[backend]

    return under


@pytest.mark.parametrize("backend", ["jax", "torch"])
class TestBackend:
    @pytest.fixture(autouse=True)
    def installed(self, backend):
        if importlib.util.find_spec(backend) is None:
            pytest.skip(f"{backend} is not installed")

    @pytest.fixture
    def both(self, results, backend):
        """Arrays of this backend and of TensorFlow."""
        return results(backend), results("tensorflow")

    @pytest.mark.parametrize("what", ["network", "detect", "losses"])
    def test_same_numbers(self, both, what):
        compare(*both, what, 1e-4)

    def test_something_is_found_and_every_loss_has_its_part(self, both):
        assert len(both[0]["detect/scores"]) and both[0]["losses"].all()

    def test_same_training(self, both):
        compare(*both, "history", 1e-4)
        compare(*both, "trained", 1e-4)

    def test_continues_as_if_never_stopped(self, results, backend):
        arrays = results(backend)
        for name in arrays:
            if name.startswith("trained/"):
                continued = arrays[name.replace("trained/", "continued/")]
                np.testing.assert_allclose(continued, arrays[name], atol=1e-6)

    def test_detects_after_training(self, results, backend):
        arrays = results(backend)
        assert arrays["after/masks"].shape[:2] == (48, 60)
        assert np.isfinite(arrays["after/scores"]).all()


def compare(found, expected, group, tolerance):
    names = [name for name in expected if name.split("/")[0] == group]
    assert names
    for name in names:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name
        )


# ---- the process of its own ----------------------------------------------------------------------


def build(mode, folder):
    """A network whose weights depend on their names alone."""
    from conftest import TinyConfig

    model = MaskRCNN(mode, TinyConfig(**SETTINGS), folder)
    for name, weight in named_weights(model.keras_model).items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        shape = tuple(weight.variable.shape)
        value = 0.05 * rng.standard_normal(shape) + ("variance" in name or "gamma" in name)
        if name.endswith("kernel"):
            gain = GAINS.get(name.removesuffix("/kernel"), 1)
            value = gain * rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
        weight.variable.assign(value)
    return model


class Killed(Exception):
    """Stands for whatever may end a training."""


class StopAtSecondEpoch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise Killed


def main(path):
    from conftest import ONE_OR_TWO_EACH, Rectangles

    path, dataset, arrays = Path(path), Rectangles(ONE_OR_TWO_EACH), {}

    def train(model, *callbacks):
        return model.train(
            dataset, dataset, LEARNING_RATE, 2, "all", custom_callbacks=callbacks
        ).history

    def store(group, values):
        arrays.update({f"{group}/{name}": value for name, value in values.items()})

    def weights(model):
        return {name: w.variable.numpy() for name, w in named_weights(model.keras_model).items()}

    detector = build("inference", path)
    image = dataset.load_image(1)
    molded, metas, _ = detector.mold_inputs([image, dataset.load_image(3)])
    anchors = np.repeat(detector.get_anchors(molded.shape[1:])[None], 2, axis=0)
    outputs = detector.keras_model.predict_on_batch([molded, np.float32(metas), anchors])
    store("network", {str(number): np.asarray(output) for number, output in enumerate(outputs)})
    store("detect", detector.detect([image])[0])

    whole = build("training", path)
    (inputs,) = Batches(dataset, whole.config)[0]
    losses = whole.keras_model(inputs)[-5:]
    arrays["losses"] = np.stack([keras.ops.convert_to_numpy(loss) for loss in losses])
    store("history", train(whole))
    store("trained", weights(whole))
    store("after", whole.detect([image])[0])

    with contextlib.suppress(Killed):
        train(build("training", path / "cut"), StopAtSecondEpoch())
    continued = build("training", path / "cut")
    continued.load_weights(continued.find_last())
    train(continued)
    store("continued", weights(continued))
    np.savez(path, **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
