"""Which file a command's --weights means, and whether it is the one that was meant."""

import json
import os

import numpy as np
import pytest

from lesion import evaluate, export, train
from lesion.analyzer import Analyzer
from lesion.samples import TASKS, Sample
from lesion.splits import Split
from lesion.weights import (
    checked_metadata,
    companion,
    find_weights,
    shipped_weights,
    split_of,
    weights_path,
)
from mrcnn.arrays import WeightsError, save_arrays
from mrcnn.files import sha256_of
from mrcnn.images import write_image


@pytest.fixture
def shipped(weights_folder):
    """A file of the boundary task in that folder, with its record."""
    path = weights_folder / "lesion_boundary.weights.h5"
    save_arrays(path, {"conv/kernel": np.arange(400.0)}, {"task": "boundary"})
    (weights_folder / "lesion_boundary.json").write_text(json.dumps({"sha256": sha256_of(path)}))
    return path


class TestIncomplete:
    def test_without_its_record(self, shipped, weights_folder, caplog):
        assert checked_metadata(shipped) == {"task": "boundary"} and not caplog.records
        (weights_folder / "lesion_boundary.json").unlink()
        assert checked_metadata(shipped) == {"task": "boundary"}
        assert "lesion_boundary.json is missing" in caplog.text

    def test_of_one_task_alone(self, shipped, caplog):
        assert Analyzer().tasks == ("boundary",)
        assert "No weights of the attributes task are installed" in caplog.text
        assert "No weights of the boundary" not in caplog.text


class TestNames:
    def test_lesion_is_what_the_project_ships(self, shipped):
        assert weights_path("lesion", "boundary") == shipped_weights("boundary") == shipped
        assert find_weights("lesion", "boundary") == (shipped, {"task": "boundary"})
        assert Analyzer(boundary="lesion").tasks == ("boundary",)

    def test_ensemble_that_is_younger_than_the_last_run_is_named(
        self, tmp_path, monkeypatch, caplog
    ):
        monkeypatch.chdir(tmp_path)
        last = tmp_path / "logs" / "diagnosis20260101T0000" / "diagnosis_0001.h5"
        joint = tmp_path / "logs" / "diagnosis-2-members" / "ensemble.json"
        for path, time in ((last, 9), (joint, 5)):
            path.parent.mkdir(parents=True)
            path.touch()
            os.utime(path, (time, time))
        assert weights_path("last", "diagnosis").absolute() == last
        assert not caplog.text
        os.utime(joint, (10, 10))
        assert weights_path("last", "diagnosis").absolute() == last
        assert "diagnosis-2-members/ensemble.json is younger" in caplog.text

    def test_any_other_word_is_a_path(self, shipped):
        assert weights_path("lesions.h5", "boundary").name == "lesions.h5"

    @pytest.mark.parametrize("task", TASKS)
    def test_not_shipped_yet(self, task):
        assert shipped_weights(task) is None
        message = f"no weights of the {task} task yet.*lesion train --task={task}"
        with pytest.raises(FileNotFoundError, match=message):
            weights_path("lesion", task)

    def test_analyzer_and_export_say_so_too(self, tmp_path, capsys):
        with pytest.raises(FileNotFoundError, match="ships no weights of the diagnosis task yet"):
            Analyzer(diagnosis="lesion")
        assert export.main(["--task=boundary", "--weights=lesion", f"--out={tmp_path}/1"]) == 2
        assert "ships no weights of the boundary task yet" in capsys.readouterr().err

    @pytest.mark.parametrize("option", ["--weights", "--crop-weights"])
    def test_training_says_so_too(self, tmp_path, capsys, option):
        command = ["--task=diagnosis", f"--dataset={tmp_path}", f"{option}=lesion"]
        assert train.main(command) == 2
        assert "ships no weights of the" in capsys.readouterr().err

    def test_evaluation_says_so_too(self, tmp_path, capsys):
        write_image(tmp_path / "data" / "images" / "a.png", np.zeros((8, 8, 3), np.uint8))
        write_image(tmp_path / "data" / "masks" / "a.png", np.ones((8, 8), bool))
        with pytest.raises(SystemExit):
            evaluate.main(["--weights=lesion", f"--dataset={tmp_path / 'data'}"])
        assert "ships no weights of the boundary task yet" in capsys.readouterr().err

    def test_weights_of_another_task(self, shipped):
        shipped.rename(shipped.with_name("lesion_diagnosis.weights.h5"))
        with pytest.raises(WeightsError, match="weights of the diagnosis task, but of boundary"):
            find_weights("lesion", "diagnosis")


