"""Evaluation: scores, files and exit codes on small data sets with a stand-in for the network."""

import csv
import itertools
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from lesion import NOTICE
from lesion.boundary_evaluation import (
    BoundaryEvaluation,
    choose_cases,
    evaluate_boundary,
    format_table,
    summarize_boundary,
    write_boundary,
)
from lesion.evaluate import main
from lesion.layouts import find_samples
from lesion.metrics import METRICS, boundary_metrics
from lesion.samples import Sample
from lesion.selection import require_truths, select
from lesion.splits import Split
from lesion.writing import writing_alone
from mrcnn.images import read_image, read_mask, write_image

KEYS = ["images", *METRICS]


@pytest.fixture
def dataset(tmp_path, lesion_image):
    """Makes a plain data set, no image a copy, whose truth is shifted by 0, 1, 2, ... pixels."""
    brightness = itertools.count(255, -1)

    def make(name="first", images=4):
        root = tmp_path / name
        for number in range(images):
            image, mask = lesion_image()
            image[0, 0, 0] = next(brightness)
            write_image(root / "images" / f"i{number}.png", image)
            write_image(root / "masks" / f"i{number}.png", np.roll(mask, number, axis=1))
        return root

    return make


@pytest.fixture
def command(monkeypatch, darkness, tmp_path):
    """The command line with a predictor that needs no weights; gives its code and its JSON."""
    module = ModuleType("lesion.boundary")
    module.load_predictor = lambda weights, views: darkness
    monkeypatch.setitem(sys.modules, "lesion.boundary", module)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        given = any(str(argument).startswith("--weights") for argument in arguments)
        code = main([*([] if given else ["--weights", "w"]), *map(str, arguments)])
        path = tmp_path / "evaluation" / "boundary" / "evaluation.json"
        return code, json.loads(path.read_text()) if path.is_file() else None

    return run


def shifted(lesion_image, pixels):
    _, mask = lesion_image()
    return boundary_metrics(mask, np.roll(mask, pixels, axis=1))


# === Functions ===


def test_scores_are_those_of_the_masks(dataset, darkness, lesion_image):
    samples = find_samples(dataset()).samples
    evaluation = evaluate_boundary(darkness, samples, batch=3)
    assert evaluation.samples == samples
    assert evaluation.scores == [shifted(lesion_image, pixels) for pixels in range(4)]
    assert evaluation.problems == []


def test_mask_of_another_size_is_a_problem(dataset, darkness):
    root = dataset()
    write_image(root / "masks" / "i1.png", np.ones((47, 64), bool))
    evaluation = evaluate_boundary(darkness, find_samples(root).samples)
    assert [str(problem) for problem in evaluation.problems] == [
        f"{root / 'masks' / 'i1.png'}: mask of another size: 64 x 47 pixels, its image 64 x 48"
    ]
    assert [sample.image_id for sample in evaluation.samples] == ["i0", "i2", "i3"]


@pytest.mark.parametrize("place", ["images", "masks"])
def test_unreadable_file_is_a_problem(dataset, darkness, place):
    root = dataset()
    (root / place / "i2.png").write_bytes(b"")
    evaluation = evaluate_boundary(darkness, find_samples(root).samples, batch=1)
    assert [str(p) for p in evaluation.problems] == [
        f"{root / place / 'i2.png'}: the file is empty."
    ]
    assert len(evaluation.scores) == 3


def test_image_without_a_mask_is_a_problem(dataset, darkness):
    root = dataset()
    (root / "masks" / "i0.png").unlink()
    (problem,) = evaluate_boundary(darkness, find_samples(root).samples).problems
    assert problem.path == root / "images" / "i0.png"
    assert problem.reason == "image without a mask"


def test_summary_weighs_images_not_data_sets(tmp_path):
    perfect = {name: 1.0 for name in METRICS}
    failed = {name: 0.0 for name in METRICS}
    samples = [Sample(name, f"i{i}", tmp_path) for i, name in enumerate(["a", "a", "a", "b"])]
    evaluation = BoundaryEvaluation(samples, [perfect, perfect, perfect, failed])
    summary = summarize_boundary(evaluation)
    assert (summary["images"], summary["jaccard"]) == (4, 0.75)
    assert summary["datasets"]["a"] == {"images": 3, **perfect}
    assert summary["datasets"]["b"] == {"images": 1, **failed}
    assert list(summary["datasets"]["a"]) == KEYS


