"""Scores of attributes, against the challenge's own scorer and on folders with faults."""

import csv
import errno
import json
import shutil
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from lesion import NOTICE
from lesion.attribute_thresholds import METHODS
from lesion.attributes_evaluation import (
    evaluate_attributes,
    format_attributes,
    summarize_attributes,
)
from lesion.checks import check_samples
from lesion.evaluate import main
from lesion.layouts import find_samples
from lesion.samples import ATTRIBUTES
from mrcnn.images import write_image

TRUTHS = "ISIC2018_Task2_Training_GroundTruth_v3"


class ColourPredictor:
    """Takes a pixel of the value 100 + i for attribute i; stands in for a trained network."""

    method = "combined"

    def predict(self, images):
        return [
            SimpleNamespace(masks=masks["combined"]) for masks in self.predict_by_method(images)
        ]

    def predict_by_method(self, images):
        return [
            {
                "combined": {n: image[:, :, 0] == 100 + i for i, n in enumerate(ATTRIBUTES)},
                "semantic": dict.fromkeys(ATTRIBUTES, np.zeros(image.shape[:2], bool)),
                "instances": dict.fromkeys(ATTRIBUTES, np.ones(image.shape[:2], bool)),
            }
            for image in images
        ]

    def describe(self):
        return {"task": "attributes", "weights": "colours.h5", "sha256": "01" * 32}


