"""Analysis of images: what is written, under which names, and what happens to bad files."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion import NOTICE
from lesion.analyze import (
    analyze_images,
    boundary_warnings,
    describe_boundary,
    find_images,
    main,
    output_stems,
    predict_images,
)
from mrcnn.images import read_image, read_mask, write_image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, lesion_image):
    """Three images of different size, the second without a lesion."""
    folder = tmp_path / "images"
    write_image(folder / "a.png", lesion_image()[0])
    write_image(folder / "b.png", lesion_image(40, 40, radius=0)[0])
    write_image(folder / "c.png", lesion_image(30, 80, (15, 40), 8)[0])
    return folder


@pytest.fixture
def command(monkeypatch, darkness):
    """The command line with a predictor that needs no weights."""
    module = ModuleType("lesion.boundary")
    module.load_predictor = lambda weights: darkness
    monkeypatch.setitem(sys.modules, "lesion.boundary", module)
    return lambda *arguments: main([str(argument) for argument in arguments])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# === Reading and predicting ===


@pytest.mark.parametrize(("batch", "batches"), [(1, [1, 1, 1]), (2, [2, 1]), (8, [3])])
def test_images_are_predicted_in_batches_and_in_order(folder, darkness, batch, batches):
    paths = [folder / "c.png", folder / "a.png", folder / "b.png"]
    predictions = list(predict_images(darkness, paths, batch))
    assert [prediction.path for prediction in predictions] == paths
    assert darkness.batches == batches
    for prediction in predictions:
        assert prediction.boundary.mask.shape == prediction.image.shape[:2]


def test_bad_file_keeps_its_place(folder, darkness):
    (folder / "b.png").write_bytes(b"")
    predictions = list(predict_images(darkness, sorted(folder.iterdir()), batch=2))
    assert [prediction.error for prediction in predictions] == [None, "the file is empty.", None]
    assert predictions[2].boundary.mask.shape == (30, 80)


def test_batch_of_bad_files_alone_is_not_predicted(tmp_path, darkness):
    (prediction,) = predict_images(darkness, [tmp_path / "gone.jpg"])
    assert prediction.error == "there is no such file."
    assert darkness.batches == []


def test_few_images_are_held_at_once(monkeypatch, darkness):
    read = []

    def counted(path):
        read.append(path)
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr("lesion.analyze.read_image", counted)
    predictions = predict_images(darkness, [f"{number}.png" for number in range(50)], batch=4)
    for _ in range(9):
        next(predictions)
    assert len(read) <= 16


def test_batch_below_one_is_refused(darkness):
    with pytest.raises(ValueError, match="at least 1, received 0"):
        next(predict_images(darkness, ["a.png"], batch=0))


# === Results ===


def test_results_of_an_image(folder, darkness, lesion_image, tmp_path):
    out = tmp_path / "out"
    analysis = analyze_images(darkness, [folder / "a.png"], out)
    image, mask = lesion_image()
    assert names(out) == ["a.json", "a_overlay.jpg", "a_segmentation.png"]
    assert (read_mask(out / "a_segmentation.png") == mask).all()
    assert set(np.unique(read_image(out / "a_segmentation.png"))) == {0, 255}
    assert read_image(out / "a_overlay.jpg").shape == image.shape
    assert json.loads((out / "a.json").read_text()) == analysis.records[0]


def test_record_of_a_lesion():
    mask = np.zeros((10, 20), bool)
    mask[2:6, 3:13] = True
    boundary = SimpleNamespace(mask=mask, score=np.float32(0.5), box=np.array([2, 3, 6, 13]))
    record = describe_boundary(Path("folder/a.jpg"), boundary, {"model": "m"})
    assert record == {
        "schema_version": 1,
        "notice": NOTICE,
        "task": "boundary",
        "file": "a.jpg",
        "path": str(Path("folder/a.jpg")),
        "size": {"height": 10, "width": 20},
        "found": True,
        "score": 0.5,
        "box": [2, 3, 6, 13],
        "area": {"pixels": 40, "fraction": 0.2},
        "warnings": [],
        "model": {"model": "m"},
    }
    json.dumps(record, allow_nan=False)


def test_nothing_found_gives_an_empty_mask_and_says_so(folder, darkness, tmp_path):
    (record,) = analyze_images(darkness, [folder / "b.png"], tmp_path).records
    assert (record["found"], record["score"], record["box"]) == (False, None, None)
    assert record["area"] == {"pixels": 0, "fraction": 0}
    assert record["warnings"] == ["No lesion was found."]
    mask = read_mask(tmp_path / "b_segmentation.png")
    assert mask.shape == (40, 40)
    assert not mask.any()


@pytest.mark.parametrize("side", [np.s_[0, 3], np.s_[-1, 3], np.s_[3, 0], np.s_[3, -1]])
def test_lesion_at_the_edge_is_warned_of(side):
    mask = np.zeros((8, 8), bool)
    mask[side] = True
    (warning,) = boundary_warnings(mask)
    assert "touches the edge" in warning


def test_separate_regions_are_warned_of():
    mask = np.zeros((8, 8), bool)
    mask[2, 2] = mask[3, 3] = mask[5, 5] = True
    assert boundary_warnings(mask) == ["The boundary consists of 2 separate regions."]


def test_bad_file_is_a_problem_and_stops_nothing(folder, darkness, tmp_path):
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:60])
    out = tmp_path / "out"
    analysis = analyze_images(darkness, sorted(folder.iterdir()), out)
    assert [problem.path for problem in analysis.problems] == [folder / "a.png"]
    assert [record["file"] for record in analysis.records] == ["b.png", "c.png"]
    assert not list(out.glob("a*"))


def test_same_stem_twice_gives_two_results(folder, darkness, tmp_path, lesion_image):
    write_image(folder / "sub" / "a.png", lesion_image(20, 20, (10, 10), 4)[0])
    out = tmp_path / "out"
    paths = [folder / "a.png", folder / "sub" / "a.png"]
    first, second = analyze_images(darkness, paths, out).records
    assert read_mask(out / first["outputs"]["segmentation"]).shape == (48, 64)
    assert read_mask(out / second["outputs"]["segmentation"]).shape == (20, 20)
    assert json.loads((out / "a_2.json").read_text())["path"] == str(paths[1])


# === Names ===


def test_number_does_not_take_another_images_name():
    paths = ["a.jpg", "x/a.jpg", "a_2.jpg", "A.png"]
    assert list(output_stems(paths).values()) == ["a", "a_3", "a_2", "A_4"]


@given(st.lists(st.tuples(st.sampled_from("pq"), st.text("aAb_23", min_size=1, max_size=5))))
def test_no_two_images_share_a_stem(parts):
    paths = {Path(folder, f"{stem}.png") for folder, stem in parts}
    stems = output_stems(sorted(paths))
    assert set(stems) == paths
    assert len({stem.casefold() for stem in stems.values()}) == len(paths)


def test_folders_are_searched_for_images_alone(tmp_path, lesion_image):
    image = lesion_image()[0]
    for name in ("b.png", "sub/A.JPG", "b_segmentation.png", "b_attribute_globules.png"):
        write_image(tmp_path / name, image)
    write_image(tmp_path / ".hidden" / "c.png", image)
    write_image(tmp_path / "out" / "d.png", image)
    (tmp_path / "table.csv").write_text("")
    found = find_images([tmp_path], tmp_path / "out")
    assert found == [tmp_path / "b.png", tmp_path / "sub" / "A.JPG"]


def test_file_given_by_name_is_taken_whatever_its_name(tmp_path):
    path = tmp_path / "a_mask.dat"
    assert find_images([path], tmp_path / "out") == [path]


def test_image_given_twice_is_analysed_once(folder):
    found = find_images([folder / "a.png", folder, folder / "." / "b.png"], folder / "out")
    assert [path.name for path in found] == ["a.png", "b.png", "c.png"]


def test_images_may_lie_where_the_results_go(folder, command):
    arguments = (folder, "--weights", "w", "--out", folder)
    assert command(*arguments) == 0
    first = names(folder)
    assert command(*arguments) == 0
    assert names(folder) == first


def test_input_is_never_replaced(folder, lesion_image):
    write_image(folder / "a_overlay.jpg", lesion_image()[0])
    with pytest.raises(ValueError, match="would replace an image"):
        find_images([folder / "a.png", folder / "a_overlay.jpg"], folder)


# === Command line ===


def test_command_writes_everything(folder, command, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(folder, "--weights", "w", "--out", out, "--batch", 2) == 0
    assert len(names(out)) == 3 * 3 + 1
    report = (out / "report.html").read_text(encoding="utf-8")
    for text in ("a.png", "b.png", "c.png", NOTICE):
        assert text in report
    printed = capsys.readouterr().out
    assert "3 images analysed, no lesion found in 1" in printed
    assert NOTICE in printed


def test_command_names_bad_files_at_the_end(folder, command, tmp_path, capsys):
    (folder / "b.png").write_text("no image")
    out = tmp_path / "out"
    assert command(folder, folder / "gone.jpg", "--weights", "w", "--out", out) == 1
    printed = capsys.readouterr().err
    assert "2 of 4 files failed" in printed
    assert f"{folder / 'b.png'}: this is not an image" in printed
    assert f"{folder / 'gone.jpg'}: there is no such file." in printed
    assert printed.count(str(folder / "b.png")) == 1
    assert (out / "c.json").is_file()
    assert "gone.jpg" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{empty}"], "holds no image"),
        (["{images}", "--batch", "0"], "--batch must be at least 1"),
        (["{images}", "--out", "{images}/a.png"], "is a file"),
    ],
)
def test_usage_errors(folder, command, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    places = {"empty": tmp_path / "empty", "images": folder}
    given_arguments = [argument.format(**places) for argument in arguments]
    with pytest.raises(SystemExit) as stop:
        command("--weights", "w", "--out", tmp_path / "out", *given_arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_unusable_weights_are_a_usage_error(folder, command, tmp_path, monkeypatch, capsys):
    def refuse(weights):
        raise ValueError(f"{weights} holds no weights.")

    monkeypatch.setattr(sys.modules["lesion.boundary"], "load_predictor", refuse)
    assert command(folder, "--weights", "w.h5", "--out", tmp_path / "out") == 2
    assert "w.h5 holds no weights." in capsys.readouterr().err


@pytest.mark.parametrize("module", ["analyze", "evaluate"])
def test_help_answers_from_any_folder(module, tmp_path):
    script = ROOT / "lesion" / f"{module}.py"
    run = subprocess.run(
        [sys.executable, str(script), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "Research use only" in run.stdout
