"""The weights that come with the project: whole, recorded, and of use."""

import io
import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion import weights
from lesion.boundary import load_predictor
from lesion.phantom import draw_phantom
from lesion.samples import TASKS
from lesion.splits import Split
from lesion.train_options import parse
from lesion.weights import companion, find_weights, member_files, shipped_name, shipped_weights
from mrcnn.arrays import load_arrays

FOLDER = Path(__file__).resolve().parents[2] / "weights"
CARD = FOLDER / "MODEL_CARD.md"
SHIPPED = [
    task
    for task in TASKS
    for member in (None, 0)
    if (FOLDER / shipped_name(task, member)).is_file()
]
FILES = [
    (task, path.name)
    for task in SHIPPED
    for path in sorted(FOLDER.glob(f"lesion_{task}*.weights.h5"))
]


@pytest.fixture(autouse=True)
def weights_folder(monkeypatch):
    monkeypatch.setattr(weights, "_FOLDERS", (FOLDER,))


def test_there_are_some_of_every_task():
    assert list(TASKS) == SHIPPED


@pytest.mark.parametrize("task", SHIPPED)
def test_make_repeats_the_trainings(task):
    """Those that the records tell of: of each network the last one, in their order."""
    command = ["make", "--dry-run", f"train-{task}", "DATA=."]
    told = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=True)
    lines = re.sub(r"\$\(ls ([^)]*?)/\w*\*/[^)]*\)", r"\1", told.stdout).replace("\\\n", " ")
    words = [shlex.split(line) for line in lines.splitlines() if " lesion/" in line]
    runs = [parse(each[2:]) for each in words if each[1] == "lesion/train.py"]
    joined = [word.partition("=")[2] for word in words[-1] if word.startswith("--weights=")]
    by_logs = {run.logs: run for run in runs}
    last = [by_logs[logs] for logs in joined] if words[-1][1] == "lesion/join.py" else runs[-1:]
    members = member_files(["lesion"], task)
    for path, run in zip(members, last, strict=True):
        settings = json.loads(companion(path, ".json").read_text())["settings"]
        given = {name: value for name, value in vars(run).items() if value is not None}
        again = {name: given[name] for name in settings if name in given}
        assert {"seed", "epochs", "steps", "learning_rate", "image_size"} <= set(again)
        assert again == {name: settings[name] for name in again}


def test_documents_tell_what_was_measured_last():
    """Of the diagnosis, whose figures change with every choice of networks or views."""
    docs = FOLDER.parent / "docs"
    told, alone = (
        json.loads((docs / "runs" / "diagnosis_shipped" / f"{name}.json").read_text())
        for name in ("validation", "validation_images_alone")
    )
    accuracy = told["balanced_accuracy"], alone["balanced_accuracy"]
    auc = told["melanoma_auc"], alone["melanoma_auc"]
    training, analysis, readme, card = (
        path.read_text(encoding="utf-8")
        for path in (docs / "training.md", docs / "analysis.md", FOLDER.parent / "README.md", CARD)
    )
    both = "balanced accuracy {:.3f} and {:.3f}, melanoma AUC {:.3f} and {:.3f}"
    assert both.format(*accuracy, *auc) in training
    assert f"reaches {accuracy[1]:.3f} and {auc[1]:.3f}" in readme
    for text in (readme, card):
        assert f"balanced accuracy {accuracy[0]:.3f} (" in text
    answered = told["answered"]
    kept = answered["images_of"]["MEL"]
    missed = round(kept * (1 - answered["recall"]["MEL"]))
    assert told["risk"] == 0.1
    images = told["images_of"]["MEL"]
    assert f"at 0.1, {kept} of the {images} images of melanoma of the validation part" in analysis
    assert f"and {missed} of these" in analysis
    assert f"of the {kept} images of melanoma among them {missed}" in card


def test_all_together_are_small():
    sizes = [path.stat().st_size for path in FOLDER.iterdir()]
    assert max(sizes) <= 25_000_000 and sum(sizes) <= 80_000_000


@pytest.mark.parametrize(("task", "name"), FILES)
class TestEach:
    def test_is_what_its_record_says(self, task, name):
        path, metadata = find_weights(FOLDER / name, task)  # which checks the SHA-256
        record = json.loads(companion(path, ".json").read_text())
        assert metadata["task"] == record["task"] == task
        assert record["bytes"] == path.stat().st_size
        assert {"command", "revision", "seed", "data", "figures"} <= set(record)
        arrays, _ = load_arrays(path)
        assert all(np.isfinite(array.astype(np.float32)).all() for array in arrays.values())

    def test_split_has_all_parts(self, task, name):
        parts = Split.load(companion(FOLDER / name, ".split.json")).parts
        assert set(parts) == {"train", "validation", "test"}
        # The diagnosis has learned from what it had been tested on.
        assert parts["train"] and parts["validation" if task == "diagnosis" else "test"]


def test_each_file_belongs_to_what_is_shipped():
    members = [path.name for task in SHIPPED for path in member_files(["lesion"], task)]
    assert sorted(name for _, name in FILES) == sorted(members)


@pytest.mark.parametrize("task", SHIPPED)
def test_no_member_has_learned_from_what_is_scored(task):
    common = Split.load(companion(shipped_weights(task), ".split.json")).parts
    for path in member_files(["lesion"], task):
        parts = Split.load(companion(path, ".split.json")).parts
        assert not {*common["test"]} & {*parts["train"], *parts["validation"]}
        assert not {*common["validation"]} & {*parts["train"]}


def overlap(first, second):
    return (first & second).sum() / (first | second).sum()


@pytest.fixture(scope="module")
def phantom():
    return draw_phantom(1, height=1500, width=2000)


@pytest.fixture(scope="module")
def predictor():
    return load_predictor(FOLDER / shipped_name("boundary"), views=8)


@pytest.mark.skipif("boundary" not in SHIPPED, reason="the boundary's weights are not shipped")
class TestBoundary:
    """On phantoms, which the network has never seen."""

    def test_size_and_compression_hardly_matter(self, predictor, phantom):
        stored = io.BytesIO()
        picture = Image.fromarray(phantom.image)
        picture.save(stored, "JPEG", quality=30)
        small = np.asarray(picture.resize((200, 150), Image.Resampling.BOX))
        large, reduced = predictor.predict([np.asarray(Image.open(stored)), small])
        assert overlap(large.mask, phantom.mask) > 0.7
        size = (200, 150)
        shrunk = np.asarray(Image.fromarray(large.mask).resize(size, Image.Resampling.NEAREST))
        assert overlap(shrunk, reduced.mask) > 0.93

    def test_lesion_of_a_hundredth_of_the_frame(self, predictor, phantom):
        picture = Image.fromarray(phantom.image).resize((200, 150), Image.Resampling.BOX)
        skin = tuple(int(value) for value in np.median(np.asarray(picture)[:, 0], axis=0))
        frame = Image.new("RGB", (600, 450), skin)
        frame.paste(picture, (250, 100))
        mask = Image.new("1", (600, 450))
        mask.paste(Image.fromarray(phantom.mask).resize((200, 150)), (250, 100))
        truth = np.asarray(mask)
        assert truth.mean() < 0.02
        (found,) = predictor.predict([np.asarray(frame)])
        assert overlap(found.mask, truth) > 0.7
