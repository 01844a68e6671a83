"""Cross-validation and its ensemble through the command line."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lesion.analyzer import Analyzer
from lesion.diagnosis import load_classifier
from lesion.ensemble import DiagnosisEnsemble, load_classifiers
from lesion.evaluate import main as evaluate
from lesion.export import main as export
from lesion.folds import split_folds
from lesion.samples import DIAGNOSES, Sample
from lesion.ship import main as ship
from lesion.splits import Split, SplitError
from lesion.train import main as train
from lesion.weights import write_ensemble
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
    "--folds=2",
]


def sample(number, lesion, diagnosis):
    name = f"i{number:03d}"
    return Sample("set", name, Path(f"{name}.jpg"), lesion_id=lesion, diagnosis=diagnosis)


class TestSplit:
    """Of what is not tested on, into folds."""

    @pytest.fixture
    def samples(self):
        diagnoses = ("MEL", "NV", "NV", "BKL")
        return [
            sample(number, f"L{number // 2}", diagnoses[number // 2 % 4]) for number in range(120)
        ]

    def test_each_image_is_in_one_fold(self, samples):
        folds = split_folds(samples, 5)
        assert sorted(key for fold in folds for key in fold) == [s.key for s in samples]

    def test_share_no_lesion(self, samples):
        lesion = {s.key: s.lesion_id for s in samples}
        folds = [{lesion[key] for key in fold} for fold in split_folds(samples, 5)]
        assert sum(map(len, folds)) == len(set.union(*folds)) == 60

    def test_hold_the_diagnoses_in_like_shares(self, samples):
        diagnosis = {s.key: s.diagnosis for s in samples}
        for fold in split_folds(samples, 5):
            assert Counter(diagnosis[key] for key in fold)["MEL"] == pytest.approx(6, abs=2)

    def test_do_not_depend_on_the_order_of_the_samples(self, samples):
        assert split_folds(samples[::-1], 3, 1) == split_folds(samples, 3, 1)
        assert split_folds(samples, 3, 2) != split_folds(samples, 3, 1)

    def test_need_as_many_lesions(self, samples):
        with pytest.raises(SplitError, match="1 lesions cannot be divided into 3"):
            split_folds(samples[:2], 3)

    def test_need_a_diagnosis_of_as_many_images(self):
        samples = [sample(number, f"L{number}", DIAGNOSES[number % 7]) for number in range(28)]
        with pytest.raises(SplitError, match="No diagnosis has 5 images"):
            split_folds(samples, 5)

    def test_rare_diagnosis_is_no_warning(self, samples):
        split_folds([*samples, sample(120, "R", "DF")], 5)


@pytest.fixture(scope="class")
def trained(moles, small_backbone, one_by_one, tmp_path_factory):
    """Logs of a cross-validation of two folds, and the command."""
    logs = tmp_path_factory.mktemp("folds")
    command = [f"--dataset={moles.data}", f"--logs={logs}", f"--split={moles.split}", *SETTINGS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lesion.diagnosis_metrics.RESAMPLES", 20)
        with one_by_one():
            assert train(command) == 0
    return logs / "diagnosis-2-folds", command


class TestFolds:
    def test_members_are_validated_on_what_they_did_not_learn(self, trained, moles):
        folder, _ = trained
        test = Split.load(moles.split).parts["test"]
        held_out = []
        for number in (1, 2):
            parts = Split.load(folder / f"fold-{number}.json").parts
            assert sorted(parts["test"]) == sorted(test)
            assert not set(parts["train"]) & {*parts["validation"], *test}
            held_out += parts["validation"]
        assert sorted([*held_out, *test]) == sorted(f"data/ISIC_{n:07d}" for n in range(56))
        lesions = Split.load(folder / "split.json").marks
        assert (len(lesions["train"]), len(lesions["test"])) == (21, 7)

    def test_start_that_has_seen_the_images_is_refused(self, trained, moles, tmp_path, capsys):
        (start,) = trained[0].glob("fold-1/diagnosis2*/diagnosis_0001.h5")
        command = [f"--dataset={moles.data}", f"--logs={tmp_path}", *SETTINGS, "--folds=2"]
        assert train([*command, f"--weights={start}"]) == 2
        message = capsys.readouterr().err
        assert "has learned from 42 of these 56 images" in message and "--members" in message

    def test_all_images_are_scored_once(self, trained):
        summary = json.loads((trained[0] / "cross_validation.json").read_text())
        assert (summary["images"], summary["lesions"]) == (42, 21)

    def test_ensemble_is_scored_on_the_test_part(
        self, eagerly, trained, moles, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("lesion.diagnosis_metrics.RESAMPLES", 20)
        ensemble = trained[0] / "ensemble.json"
        assert isinstance(load_classifiers([ensemble]), DiagnosisEnsemble)
        command = ["--task=diagnosis", f"--dataset={moles.data}", f"--weights={ensemble}"]
        assert evaluate([*command, f"--out={tmp_path}", "--views=1"]) == 0
        result = json.loads((tmp_path / "evaluation.json").read_text())
        assert (result["images"], len(result["model"]["members"])) == (14, 2)

    def test_ensemble_is_shipped_under_one_word(
        self, trained, moles, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr("lesion.diagnosis_metrics.RESAMPLES", 20)
        shipped = tmp_path / "weights"
        data = f"--dataset={moles.data}"
        words = ["--task=diagnosis", data, "--command=make train-diagnosis", f"--out={shipped}"]
        command = [*words, f"--weights={trained[0] / 'ensemble.json'}", "--revision=1"]
        assert ship(command) == 0
        names = {"", "_1", "_2"}
        assert {path.name for path in shipped.iterdir()} == {
            "lesion_diagnosis.ensemble.json",
            *(f"lesion_diagnosis_{number}.weights.h5" for number in (1, 2)),
            *(f"lesion_diagnosis_{number}.json" for number in (1, 2)),
            *(f"lesion_diagnosis{name}.split.json" for name in names),
        }
        monkeypatch.setattr("lesion.weights._FOLDERS", (shipped,))
        scored = ["--task=diagnosis", data, "--weights=lesion", "--views=1"]
        assert evaluate([*scored, f"--out={tmp_path / 'scores'}"]) == 0
        figures = tmp_path / "scores" / "evaluation.json"
        result = json.loads(figures.read_text())
        assert (result["images"], len(result["model"]["members"])) == (14, 2)
        assert result["split"] == str(shipped / "lesion_diagnosis.split.json")

        assert ship([*command, f"--figures={figures}"]) == 0
        record = json.loads((shipped / "lesion_diagnosis.ensemble.json").read_text())
        (kept,) = record["figures"]
        assert kept["balanced_accuracy"] == result["balanced_accuracy"]
        assert record["sha256"] == result["weights"]["sha256"]
        assert record["bytes"] == sum(path.stat().st_size for path in shipped.glob("*.h5"))

        image = np.zeros((40, 50, 3), np.uint8)
        expected = load_classifiers(["lesion"]).predict([image])[0].probabilities
        found = Analyzer("none", "none", views=1).analyze(image).diagnosis.probabilities
        np.testing.assert_allclose(found, expected, rtol=1e-5)  # of batches of 16 and of 1
        out = tmp_path / "model" / "1"
        assert export(["--task=diagnosis", "--weights=lesion", f"--out={out}"]) == 0
        served = tf.saved_model.load(str(out)).signatures["images"](images=image[np.newaxis])
        np.testing.assert_allclose(served["probabilities"][0], expected, atol=1e-5)

        with pytest.raises(WeightsError, match=r"one network .*lesion_diagnosis_1\.weights\.h5"):
            load_classifier("lesion")
        start = [option for option in SETTINGS if not option.startswith(("--folds", "--weights"))]
        assert train([data, *start, "--weights=lesion", f"--logs={tmp_path / 'logs'}"]) == 0
        (split,) = (tmp_path / "logs").glob("diagnosis2*/split.json")
        own = Split.load(shipped / "lesion_diagnosis_1.split.json")
        assert Split.load(split).parts == own.parts

        (shipped / "lesion_diagnosis_2.weights.h5").write_bytes(b"other")
        with pytest.raises(WeightsError, match="is not what it was when it was made"):
            load_classifiers(["lesion"])
        (shipped / "lesion_diagnosis_2.weights.h5").unlink()
        with pytest.raises(FileNotFoundError, match=r"_2\.weights\.h5 is missing"):
            Analyzer("none", "none")
        (weights,) = trained[0].glob("fold-1/diagnosis2*/diagnosis_0001.h5")
        assert ship([*words, f"--weights={weights}", "--revision=1"]) == 0
        assert {path.name for path in shipped.iterdir()} == {
            f"lesion_diagnosis.{ending}" for ending in ("weights.h5", "json", "split.json")
        }

    def test_member_that_was_shipped_before_stays_as_it_is(self, trained, moles, tmp_path):
        words = ["--task=diagnosis", f"--dataset={moles.data}", "--command=make train-diagnosis"]
        first = [f"--weights={trained[0] / 'ensemble.json'}", f"--out={tmp_path / 'first'}"]
        assert ship([*words, *first, "--revision=1"]) == 0
        (fresh,) = trained[0].glob("fold-1/diagnosis2*/diagnosis_0001.h5")
        (tmp_path / "joined").mkdir()
        shutil.copy(trained[0] / "split.json", tmp_path / "joined")
        joined = tmp_path / "joined" / "ensemble.json"
        names = ["../first/lesion_diagnosis_2.weights.h5", os.path.relpath(fresh, joined.parent)]
        write_ensemble(joined, "diagnosis", names)
        # Into another folder, and over what it is made of.
        for out in ("second", "first"):
            before = {
                ending: (tmp_path / "first" / f"lesion_diagnosis_2{ending}").read_bytes()
                for ending in (".weights.h5", ".split.json", ".json")
            }
            figures = tmp_path / "evaluation.json"
            scored = load_classifiers([joined]).describe()["sha256"]
            figures.write_text(json.dumps({"weights": {"sha256": scored}, "images": 3}))
            again = [f"--weights={joined}", f"--out={tmp_path / out}", "--revision=2"]
            again.append(f"--figures={figures}")
            assert ship([*words, *again]) == 0
            for ending, content in before.items():
                assert (tmp_path / out / f"lesion_diagnosis_1{ending}").read_bytes() == content
            new = json.loads((tmp_path / out / "lesion_diagnosis_2.json").read_text())
            assert new["revision"] == "2"

    def test_half_an_ensemble_is_not_shipped(self, trained, moles, tmp_path, capsys):
        folder = shutil.copytree(trained[0], tmp_path / "folds")
        (lost,) = folder.glob("fold-2/diagnosis2*/run.json")
        lost.unlink()
        command = ["--task=diagnosis", f"--dataset={moles.data}", "--command=make"]
        out = tmp_path / "weights"
        weights = f"--weights={folder / 'ensemble.json'}"
        assert ship([*command, weights, f"--out={out}", "--revision=1"]) == 2
        assert "run.json is missing" in capsys.readouterr().err
        assert not list(out.iterdir())

    def test_same_command_goes_on(self, eagerly, trained, tmp_path, monkeypatch, small_backbone):
        monkeypatch.setattr("lesion.diagnosis_metrics.RESAMPLES", 20)
        folder, command = trained
        logs = tmp_path / "logs"
        shutil.copytree(folder, logs / folder.name)
        (lost,) = (logs / folder.name / "fold-2").glob("diagnosis2*")
        shutil.rmtree(lost)
        (kept,) = (logs / folder.name / "fold-1").glob("diagnosis2*/diagnosis_0001.h5")
        before = kept.stat().st_mtime_ns
        assert train([*command, f"--logs={logs}", f"--cache={folder.parent / 'cache'}"]) == 0
        assert kept.stat().st_mtime_ns == before
        assert len(list((logs / folder.name).glob("fold-2/diagnosis2*/diagnosis_0001.h5"))) == 1

    def test_other_images_are_refused(self, trained, moles, tmp_path, capsys):
        _, command = trained
        split = Split.load(moles.split)
        parts = {**split.parts, "test": split.parts["test"][1:]}
        Split(parts, 0, split.fractions).save(tmp_path / "split.json")
        assert train([*command, f"--split={tmp_path / 'split.json'}"]) == 2
        assert "another split" in capsys.readouterr().err

    def test_other_folds_are_refused(self, trained, capsys):
        before = (trained[0] / "fold-1.json").read_bytes()
        assert train([*trained[1], "--split-seed=1"]) == 2
        assert "other folds than --split-seed=1 draws" in capsys.readouterr().err
        assert (trained[0] / "fold-1.json").read_bytes() == before

    def test_weights_of_different_splits_are_refused(self, trained, moles, tmp_path, capsys):
        (weights,) = trained[0].glob("fold-1/diagnosis2*/diagnosis_0001.h5")
        other = shutil.copytree(weights.parent, tmp_path / "other") / weights.name
        Split({"train": [], "test": ["data/ISIC_0000000"]}, 0, {}).save(other.parent / "split.json")
        command = ["--task=diagnosis", f"--dataset={moles.data}", f"--out={tmp_path}"]
        with pytest.raises(SystemExit):
            evaluate([*command, f"--weights={weights}", f"--weights={other}", "--part=test"])
        assert "different test parts" in capsys.readouterr().err


def test_split_without_a_test_part(eagerly, moles, small_backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("lesion.diagnosis_metrics.RESAMPLES", 20)
    split = Split.load(moles.split)
    parts = {"train": [*split.parts["train"], *split.parts["test"]], "validation": []}
    Split(parts, 0, {}).save(tmp_path / "split.json")
    options = [f"--dataset={moles.data}", f"--logs={tmp_path}"]
    assert train([*options, f"--split={tmp_path / 'split.json'}", *SETTINGS]) == 0
    summary = json.loads((tmp_path / "diagnosis-2-folds" / "cross_validation.json").read_text())
    assert summary["images"] == len(parts["train"])


def test_one_fold_is_refused(moles, tmp_path, capsys):
    command = [f"--dataset={moles.data}", f"--logs={tmp_path}", *SETTINGS, "--folds=1"]
    assert train(command) == 2
    assert "--folds=1 leaves nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"members": 3}', '{"members": []}', '{"members": "abc"}', "{"]
)
def test_file_that_is_no_ensemble(tmp_path, content):
    (tmp_path / "ensemble.json").write_text(content)
    with pytest.raises(WeightsError, match="does not name the members|no whole JSON text"):
        load_classifiers([tmp_path / "ensemble.json"])


def test_continuing_with_last_is_refused(moles, tmp_path, capsys):
    command = [f"--dataset={moles.data}", f"--logs={tmp_path}", *SETTINGS, "--weights=last"]
    assert train(command) == 2
    assert "goes on by itself" in capsys.readouterr().err
