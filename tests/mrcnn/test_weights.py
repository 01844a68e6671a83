"""Loading and saving weights by name: layouts, reports, refusals."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from mrcnn import weights as module
from mrcnn.weights import (
    LoadReport,
    WeightsError,
    assign_weights,
    load_arrays,
    load_weights,
    named_weights,
    read_arrays,
    read_metadata,
    save_arrays,
    save_weights,
)

layers = keras.layers


def network(classes=3, inner="rpn_model"):
    """A small network built like matterport's: a backbone, a nested model, wrapped heads."""
    image = keras.Input((8, 8, 3), name="input_image")
    x = layers.Conv2D(4, 3, padding="same", name="conv1")(image)
    x = layers.BatchNormalization(name="bn_conv1")(x, training=False)
    feature = keras.Input((None, None, 4), name="input_rpn_feature_map")
    shared = layers.Conv2D(5, 3, padding="same", name="rpn_conv_shared")(feature)
    logits = layers.Conv2D(6, 1, name="rpn_class_raw")(shared)
    rpn = keras.Model(feature, logits, name=inner)(x)
    rows = layers.TimeDistributed(layers.Dense(4), name="mrcnn_class_conv1")(x)
    rows = layers.GlobalAveragePooling2D(name="pool")(rows)
    scores = layers.Dense(classes, name="mrcnn_class_logits")(rows)
    return keras.Model(image, [rpn, scores], name="mask_rcnn")


def values_of(model):
    return {name: weight.variable.numpy() for name, weight in named_weights(model).items()}


def some_values(model, seed=0):
    generator = np.random.default_rng(seed)
    return {
        name: generator.normal(size=value.shape).astype("float32")
        for name, value in values_of(model).items()
    }


def keras2_name(name):
    layer, weight = name.split("/")
    group = "rpn_model" if layer.startswith("rpn_") else layer
    return f"{group}/{layer}/{weight}:0"


def write_keras2(path, values, top=None):
    with h5py.File(path, "w") as file:
        root = file.create_group(top) if top else file
        root.attrs["layer_names"] = [b"input_image", b"conv1"]
        root.create_group("input_image")
        for name, value in values.items():
            root[keras2_name(name)] = value


def assert_values(model, expected):
    found = values_of(model)
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.fixture
def model():
    return network()


def test_names_look_through_nested_models_and_wrappers(model):
    assert set(values_of(model)) == {
        "conv1/kernel",
        "conv1/bias",
        "bn_conv1/gamma",
        "bn_conv1/beta",
        "bn_conv1/moving_mean",
        "bn_conv1/moving_variance",
        "rpn_conv_shared/kernel",
        "rpn_conv_shared/bias",
        "rpn_class_raw/kernel",
        "rpn_class_raw/bias",
        "mrcnn_class_conv1/kernel",
        "mrcnn_class_conv1/bias",
        "mrcnn_class_logits/kernel",
        "mrcnn_class_logits/bias",
    }


def test_layers_of_composite_layers_are_named_under_them():
    x = keras.Input((4, 8))
    first = layers.MultiHeadAttention(2, 4, name="attention1")(x, x)
    model = keras.Model(x, layers.MultiHeadAttention(2, 4, name="attention2")(first, first))
    assert {"attention1/query/kernel", "attention2/query/kernel"} <= set(values_of(model))


def test_two_layers_of_one_name_are_refused():
    def inner():
        x = keras.Input((2,))
        return keras.Model(x, layers.Dense(2, name="same")(x))

    x = keras.Input((2,))
    model = keras.Model(x, inner()(inner()(x)))
    with pytest.raises(WeightsError, match="are named same/kernel"):
        named_weights(model)


def test_a_network_without_weights_is_refused():
    with pytest.raises(WeightsError, match="no weights yet"):
        named_weights(keras.Sequential([layers.Dense(2)]))


