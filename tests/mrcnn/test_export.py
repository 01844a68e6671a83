import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrcnn import masks, semantic
from mrcnn.anchors import normalised_anchors
from mrcnn.config import Config
from mrcnn.images import write_image
from mrcnn.model import MaskRCNN
from mrcnn.molding import META, mold_image, mold_inputs, resize_image
from mrcnn.nms import suppress
from mrcnn.tensors import for_converters

if keras.backend.backend() != "tensorflow":
    pytest.skip("a SavedModel is TensorFlow's", allow_module_level=True)

tf = pytest.importorskip("tensorflow")
from mrcnn import export, images_graph, molding_graph  # noqa: E402

SIZES = ((50, 70), (130, 90))
PILLOW_13 = int(PIL.__version__.split(".")[0]) >= 13


def picture(height, width):
    """Noise on soft colours: a network finds something else in every such image."""
    random = np.random.default_rng(height * 1000 + width)
    small = random.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    soft = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(soft + random.integers(-8, 9, soft.shape), 0, 255).astype(np.uint8)


def png(image):
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


class TestResizing:
    @pytest.mark.parametrize("antialias", [False, True])
    @pytest.mark.parametrize(
        "size", [(96, 160), (96, 100), (300, 40), (64, 200), (65, 127), (130, 190), (1, 1), (2, 9)]
    )
    def test_every_level_is_that_of_python(self, size, antialias):
        if antialias and not PILLOW_13:
            pytest.skip("Pillow before 13 takes the axes in another order")
        image = picture(*size)
        expected, *_ = resize_image(image, 64, 128, mode="stretch", antialias=antialias)
        resize = molding_graph.resize_antialias if antialias else molding_graph.resize_bilinear
        np.testing.assert_array_equal(resize(tf.constant(image), [64, 128]), expected)

    @pytest.mark.parametrize("size", [(96, 160), (300, 40), (65, 127)])
    def test_box_filter_is_pillows(self, size):
        image = picture(*size)
        expected = Image.fromarray(image).resize((37, 29), Image.Resampling.BOX)
        found = molding_graph.resize_antialias(tf.constant(image), [29, 37], box=True)
        # Pillow before 13 takes the axes in another order.
        np.testing.assert_allclose(np.asarray(found, int), expected, atol=1 - PILLOW_13)

    @pytest.mark.parametrize("mode", ["square", "stretch", "pad64", "none"])
    @pytest.mark.parametrize("size", [*SIZES, (64, 64), (33, 200), (3, 1)])
    def test_molded_image(self, mode, size):
        config = Config(
            IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=128, IMAGE_MIN_SCALE=1.3
        )
        image = picture(*size)
        molded, window = molding_graph.mold_image(tf.constant(image), config)
        (expected,), _, (expected_window,) = mold_inputs([image], config)
        np.testing.assert_array_equal(molded, expected)
        np.testing.assert_array_equal(window, expected_window)

    @pytest.mark.parametrize("frame", [(64, 128), (192, 64)])
    @pytest.mark.parametrize("stride", [1, 2])
    def test_anchors(self, frame, stride):
        config = Config(RPN_ANCHOR_STRIDE=stride)
        expected = normalised_anchors(config, frame)
        np.testing.assert_allclose(export._anchors(config, tf.constant(frame)), expected, atol=1e-6)


class TestMasks:
    @settings(max_examples=25)
    @given(seed=st.integers(0, 10_000), fade=st.booleans(), least=st.sampled_from([0.0, 0.5]))
    def test_in_any_box(self, seed, fade, least):
        random = np.random.default_rng(seed)
        mask = random.uniform(least, 1, (6, 6)).astype(np.float32)
        edges = random.uniform(-8, 38, (2, 2))
        edges = np.sort(np.round(edges) if fade else edges, axis=0).ravel()
        size, canvas = (30, 26), (32, 40)
        paste = masks.paste_mask if fade else masks.place_mask
        expected, solid = np.zeros(canvas, np.float32), np.zeros(canvas, bool)
        expected[:30, :26] = paste(mask, edges, size, None)
        solid[:30, :26] = paste(mask, edges, size)
        found = molding_graph.paste_mask(tf.constant(mask), tf.constant(edges), size, canvas, fade)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_array_equal(found.numpy() >= 0.5, solid)

    def test_semantic_map(self):
        cells = np.random.default_rng(0).uniform(0, 1, (8, 16, 2)).astype(np.float32)
        size, frame, window = (50, 40), (32, 64), (0, 19, 32, 45)
        expected = np.zeros((60, 44, 2), np.float32)
        expected[:50, :40] = semantic.unmold_semantic(cells, size, frame, window)
        found = molding_graph.unmold_semantic(
            tf.constant(cells), *map(tf.constant, (size, frame, window, (60, 44)))
        )
        np.testing.assert_allclose(found, expected, atol=1e-6)


