"""EfficientNet-Lite: sizes and taps, and the shipped ImageNet weights on photographs."""

from pathlib import Path

import keras
import numpy as np
import pytest
from skimage import data, transform

from mrcnn.efficientnet_lite import MEAN_PIXEL, efficientnet_lite
from mrcnn.weights import load_weights

WEIGHTS = (
    Path(__file__).resolve().parents[2] / "weights" / "efficientnet_lite0_imagenet1k.weights.h5"
)


@pytest.fixture(scope="module")
def classifier():
    image = keras.Input((224, 224, 3), name="input_image")
    model = keras.Model(image, efficientnet_lite(image, include_top=True), name="lite0")
    report = load_weights(model, WEIGHTS, by_name=False)
    return model, report


def test_the_shipped_file_fills_the_whole_network(classifier):
    model, report = classifier
    assert model.count_params() == 4_694_024
    assert report.missing == report.mismatched == report.unused == []
    assert len(report.loaded) == len(model.weights)


@pytest.mark.parametrize(
    ("photograph", "expected"),
    [("chelsea", 285), ("coffee", 967)],
    ids=["egyptian_cat", "espresso"],
)
def test_photographs_are_recognised(classifier, photograph, expected):
    model, _ = classifier
    image = getattr(data, photograph)()
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = image[top : top + side, left : left + side]
    image = 255 * transform.resize(image, (224, 224), anti_aliasing=True)
    molded = (image - MEAN_PIXEL).astype("float32")
    probabilities = keras.ops.convert_to_numpy(model(molded[None]))[0]
    assert probabilities.argmax() == expected


def test_taps():
    image = keras.Input((64, 96, 3))
    taps = efficientnet_lite(image)
    assert [tap.shape[1:] for tap in taps] == [
        (32, 48, 16),
        (16, 24, 24),
        (8, 12, 40),
        (4, 6, 112),
        (2, 3, 320),
    ]
    assert keras.Model(image, taps).count_params() == 2_998_304


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("efficientnetlite1", 5_416_680),
        ("efficientnetlite2", 6_092_072),
        ("efficientnetlite3", 8_197_096),
        ("efficientnetlite4", 13_006_568),
    ],
)
def test_larger_networks_have_their_published_size(name, parameters):
    image = keras.Input((64, 64, 3))
    model = keras.Model(image, efficientnet_lite(image, name, train_bn=True, include_top=True))
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == parameters


def test_another_mean_pixel_gives_the_same_features():
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    inputs = keras.Input((64, 64, 3))
    own = keras.Model(inputs, efficientnet_lite(inputs)[-1])
    other_mean = np.array([123.7, 116.8, 103.9], "float32")
    other = keras.Model(inputs, efficientnet_lite(inputs, mean_pixel=other_mean)[-1])
    other.set_weights(own.get_weights())
    expected, found = own(image - 127), other(image - other_mean)
    expected, found = map(keras.ops.convert_to_numpy, (expected, found))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