@pytest.mark.parametrize("top", [None, "model_weights"], ids=["weights", "whole_model"])
def test_keras2_files(model, tmp_path, top):
    values = some_values(model)
    write_keras2(tmp_path / "w.h5", values, top)
    if top:
        with h5py.File(tmp_path / "w.h5", "a") as file:
            file["optimizer_weights/SGD/momentum:0"] = np.zeros(3)
    report = load_weights(model, tmp_path / "w.h5", by_name=False)
    assert_values(model, values)
    assert len(report.loaded) == 14
    assert report.missing == report.unused == report.missing_layers == []


def test_keras2_group_names_count_where_the_layer_was_renamed(model, tmp_path):
    values = some_values(model)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["conv1/conv1_1/kernel:0"] = values["conv1/kernel"]
        file["conv1/conv1_1/bias:0"] = values["conv1/bias"]
    report = load_weights(model, tmp_path / "w.h5")
    assert report.loaded == ["conv1/kernel", "conv1/bias"]
    assert set(report.missing_layers) == {
        "bn_conv1",
        "rpn_conv_shared",
        "rpn_class_raw",
        "mrcnn_class_conv1",
        "mrcnn_class_logits",
    }


def test_keras2_depthwise_kernels(tmp_path):
    x = keras.Input((4, 4, 2))
    model = keras.Model(x, layers.DepthwiseConv2D(3, use_bias=False, name="dw")(x))
    kernel = np.ones((3, 3, 2, 1), "float32")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["dw/dw/depthwise_kernel:0"] = kernel
    load_weights(model, tmp_path / "w.h5")
    assert_values(model, {"dw/kernel": kernel})


def test_keras3_files(model, tmp_path):
    source = network()
    values = some_values(source)
    assign_weights(source, values, "memory")
    source.save_weights(tmp_path / "w.weights.h5")
    report = load_weights(model, tmp_path / "w.weights.h5", by_name=False)
    assert_values(model, values)
    assert report.unused == []


def test_files_without_biases_leave_them_at_zero(model, tmp_path):
    assign_weights(model, some_values(model, 1), "memory")
    values = some_values(model)
    del values["conv1/bias"]
    write_keras2(tmp_path / "w.h5", values)
    report = load_weights(model, tmp_path / "w.h5")
    assert report.zeroed == ["conv1/bias"]
    assert report.missing == report.missing_layers == []
    assert_values(model, {**values, "conv1/bias": np.zeros(4, "float32")})


def test_another_number_of_classes_is_an_error_that_names_shapes_and_the_way_out(tmp_path):
    write_keras2(tmp_path / "w.h5", some_values(network(81)))
    model = network(2)
    before = values_of(model)
    with pytest.raises(WeightsError) as caught:
        load_weights(model, tmp_path / "w.h5")
    message = str(caught.value)
    assert "mrcnn_class_logits/kernel: (4, 81) in the file, (4, 2) here" in message
    assert "mrcnn_class_logits/bias: (81,) in the file, (2,) here" in message
    assert "exclude=['mrcnn_class_logits']" in message
    assert_values(model, before)


def test_excluded_layers_stay_and_the_rest_is_loaded(tmp_path):
    values = some_values(network(81))
    write_keras2(tmp_path / "w.h5", values)
    model = network(2)
    before = values_of(model)
    report = load_weights(model, tmp_path / "w.h5", exclude=["mrcnn_class_logits", "mrcnn_bbox"])
    assert report.excluded == ["mrcnn_class_logits/kernel", "mrcnn_class_logits/bias"]
    assert report.missing_layers == ["mrcnn_class_logits"]
    kept = {name: before[name] for name in report.excluded}
    assert_values(model, {**values, **kept})


@pytest.mark.parametrize(
    ("name", "known"),
    [("mrcnn_class_logit", False), ("pool", True), ("rpn_model", True), ("mrcnn_bbox", True)],
)
def test_names_to_exclude_that_no_layer_has_are_told_of(model, tmp_path, caplog, name, known):
    save_weights(model, tmp_path / "a.h5")
    load_weights(model, tmp_path / "a.h5", exclude=[name])
    assert (f"exclude names {name}" not in caplog.text) == known


