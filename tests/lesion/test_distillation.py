"""Learning from a teacher's answers, through the command line, on made-up moles."""

import json
import shutil

import numpy as np
import pytest
from scipy.special import softmax

from lesion import distillation
from lesion.cache import ImageCache
from lesion.diagnosis import load_classifier
from lesion.diagnosis_data import UNLABELLED, DiagnosisDataset
from lesion.distillation import find_unlabelled, taught
from lesion.join import main as join
from lesion.layouts import find_samples
from lesion.samples import DatasetError, Sample
from lesion.ship import main as ship
from lesion.splits import Split
from lesion.train import main
from lesion.weights import learned_by, write_ensemble
from mrcnn.images import read_image, write_image
from mrcnn.weights import WeightsError, load_arrays, read_metadata, save_arrays
from tests.lesion.test_diagnosis_training import SETTINGS, command, run_of

NO_SPLIT = Split({}, 0, {})
SHORT = [*SETTINGS, "--epochs=1", "--head-epochs=0", "--steps=2"]


@pytest.fixture(scope="module")
def teacher(moles, five_convolutions, tmp_path_factory, one_by_one):
    """Weights of a training of one epoch, with its split beside them."""
    logs = tmp_path_factory.mktemp("teacher")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lesion.diagnosis_network.build_backbone", five_convolutions)
        with one_by_one():
            assert main(command(moles, logs, *SHORT, "--patient-data")) == 0
        yield run_of(logs) / "diagnosis_0001.h5"


@pytest.fixture(scope="module")
def more(moles, tmp_path_factory):
    """A folder of four images without a diagnosis, and of some that are none or known."""
    folder = tmp_path_factory.mktemp("more")
    random = np.random.default_rng(1)
    for number in range(4):
        write_image(folder / f"x{number}.png", random.integers(0, 255, (40, 52, 3), np.uint8))
    (folder / "broken.png").write_bytes(b"\x89PNG")
    known = sorted(moles.data.glob("*/*.png"))
    shutil.copy(known[0], folder / "other_name.png")
    shutil.copy(folder / "x1.png", folder / "x0.bmp")  # of the name of another
    write_image(folder / known[1].name, np.zeros((40, 52, 3), np.uint8))
    return folder


@pytest.fixture(scope="module")
def samples(moles):
    return find_samples(moles.data, task="diagnosis").samples