def assert_same(found, images, results):
    """The tensors an exported model gave for a batch are what `detect` gave."""
    for row, (image, expected) in enumerate(zip(images, results, strict=True)):
        height, width = image.shape[:2]
        count = len(expected["scores"])
        assert count > 0
        assert found["num_detections"][row] == count
        # Both are whole pixels; half a pixel either way may round to the next.
        np.testing.assert_allclose(found["boxes"][row, :count], expected["rois"], atol=1)
        np.testing.assert_array_equal(found["class_ids"][row, :count], expected["class_ids"])
        np.testing.assert_allclose(found["scores"][row, :count], expected["scores"], atol=1e-4)
        np.testing.assert_array_equal(found["image_size"][row], (height, width))
        own = np.moveaxis(found["masks"][row, :count, :height, :width], 0, -1) == 1
        inside = (own & expected["masks"]).sum((0, 1)), (own | expected["masks"]).sum((0, 1))
        assert (inside[0] >= 0.99 * inside[1]).all()
        assert found["masks"][row].sum() == own.sum()  # nothing beyond image and detections
        if "semantic" in expected:
            cells = found["semantic"][row]
            np.testing.assert_allclose(cells[:height, :width], expected["semantic"], atol=1e-4)
            np.testing.assert_allclose(found["presence"][row], expected["presence"], atol=1e-4)


def build(tiny_config, folder, **changes):
    keras.utils.set_random_seed(1)
    model = MaskRCNN("inference", tiny_config(**changes), folder)
    model.class_names = ["BG", "red", "green"]
    return model


