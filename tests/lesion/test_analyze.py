"""Analysis of many images: batches, results, resumed runs, and what happens to bad files."""

import errno
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest

from lesion import NOTICE, analyze
from lesion.analyze import analyze_images, main
from lesion.analyzer import Analyzer
from lesion.results import output_stems, write_results
from lesion.writing import writing_alone
from mrcnn.images import ImageError, read_image, read_mask, write_image

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
def weights(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def command(monkeypatch, darkness, weights, tmp_path):
    """The command line with a predictor that needs no weights; `out` is its folder."""
    module = ModuleType("lesion.boundary")
    module.load_predictor = lambda weights, batch, views: darkness
    monkeypatch.setitem(sys.modules, "lesion.boundary", module)
    usual = [f"--weights={weights}", f"--out={tmp_path / 'out'}"]
    return lambda *arguments: main([*usual, *map(str, arguments)])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def analyze_all(predictor, paths, out, **options):
    return analyze_images(Analyzer(predictor, **options), output_stems(paths), out)


# === Results ===


def test_results_of_an_image(folder, darkness, lesion_image, out):
    assert analyze_all(darkness, [folder / "a.png"], out) == []
    image, mask = lesion_image()
    assert names(out) == ["a.json", "a_overlay.jpg", "a_segmentation.png"]
    assert (read_mask(out / "a_segmentation.png") == mask).all()
    assert set(np.unique(read_image(out / "a_segmentation.png"))) == {0, 255}
    assert read_image(out / "a_overlay.jpg").shape == image.shape
    assert json.loads((out / "a.json").read_text())["measurements"]["area_pixels"] == mask.sum()


def test_bad_file_is_a_problem_and_stops_nothing(folder, darkness, out):
    analyze_all(darkness, [folder / "a.png"], out)
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (problem,) = analyze_all(darkness, sorted(folder.iterdir()), out)
    assert problem.path == folder / "a.png"
    records = [name for name in names(out) if name.endswith(".json")]
    assert records == ["b.json", "c.json"], "what was found before is no longer this image's"


def test_file_that_is_not_there_keeps_its_results(folder, darkness, out):
    """It may be on a disk that is not connected at the moment."""
    analyze_all(darkness, [folder / "a.png"], out)
    before = names(out)
    (folder / "a.png").unlink()
    (problem,) = analyze_all(darkness, [folder / "a.png"], out)
    assert "no such file" in problem.reason
    assert names(out) == before


@pytest.mark.parametrize(("letters", "compiled"), [("ab", False), ("abc", True)])
def test_networks_are_compiled_for_more_than_a_few_images(
    folder, darkness, command, monkeypatch, letters, compiled
):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("holds for TensorFlow alone")
    seen, predict = set(), darkness.predict

    def noted(images):
        seen.add(not tf.config.functions_run_eagerly())
        return predict(images)

    monkeypatch.setattr(darkness, "predict", noted)
    without = ("--attributes-weights=none", "--diagnosis-weights=none")
    assert command(*without, *(folder / f"{letter}.png" for letter in letters)) == 0
    assert seen == {compiled}
    assert not tf.config.functions_run_eagerly()


def test_same_stem_twice_gives_two_results(folder, darkness, out, lesion_image):
    write_image(folder / "sub" / "a.png", lesion_image(20, 20, (10, 10), 4)[0])
    analyze_all(darkness, [folder / "a.png", folder / "sub" / "a.png"], out)
    assert read_mask(out / "a_segmentation.png").shape == (48, 64)
    assert read_mask(out / "a_2_segmentation.png").shape == (20, 20)


def test_memory_does_not_grow_with_the_images(monkeypatch, darkness, out):
    lock, held, most = threading.Lock(), 0, 0

    def read(path):
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return np.zeros((4, 4, 3), np.uint8)

    def write(analysis, out, stem):
        nonlocal held
        with lock:
            held -= 1

    monkeypatch.setattr("lesion.analyzer.read_image", read)
    monkeypatch.setattr("lesion.analyzer.Source.of", lambda path: None)
    monkeypatch.setattr(analyze, "write_results", write)
    analyze_all(darkness, [f"{number}.png" for number in range(60)], out, batch=2)
    # Two batches are read, one waits to be written, two are being written.
    assert most <= 2 * 2 + 2 + 2 + 1
    assert held == 0


# === Command line ===


def test_command_writes_everything(folder, command, out, capsys):
    assert command(folder, "--batch", 2) == 0
    assert len(names(out)) == 3 * 3 + 2
    report = (out / "report.html").read_text(encoding="utf-8")
    for text in ("a.png", "b.png", "c.png", NOTICE):
        assert text in report
    printed = capsys.readouterr().out
    assert "3 images analysed" in printed
    assert NOTICE in printed
    table = (out / "results.csv").read_text(encoding="utf-8").splitlines()
    assert [line.partition(",")[0] for line in table[1:]] == [
        str(path) for path in sorted(folder.iterdir())
    ]


def test_command_names_bad_files_at_the_end(folder, command, out, capsys):
    (folder / "b.png").write_text("no image")
    assert command(folder, folder / "gone.jpg") == 1
    printed = capsys.readouterr().err
    assert "2 of 4 files failed" in printed
    assert f"{folder / 'b.png'}: this is not an image" in printed
    assert f"{folder / 'gone.jpg'}: there is no such file." in printed
    assert printed.count(str(folder / "b.png")) == 1
    assert (out / "c.json").is_file()
    assert "gone.jpg" in (out / "report.html").read_text(encoding="utf-8")


def test_scale_is_used(folder, command, out):
    assert command(folder / "a.png", "--millimetres-per-pixel=0.5") == 0
    measured = json.loads((out / "a.json").read_text())["measurements"]
    assert measured["area_mm2"] == measured["area_pixels"] / 4


def test_patients_are_told_and_recorded(folder, command, out, tmp_path, capsys):
    table = tmp_path / "patients.csv"
    table.write_text("image,age,sex\na.png,50,male\nb,,\n")
    assert command(folder, f"--patients={table}") == 0
    told = {name: json.loads((out / f"{name}.json").read_text())["settings"] for name in "abc"}
    assert told["a"]["patient"] == {"age": "50", "sex": "male"}
    assert told["b"]["patient"] is told["c"]["patient"] is None
    assert "Of 1 of 3 images" in capsys.readouterr().out
    # Another age is another question; the other images have their answers.
    table.write_text("image,age,sex\na.png,51,male\nb,,\n")
    assert command(folder, f"--patients={table}") == 0
    assert "2 of 3 images have their results already" in capsys.readouterr().out
    assert json.loads((out / "a.json").read_text())["settings"]["patient"]["age"] == "51"


def test_names_in_other_case_are_those_of_the_table(folder, command, out, tmp_path):
    (tmp_path / "p.csv").write_text("image,age\nA.PNG,50\n")
    assert command(folder / "a.png", f"--patients={tmp_path / 'p.csv'}") == 0
    assert json.loads((out / "a.json").read_text())["settings"]["patient"] == {"age": "50"}


def test_a_table_that_no_network_uses_is_said(folder, command, tmp_path, capsys):
    (tmp_path / "p.csv").write_text("image,age\na,50\n")
    assert command(folder, f"--patients={tmp_path / 'p.csv'}", "--diagnosis-weights=none") == 0
    assert "p.csv is not used: no network of the diagnosis has learned" in capsys.readouterr().err


def test_a_path_that_cannot_be_looked_up(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        command("a" * 300)
    assert stopped.value.code == 2
    assert "File name too long" in capsys.readouterr().err


def test_patients_of_one_name_are_not_mixed_up(folder, command, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (folder / "a.png").rename(tmp_path / "other" / "b.png")
    (tmp_path / "p.csv").write_text("image,age\nb.png,50\n")
    with pytest.raises(SystemExit):
        command(folder, tmp_path / "other", f"--patients={tmp_path / 'p.csv'}")
    assert "speaks of b, and 2 of the images have that name" in capsys.readouterr().err


def test_what_means_nothing_is_named(folder, command, tmp_path, capsys):
    (tmp_path / "p.csv").write_text("image,age,sex,site\na,50 years,X,head/neck\nb,0,male,back\n")
    assert command(folder, f"--patients={tmp_path / 'p.csv'}") == 0
    said = capsys.readouterr().err
    for value in ("age 50 years", "sex x", "site head/neck"):
        assert f"{value} (1 x) is not known" in said
    assert said.count("not known") == 3


def test_images_may_lie_where_the_results_go(folder, command):
    assert command(folder, f"--out={folder}") == 0
    first = names(folder)
    assert command(folder, f"--out={folder}") == 0
    assert names(folder) == first


def test_name_that_is_no_text_is_reported(folder, command, out):
    name = os.fsdecode(b"mole_\xff.png")
    try:
        (folder / "a.png").rename(folder / name)
    except OSError:
        pytest.skip("this file system takes no such name")
    assert command(folder) == 0
    assert "mole_?.png" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{empty}"], "holds no image"),
        (["{images}", "--batch", "0"], "must be a whole number from 1 on"),
        (["{images}", "--out", "{images}/a.png"], "is a file"),
        (["{images}", "--millimetres-per-pixel=0"], "must be a number above 0"),
        (["{images}", "--patients=gone.csv"], "gone.csv cannot be read"),
        (["{images}", "--patients={table}"], "has no row for any of the images"),
    ],
)
def test_usage_errors(folder, command, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "p.csv").write_text("image,age\nother.png,50\n")
    places = {"empty": tmp_path / "empty", "images": folder, "table": tmp_path / "p.csv"}
    with pytest.raises(SystemExit) as stop:
        command(*(argument.format(**places) for argument in arguments))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_unusable_weights_are_a_usage_error(folder, command, out, monkeypatch, capsys):
    def refuse(weights, *settings):
        raise ValueError(f"{weights} holds no weights.")

    monkeypatch.setattr(sys.modules["lesion.boundary"], "load_predictor", refuse)
    assert command(folder) == 2
    assert "weights.h5 holds no weights." in capsys.readouterr().err
    assert command(folder, "--diagnosis-weights=gone.h5") == 2
    assert "gone.h5" in capsys.readouterr().err
    assert not out.exists()


def test_two_at_once_do_not_write_to_one_folder(folder, command, out, capsys):
    with writing_alone(out):
        assert command(folder) == 2
        assert not names(out)
    assert f"writes its results to {out} at the moment" in capsys.readouterr().err
    assert command(folder) == 0


def test_full_disk_stops_the_run(folder, command, out, monkeypatch, capsys):
    def full(path, *arguments):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("lesion.results.write_image", full)
    assert command(folder) == 3
    assert "cannot be written: [Errno 28] No space left on device" in capsys.readouterr().err
    assert not list(out.glob("*.json"))


@pytest.mark.parametrize("place", ["picture", "record", "report"])
def test_full_disk_leaves_nothing_half_written(folder, command, out, monkeypatch, capsys, place):
    def full(path, *arguments, **options):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_report(*arguments):
        yield "half"
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if place == "picture":
            patch.setattr(Path, "write_bytes", full)
        elif place == "record":
            patch.setattr(Path, "write_text", full)
        else:
            patch.setattr("lesion.report._body", full_report)
        assert command(folder) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line
    written = names(out) if out.exists() else []
    assert not [name for name in written if name.startswith(".") or name == "report.html"]
    assert [name for name in written if name.endswith(".json")] == (
        ["a.json", "b.json", "c.json"] if place == "report" else []
    )
    for name in written:
        if not name.endswith(".json"):
            assert read_image(out / name).size
    assert command(folder) == 0
    assert len(names(out)) == 3 * 3 + 2


# === A further run ===


@pytest.fixture
def done(folder, command, darkness, monkeypatch):
    """What remains to be done in a run after all was done: the number of images."""
    command(folder)

    def rest(*arguments):
        darkness.batches.clear()
        assert command(folder, *arguments) == 0
        return sum(darkness.batches)

    return rest


def test_finished_images_are_not_analysed_again(folder, done, out, monkeypatch, capsys):
    monkeypatch.delattr(sys.modules["lesion.boundary"], "load_predictor")  # nor networks loaded
    assert done() == 0
    assert "3 of 3 images have their results already." in capsys.readouterr().out
    assert "b.png" in (out / "report.html").read_text(encoding="utf-8")


def touch(folder, out, weights):
    os.utime(folder / "a.png", (1, 1))


def change_image(folder, out, weights):
    write_image(folder / "a.png", read_image(folder / "c.png"))


def change_weights(folder, out, weights):
    weights.write_bytes(b"others")


def remove_mask(folder, out, weights):
    (out / "a_segmentation.png").unlink()


def empty_overlay(folder, out, weights):
    """As a loss of power leaves it."""
    (out / "a_overlay.jpg").write_bytes(b"")


def cut_record(folder, out, weights):
    (out / "a.json").write_text((out / "a.json").read_text()[:-20])


def older_record(folder, out, weights):
    record = json.loads((out / "a.json").read_text())
    (out / "a.json").write_text(json.dumps({**record, "schema_version": 1}))


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (touch, 0),
        (change_image, 1),
        (change_weights, 3),
        (remove_mask, 1),
        (empty_overlay, 1),
        (cut_record, 1),
        (older_record, 1),
    ],
)
def test_what_changed_is_analysed_again(folder, done, out, weights, change, count):
    change(folder, out, weights)
    assert done() == count
    assert done() == 0


