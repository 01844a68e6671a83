"""From a training to the shipped file, and from there to everything that uses it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mrcnn.network
from lesion import NOTICE, evaluate, ship, train
from lesion.attribute_thresholds import DEFAULTS
from lesion.attributes import AttributesConfig, load_attributes
from lesion.boundary import BoundaryConfig, load_predictor
from lesion.diagnosis import load_classifier, with_boundary
from lesion.provenance import fingerprint
from lesion.samples import ATTRIBUTES, Sample
from lesion.splits import Split
from lesion.weights import companion
from mrcnn.arrays import load_arrays, read_metadata, save_arrays
from mrcnn.files import sha256_of
from mrcnn.images import write_image
from mrcnn.model import MaskRCNN
from mrcnn.weights import WeightsError, named_weights, save_weights

COMMAND = "make train-diagnosis DATA=data"


@pytest.fixture
def mask_rcnn(five_convolutions, monkeypatch):
    """Writes weights of an untrained Mask R-CNN of few parameters."""
    monkeypatch.setattr(mrcnn.network, "build_backbone", five_convolutions)

    def write(config_class, path, logs, **metadata):
        config = config_class(IMAGE_MAX_DIM=64, IMAGE_MIN_DIM=64, DETECTION_MIN_CONFIDENCE=0.0)
        model = MaskRCNN("inference", config, logs)
        save_weights(model.keras_model, path, {**model.metadata(), **metadata})

    return write


def half_precision(path):
    """Names of the arrays that a file keeps as float16."""
    return {name for name, array in load_arrays(path)[0].items() if array.dtype == np.float16}


def kernels(path):
    return {name for name, array in load_arrays(path)[0].items() if array.ndim > 1}


@pytest.fixture(scope="class")
def trained(moles, small_backbone, tmp_path_factory, one_by_one):
    """A short training and its evaluation."""
    folder = tmp_path_factory.mktemp("trained")
    data = ["--task=diagnosis", f"--dataset={moles.data}", f"--split={moles.split}"]
    settings = ["--weights=none", "--image-size=32", "--epochs=2", "--steps=4", "--seed=3"]
    with one_by_one():
        assert train.main([*data, *settings, f"--logs={folder / 'logs'}"]) == 0
        (weights,) = folder.glob("logs/*/diagnosis_0002.h5")
        scored = [*data[:2], f"--weights={weights}", f"--out={folder / 'evaluation'}"]
        assert evaluate.main(scored) == 0
    return SimpleNamespace(
        weights=weights, data=moles.data, figures=folder / "evaluation" / "evaluation.json"
    )


@pytest.mark.parametrize(
    ("validation", "counts"), [(["a/3"], {"train": 6, "validation": 3}), ([], {"train": 8})]
)
def test_images_that_the_members_of_an_ensemble_learned_by(validation, counts):
    """Their starts may have learned from more, which is in none of the data sets."""
    records = [
        {"data": {"parts": {"train": {"images": n}, "validation": {"images": 8 - n}}}}
        for n in (5, 6)
    ]
    split = Split({"train": ["a/1", "old/2"], "validation": validation}, 0, {})
    assert ship.learned_of(records, split) == counts


class TestDiagnosis:
    @pytest.fixture
    def run(self, trained, tmp_path):
        """Runs the command on the trained weights; gives the path of what it writes."""
        out = tmp_path / "weights"

        def run(*options, weights=trained.weights, code=0):
            words = [f"--weights={weights}", f"--command={COMMAND}", f"--out={out}"]
            data = [f"--dataset={trained.data}"]
            assert ship.main(["--task=diagnosis", *words, *data, *options]) == code
            if code:
                assert not out.exists() or not list(out.iterdir())
            return out / "lesion_diagnosis.weights.h5"

        return run

    @pytest.fixture
    def copied(self, trained, tmp_path):
        """The checkpoint with its settings and split, to be spoiled."""
        for name in (trained.weights.name, "run.json", "split.json"):
            content = (trained.weights.parent / name).read_bytes()
            (tmp_path / "run").mkdir(exist_ok=True)
            (tmp_path / "run" / name).write_bytes(content)
        return tmp_path / "run" / trained.weights.name

    def test_names_and_metadata_are_kept_and_kernels_halved(self, run, trained):
        shipped = run()
        arrays, metadata = load_arrays(trained.weights)
        rounded, kept = load_arrays(shipped)
        assert kept == metadata
        assert set(kept["calibration"]) == {"1", "8"}
        assert {name: a.shape for name, a in rounded.items()} == {
            name: a.shape for name, a in arrays.items()
        }
        assert half_precision(shipped) == kernels(trained.weights)

    def test_scores_hardly_move(self, run, trained, moles):
        images = np.random.default_rng(0).integers(0, 256, (4, 40, 52, 3), np.uint8)
        before, after = (
            load_classifier(path, risk=0.2).predict(list(images))
            for path in (trained.weights, run())
        )
        for first, second in zip(before, after, strict=True):
            np.testing.assert_allclose(first.probabilities, second.probabilities, atol=1e-3)
            assert first.probabilities.tolist() != second.probabilities.tolist()
            assert first.refer == second.refer

    def test_variables_are_of_float32(self, run):
        network = load_classifier(run()).network
        dtypes = {weight.variable.dtype for weight in named_weights(network).values()}
        assert dtypes == {"float32"}

    def test_record_tells_how_it_came_about(self, run, trained, tmp_path, capsys):
        shipped = run(f"--figures={trained.figures}", "--revision=abc")
        text = companion(shipped, ".json").read_text()
        record = json.loads(text)
        assert (record["command"], record["revision"], record["seed"]) == (COMMAND, "abc", 3)
        assert record["settings"]["image_size"] == 32
        assert record["sha256"] == sha256_of(shipped)
        assert record["bytes"] == shipped.stat().st_size
        assert record["data"]["collections"] == ["data"]
        assert [part["images"] for part in record["data"]["parts"].values()] == [28, 14, 14]
        (figures,) = record["figures"]
        assert (figures["part"], figures["images"]) == ("test", 14)
        assert figures["weights"]["sha256"] == record["checkpoint_sha256"]
        assert "balanced_accuracy" in figures["confidence"]
        assert record["notice"] == NOTICE in capsys.readouterr().out
        assert str(tmp_path.parent) not in text and str(trained.data) not in text

    def test_revision_is_asked_of_git(self, run, monkeypatch):
        asked = []

        def git(command, **options):
            asked.append((command[0], "--dirty" in command, options["cwd"]))
            return SimpleNamespace(stdout="58ad390-dirty\n")

        monkeypatch.setattr(ship.subprocess, "run", git)
        assert json.loads(companion(run(), ".json").read_text())["revision"] == "58ad390-dirty"
        assert asked == [("git", True, Path(ship.__file__).parents[1])]

    def test_revision_that_git_does_not_tell(self, run, monkeypatch, capsys):
        def git(command, **options):
            raise FileNotFoundError("git")

        monkeypatch.setattr(ship.subprocess, "run", git)
        with pytest.raises(ValueError, match="Give it by --revision"):
            ship._revision()

    def test_shipped_again_it_stays_so_that_figures_may_be_its_own(self, run, trained, tmp_path):
        shipped = run("--revision=a")
        before = sha256_of(shipped)
        figures = json.loads(trained.figures.read_text())
        figures["weights"]["sha256"] = before
        (tmp_path / "own.json").write_text(json.dumps(figures))
        run("--revision=a", f"--figures={tmp_path / 'own.json'}", f"--figures={trained.figures}")
        record = json.loads(companion(shipped, ".json").read_text())
        assert sha256_of(shipped) == record["sha256"] == before
        assert [figures["images"] for figures in record["figures"]] == [14, 14]

    def test_another_checkpoint_replaces_it(self, run, copied):
        before = sha256_of(run("--revision=a"))
        arrays, metadata = load_arrays(copied)
        save_arrays(copied, arrays, {**metadata, "epoch": 3})
        shipped = run("--revision=a", weights=copied)
        assert sha256_of(shipped) != before
        assert read_metadata(shipped)["epoch"] == 3

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ('{"weights": {"sha256": "0123456789abcdef"}}', "of other weights .*0123456789ab"),
            ("{}", "lacks 'weights'"),
            ("{", "no JSON text"),
        ],
    )
    def test_figures_of_something_else(self, run, tmp_path, capsys, content, said):
        (tmp_path / "other.json").write_text(content)
        run(f"--figures={tmp_path / 'other.json'}", "--revision=a", code=2)
        assert capsys.readouterr().err.startswith("lesion ship: ")
        with pytest.raises(ValueError, match=said):
            ship.read_figures(tmp_path / "other.json", ["a"])

    def test_unfinished_training(self, run, copied, capsys):
        arrays, metadata = load_arrays(copied)
        del metadata["calibration"]
        save_arrays(copied, arrays, metadata)
        run(weights=copied, code=2)
        assert "lacks its calibration" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["run.json", "split.json"])
    def test_checkpoint_away_from_its_run(self, run, copied, capsys, name):
        (copied.parent / name).unlink()
        run(weights=copied, code=2)
        assert f"{name} is missing" in capsys.readouterr().err

    def test_data_without_an_image_of_the_split(self, run, copied, capsys):
        parts = {"train": ["data/ISIC_0000001", "data/ISIC_0000999"], "test": []}
        Split(parts, 0, {}).save(copied.parent / "split.json")
        run("--revision=a", weights=copied, code=2)
        assert "1 images of the split, such as data/ISIC_0000999" in capsys.readouterr().err

    def test_large_network(self, run, monkeypatch, capsys):
        monkeypatch.setattr(ship, "LARGEST", 10_000)
        run("--revision=a", code=2)
        assert "10,000 are allowed" in capsys.readouterr().err

    def test_commands_know_it_as_lesion(self, eagerly, run, trained, monkeypatch, tmp_path, capsys):
        shipped = run("--revision=a")
        monkeypatch.setattr("lesion.weights._FOLDERS", (shipped.parent,))
        words = ["--task=diagnosis", "--weights=lesion", f"--dataset={trained.data}"]
        assert evaluate.main([*words, f"--out={tmp_path / 'scores'}"]) == 0
        summary = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
        assert (summary["part"], summary["images"]) == ("test", 14)  # what it has not learned from
        assert summary["split"] == str(companion(shipped, ".split.json"))
        assert summary["weights"] == {"name": shipped.name, "sha256": sha256_of(shipped)}

        settings = ["--image-size=32", "--epochs=1", "--steps=1", f"--logs={tmp_path / 'logs'}"]
        split = f"--split={companion(shipped, '.split.json')}"
        assert train.main([*words, *settings, split]) == 0
        (weights,) = tmp_path.glob("logs/*/diagnosis_0001.h5")
        before, after = load_arrays(shipped)[0], load_arrays(weights)[0]
        moved = [np.abs(after[name] - value).max() for name, value in before.items()]
        assert max(moved) < 0.1  # random kernels would be elsewhere

    def test_network_that_crops_keeps_its_boundary(self, run, copied, mask_rcnn, tmp_path):
        arrays, metadata = load_arrays(copied)
        metadata["config"]["crop"] = "lesion"
        save_arrays(copied, arrays, metadata)
        mask_rcnn(BoundaryConfig, tmp_path / "b.h5", tmp_path, task="boundary")
        with_boundary(copied, tmp_path / "b.h5")
        settings = json.loads((copied.parent / "run.json").read_text())
        settings["crop_weights"] = str(tmp_path / "b.h5")
        (copied.parent / "run.json").write_text(json.dumps(settings))
        shipped = run("--revision=a", weights=copied)
        assert set(load_arrays(shipped)[0]) == set(load_arrays(copied)[0])
        assert half_precision(shipped) == kernels(copied)
        assert read_metadata(shipped) == read_metadata(copied)
        record = json.loads(companion(shipped, ".json").read_text())
        assert record["settings"]["crop_weights"] == "b.h5"


@pytest.mark.parametrize(
    ("task", "config_class", "load", "added"),
    [
        ("boundary", BoundaryConfig, load_predictor, {}),
        (
            "attributes",
            AttributesConfig,
            load_attributes,
            {"thresholds": {by: {n: vars(t) for n, t in DEFAULTS[by].items()} for by in DEFAULTS}},
        ),
    ],
)
def test_mask_rcnn(tmp_path, mask_rcnn, task, config_class, load, added):
    data, run = tmp_path / "data", tmp_path / "run"
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    write_image(data / "ISIC2018_Task1-2_Training_Input" / "ISIC_0000000.png", image)
    mask = np.ones((48, 64), bool)
    write_image(
        data / "ISIC2018_Task1_Training_GroundTruth" / "ISIC_0000000_segmentation.png", mask
    )
    for name in ATTRIBUTES:
        folder = data / "ISIC2018_Task2_Training_GroundTruth_v3"
        write_image(folder / f"ISIC_0000000_attribute_{name}.png", mask)
    run.mkdir()
    checkpoint = run / f"mask_rcnn_{task}_0001.h5"
    mask_rcnn(config_class, checkpoint, tmp_path, task=task, **added)
    (run / "run.json").write_text(json.dumps({"seed": 0}))
    Split({"train": ["data/ISIC_0000000"]}, 0, {}).save(run / "split.json")
    shipped = ship.ship(task, checkpoint, [data], "make", tmp_path / "out", revision="a")
    assert set(load_arrays(shipped)[0]) == set(load_arrays(checkpoint)[0])
    assert read_metadata(shipped) == read_metadata(checkpoint)
    assert half_precision(shipped) == kernels(checkpoint)
    assert load(shipped).predict([image])


@pytest.mark.parametrize("epochs", [1, 2])
def test_only_a_finished_training(tmp_path, mask_rcnn, epochs):
    data, run = tmp_path / "data", tmp_path / "run"
    image = np.zeros((48, 64, 3), np.uint8)
    write_image(data / "images" / "a.png", image)
    write_image(data / "masks" / "a.png", image[:, :, 0] == 0)
    run.mkdir()
    checkpoint = run / "mask_rcnn_boundary_0001.h5"
    mask_rcnn(BoundaryConfig, checkpoint, tmp_path, task="boundary", epoch=1)
    (run / "run.json").write_text(json.dumps({"seed": 0, "epochs": epochs}))
    Split({"train": ["data/a"]}, 0, {}).save(run / "split.json")
    out = tmp_path / "out"
    if epochs == 1:
        assert ship.ship("boundary", checkpoint, [data], "make", out, revision="a").is_file()
        return
    with pytest.raises(WeightsError, match="epoch 1 of 2"):
        ship.ship("boundary", checkpoint, [data], "make", out, revision="a")
    assert not list(out.glob("*"))


class TestFingerprint:
    @pytest.fixture
    def samples(self, tmp_path):
        for name in ("a", "b", "mask", "streaks"):
            (tmp_path / name).write_bytes(name.encode())
        return [
            Sample(
                "data",
                name,
                tmp_path / name,
                mask=tmp_path / "mask",
                attributes={"streaks": tmp_path / "streaks"},
                diagnosis="NV",
                metadata={"sex": "male", "age": "40"},
            )
            for name in ("a", "b")
        ]

    @pytest.mark.parametrize("task", ["boundary", "attributes", "diagnosis"])
    def test_order_and_place_do_not_matter(self, samples, task):
        elsewhere = [Sample(**{**vars(sample), "collection": "other"}) for sample in samples[::-1]]
        assert fingerprint(task, samples) == fingerprint(task, elsewhere)

    @pytest.mark.parametrize(
        ("file", "matters"),
        [
            ("a", ["boundary", "attributes", "diagnosis"]),
            ("mask", ["boundary"]),
            ("streaks", ["attributes"]),
        ],
    )
    def test_what_is_learned_from_matters(self, samples, tmp_path, file, matters):
        tasks = ("boundary", "attributes", "diagnosis")
        before = {task: fingerprint(task, samples) for task in tasks}
        (tmp_path / file).write_bytes(b"changed")
        assert [t for t in tasks if fingerprint(t, samples) != before[t]] == matters

    def test_labels_matter_for_the_diagnosis_alone(self, samples):
        other = [Sample(**{**vars(sample), "diagnosis": "MEL"}) for sample in samples]
        assert fingerprint("boundary", samples) == fingerprint("boundary", other)
        assert fingerprint("diagnosis", samples) != fingerprint("diagnosis", other)