@pytest.fixture(scope="module")
def model(tiny_config, tmp_path_factory):
    return build(tiny_config, tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "tiny" / "1"
    model.export(path)
    return path


@pytest.fixture(scope="module")
def signatures(saved):
    loaded = tf.saved_model.load(str(saved))
    return SimpleNamespace(
        loaded=loaded,
        files=lambda files: _arrays(
            loaded.signatures["serving_default"](image_bytes=tf.constant(files))
        ),
        images=lambda images: _arrays(loaded.signatures["images"](images=tf.constant(images))),
    )


def _arrays(outputs):
    return {name: value.numpy() for name, value in outputs.items()}


class TestSavedModel:
    def test_files_of_several_sizes(self, model, signatures):
        images = [picture(*size) for size in SIZES]
        found = signatures.files([png(image) for image in images])
        assert found["masks"].shape == (2, 4, 130, 90)
        assert_same(found, images, model.detect(images))

    def test_images(self, model, signatures):
        images = [picture(50, 70), picture(50, 70)[::-1]]
        assert_same(signatures.images(np.stack(images)), images, model.detect(images))

    def test_an_image_thinner_than_a_pixel_of_the_input(self, model, signatures):
        images = [picture(2, 200)]
        assert_same(signatures.images(np.stack(images)), images, model.detect(images))

    def test_classes_by_name(self, model, signatures):
        found = signatures.files([png(picture(*SIZES[0]))])
        names = [model.class_names[number].encode() for number in found["class_ids"][0]]
        assert found["class_names"][0].tolist() == names

    def test_one_bad_file_is_named_an_error(self, signatures):
        with pytest.raises(tf.errors.InvalidArgumentError, match="image"):
            signatures.files([png(picture(9, 9)), b"no image"])

    @pytest.mark.parametrize("signature", ["files", "images"])
    def test_a_batch_of_none_is_named_an_error(self, signatures, signature):
        nothing = {"files": np.zeros(0, "S1"), "images": np.zeros((0, 9, 9, 3), np.uint8)}
        with pytest.raises(tf.errors.InvalidArgumentError, match="must hold an image or more"):
            getattr(signatures, signature)(nothing[signature])

    @pytest.mark.parametrize("shape", [(1, 0, 8, 3), (2, 8, 0, 3)])
    def test_images_without_pixels_are_named_an_error(self, signatures, shape):
        with pytest.raises(tf.errors.InvalidArgumentError, match="of a pixel or more"):
            signatures.images(np.zeros(shape, np.uint8))

    def test_describes_itself(self, model, saved):
        described = json.loads((saved / "assets.extra" / "model.json").read_text("utf-8"))
        assert described == json.loads(json.dumps(model.metadata()))

    def test_warm_up_requests(self, saved, signatures):
        requests = [
            _request(record.numpy())
            for record in tf.data.TFRecordDataset(
                str(saved / "assets.extra" / "tf_serving_warmup_requests")
            )
        ]
        assert [request[:2] for request in requests] == [
            ("serving_default", "image_bytes"),
            ("images", "images"),
        ]
        for _, _, values in requests:
            assert len(values) == 1
        assert signatures.files(requests[0][2])["masks"].shape[2:] == requests[1][2].shape[1:3]

    def test_as_a_c_program(self, model, saved, tmp_path):
        program = compile_c(tmp_path)
        image = picture(*SIZES[1])
        write_image(tmp_path / "image.png", image)
        names = tensor_names(saved, ["image_bytes"], ["num_detections", "boxes", "scores"])
        run = subprocess.run(
            [program, str(saved), str(tmp_path / "image.png"), *names],
            capture_output=True,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        assert run.returncode == 0, run.stderr
        lines = np.array([line.split() for line in run.stdout.splitlines()], float)
        (expected,) = model.detect([image])
        np.testing.assert_allclose(lines[:, :4], expected["rois"], atol=1e-3)
        np.testing.assert_allclose(lines[:, 4], expected["scores"], atol=1e-4)


@pytest.mark.parametrize("limit", [0, -1, 2.0, "3"])
def test_limit_that_is_no_number_of_detections(model, limit):
    with pytest.raises(ValueError, match=f"`limit`.*received {limit!r}"):
        export.Detector(model, limit)


def test_limit_reaches_the_graph(monkeypatch):
    written = {}
    monkeypatch.setattr(export, "Detector", lambda model, limit: (model.name, limit))
    monkeypatch.setattr(export, "write_saved_model", lambda *given: written.update(given=given))
    model = SimpleNamespace(name="cells", metadata=dict)
    MaskRCNN.export(model, "saved/1", limit=3)
    assert written["given"] == ("saved/1", ("cells", 3), {})


class TestSettings:
    @pytest.mark.parametrize(
        "changes",
        [
            {"IMAGE_RESIZE_MODE": "pad64", "DETECTION_NMS_ACROSS_CLASSES": True},
            {
                "IMAGE_RESIZE_MODE": "stretch",
                "IMAGE_ANTIALIAS": True,
                "MASK_BOX_SCALE": 1.25,
                "ROI_ALIGNED": True,
                "SEMANTIC_BRANCH": True,
                "SEMANTIC_CHANNELS": 8,
            },
        ],
    )
    def test_same_as_python(self, one_by_one, tiny_config, tmp_path, changes):
        model = build(tiny_config, tmp_path, **changes)
        images = [picture(*size) for size in SIZES]
        # Compiled, and not saved: the file makes no difference.
        detect = tf.function(lambda files: export.Detector(model)(files, images_graph.decode))
        found = _arrays(detect(tf.constant([png(image) for image in images])))
        with one_by_one():
            expected = model.detect(images)
        assert_same(found, images, expected)

    def test_image_that_cannot_be_halved(self, tiny_config, tmp_path):
        model = build(tiny_config, tmp_path, IMAGE_RESIZE_MODE="none")
        detect = tf.function(lambda files: export.Detector(model)(files, images_graph.decode))
        assert _arrays(detect(tf.constant([png(picture(64, 96))])))["image_size"].tolist() == [
            [64, 96]
        ]
        with pytest.raises(tf.errors.InvalidArgumentError, match="must be divisible by 32"):
            detect(tf.constant([png(picture(70, 90))]))

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"IMAGE_RESIZE_MODE": "crop"}, "crop"),
            ({"IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": 90.0}, "IMAGE_CHANNEL_COUNT"),
            ({"IMAGE_RESIZE_MODE": "pad64", "SEMANTIC_BRANCH": True}, "SEMANTIC_BRANCH"),
            (
                {"IMAGE_RESIZE_MODE": "none", "COMPUTE_BACKBONE_SHAPE": lambda shape: shape},
                "COMPUTE_BACKBONE_SHAPE",
            ),
        ],
    )
    def test_refused(self, changes, word):
        with pytest.raises(ValueError, match=word):
            export.Detector(SimpleNamespace(config=Config(**changes)))


