"""One call from an image to all that is found in it; the record and its description."""

import json
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import lesion
from lesion import NOTICE
from lesion.analysis import SCHEMA_VERSION, Analysis, Source
from lesion.analyzer import METHOD, Analyzer
from lesion.attributes import Attributes
from lesion.dicom import DicomImage
from lesion.quality import QualityWarning
from lesion.results import write_results
from lesion.samples import ATTRIBUTES, DIAGNOSES, Problem
from lesion.weights import joint_sha256
from mrcnn.files import sha256_of
from mrcnn.images import ImageError, read_image, read_mask, write_image

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "analysis.md"
PROBABILITIES = np.array([0.05, 0.6, 0.05, 0.1, 0.1, 0.05, 0.05])


class Corner:
    """Finds the first attribute in an image's upper left corner; stands in for a network."""

    def predict(self, images):
        return [self._attributes(image) for image in images]

    def describe(self):
        return {"task": "attributes", "weights": "corner.h5", "sha256": "a" * 64}

    @staticmethod
    def _attributes(image):
        masks = {name: np.zeros(image.shape[:2], bool) for name in ATTRIBUTES}
        masks[ATTRIBUTES[0]][:10, :20] = True
        presence = dict(zip(ATTRIBUTES, (0.9, 0.1, 0.0, 0.2, 0.3), strict=True))
        return Attributes(masks, presence)


class Guess:
    """Says always the same; remembers what it was told of patients."""

    risk = 0.1

    def __init__(self):
        self.patients = []

    def predict(self, images, patients):
        self.patients += patients
        return [
            SimpleNamespace(probabilities=PROBABILITIES, category="NV", refer=True) for _ in images
        ]

    def describe(self):
        return {"task": "diagnosis", "weights": "guess.h5", "sha256": "b" * 64}


@pytest.fixture
def analyzer(darkness):
    return Analyzer(darkness, Corner(), Guess(), batch=2)


@pytest.fixture
def large(lesion_image):
    return lesion_image(150, 200, (70, 90), 40)


# === What there is to analyse with ===


def test_importing_the_package_loads_no_library():
    code = "import sys, lesion; assert 'numpy' not in sys.modules; from lesion import Analyzer; "
    code += "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Analyser'"):
        _ = lesion.Analyser


def test_without_any_weights_the_way_to_some_is_named(monkeypatch):
    monkeypatch.setattr("lesion.analyzer.shipped_weights", lambda task: None)
    with pytest.raises(FileNotFoundError, match="lesion/train.py --task=boundary"):
        Analyzer()


def test_shipped_weights_are_used_unless_left_out(monkeypatch, tmp_path):
    shipped = tmp_path / "shipped.h5"
    shipped.write_bytes(b"")
    monkeypatch.setattr("lesion.analyzer.shipped_weights", lambda task: shipped)
    assert Analyzer().tasks == ("boundary", "attributes", "diagnosis")
    assert Analyzer(boundary="none").tasks == ("attributes", "diagnosis")
    with pytest.raises(ValueError, match="Every task is left out"):
        Analyzer("none", "none", "none")


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file .*gone.h5 for the diagnosis task"):
        Analyzer(diagnosis=tmp_path / "gone.h5")


def test_networks_are_loaded_when_needed_and_once(monkeypatch, tmp_path, darkness, large):
    loaded = []
    module = ModuleType("lesion.boundary")
    module.load_predictor = lambda *arguments: loaded.append(arguments) or darkness
    monkeypatch.setitem(sys.modules, "lesion.boundary", module)
    weights = tmp_path / "w.h5"
    weights.write_bytes(b"weights")
    analyzer = Analyzer(weights, "none", "none", views=1, batch=3)
    assert analyzer.settings()["weights"] == {"boundary": sha256_of(weights)}
    assert not loaded
    for _ in range(2):
        assert analyzer.analyze(large[0]).mask.any()
    assert loaded == [(weights, 3, 1)]


