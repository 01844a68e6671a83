import errno
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import ExifTags, Image
from scipy import ndimage

import mrcnn.network
from lesion import NOTICE, crop, export
from lesion.attribute_thresholds import Threshold
from lesion.attributes import AttributesConfig, AttributesPredictor
from lesion.boundary import BoundaryConfig, load_predictor
from lesion.diagnosis import DiagnosisPredictor, load_classifier, with_boundary
from lesion.diagnosis_network import DiagnosisConfig, DiagnosisNetwork, describe_network
from lesion.ensemble import load_classifiers
from lesion.export import main
from lesion.patient import patient_vector
from lesion.samples import ATTRIBUTES, DIAGNOSES
from lesion.weights import write_ensemble
from mrcnn.backbone import build_backbone
from mrcnn.images import read_image
from mrcnn.model import MaskRCNN
from mrcnn.weights import save_weights

if keras.backend.backend() != "tensorflow":
    pytest.skip("a SavedModel is TensorFlow's", allow_module_level=True)

tf = pytest.importorskip("tensorflow")
from lesion import diagnosis_serving, serving  # noqa: E402
from mrcnn.images_graph import decode  # noqa: E402

SCRIPT = Path(__file__).resolve().parents[2] / "lesion" / "export.py"
MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))
CALIBRATION = {"temperature": 2.0, "offset": [0.1 * number for number in range(7)]}


def encoded(image, kind="PNG"):
    content = io.BytesIO()
    Image.fromarray(image).save(content, kind)
    return content.getvalue()


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [
        np.asarray(
            Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8)).resize(
                size, Image.Resampling.BICUBIC
            )
        )
        for size in ((96, 72), (80, 110))
    ]


def untrained_boundary(folder, **settings):
    """A weights file of an untrained boundary network."""
    keras.utils.set_random_seed(0)
    config = BoundaryConfig(
        IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=96, DETECTION_MIN_CONFIDENCE=0.0, **settings
    )
    model = MaskRCNN("inference", config, folder)
    model.class_names = ["BG", "lesion"]
    path = folder / "boundary.weights.h5"
    save_weights(model.keras_model, path, {**model.metadata(), "task": "boundary"})
    return path


