"""Evaluation of the diagnosis: figures, files and exit codes, with a stand-in for the network."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import ANY

import numpy as np
import pytest
from isic_challenge_scoring import ClassificationMetric, ClassificationScore

from lesion import NOTICE
from lesion.calibration import Referral
from lesion.diagnosis import Diagnosis
from lesion.diagnosis_evaluation import (
    DiagnosisEvaluation,
    evaluate_diagnosis,
    format_diagnosis,
    summarize_diagnosis,
    write_diagnosis,
)
from lesion.diagnosis_metrics import subgroups
from lesion.ensemble import DiagnosisEnsemble
from lesion.evaluate import main
from lesion.layouts import find_samples
from lesion.samples import DIAGNOSES, Sample

KEYS = ["images", "lesions", "balanced_accuracy", "melanoma_auc", "mean_auc", "ece", "brier"]
KEYS += ["recall", "confidence"]


class ColourPredictor:
    """Knows the moles' categories by their colour, and errs now and then."""

    views, crops = 1, False

    def __init__(self, errors=0.2, refer=None):
        self.members = [self]
        self.errors = errors
        self.refer = refer
        self.referral = Referral(None if refer is None else 2.0 * refer)
        self.patients = []

    def predict(self, images, patients=None):
        self.patients += patients
        return [self._diagnosis(image) for image in images]

    def _diagnosis(self, image):
        random = np.random.default_rng(int(image[20, 20].sum()))
        category = int(np.clip(round((image[10:30, 16:36, 0].mean() - 40) / 30), 0, 6))
        if random.random() < self.errors:
            category = random.integers(7)
        values = random.dirichlet(np.ones(7)) + 2 * np.eye(7)[category]
        refer = None if self.refer is None else bool(random.random() < self.refer)
        return Diagnosis(values / values.sum(), np.full(7, 1 / 7), refer)

    def describe(self):
        return {"weights": "colour.h5", "sha256": "0123456789abcdef" * 4, "task": "diagnosis"}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr("lesion.diagnosis_metrics.RESAMPLES", 20)


@pytest.fixture
def evaluation(moles):
    return evaluate_diagnosis(ColourPredictor(refer=0.3), find_samples(moles.data).samples)


@pytest.fixture
def command(monkeypatch, tmp_path, moles):
    """The command line with a predictor that needs no weights; gives its code and its JSON."""
    monkeypatch.setattr("lesion.ensemble.load_classifiers", lambda *a, **b: ColourPredictor())
    monkeypatch.chdir(tmp_path)
    for name in ("confusion", "roc", "reliability", "coverage"):  # which take most of the time
        monkeypatch.setattr(f"lesion.diagnosis_evaluation.{name}_figure", lambda *_: None)

    def run(*arguments):
        code = main(["--task=diagnosis", "--weights=w", *map(str, arguments)])
        return code, json.loads(
            (tmp_path / "evaluation" / "diagnosis" / "evaluation.json").read_text()
        )

    return run


def test_every_sample_is_predicted_with_its_patient(moles):
    samples = find_samples(moles.data).samples
    predictor = ColourPredictor(errors=0)
    evaluation = evaluate_diagnosis(predictor, samples, batch=5)
    assert evaluation.samples == samples
    assert [d.category for d in evaluation.diagnoses] == [s.diagnosis for s in samples]
    assert predictor.patients == [sample.metadata for sample in samples]


@pytest.mark.parametrize(
    ("crops", "options", "said"),
    [(False, [], True), (True, [], False), (False, ["--boundary-weights=none"], False)],
)
def test_what_is_shown_whole_unasked_is_said(
    command, moles, monkeypatch, capsys, crops, options, said
):
    """Not of networks that find the lesion by themselves."""
    monkeypatch.setattr(ColourPredictor, "crops", crops)
    assert command("--dataset", moles.data, "--split=none", *options)[0] == 0
    assert ("Images are shown whole, while" in capsys.readouterr().out) == said