def test_exclusion_is_by_exact_name(model, tmp_path):
    write_keras2(tmp_path / "w.h5", some_values(model))
    assert load_weights(model, tmp_path / "w.h5", exclude="mrcnn_class").excluded == []


def test_mismatched_layers_can_be_skipped_whole(tmp_path):
    values = some_values(network(3))
    values["conv1/kernel"] = np.ones((5, 5, 3, 4), "float32")
    write_keras2(tmp_path / "w.h5", values)
    model = network(3)
    before = values_of(model)
    report = load_weights(model, tmp_path / "w.h5", skip_mismatch=True)
    assert report.mismatched == ["conv1/kernel", "conv1/bias"]
    assert report.missing_layers == ["conv1"]
    np.testing.assert_array_equal(values_of(model)["conv1/bias"], before["conv1/bias"])


def eye(channels):
    """A network whose first layer reads an image of so many channels."""
    image = keras.Input((5, 5, channels))
    x = layers.Conv2D(4, 3, name="conv1")(image)
    return keras.Model(image, layers.Conv2D(3, 1, name="conv2")(x))


class TestOtherChannels:
    def load(self, channels, tmp_path):
        source, model = eye(3), eye(channels)
        write_keras2(tmp_path / "w.h5", some_values(source))
        load_weights(source, tmp_path / "w.h5")
        report = load_weights(model, tmp_path / "w.h5", by_name=False)
        return source, model, report

    @pytest.mark.parametrize("channels", [1, 2, 4, 7])
    def test_is_reported(self, tmp_path, channels):
        _, _, report = self.load(channels, tmp_path)
        assert report.adapted == ["conv1/kernel"]
        assert report.loaded == ["conv1/bias", "conv2/kernel", "conv2/bias"]
        assert "3 tensors loaded, 1 adapted" in report.summary()
        assert report.missing_layers == []

    @pytest.mark.parametrize("channels", [1, 6])
    def test_response_to_grey_stays_the_same(self, tmp_path, channels):
        source, model, _ = self.load(channels, tmp_path)
        grey = np.random.default_rng(0).random((1, 5, 5, 1))
        found, expected = model(np.repeat(grey, channels, axis=3)), source(np.repeat(grey, 3, 3))
        found, expected = map(keras.ops.convert_to_numpy, (found, expected))
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_kernels_take_turns(self, tmp_path):
        source, model, _ = self.load(6, tmp_path)
        kernel = source.get_layer("conv1").kernel
        expected = np.concatenate([kernel, kernel], axis=2) / 2
        np.testing.assert_allclose(model.get_layer("conv1").kernel, expected, rtol=1e-6)

    def test_the_other_way_round_is_a_mismatch(self, tmp_path):
        write_keras2(tmp_path / "w.h5", some_values(eye(4)))
        with pytest.raises(WeightsError, match="conv1/kernel: .3, 3, 4, 4. in the file"):
            load_weights(eye(3), tmp_path / "w.h5")

    def test_other_layers_of_three_channels_are_a_mismatch(self, tmp_path):
        """A kernel that reads three features, not an image."""
        values = {**some_values(eye(1)), "conv2/kernel": np.zeros((1, 1, 3, 3), "f4")}
        write_keras2(tmp_path / "w.h5", values)
        with pytest.raises(WeightsError, match="1 tensors have other shapes: conv2/kernel"):
            load_weights(eye(1), tmp_path / "w.h5")

    def test_layer_with_another_mismatch_is_left_whole(self, tmp_path):
        values = {**some_values(eye(3)), "conv1/bias": np.zeros(9, "f4")}
        write_keras2(tmp_path / "w.h5", values)
        report = load_weights(eye(1), tmp_path / "w.h5", skip_mismatch=True)
        assert report.mismatched == ["conv1/kernel", "conv1/bias"]
        assert report.adapted == []