@pytest.fixture(scope="module")
def boundary_weights(small_network, tmp_path_factory):
    return untrained_boundary(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def semantic_weights(small_network, tmp_path_factory):
    """Of a network with a semantic branch."""
    folder = tmp_path_factory.mktemp("semantic")
    return untrained_boundary(folder, SEMANTIC_BRANCH=True, SEMANTIC_CHANNELS=8)


@pytest.fixture
def diagnosis_weights(small_backbone, tmp_path):
    """Makes a weights file of an untrained classifier."""

    def make(**changes):
        keras.utils.set_random_seed(0)
        config = DiagnosisConfig(image_size=32, **changes)
        path = tmp_path / "diagnosis.weights.h5"
        metadata = {"task": "diagnosis", **describe_network(config)}
        metadata["calibration"] = {"1": CALIBRATION}
        save_weights(DiagnosisNetwork(config), path, metadata)
        return path

    return make


class TestRegions:
    @settings(max_examples=60)
    @given(mask=MASKS)
    def test_largest_and_filled(self, mask):
        labels, count = ndimage.label(mask)
        sizes = np.bincount(labels.ravel())[1:]
        largest = labels == 1 + sizes.argmax() if count else mask
        np.testing.assert_array_equal(serving.largest_region(tf.constant(mask)), largest)
        filled = ndimage.binary_fill_holes(mask)
        np.testing.assert_array_equal(serving.fill_holes(tf.constant(mask)), filled)

    def test_spiral_is_one_region(self):
        spiral = np.zeros((41, 41), bool)
        y, x, step, lengths = 20, 20, 0, [n for n in range(2, 40, 2) for _ in (0, 1)]
        for length in lengths:
            for _ in range(length):
                spiral[y, x] = True
                y, x = y + (0, 1, 0, -1)[step], x + (1, 0, -1, 0)[step]
            step = (step + 1) % 4
        assert ndimage.label(spiral)[1] == 1
        np.testing.assert_array_equal(serving.largest_region(tf.constant(spiral)), spiral)

    @settings(max_examples=60)
    @given(mask=MASKS)
    def test_square_around_the_lesion(self, mask):
        found = [int(value) for value in diagnosis_serving.lesion_square(tf.constant(mask))]
        assert found == list(crop.lesion_square(mask))


def read_description(folder):
    return json.loads((folder / "assets.extra" / "model.json").read_text("utf-8"))


class TestBoundary:
    @pytest.mark.parametrize("kind", ["boundary_weights", "semantic_weights"])
    def test_same_as_python(self, kind, images, tmp_path, capsys, request, one_by_one):
        weights = request.getfixturevalue(kind)
        out = tmp_path / "boundary" / "1"
        assert main([f"--weights={weights}", "--task=boundary", f"--out={out}"]) == 0, (
            capsys.readouterr().err
        )
        assert NOTICE in capsys.readouterr().out
        predictor = load_predictor(weights)
        assert read_description(out).items() >= {**predictor.describe(), "notice": NOTICE}.items()

        signature = tf.saved_model.load(str(out)).signatures["serving_default"]
        found = signature(image_bytes=tf.constant([encoded(image) for image in images]))
        found = {name: value.numpy() for name, value in found.items()}
        assert found["masks"].shape == (2, 1, 110, 96)
        with one_by_one():
            boundaries = predictor.predict(images)
        for row, boundary in enumerate(boundaries):
            height, width = boundary.mask.shape
            assert boundary.mask.any()
            assert found["num_detections"][row] == 1
            np.testing.assert_allclose(found["boxes"][row, 0], boundary.box, atol=1e-3)
            np.testing.assert_allclose(found["scores"][row, 0], boundary.score, atol=1e-4)
            mask = found["masks"][row, 0] == 1
            own = mask[:height, :width]
            assert (own & boundary.mask).sum() >= 0.99 * (own | boundary.mask).sum()
            assert mask.sum() == own.sum()
            assert found["class_names"][row].tolist() == [b"lesion"]
            assert found["notice"][row].decode() == NOTICE

    def test_photograph_on_its_side_is_turned_as_in_python(
        self, boundary_weights, images, tmp_path, one_by_one
    ):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        path = tmp_path / "side.jpg"
        Image.fromarray(images[0]).save(path, quality=95, exif=exif)
        upright = read_image(path)
        assert upright.shape == (96, 72, 3) and images[0].shape == (72, 96, 3)
        predictor = load_predictor(boundary_weights)
        answer = serving.BoundaryAnswer(predictor)
        files = tf.constant([path.read_bytes()])
        found = tf.function(lambda batch: answer(batch, decode))(files)
        with one_by_one():
            (expected,) = predictor.predict([upright])
        assert found["image_size"].numpy().tolist() == [[96, 72]]
        mask = found["masks"].numpy()[0, 0] == 1
        assert expected.mask.any()
        assert (mask & expected.mask).sum() >= 0.99 * (mask | expected.mask).sum()

    def test_several_views_are_refused(self, boundary_weights):
        with pytest.raises(ValueError, match="views=1"):
            serving.BoundaryAnswer(load_predictor(boundary_weights, views=8))

    def test_nothing_found(self):
        answer = object.__new__(serving.BoundaryAnswer)
        answer.semantic = False
        nothing = {
            "class_ids": tf.zeros([2, 1], tf.int32),
            "class_names": tf.fill([2, 1], ""),
            "scores": tf.zeros([2, 1]),
            "image_size": tf.constant([[9, 12]] * 2),
            "masks": tf.zeros([2, 1, 9, 12], tf.uint8),
        }
        answer.detect = lambda images, read: nothing
        found = answer(tf.zeros([2, 9, 12, 3]), tf.identity)
        assert not any(found[name].numpy().any() for name in ("masks", "boxes", "num_detections"))

    def test_mask_and_map_that_do_not_agree_on_anything(self):
        answer = object.__new__(serving.BoundaryAnswer)
        answer.semantic = True
        mask = np.zeros((1, 1, 9, 12), np.float32)
        mask[..., 2:5, 3:7] = 0.9
        found = {
            "num_detections": tf.constant([1]),
            "boxes": tf.constant([[[1, 1, 8, 8]]]),
            "class_ids": tf.constant([[1]]),
            "class_names": tf.constant([["lesion"]]),
            "scores": tf.constant([[0.7]]),
            "masks": tf.constant(mask),
            "image_size": tf.constant([[9, 12]]),
            "presence": tf.constant([[1.0]]),
        }
        for surety, there in ((0.2, True), (0.0, False)):
            semantic = tf.fill([1, 9, 12, 1], surety)
            answer.detect = lambda images, read, map=semantic: {**found, "semantic": map}
            outputs = tf.function(lambda batch: answer(batch, tf.identity))(tf.zeros([1, 9, 12, 3]))
            assert "semantic" not in outputs
            assert outputs["num_detections"].numpy().tolist() == [int(there)]
            assert outputs["boxes"].numpy().tolist() == [[[2, 3, 5, 7] if there else [0, 0, 0, 0]]]
            assert outputs["class_names"].numpy().tolist() == [[b"lesion" if there else b""]]
            np.testing.assert_array_equal(outputs["masks"].numpy() > 0, (mask > 0) & there)


class TestAttributes:
    def test_same_as_python(self, images, tmp_path, monkeypatch, one_by_one):
        monkeypatch.setattr(mrcnn.network, "build_backbone", build_backbone)  # a real one
        keras.utils.set_random_seed(0)
        config = AttributesConfig(
            IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=64, DETECTION_MIN_CONFIDENCE=0.0, SEMANTIC_CHANNELS=8
        )
        weights = tmp_path / "attributes.weights.h5"
        weights.write_bytes(b"")
        # Each way to a mask decides somewhere; the last attribute is thought not to be shown.
        thresholds = dict.fromkeys(ATTRIBUTES, Threshold(0.0, 0.5, 0.1))
        thresholds |= {ATTRIBUTES[0]: Threshold(0.0, 0.45, 2.0), ATTRIBUTES[-1]: Threshold(1.0)}
        model = MaskRCNN("inference", config, tmp_path)
        predictor = AttributesPredictor(model, weights, {"combined": thresholds})
        for module in ("lesion.boundary_views", "lesion.serving"):
            monkeypatch.setattr(f"{module}.MAX_SIDE", 100)  # the second image is larger
        answer = serving.AttributesAnswer(predictor)
        images = [*images, images[0][:, :75]]  # the last is all one part, the others are two
        files = tf.constant([encoded(image) for image in images])
        found = tf.function(lambda batch: answer(batch, decode))(files)
        assert found["masks"].shape == (3, len(ATTRIBUTES), 110, 96)
        areas = []
        with one_by_one():
            found_in_python = predictor.predict(images)
        for row, expected in enumerate(found_in_python):
            height, width = images[row].shape[:2]
            for place, name in enumerate(ATTRIBUTES):
                mask = found["masks"].numpy()[row, place] == 1
                own, truth = mask[:height, :width], expected.masks[name]
                assert (own & truth).sum() >= 0.99 * (own | truth).sum()
                assert mask.sum() == own.sum()
                assert found["class_names"].numpy()[row, place].decode() == name
                presence = expected.presence[name]
                np.testing.assert_allclose(found["presence"][row, place], presence, atol=1e-4)
                areas.append(truth.mean())
        assert 0.0 in areas
        assert any(0 < area < 1 for area in areas)


class TestDiagnosis:
    def test_same_as_python(self, diagnosis_weights, images, tmp_path, capsys):
        weights, out = diagnosis_weights(), tmp_path / "diagnosis" / "1"
        assert main([f"--weights={weights}", "--task=diagnosis", f"--out={out}"]) == 0
        assert read_description(out)["temperature"] == 2.0
        signatures = tf.saved_model.load(str(out)).signatures
        for kind in ("PNG", "JPEG"):
            files = [encoded(image, kind) for image in images]
            decoded = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
            expected = load_classifier(weights).predict(decoded)
            found = signatures["serving_default"](image_bytes=tf.constant(files))
            for row, diagnosis in enumerate(expected):
                np.testing.assert_allclose(
                    found["probabilities"][row], diagnosis.probabilities, atol=1e-4
                )
                assert found["category"][row].numpy().decode() == diagnosis.category
        assert [name.decode() for name in found["class_names"][1].numpy()] == list(DIAGNOSES)
        assert found["notice"].numpy()[1].decode() == NOTICE
        pixels = signatures["images"](images=tf.constant(decoded[0][np.newaxis]))
        np.testing.assert_allclose(
            pixels["probabilities"][0], found["probabilities"][0], atol=1e-6
        )  # of batches of 1 and of 2

    @pytest.mark.parametrize("changes", [{"crop": "lesion"}, {"patient_data": True}])
    def test_other_settings(self, diagnosis_weights, boundary_weights, images, changes):
        weights = diagnosis_weights(colour_constancy=True, usual_light=0.5, **changes)
        if "crop" in changes:
            with_boundary(weights, boundary_weights)
        predictor = load_classifier(weights)
        answer = diagnosis_serving.DiagnosisAnswer(predictor)
        found = tf.function(lambda batch: answer(batch, tf.identity))(images[0][np.newaxis])
        (expected,) = predictor.predict(images[:1])
        np.testing.assert_allclose(found["probabilities"][0], expected.probabilities, atol=1e-4)

    @pytest.mark.parametrize("several", [False, True], ids=["one network", "an ensemble"])
    def test_patients(self, diagnosis_weights, images, tmp_path, capsys, several):
        weights = diagnosis_weights(patient_data=True)
        if several:  # of which one knows nothing of patients
            (tmp_path / "b").mkdir()
            weights = weights.rename(tmp_path / "b" / "known.h5")
            paths = [weights, diagnosis_weights()]
            names = [str(path.relative_to(tmp_path)) for path in paths]
            write_ensemble(tmp_path / "ensemble.json", "diagnosis", names)
            weights = tmp_path / "ensemble.json"
        out = tmp_path / "out"
        assert main([f"--weights={weights}", "--task=diagnosis", f"--out={out}"]) == 0
        signature = tf.saved_model.load(str(out)).signatures["patients"]
        patients = [
            {"age": 70.0, "sex": "male", "site": "back"},
            {"age": -1.0, "sex": " F", "site": "posterior torso"},
            {"age": float("nan"), "sex": "x", "site": ""},
            {"age": 0.0, "sex": "", "site": "ear"},
        ]
        given = {
            name: tf.constant([patient[name] for patient in patients])
            for name in ("age", "sex", "site")
        }
        files = tf.constant([encoded(images[0])] * len(patients))
        found = signature(image_bytes=files, **given)["probabilities"].numpy()
        expected = load_classifiers([weights]).predict([images[0]] * len(patients), patients)
        for row, diagnosis in zip(found, expected, strict=True):
            np.testing.assert_allclose(row, diagnosis.probabilities, atol=1e-4)
        assert np.abs(found[0] - found[2]).max() > 1e-3  # they count
        with pytest.raises(tf.errors.InvalidArgumentError, match="one site per image"):
            signature(image_bytes=files, **{**given, "site": given["site"][:1]})
        plain = tf.saved_model.load(str(out)).signatures["serving_default"](image_bytes=files[:1])
        np.testing.assert_allclose(plain["probabilities"][0], found[2], atol=1e-6)
        warmup = (out / "assets.extra" / "tf_serving_warmup_requests").read_bytes()
        assert b"patients" in warmup and b"site" in warmup

    @pytest.mark.parametrize("around", [" ", "\t\v", "\x1f\x85", "\xa0\u2003\u3000"])
    def test_space_around_words_is_that_of_python(self, around):
        words = [f"{around}Male{around}", f"lower{around}extremity", f"{around}\u200bback"]
        found = diagnosis_serving.patient_vectors(
            tf.fill([len(words)], 50.0), tf.constant(words), tf.constant(words)
        )
        expected = [patient_vector({"age": 50.0, "sex": word, "site": word}) for word in words]
        np.testing.assert_array_equal(found, expected)

    def test_words_that_are_no_text_are_not_known(self):
        given = tf.constant([b"\xff male", b"male"])
        found = diagnosis_serving.patient_vectors(tf.fill([2], 50.0), given, given)
        unknown, male = (patient_vector({"age": 50.0, "sex": sex}) for sex in (None, "male"))
        np.testing.assert_array_equal(found, [unknown, male])

    def test_networks_of_images_alone_take_no_patients(self, diagnosis_weights):
        answer = diagnosis_serving.DiagnosisAnswer(load_classifier(diagnosis_weights()))
        assert answer.more_signatures == {}

    def test_several_views_are_refused(self, small_backbone, tmp_path):
        config = DiagnosisConfig(image_size=32)
        predictor = DiagnosisPredictor(DiagnosisNetwork(config), config, tmp_path, views=8)
        with pytest.raises(ValueError, match="views=1"):
            diagnosis_serving.DiagnosisAnswer(predictor)


class TestRefused:
    def test_another_backend(self, boundary_weights, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr("mrcnn.export.keras.backend.backend", lambda: "jax")
        out = tmp_path / "1"
        assert main(["--task=boundary", f"--weights={boundary_weights}", f"--out={out}"]) == 2
        assert "the backend is jax" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("task", "message"),
        [
            ("attributes", "does not hold weights of the attributes task"),
            ("diagnosis", "does not hold weights of the diagnosis task"),
        ],
    )
    def test_other_tasks(self, boundary_weights, tmp_path, capsys, task, message):
        out = tmp_path / "1"
        assert main([f"--task={task}", f"--weights={boundary_weights}", f"--out={out}"]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()

    def test_missing_weights(self, tmp_path, capsys):
        weights = tmp_path / "none.weights.h5"
        assert main(["--task=boundary", f"--weights={weights}", f"--out={tmp_path / '1'}"]) == 2
        assert "none.weights.h5" in capsys.readouterr().err

    def test_folder_in_a_file(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(export, "_load", None)  # which takes long
        (tmp_path / "models").write_text("mine")
        out = tmp_path / "models" / "1"
        assert main(["--task=diagnosis", "--weights=lesion", f"--out={out}"]) == 2
        assert "models is no folder" in capsys.readouterr().err

    def test_folder_of_something_else(self, diagnosis_weights, tmp_path, capsys):
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "notes.txt").write_text("mine")
        weights = diagnosis_weights()
        assert main(["--task=diagnosis", f"--weights={weights}", f"--out={tmp_path / '1'}"]) == 2
        assert "not replaced" in capsys.readouterr().err
        assert [entry.name for entry in (tmp_path / "1").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("target", ["empty", "former", "missing"])
def test_of_a_link_the_folder_is_written(diagnosis_weights, tmp_path, monkeypatch, target):
    if target != "missing":
        (tmp_path / "store").mkdir()
    if target == "former":
        (tmp_path / "store" / "saved_model.pb").write_bytes(b"former")
    (tmp_path / "models").mkdir()
    out = tmp_path / "models" / "1"
    out.symlink_to("../store")
    # It saves no graph here: that takes long.
    monkeypatch.setattr(tf.saved_model, "save", lambda module, path, _: Path(path).mkdir())
    weights = diagnosis_weights()
    assert main(["--task=diagnosis", f"--weights={weights}", f"--out={out}"]) == 0
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == ["1"]
    assert out.is_symlink()
    assert [entry.name for entry in (tmp_path / "store").iterdir()] == ["assets.extra"]
    assert not list(tmp_path.glob(".*"))


class TestFullDisk:
    @pytest.fixture
    def run(self, diagnosis_weights, tmp_path):
        out = tmp_path / "models" / "1"
        weights = diagnosis_weights()
        return lambda: main(["--task=diagnosis", f"--weights={weights}", f"--out={out}"])

    def test_of_tensorflow(self, run, tmp_path, monkeypatch, capsys):
        def full(module, path, signatures):
            Path(path).mkdir()
            (Path(path) / "saved_model.pb").write_bytes(b"half")
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

        monkeypatch.setattr(tf.saved_model, "save", full)
        assert run() == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("The SavedModel cannot be written: ")
        assert line.endswith("No space left on device")
        assert not list((tmp_path / "models").iterdir())

    def test_of_python_leaves_the_former_model(self, run, tmp_path, monkeypatch, capsys):
        def full(path, text, encoding):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        former = tmp_path / "models" / "1" / "saved_model.pb"
        former.parent.mkdir(parents=True)
        former.write_bytes(b"former")
        # It saves no graph here: that takes long.
        monkeypatch.setattr(tf.saved_model, "save", lambda module, path, _: Path(path).mkdir())
        monkeypatch.setattr(Path, "write_text", full)
        assert run() == 3
        assert "No space left on device" in capsys.readouterr().err
        assert former.read_bytes() == b"former"
        assert [entry.name for entry in (tmp_path / "models").iterdir()] == ["1"]

    def test_exit_codes_are_documented_alike(self):
        document = (SCRIPT.parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
        listed = dict(re.findall(r"^\| `(\d+)` \| (.+?)\.? \|$", document, flags=re.MULTILINE))
        assert listed == dict(re.findall(r"^    (\d+) +(.+)$", export.__doc__, flags=re.MULTILINE))


def test_runs_as_a_script_from_any_directory(tmp_path):
    command = [sys.executable, str(SCRIPT), "--help"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0
    assert "--task" in finished.stdout
