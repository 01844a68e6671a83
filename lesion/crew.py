"""Trainings one after the other, or several at once with their share of the cores each."""

import argparse
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from pathlib import Path

from mrcnn.runs import find_last

LOG_FILE = "train.log"


class MemberFailed(RuntimeError):
    """A training that ran in a process of its own stopped."""


def train_all(
    arguments: argparse.Namespace, members: Mapping[Path, Mapping], train: Callable
) -> list[Path]:
    """Trains, or goes on training, what differs from `arguments` in settings of its own.

    Args:
        arguments: of `lesion train`, with `jobs`, the number of trainings at once.
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
                "cache": arguments.cache or str(Path(arguments.logs) / "cache"),
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
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    free = [cores[job::jobs] for job in range(jobs)]
    running = {}
    waiting = list(enumerate(members, start=1))
    try:
        while waiting or running:
            while waiting and free:
                number, member = waiting.pop(0)
                Path(member.logs).mkdir(parents=True, exist_ok=True)
                log = Path(member.logs) / LOG_FILE
                print(f"Member {number} of {len(members)}: {log}", flush=True)
                share = free.pop()
                process = context.Process(target=_run, args=(train, member, log, share))
                process.start()
                running[process.sentinel] = process, log, share
            for sentinel in wait(list(running)):
                process, log, share = running.pop(sentinel)
                process.join()
                free.append(share)
                if process.exitcode:
                    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
                    last = next((line for line in reversed(lines) if line.strip()), "")
                    raise MemberFailed(
                        f"A training stopped with code {process.exitcode}: {last} All that it said "
                        f"is in {log}. The same command goes on from the last epochs."
                    )
    finally:
        for process, _, _ in running.values():
            process.terminate()
            process.join()


def _run(train, member, log, cores):
    """What a process does: trains one member, and writes what there is to say to a file."""
    if cores:
        os.sched_setaffinity(0, cores)
    with open(log, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    train(member)  # what it raises is written there, too, and ends the process with code 1
