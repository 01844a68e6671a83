"""Backbones by name: their taps, modes and ImageNet weights."""

from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest

from mrcnn import backbone as backbones
from mrcnn.backbone import build_backbone, imagenet_weights, load_imagenet
from mrcnn.resnet import BatchNorm
from mrcnn.weights import WeightsError, named_weights

MEAN_PIXEL = np.array([123.7, 116.8, 103.9])


def settings(backbone, train_bn=False, mean_pixel=MEAN_PIXEL):
    return SimpleNamespace(BACKBONE=backbone, TRAIN_BN=train_bn, MEAN_PIXEL=mean_pixel)


def build(config, shape=(None, None, 3)):
    image = keras.Input(shape, name="input_image")
    stages = build_backbone(image, config)
    return keras.Model(image, [stage for stage in stages if stage is not None]), stages


def randomize(model, seed=0):
    """Gives every weight a value of its own, so that no swap goes unnoticed."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if "int" in weight.dtype:
            continue
        value = weight.numpy()
        positive = any(word in weight.name for word in ("gamma", "variance"))
        noise = generator.uniform(0.5, 1.5, value.shape)
        weight.assign(noise if positive else value + 0.02 * generator.normal(size=value.shape))


def write_keras2(model, path):
    """Writes a model's weights as Keras 2 did, in the order in which its loader reads them."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.4.0"
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = weight.numpy()


@pytest.mark.parametrize("name", ["efficientnetlite0", "mobilenetv3small", "vgg16"])
def test_taps_are_at_the_five_strides(name):
    model, _ = build(settings(name))
    shapes = model.compute_output_shape((1, 128, 192, 3))
    assert [shape[1:3] for shape in shapes] == [(128 // s, 192 // s) for s in (2, 4, 8, 16, 32)]


def test_taps_of_residual_networks_are_sums_of_blocks():
    _, stages = build(settings("resnet50v2"))
    assert [stage.shape[-1] for stage in stages[1:]] == [256, 512, 1024, 2048]


def test_convnext_has_no_output_at_stride_2():
    model, stages = build(settings("convnexttiny"), (64, 64, 3))
    assert stages[0] is None
    assert [stage.shape[1:] for stage in stages[1:]] == [
        (16, 16, 96),
        (8, 8, 192),
        (4, 4, 384),
        (2, 2, 768),
    ]


def test_a_network_without_the_strides_is_refused():
    with pytest.raises(ValueError, match=r"xception has no output at the strides \[4\]"):
        build(settings("xception"))


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(ValueError, match="'ResNet-50' is unknown. Did you mean 'resnet50'"):
        build(settings("ResNet-50"))


def test_only_resnet_takes_other_than_three_channels():
    model, _ = build(settings("resnet50"), (64, 64, 4))
    assert model.get_layer("conv1").kernel.shape == (7, 7, 4, 64)
    with pytest.raises(ValueError, match="takes three channels; the input has 4"):
        build(settings("efficientnetlite0"), (64, 64, 4))


def test_a_callable_backbone_is_called_as_matterport_does():
    seen = {}

    def tiny(input_image, stage5, train_bn):
        seen.update(stage5=stage5, train_bn=train_bn)
        return [keras.layers.AveragePooling2D(2**n)(input_image) for n in range(1, 6)]

    _, stages = build(settings(tiny, train_bn=None), (64, 64, 3))
    assert seen == {"stage5": True, "train_bn": None}
    assert stages[4].shape == (None, 2, 2, 3)


def test_a_callable_backbone_must_return_five_maps():
    with pytest.raises(ValueError, match="returned 1"):
        build(settings(lambda image, stage5, train_bn: [image]), (64, 64, 3))


def test_maps_of_a_callable_backbone_must_have_the_strides_of_the_pyramid():
    def finer(input_image, stage5, train_bn):
        maps = [keras.layers.AveragePooling2D(2**n)(input_image) for n in range(1, 5)]
        return [input_image, *maps]

    with pytest.raises(ValueError, match="input of 64x64 .* returned C2 of 32x32"):
        build(settings(finer), (64, 64, 3))
    assert len(build(settings(finer), (None, None, 3))[1]) == 5  # which nothing is known of


def test_layers_are_flat_and_have_the_same_names_when_built_again():
    first, _ = build(settings("mobilenetv3small"), (64, 64, 3))
    second, _ = build(settings("mobilenetv3small"), (64, 64, 3))
    assert not any(isinstance(layer, keras.Model) for layer in first.layers)
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert list(named_weights(first)) == list(named_weights(second))


def test_batch_normalization_of_applications_keeps_the_mode():
    model, _ = build(settings("mobilenetv3small", train_bn=False), (64, 64, 3))
    layers = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert layers
    assert all(isinstance(layer, BatchNorm) and layer.train_bn is False for layer in layers)
    assert all(layer.trainable for layer in layers)


@pytest.mark.parametrize("family", sorted(backbones._PREPROCESSING))
def test_preprocessing_is_that_of_keras(family):
    scale, offset = backbones._PREPROCESSING[family]
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 2, 3)).astype("float32")
    expected = getattr(keras.applications, family).preprocess_input(pixels.copy())
    if family in backbones.CAFFE_FAMILIES:
        expected = expected[..., ::-1]  # the first kernel is turned round instead
    np.testing.assert_allclose(pixels * scale + offset, expected, rtol=1e-5, atol=1e-4)