class TestRecord:
    def test_of_another_file(self, shipped):
        save_arrays(shipped, {"conv/kernel": np.arange(400.0) + 1}, {"task": "boundary"})
        with pytest.raises(WeightsError, match=r"not the file that lesion_boundary.json .* fetch"):
            find_weights("lesion", "boundary")

    def test_that_is_damaged(self, shipped):
        companion(shipped, ".json").write_text('{"sha256": "1')
        with pytest.raises(WeightsError, match=r"lesion_boundary.json is no whole JSON .* Fetch"):
            checked_metadata(shipped)

    @pytest.mark.parametrize("content", ["[]", "{}", '{"jaccard": 0.9}'])
    def test_that_is_none(self, shipped, content):
        companion(shipped, ".json").write_text(content)
        assert checked_metadata(shipped) == {"task": "boundary"}

    def test_is_not_needed(self, shipped):
        companion(shipped, ".json").unlink()
        assert checked_metadata(shipped) == {"task": "boundary"}

    def test_of_a_checkpoint_is_not_looked_for(self, tmp_path):
        save_arrays(tmp_path / "boundary_0001.h5", {"a": np.zeros(2)}, {"task": "boundary"})
        (tmp_path / "boundary_0001.h5.json").write_text('{"sha256": "0"}')
        assert checked_metadata(tmp_path / "boundary_0001.h5") == {"task": "boundary"}

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (lambda whole: whole[: len(whole) // 2], "truncated.*Fetch it again"),
            (lambda whole: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (lambda whole: b"", "empty. Fetch it again"),
        ],
    )
    def test_half_a_download_is_called_that(self, shipped, content, said):
        shipped.write_bytes(content(shipped.read_bytes()))
        with pytest.raises(WeightsError, match=said):
            checked_metadata(shipped)


class TestSplit:
    @pytest.fixture
    def samples(self, tmp_path):
        return [Sample("moles", f"m{number}", tmp_path) for number in range(3)]

    @staticmethod
    def split(path, *keys):
        Split({"train": list(keys), "test": []}, 0, {}).save(path)
        return path

    def test_shipped_weights_have_their_own(self, shipped, samples):
        self.split(shipped.parent / "split.json", "moles/m0")
        own = self.split(shipped.parent / "lesion_boundary.split.json", "moles/m1")
        assert split_of(shipped, samples) == own

    def test_own_split_of_other_images_is_left_aside(self, shipped, samples):
        self.split(shipped.parent / "lesion_boundary.split.json", "others/m1")
        assert split_of(shipped, samples) is None

    def test_others_have_their_runs(self, tmp_path, samples):
        path = self.split(tmp_path / "split.json", "moles/m0")
        assert split_of(tmp_path / "boundary_0001.h5", samples) == path

    @pytest.mark.parametrize("name", ["split.json", "boundary_0001.split.json"])
    def test_of_a_link_is_that_of_the_file(self, tmp_path, samples, name):
        own = self.split(tmp_path / "run" / name, "moles/m0")
        (tmp_path / "run" / "boundary_0001.weights.h5").touch()
        link = tmp_path / "best.h5"
        link.symlink_to("run/boundary_0001.weights.h5")
        assert split_of(link, samples) == own
        self.split(tmp_path / "split.json", "moles/m1")  # of whatever lies beside the link
        assert split_of(link, samples) == own

    def test_of_linked_files_is_linked_beside_them(self, tmp_path, samples):
        self.split(tmp_path / "blobs" / "1f", "moles/m0")
        (tmp_path / "blobs" / "2e").touch()
        for name, blob in (("split.json", "1f"), ("boundary_0001.h5", "2e")):
            (tmp_path / name).symlink_to(f"blobs/{blob}")
        path = tmp_path / "boundary_0001.h5"
        assert split_of(path, samples) == tmp_path / "split.json"
