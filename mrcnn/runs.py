"""Folders and checkpoint files of training runs, named as matterport names them.

MODEL_DIR/<name><YYYYMMDD>T<HHMM>/mask_rcnn_<name>_<epoch>.h5
"""

import abc
import contextlib
import datetime
import itertools
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mrcnn.files import AnotherProcess, alone_in, remove_leftovers

if TYPE_CHECKING:  # Keras is not there to find runs
    import keras

logger = logging.getLogger(__name__)

HISTORY_FILE = "history.csv"
TAKEN_FILE = ".taken"
"""Empty; in the folder of every run, made by the process whose run it is."""


@dataclass(frozen=True)
class Run:
    """A folder of checkpoints and the epoch that has been reached.

    Attributes:
        folder: of the run; made when training starts.
        name: of the configuration, in lower case.
        epoch: number of epochs trained.
        prefix: of the names of checkpoints; a network that is no Mask R-CNN has none.
    """

    folder: Path
    name: str
    epoch: int = 0
    prefix: str = "mask_rcnn_"

    @property
    def template(self) -> Path:
        """Path of the checkpoints with `{epoch:04d}` in it, for `str.format`."""
        path = str(self.folder / f"{self.prefix}{self.name}_")
        return Path(path.replace("{", "{{").replace("}", "}}") + "{epoch:04d}.h5")


def new_run(model_dir: str | os.PathLike, name: str | None, prefix: str = "mask_rcnn_") -> Run:
    """A run that begins now; a second one within the same minute gets a number.

    So does one that a clock which went back, or a machine in another time zone, would name before
    the latest there is: by its name a run is the last, which copying a folder does not change, as
    it does times of files.

    Raises:
        ValueError: for a name with a slash, which would be a folder's.
    """
    name = (name or "mask_rcnn").lower()
    if "/" in name or "\\" in name:
        raise ValueError(
            f"NAME is part of the names of folders and files, and has no slash; received {name!r}."
        )
    now = f"{datetime.datetime.now():%Y%m%dT%H%M}"
    stamp, number = max([(now, 0), *(dated for dated, _ in _dated_runs(model_dir, name))])
    names = (f"{name}{stamp}{f'-{n}' if n > 1 else ''}" for n in itertools.count(number + 1))
    folders = (Path(model_dir) / each for each in names)
    return Run(next(each for each in folders if not each.exists()), name, prefix=prefix)


def _dated_runs(model_dir, name):
    """The folders of runs, each with its date and number in front, the latest first."""
    dated = re.compile(rf"{re.escape(name)}(\d{{8}}T\d{{4}})(?:-(\d+))?")
    runs = [(dated.fullmatch(path.name), path) for path in Path(model_dir).glob("*/")]
    runs = [((match[1], int(match[2] or 1)), path) for match, path in runs if match]
    return sorted(runs, reverse=True)


def run_of(checkpoint: str | os.PathLike, name: str | None) -> Run | None:
    """The run that a checkpoint's path belongs to, or None for a path of another form."""
    name, path = (name or "mask_rcnn").lower(), Path(checkpoint).absolute()
    match = re.fullmatch(rf"(mask_rcnn_|){re.escape(name)}_(\d{{4,}})\.h5", path.name)
    if not match or not re.fullmatch(r".+\d{8}T\d{4}(-\d+)?", path.parent.name):
        return None
    return Run(path.parent, name, int(match[2]), match[1])


def checkpoints_of(folder: str | os.PathLike, name: str | None) -> dict[int, Path]:
    """Checkpoints in the folder of a run, by the number of their epoch."""
    return {known.epoch: path for path in Path(folder).iterdir() if (known := run_of(path, name))}


def warn_of_lost_run(path: str | os.PathLike, epoch: int | None, name: str | None) -> None:
    """Tells that a training begins at epoch 0, where a checkpoint is of a later one.

    A file that has been given another name than a checkpoint's is meant to begin with.

    Args:
        path: of the weights that were loaded.
        epoch: that the file says of itself, or None.
        name: of the run.
    """
    name = (name or "mask_rcnn").lower()
    if epoch and re.fullmatch(r"(mask_rcnn_)?.+_\d{4,}\.h5", Path(path).name):
        logger.warning(
            "%s is of epoch %d, but lies in no folder of a run of NAME %r, so that training begins "
            "at epoch 0. To go on in its run, load it as %s in a folder %s; to count on from it in "
            "a new folder, set the model's epoch to %d.",
            *(path, epoch, name, f"mask_rcnn_{name}_{epoch:04d}.h5", f"{name}<date>T<time>", epoch),
        )