def test_interval_is_by_lesion(tmp_path):
    values = [{name: value for name in METRICS} for value in (0.2, 0.9)]
    alone = [Sample("a", f"i{i}", tmp_path) for i in range(2)]
    together = [Sample("a", f"i{i}", tmp_path, lesion_id="L") for i in range(2)]
    apart = summarize_boundary(BoundaryEvaluation(alone, values))["intervals"]["all"]["jaccard"]
    joint = summarize_boundary(BoundaryEvaluation(together, values))["intervals"]["all"]["jaccard"]
    assert apart == pytest.approx((0.2, 0.9))
    assert joint == pytest.approx((0.55, 0.55))


def test_summary_of_nothing_has_no_means():
    summary = summarize_boundary(BoundaryEvaluation(), ["a"])
    assert {key: summary[key] for key in KEYS} == {"images": 0, **dict.fromkeys(METRICS)}
    assert summary["datasets"]["a"]["jaccard"] is None
    assert "–" in format_table(summary) and "True masks" not in format_table(summary)


def test_true_masks_of_nothing_or_everything_are_counted(darkness, tmp_path):
    image = np.full((12, 16, 3), 200, np.uint8)
    Image.fromarray(image).save(tmp_path / "i.png")
    samples = []
    for name, value in (("black", 0), ("white", 255), ("other", 255)):
        mask = np.full((12, 16), value, np.uint8)
        mask[:6] = 0 if name == "other" else value
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
        samples.append(Sample("a", name, tmp_path / "i.png", tmp_path / f"{name}.png"))
    summary = summarize_boundary(evaluate_boundary(darkness, samples))
    assert (summary["images"], summary["empty_masks"], summary["full_masks"]) == (3, 1, 1)
    assert "all black: 1, all white: 1; scored as they are" in format_table(summary)


def test_cases_are_chosen_from_both_ends_and_the_middle():
    values = [0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8]
    assert choose_cases(values, 2) == {"worst": [1, 5], "median": [3, 0], "best": [6, 2]}