GUIDE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def assert_same_network(model, network, images):
    """A converted network gives for each image what the Keras network gives."""
    config = model.config
    metas = np.zeros((len(images), config.IMAGE_META_SIZE))
    metas[:, META["window"]] = [0, 0, *images.shape[1:3]]
    detections, _, _, masks, *others = model._predict(mold_image(images, config), metas)
    class_ids = detections[..., 4].astype(int)
    assert class_ids.any()
    own = np.take_along_axis(masks, class_ids[..., None, None, None], axis=-1)[..., 0]
    expected = {"detections": detections, "masks": own}
    if config.SEMANTIC_BRANCH:
        expected["semantic"], expected["presence"] = others[-2:]
    found = network(images)
    assert set(found) == set(expected)
    for name, values in expected.items():
        # Rounding of float32 sums, in maps whose values are in the hundreds here.
        np.testing.assert_allclose(found[name], values, atol=2e-4, err_msg=name)


def interpreter(path):
    """A TFLite network as a function of images."""
    if not hasattr(tf.lite, "Interpreter"):
        pytest.skip("this TensorFlow has no interpreter of TFLite")
    network = tf.lite.Interpreter(str(path))
    operations = {operation["op_name"] for operation in network._get_ops_details()}
    assert not [name for name in operations if name.startswith("Flex")]  # of TensorFlow
    run = network.get_signature_runner()
    return lambda images: run(images=np.float32(images))


def to_tflite(saved_model, path):
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved_model)).convert())
    return path


def molded_pictures(config, count=1):
    sides = [int(side) for side in config.IMAGE_SHAPE[:2]]
    return np.stack([np.roll(picture(*sides), 5 * number, 1) for number in range(count)])