def find_last(model_dir: str | os.PathLike, name: str | None) -> str:
    """Path of the latest checkpoint of the latest run that has one; later runs are warned of.

    Raises:
        FileNotFoundError: if no run of this name in `model_dir` has a checkpoint.
    """
    name, root = (name or "mask_rcnn").lower(), Path(model_dir)
    without: list[Path] = []
    for _, run in _dated_runs(root, name):
        if epochs := checkpoints_of(run, name):
            for later in without:
                logger.warning("%s is passed over: no epoch of it was completed.", later)
            return str(epochs[max(epochs)])
        without.append(run)
    raise FileNotFoundError(
        f"No checkpoint of {name!r} found in {root.absolute()}. Train first, or give the path of a "
        "weights file."
    )


class InRun(abc.ABC):
    """What is trained in a run, as a base class.

    Attributes:
        keras_model: the network.
        model_dir: folder of all runs' folders.
        run_prefix: `Run.prefix` of its runs.
        epoch: number of epochs trained so far.
        log_dir: folder of this run, made when training starts.
        checkpoint_path: `Run.template` of this run.
        state_path: the state file to go on from, found when weights are loaded; or None.
        loaded: `mrcnn.training.fingerprint` of these weights, as they were loaded.
        behind: whether the state is of the epoch before these weights'.
    """

    keras_model: "keras.Model"
    model_dir: str
    run_prefix = "mask_rcnn_"
    epoch: int
    log_dir: str
    checkpoint_path: str
    state_path: Path | None
    loaded: int | None
    behind: bool
    _run: Run
    _has_folder: bool
    _begun: bool

    @property
    @abc.abstractmethod
    def run_name(self) -> str | None:
        """`name` of its runs."""

    def set_log_dir(self, model_path: str | os.PathLike | None = None) -> None:
        """Takes folder and epoch from a checkpoint's path, or names a new folder for epoch 0."""
        run = run_of(model_path, self.run_name) if model_path else None
        self._has_folder = run is not None
        self._set_run(run or new_run(self.model_dir, self.run_name, self.run_prefix))

    def make_log_dir(self) -> None:
        """Makes the folder of this run, under the next name if another run has taken its own.

        A folder of this name that holds no run, as a script makes it for its own files, is taken;
        a `log_dir` that somebody has set, as it is. Where the run goes on from weights that later
        ones follow in its folder, what is trained now has a folder of its own. Of several
        processes the first makes it, and writes in it.
        """
        from mrcnn.distribution import process_share  # Keras is not there to find runs

        if Path(self.log_dir) != self._run.folder:
            run = replace(self._run, folder=Path(self.log_dir))
            if str(self.checkpoint_path) == str(self._run.template):
                self.checkpoint_path = str(run.template)
            self._run, self._has_folder, self._begun = run, True, True
        if process_share()[0]:
            return
        if self._has_folder and not self._begun and self._is_abandoned():
            folder, self._has_folder = self.log_dir, False
            self._set_run(replace(self._another(), epoch=self.epoch))
            logger.info(
                "%s has checkpoints of later epochs than %d, where this training begins: it goes "
                "on in %s.",
                *(folder, self.epoch, self.log_dir),
            )
        while not self._has_folder:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
            self._has_folder = not _holds_run(self.log_dir, self.run_name) and _take(self.log_dir)
            if not self._has_folder:
                self._set_run(replace(self._another(), epoch=self.epoch))
        Path(self.log_dir).mkdir(parents=True, exist_ok=True)
        self._begun = True

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While this is entered no other process can train this run, where systems have locks.

        Raises:
            BlockingIOError: if another process does.
        """
        from mrcnn.distribution import process_share

        if process_share()[0]:  # the first of several processes writes
            yield
            return
        try:
            with alone_in(self.log_dir, wait=False):
                remove_leftovers(self.log_dir)
                yield
        except AnotherProcess as error:
            raise BlockingIOError(
                f"Another process trains the run {self.log_dir} at the moment, and both would "
                "write the same files. Wait until it has ended, or stop it."
            ) from error

    def _another(self):
        return new_run(self.model_dir, self.run_name, self.run_prefix)

    def _is_abandoned(self):
        """Whether there are checkpoints of later epochs than the weights that were loaded."""
        loaded = self.epoch + self.behind
        folder = Path(self.log_dir)
        return folder.is_dir() and max(checkpoints_of(folder, self.run_name), default=0) > loaded

    def _set_run(self, run):
        self._run = run
        self.epoch = run.epoch
        self.log_dir = str(run.folder)
        self.checkpoint_path = str(run.template)
        self.state_path = self.loaded = None
        self.behind = self._begun = False


def _holds_run(folder, name):
    from mrcnn.training import STATE_FILE

    files = (Path(folder) / file for file in (STATE_FILE, HISTORY_FILE))
    return any(file.exists() for file in files) or bool(checkpoints_of(folder, name))


def _take(folder):
    """Whether this process is the first to take a folder for a run."""
    try:
        (Path(folder) / TAKEN_FILE).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