def test_an_application_gives_the_features_of_the_original():
    original = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(64, 64, 3)
    )
    randomize(original)
    model, _ = build(settings("mobilenetv2"), (64, 64, 3))
    model.set_weights(original.get_weights())
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    prepared = keras.applications.mobilenet_v2.preprocess_input(pixels.copy())
    expected = keras.ops.convert_to_numpy(original(prepared))
    found = keras.ops.convert_to_numpy(model(pixels - MEAN_PIXEL.astype("float32"))[-1])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_resnet50_takes_over_the_features_of_keras(tmp_path, monkeypatch):
    original = keras.applications.ResNet50(include_top=False, weights=None)
    randomize(original)
    write_keras2(original, tmp_path / "resnet50.h5")
    monkeypatch.setattr(backbones, "fetch", lambda name: tmp_path / "resnet50.h5")
    # With 65 pixels the pools of both networks pad alike.
    config = settings("resnet50", mean_pixel=backbones.CAFFE_MEAN)
    model, _ = build(config, (65, 65, 3))
    report = load_imagenet(model, config)
    assert report.missing == report.mismatched == report.unused == report.zeroed == []
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 65, 65, 3)).astype("float32")
    prepared = keras.applications.resnet50.preprocess_input(pixels.copy())
    expected = keras.ops.convert_to_numpy(original(prepared))
    found = model((pixels - backbones.CAFFE_MEAN).astype("float32"))[-1]
    found = keras.ops.convert_to_numpy(found)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_efficientnet_takes_over_imagenet_weights_with_its_normalization(tmp_path, monkeypatch):
    original = keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=(64, 64, 3)
    )
    randomize(original)
    normalization = next(x for x in original.layers if isinstance(x, keras.layers.Normalization))
    normalization.adapt_mean.assign(backbones.IMAGENET_MEAN)
    normalization.adapt_variance.assign(backbones.IMAGENET_STD**2)
    normalization.finalize_state()
    write_keras2(original, tmp_path / "b0.h5")
    asked = []
    monkeypatch.setattr(backbones, "fetch", lambda n: asked.append(n) or tmp_path / "b0.h5")
    config = settings("efficientnetb0")
    model, _ = build(config, (64, 64, 3))
    report = load_imagenet(model, config)
    assert asked == ["efficientnetb0_notop.h5"]
    assert report.missing == report.mismatched == []
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(original(pixels))
    found = keras.ops.convert_to_numpy(model((pixels - MEAN_PIXEL).astype("float32"))[-1])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_lite0_is_shipped_and_loads_into_a_larger_network():
    config = settings("efficientnetlite0", mean_pixel=127)
    image = keras.Input((64, 64, 3))
    stages = build_backbone(image, config)
    head = keras.layers.Conv2D(4, 1, name="fpn_c5p5")(stages[-1])
    report = load_imagenet(keras.Model(image, head), config)
    assert report.missing_layers == ["fpn_c5p5"]
    assert "predictions/#0" in report.unused
    assert imagenet_weights("efficientnetlite0").parent.name == "weights"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet101", "resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("efficientnetv2b0", "efficientnetv2-b0_notop.h5"),
        ("convnexttiny", "convnext_tiny_notop.h5"),
        ("mobilenetv3small", "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"),
    ],
)
def test_imagenet_files_by_name(name, file, monkeypatch):
    monkeypatch.setattr(backbones, "fetch", lambda asked: asked)
    assert imagenet_weights(name) == file


def test_a_network_without_known_weights_is_refused():
    with pytest.raises(ValueError, match="known for the backbone 'mobilenetv2'.*load_imagenet"):
        imagenet_weights("mobilenetv2")


@pytest.mark.parametrize("name", ["conv1_W:0", "conv1/kernel:0"])
def test_an_older_file_of_the_same_name_is_refused(tmp_path, name):
    """matterport's cache holds one of Keras 2.0."""
    path = tmp_path / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("conv1")
        group.attrs["weight_names"] = [name.encode()]
        group[name] = np.zeros((7, 7, 3, 64), np.float32)
        file.attrs["layer_names"] = [b"conv1"]
    for backbone in ("resnet50", "resnet101"):  # matterport took it for both
        assert backbones.is_imagenet_file(path, settings(backbone))
        with pytest.raises(WeightsError, match=f"an older one of that name.* that of {backbone}"):
            load_imagenet(None, settings(backbone), path)


def test_the_file_of_the_other_resnet_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "read_arrays", lambda path: {"conv1_conv/kernel": None})
    path = tmp_path / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    with pytest.raises(WeightsError, match="is of resnet50, and BACKBONE is 'resnet101'"):
        load_imagenet(None, settings("resnet101"), path)


def test_a_callable_has_no_imagenet_weights():
    with pytest.raises(ValueError, match="callable BACKBONE"):
        imagenet_weights(lambda *_: None)
    with pytest.raises(ValueError, match="callable BACKBONE"):
        load_imagenet(None, settings(lambda *_: None))