def test_tensors_the_network_does_not_have_are_reported(model, tmp_path):
    values = {**some_values(model), "mrcnn_mask/kernel": np.zeros((1, 1, 2, 3))}
    write_keras2(tmp_path / "w.h5", values)
    assert load_weights(model, tmp_path / "w.h5").unused == ["mrcnn_mask/kernel"]


def test_a_file_of_another_network_is_an_error(model, tmp_path):
    write_keras2(tmp_path / "w.h5", {"dense_7/kernel": np.zeros((2, 2))})
    with pytest.raises(WeightsError, match="The file has dense_7/kernel.*expects conv1/kernel"):
        load_weights(model, tmp_path / "w.h5")


def test_by_name_false_demands_every_tensor(model, tmp_path):
    values = some_values(model)
    del values["rpn_class_raw/kernel"]
    write_keras2(tmp_path / "w.h5", values)
    before = values_of(model)
    with pytest.raises(WeightsError, match="no values for rpn_class_raw/kernel"):
        load_weights(model, tmp_path / "w.h5", by_name=False)
    assert_values(model, before)


def test_nothing_is_loaded_from_a_diverged_checkpoint(model, tmp_path):
    values = some_values(model)
    values["mrcnn_class_logits/bias"][1] = np.nan
    write_keras2(tmp_path / "w.h5", values)
    before = values_of(model)
    with pytest.raises(WeightsError, match="mrcnn_class_logits/bias.*not finite"):
        load_weights(model, tmp_path / "w.h5")
    assert_values(model, before)