class TestUnlabelled:
    def test_only_what_is_sound_and_not_known(self, more, samples, caplog):
        found = find_unlabelled([more], samples, NO_SPLIT)
        assert [sample.image_id for sample in found] == ["x0", "x1", "x2", "x3"]
        assert all(sample.diagnosis is None for sample in found)
        assert "broken.png" in caplog.text

    def test_second_folder_with_the_same_images(self, more, samples, tmp_path):
        shutil.copy(more / "x0.png", tmp_path / "copy.png")
        with pytest.raises(DatasetError, match="no image that can be used"):
            find_unlabelled([more, tmp_path], samples, NO_SPLIT)

    def test_names_of_ones_own_mean_nothing_beyond_their_folder(self, samples, tmp_path):
        """And images are those of the data set whose folder `images` they lie in."""
        for number, folder in enumerate(("ours/images", "theirs/images")):
            image = np.full((40, 52, 3), 100 + number, np.uint8)
            write_image(tmp_path / folder / "mole_1.png", image)
        folders = [tmp_path / name / "images" for name in ("ours", "theirs")]
        samples = [*samples, Sample("other", "mole_1", samples[0].image)]
        found = find_unlabelled(folders, samples, NO_SPLIT)
        assert [sample.key for sample in found] == ["ours/mole_1", "theirs/mole_1"]

    def test_folders_called_alike(self, samples, tmp_path):
        for year in ("2024", "2025"):
            write_image(tmp_path / year / "photos" / "1.png", np.zeros((40, 52, 3), np.uint8))
        folders = [tmp_path / year / "photos" for year in ("2024", "2025")]
        with pytest.raises(DatasetError, match="those of a data set photos"):
            find_unlabelled(folders, samples, NO_SPLIT)

    @pytest.mark.parametrize("part", ["validation", "test"])
    def test_nothing_that_the_split_scores(self, more, samples, part):
        """By its own key, by its id in another folder, or by a lesion that the table tells of."""
        keys = [f"{more.name}/x0", "full/ISIC_0000099", samples[0].key]
        split = Split({"train": [], part: keys}, 0, {}).with_marks(samples)
        known = Sample("moles", "x2", more / "x2.png", lesion_id=samples[0].lesion_id)
        write_image(more / "ISIC_0000099.png", np.zeros((40, 52, 3), np.uint8))
        found = find_unlabelled([more], samples, split, [*samples, known])
        (more / "ISIC_0000099.png").unlink()
        assert [sample.image_id for sample in found] == ["x1", "x3"]

    def test_lesions_are_kept(self, more, samples):
        known = Sample("moles", "x2", more / "x2.png", lesion_id="moles/7")
        elsewhere = Sample("copy", "x2", more / "x2.png")  # where nothing is known of it
        found = find_unlabelled([more], samples, NO_SPLIT, [known, elsewhere])
        assert [sample.lesion_id for sample in found] == [None, None, "moles/7", None]

    def test_patients_are_kept(self, more, samples):
        known = Sample("moles", "x2", more / "x2.png", patient_id="moles/p")
        found = find_unlabelled([more], samples, NO_SPLIT, [known])
        assert [sample.patient_id for sample in found] == [None, None, "moles/p", None]
        split = Split({"train": [], "test": []}, 0, {}, {"test": ["patient moles/p"]})
        assert len(find_unlabelled([more], samples, split, [known])) == 3

    def test_what_lies_beside_photographs_is_none(self, samples, tmp_path):
        for number, name in enumerate(("", "_superpixels", "_segmentation", "_crop")):
            image = np.full((40, 52, 3), 90 + number, np.uint8)
            write_image(tmp_path / f"ISIC_0000099{name}.png", image)
        (found,) = find_unlabelled([tmp_path], samples, NO_SPLIT)
        assert found.image.name == "ISIC_0000099.png"

    def test_folder_that_is_missing(self, samples, tmp_path):
        with pytest.raises(DatasetError, match="does not exist"):
            find_unlabelled([tmp_path / "nothing"], samples, NO_SPLIT)