def test_several_files_for_the_diagnosis_are_an_ensemble(monkeypatch, tmp_path, large):
    loaded = []
    module = ModuleType("lesion.ensemble")
    module.load_classifiers = lambda *arguments: loaded.append(arguments) or Guess()
    monkeypatch.setitem(sys.modules, "lesion.ensemble", module)
    paths = [tmp_path / name for name in ("a.h5", "b.h5")]
    for path in paths:
        path.write_bytes(path.name.encode())

    def fingerprint(diagnosis):
        return Analyzer("none", "none", diagnosis).settings()["weights"]["diagnosis"]

    analyzer = Analyzer("none", "none", paths, views=8, risk=0.1, batch=2)
    assert analyzer.analyze(large[0]).diagnosis.category == "NV"
    assert loaded == [(tuple(paths), 8, 0.1, 16, None)]
    of_both = fingerprint(paths)
    assert fingerprint(paths[:1]) == fingerprint(paths[0]) == sha256_of(paths[0])
    joint = joint_sha256([sha256_of(path) for path in paths])
    assert fingerprint(SimpleNamespace(describe=lambda: {"sha256": joint})) == of_both == joint
    paths[1].write_bytes(b"other")
    assert fingerprint(paths) not in (of_both, sha256_of(paths[0]))


@pytest.mark.parametrize(
    ("task", "count", "message"),
    [("boundary", 2, "takes one weights file, received 2"), ("diagnosis", 0, "received 0")],
)
def test_other_numbers_of_files_are_refused(task, count, message):
    with pytest.raises(ValueError, match=message):
        Analyzer(**{task: ["a.h5"] * count})


class Busy:
    """Does what another predictor does, slowly, and only for one thread at a time."""

    def __init__(self, predictor):
        self.predictor, self.describe = predictor, predictor.describe
        self.alone = threading.Lock()

    def predict(self, *arguments):
        assert self.alone.acquire(blocking=False), "two threads are in one network"
        time.sleep(0.002)
        found = self.predictor.predict(*arguments)
        self.alone.release()
        return found


def test_threads_share_networks_that_are_loaded_once(monkeypatch, tmp_path, darkness, lesion_image):
    loaded = []

    def load(task, predictor):
        loaded.append(task)
        time.sleep(0.02)  # the others arrive
        return Busy(predictor)

    for name, function, predictor in (
        ("boundary", "load_predictor", darkness),
        ("attributes", "load_attributes", Corner()),
        ("ensemble", "load_classifiers", Guess()),
    ):
        module = ModuleType(f"lesion.{name}")
        setattr(module, function, lambda *_, name=name, to=predictor: load(name, to))
        monkeypatch.setitem(sys.modules, f"lesion.{name}", module)
    weights = tmp_path / "w.h5"
    weights.write_bytes(b"weights")
    analyzer = Analyzer(weights, weights, weights)
    images = [lesion_image(130, 140, (60, 60 + n), 20)[0] for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(analyzer.analyze, images))
    assert sorted(loaded) == ["attributes", "boundary", "ensemble"]
    single = Analyzer(darkness, Corner(), Guess())
    for image, analysis in zip(images, found, strict=True):
        expected = single.analyze(image)
        assert (analysis.image == image).all()
        assert (analysis.mask == expected.mask).all()
        assert analysis.measurements == expected.measurements
        assert analysis.probabilities == expected.probabilities


# === Analysis ===


def test_all_of_one_image(analyzer, large):
    image, mask = large
    patient = {"age": "50"}
    found = analyzer.analyze(image, patient, 0.02)
    assert (found.mask == mask).all()
    assert found.boundary.score == 0.75
    assert list(found.attributes.masks) == list(ATTRIBUTES)
    assert found.probabilities == dict(zip(DIAGNOSES, PROBABILITIES, strict=True))
    assert found.refer is True
    assert found.measurements.area_mm2 == pytest.approx(mask.sum() * 0.02**2)
    assert set(found.models) == {"boundary", "attributes", "diagnosis"}
    assert found.source is None
    assert analyzer.diagnosis.patients == [patient]


def test_task_that_is_left_out_is_none(darkness, large):
    found = Analyzer(darkness, "none", "none").analyze(large[0])
    assert (found.attributes, found.diagnosis, found.probabilities, found.refer) == (None,) * 4
    found = Analyzer("none", "none", Guess()).analyze(large[0])
    assert (found.boundary, found.mask, found.measurements) == (None,) * 3
    assert found.overlay() is found.image
    assert not found.warnings


def test_file_is_described(analyzer, tmp_path, large):
    path = tmp_path / "a.png"
    write_image(path, large[0])
    found = analyzer.analyze(path)
    assert found.source == Source.of(path)
    assert found.source.sha256 == sha256_of(path)
    assert (found.image == large[0]).all()