@pytest.mark.parametrize("option", ["--overwrite", "--millimetres-per-pixel=0.1"])
def test_options_that_ask_for_it(done, option):
    assert done(option) == 3


def test_interrupted_run_goes_on_where_it_stopped(folder, command, darkness, monkeypatch, capsys):
    predict = darkness.predict

    def stop_at_the_second(images):
        if darkness.batches:
            raise KeyboardInterrupt
        return predict(images)

    monkeypatch.setattr(darkness, "predict", stop_at_the_second)
    assert command(folder, "--batch=1") == 130
    assert "goes on from here" in capsys.readouterr().err
    monkeypatch.setattr(darkness, "predict", predict)
    darkness.batches.clear()
    assert command(folder, "--batch=1") == 0
    assert darkness.batches == [1, 1]


def test_damaged_result_of_an_earlier_run(done, command, folder, out, capsys):
    (out / "a_overlay.jpg").write_bytes(b"no picture")
    assert command(folder) == 3
    assert "a_overlay.jpg" in capsys.readouterr().err
    assert done("--overwrite") == 3


def test_results_of_another_image_are_not_replaced(folder, command, out, tmp_path, capsys):
    other = tmp_path / "other" / "b.png"
    write_image(other, read_image(folder / "c.png"))
    assert command(folder) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert command(other) == 2
    assert f"the results of {folder / 'b.png'} as 'b'" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert command(other, "--overwrite") == 0
    assert json.loads((out / "b.json").read_text())["source"]["path"] == str(other)