def test_texts_in_place_of_numbers_are_refused(model, tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["conv1/conv1/bias:0"] = np.array([b"a", b"b", b"c", b"d"], dtype="S1")
    with pytest.raises(WeightsError, match="not numbers"):
        load_weights(model, tmp_path / "w.h5")


@pytest.mark.parametrize("kind", ["external", "soft"])
def test_links_are_not_followed(model, tmp_path, kind):
    values = some_values(model)
    write_keras2(tmp_path / "other.h5", values)
    link = {
        "external": h5py.ExternalLink(str(tmp_path / "other.h5"), "/conv1"),
        "soft": h5py.SoftLink("/elsewhere"),
    }[kind]
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["bn_conv1/bn_conv1/gamma:0"] = values["bn_conv1/gamma"]
        file["conv1"] = link
    with pytest.raises(WeightsError, match="conv1 in .* is a link"):
        load_weights(model, tmp_path / "w.h5")


def test_values_in_other_files_are_refused(model, tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset(
            "conv1/conv1/bias:0", (4,), "f4", external=[(str(tmp_path / "secret.bin"), 0, 16)]
        )
    with pytest.raises(WeightsError, match="keeps its values in other files"):
        load_weights(model, tmp_path / "w.h5")


def test_a_group_inside_itself_ends(model, tmp_path):
    values = some_values(model)
    write_keras2(tmp_path / "w.h5", values)
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file["conv1/conv1/again"] = file["conv1"]
    load_weights(model, tmp_path / "w.h5", by_name=False)
    assert_values(model, values)


FOREIGN = {
    "empty": (b"", "is empty"),
    "web_page": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ee\nsize 2\n", "Git LFS"),
    "pickle": (pickle.dumps({"conv1": [1.0]}), "pickle"),
    "gzip": (b"\x1f\x8b\x08\x00rest", "gzip"),
    "text": (b"some text", "begins with b'some tex'"),
    "half_a_zip": (b"PK\x03\x04rest", "damaged zip"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_said_to_be_what_they_are(model, tmp_path, kind):
    content, expected = FOREIGN[kind]
    path = tmp_path / "mask_rcnn.h5"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=expected) as caught:
        load_weights(model, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("member", "expected"),
    [("model.weights.h5", r"\.keras model"), ("x/data.pkl", "PyTorch"), ("a.h5", "zip archive")],
)
def test_archives_are_said_to_be_what_they_are(tmp_path, member, expected):
    with zipfile.ZipFile(tmp_path / "w.h5", "w") as archive:
        archive.writestr(member, b"")
    with pytest.raises(WeightsError, match=expected):
        read_metadata(tmp_path / "w.h5")


@pytest.mark.parametrize(("place", "damage"), [(6, 99), (46, 0xFF)], ids=["version", "name"])
def test_archives_with_damage_inside_are_said_to_be_damaged(tmp_path, place, damage):
    """Of an archive's list: a version that no program reads, and a name that is not UTF-8."""
    path = tmp_path / "w.h5"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\u00e4.h5", b"")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + place] = damage
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="w.h5 is not .*: it is a damaged zip archive"):
        read_metadata(path)


def test_a_truncated_file_is_said_to_be_one(model, tmp_path):
    path = tmp_path / "w.h5"
    save_weights(model, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="truncated.*Fetch it again"):
        load_weights(model, path)


def test_a_folder_and_an_absent_file(model, tmp_path):
    with pytest.raises(WeightsError, match="a folder"):
        load_weights(model, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no weights file at .*nothing\.h5"):
        load_weights(model, tmp_path / "nothing.h5")


def test_own_files_give_back_weights_and_description(model, tmp_path):
    values = some_values(model)
    assign_weights(model, values, "memory")
    metadata = {
        "class_names": ["BG", "lesion"],
        "mean_pixel": np.array([1.5, 2.5, 3.5]),
        "folder": tmp_path,
        "size": np.int64(256),
    }
    save_weights(model, tmp_path / "w.h5", metadata)
    other = network()
    report = load_weights(other, tmp_path / "w.h5", by_name=False)
    assert_values(other, values)
    assert report.unused == []
    assert read_metadata(tmp_path / "w.h5") == {
        "class_names": ["BG", "lesion"],
        "mean_pixel": [1.5, 2.5, 3.5],
        "folder": str(tmp_path),
        "size": 256,
    }


def test_the_same_weights_make_the_same_file(model, tmp_path):
    save_weights(model, tmp_path / "a.h5", {"epoch": 3})
    save_weights(model, tmp_path / "b.h5", {"epoch": 3})
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as file:  # nor would it differ in the next second
        names = ["/"]
        file.visit(names.append)
        assert len(names) > len(file) > 1
        assert not [n for n in names if file[n].id.get_create_plist().get_obj_track_times()]


def test_half_precision_rounds_kernels_only(model, tmp_path):
    values = some_values(model)
    values["conv1/kernel"][0, 0, 0, 0] = 1e6  # beyond float16: this kernel stays as it is
    assign_weights(model, values, "memory")
    save_weights(model, tmp_path / "w.h5", dtype="float16")
    with h5py.File(tmp_path / "w.h5") as file:
        assert file["rpn_class_raw/kernel"].dtype == np.float16
        assert file["rpn_class_raw/bias"].dtype == np.float32
        assert file["conv1/kernel"].dtype == np.float32
    other = network()
    load_weights(other, tmp_path / "w.h5", by_name=False)
    for name, value in values_of(other).items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, values[name], rtol=2**-11, atol=1e-7)


def test_another_precision_is_refused(model, tmp_path):
    with pytest.raises(WeightsError, match="not 'int8'"):
        save_weights(model, tmp_path / "w.h5", dtype="int8")


def test_metadata_that_is_not_json_leaves_no_file(model, tmp_path):
    with pytest.raises(WeightsError, match="has no JSON form"):
        save_weights(model, tmp_path / "w.h5", {"config": object()})
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys
import numpy as np
from mrcnn.arrays import save_arrays

arrays = {f"layer_{number}/kernel": np.zeros(2000, np.float32) for number in range(40)}
save_arrays("w.h5", arrays)
for size in range(0, 320_000, 8_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        save_arrays("w.h5", arrays)
    except OSError as error:
        assert str(error).startswith("w.h5 cannot be written: "), error
    else:
        sys.exit(f"{size} bytes sufficed")
"""


def test_wherever_a_disk_gets_full_it_is_an_error(tmp_path):
    """HDF5 itself would end the process, at some of these sizes."""
    pytest.importorskip("resource", reason="limits of a process are those of Unix")
    command = [sys.executable, "-c", FULL_DISK]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["w.h5"]
    assert len(load_arrays(tmp_path / "w.h5")[0]) == 40


def test_a_failed_save_leaves_the_old_file(model, tmp_path, monkeypatch):
    save_weights(model, tmp_path / "w.h5", {"epoch": 1})

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", fail)
    with pytest.raises(OSError, match="No space left"):
        save_weights(model, tmp_path / "w.h5", {"epoch": 2})
    assert read_metadata(tmp_path / "w.h5") == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["w.h5"]


def test_foreign_files_have_no_metadata(model, tmp_path):
    write_keras2(tmp_path / "w.h5", some_values(model))
    assert read_metadata(tmp_path / "w.h5") == {}
    with pytest.raises(WeightsError, match="not one that this project wrote"):
        load_arrays(tmp_path / "w.h5")


def test_a_newer_format_asks_for_a_newer_installation(model, tmp_path):
    save_weights(model, tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(WeightsError, match="version 99.*Install a newer one"):
        load_weights(model, tmp_path / "w.h5")


def test_damaged_metadata_is_an_error(model, tmp_path):
    save_weights(model, tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file.attrs["metadata"] = "{"
    with pytest.raises(WeightsError, match="description inside .* is damaged"):
        read_metadata(tmp_path / "w.h5")


def never_written(file):
    file.create_dataset("conv/kernel", (100_000, 1000), np.float32)


def type_without_numpy(file):
    h5py.h5d.create(file.id, b"times", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((4,)))


def null_space(file):
    file.create_dataset("conv/kernel", data=h5py.Empty(np.float32))


@pytest.mark.parametrize("damage", [never_written, type_without_numpy, null_space])
def test_arrays_that_cannot_be_read_are_an_error(tmp_path, damage):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        damage(file)
    with pytest.raises(WeightsError, match="w.h5 is a damaged HDF5 file"):
        read_arrays(tmp_path / "w.h5")


def test_heap_without_end_is_refused(tmp_path):
    """Libhdf5 would not come back from it."""
    path = tmp_path / "w.h5"
    save_arrays(path, {"bias": np.zeros(2)}, {"task": "boundary"})
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    free = content.index(b'{"task"', heap) + 24  # the text has 20 bytes
    assert content[free : free + 8] == bytes(8)
    assert content[free + 8 : free + 16] != bytes(8)
    content[free + 8 : free + 16] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="a heap in it has no end"):
        read_metadata(path)


def test_arrays_come_back_with_names_types_and_long_metadata(tmp_path):
    arrays = {
        "optimizer/iterations": np.int64(7),
        "optimizer/00001": np.arange(6, dtype="float32").reshape(2, 3),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 4)),
    }
    metadata = {"log": ["x" * 100] * 2000}
    save_arrays(tmp_path / "state.h5", arrays, metadata)
    found, described = load_arrays(tmp_path / "state.h5")
    assert described == metadata == json.loads(json.dumps(described))
    assert set(found) == set(arrays)
    for name in arrays:
        np.testing.assert_array_equal(found[name], arrays[name])
        assert found[name].dtype == np.asarray(arrays[name]).dtype


def test_bfloat16_is_stored_as_float32(tmp_path):
    value = keras.ops.convert_to_numpy(keras.ops.cast([1.5, 2.0], "bfloat16"))
    save_arrays(tmp_path / "w.h5", {"v": value})
    np.testing.assert_array_equal(read_arrays(tmp_path / "w.h5")["v"], np.float32([1.5, 2.0]))


def test_the_summary_counts_and_names():
    report = LoadReport(
        "coco.h5", loaded=["a/kernel"], missing=["b/kernel", "b/bias"], excluded=["c/kernel"]
    )
    assert report.missing_layers == ["b", "c"]
    assert report.summary() == (
        "coco.h5: 1 tensors loaded, 2 missing, 1 excluded. Layers not loaded: b, c."
    )


def test_public_names_are_all_there():
    assert all(hasattr(module, name) for name in module.__all__)
