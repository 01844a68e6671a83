"""The ResNets: names and shapes of matterport's layers, modes of batch normalization."""

import re

import keras
import numpy as np
import pytest

from mrcnn.resnet import BatchNorm, conv_block, identity_block, resnet_graph
from mrcnn.weights import named_weights


@pytest.fixture(scope="module")
def resnet101():
    image = keras.Input((None, None, 3), name="input_image")
    return keras.Model(image, resnet_graph(image, "resnet101", stage5=True, train_bn=False))


def shapes_of(model):
    return {name: tuple(weight.variable.shape) for name, weight in named_weights(model).items()}


def test_resnet101_has_the_weights_of_the_reference_list(resnet101, shared):
    text = (shared / "reference" / "matterport.md").read_text()
    expected = {}
    for layer, weights in re.findall(r"^((?:res|bn|conv1)\w*) +\w+ +(\w+\(.*\))$", text, re.M):
        for weight, shape in re.findall(r"(\w+)\(([\d, ]+)\)", weights):
            expected[f"{layer}/{weight}"] = tuple(int(n) for n in shape.split(",") if n.strip())
    assert len(expected) > 600
    assert shapes_of(resnet101) == expected


def test_resnet101_has_these_weights(resnet101):
    shapes = shapes_of(resnet101)
    assert shapes["conv1/kernel"] == (7, 7, 3, 64)
    assert shapes["conv1/bias"] == (64,)
    assert shapes["bn_conv1/moving_variance"] == (64,)
    assert shapes["res2a_branch1/kernel"] == (1, 1, 64, 256)
    assert shapes["res4w_branch2b/kernel"] == (3, 3, 256, 256)
    assert shapes["bn5c_branch2c/gamma"] == (2048,)
    assert "res4x_branch2a/kernel" not in shapes
    assert "res2b_branch1/kernel" not in shapes


def test_resnet50_ends_stage_4_with_block_f():
    image = keras.Input((64, 64, 3))
    *_, c4, c5 = resnet_graph(image, "resnet50", stage5=False, train_bn=False)
    names = [layer.name for layer in keras.Model(image, c4).layers]
    assert c5 is None
    assert names[-1] == "res4f_out"


def test_strides_and_channels(resnet101):
    shapes = resnet101.compute_output_shape((2, 128, 192, 3))
    assert shapes == [
        (2, 32, 48, 64),
        (2, 32, 48, 256),
        (2, 16, 24, 512),
        (2, 8, 12, 1024),
        (2, 4, 6, 2048),
    ]


def test_an_unknown_architecture_is_named():
    with pytest.raises(ValueError, match="resnet50, resnet101; received 'resnet34'"):
        resnet_graph(keras.Input((64, 64, 3)), "resnet34")


def test_blocks_stride_in_the_first_convolution_and_the_shortcut():
    x = keras.Input((8, 8, 16))
    y = conv_block(x, 3, [4, 4, 16], 3, "a", strides=(2, 2), train_bn=False)
    y = identity_block(y, 3, [4, 4, 16], 3, "b", train_bn=False)
    model = keras.Model(x, y)
    strided = [layer.name for layer in model.layers if getattr(layer, "strides", (1,))[0] == 2]
    assert sorted(strided) == ["res3a_branch1", "res3a_branch2a"]
    assert y.shape == (None, 4, 4, 16)


def batch_norm_model(train_bn):
    x = keras.Input((3,))
    layer = BatchNorm(train_bn, momentum=0.5, name="bn")
    return keras.Model(x, layer(x)), layer


@pytest.mark.parametrize(
    ("train_bn", "training", "uses_batch"),
    [
        (False, True, False),
        (False, False, False),
        (None, True, True),
        (None, False, False),
        (True, False, True),
    ],
)
def test_batch_norm_keeps_its_mode_whatever_the_call_asks_for(train_bn, training, uses_batch):
    model, layer = batch_norm_model(train_bn)
    x = np.random.default_rng(0).normal(5, 1, (64, 3)).astype("float32")
    y = keras.ops.convert_to_numpy(model(x, training=training))
    assert (abs(y.mean()) < 1e-3) == uses_batch
    moved = layer.moving_mean.numpy()
    assert np.any(moved != 0) == (uses_batch and training)