class TestNetworkAlone:
    @pytest.fixture(scope="class")
    @staticmethod
    def written(model, tmp_path_factory):
        path = tmp_path_factory.mktemp("networks") / "tiny"
        model.export_network(path)
        return path

    def test_nothing_loops_and_no_shape_is_open(self, written):
        (function,) = tf.saved_model.load(str(written)).signatures.values()
        graph = function.graph.as_graph_def()
        inside = [node for one in graph.library.function for node in one.node_def]
        operations = {node.op for node in [*graph.node, *inside]}
        assert not operations & {"While", "StatelessWhile", "If", "StatelessIf", "Where"}
        assert not [name for name in operations if "Dynamic" in name or "Combined" in name]
        (taken,) = function.structured_input_signature[1].values()
        assert (taken.name, taken.dtype, taken.shape) == ("images", tf.float32, [1, 64, 64, 3])
        shapes = {name: list(spec.shape) for name, spec in function.structured_outputs.items()}
        assert shapes == {"detections": [1, 4, 6], "masks": [1, 4, 28, 28]}

    def test_describes_itself(self, model, written):
        described = json.loads((written / "assets.extra" / "model.json").read_text("utf-8"))
        assert described == json.loads(json.dumps(model.metadata()))

    def test_tflite_as_in_the_guide(self, model, written, tmp_path, monkeypatch):
        """Of an image without a margin, so that the results are those of `detect`."""
        text = GUIDE.read_text("utf-8").partition("## TFLite, ONNX")[2].partition("\n## ")[0]
        code = "".join(re.findall(r"```py\n(.*?)```", text, re.DOTALL))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "networks").mkdir()
        (tmp_path / "networks" / "cells").symlink_to(written)
        image = molded_pictures(model.config)[0]
        write_image(tmp_path / "image.png", image)
        names = {"model": model}
        exec(compile(code, str(GUIDE), "exec"), names)
        (expected,) = model.detect([image])
        for name in ("rois", "class_ids", "scores"):
            np.testing.assert_allclose(names[name], expected[name], atol=1e-4)
        assert (names["masks"] != expected["masks"]).mean() < 1e-3

    def test_tflite_with_settings(self, tiny_config, tmp_path):
        changes = {
            "IMAGE_RESIZE_MODE": "stretch",
            "IMAGE_MAX_DIM": 96,
            "RPN_NMS_PER_LEVEL": True,
            "DETECTION_ALL_CLASSES": True,
            "MASK_BOX_SCALE": 1.25,
            "ROI_ALIGNED": True,
            "SEMANTIC_BRANCH": True,
            "SEMANTIC_CHANNELS": 8,
        }
        model = build(tiny_config, tmp_path, **changes)
        model.export_network(tmp_path / "network", batch_size=2)
        network = interpreter(to_tflite(tmp_path / "network", tmp_path / "network.tflite"))
        assert_same_network(model, network, molded_pictures(model.config, count=2))

    def test_tflite_keeps_boxes_without_area_apart(self, tmp_path):
        """After one of them its suppression alone would give nothing else."""
        boxes = np.float32([[[1, 0.4, 1, 0.5], [0.1, 0.1, 0.4, 0.4], [0.1, 0.1, 0.4, 0.3]]])
        scores = np.float32([[0.9, 0.8, 0.7]])

        def keep(boxes, scores):
            with for_converters():
                kept, *_ = suppress(boxes, scores, tf.ones([1, 3], tf.int32), 2, 0.3, 3)
            return {"kept": kept}

        specs = [tf.TensorSpec([1, 3, 4], name="boxes"), tf.TensorSpec([1, 3], name="scores")]
        signature = tf.function(keep, specs, autograph=False).get_concrete_function()
        tf.saved_model.save(tf.Module(), str(tmp_path / "kept"), signature)
        to_tflite(tmp_path / "kept", tmp_path / "kept.tflite")
        run = tf.lite.Interpreter(str(tmp_path / "kept.tflite")).get_signature_runner()
        (kept,) = run(boxes=boxes, scores=scores)["kept"]
        np.testing.assert_allclose(kept, [*boxes[0, :2], np.zeros(4)], atol=1e-6)

    def test_onnx(self, model, written, tmp_path):
        needed = "not among the project's needs: pip install tf2onnx onnxruntime"
        pytest.importorskip("tf2onnx", reason=needed)
        runtime = pytest.importorskip("onnxruntime", reason=needed)
        target = tmp_path / "network.onnx"
        command = ["--saved-model", str(written), "--output", str(target), "--opset", "18"]
        subprocess.run([sys.executable, "-m", "tf2onnx.convert", *command], check=True)
        session = runtime.InferenceSession(str(target))
        names = [output.name for output in session.get_outputs()]

        def network(images):
            return dict(zip(names, session.run(None, {"images": np.float32(images)}), strict=True))

        assert_same_network(model, network, molded_pictures(model.config))

    @pytest.mark.parametrize("batch_size", [0, 1.5, None])
    def test_batch_size_is_a_number_of_images(self, model, tmp_path, batch_size):
        with pytest.raises(ValueError, match=f"batch_size.*received {batch_size}"):
            model.export_network(tmp_path / "network", batch_size)

    @pytest.mark.parametrize(
        ("setting", "value", "way_out"),
        [
            ("IMAGE_RESIZE_MODE", "pad64", "IMAGE_RESIZE_MODE='square'"),
            ("PRECISION", "mixed_bfloat16", "PRECISION='float32'"),
            ("TRAIN_BN", True, "TRAIN_BN=False"),
        ],
    )
    def test_settings_that_converters_do_not_know(self, tmp_path, setting, value, way_out):
        network = SimpleNamespace(inference=None)
        model = SimpleNamespace(config=Config(**{setting: value}), keras_model=network)
        with pytest.raises(ValueError, match=f"{setting}.*{way_out}"):
            export.export_network(model, tmp_path / "network")


