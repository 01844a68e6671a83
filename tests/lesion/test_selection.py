"""What of data sets is scored, and what is said of it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lesion.samples import Collection, DatasetError, Sample
from lesion.selection import Selection, notes_on, require_truths, select
from lesion.splits import Split, SplitError
from mrcnn.images import write_image


@pytest.fixture
def dataset(tmp_path):
    """Makes a plain data set of four images, and of their masks if wanted."""

    def make(name, letter="i", masks=True):
        (tmp_path / name / "masks").mkdir(parents=True)
        for number in range(4):
            pixels = np.full((8, 8), number, np.uint8)
            file = f"{letter}{number}.png"
            write_image(tmp_path / name / "images" / file, np.stack([pixels] * 3, axis=2))
            if masks:
                write_image(tmp_path / name / "masks" / file, pixels < 9)
        return tmp_path / name

    return make


@pytest.fixture
def weights(tmp_path):
    """Makes the path of weights beside which a split of these keys lies."""

    def make(name, **parts):
        Split(parts, 0, {}).save(tmp_path / name / "split.json")
        return tmp_path / name / "w.h5"

    return make


class TestNamesakes:
    def test_are_counted_by_data_set(self, dataset, weights):
        learned = weights("w", train=["first/i0", "first/i1", "first/i2"], test=[])
        _, chosen = select([dataset("renamed"), dataset("other", "o")], "boundary", [learned])
        assert chosen.namesakes == 3

    def test_are_none_in_a_data_set_of_the_training(self, dataset, weights):
        names = [f"i{number}" for number in range(4)]
        parts = {part: [f"{part}/{name}" for name in names] for part in ("train", "test")}
        _, chosen = select([dataset("test")], "boundary", [weights("w", **parts)])
        assert len(chosen.samples) == 4 and chosen.is_known


def test_folder_under_another_name_has_no_part(dataset, weights):
    learned = weights("w", train=["ours/i0"], test=["ours/i1"])
    with pytest.raises(DatasetError, match="The weights' split knows folders called ours"):
        select([dataset("renamed")], "boundary", [learned], part="test")


class TestCopies:
    @pytest.fixture
    def copied(self, dataset):
        """Four images of the fixture, of which the last two are copies of the first."""
        root = dataset("set", masks=False)
        for name in ("i2", "i3"):
            shutil.copy(root / "images" / "i0.png", root / "images" / f"{name}.png")
        return root

    def diagnosed(self, root, *names):
        rows = "".join(f"i{number},{name}\n" for number, name in enumerate(names))
        (root / "truth.csv").write_text(f"image,dx\n{rows}")
        _, chosen = select([root], "diagnosis", [root / "w.h5"])
        assert len(chosen.samples) == 4  # all are predicted
        return [sample.image_id for sample in chosen.samples if sample.diagnosis], chosen.copies

    def test_are_scored_once(self, copied):
        scored, copies = self.diagnosed(copied, "mel", "nv", "mel", "mel")
        assert scored == ["i0", "i1"]
        assert [problem.path.name for problem in copies] == ["i2.png", "i3.png"]

    def test_with_another_diagnosis_neither_is(self, copied):
        scored, copies = self.diagnosed(copied, "mel", "nv", "mel", "nv")
        assert scored == ["i1"] and "neither is used" in copies[-1].reason

    def test_of_other_data_sets_leave_the_first_as_it_is(self, dataset):
        for name, diagnosis in (("first", "mel"), ("second", "nv")):
            (dataset(name, masks=False) / "truth.csv").write_text(f"image,dx\ni0,{diagnosis}\n")
        root = dataset("third", masks=False).parent
        _, chosen = select([root / "first", root / "second"], "diagnosis", [root / "w.h5"])
        scored = [sample.key for sample in chosen.samples if sample.diagnosis]
        assert scored == ["first/i0"]
        assert "this one is not used" in chosen.copies[0].reason

    def test_files_that_cannot_be_read_are_left_to_those_who_read_them(self, copied, monkeypatch):
        def unreadable(path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("lesion.checks.sha256_of", unreadable)
        scored, copies = self.diagnosed(copied, "mel", "nv", "mel", "mel")
        assert len(scored) == 4 and not copies

    @pytest.mark.parametrize("predicts", [False, True])
    def test_are_predicted_and_not_scored(self, dataset, predicts):
        root = dataset("set")
        shutil.copy(root / "images" / "i0.png", root / "images" / "i2.png")
        _, chosen = select([root], "boundary", [root / "w.h5"], predicts=predicts)
        scored = [sample.image_id for sample in chosen.samples if sample.mask]
        assert scored == ["i0", "i1", "i3"] and len(chosen.copies) == 1
        assert len(chosen.samples) == 3 + predicts


class TestSeveralWeights:
    def ids(self, *arguments, **options):
        return [sample.image_id for sample in select(*arguments, **options)[1].samples]

    def test_of_one_test_part(self, dataset, weights):
        first = weights("1", train=["set/i0"], test=["set/i2", "set/i3"])
        second = weights("2", train=["set/i1"], test=["set/i3", "set/i2"])
        ids = self.ids([dataset("set")], "boundary", [first, second], part="test")
        assert ids == ["i2", "i3"]

    def test_of_different_test_parts(self, dataset, weights):
        first = weights("1", train=["set/i0"], test=["set/i1", "set/i3"])
        second = weights("2", train=["set/i1"], test=["set/i0", "set/i3"])
        arguments = ([dataset("set")], "boundary", [first, second])
        with pytest.raises(SplitError, match="different test parts"):
            select(*arguments, part="test")
        assert self.ids(*arguments) == ["i3"]
        split = first.parent / "split.json"
        assert self.ids(*arguments, split=split, part="test") == ["i1", "i3"]


def test_part_of_images_that_are_only_predicted_is_none(dataset, tmp_path):
    data = dataset("set", masks=False)
    _, chosen = select([data], "boundary", [tmp_path / "w.h5"], predicts=True)
    assert (len(chosen.samples), chosen.part) == (4, "all")


def collection(*diagnoses, **known):
    samples = [
        Sample("set", f"i{number}", Path(f"i{number}.png"), diagnosis=diagnosis)
        for number, diagnosis in enumerate(diagnoses)
    ]
    return Collection("set", Path("set"), "plain", "all", samples, **known)


def notes(*diagnoses, by_request=False, **known):
    own = collection(*diagnoses)
    return notes_on([own], Selection(own.samples, "test", None, **known), "diagnosis", by_request)


class TestNotes:
    def test_are_none_where_all_is_well(self):
        assert notes("MEL", "NV") == ([], [])

    def test_on_what_the_split_does_not_know(self):
        said, _ = notes("MEL", unused=3, elsewhere=1)
        listed, elsewhere = said
        assert "2 images in folders of the training" in listed
        assert "1 images of data sets that the split does not know" in elsewhere

    def test_on_what_a_split_by_request_does_not_know(self):
        said, _ = notes("MEL", unused=3, elsewhere=1, by_request=True)
        assert said == ["Left out: 3 images that the split does not know."]

    def test_on_weights_without_a_split(self):
        _, (wrong,) = notes("MEL", without_split=(Path("w.h5"),), namesakes=1)
        assert wrong.startswith("No split lies beside w.h5: whether it has learned")

    @pytest.mark.parametrize(
        ("diagnoses", "counted", "end"),
        [
            (["MEL", None], "1 of 2 images", "only predicted."),
            ([None], "1 of 1 images", "only predicted: nothing will be scored."),
        ],
    )
    def test_on_images_without_a_diagnosis(self, diagnoses, counted, end):
        said, (wrong,) = notes(*diagnoses)
        assert said == [] and wrong.startswith(counted) and wrong.endswith(end)


def test_diagnoses_of_other_names_are_no_truth():
    own = collection(None, None, diagnoses_listed=2)
    with pytest.raises(ValueError, match="The tables list 2 diagnoses"):
        require_truths([own], Selection(own.samples, "all", None), "diagnosis")
    require_truths([collection(None)], Selection(own.samples, "all", None), "diagnosis")