def test_heat_maps_of_members_that_are_shown_different_pictures(moles, monkeypatch, capsys):
    predictor = ColourPredictor()
    predictor.members = [SimpleNamespace(crops=crops) for crops in (True, False)]
    monkeypatch.setattr("lesion.ensemble.load_classifiers", lambda *a, **b: predictor)
    options = ["--task=diagnosis", "--weights=w", f"--dataset={moles.data}", "--heat-maps=1"]
    assert main(options) == 2
    assert "Give the weights of one member" in capsys.readouterr().err


def test_images_alone(command, moles, monkeypatch):
    seen = []

    class Noted(ColourPredictor):
        def predict(self, images, patients=None):
            seen.append(patients)
            return super().predict(images, [{}] * len(images))

    monkeypatch.setattr("lesion.ensemble.load_classifiers", lambda *a, **b: Noted())
    for options, known in (([], True), (["--images-alone"], False)):
        code, result = command(f"--dataset={moles.data}", *options)
        assert code == 0 and result["images_alone"] is not known
        assert all((patients is not None) == known for patients in seen) and seen
        seen.clear()


def test_small_lesions_from_nearby(command, moles, monkeypatch, darkness, capsys):
    shown = []

    class Noted(ColourPredictor):
        def predict(self, images, patients=None):
            shown.extend(image.shape for image in images)
            return super().predict([np.zeros((40, 52, 3), np.uint8)] * len(images), patients)

    monkeypatch.setattr("lesion.ensemble.load_classifiers", lambda *a, **b: Noted())
    monkeypatch.setattr("lesion.boundary.load_predictor", lambda *arguments, **views: darkness)
    monkeypatch.setattr("lesion.nearby.SMALL", 2)  # all of them are
    code, result = command(f"--dataset={moles.data}", "--boundary-weights=b")
    assert code == 0 and len(shown) == 56
    assert any(height == width for height, width, _ in shown)
    assert result["model"]["boundary"]["weights"] == "darkness.weights.h5"
    assert result["boundary_weights"] == {"name": "darkness.weights.h5", "sha256": ANY}
    with pytest.raises(SystemExit) as stop:
        command(f"--dataset={moles.data}", "--boundary-weights=b", "--heat-maps=1")
    assert stop.value.code == 2
    assert "--heat-maps are of whole images" in capsys.readouterr().err


def test_options_reach_the_networks(command, moles, monkeypatch):
    asked = []

    def load(weights, views, risk, *, melanoma_sensitivity):
        asked.append((weights, views, risk, melanoma_sensitivity))
        return ColourPredictor()

    monkeypatch.setattr("lesion.ensemble.load_classifiers", load)
    command(f"--dataset={moles.data}")
    options = ["--weights=v", "--views=1", "--risk=0.3", "--melanoma-sensitivity=0.9"]
    code, result = command(f"--dataset={moles.data}", *options)
    assert code == 0 and asked == [(["w"], 8, 0.1, None), (["w", "v"], 1, 0.3, 0.9)]
    assert (result["views"], result["risk"], result["referral_sensitivity"]) == (1, 0.3, 0.9)


def test_what_last_means_is_decided_once(moles, monkeypatch, tmp_path):
    """A training that goes on while images are scored does not change what is scored."""
    run = tmp_path / "logs" / "diagnosis20260101T0000"
    run.mkdir(parents=True)
    (run / "diagnosis_0001.h5").touch()
    monkeypatch.chdir(tmp_path)
    asked = []

    def load(weights, *rest, **more):
        (run / "diagnosis_0002.h5").touch()
        asked.extend(weights)
        return ColourPredictor()

    monkeypatch.setattr("lesion.ensemble.load_classifiers", load)
    assert main(["--task=diagnosis", "--weights=last", f"--dataset={moles.data}"]) == 0
    assert [Path(path).name for path in asked] == ["diagnosis_0001.h5"]