def test_file_that_changes_while_it_is_read(analyzer, tmp_path, large, monkeypatch):
    path = tmp_path / "a.png"
    write_image(path, large[0])

    def read_and_replace(image):
        pixels = read_image(image)
        write_image(path, 255 - pixels[:100])
        return pixels

    monkeypatch.setattr("lesion.analyzer.read_image", read_and_replace)
    (found,) = analyzer.analyze_many([path])
    assert found == Problem(path, "it changed while it was read; analyse it once more")


def test_date_that_is_none(analyzer, tmp_path, large, monkeypatch):
    write_image(tmp_path / "a.png", large[0])
    status = SimpleNamespace(st_size=1, st_mtime=1e15, st_mode=0o100644)
    monkeypatch.setattr("lesion.analysis.Path.stat", lambda path, **options: status)
    (found,) = analyzer.analyze_many([tmp_path / "a.png"])
    assert "its date cannot be read" in found.reason


def test_bad_image_is_named(analyzer, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ImageError, match="a.png: the file is empty."):
        analyzer.analyze(tmp_path / "a.png")
    with pytest.raises(ImageError, match="received shape"):
        analyzer.analyze(np.zeros((3, 4, 5, 6)))


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), "0.02"])
def test_scale_must_be_a_length(analyzer, large, scale):
    with pytest.raises(ValueError, match="`millimetres_per_pixel` must be"):
        analyzer.analyze(large[0], millimetres_per_pixel=scale)


def test_many_keep_their_order_and_their_patients(analyzer, tmp_path, large, lesion_image):
    (tmp_path / "bad.png").write_text("no image")
    images = [large[0], tmp_path / "bad.png", lesion_image(200, 150, radius=0)[0], large[0]]
    patients = [{"age": str(number)} for number in range(4)]
    found = list(analyzer.analyze_many(iter(images), patients))
    assert isinstance(found[1], Problem)
    assert found[1].path == tmp_path / "bad.png"
    assert [result.image.shape for result in (found[0], found[2], found[3])] == [
        (150, 200, 3),
        (200, 150, 3),
        (150, 200, 3),
    ]
    assert [patient["age"] for patient in analyzer.diagnosis.patients] == ["0", "2", "3"]
    assert analyzer.boundary.batches == [1, 2]


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2)])
def test_smallest_images(analyzer, tmp_path, shape):
    for value in (0, 255):
        found = analyzer.analyze(np.full((*shape, 3), value, np.uint8))
        write_results(found, tmp_path, "a")
        assert found.warnings
        assert found._repr_html_()


def test_memory_may_be_filled_anew_for_every_image(analyzer):
    buffer = np.empty((40, 40, 3), np.uint8)

    def frames():
        for grey in (10, 110, 210):
            buffer[:] = grey
            yield buffer

    assert [result.image[0, 0, 0] for result in analyzer.analyze_many(frames())] == [10, 110, 210]


@pytest.mark.parametrize("risk", [5, -0.1, float("nan")])
def test_risk_is_a_share(darkness, risk):
    with pytest.raises(ValueError, match="from 0 to 1"):
        Analyzer(darkness, risk=risk)
    with pytest.raises(ValueError, match="`melanoma_sensitivity` is a share, from 0 to 1"):
        Analyzer(darkness, melanoma_sensitivity=risk)


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ({"patient_data": True}, True),
        ({"patient_data": False}, False),
        ({}, False),
        ({"members": [{"patient_data": False}, {"patient_data": True}]}, True),
        ({"members": [{"patient_data": False}]}, False),
    ],
)
def test_patients_are_asked_for_where_a_network_knows_what_to_make_of_them(darkness, model, takes):
    diagnosis = SimpleNamespace(describe=lambda: {"sha256": "0" * 64, **model})
    assert Analyzer(darkness, "none", diagnosis).takes_patients == takes
    assert not Analyzer(darkness, "none", "none").takes_patients


# === Warnings ===


def codes(mask, quality=()):
    image = np.zeros((*mask.shape, 3), np.uint8)
    boundary = SimpleNamespace(mask=mask, score=0.5, box=(0, 0, 1, 1))
    return [warning.code for warning in Analysis(image, boundary, quality=quality).warnings]


def test_warnings_of_the_image_come_first():
    blurred = QualityWarning("blurred", "The image is blurred.", 0.9, 0.6)
    assert codes(np.zeros((8, 8), bool), (blurred,)) == ["blurred", "no_lesion"]


@pytest.mark.parametrize("side", [np.s_[0, 3], np.s_[-1, 3], np.s_[3, 0], np.s_[3, -1]])
def test_lesion_at_the_edge_is_warned_of(side):
    mask = np.zeros((8, 8), bool)
    mask[side] = True
    assert codes(mask) == ["touches_frame"]