@pytest.mark.parametrize("shape", [(64, 3), (8, 4, 2, 3)], ids=["rows", "maps"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_batch_statistics_do_not_ask_whether_the_layer_is_trainable(shape, training, precision):
    x = np.random.default_rng(0).normal(5, 2, shape).astype("float32")
    learns, frozen = (BatchNorm(True, dtype=precision) for _ in range(2))
    for layer in (learns, frozen):
        layer.build(x.shape)
        layer.set_weights(np.float32([[2, 1, 3], [0.5, 0, -1], [0, 0, 0], [1, 1, 1]]))
    frozen.trainable = False
    before = [np.array(value) for value in frozen.get_weights()]
    outputs = [keras.ops.cast(layer(x, training=training), "float32") for layer in (learns, frozen)]
    first, second = (keras.ops.convert_to_numpy(output) for output in outputs)
    axes = tuple(range(x.ndim - 1))
    expected = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-3) * [2, 1, 3] + [0.5, 0, -1]
    tolerance = 1e-4 if precision == "float32" else 0.1
    np.testing.assert_allclose(first, expected, atol=tolerance)
    np.testing.assert_allclose(second, expected, atol=tolerance)
    for value, known in zip(frozen.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, known)
    assert np.any(learns.moving_mean.numpy() != 0) == training


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's kernel alone")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False}, {"momentum": 0.7}])
def test_batch_norm_of_maps_equals_that_of_keras(settings, training):
    """One kernel and several passes: outputs, gradients and what becomes of the statistics."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x, weights = rng.normal(3, 2, (2, 2, 3, 4, 5)).astype("float32")
    found = []
    for kind in (BatchNorm, keras.layers.BatchNormalization):
        layer = kind(**settings)
        layer.build(x.shape)
        layer.set_weights([np.linspace(1, 2, 5)[::-1] * n for n, _ in enumerate(layer.weights, 1)])
        pixels = tf.Variable(x)
        with tf.GradientTape() as tape:
            outputs = layer(pixels, training=training)
            loss = tf.reduce_sum(outputs * weights)
        variables = [pixels, *(weight.value for weight in layer.trainable_variables)]
        found.append([outputs, *tape.gradient(loss, variables), *layer.get_weights()])
    for own, expected in zip(*found, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_batch_norm_learns_the_same_statistics_in_other_precisions(precision):
    x = np.random.default_rng(0).normal(3, 2, (4, 8, 8, 6)).astype("float32")
    kinds = BatchNorm, keras.layers.BatchNormalization
    layers = [kind(dtype=precision, momentum=0.5) for kind in kinds]
    outputs = [layer(x, training=True) for layer in layers]
    assert outputs[0].dtype == outputs[1].dtype
    np.testing.assert_allclose(*(keras.ops.cast(y, "float32") for y in outputs), atol=0.03)
    for own, expected in zip(*(layer.get_weights() for layer in layers), strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-3)


def test_batch_norm_of_a_single_pixel():
    layer = BatchNorm(None, momentum=0.5)
    outputs = layer(np.full((1, 1, 1, 2), 4.0, "float32"), training=True)
    np.testing.assert_array_equal(outputs, 0)
    np.testing.assert_array_equal(layer.moving_mean, 2)
    np.testing.assert_array_equal(layer.moving_variance, 0.5)


def test_batch_norm_that_is_not_trainable_keeps_its_statistics():
    layer = BatchNorm(None)
    layer.trainable = False
    x = np.full((1, 2, 2, 3), 4.0, "float32")
    np.testing.assert_allclose(layer(x, training=True), x, rtol=1e-3)
    np.testing.assert_array_equal(layer.moving_mean, 0)


def test_frozen_statistics_leave_gamma_and_beta_trainable():
    model, layer = batch_norm_model(False)
    x = np.random.default_rng(0).normal(5, 1, (8, 3)).astype("float32")
    model.compile("sgd", "mse")
    model.fit(x, np.zeros_like(x), verbose=0)
    assert np.all(layer.beta.numpy() != 0)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), 0)


def test_batch_norm_comes_back_from_its_config():
    layer = BatchNorm.from_config(BatchNorm(False, name="bn").get_config())
    assert layer.train_bn is False
    assert layer.epsilon == 1e-3