@pytest.mark.parametrize("number", range(1, 16))
def test_no_case_is_chosen_twice(number):
    chosen = [case for row in choose_cases([0.0] * number, 4).values() for case in row]
    assert len(chosen) == len(set(chosen)) == (min(12, number // 3 * 3) or number)


def test_files_of_an_evaluation(dataset, darkness, tmp_path, lesion_image):
    evaluation = evaluate_boundary(darkness, find_samples(dataset(images=3)).samples)
    written = write_boundary(evaluation, darkness, tmp_path / "out")
    assert sorted(path.name for path in written) == ["cases.png", "jaccard.csv", "jaccard.png"]
    assert all(path.is_file() for path in written)
    with open(tmp_path / "out" / "jaccard.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == ["i0", "i1", "i2"]
    assert {row["dataset"] for row in rows} == {"first"}
    assert float(rows[1]["dice"]) == pytest.approx(shifted(lesion_image, 1)["dice"], abs=1e-6)


# === Command line ===


def test_command_writes_json_and_prints_the_table(command, dataset, capsys, lesion_image):
    code, result = command("--dataset", dataset(), "--task", "boundary")
    jaccards = [shifted(lesion_image, pixels)["jaccard"] for pixels in range(4)]
    assert code == 0
    assert list(result)[: len(KEYS)] == KEYS
    assert (result["images"], result["part"], result["notice"]) == (4, "all", NOTICE)
    assert result["jaccard"] == pytest.approx(np.mean(jaccards))
    assert result["weights"] == {"name": "darkness.weights.h5", "sha256": "0123456789abcdef" * 4}
    assert list(result["datasets"]) == ["first"]
    assert list(result["datasets"]["first"]) == KEYS
    printed = capsys.readouterr().out
    assert f"{np.mean(jaccards):.4f}" in printed
    assert NOTICE in printed


def test_several_data_sets_have_a_line_each_and_one_for_all(command, dataset, capsys):
    arguments = ("--dataset", dataset("first"), "--dataset", dataset("second", 2))
    code, result = command(*arguments)
    assert code == 0
    assert {name: means["images"] for name, means in result["datasets"].items()} == {
        "first": 4,
        "second": 2,
    }
    assert result["images"] == 6
    lines = capsys.readouterr().out.splitlines()
    starts = [line.split()[:2] for line in lines[2:5]]
    assert starts == [["first", "4"], ["second", "2"], ["all", "6"]]


def test_json_goes_where_it_is_asked_to_as_well(command, dataset, tmp_path):
    """Beside the tables stands the result that they are of."""
    command("--dataset", dataset())
    two = dataset("second", 2)
    code, result = command("--dataset", two, "--json", tmp_path / "here" / "r.json")
    assert (code, result["images"]) == (0, 2)
    assert json.loads((tmp_path / "here" / "r.json").read_text()) == result


def test_json_replaces_a_result_and_nothing_else(command, dataset, tmp_path, capsys):
    root = dataset()
    assert command("--dataset", root, "--json", tmp_path / "r.json")[0] == 0
    assert command("--dataset", root, "--json", tmp_path / "r.json")[0] == 0
    (tmp_path / "r.json").write_text("image,dx\ni0,nv\n")
    with pytest.raises(SystemExit) as stop:
        command("--dataset", root, "--json", tmp_path / "r.json")
    assert stop.value.code == 2
    assert "r.json is there, and no result of `lesion evaluate`" in capsys.readouterr().err
    assert (tmp_path / "r.json").read_text() == "image,dx\ni0,nv\n"


@pytest.mark.parametrize("name", ["images", "masks"])
def test_predictions_do_not_go_among_the_data_set(command, dataset, capsys, name):
    root = dataset()
    before = sorted((root / name).iterdir())
    assert command("--dataset", root, "--predictions", root / name)[0] == 2
    assert f"{root / name} holds images or masks of a data set" in capsys.readouterr().err
    assert sorted((root / name).iterdir()) == before


def test_images_that_the_data_set_cannot_offer_are_no_success(command, dataset, tmp_path):
    root = dataset()
    shutil.copy(root / "images" / "i0.png", root / "images" / "i0.bmp")  # another of that id
    code, result = command("--dataset", root)
    assert (code, result["images"], result["failed"]) == (1, 4, 0)
    Split({"test": ["first/i1"]}, 0, {}).save(tmp_path / "split.json")
    assert command("--dataset", root, "--split", tmp_path / "split.json")[0] == 0


def test_interrupt_leaves_nothing(command, dataset, darkness, tmp_path, monkeypatch, capsys):
    def interrupt(images):
        raise KeyboardInterrupt

    monkeypatch.setattr(darkness, "predict", interrupt)
    assert command("--dataset", dataset()) == (130, None)
    assert "the same command begins anew" in capsys.readouterr().err


def test_images_of_unknown_lesions_stand_for_themselves(command, dataset, capsys):
    assert command("--dataset", dataset())[1]["grouped_by"] == "image"
    assert "95 % interval of jaccard, by image: " in capsys.readouterr().out


def test_failed_sample_is_named_and_counted(command, dataset, capsys):
    root = dataset()
    (root / "images" / "i3.png").write_text("no image")
    code, result = command("--dataset", root)
    assert code == 1
    assert (result["images"], result["failed"]) == (3, 1)
    assert result["problems"][0]["path"] == str(root / "images" / "i3.png")
    printed = capsys.readouterr().err
    assert "1 of 4 samples failed" in printed
    assert str(root / "images" / "i3.png") in printed


def test_all_samples_failing_still_writes_json(command, dataset):
    root = dataset(images=1)
    (root / "images" / "i0.png").write_text("no image")
    code, result = command("--dataset", root)
    assert (code, result["images"], result["jaccard"], result["failed"]) == (1, 0, None, 1)


@pytest.mark.parametrize(("options", "images"), [([], 1), (["--part", "train"], 3)])
def test_split_chooses_the_part(command, dataset, tmp_path, options, images):
    keys = {"train": ["first/i0", "first/i1", "first/i2"], "test": ["first/i3"]}
    Split(keys, seed=0, fractions={"train": 0.75, "test": 0.25}).save(tmp_path / "split.json")
    code, result = command("--dataset", dataset(), "--split", tmp_path / "split.json", *options)
    assert (code, result["images"]) == (0, images)
    assert result["part"] == (options[1] if options else "test")


def test_part_without_a_split_is_the_challenges_own(command, tmp_path, lesion_image):
    image, mask = lesion_image()
    for part, ids in (("Training", (1, 2)), ("Test", (3,))):
        for number in ids:
            name = f"ISIC_{number:07d}"
            own = image + np.uint8(number)
            write_image(tmp_path / f"c/ISIC2018_Task1-2_{part}_Input/{name}.jpg", own)
            folder = tmp_path / f"c/ISIC2018_Task1_{part}_GroundTruth"
            write_image(folder / f"{name}_segmentation.png", mask)
    assert command("--dataset", tmp_path / "c", "--part", "test")[1]["images"] == 1
    assert command("--dataset", tmp_path / "c", "--part", "train")[1]["images"] == 2
    assert command("--dataset", tmp_path / "c")[1]["images"] == 3


def test_weights_without_a_split_are_not_taken_to_have_learned_nothing(command, dataset, capsys):
    _, result = command("--dataset", dataset())
    assert (result["images"], result["learned"], result["left_out"]) == (4, None, 0)
    assert "No split lies beside w: whether it has learned" in capsys.readouterr().err


def test_renamed_folder_does_not_hide_what_was_learned_from(command, dataset, tmp_path, capsys):
    data = dataset("renamed")
    for path in data.glob("*/*.png"):
        path.rename(path.with_name(f"ISIC_000000{path.stem[1:]}.png"))
    keys = {"train": ["first/ISIC_0000000", "first/ISIC_0000001"], "test": ["first/ISIC_0000002"]}
    Split(keys, seed=0, fractions={"train": 0.7, "test": 0.3}).save(tmp_path / "split.json")
    weights = f"--weights={tmp_path / 'w.h5'}"
    code, result = command("--dataset", data, weights)
    assert (code, result["images"]) == (0, 2)
    assert result["left_out"] == 2
    assert "Left out: 2 images of lesions that these weights learned" in capsys.readouterr().out
    assert command("--dataset", data, weights, "--limit=1")[1]["images"] == 1
    assert command("--dataset", data, weights, "--split=none")[1]["images"] == 4
    for name in ("2", "3"):
        for path in data.glob(f"*/ISIC_000000{name}.png"):
            path.unlink()
    with pytest.raises(SystemExit):
        command("--dataset", data, weights)
    assert "learned from all 2 images" in capsys.readouterr().err


@pytest.mark.parametrize(("learned", "known"), [(3, False), (2, True)])
def test_names_of_what_was_learned_from_in_another_folder(
    command, dataset, tmp_path, capsys, learned, known
):
    """That is, most likely, the folder of the training under another name."""
    keys = {"train": [f"first/i{number}" for number in range(learned)], "test": ["first/i9"]}
    Split(keys, 0, {}).save(tmp_path / "split.json")
    weights = f"--weights={tmp_path / 'w.h5'}"
    code, result = command("--dataset", dataset("renamed"), weights)
    said = "3 of these 4 images are called as images that the weights learned from"
    assert (said in capsys.readouterr().err) != known
    assert (code, result["images"], result["learned"]) == (0, 4, 0 if known else None)


def test_what_was_not_learned_from_is_scored(command, dataset, tmp_path, capsys):
    """The test part of the weights' own split, and data sets that this split does not know."""
    parts = {"train": ["first/i0"], "validation": ["first/i1"], "test": ["first/i2"]}
    Split(parts, 0, dict.fromkeys(parts, 1 / 3)).save(tmp_path / "split.json")
    first = ("--dataset", dataset("first"), f"--weights={tmp_path / 'w.h5'}")
    second = dataset("second")
    for path in second.glob("*/*.png"):  # an image of a name is the same in all folders
        path.rename(path.with_name(f"other_{path.name}"))
    both = (*first, "--dataset", second)
    code, result = command(*both)
    assert code == 0
    images = {name: means["images"] for name, means in result["datasets"].items()}
    assert images == {"first": 1, "second": 4}
    assert (result["part"], result["left_out"], result["unused"]) == ("all", 2, 1)
    assert result["split"] == str(tmp_path / "split.json")
    assert "1 images in folders of the training" in capsys.readouterr().out
    code, result = command(*both, "--part=test")
    assert (result["images"], result["unused"]) == (1, 5)
    printed = capsys.readouterr().out
    assert "1 images in folders of the training" in printed
    assert "4 images of data sets that the split does not know; without --part" in printed

    code, result = command(*first)
    assert (result["images"], result["part"], result["learned"]) == (1, "test", 0)

    capsys.readouterr()
    code, result = command(*first, "--split=none")
    assert (result["images"], result["left_out"], result["learned"]) == (4, 0, 2)
    assert "the weights have seen 2 in training or validation" in capsys.readouterr().out


@pytest.fixture
def task3(tmp_path, lesion_image):
    """A folder of ISIC 2018 task 3 whose test images have no diagnosis but one, and `select`ed."""
    known = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"
    for part, numbers in (("Training", (1, 2)), ("Validation", (3,)), ("Test", (4, 5))):
        for number in numbers:
            path = tmp_path / "isic" / f"ISIC2018_Task3_{part}_Input" / f"ISIC_000000{number}.png"
            write_image(path, lesion_image()[0] + np.uint8(number))
    for part, rows in (("Training", (1, 2)), ("Test", (4,))):
        table = known + "".join(f"ISIC_000000{number},1,0,0,0,0,0,0\n" for number in rows)
        (tmp_path / "isic" / f"ISIC2018_Task3_{part}_GroundTruth.csv").write_text(table)
    keys = ["isic/ISIC_0000001", "isic/ISIC_0000002"]
    Split({"train": keys, "validation": [], "test": []}, 0, {}).save(tmp_path / "split.json")
    (tmp_path / "w.h5").write_bytes(b"weights")

    def chosen(**options):
        sets, found = select([tmp_path / "isic"], "diagnosis", [tmp_path / "w.h5"], **options)
        require_truths(sets, found, "diagnosis")  # none is needed
        return [int(sample.image_id[-1]) for sample in found.samples], found.unused

    return chosen


def test_images_without_a_truth_are_predicted(task3, tmp_path):
    """That the split does not know them says nothing of them: they were none to be trained on."""
    assert task3() == ([3, 5], 1)  # of the fourth it is not known why it was left out
    assert task3(part="test") == ([5], 2)
    assert task3(part="train") == ([1, 2], 3)
    assert task3(split="none", limit=3) == ([1, 2, 4], 0)  # first what is scored
    assert task3(split="none", limit=4) == ([1, 2, 3, 4], 0)


@pytest.mark.parametrize(("more", "predicted"), [([], 0), (["--predictions=masks"], 2)])
def test_images_without_a_mask_are_no_failures(command, dataset, more, predicted):
    data = dataset()
    keys = {"train": ["first/i0"], "test": ["first/i1"]}
    Split(keys, 0, dict.fromkeys(keys, 0.5)).save(data.parent / "split.json")
    for name in ("i2", "i3"):
        (data / "masks" / f"{name}.png").unlink()
    code, result = command("--dataset", data, f"--weights={data.parent / 'w.h5'}", *more)
    assert (code, result["part"], result["images"]) == (0, "test", 1)
    assert (result["unscored"], result["unused"]) == (predicted, 2 - predicted)


def test_other_images_of_learned_lesions_are_left_out(command, dataset, tmp_path):
    """Though none of the folders of the training is given."""
    split = Split({"train": ["first/i0"], "test": []}, 0, {"train": 1.0, "test": 0.0})
    learned = Sample("first", "i0", tmp_path, lesion_id="HAM_0000007")
    split.with_marks([learned]).save(tmp_path / "split.json")
    second = dataset("second")
    (second / "t.csv").write_text("image,lesion_id\ni0,1\ni1,HAM_0000007\ni2,3\ni3,4\n")
    _, result = command("--dataset", second, f"--weights={tmp_path / 'w.h5'}")
    assert (result["images"], result["left_out"], result["learned"]) == (3, 1, 0)


def test_learned_images_in_a_folder_of_another_name_are_left_out(
    command, dataset, tmp_path, lesion_image
):
    """Beside new ones, by what is in the files."""
    first = dataset("first")
    for number in range(4):  # all different
        path = first / "images" / f"i{number}.png"
        image = lesion_image()[0].copy()
        image[0, 0] = number
        write_image(path, image)
    samples = find_samples(first).samples
    split = Split({"train": [s.key for s in samples[:3]], "test": []}, 0, {"train": 1.0})
    split.with_marks(samples).save(tmp_path / "split.json")
    first.rename(tmp_path / "renamed")
    _, result = command("--dataset", tmp_path / "renamed", f"--weights={tmp_path / 'w.h5'}")
    assert (result["images"], result["left_out"], result["learned"]) == (1, 3, 0)


def test_results_of_another_task_are_kept(command, dataset, tmp_path, capsys):
    data = dataset()
    command("--dataset", data)
    path = tmp_path / "evaluation" / "boundary" / "evaluation.json"
    path.write_text(path.read_text().replace('"task": "boundary"', '"task": "diagnosis"'))
    kept = path.read_text()
    with pytest.raises(SystemExit):
        command("--dataset", data)
    assert "holds the results of the diagnosis task" in capsys.readouterr().err
    assert path.read_text() == kept


@pytest.mark.parametrize("option", ["out", "predictions"])
def test_two_at_once_do_not_write_to_one_folder(command, dataset, tmp_path, capsys, option):
    with writing_alone(tmp_path / "results"), pytest.raises(SystemExit) as stop:
        command("--dataset", dataset(), f"--{option}", tmp_path / "results")
    assert stop.value.code == 2
    assert f"writes its results to {tmp_path / 'results'}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first"]


def test_results_are_not_written_among_the_data(command, dataset, capsys):
    data = dataset()
    with pytest.raises(SystemExit):
        command("--dataset", data, "--out", data)
    assert "is the folder of a data set" in capsys.readouterr().err
    assert sorted(path.name for path in data.iterdir()) == ["images", "masks"]


@pytest.mark.parametrize("inside", ["images", "images/new", "masks"])
def test_nor_among_its_images(command, dataset, capsys, inside):
    data = dataset()
    with pytest.raises(SystemExit):
        command("--dataset", data, "--out", data / inside)
    assert "among the images of a data set" in capsys.readouterr().err
    assert sorted(path.name for path in data.iterdir()) == ["images", "masks"]


def test_earlier_results_that_cannot_be_removed_cost_no_new_ones(
    command, dataset, tmp_path, monkeypatch
):
    """As a table that a program has open, under Windows."""
    command("--dataset", dataset())
    remove = Path.unlink

    def locked(path, *arguments, **named):
        if path.name == "jaccard.csv":
            raise PermissionError(13, "The process cannot access the file", str(path))
        remove(path, *arguments, **named)

    monkeypatch.setattr(Path, "unlink", locked)
    code, result = command("--dataset", dataset("second", images=3))
    assert (code, result["images"]) == (0, 3)


def test_earlier_results_do_not_stay_beside_later_ones(command, dataset, tmp_path, capsys):
    command("--dataset", dataset())
    folder = tmp_path / "evaluation" / "boundary"
    assert (folder / "cases.png").is_file()
    (folder / "mine.txt").touch()
    data = dataset("second")
    for path in (data / "masks").iterdir():
        path.unlink()
    capsys.readouterr()
    code, result = command("--dataset", data, f"--predictions={tmp_path / 'masks'}")
    assert (code, result["images"], result["unscored"]) == (0, 0, 4)
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.json", "mine.txt"]
    assert "Replaced in evaluation/boundary: the results of" in capsys.readouterr().out


def test_split_of_ones_own_may_hold_what_was_learned_from(command, dataset, tmp_path, capsys):
    Split({"train": ["first/i0"], "test": []}, 0, {"train": 1.0, "test": 0.0}).save(
        tmp_path / "split.json"
    )
    Split({"train": [], "test": ["first/i0", "first/i1"]}, 0, {"train": 0.0, "test": 1.0}).save(
        tmp_path / "other.json"
    )
    weights = f"--weights={tmp_path / 'w.h5'}"
    split = f"--split={tmp_path / 'other.json'}"
    _, result = command("--dataset", dataset(), weights, split)
    assert (result["images"], result["unused"], result["learned"]) == (2, 2, 1)
    printed = capsys.readouterr().out
    assert "Left out: 2 images that the split does not know." in printed
    assert "Of these 2 images the weights have seen 1 in training" in printed


def test_figures_that_cannot_be_written_cost_no_number(command, dataset, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lesion.evaluation_tasks.write_boundary", full)
    code, result = command("--dataset", dataset())
    assert (code, result["images"]) == (1, 4)
    assert "No space left" in capsys.readouterr().err


def test_masks_that_belong_to_no_image_are_named_at_once(command, dataset, capsys):
    root = dataset(images=1)
    mask = next((root / "masks").iterdir())
    mask.rename(mask.with_name("other.png"))
    with pytest.raises(SystemExit):
        command("--dataset", root)
    assert "other.png: mask without its image" in capsys.readouterr().err


def test_masks_are_written_as_the_challenge_wants_them(command, dataset, tmp_path, darkness):
    root = dataset()
    (root / "masks" / "i2.png").unlink()
    code, result = command("--dataset", root, "--predictions", tmp_path / "masks")
    assert (code, result["images"], result["unscored"]) == (0, 3, 1)
    written = sorted((tmp_path / "masks").iterdir())
    assert [path.name for path in written] == [f"i{n}_segmentation.png" for n in range(4)]
    (expected,) = darkness.predict([read_image(root / "images" / "i2.png")])
    np.testing.assert_array_equal(read_mask(written[2]), expected.mask)


def test_masks_without_any_truth(command, dataset, tmp_path, capsys):
    root = dataset(images=2)
    for mask in (root / "masks").iterdir():
        mask.unlink()
    code, result = command("--dataset", root, "--predictions", tmp_path / "masks")
    assert (code, result["images"], result["unscored"], result["jaccard"]) == (0, 0, 2, None)
    assert len(list((tmp_path / "masks").iterdir())) == 2
    assert "Not scored, for want of a mask, but predicted: 2 images." in capsys.readouterr().out


def test_predictions_do_not_lie_among_the_truth(command, dataset, tmp_path, capsys):
    """Nor where what is scored has no mask, so that nothing would be replaced."""
    root = dataset(images=2)
    (root / "masks" / "i1.png").unlink()
    Split({"train": ["first/i0"], "test": ["first/i1"]}, 0, {"train": 0.5, "test": 0.5}).save(
        tmp_path / "split.json"
    )
    options = (f"--split={tmp_path / 'split.json'}", f"--predictions={root / 'masks'}")
    code, result = command("--dataset", root, *options)
    assert (code, result) == (2, None)
    assert "give another folder with --predictions" in capsys.readouterr().err


def test_predictions_do_not_replace_the_truth(command, dataset, capsys):
    root = dataset()
    before = (root / "masks" / "i0.png").read_bytes()
    code, result = command("--dataset", root, "--predictions", root / "masks")
    assert (code, result) == (2, None)
    assert "give another folder with --predictions" in capsys.readouterr().err
    assert (root / "masks" / "i0.png").read_bytes() == before


def test_limit_takes_the_first_of_each_data_set(command, dataset):
    arguments = ("--dataset", dataset("first"), "--dataset", dataset("second"), "--limit", 1)
    _, result = command(*arguments)
    assert [means["images"] for means in result["datasets"].values()] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "gone"], "gone does not exist"),
        (["--dataset", "first", "--split", "gone.json"], "gone.json cannot be read"),
        (["--dataset", "first", "--part", "test"], "has no parts"),
        (["--dataset", "first", "--batch", "0"], "--batch: must be a whole number from 1 on"),
        (["--dataset", "first", "--limit", "0"], "--limit: must be a whole number from 1 on"),
        (["--dataset", "first", "--task", "triage"], "invalid choice"),
        (["--dataset", "first", "--out", "first/images/i0.png"], "is a file"),
        (["--dataset", "unmasked"], "None of the 2 samples"),
        (["--dataset", "first", "--boundary-weights=b"], "is for the other tasks"),
        (
            ["--dataset", "first", "--task=diagnosis", "--predictions=p"],
            "--predictions is for masks",
        ),
        (["--dataset", "first", "--method=semantic"], "--method is for --task=attributes"),
        (["--dataset", "first", "--heat-maps=3"], "--heat-maps is for --task=diagnosis"),
        (["--dataset", "first", "--json", "first"], "--json first is a folder"),
        (["--dataset", "first", "--out=o", "--json=o/jaccard.csv"], "o/jaccard.csv may be a table"),
        (["--dataset", "first", "--split={split}"], "Part 'test' has no image"),
    ],
)
def test_usage_errors(command, dataset, tmp_path, capsys, arguments, message):
    dataset("first")
    for mask in (dataset("unmasked", 2) / "masks").iterdir():
        mask.unlink()
    split = Split({"train": ["first/i0"], "test": []}, 0, {"train": 1.0, "test": 0.0})
    split.save(tmp_path / "empty.json")
    with pytest.raises(SystemExit) as stop:
        command(*(word.format(split=tmp_path / "empty.json") for word in arguments))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