class TestTaught:
    @pytest.fixture
    def dataset(self, samples, more, tmp_path):
        unlabelled = [Sample("more", "x0", more / "x0.png")]
        return DiagnosisDataset([*samples[::9], *unlabelled], ImageCache(tmp_path / "cache", 64))

    def test_answers_are_those_of_who_knows_the_frequencies(self, teacher, dataset, tmp_path):
        answers = taught(dataset, teacher, 0.5, tmp_path).answers
        predictor = load_classifier(teacher)
        counts = np.bincount(dataset.labels, minlength=UNLABELLED)[:UNLABELLED]
        for sample, answer in zip(dataset.samples, answers, strict=True):
            logits = predictor.logits_of_views([read_image(sample.image)], [sample.metadata])[0, 0]
            expected = softmax(logits + np.log(counts**0.5))
            np.testing.assert_allclose(answer, expected, atol=1e-6)

    def test_ensemble_answers_with_the_mean(self, teacher, dataset, tmp_path):
        arrays, metadata = load_arrays(teacher)
        arrays["diagnosis_logits/bias"] = np.arange(7, dtype=np.float32)
        save_arrays(tmp_path / "other.h5", arrays, metadata)
        shutil.copy(teacher, tmp_path / "one.h5")
        write_ensemble(tmp_path / "both.json", "diagnosis", ["one.h5", "other.h5"])
        one, other, both = (
            taught(dataset, tmp_path / name, 0.5, tmp_path).answers
            for name in ("one.h5", "other.h5", "both.json")
        )
        np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)
        assert np.abs(one - other).max() > 0.1

    def test_is_asked_once_for_each_image(self, teacher, dataset, tmp_path, monkeypatch):
        first = taught(dataset, teacher, 0.5, tmp_path).answers
        asked = []
        monkeypatch.setattr(distillation, "read_image", lambda path: asked.append(path))
        np.testing.assert_array_equal(taught(dataset, teacher, 0.5, tmp_path).answers, first)
        assert not asked

    def test_interruption_loses_no_answer(self, teacher, dataset, tmp_path, monkeypatch):
        asked, read = [], distillation.read_image
        monkeypatch.setattr(distillation, "_CHUNK", 2)

        def interrupted(path):
            if len(asked) == 4:
                raise KeyboardInterrupt
            asked.append(path)
            return read(path)

        monkeypatch.setattr(distillation, "read_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            taught(dataset, teacher, 0.5, tmp_path)
        monkeypatch.setattr(
            distillation, "read_image", lambda path: asked.append(path) or read(path)
        )
        taught(dataset, teacher, 0.5, tmp_path)
        assert sorted(asked) == sorted(sample.image for sample in dataset.samples)

    def test_changed_image_is_asked_for_anew(self, teacher, samples, tmp_path):
        path = tmp_path / "a.png"
        cache = ImageCache(tmp_path / "cache", 64)
        dataset = DiagnosisDataset([Sample("a", "a", path), samples[0]], cache)
        answers = []
        for value in (0, 255):
            write_image(path, np.full((40, 40 + value, 3), value, np.uint8))
            answers.append(taught(dataset, teacher, 0.5, tmp_path).answers)
        assert np.abs(answers[0][0] - answers[1][0]).max() > 1e-4

    @pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04"])
    def test_damaged_answers_are_made_anew(self, teacher, dataset, tmp_path, content, caplog):
        first = taught(dataset, teacher, 0.5, tmp_path).answers
        (kept,) = tmp_path.glob("answers_*.npz")
        kept.write_bytes(content)
        np.testing.assert_array_equal(taught(dataset, teacher, 0.5, tmp_path).answers, first)
        assert "made anew" in caplog.text

    def test_full_disk_only_costs_time(self, teacher, dataset, tmp_path, monkeypatch, caplog):
        def full(path):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(distillation, "atomic_path", full)
        assert taught(dataset, teacher, 0.5, tmp_path).answers.shape == (len(dataset.samples), 7)
        assert "No space left" in caplog.text and not list(tmp_path.glob("answers*"))

    def test_teacher_whose_answers_hold_its_own_frequencies(self, teacher, dataset, tmp_path):
        arrays, metadata = load_arrays(teacher)
        metadata["config"]["logit_adjustment"] = 0.5
        save_arrays(tmp_path / "t.h5", arrays, metadata)
        with pytest.raises(WeightsError, match="cannot teach"):
            taught(dataset, tmp_path / "t.h5", 0.5, tmp_path)


@pytest.mark.usefixtures("eagerly")
class TestRun:
    def test_weights_and_run_tell_of_the_teacher(self, moles, teacher, more, tmp_path):
        options = (f"--teacher={teacher}", f"--unlabelled={more}")
        assert main(command(moles, tmp_path, *SHORT, *options)) == 0
        run = run_of(tmp_path)
        config = read_metadata(run / "diagnosis_0001.h5")["config"]
        assert (config["teacher_share"], config["unlabelled_share"]) == (0.7, 0.25)
        settings = json.loads((run / "run.json").read_text())
        assert settings["teacher"] == str(teacher) and settings["unlabelled"] == [str(more)]
        # What was learned from the teacher alone is no more to be tested on.
        split = Split.load(run / "split.json")
        assert split.parts["unlabelled"] == [f"{more.name}/x{i}" for i in range(4)]
        assert split.has_learned(Sample(more.name, "x0", more / "x0.png"))
        # The run goes on as it was begun.
        again = ("--task=diagnosis", "--weights=last")
        assert main([*again, f"--dataset={moles.data}", f"--logs={tmp_path}"]) == 0

    def test_joins_its_teacher_and_is_shipped(self, moles, teacher, more, tmp_path, monkeypatch):
        logs, out = tmp_path / "logs", tmp_path / "joined"
        options = (f"--teacher={teacher}", f"--unlabelled={more}", "--patient-data")
        assert main(command(moles, logs, *SHORT, *options)) == 0
        taught = run_of(logs) / "diagnosis_0001.h5"
        both = [f"--weights={teacher}", f"--weights={taught}"]
        assert join([*both, f"--dataset={moles.data}", f"--out={out}"]) == 0
        assert len(Split.load(out / "split.json").parts["unlabelled"]) == 4
        given = [f"--dataset={moles.data}", "--command=x", "--revision=x", f"--out={tmp_path}"]
        assert ship(["--task=diagnosis", f"--weights={taught}", *given]) == 0
        record = json.loads((tmp_path / "lesion_diagnosis.json").read_text())
        assert record["data"]["parts"]["unlabelled"] == {"images": 4}

    def test_other_images_without_a_diagnosis_do_not_go_on(
        self, moles, teacher, more, tmp_path, capsys
    ):
        folder = shutil.copytree(more, tmp_path / "more")
        options = (f"--teacher={teacher}", f"--unlabelled={folder}")
        assert main(command(moles, tmp_path, *SHORT, *options)) == 0
        (folder / "x2.png").unlink()
        again = ("--task=diagnosis", "--weights=last", "--epochs=2")
        assert main([*again, f"--dataset={moles.data}", f"--logs={tmp_path}"]) != 0
        assert "4 without" in capsys.readouterr().err

    def test_members(self, moles, teacher, more, tmp_path):
        options = (f"--teacher={teacher}", "--teacher-share=1", f"--unlabelled={more}")
        assert main(command(moles, tmp_path, *SHORT, "--members=2", *options)) == 0
        ensemble = tmp_path / "diagnosis-2-members" / "ensemble.json"
        # What the members alone were taught is known of them together.
        taught = Sample(more.name, "x0", more / "x0.png")
        assert learned_by([ensemble], [taught]) == {taught.key}
        given = [f"--dataset={moles.data}", "--command=x", "--revision=x", f"--out={tmp_path}"]
        assert ship(["--task=diagnosis", f"--weights={ensemble}", *given]) == 0
        assert Split.load(tmp_path / "lesion_diagnosis.split.json").has_learned(taught)

    def test_split_of_the_teacher_is_taken(self, moles, teacher, tmp_path):
        arguments = [f"--dataset={moles.data}", f"--logs={tmp_path}", f"--teacher={teacher}"]
        assert main([*arguments, *SHORT]) == 0
        kept = Split.load(run_of(tmp_path) / "split.json")
        assert kept.parts == Split.load(moles.split).parts


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--unlabelled=x"], "need a --teacher"),
            (["--teacher-share=0.5"], "--teacher-share is of what --teacher gives"),
            (["--unlabelled-share=0.5"], "--unlabelled-share is of what --unlabelled gives"),
            (["--teacher=nothing.h5"], "nothing.h5"),
        ],
    )
    def test_before_any_image_is_read(self, tmp_path, capsys, options, message):
        arguments = ["--task=diagnosis", f"--dataset={tmp_path}", f"--logs={tmp_path}", *options]
        assert main(arguments) == 2
        assert message in capsys.readouterr().err

    def test_teacher_that_has_learned_from_what_is_to_be_tested_on(
        self, moles, teacher, tmp_path, capsys
    ):
        split = Split.load(moles.split)
        parts = {**split.parts, "train": split.parts["test"], "test": split.parts["train"]}
        Split(parts, 0, {}).save(tmp_path / "split.json")
        options = (f"--split={tmp_path / 'split.json'}", f"--teacher={teacher}")
        assert main(command(moles, tmp_path, *SHORT, *options)) == 2
        assert f"--teacher={teacher} has learned from 28 of the 28" in capsys.readouterr().err

    def test_folds(self, moles, teacher, tmp_path, capsys):
        options = ("--folds=2", f"--teacher={teacher}")
        assert main(command(moles, tmp_path, *SHORT, *options)) == 2
        assert f"--teacher={teacher} has learned from 42 of these" in capsys.readouterr().err
