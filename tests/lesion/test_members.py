"""An ensemble of members with seeds of their own, through the command line."""

import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from lesion import NOTICE
from lesion import train as train_module
from lesion.analyzer import Analyzer
from lesion.diagnosis import load_classifier
from lesion.ensemble import DiagnosisEnsemble, load_classifiers
from lesion.evaluate import main as evaluate
from lesion.export import main as export
from lesion.join import main as join
from lesion.members import train_members
from lesion.samples import Sample
from lesion.ship import main as ship
from lesion.splits import Split
from lesion.train import main as train
from lesion.weights import joint_fingerprint
from mrcnn.arrays import WeightsError, load_arrays, save_arrays
from mrcnn.images import read_image
from mrcnn.weights import read_metadata

NOISE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
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
def trained(moles, small_backbone, one_by_one, tmp_path_factory):
    """Folder of an ensemble of two members, and the command that trained it."""
    logs = tmp_path_factory.mktemp("members")
    command = [f"--dataset={moles.data}", f"--logs={logs}", f"--split={moles.split}", *SETTINGS]
    command += ["--members=2", "--seed=5"]
    with one_by_one():
        assert train(command) == 0
    return logs / "diagnosis-2-members", command


@pytest.fixture(scope="class")
def shipped(trained, moles, tmp_path_factory):
    """The folder that the ensemble is shipped into."""
    out = tmp_path_factory.mktemp("shipped")
    words = ["--task=diagnosis", f"--dataset={moles.data}", "--command=make", f"--out={out}"]
    assert ship([*words, f"--weights={trained[0] / 'ensemble.json'}", "--revision=1"]) == 0
    return out


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
        lesions = Split.load(trained[0] / "split.json").marks
        assert {part: len(names) for part, names in lesions.items()} == {
            "train": 14,
            "validation": 7,
            "test": 7,
        }
        assert not np.array_equal(*weights)

    @pytest.mark.parametrize("views", [1, 8])
    def test_mean_is_calibrated_on_the_validation_part(self, eagerly, trained, validation, views):
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

    def test_unsure_answers_are_referred_by_the_mean(self, eagerly, trained, validation):
        images, _ = validation
        path = trained[0] / "ensemble.json"
        ensemble = load_classifiers([path], risk=0.3)
        threshold = ensemble.calibration.threshold(0.3)
        assert ensemble.referral == (threshold, None)
        for answer in ensemble.predict(images):
            assert answer.refer == (answer.probabilities.max() < threshold)
        assert load_classifiers([path]).predict(images)[0].refer is None
        wary = load_classifiers([path], melanoma_sensitivity=1.0)
        least = min(wary.calibration.melanoma)
        assert wary.referral == (None, least)
        for answer in wary.predict(images):
            assert answer.refer == (answer.probabilities[0] >= least)

    def test_calibration_is_shipped(self, trained, shipped):
        content = json.loads((trained[0] / "ensemble.json").read_text())
        record = json.loads((shipped / "lesion_diagnosis.ensemble.json").read_text())
        assert record["calibration"] == content["calibration"]

    def test_shipped_ensemble_answers_as_before(self, trained, shipped, monkeypatch):
        monkeypatch.setattr("lesion.weights._FOLDERS", (shipped,))
        expected = load_classifiers([trained[0] / "ensemble.json"]).predict([NOISE])[0]
        found = Analyzer("none", "none", views=1).analyze(NOISE).diagnosis
        # They are stored as float16.
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=2e-3)

    def test_exported_ensemble_answers_alike(self, trained, tmp_path):
        weights, out = trained[0] / "ensemble.json", tmp_path / "model" / "1"
        expected = load_classifiers([weights]).predict([NOISE])[0].probabilities
        assert export(["--task=diagnosis", f"--weights={weights}", f"--out={out}"]) == 0
        served = tf.saved_model.load(str(out)).signatures["images"](images=NOISE[np.newaxis])
        np.testing.assert_allclose(served["probabilities"][0], expected, atol=1e-5)
        described = json.loads((out / "assets.extra" / "model.json").read_text())
        # Members may differ: none speaks for all.
        assert "config" not in described and len(described["members"]) > 1

    def test_is_scored_with_its_calibration(self, eagerly, trained, moles, tmp_path, monkeypatch):
        monkeypatch.setattr("lesion.diagnosis_metrics.RESAMPLES", 20)
        weights = trained[0] / "ensemble.json"
        command = ["--task=diagnosis", f"--dataset={moles.data}", f"--weights={weights}"]
        assert evaluate([*command, f"--out={tmp_path}"]) == 0
        model = json.loads((tmp_path / "evaluation.json").read_text())["model"]
        content = json.loads(weights.read_text())
        assert model["temperature"] == content["calibration"]["8"]["temperature"]
        assert model["sha256"] == content["sha256"]

    def test_mean_without_the_calibration_is_something_else(self, trained):
        path = trained[0] / "ensemble.json"
        together, apart = ([path], sorted(trained[0].glob("member-*/*/diagnosis_0001.h5")))
        assert joint_fingerprint(together) != joint_fingerprint(apart)
        assert load_classifiers(together).describe()["sha256"] == joint_fingerprint(together)
        assert load_classifiers(apart).describe()["sha256"] == joint_fingerprint(apart)

    def test_an_ensemble_and_another_network_have_no_common_calibration(self, trained, tmp_path):
        arrays, metadata = load_arrays(next(trained[0].glob("member-1/*/diagnosis_0001.h5")))
        other = tmp_path / "other.h5"
        save_arrays(other, {name: 1.5 * value for name, value in arrays.items()}, metadata)
        both = load_classifiers([trained[0] / "ensemble.json", other])
        assert (len(both.members), both.calibration) == (3, None)

    def test_one_network_twice_would_count_twice(self, trained, tmp_path):
        path = trained[0] / "ensemble.json"
        copy = shutil.copy(next(trained[0].glob("member-1/*/diagnosis_0001.h5")), tmp_path / "a.h5")
        for weights in ([path, path], [path, copy]):
            with pytest.raises(ValueError, match="are the same network"):
                load_classifiers(weights)

    def test_join_needs_the_diagnoses(self, trained, moles, tmp_path, capsys):
        data = shutil.copytree(moles.data, tmp_path / moles.data.name)
        (data / "HAM10000_metadata.csv").unlink()
        paths = sorted(trained[0].glob("member-*/*/diagnosis_0001.h5"))
        members = [f"--weights={path}" for path in paths]
        assert join([f"--dataset={data}", f"--out={tmp_path / 'joined'}", *members]) == 2
        assert "images of the validation part have no diagnosis" in capsys.readouterr().err

    def test_members_are_joined_as_they_were_trained(
        self, eagerly, trained, moles, tmp_path, capsys
    ):
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

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (lambda parts: {**parts, "test": []}, "was trained on another split"),
            (lambda parts: {"test": ["elsewhere/1"]}, "no split beside"),
        ],
    )
    def test_members_of_other_splits_are_not_joined(
        self, trained, moles, tmp_path, capsys, content, message
    ):
        first, second = sorted(trained[0].glob("member-*/*/diagnosis_0001.h5"))
        other = shutil.copytree(second.parent, tmp_path / "other") / second.name
        split = Split(content(Split.load(moles.split).parts), 0, {})
        split.save(other.parent / "split.json")
        command = [f"--dataset={moles.data}", f"--out={tmp_path / 'joined'}"]
        assert join([*command, f"--weights={first}", f"--weights={other}"]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "joined").exists()

    def test_member_that_learned_from_more_is_joined(self, eagerly, trained, moles, tmp_path):
        first, second = sorted(trained[0].glob("member-*/*/diagnosis_0001.h5"))
        other = shutil.copytree(second.parent, tmp_path / "other") / second.name
        parts = dict(Split.load(moles.split).parts)
        parts["train"] = [*parts["train"], "elsewhere/1"]  # of its start weights
        Split(parts, 0, {}).save(other.parent / "split.json")
        command = [f"--dataset={moles.data}", f"--out={tmp_path / 'joined'}"]
        assert join([*command, f"--weights={first}", f"--weights={other}"]) == 0
        assert "elsewhere/1" in Split.load(tmp_path / "joined" / "split.json").parts["train"]

    def test_one_member_twice_is_not_joined(self, trained, moles, tmp_path, capsys):
        first = next(trained[0].glob("member-1/*/diagnosis_0001.h5"))
        command = [f"--dataset={moles.data}", f"--out={tmp_path / 'joined'}"]
        assert join([*command, f"--weights={first}", f"--weights={first}"]) == 2
        assert "are the same network" in capsys.readouterr().err

    def test_member_before_its_end_is_not_joined(self, trained, moles, tmp_path, capsys):
        first, second = sorted(trained[0].glob("member-*/*/diagnosis_0001.h5"))
        other = shutil.copytree(second.parent, tmp_path / "other") / second.name
        arrays, metadata = load_arrays(other)
        del metadata["calibration"]
        save_arrays(other, arrays, metadata)
        command = [f"--dataset={moles.data}", f"--out={tmp_path / 'joined'}"]
        assert join([*command, f"--weights={first}", f"--weights={other}"]) == 2
        assert "did not reach its last epoch" in capsys.readouterr().err

    def test_another_runs_folder_is_not_joined_into(self, trained, moles, tmp_path, capsys):
        members = sorted(trained[0].glob("member-*/*/diagnosis_0001.h5"))
        Split({"train": ["data/other"], "test": []}, 0, {}).save(tmp_path / "split.json")
        before = (tmp_path / "split.json").read_bytes()
        command = [f"--dataset={moles.data}", f"--out={tmp_path}"]
        assert join([*command, *(f"--weights={path}" for path in members)]) == 2
        assert "the split of something else" in capsys.readouterr().err
        assert (tmp_path / "split.json").read_bytes() == before

    def test_same_command_goes_on(self, eagerly, trained, tmp_path):
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

    @pytest.mark.parametrize(
        ("calibration", "message"),
        [
            ({"1": {"slope": 1}}, "install a newer one"),
            ({"one": {}}, "install a newer one"),
            ({"8": {"temperature": 1.5}}, "not calibrated for 1 views, but for 8"),
            ({"1": {"temperature": 0.0}}, "temperature 0.0, and it must be a number above 0"),
            ({"1": {"temperature": "2"}}, "temperature '2', and"),
            ([1.5], r"a calibration that is \[1.5\]"),
        ],
    )
    def test_unsound_calibration_is_refused(self, trained, tmp_path, calibration, message):
        folder = shutil.copytree(trained[0], tmp_path / "members")
        content = json.loads((folder / "ensemble.json").read_text())
        del content["sha256"]
        content["calibration"] = calibration
        (folder / "ensemble.json").write_text(json.dumps(content))
        with pytest.raises(WeightsError, match=message):
            load_classifiers([folder / "ensemble.json"])

    def test_changed_calibration_is_noticed(self, trained, tmp_path):
        folder = shutil.copytree(trained[0], tmp_path / "members")
        content = json.loads((folder / "ensemble.json").read_text())
        content["calibration"]["1"]["temperature"] *= 2
        (folder / "ensemble.json").write_text(json.dumps(content))
        with pytest.raises(WeightsError, match="is not what it was when it was made"):
            load_classifiers([folder / "ensemble.json"])

    def test_changed_member_is_noticed_before_anything_is_scored(
        self, trained, moles, tmp_path, capsys
    ):
        folder = shutil.copytree(trained[0], tmp_path / "members")
        next(folder.glob("member-1/*/diagnosis_0001.h5")).write_bytes(b"other")
        words = ["--task=diagnosis", f"--dataset={moles.data}", f"--out={tmp_path / 'out'}"]
        with pytest.raises(SystemExit) as stop:
            evaluate([*words, f"--weights={folder / 'ensemble.json'}"])
        assert stop.value.code == 2
        assert "is not what it was when it was made" in capsys.readouterr().err

    def test_calibration_of_an_earlier_version_has_its_hash(self, trained, tmp_path):
        """It did not know the melanomas' probabilities."""
        folder = shutil.copytree(trained[0], tmp_path / "members")
        content = json.loads((folder / "ensemble.json").read_text())
        for fitted in content["calibration"].values():
            del fitted["melanoma"]
        del content["sha256"]
        (folder / "ensemble.json").write_text(json.dumps(content))
        paths = [folder / "ensemble.json"]
        assert load_classifiers(paths).describe()["sha256"] == joint_fingerprint(paths)
        with pytest.raises(ValueError, match="join the members of an ensemble anew"):
            load_classifiers(paths, melanoma_sensitivity=0.9)

    def test_one_member_that_suspects_melanoma_is_enough(self, eagerly, trained):
        """Where they have no calibration together."""
        members = sorted(trained[0].glob("member-*/*/diagnosis_0001.h5"))
        ensemble = load_classifiers(members, melanoma_sensitivity=1.0)
        assert ensemble.calibration is None
        for number, member in enumerate(ensemble.members):
            # 0: whatever it sees; 2: nothing.
            member.referral = member.referral._replace(melanoma=2.0 * number)
        assert ensemble.predict([NOISE])[0].refer is True
        ensemble.members[0].referral = ensemble.members[1].referral
        assert ensemble.predict([NOISE])[0].refer is False

    @pytest.mark.parametrize(
        ("option", "message"),
        [("--seed=6", "--seed=5, not with --seed=6"), ("--dropout=0.3", "--dropout=0.2, not with")],
    )
    def test_other_settings_are_refused(self, trained, capsys, option, message):
        assert train([*trained[1], option]) == 2
        assert message in capsys.readouterr().err

    def test_another_prevalence_costs_no_training(self, eagerly, trained, tmp_path):
        folder, command = trained
        logs = tmp_path / "logs"
        shutil.copytree(folder, logs / folder.name)
        before = json.loads((logs / folder.name / "ensemble.json").read_text())
        again = [*command, f"--logs={logs}", f"--cache={folder.parent / 'cache'}"]
        weights = sorted((logs / folder.name).glob("member-*/*/diagnosis_0001.h5"))
        powers = []
        for option in (["--prevalence-power=0"], []):  # then what they have
            assert train([*again, *option]) == 0
            powers.append([read_metadata(path)["prevalence_power"] for path in weights])
        assert powers == [[0.0] * len(weights)] * 2
        after = json.loads((logs / folder.name / "ensemble.json").read_text())
        assert after["calibration"] != before["calibration"]


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