@pytest.mark.parametrize(
    ("options", "crops", "nearby"),
    [([], False, True), (["--boundary-weights=none"], False, False), ([], True, False)],
)
def test_weights_of_the_project_see_small_lesions_from_nearby(
    moles, monkeypatch, tmp_path, darkness, options, crops, nearby
):
    predictor = ColourPredictor()
    predictor.crops = crops
    monkeypatch.setattr("lesion.ensemble.load_classifiers", lambda *a, **b: predictor)
    monkeypatch.setattr("lesion.boundary.load_predictor", lambda *arguments, **views: darkness)
    for task in ("boundary", "diagnosis"):
        (tmp_path / f"lesion_{task}.weights.h5").touch()
    monkeypatch.setattr("lesion.weights._FOLDERS", [tmp_path])
    out = tmp_path / "out"
    arguments = [f"--dataset={moles.data}", "--weights=lesion", f"--out={out}", *options]
    assert main(["--task=diagnosis", *arguments]) == 0
    result = json.loads((out / "evaluation.json").read_text())
    assert (result["boundary_weights"] is not None) == nearby


def test_summary_is_plain_json_with_the_keys_promised(evaluation):
    summary = json.loads(json.dumps(summarize_diagnosis(evaluation), allow_nan=False))
    assert set(KEYS) < set(summary)
    assert (summary["images"], summary["lesions"]) == (56, 28)
    assert list(summary["recall"]) == list(summary["confidence"]["recall"]) == list(DIAGNOSES)
    assert set(KEYS[2:-1]) < set(summary["confidence"])
    assert summary["before_calibration"]["brier"] == pytest.approx(6 / 7)


def test_referred_images_are_left_out_of_the_answered(evaluation):
    summary = summarize_diagnosis(evaluation)
    assert summary["referred"] == sum(d.refer for d in evaluation.diagnoses)
    assert summary["answered"]["images"] == 56 - summary["referred"]


def test_subgroups_hold_all_images(evaluation):
    summary = summarize_diagnosis(evaluation)
    for groups in summary["subgroups"].values():
        assert sum(group["images"] for group in groups.values()) == 56
    assert list(summary["subgroups"]["age"]) == ["45-59", "unknown"]
    assert "confidence" in summary["subgroups"]["sex"]["male"]


def test_words_for_the_same_are_one_group(evaluation):
    sample = evaluation.samples[0]
    patients = [{"sex": "F"}, {"sex": "female"}, {"sex": "nan"}, {"site": "posterior torso"}]
    groups = subgroups([replace(sample, metadata=each) for each in patients])
    assert groups["sex"] == {"female": [0, 1], "unknown": [2, 3]}
    assert groups["site"] == {"back": [3], "unknown": [0, 1, 2]}


def test_text_names_all_categories_and_groups(evaluation):
    text = format_diagnosis(summarize_diagnosis(evaluation))
    for word in (*DIAGNOSES, "male", "back", "histo", "referred", "calibration error"):
        assert word in text


def test_missing_category_and_unknown_lesions(tmp_path):
    samples = [Sample("a", f"i{i}", tmp_path, diagnosis="NV") for i in range(3)]
    values = np.full(7, 1 / 7)
    evaluation = DiagnosisEvaluation(samples, [Diagnosis(values, values)] * 3)
    summary = summarize_diagnosis(evaluation, ["a", "b"])
    assert (summary["lesions"], summary["balanced_accuracy"]) == (3, 0)  # ties are wrong
    assert summary["recall"]["MEL"] is None
    assert "referred" not in summary
    assert summary["datasets"]["b"] == {"images": 0}
    assert "–" in format_diagnosis(summary)
    assert "1 of the 7 categories occurs: balanced accuracy is its" in format_diagnosis(summary)


def test_submission_scores_alike_with_the_challenges_program(evaluation, tmp_path):
    write_diagnosis(evaluation, tmp_path)
    rows = [["image", *DIAGNOSES]] + [
        [sample.image_id, *(str(float(sample.diagnosis == name)) for name in DIAGNOSES)]
        for sample in evaluation.samples
    ]
    (tmp_path / "truth.csv").write_text("\n".join(map(",".join, rows)))
    score = ClassificationScore.from_file(
        tmp_path / "truth.csv",
        tmp_path / "submission.csv",
        ClassificationMetric.BALANCED_ACCURACY,
    )
    summary = summarize_diagnosis(evaluation)
    assert summary["balanced_accuracy"] == pytest.approx(score.overall)
    assert summary["mean_auc"] == pytest.approx(score.macro_average["auc"])