def _double(elements, read):
    """The least `Answer` there is."""
    return {"size": tf.map_fn(lambda e: tf.shape(read(e)), elements, tf.int32)}


class TestWriting:
    @pytest.mark.parametrize("name", ["notes.txt", "sub/notes.txt"])
    @pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a SavedModel"])
    def test_other_folders_are_left_alone(self, tmp_path, name, beside):
        path = tmp_path / "1" / name
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        if beside:
            (tmp_path / "1" / "saved_model.pb").write_bytes(b"former")
        with pytest.raises(FileExistsError, match="new folder"):
            export.write_saved_model(tmp_path / "1", _double, {})
        assert path.read_text() == "mine"

    def test_a_file_is_left_alone(self, tmp_path):
        (tmp_path / "1").write_text("mine")
        with pytest.raises(FileExistsError):
            export.write_saved_model(tmp_path / "1", _double, {})

    def test_another_backend_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(ValueError, match="the backend is jax. Start again"):
            export.write_saved_model(tmp_path / "1", _double, {})

    def test_a_saved_model_is_replaced(self, tmp_path):
        path = tmp_path / "1"
        for version in "ab":
            export.write_saved_model(path, _double, {"version": version})
        assert json.loads((path / "assets.extra" / "model.json").read_text()) == {"version": "b"}
        assert [entry.name for entry in tmp_path.iterdir()] == ["1"]

    def test_a_failure_changes_nothing(self, tmp_path):
        path = tmp_path / "1"
        export.write_saved_model(path, _double, {})
        before = (path / "saved_model.pb").read_bytes()
        with pytest.raises(ValueError, match="JSON"):
            export.write_saved_model(path, _double, {"number": float("nan")})
        assert (path / "saved_model.pb").read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["1"]

    def test_a_failure_at_the_end_brings_the_former_back(self, tmp_path, monkeypatch):
        path = tmp_path / "1"
        export.write_saved_model(path, _double, {"version": "a"})

        def full(source, target):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("mrcnn.files.os.replace", full)
        with pytest.raises(OSError, match="No space left"):
            export.write_saved_model(path, _double, {"version": "b"})
        assert json.loads((path / "assets.extra" / "model.json").read_text()) == {"version": "a"}
        assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def _fields(message):
    """The length-delimited fields of a protocol buffer, the only ones there are, by number."""
    fields, place = {}, 0

    def varint():
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(message):
        key, length = varint(), varint()
        assert key & 7 == 2
        fields[key >> 3] = message[place : place + length]
        place += length
    assert place == len(message)
    return fields


def _request(record):
    """Signature, input's name and value in a serialised `PredictionLog`."""
    from tensorflow.core.framework import tensor_pb2

    request = _fields(_fields(_fields(record)[6])[1])
    entry = _fields(request[2])
    tensor = tf.make_ndarray(tensor_pb2.TensorProto.FromString(entry[2]))
    return _fields(request[1])[3].decode(), entry[1].decode(), tensor


def tensor_names(path, inputs, outputs):
    """Names in the graph of what a SavedModel's `serving_default` takes and gives."""
    from tensorflow.core.protobuf import saved_model_pb2

    content = (path / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
    signature = graph.signature_def["serving_default"]
    return [
        *(signature.inputs[name].name for name in inputs),
        *(signature.outputs[name].name for name in outputs),
    ]


def compile_c(folder):
    """`detect.c`, compiled against TensorFlow's C API; skips where that cannot be."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    library = Path(tf.sysconfig.get_lib())
    if compiler is None:
        pytest.skip("no C compiler: neither gcc nor cc is on the path")
    if not (library / "libtensorflow_cc.so.2").is_file():
        pytest.skip(f"no C library of TensorFlow in {library}")
    program = folder / "detect"
    command = [compiler, "-Wall", "-Wextra", "-Werror", str(Path(__file__).with_name("detect.c"))]
    command += ["-isystem", tf.sysconfig.get_include(), "-o", str(program), f"-L{library}"]
    command += ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    done = subprocess.run([*command, f"-Wl,-rpath,{library}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program