def test_split_that_an_earlier_version_wrote_is_none_of_other_images(tmp_path, monkeypatch):
    """Though it left a copy of what is learned from in the test part."""

    class Reached(Exception):
        pass

    def stop(*_):
        raise Reached

    monkeypatch.setattr("lesion.members.keep_settings", stop)
    keys = ["ham/ISIC_0000001"], ["ham/ISIC_0000002"], ["isic/ISIC_0000001"]
    earlier = Split(dict(zip(("train", "validation", "test"), keys, strict=True)), 0, {})
    earlier.save(tmp_path / "diagnosis-2-members" / "split.json")
    samples = [Sample("ham", f"ISIC_000000{number}", tmp_path) for number in (1, 2)]
    given = SimpleNamespace(logs=tmp_path, task="diagnosis", members=2)
    with pytest.raises(Reached):
        train_members(given, samples, earlier.with_learned(earlier), None, [])


def test_members_beside_each_other(moles, tmp_path):
    """As a user types it: the networks are real ones, which begin with ImageNet's weights."""
    settings = ["--image-size=32", "--epochs=1", "--head-epochs=1", "--steps=2", "--batch=4"]
    result = subprocess.run(
        [
            *(sys.executable, train_module.__file__, "--task=diagnosis", "--members=2", "--jobs=2"),
            *(f"--dataset={moles.data}", f"--logs={tmp_path}", *settings),
        ],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    path = tmp_path / "diagnosis-2-members" / "ensemble.json"
    assert f"Ensemble: {path}" in result.stdout
    assert NOTICE in result.stdout
    content = json.loads(path.read_text())
    assert len(content["members"]) == 2 and content["calibration"].keys() == {"1", "8"}