@pytest.fixture
def folder(tmp_path):
    """Images of several sizes whose colours say nearly what is true; streaks are in none."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for number, shape in enumerate([(36, 40), (60, 50), (33, 47), (32, 32)]):
        image_id = f"ISIC_{number:07d}"
        image = np.zeros((*shape, 3), np.uint8)
        for place, name in enumerate(ATTRIBUTES):
            truth = np.zeros(shape, bool)
            if name != "streaks" and rng.random() < 0.7:
                top, left = rng.integers(0, 10, 2)
                truth[top : top + 9, left : left + 9] = True
                image[np.roll(truth, 2, axis=0)] = 100 + place
            path = root / TRUTHS / f"{image_id}_attribute_{name}.png"
            write_image(path, truth)
        write_image(root / "ISIC2018_Task1-2_Training_Input" / f"{image_id}.png", image)
    return root


def evaluate(folder, **arguments):
    return evaluate_attributes(ColourPredictor(), find_samples(folder).samples, **arguments)


def test_scores_are_those_of_the_challenge(folder, tmp_path):
    task2 = pytest.importorskip("isic_challenge_scoring.task2")
    evaluation = evaluate(folder, predictions=tmp_path / "predictions", batch=3)
    summary = summarize_attributes(evaluation, "combined")
    official = task2.score(folder / TRUTHS, tmp_path / "predictions")
    assert summary["jaccard"] == pytest.approx(official["overall"], abs=1e-12)
    assert summary["dice"] == pytest.approx(official["micro_average"]["dice"], abs=1e-12)
    for name in ATTRIBUTES:
        own = {key: summary["attributes"][name][key] for key in ("jaccard", "dice")}
        assert own == pytest.approx(official[name], abs=1e-12)


def test_summary_has_the_keys_that_are_promised(folder):
    summary = summarize_attributes(evaluate(folder), "combined")
    assert summary["images"] == 4
    assert set(summary["attributes"]) == set(ATTRIBUTES)
    assert {"jaccard", "dice", "images_present"} <= set(summary["attributes"]["globules"])
    assert summary["attributes"]["streaks"]["images_present"] == 0
    low, high = summary["interval"]
    assert 0 <= low <= summary["jaccard"] <= high <= 1
    json.dumps(summary, allow_nan=False)


def test_every_method_has_its_own_scores(folder):
    methods = summarize_attributes(evaluate(folder), "combined")["methods"]
    assert set(methods) == set(METHODS)
    assert methods["semantic"]["jaccard"] == 0
    assert 0 < methods["instances"]["jaccard"] < methods["combined"]["jaccard"]


def test_an_attribute_that_never_occurs_is_said_to(folder):
    text = format_attributes(summarize_attributes(evaluate(folder), "combined"))
    assert "Not in any of these images: streaks" in text


def test_an_attribute_without_masks_is_not_scored(folder):
    for path in (folder / TRUTHS).glob("*_globules.png"):
        path.unlink()
    summary = summarize_attributes(evaluate(folder), "combined")
    found = summary["attributes"]["globules"]
    assert (found["jaccard"], found["dice"], found["images"]) == (None, None, 0)
    text = format_attributes(summary)
    assert "No image has a mask of globules: not scored." in text
    assert "Not in any of these images: streaks;" in text
    json.dumps(summary, allow_nan=False)


class TestFaults:
    def test_a_missing_mask_is_named_and_the_others_are_scored(self, folder):
        whole = summarize_attributes(evaluate(folder), "combined")
        (folder / TRUTHS / "ISIC_0000001_attribute_globules.png").unlink()
        collection = find_samples(folder)
        (problem,) = collection.problems
        assert problem.reason == "no mask of the attribute globules"
        summary = summarize_attributes(evaluate(folder), "combined")
        assert summary["images"] == 4
        assert summary["attributes"]["globules"]["images"] == 3
        same = ("pigment_network", "negative_network", "streaks", "milia_like_cyst")
        for name in same:
            assert summary["attributes"][name] == whole["attributes"][name]

    def test_a_mask_of_another_size_is_named_and_not_scored(self, folder):
        path = folder / TRUTHS / "ISIC_0000002_attribute_streaks.png"
        write_image(path, np.zeros((33, 48), bool))
        evaluation = evaluate(folder)
        assert [str(problem) for problem in evaluation.problems] == [
            f"{path}: mask of another size: 48 x 33 pixels, its image 47 x 33"
        ]
        summary = summarize_attributes(evaluation, "combined")
        assert summary["attributes"]["streaks"]["images"] == 3

    def test_a_mask_that_cannot_be_read_is_named(self, folder):
        path = folder / TRUTHS / "ISIC_0000002_attribute_streaks.png"
        path.write_bytes(b"no picture")
        (problem,) = evaluate(folder).problems
        assert problem.path == path

    def test_an_image_that_cannot_be_read_is_named(self, folder):
        path = folder / "ISIC2018_Task1-2_Training_Input" / "ISIC_0000003.png"
        path.write_bytes(b"")
        evaluation = evaluate(folder)
        assert [str(problem) for problem in evaluation.problems] == [f"{path}: the file is empty."]
        assert len(evaluation.samples) == 3

    def test_an_image_without_masks_is_named(self, folder):
        for path in (folder / TRUTHS).glob("ISIC_0000000_*"):
            path.unlink()
        (problem,) = evaluate(folder).problems
        assert problem.reason == "image without attribute masks"

    def test_nothing_to_score_is_said(self):
        evaluation = evaluate_attributes(ColourPredictor(), [])
        summary = summarize_attributes(evaluation, "combined")
        assert (summary["images"], summary["jaccard"]) == (0, None)
        assert format_attributes(summary) == "No image could be scored."


class TestCheck:
    """What is left out of a training, and why."""

    def reasons(self, folder):
        collection = check_samples(find_samples(folder), "attributes")
        return collection, [(p.path.name, p.reason) for p in collection.problems]

    def test_blank_masks_are_sound(self, folder):
        collection, reasons = self.reasons(folder)
        assert (len(collection.samples), reasons) == (4, [])

    def test_a_mask_that_covers_everything_is_sound(self, folder):
        path = folder / TRUTHS / "ISIC_0000000_attribute_pigment_network.png"
        write_image(path, np.ones((36, 40), bool))
        assert self.reasons(folder)[1] == []

    def test_faults_leave_their_image_out(self, folder):
        truths = folder / TRUTHS
        (truths / "ISIC_0000000_attribute_streaks.png").unlink()
        write_image(truths / "ISIC_0000001_attribute_globules.png", np.zeros((9, 9), bool))
        (truths / "ISIC_0000002_attribute_globules.png").write_bytes(b"")
        collection, reasons = self.reasons(folder)
        assert [sample.image_id for sample in collection.samples] == ["ISIC_0000003"]
        assert sorted(reasons) == [
            ("ISIC_0000000.png", "no mask of the attribute streaks"),
            (
                "ISIC_0000001_attribute_globules.png",
                "mask of another size: 9 x 9 pixels, its image 50 x 60",
            ),
            ("ISIC_0000002_attribute_globules.png", "the file is empty."),
        ]


class TestCommand:
    @pytest.fixture
    def command(self, monkeypatch, tmp_path):
        module = ModuleType("lesion.attributes")
        module.load_attributes = lambda weights, method: asked.append(method) or ColourPredictor()
        asked = self.asked = []
        monkeypatch.setitem(sys.modules, "lesion.attributes", module)
        monkeypatch.chdir(tmp_path)
        return lambda *arguments: main(["--task=attributes", "--weights=w", *arguments])

    def test_prints_and_writes_the_scores(self, folder, command, tmp_path, capsys):
        code = command(f"--dataset={folder}", "--split=none", "--predictions=masks")
        printed = capsys.readouterr().out
        assert code == 0
        assert NOTICE in printed
        assert "pigment_network" in printed
        result = json.loads(
            (tmp_path / "evaluation" / "attributes" / "evaluation.json").read_text()
        )
        assert result["notice"] == NOTICE
        assert {"images", "jaccard", "dice", "attributes"} <= set(result)
        with open(tmp_path / "evaluation" / "attributes" / "attributes.csv", newline="") as file:
            assert len(list(csv.DictReader(file))) == 4 * len(ATTRIBUTES)
        assert (tmp_path / "evaluation" / "attributes" / "disagreements.png").stat().st_size > 1000
        assert len(list((tmp_path / "masks").glob("*_attribute_*.png"))) == 4 * len(ATTRIBUTES)

    def test_method(self, folder, command):
        for options in ([], ["--method=semantic"]):
            assert command(f"--dataset={folder}", "--split=none", *options) == 0
        assert self.asked == ["combined", "semantic"]

    def test_full_disk_costs_no_score(self, folder, command, tmp_path, monkeypatch, capsys):
        def full(path, *arguments):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        monkeypatch.setattr("lesion.submission.write_image", full)
        code = command(f"--dataset={folder}", "--split=none", "--predictions=masks")
        assert code == 1
        assert "No space left on device" in capsys.readouterr().err
        result = json.loads(
            (tmp_path / "evaluation" / "attributes" / "evaluation.json").read_text()
        )
        assert (result["images"], result["failed"]) == (4, 0)

    def test_images_that_lack_some_masks_are_counted(self, folder, command, tmp_path, capsys):
        (folder / TRUTHS / "ISIC_0000001_attribute_globules.png").unlink()
        assert command(f"--dataset={folder}", "--split=none") == 1
        result = json.loads(
            (tmp_path / "evaluation" / "attributes" / "evaluation.json").read_text()
        )
        assert (result["images"], result["incomplete"], result["failed"]) == (4, 1, 0)
        assert "1 of these images lack masks of some attributes" in capsys.readouterr().out

    def test_data_sets_with_the_same_names_keep_their_masks(self, folder, command, tmp_path):
        shutil.copytree(folder, tmp_path / "again")
        data = [f"--dataset={folder}", f"--dataset={tmp_path / 'again'}"]
        assert command(*data, "--split=none", "--predictions=masks") == 0
        masks = {path.name for path in (tmp_path / "masks").iterdir()}
        assert len(masks) == 2 * 4 * len(ATTRIBUTES)
        assert "again_ISIC_0000001_attribute_globules.png" in masks

    def test_images_without_masks_are_predicted_all_the_same(self, folder, command, tmp_path):
        for path in (folder / TRUTHS).glob("ISIC_0000001_*"):
            path.unlink()
        assert command(f"--dataset={folder}", "--split=none", "--predictions=masks") == 0
        result = json.loads(
            (tmp_path / "evaluation" / "attributes" / "evaluation.json").read_text()
        )
        assert (result["images"], result["unscored"], result["problems"]) == (3, 1, [])
        assert len(list((tmp_path / "masks").iterdir())) == 4 * len(ATTRIBUTES)

    def test_a_data_set_without_attributes_is_refused(self, folder, command, capsys):
        for path in (folder / TRUTHS).iterdir():
            path.unlink()
        with pytest.raises(SystemExit) as error:
            command(f"--dataset={folder}", "--split=none")
        assert error.value.code == 2
        assert "mask of an attribute to compare with" in capsys.readouterr().err