def test_files(evaluation, tmp_path):
    written = write_diagnosis(evaluation, tmp_path)
    assert {path.name for path in written} == {
        "submission.csv",
        "predictions.csv",
        "confusion.png",
        "roc.png",
        "reliability.png",
        "coverage.png",
    }
    assert all(path.stat().st_size for path in written)
    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["refer"] for row in rows] == [str(int(d.refer)) for d in evaluation.diagnoses]
    for row, sample, found in zip(rows, evaluation.samples, evaluation.diagnoses, strict=True):
        assert [float(row[name]) for name in DIAGNOSES] == pytest.approx(
            found.probabilities, abs=1e-6
        )
        facts = {name: row[name] for name in ("age", "sex", "site", "confirmation")}
        assert {name: fact for name, fact in facts.items() if fact} == {
            name: fact for name, fact in sample.metadata.items() if fact
        }


def test_ids_of_two_data_sets_are_told_apart(tmp_path):
    values = np.eye(7)[0]
    samples = [Sample(name, "i", tmp_path, diagnosis="MEL") for name in ("a", "b")]
    write_diagnosis(DiagnosisEvaluation(samples, [Diagnosis(values, values)] * 2), tmp_path)
    lines = (tmp_path / "submission.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["image", "a/i", "b/i"]
    assert lines[1].split(",")[1] == "1.0"


class TestCommand:
    def test_part_of_a_split(self, command, moles, capsys):
        code, result = command("--dataset", moles.data, "--split", moles.split)
        assert (code, result["images"], result["lesions"]) == (0, 14, 7)
        assert (result["task"], result["part"]) == ("diagnosis", "test")
        assert result["notice"] == NOTICE
        printed = capsys.readouterr().out
        assert f"{result['balanced_accuracy']:.4f}" in printed and NOTICE in printed

    def test_unreadable_image_is_named_and_counted(self, command, moles, tmp_path, capsys):
        data = shutil.copytree(moles.data, tmp_path / "data")
        broken = next(data.glob("*/*.png"))
        broken.write_bytes(b"")
        code, result = command("--dataset", data, "--split=none")
        assert (code, result["images"], result["failed"]) == (1, 55, 1)
        assert str(broken) in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--views=4"], "--views"),
            (["--risk=10"], "--risk"),
            (["--risk=-0.1"], "--risk"),
            (["--melanoma-sensitivity=90"], "--melanoma-sensitivity"),
            (["--split=gone.json"], "gone.json"),
            (["--weights=a", "--task=boundary"], "once for --task=boundary"),
        ],
    )
    def test_usage_errors(self, command, moles, capsys, arguments, message):
        with pytest.raises(SystemExit) as stop:
            command("--dataset", moles.data, *arguments)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err.splitlines()[-1]  # before it, all options

    def test_data_without_diagnoses_give_a_submission(self, command, moles, tmp_path, capsys):
        data = shutil.copytree(moles.data, tmp_path / "data")
        (data / "HAM10000_metadata.csv").unlink()
        code, result = command("--dataset", data, "--split=none")
        assert (code, result["images"], result["unscored"]) == (0, 0, 56)
        assert set(KEYS) < set(result) and result["balanced_accuracy"] is None
        assert result["confidence"]["recall"] == dict.fromkeys(DIAGNOSES)
        assert "none has a diagnosis to compare with" in capsys.readouterr().out
        (table,) = (tmp_path / "evaluation" / "diagnosis").glob("*.csv")
        lines = table.read_text().splitlines()
        assert table.name == "submission.csv" and len(lines) == 57

        command("--dataset", moles.data, "--split=none", "--out=scored")
        scored = (tmp_path / "scored" / "submission.csv").read_text().splitlines()
        assert sorted(scored) == sorted(lines)


