"""Trainings one after the other or beside each other; the training itself is a stand-in."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lesion.crew import LOG_FILE, MemberFailed, keep_settings, train_all
from lesion.samples import DatasetError


def cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


two_cores = pytest.mark.skipif(cores() < 2, reason="trainings beside each other need two cores")


def stand_in(arguments):
    """Notes its seed and its cores where `lesion train` leaves a checkpoint."""
    print(f"Seed {arguments.seed}, from {arguments.weights}")
    if arguments.seed == 13:
        _pid_in(Path(arguments.logs).with_name("member-99") / "pid")  # the other has begun
        raise FloatingPointError("The loss is no number.")
    if arguments.seed == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    if arguments.seed > 90:  # to be stopped long before
        (Path(arguments.logs) / "pid").write_text(str(os.getpid()))
        try:
            time.sleep(600)
        finally:
            (Path(arguments.logs) / "cleared").touch()
    folder = Path(arguments.logs) / "diagnosis20260101T0000"
    folder.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    (folder / "diagnosis_0001.h5").write_text(f"{arguments.seed} {cores}")


def arguments_of(logs, jobs):
    return argparse.Namespace(
        task="diagnosis",
        logs=str(logs),
        cache=str(logs / "cache"),
        weights="imagenet",
        jobs=jobs,
        folds=None,
        members=2,
        seed=0,
        split=None,
    )


def settings_of(logs, seeds):
    return {logs / f"member-{seed}": {"seed": seed, "split": Path("split.json")} for seed in seeds}


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_member_is_trained_with_its_settings(tmp_path, jobs):
    paths = train_all(arguments_of(tmp_path, jobs), settings_of(tmp_path, (3, 4, 5)), stand_in)
    assert [path.parents[1].name for path in paths] == ["member-3", "member-4", "member-5"]
    assert [path.read_text().split()[0] for path in paths] == ["3", "4", "5"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
@two_cores
def test_members_beside_each_other_share_the_cores(tmp_path):
    paths = train_all(arguments_of(tmp_path, 2), settings_of(tmp_path, (3, 4)), stand_in)
    first, second = (set(eval(path.read_text().split(" ", 1)[1])) for path in paths)
    assert first | second == os.sched_getaffinity(0)
    assert not first & second


def test_what_a_member_says_is_kept(tmp_path):
    train_all(arguments_of(tmp_path, 2), settings_of(tmp_path, (3, 4)), stand_in)
    assert "Seed 3, from imagenet" in (tmp_path / "member-3" / LOG_FILE).read_text()


def test_members_that_were_begun_go_on(tmp_path):
    for _ in range(2):
        train_all(arguments_of(tmp_path, 2), settings_of(tmp_path, (3, 4)), stand_in)
    lines = (tmp_path / "member-4" / LOG_FILE).read_text().splitlines()
    assert lines == ["Seed 4, from imagenet", "Seed 4, from last"]


def test_settings_stay_the_same(tmp_path):
    arguments = arguments_of(tmp_path, 1)
    keep_settings(tmp_path / "members", arguments, ["task", "seed"])
    arguments.jobs = 2  # which is none of them
    keep_settings(tmp_path / "members", arguments, ["task", "seed"])
    arguments.seed = 4
    with pytest.raises(DatasetError, match=r"members was begun with --seed=0, not with --seed=4"):
        keep_settings(tmp_path / "members", arguments, ["task", "seed"])


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_settings_that_cannot_be_read(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ValueError, match=r"settings\.json does not hold the settings of a train"):
        keep_settings(tmp_path, argparse.Namespace(seed=1), ["seed"])


def test_an_option_younger_than_the_folder_had_its_usual_value(tmp_path):
    keep_settings(tmp_path, argparse.Namespace(seed=1), ["seed"])
    younger = argparse.Namespace(seed=1, mixing=0.4, usual={"mixing": 0.0})
    with pytest.raises(DatasetError, match=r"begun with --mixing=0\.0, not with --mixing=0\.4"):
        keep_settings(tmp_path, younger, ["seed", "mixing"])
    younger.mixing = 0.0
    keep_settings(tmp_path, younger, ["seed", "mixing"])
    # What a check has made of nothing is nothing, too.
    younger = argparse.Namespace(seed=1, teacher_share=0.0, usual={"teacher_share": None})
    keep_settings(tmp_path, younger, ["seed", "teacher_share"])


def test_a_file_may_be_given_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "a.h5").touch()
    monkeypatch.chdir(tmp_path)
    keep_settings(tmp_path, argparse.Namespace(teacher="a.h5"), ["teacher"])
    keep_settings(tmp_path, argparse.Namespace(teacher=str(tmp_path / "a.h5")), ["teacher"])
    with pytest.raises(DatasetError, match="begun with --teacher="):
        keep_settings(tmp_path, argparse.Namespace(teacher="b.h5"), ["teacher"])


@two_cores
def test_stopped_members_clear_up(tmp_path):
    with pytest.raises(MemberFailed):
        train_all(arguments_of(tmp_path, 2), settings_of(tmp_path, (13, 99)), stand_in)
    assert (tmp_path / "member-99" / "cleared").exists()
    said = (tmp_path / "member-99" / LOG_FILE).read_text().splitlines()
    assert said == ["Seed 99, from imagenet", "Stopped."]


def script_of(folder, seeds):
    """Command and environment of a process that trains two members beside each other."""
    (folder / "script.py").write_text(
        "import signal\n"
        "from pathlib import Path\n"
        "from test_crew import arguments_of, settings_of, stand_in\n"
        "from lesion.crew import train_all\n"
        "if __name__ == '__main__':\n"
        # What runs in a shell's background ignores it.
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"    logs = Path({str(folder)!r})\n"
        f"    train_all(arguments_of(logs, 2), settings_of(logs, {seeds}), stand_in)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    command = [sys.executable, folder / "script.py"]
    return command, {**os.environ, "PYTHONPATH": path}


@two_cores
@pytest.mark.skipif(os.name != "posix", reason="signals of a group are POSIX's")
def test_interrupted_while_they_begin_members_say_nothing(tmp_path):
    """Ctrl-C reaches the whole group; what it finds importing is not to answer for itself."""
    command, environment = script_of(tmp_path, (98, 99))
    parent = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while "Member 2 of 2" not in parent.stdout.readline():
        assert parent.poll() is None
    said = None
    while said is None:  # again, should the parent have been in the middle of starting the second
        time.sleep(0.2)  # for both to be started, which take seconds to import
        os.killpg(parent.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            said = parent.communicate(timeout=60)[1]
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert "spawn_main" not in said


@two_cores
def test_members_end_with_their_parent(tmp_path):
    command, environment = script_of(tmp_path, (98, 99))
    parent = subprocess.Popen(command, env=environment)
    pids = [_pid_in(tmp_path / f"member-{seed}" / "pid") for seed in (98, 99)]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 600
    while any(_lives(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _pid_in(path):
    deadline = time.monotonic() + 600
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return int(path.read_text())


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Where nobody waits for orphans, one that has ended keeps its number.
    if not Path("/proc/self/stat").exists():
        return True
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@two_cores
def test_failure_is_told_and_stops_the_others(tmp_path):
    with pytest.raises(MemberFailed, match=r"The loss is no number.*member-13.*With that mended"):
        train_all(arguments_of(tmp_path, 2), settings_of(tmp_path, (13, 99)), stand_in)
    assert not (tmp_path / "member-99" / "diagnosis20260101T0000").exists()


@two_cores
@pytest.mark.skipif(os.name != "posix", reason="ended by a signal of POSIX")
def test_member_that_is_killed_is_no_fault_of_what_it_said(tmp_path):
    with pytest.raises(MemberFailed) as caught:
        train_all(arguments_of(tmp_path, 2), settings_of(tmp_path, (14, 3)), stand_in)
    assert "was ended from outside (SIGKILL); if memory ran out, give fewer --jobs" in str(
        caught.value
    )
    assert "Seed 14" not in str(caught.value)
    assert "train.log. The same command goes on" in str(caught.value)


def test_changeable_settings_are_kept_unless_others_are_given(tmp_path):
    def settle(power, seed=1):
        arguments = argparse.Namespace(seed=seed, power=power)
        keep_settings(tmp_path / "members", arguments, ["seed"], {"power": 0.25})
        return arguments.power

    assert [settle(p) for p in (0.0, None, 0.4, None)] == [0.0, 0.0, 0.4, 0.4]
    with pytest.raises(DatasetError, match="--seed=1, not with --seed=2"):
        settle(0.1, seed=2)
    assert settle(None) == 0.4
    keep_settings(tmp_path / "other", arguments := argparse.Namespace(power=None), [], {"power": 1})
    assert arguments.power == 1
