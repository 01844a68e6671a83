import datetime
import logging
from pathlib import Path

import pytest

from mrcnn import distribution, runs
from mrcnn.runs import InRun, find_last, new_run, run_of, warn_of_lost_run


@pytest.fixture
def noon(monkeypatch):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 3, 4, 12, 5)

    monkeypatch.setattr(runs.datetime, "datetime", Clock)


def make(folder, *epochs, name="cell"):
    folder.mkdir(parents=True)
    for epoch in epochs:
        (folder / f"mask_rcnn_{name}_{epoch:04d}.h5").touch()
    return folder


class TestNewRun:
    def test_names_are_matterports(self, tmp_path, noon):
        run = new_run(tmp_path, "Cell")
        assert run.folder == tmp_path / "cell20260304T1205"
        assert run.template.name.format(epoch=7) == "mask_rcnn_cell_0007.h5"
        assert run.epoch == 0

    @pytest.mark.parametrize("name", ["a/b", "a\\\\b"])
    def test_slash_in_a_name(self, tmp_path, name):
        with pytest.raises(ValueError, match="NAME is part of the names.*received 'a"):
            new_run(tmp_path, name)

    def test_braces_of_folder_and_name_stay(self, tmp_path, noon):
        run = new_run(tmp_path / "{v1}", "a{}")
        assert str(run.template).format(epoch=7) == str(run.folder / "mask_rcnn_a{}_0007.h5")

    def test_of_several_processes_the_first_makes_the_folder(self, tmp_path, monkeypatch):
        class Network(InRun):
            run_name, model_dir = "cell", tmp_path

        network = Network()
        network.set_log_dir()
        monkeypatch.setattr(distribution, "process_share", lambda: (1, 2))
        network.make_log_dir()
        assert not list(tmp_path.iterdir())

    def test_one_process_at_a_time(self, tmp_path):
        class Network(InRun):
            run_name, model_dir = "cell", tmp_path

        first, second = Network(), Network()
        first.set_log_dir()
        first.make_log_dir()
        second.set_log_dir()
        second.log_dir = first.log_dir
        with first.alone(), pytest.raises(BlockingIOError, match="Another process trains the run"):
            with second.alone():
                pass
        (Path(first.log_dir) / f".{'0' * 32}.h5").touch()  # a process was killed as it wrote
        with second.alone():
            assert not list(Path(first.log_dir).glob(".*.h5"))

    def test_nothing_is_made_yet(self, tmp_path, noon):
        new_run(tmp_path / "logs", "cell")
        assert not (tmp_path / "logs").exists()

    def test_runs_of_one_minute_have_folders_of_their_own(self, tmp_path, noon):
        folders = []
        for _ in range(3):
            folders.append(new_run(tmp_path, "cell").folder)
            folders[-1].mkdir()
        assert [folder.name for folder in folders] == [
            "cell20260304T1205",
            "cell20260304T1205-2",
            "cell20260304T1205-3",
        ]

    @pytest.mark.parametrize("latest", ["20260304T1250", "20260304T1250-2", "20991231T2359"])
    def test_after_a_clock_went_back_the_run_is_the_last_nevertheless(self, tmp_path, noon, latest):
        make(tmp_path / f"cell{latest}", 3)
        make(tmp_path / "cells20991231T2359", 1, name="cells")  # of another name
        run = new_run(tmp_path, "cell")
        stamp, _, number = latest.partition("-")
        assert run.folder.name == f"cell{stamp}-{int(number or 1) + 1}"
        make(run.folder, 1)
        assert find_last(tmp_path, "cell") == str(run.folder / "mask_rcnn_cell_0001.h5")

    def test_a_file_of_that_name_is_passed_over(self, tmp_path, noon):
        (tmp_path / "cell20260304T1205").touch()
        assert new_run(tmp_path, "cell").folder.name == "cell20260304T1205-2"

    def test_two_that_were_named_before_either_began(self, tmp_path, noon):
        class Network(InRun):
            run_name, model_dir = "cell", tmp_path

        first, second = Network(), Network()
        for network in (first, second):
            network.set_log_dir()
        for network in (first, second, first):
            network.make_log_dir()
        assert Path(first.log_dir).name == "cell20260304T1205"
        assert Path(second.log_dir).name == "cell20260304T1205-2"
        assert Path(second.checkpoint_path).parent == Path(second.log_dir)

    @pytest.mark.parametrize("exists", [False, True])
    def test_folder_that_somebody_has_set(self, tmp_path, noon, exists):
        class Network(InRun):
            run_name, model_dir = "cell", tmp_path / "logs"

        network = Network()
        network.set_log_dir()
        network.log_dir, network.epoch = tmp_path / "mine", 20
        if exists:
            (tmp_path / "mine").mkdir()
        network.make_log_dir()
        assert (network.log_dir, network.epoch) == (tmp_path / "mine", 20)
        assert Path(network.checkpoint_path).parent == tmp_path / "mine"
        assert list(tmp_path.iterdir()) == [tmp_path / "mine"]

    def test_an_epoch_that_somebody_has_set_stays(self, tmp_path, noon):
        class Network(InRun):
            run_name, model_dir = "cell", tmp_path

        network = Network()
        network.set_log_dir()
        network.epoch = 20
        make(Path(network.log_dir), 1)
        network.make_log_dir()
        assert (Path(network.log_dir).name, network.epoch) == ("cell20260304T1205-2", 20)

    def test_folder_that_a_script_has_made_for_its_files(self, tmp_path, noon):
        class Network(InRun):
            run_name, model_dir = "cell", tmp_path

        first, second = Network(), Network()
        for network in (first, second):
            network.set_log_dir()
        Path(first.log_dir).mkdir()
        (Path(first.log_dir) / "config.txt").touch()
        for network in (first, second):
            network.make_log_dir()
        assert Path(first.log_dir).name == "cell20260304T1205"
        assert Path(second.log_dir).name == "cell20260304T1205-2"

    @pytest.mark.parametrize("file", ["mask_rcnn_cell_0002.h5", "training_state.h5", "history.csv"])
    def test_folder_that_holds_a_run_is_left_alone(self, tmp_path, noon, file):
        class Network(InRun):
            run_name, model_dir = "cell", tmp_path

        network = Network()
        network.set_log_dir()
        (make(Path(network.log_dir)) / file).touch()
        network.make_log_dir()
        assert Path(network.log_dir).name == "cell20260304T1205-2"

    @pytest.mark.parametrize(
        ("epoch", "behind", "goes_on"), [(3, False, True), (2, False, False), (2, True, True)]
    )
    def test_an_earlier_checkpoint_goes_on_in_a_folder_of_its_own(
        self, tmp_path, noon, caplog, epoch, behind, goes_on
    ):
        """Or the later ones, of a training given up, would be found as the last."""

        class Network(InRun):
            run_name, model_dir = "cell", tmp_path

        folder = make(tmp_path / "cell20260301T1200", 1, 2, 3)
        network = Network()
        network.set_log_dir(folder / f"mask_rcnn_cell_{epoch:04d}.h5")
        network.behind = behind  # what it goes on from was of an earlier epoch than the weights
        with caplog.at_level(logging.INFO, "mrcnn"):
            network.make_log_dir()
        assert network.epoch == epoch
        assert (Path(network.log_dir) == folder) == goes_on
        assert (f"{folder} has checkpoints of later epochs than 2" in caplog.text) != goes_on
        if not goes_on:
            Path(network.checkpoint_path.format(epoch=3)).touch()
            assert find_last(tmp_path, "cell") == network.checkpoint_path.format(epoch=3)

    def test_a_training_that_was_stopped_goes_on_in_its_folder(self, tmp_path, noon):
        """Where a checkpoint was written and its epoch did not end."""

        class Network(InRun):
            run_name, model_dir = "cell", tmp_path

        network = Network()
        network.set_log_dir()
        network.make_log_dir()
        folder = network.log_dir
        Path(network.checkpoint_path.format(epoch=1)).touch()
        network.make_log_dir()
        assert network.log_dir == folder

    def test_without_a_name(self, tmp_path, noon):
        assert new_run(tmp_path, None).folder.name == "mask_rcnn20260304T1205"