def test_images_without_a_diagnosis_are_predicted_and_not_scored(command, moles, tmp_path, capsys):
    data = shutil.copytree(moles.data, tmp_path / "data")
    table = data / "HAM10000_metadata.csv"
    header, *rows = table.read_text().splitlines()
    rows[0] = rows[0].replace(",mel,", ",,")
    table.write_text("\n".join([header, *rows]))
    code, result = command("--dataset", data, "--split=none")
    assert (code, result["images"], result["unscored"], result["failed"]) == (0, 55, 1, 0)
    assert "images predicted without a known diagnosis: 1" in capsys.readouterr().out
    for name, lines in (("submission.csv", 57), ("predictions.csv", 56)):
        assert len((tmp_path / "evaluation" / "diagnosis" / name).read_text().splitlines()) == lines


def test_table_of_other_images_is_an_error(command, moles, tmp_path, capsys):
    data = shutil.copytree(moles.data, tmp_path / "data")
    table = data / "HAM10000_metadata.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *(row.replace(",", ",other_", 1) for row in rows)]))
    with pytest.raises(SystemExit):
        command("--dataset", data, "--split=none")
    message = capsys.readouterr().err
    assert "list 56 diagnoses, and none of them is" in message and "lesion unknown" in message


def test_task3_truth_of_other_images_is_an_error(command, moles, tmp_path, capsys):
    data = tmp_path / "data"
    images = sorted((moles.data).glob("*/*.png"))[:3]
    (data / "ISIC2018_Task3_Test_Input").mkdir(parents=True)
    for path in images:
        shutil.copy(path, data / "ISIC2018_Task3_Test_Input")
    table = data / "ISIC2018_Task3_Test_GroundTruth.csv"
    table.write_text("image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nother,1,0,0,0,0,0,0\n")
    with pytest.raises(SystemExit):
        command("--dataset", data)
    assert "list 1 diagnoses, and none of them is" in capsys.readouterr().err


def test_what_is_known_of_the_patients_is_said(command, moles, tmp_path, capsys):
    data = shutil.copytree(moles.data, tmp_path / "data")
    table = data / "HAM10000_metadata.csv"
    rows = table.read_text().splitlines()
    table.write_text("\n".join(row.replace("male", "x") for row in rows))
    command("--dataset", data, "--split=none")
    printed = capsys.readouterr()
    assert "Known of the patients of 56 images: age of " in printed.out
    assert "sex " in printed.err and "is not known, and not used" in printed.err


def test_weights_that_are_none(moles, tmp_path, capsys):
    Path(tmp_path / "w.h5").write_bytes(b"none")
    arguments = [f"--dataset={moles.data}", "--split=none", f"--weights={tmp_path / 'w.h5'}"]
    assert main(["--task=diagnosis", *arguments]) == 2
    assert "w.h5 is not a weights file" in capsys.readouterr().err


class TestEnsemble:
    def test_is_the_mean_of_its_members(self, moles):
        members = [ColourPredictor(errors=0), ColourPredictor(errors=1)]
        images = [np.full((40, 52, 3), 40 + 30 * n, np.uint8) for n in range(3)]
        joint = DiagnosisEnsemble(members).predict(images, [{}] * 3)
        opinions = [member.predict(images, [{}] * 3) for member in members]
        for diagnosis, one, other in zip(joint, *opinions, strict=True):
            np.testing.assert_allclose(
                diagnosis.probabilities, (one.probabilities + other.probabilities) / 2
            )
            assert diagnosis.refer is None

    def test_refers_with_the_majority(self, moles):
        images, patients = [np.zeros((40, 52, 3), np.uint8)], [{}]
        two_of_three = [ColourPredictor(refer=share) for share in (1, 1, 0)]
        assert DiagnosisEnsemble(two_of_three).predict(images, patients)[0].refer
        assert not DiagnosisEnsemble(two_of_three[1:]).predict(images, patients)[0].refer
