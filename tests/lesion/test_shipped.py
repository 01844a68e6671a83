"""The weights that come with the project: whole, recorded, and of use."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion import weights
from lesion.boundary import load_predictor
from lesion.phantom import draw_phantom
from lesion.samples import TASKS
from lesion.splits import Split
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


def test_as_many_networks_are_joined_by_make_as_are_shipped():
    recipe = (FOLDER.parent / "Makefile").read_text().partition("lesion/join.py")[2]
    joined = recipe.partition("--out=")[0].count("--weights=")
    ensemble = json.loads((FOLDER / "lesion_diagnosis.ensemble.json").read_text())
    assert joined == len(ensemble["members"])


def test_documents_tell_what_was_measured_last():
    """Of the diagnosis, whose figures change with every choice of networks or views."""
    docs = FOLDER.parent / "docs"
    told, alone = (
        json.loads((docs / "runs" / "diagnosis_shipped" / f"{name}.json").read_text())
        for name in ("evaluation", "evaluation_images_alone")
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
    assert f"at 0.1, {kept} images of melanoma of the test part were not referred" in analysis
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
        assert set(parts) == {"train", "validation", "test"} and parts["train"] and parts["test"]


def test_each_file_belongs_to_what_is_shipped():
    members = [path.name for task in SHIPPED for path in member_files(["lesion"], task)]
    assert sorted(name for _, name in FILES) == sorted(members)


@pytest.mark.parametrize("task", SHIPPED)
def test_no_member_has_learned_from_the_common_test_part(task):
    common = companion(shipped_weights(task), ".split.json")
    test = set(Split.load(common).parts["test"])
    for path in member_files(["lesion"], task):
        parts = Split.load(companion(path, ".split.json")).parts
        assert not test & {*parts["train"], *parts["validation"]}


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