def test_separate_regions_are_warned_of():
    mask = np.zeros((8, 8), bool)
    mask[2, 2] = mask[3, 3] = True
    assert codes(mask) == []
    mask[5, 5] = True
    assert codes(mask) == ["several_regions"]


# === Record ===


def structure(value):
    """Names and types of a record; one element stands for all of a list."""
    if isinstance(value, dict):
        return {name: structure(item) for name, item in value.items()}
    if isinstance(value, list):
        return [structure(item) for item in value[:1]]
    return float if type(value) is int else type(value)


@pytest.fixture
def record(analyzer, tmp_path, lesion_image):
    image, _ = lesion_image(150, 200, (38, 90), 40)
    write_image(tmp_path / "mole.png", image)
    found = analyzer.analyze(tmp_path / "mole.png", {"age": 50}, 0.02)
    return write_results(found, tmp_path / "out", "mole")


def test_record_is_as_documented(record, tmp_path):
    (example,) = re.findall(r"```json\n(.+?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    documented = json.loads(example)
    assert documented["schema_version"] == SCHEMA_VERSION
    assert documented["notice"] == NOTICE
    assert documented["settings"]["method"] == METHOD
    assert record == json.loads((tmp_path / "out" / "mole.json").read_text(encoding="utf-8"))
    for described in (record, documented):
        described["models"] = dict.fromkeys(described["models"])  # the networks' own affair
    assert structure(record) == structure(documented)


def test_every_field_is_explained(record):
    text = DOCUMENT.read_text(encoding="utf-8")
    explained = set(re.findall(r"`(\w+)`", text))
    assert not {*record, *record["source"], *record["boundary"], *record["settings"]} - explained
    assert not set(record["measurements"]) - explained


def test_record_without_a_lesion(darkness, lesion_image):
    found = Analyzer(darkness, "none", "none").analyze(lesion_image(150, 150, radius=0)[0])
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["boundary"] == {"found": False, "score": None, "box": None}
    assert record["measurements"]["area_pixels"] == 0
    assert record["measurements"]["diameter_pixels"] is None
    assert (record["source"], record["attributes"], record["diagnosis"]) == (None, None, None)
    assert record["warnings"][-1]["code"] == "no_lesion"


def test_masks_are_named_as_the_challenge_names_them(record, tmp_path):
    for number, name in enumerate(ATTRIBUTES):
        mask = read_mask(tmp_path / "out" / f"mole_attribute_{name}.png")
        assert mask.sum() == (200 if number == 0 else 0)
    assert set(record["outputs"].values()) | {"mole.json"} == {
        path.name for path in (tmp_path / "out").iterdir()
    }


# === DICOM ===


@pytest.fixture
def photograph(monkeypatch, tmp_path, large):
    """A file that counts as DICOM; `lesion.dicom` itself has its own tests."""
    path = tmp_path / "mole.dcm"
    path.write_bytes(bytes(128) + b"DICM")
    image = DicomImage(large[0], 0.05, None)
    monkeypatch.setattr("lesion.analyzer.read_dicom", lambda path: image)
    return path


def test_dicom_brings_its_scale_and_gets_a_segmentation(
    analyzer, photograph, monkeypatch, tmp_path, large
):
    def write(path, image, boundary, attributes, models):
        assert list(attributes) == list(ATTRIBUTES)
        assert models["boundary"]["model"] == "darkness"
        path.write_bytes(b"segmentation")
        return ["Skin lesion"]

    monkeypatch.setattr("lesion.results.write_segmentation", write)
    found = analyzer.analyze(photograph)
    assert found.measurements.area_mm2 == pytest.approx(large[1].sum() * 0.05**2)
    assert analyzer.analyze(photograph, None, 0.1).measurements.millimetres_per_pixel == 0.1
    record = write_results(found, tmp_path, "mole")
    assert record["outputs"]["dicom_segmentation"] == "mole_segmentation.dcm"
    assert record["settings"]["millimetres_per_pixel"] is None


def test_dicom_that_can_have_no_segmentation(analyzer, photograph, monkeypatch, tmp_path):
    def refuse(*_):
        raise ImageError("the source image has no StudyInstanceUID.")

    monkeypatch.setattr("lesion.results.write_segmentation", refuse)
    record = write_results(analyzer.analyze(photograph), tmp_path, "mole")
    assert "dicom_segmentation" not in record["outputs"]
    assert record["warnings"][-1]["code"] == "no_dicom_segmentation"


def test_dicom_without_its_extra_is_a_problem(analyzer, photograph, monkeypatch, tmp_path):
    def missing(path):
        raise ImportError("DICOM needs the extra `dicom`.")

    monkeypatch.setattr("lesion.analyzer.read_dicom", missing)
    assert [*analyzer.analyze_many([photograph])] == [
        Problem(photograph, "DICOM needs the extra `dicom`.")
    ]


# === In a notebook ===


def test_notebook_shows_everything_and_loads_nothing(analyzer, large):
    source = analyzer.analyze(large[0], None, 0.02)._repr_html_()
    parser, addresses, texts = HTMLParser(), [], []
    parser.handle_starttag = lambda tag, attributes: addresses.extend(
        value for name, value in attributes if name in ("src", "href")
    )
    parser.handle_data = texts.append
    parser.feed(source)
    assert len(addresses) == 2
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    for expected in (NOTICE, "melanocytic nevus (NV)", "0.600", "pigment network", "mm²"):
        assert expected in " ".join(texts)
    assert len(source) < 100_000


# === What cannot be right ===


@pytest.mark.parametrize("option", ["risk", "melanoma_sensitivity"])
def test_referral_of_a_predictor_that_is_loaded_already_is_its_own(option):
    with pytest.raises(ValueError, match="give `risk` and `melanoma_sensitivity` to"):
        Analyzer("none", "none", Guess(), **{option: 0.2})
    settings = Analyzer("none", "none", Guess()).settings()
    assert (settings["risk"], settings["melanoma_sensitivity"]) == (0.1, None)


def test_views_of_predictors_that_are_loaded_already(darkness, tmp_path):
    one, eight = Guess(), Guess()
    one.views, eight.views = 1, 8
    assert Analyzer("none", "none", one).settings()["views"] == 1
    assert Analyzer(darkness, "none", one).settings()["views"] == 1
    with pytest.raises(ValueError, match="boundary's predictor has 8 and the diagnosis's .* has 1"):
        Analyzer(eight, "none", one)
    weights = tmp_path / "w.h5"
    weights.write_bytes(b"weights")
    with pytest.raises(ValueError, match="has 1; `views`, for the other task, is 8"):
        Analyzer(weights, "none", one)
    assert Analyzer(weights, "none", one, views=1).views == 1


def test_an_array_that_is_no_image_costs_no_other(analyzer, large):
    found = list(analyzer.analyze_many([large[0], np.zeros((5, 5, 2)), large[0]]))
    assert str(found[1]).startswith("image 2: An image must be of shape")
    assert found[0].mask.any() and found[2].mask.any()
    with pytest.raises(ImageError, match="^An image must be of shape"):
        analyzer.analyze(np.zeros((5, 5, 2)))


def test_one_path_is_not_several(analyzer):
    with pytest.raises(TypeError, match=r"give \['mole.jpg'\]"):
        next(analyzer.analyze_many("mole.jpg"))


def test_patients_that_are_none(analyzer, large):
    with pytest.raises(TypeError, match="`patient` is a mapping.*received '50'"):
        analyzer.analyze(large[0], "50")
    with pytest.raises(TypeError, match="a patient for each image"):
        list(analyzer.analyze_many([large[0]], {"age": 50}))


def test_settings_of_numpy_are_stored(darkness, large):
    analyzer = Analyzer(darkness, Corner(), "none", risk=np.float32(0.5))
    found = analyzer.analyze(large[0], millimetres_per_pixel=np.float32(0.5))
    assert json.loads(json.dumps(found.to_dict()))["settings"]["risk"] == 0.5


def test_patients_of_whom_something_would_be_passed_over(analyzer, large):
    with pytest.raises(ValueError, match="unknown key 'Age', 'weight'; known are 'age'"):
        analyzer.analyze(large[0], patient={"Age": 50, "weight": 80, "sex": "F"})
    found = analyzer.analyze(large[0], patient={"age": 50, "gender": "F"})
    assert found.settings["patient"] == {"age": "50", "sex": "female"}


def test_patients_of_whom_something_means_nothing(analyzer, large, caplog):
    analyzer.analyze(large[0], patient={"age": "fifty", "sex": "F", "site": "Rücken"})
    assert "not known, and not used: age fifty, site rücken." in caplog.text


def test_every_task_left_out_as_the_command_line_says_it():
    with pytest.raises(ValueError, match="Every task is left out"):
        Analyzer("none", "none", ["none"])