def test_pictures_that_are_not_read_are_named(folder, command, capsys):
    (folder / "d.heic").touch()
    assert command(folder) == 0
    assert "Not read, being no images in a format that can be: 1 .heic." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["report.html", "results.csv"])
def test_reports_of_others_are_not_replaced(folder, command, out, capsys, name):
    out.mkdir()
    (out / name).write_text("<p>of someone else")
    assert command(folder) == 2
    assert f"{out / name} is no report of `lesion analyze`" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [name]


def test_table_of_no_image_is_replaced(folder, command, out, tmp_path):
    """As when nothing could be read: a share that was not there."""
    assert command(tmp_path / "gone.png") == 1
    assert len((out / "results.csv").read_text().splitlines()) == 1
    assert command(folder) == 0
    assert len((out / "results.csv").read_text().splitlines()) > 1


@pytest.mark.parametrize("name", ["a.json", "a_segmentation.png"])
def test_files_that_are_no_results_are_not_replaced(folder, command, out, capsys, name):
    """Annotations of another program, and masks of a data set, have the names of results."""
    out.mkdir()
    (out / name).write_text("[]")
    for options in ((), ("--overwrite",)):
        assert command(folder, *options) == 2
        assert f"{out / name} is no result of `lesion analyze`" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [name]


def test_image_that_moved_is_no_other(folder, command, out, tmp_path):
    assert command(folder) == 0
    moved = folder.rename(tmp_path / "moved")
    assert command(moved) == 0
    assert json.loads((out / "a.json").read_text())["source"]["path"] == str(moved / "a.png")