class TestRunOf:
    def test_checkpoint(self, tmp_path):
        run = run_of(tmp_path / "cell20260304T1205-2" / "mask_rcnn_cell_0012.h5", "Cell")
        assert (run.folder, run.epoch) == (tmp_path / "cell20260304T1205-2", 12)

    @pytest.mark.parametrize(
        "path",
        [
            "mask_rcnn_coco.h5",
            "weights/mask_rcnn_cell_0012.h5",
            "cell20260304T1205/mask_rcnn_other_0012.h5",
            "cell20260304T1205/mask_rcnn_cell_last.h5",
        ],
    )
    def test_other_files_belong_to_no_run(self, path):
        assert run_of(path, "cell") is None

    def test_relative_path(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        run = run_of("cell20260304T1205/mask_rcnn_cell_0001.h5", "cell")
        assert run.folder == tmp_path / "cell20260304T1205"


class TestFindLast:
    def test_latest_epoch_of_latest_run(self, tmp_path):
        make(tmp_path / "cell20260304T1205", 1, 2, 30)
        last = make(tmp_path / "cell20260305T0101", 1, 2)
        assert Path(find_last(tmp_path, "Cell")) == last / "mask_rcnn_cell_0002.h5"

    def test_run_of_the_same_minute_comes_later(self, tmp_path):
        for number in ("", "-2", "-10", "-9"):
            make(tmp_path / f"cell20260304T1205{number}", 1)
        assert Path(find_last(tmp_path, "cell")).parent.name == "cell20260304T1205-10"

    def test_run_without_checkpoint_is_passed_over_and_named(self, tmp_path, caplog):
        make(tmp_path / "cell20260304T1100")
        first = make(tmp_path / "cell20260304T1205", 3)
        later = make(tmp_path / "cell20260304T1300")
        assert Path(find_last(tmp_path, "cell")).parent == first
        assert caplog.messages == [f"{later} is passed over: no epoch of it was completed."]

    def test_epochs_are_numbers(self, tmp_path):
        make(tmp_path / "cell20260304T1205", 9999, 10000)
        assert Path(find_last(tmp_path, "cell")).name == "mask_rcnn_cell_10000.h5"

    def test_other_names_and_files_are_passed_over(self, tmp_path):
        run = make(tmp_path / "cell20260304T1205", 1)
        make(tmp_path / "cells20260401T0000", 1, name="cells")
        make(tmp_path / "cell20260401T0000", 1, name="cells")
        (run / ".0123456789abcdef.h5").touch()
        (tmp_path / "cell20260402T0000").touch()
        assert Path(find_last(tmp_path, "cell")) == run / "mask_rcnn_cell_0001.h5"

    @pytest.mark.parametrize("folder", ["", "missing"])
    def test_none_is_an_error_that_names_the_folder(self, tmp_path, folder):
        with pytest.raises(FileNotFoundError, match=f"'cell' found in {tmp_path / folder}"):
            find_last(tmp_path / folder, "cell")


@pytest.mark.parametrize(
    ("file", "epoch", "told"),
    [
        ("mask_rcnn_cell_0007.h5", 7, True),
        ("mask_rcnn_other_0012.h5", 12, True),
        ("cell_0007.h5", 7, True),  # of a network that is no Mask R-CNN
        ("mask_rcnn_cell_0007.h5", None, False),  # matterport's do not tell
        ("best.weights.h5", 7, False),
    ],
)
def test_checkpoint_outside_of_its_run_is_told_of(caplog, file, epoch, told):
    warn_of_lost_run(f"elsewhere/{file}", epoch, "Cell")
    assert (f"elsewhere/{file} is of epoch {epoch}, but lies in no folder" in caplog.text) == told
    assert (f"mask_rcnn_cell_{epoch or 0:04d}.h5 in a folder cell<date>" in caplog.text) == told
