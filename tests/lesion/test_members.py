"""An ensemble of members with seeds of their own, through the command line."""

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from lesion.analyzer import Analyzer
from lesion.diagnosis import load_classifier
from lesion.ensemble import DiagnosisEnsemble, load_classifiers
from lesion.evaluate import main as evaluate
from lesion.export import main as export
from lesion.join import main as join
from lesion.ship import main as ship
from lesion.splits import Split
from lesion.train import main as train
from mrcnn.images import read_image
from mrcnn.weights import WeightsError

SETTINGS = [
    "--task=diagnosis",
    "--weights=none",
    "--backbone=mobilenet",  # which `small_backbone` replaces
    "--image-size=32",
    "--epochs=1",
    "--steps=2",
    "--batch=4",
    "--precision=float32",
]


@pytest.fixture(scope="class")
def trained(moles, small_backbone, tmp_path_factory):
    """Folder of an ensemble of two members, and the command that trained it."""
    logs = tmp_path_factory.mktemp("members")
    command = [f"--dataset={moles.data}", f"--logs={logs}", f"--split={moles.split}", *SETTINGS]
    command += ["--members=2", "--seed=5"]
    assert train(command) == 0
    return logs / "diagnosis-2-members", command


@pytest.fixture
def validation(trained, moles):
    """Images and labels that no member learned from."""
    names = [key.split("/")[1] for key in Split.load(moles.split).parts["validation"]]
    images = [read_image(next(moles.data.rglob(f"{name}.png"))) for name in names]
    return images, [int(name[-7:]) // 8 for name in names]


class TestMembers:
    def test_members_share_the_split_and_differ_by_seed(self, trained, moles):
        seeds, weights = [], []
        for number in (1, 2):
            (run,) = (trained[0] / f"member-{number}").glob("diagnosis2*")
            seeds.append(json.loads((run / "run.json").read_text())["seed"])
            assert Split.load(run / "split.json").parts == Split.load(moles.split).parts
            weights.append(load_classifier(run / "diagnosis_0001.h5").network.get_weights()[0])
        assert seeds == [5, 6]
        assert not np.array_equal(*weights)

    @pytest.mark.parametrize("views", [1, 8])
    def test_mean_is_calibrated_on_the_validation_part(self, trained, validation, views):
        images, labels = validation
        ensemble = load_classifiers([trained[0] / "ensemble.json"], views)
        assert isinstance(ensemble, DiagnosisEnsemble)
        mean = np.mean(
            [[d.probabilities for d in m.predict(images)] for m in ensemble.members], axis=0
        )
        rows = np.arange(len(labels))

        def loss(temperature):
            powers = mean ** (1 / temperature)
            return -np.log((powers / powers.sum(1, keepdims=True))[rows, labels]).mean()

        best = min(np.geomspace(np.exp(-3), np.exp(3), 6001), key=loss)
        assert ensemble.calibration.temperature == pytest.approx(best, rel=0.01)
        powers = mean ** (1 / ensemble.calibration.temperature)
        found = [answer.probabilities for answer in ensemble.predict(images)]
        np.testing.assert_allclose(found, powers / powers.sum(1, keepdims=True), atol=1e-9)

    def test_unsure_answers_are_referred_by_the_mean(self, trained, validation):
        images, _ = validation
        path = trained[0] / "ensemble.json"
        ensemble = load_classifiers([path], risk=0.3)
        assert ensemble.threshold == ensemble.calibration.threshold(0.3)
        for answer in ensemble.predict(images):
            assert answer.refer == (answer.probabilities.max() < ensemble.threshold)
        assert load_classifiers([path]).predict(images)[0].refer is None

    def test_what_is_shipped_and_exported_answers_alike(
        self, trained, moles, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("lesion.diagnosis_metrics.RESAMPLES", 20)
        data, path = f"--dataset={moles.data}", trained[0] / "ensemble.json"
        shipped = tmp_path / "weights"
        words = ["--task=diagnosis", data, "--command=make train-diagnosis", f"--out={shipped}"]
        assert ship([*words, f"--weights={path}", "--revision=1"]) == 0
        calibration = json.loads(path.read_text())["calibration"]
        record = json.loads((shipped / "lesion_diagnosis.ensemble.json").read_text())
        assert record["calibration"] == calibration

        monkeypatch.setattr("lesion.weights._FOLDERS", (shipped,))
        image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
        expected = load_classifiers([path]).predict([image])[0].probabilities
        analyzer = Analyzer("none", "none", views=1)
        found = analyzer.analyze(image).diagnosis.probabilities
        np.testing.assert_allclose(found, expected, atol=2e-3)  # they are stored as float16
        out = tmp_path / "model" / "1"
        assert export(["--task=diagnosis", "--weights=lesion", f"--out={out}"]) == 0
        served = tf.saved_model.load(str(out)).signatures["images"](images=image[np.newaxis])
        np.testing.assert_allclose(served["probabilities"][0], found, atol=1e-5)

        assert evaluate(["--task=diagnosis", data, "--weights=lesion", f"--out={tmp_path}"]) == 0
        model = json.loads((tmp_path / "evaluation.json").read_text())["model"]
        assert model["temperature"] == calibration["8"]["temperature"]

    def test_two_ensembles_together_have_no_common_calibration(self, trained):
        path = trained[0] / "ensemble.json"
        both = load_classifiers([path, path])
        assert (len(both.members), both.calibration) == (4, None)

    def test_members_are_joined_as_they_were_trained(self, trained, moles, tmp_path, capsys):
        members = sorted(trained[0].glob("member-*/*/diagnosis_0001.h5"))
        command = [f"--dataset={moles.data}", f"--out={tmp_path / 'joined'}"]
        assert join([*command, *(f"--weights={path}" for path in members)]) == 0
        found, expected = (
            load_classifiers([folder / "ensemble.json"], 8)
            for folder in (tmp_path / "joined", trained[0])
        )
        assert [m.weights.resolve() for m in found.members] == members
        assert found.calibration == expected.calibration
        assert Split.load(tmp_path / "joined" / "split.json").parts == Split.load(moles.split).parts

    def test_members_of_other_splits_are_not_joined(self, trained, moles, tmp_path, capsys):
        first, second = sorted(trained[0].glob("member-*/*/diagnosis_0001.h5"))
        other = shutil.copytree(second.parent, tmp_path / "other") / second.name
        parts = Split.load(moles.split).parts
        changed = {**parts, "test": parts["train"], "train": parts["test"]}
        command = [f"--dataset={moles.data}", f"--out={tmp_path / 'joined'}"]
        weights = [f"--weights={first}", f"--weights={other}"]
        for content, message in (
            (changed, "was trained on another split"),
            ({"test": ["elsewhere/1"]}, "no split beside"),
        ):
            Split(content, 0, {}).save(other.parent / "split.json")
            assert join([*command, *weights]) == 2
            assert message in capsys.readouterr().err
        assert join([*command, weights[0], weights[0]]) == 2
        assert "two different networks" in capsys.readouterr().err
        assert not (tmp_path / "joined").exists()

    def test_same_command_goes_on(self, trained, tmp_path):
        folder, command = trained
        logs = tmp_path / "logs"
        shutil.copytree(folder, logs / folder.name)
        (lost,) = (logs / folder.name / "member-2").glob("diagnosis2*")
        shutil.rmtree(lost)
        (kept,) = (logs / folder.name / "member-1").glob("diagnosis2*/diagnosis_0001.h5")
        before = kept.stat().st_mtime_ns
        assert train([*command, f"--logs={logs}", f"--cache={folder.parent / 'cache'}"]) == 0
        assert kept.stat().st_mtime_ns == before
        assert len(list((logs / folder.name).glob("member-2/*/diagnosis_0001.h5"))) == 1

    def test_another_split_is_refused(self, trained, moles, tmp_path, capsys):
        split = Split.load(moles.split)
        parts = {**split.parts, "test": split.parts["test"][1:]}
        Split(parts, 0, split.fractions).save(tmp_path / "split.json")
        assert train([*trained[1], f"--split={tmp_path / 'split.json'}"]) == 2
        assert "another split" in capsys.readouterr().err

    def test_unknown_calibration_is_refused(self, trained, tmp_path):
        folder = shutil.copytree(trained[0], tmp_path / "members")
        content = json.loads((folder / "ensemble.json").read_text())
        content["calibration"]["1"] = {"slope": 1}
        (folder / "ensemble.json").write_text(json.dumps(content))
        with pytest.raises(WeightsError, match="install a newer one"):
            load_classifiers([folder / "ensemble.json"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--members=1"], "no ensemble"),
        (["--members=2", "--folds=2"], "give one of them"),
        (["--members=2", "--weights=last"], "goes on by itself"),
        (["--jobs=2"], "this is one"),
    ],
)
def test_options_that_do_not_go_together(moles, tmp_path, capsys, options, message):
    command = [f"--dataset={moles.data}", f"--logs={tmp_path}", *SETTINGS, *options]
    assert train(command) == 2
    assert re.search(message, capsys.readouterr().err)


def test_members_beside_each_other(moles, tmp_path):
    command = [f"--dataset={moles.data}", f"--logs={tmp_path}", f"--split={moles.split}", *SETTINGS]
    assert train([*command, "--members=2", "--jobs=2"]) == 0  # whose networks are real ones
    ensemble = load_classifiers([tmp_path / "diagnosis-2-members" / "ensemble.json"])
    assert len(ensemble.members) == 2
    assert ensemble.calibration
