"""Trainings one after the other, or several at once with their share of the cores each."""

import argparse
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

from lesion.samples import DatasetError
from lesion.weights import read_settings
from mrcnn.files import write_json
from mrcnn.runs import find_last

LOG_FILE = "train.log"
SETTINGS_FILE = "settings.json"
_STOPPED = "Stopped."


class MemberFailed(RuntimeError):
    """A training that ran in a process of its own stopped."""


def keep_settings(
    folder: Path,
    arguments: argparse.Namespace,
    names: Iterable[str],
    changeable: Mapping[str, object] | None = None,
) -> None:
    """Writes the settings of all members into their folder, or finds the same ones there.

    Args:
        folder: of the ensemble.
        arguments: of the command; what is `changeable` and None in them takes the value kept.
        names: of the settings that must stay.
        changeable: settings that may become others, with the values they have if none was given.

    Raises:
        DatasetError: if the folder was begun with others. Members of different settings may well
            answer together (`lesion join`), but not by mistake.
    """
    path = folder / SETTINGS_FILE
    settings = json.loads(json.dumps({name: getattr(arguments, name) for name in names}))
    before = read_settings(path) or settings
    usual = getattr(arguments, "usual", {})
    for name, value in settings.items():
        if name not in before and not (usual.get(name, value) or value):
            continue  # it is younger than the folder, and as good as not given
        kept = before.get(name, usual.get(name, value))  # what is younger had its usual value
        if kept != value and not _is_one_file(kept, value):
            option = "--" + name.replace("_", "-")
            raise DatasetError(
                f"{folder} was begun with {option}={kept}, not with {option}={value}. Go on with "
                "the same, or give another --logs."
            )
    take_changeable(arguments, changeable or {}, before)
    settings |= {name: getattr(arguments, name) for name in changeable or {}}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, settings, durable=True)


def _is_one_file(*values):
    """Whether values are paths of one file, which may be given from another folder."""
    paths = [Path(value) for value in values if isinstance(value, str)]
    return len(paths) == 2 and paths[0].is_file() and paths[0].resolve() == paths[1].resolve()


def take_changeable(
    arguments: argparse.Namespace, changeable: Mapping[str, object], kept: Mapping[str, object]
) -> None:
    """Gives settings of which None was given the values kept, or else their usual ones."""
    for name, usual in changeable.items():
        if getattr(arguments, name) is None:
            before = kept.get(name)
            setattr(arguments, name, usual if before is None else before)


def train_all(
    arguments: argparse.Namespace, members: Mapping[Path, Mapping], train: Callable
) -> list[Path]:
    """Trains, or goes on training, what differs from `arguments` in settings of its own.

    Args:
        arguments: of `lesion train`, with `jobs`, the number of trainings at once, and `cache`.
        members: settings of each by the folder of its logs.
        train: trains as such arguments say; a function of a module.

    Returns:
        The last checkpoint of each.

    Raises:
        MemberFailed: if one of several at once stopped. What it said is in the file `LOG_FILE` of
            its folder; the others are stopped, too, and keep their checkpoints.
    """
    waiting = [
        argparse.Namespace(
            **{
                **vars(arguments),
                **{name: _plain(value) for name, value in settings.items()},
                "folds": None,
                "members": None,
                "jobs": 1,
                "logs": str(logs),
                "weights": "last" if _has_run(logs, arguments.task) else arguments.weights,
            }
        )
        for logs, settings in members.items()
    ]
    if arguments.jobs == 1:
        _train_here(waiting, train)
    else:
        _train_beside(waiting, train, min(arguments.jobs, len(waiting)))
    return [Path(find_last(logs, arguments.task)) for logs in members]


def _plain(value):
    return str(value) if isinstance(value, Path) else value


def _has_run(logs, task):
    try:
        return bool(find_last(logs, task))
    except FileNotFoundError:
        return False


def _train_here(members, train):
    import keras

    for number, member in enumerate(members, start=1):
        print(f"Member {number} of {len(members)}: {member.logs}")
        keras.utils.clear_session()  # of what the member before holds
        train(member)


def _train_beside(members, train, jobs):
    """Each member in a new process, which has a share of the cores to itself where that is known.

    A training of small images keeps one core busy better than two trainings in turn keep two.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # or the first takes all memory
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    jobs = min(jobs, len(cores) or jobs)
    free = [cores[job::jobs] for job in range(jobs)]
    running: dict[int, _Running] = {}
    waiting = list(enumerate(members, start=1))
    try:
        while waiting or running:
            while waiting and free:
                number, member = waiting.pop(0)
                log = Path(member.logs) / LOG_FILE
                print(f"Member {number} of {len(members)}: {log}", flush=True)
                started = _start(train, member, log, free.pop())
                running[started.process.sentinel] = started
            for sentinel in wait(list(running)):
                ended = running.pop(sentinel)
                free.append(ended.cores)
                _require_success(ended)
    finally:
        for left in running.values():
            left.process.terminate()
        for left in running.values():
            left.process.join()


class _Running(NamedTuple):
    """A training in a process of its own; what it says begins in its log after `start` bytes."""

    process: multiprocessing.process.BaseProcess
    log: Path
    start: int
    cores: list[int]


def _start(train, member, log, cores):
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    start = log.stat().st_size
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    # A daemon ends with this process, whatever ends it.
    process = context.Process(target=_run, args=(train, member, log, cores), daemon=True)
    # From its first moment on, as it loads for seconds; `_run` says why it is not to see this one.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    return _Running(process, log, start, cores)


def _require_success(ended):
    """Raises MemberFailed with what a training said last if it was stopped by an error."""
    ended.process.join()
    code = ended.process.exitcode
    if not code:
        return
    mending = ""
    if code < 0:  # what it said last has nothing to do with it
        name = _signal_name(-code)
        way = f"was ended from outside ({name}); if memory ran out, give fewer --jobs."
    else:
        said = _last_line(ended.log, ended.start)
        way = f"stopped with code {code}: {said}"
        mending = "" if said == _STOPPED else "With that mended: "
    raise MemberFailed(
        f"A training {way} All that it said is in {ended.log}. {mending}The same command goes on "
        "from the last epochs."
    )


def _signal_name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(log, start):
    """What a training said last, from a place in its log on."""
    with open(log, "rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "It said nothing.")


def _run(train, member, log, cores):
    """What a process does: trains one member, and writes what there is to say to a file.

    What `train` raises is written there, too, and ends the process with code 1.
    """
    # Stopped, a training is to remove what it has half written, as when it is interrupted; it is
    # stopped once, by the process that started it, also where a key or a closed terminal
    # stops all of them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):  # not on Windows
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if cores:
        os.sched_setaffinity(0, cores)
    # Not closed before the process ends: TensorFlow writes to the descriptors, Python to the file.
    file = open(log, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = file
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=file)
    try:
        train(member)
    except KeyboardInterrupt:
        sys.exit(_STOPPED)


def _end_with_parent():
    """Ends this process when the one that started it is gone, so that none trains on unseen."""
    multiprocessing.parent_process().join()
    os._exit(1)