def test_nothing_stays_of_an_image_that_can_no_longer_be_read(folder, command, out):
    assert command(folder) == 0
    (folder / "a.png").write_bytes(b"")
    (out / "a_note.txt").write_text("of the user")
    assert command(folder) == 1
    assert [path.name for path in out.glob("a[._]*")] == ["a_note.txt"]


def test_result_that_cannot_be_a_file_is_a_problem(folder, darkness, out, monkeypatch):
    def refuse(analysis, out, stem):
        if stem == "b":
            raise ImageError("too large for a JPEG")
        return write_results(analysis, out, stem)

    monkeypatch.setattr(analyze, "write_results", refuse)
    problems = analyze_all(darkness, sorted(folder.iterdir()), out)
    assert [(problem.path.name, problem.reason) for problem in problems] == [
        ("b.png", "too large for a JPEG")
    ]
    assert {path.name for path in out.glob("*.json")} == {"a.json", "c.json"}


# === Documentation ===


@pytest.mark.parametrize("module", ["analyze", "evaluate"])
def test_help_answers_from_any_folder(module, tmp_path):
    script = ROOT / "lesion" / f"{module}.py"
    run = subprocess.run(
        [sys.executable, str(script), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "Research use only" in run.stdout


def test_exit_codes_are_documented_alike():
    document = (ROOT / "docs" / "analysis.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\d+)` \| (.+?)\.? \|$", document, flags=re.MULTILINE))
    assert listed == dict(re.findall(r"^    (\d+) +(.+)$", analyze.__doc__, flags=re.MULTILINE))
