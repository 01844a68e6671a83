"""Weights files of the tasks: where one lies, which task it is of, and that it is whole.

What the project ships for a task are three files that `lesion/ship.py` writes:
`lesion_TASK.weights.h5`, its record `lesion_TASK.json`, which holds the first one's SHA-256, and
`lesion_TASK.split.json`, the split it was trained with. Of an ensemble these are
`lesion_TASK_1.weights.h5` and so on, and `lesion_TASK.ensemble.json` names its members.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion.samples import Sample
from lesion.splits import SPLIT_FILE, Split, knows_any, learned_keys
from mrcnn import runs
from mrcnn.arrays import WeightsError, read_metadata
from mrcnn.files import data_folders, sha256_of, write_json

if TYPE_CHECKING:  # it comes with Keras, which a mistyped command need not wait for
    from mrcnn.weights import LoadReport

logger = logging.getLogger(__name__)

SHIPPED = "lesion"
"""In the place of a weights file: the one that the project ships for the task."""
NONE = "none"
"""In the place of a weights file: this network is left out, also if the project ships it."""

_ENDING, _ENSEMBLE = ".weights.h5", ".ensemble.json"
_FOLDERS = data_folders()


def shipped_name(task: str, member: int | None = None) -> str:
    """Name of the weights file that the project ships for a task, or for a member of its ensemble.

    Members count from 1; 0 is the file that names them.
    """
    if member is None:
        return f"lesion_{task}{_ENDING}"
    return f"lesion_{task}_{member}{_ENDING}" if member else f"lesion_{task}{_ENSEMBLE}"


def shipped_weights(task: str) -> Path | None:
    """The weights of one of `lesion.samples.TASKS` that come with the project, or None.

    Of an ensemble the file that names its members.
    """
    names = shipped_name(task), shipped_name(task, member=0)
    paths = (folder / name for folder in _FOLDERS for name in names)
    return next((path for path in paths if path.is_file()), None)


def weights_path(weights: str | Path, task: str) -> Path:
    """Path of a weights file that may be given by a word.

    Args:
        weights: a path, "last" for the last run's in `logs`, or "lesion" for the shipped one.
        task: one of `lesion.samples.TASKS`.

    Raises:
        FileNotFoundError: if there is no last run, or the project ships no weights of the task.
    """
    if str(weights) == "last":
        return _last("logs", task)
    if str(weights) != SHIPPED:
        return Path(weights)
    path = shipped_weights(task)
    if path is None:
        raise FileNotFoundError(
            f"The project ships no weights of the {task} task yet: {shipped_name(task)} is neither "
            f"in {' nor in '.join(map(str, _FOLDERS))}. Train some by `lesion train "
            f"--task={task} --dataset=DIR`, and give --weights=last."
        )
    return path


def _last(logs, task):
    """The latest checkpoint; an ensemble that is younger is named, which "last" does not mean."""
    last = Path(runs.find_last(logs, task))
    ensembles = [*Path(logs).glob(f"{task}-*-members"), *Path(logs).glob(f"{task}-*-folds")]
    for path in (folder / "ensemble.json" for folder in ensembles):
        if path.is_file() and path.stat().st_mtime > last.stat().st_mtime:
            logger.warning(
                "--weights=last is %s, the last network that was trained alone; the ensemble %s is "
                "younger, which takes --weights=%s.",
                *(last, path, path),
            )
    return last


def member_files(weights: Sequence[str | Path], task: str = "diagnosis") -> list[Path]:
    """The weights files of networks that answer together.

    Args:
        weights: as for `weights_path`; also files that name the members of an ensemble, as
            `lesion train` writes them with --folds or --members, and `lesion join`.
        task: one of `lesion.samples.TASKS`.

    Raises:
        mrcnn.weights.WeightsError: if an ensemble's file does not name its members, or means others
            than are there.
        FileNotFoundError: as `weights_path`, or if a member is missing.
    """
    return [member for path in weights for member in _members(weights_path(path, task))]


def write_ensemble(
    path: Path, task: str, members: Sequence[str], calibration: Mapping | None = None, **more: Any
) -> None:
    """Writes the file that names the members of an ensemble.

    Args:
        members: paths of their files, from the folder of this one, with slashes.
        calibration: what `ensemble_calibration` is to give, as plain values by number of views.
        more: further values to be kept; `sha256` where the members are not at their paths yet.
    """
    content = {"task": task, "members": list(members), **more}
    if calibration:
        content["calibration"] = calibration
    if "sha256" not in content:
        hashes = [sha256_of(path.parent / name) for name in members]
        content["sha256"] = joint_sha256(hashes, calibration)
    write_json(path, content)


def require_different(members: Sequence[Path]) -> None:
    """Raises ValueError if two of the files are of one network, which would count twice."""
    known: dict[str, Path] = {}
    for path in members:
        same = known.setdefault(sha256_of(path), path)
        if same is not path:
            raise ValueError(
                f"{same} and {path} are the same network, which would count twice; leave one out."
            )


def say_other_settings(path: str | Path, now: Mapping, options: Mapping[str, str]) -> None:
    """Warns where weights that a training begins with learned otherwise than it will.

    Args:
        path: of the weights.
        now: settings of the training, by their names in a weights file.
        options: names of those that change what the network sees, with the option of each.
    """
    before = read_metadata(path).get("config", {})
    for name, option in options.items():
        if name in before and before[name] != now[name]:
            logger.warning(
                "%s learned with %s %s, and goes on with %s here (%s).",
                *(path, name.lower(), before[name], now[name], option),
            )


UNFINISHED = (
    "%s has no %s: its training did not reach its last epoch (`lesion train --weights=last` goes "
    "on), or had no validation part. Its answers mean little."
)


def ensemble_calibration(weights: Sequence[str | Path], task: str = "diagnosis") -> dict:
    """By number of views how the mean of an ensemble's members is calibrated, as plain values.

    Args:
        weights: as for `member_files`. Only an ensemble by itself, of one file, has any.

    Raises:
        mrcnn.weights.WeightsError: if the file holds something else in its place.
    """
    paths = [weights_path(path, task) for path in weights]
    if len(paths) != 1 or paths[0].suffix != ".json":
        return {}
    content = _read_json(paths[0])
    calibration = content.get("calibration", {}) if isinstance(content, dict) else {}
    if not isinstance(calibration, dict):
        raise WeightsError(
            f"{paths[0]} has a calibration that is {calibration!r} and not values by number of "
            "views. Fetch the file again, or make it anew with `lesion join`."
        )
    return calibration


def joint_fingerprint(weights: Sequence[str | Path], task: str = "diagnosis") -> str:
    """`joint_sha256` of what is to answer together, as for `member_files`."""
    hashes = [sha256_of(path) for path in member_files(weights, task)]
    return joint_sha256(hashes, ensemble_calibration(weights, task))


def _members(path):
    if path.suffix != ".json":
        return [path]
    content = _read_json(path)
    names = content.get("members") if isinstance(content, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise WeightsError(
            f"{path} does not name the members of an ensemble, as `lesion train --members` and "
            '`lesion join` do: it lacks "members", a list of their files.'
        )
    members = [path.parent / name for name in names]
    for member in members:
        if not member.is_file():
            raise FileNotFoundError(
                f"{member} is missing, a member of the ensemble {path}. Fetch all of it again."
            )
    expected = content.get("sha256")
    found = joint_sha256([sha256_of(member) for member in members], content.get("calibration"))
    if expected not in (None, found):
        raise WeightsError(
            f"The ensemble {path} is not what it was when it was made: one of its members, or the "
            "calibration of their mean, is damaged or of another version. Fetch all of it again, "
            "from one place, or make it anew with `lesion join`."
        )
    return members


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no whole JSON text ({error}). Fetch it again.") from error


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that a run, or an ensemble, keeps in its folder; none where there is no file.

    Raises:
        ValueError: if the file holds something else.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        content = error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} does not hold the settings of a training ({content}). Move it away, and give "
            "the settings that the training was begun with."
        )
    return content


def joint_sha256(hashes: Sequence[str], calibration: Mapping | None = None) -> str:
    """One SHA-256 for several files: that of theirs, one after the other; of one file its own.

    Args:
        calibration: of the files' mean, on which its answers depend as they do on the files; its
            JSON text comes last.
    """
    if len(hashes) == 1:
        return hashes[0]
    text = "".join(hashes) + (json.dumps(calibration, sort_keys=True) if calibration else "")
    return hashlib.sha256(text.encode()).hexdigest()


def find_weights(weights: str | Path, task: str) -> tuple[Path, dict]:
    """Path and metadata of a weights file of a task.

    Args:
        weights: as for `weights_path`; the file is one that `lesion/train.py` wrote.
        task: one of `lesion.samples.TASKS`.

    Raises:
        mrcnn.weights.WeightsError: if the file is damaged, not the recorded one or of another task.
        FileNotFoundError: if there is none.
    """
    path = weights_path(weights, task)
    if path.suffix == ".json":
        raise WeightsError(
            f"{path} names the members of an ensemble, and one network is wanted here. Give one of "
            f"its members: {', '.join(map(str, _members(path)))}."
        )
    metadata = checked_metadata(path)
    if metadata.get("task") != task:
        raise WeightsError(
            f"{path} does not hold weights of the {task} task, but of "
            f"{metadata.get('task', 'an unknown one')}. Train some with lesion/train.py "
            f"--task={task}, or give the path of such a file."
        )
    return path, metadata


def checked_metadata(path: Path) -> dict:
    """Metadata of a weights file, once it is known to be the one that the record beside it means.

    Files without a record are taken as they are.

    Raises:
        mrcnn.weights.WeightsError: if the file or its record is damaged, or they do not agree.
        FileNotFoundError: if there is no such file.
    """
    metadata = read_metadata(path)  # says best what a pointer or half a download is
    record = companion(path, ".json")
    ours = path.resolve().parent in _FOLDERS and path.name.startswith(f"{SHIPPED}_")
    if ours and not record.is_file():
        logger.warning("%s is missing: that %s is whole cannot be checked.", record, path.name)
    if not path.name.endswith(_ENDING) or not record.is_file():
        return metadata
    content = _read_json(record)
    expected = content.get("sha256") if isinstance(content, dict) else None
    if expected is None:  # a JSON file of something else
        return metadata
    found = sha256_of(path)
    if found != expected:
        raise WeightsError(
            f"{path} is not the file that {record.name} beside it describes: its SHA-256 is "
            f"{found[:12]}…, not {str(expected)[:12]}…. One of them is damaged or of another "
            f"version: fetch {path.name} and {record.name} again, both from one place."
        )
    return metadata


def companion(weights: Path, ending: str) -> Path:
    """The file beside a weights file that is named like it but for the ending."""
    stem = weights.name.removesuffix(_ENDING).removesuffix(_ENSEMBLE)
    return weights.with_name(stem + ending)


def split_of(weights: Path, samples: Iterable[Sample]) -> Path | None:
    """The split that weights were trained with, if it knows any of the samples.

    Shipped weights have one of their own beside them, others that of their run's folder.
    """
    own = own_split(weights)
    return own if own and knows_any(own, samples) else None


def learned_by(weights: Iterable[Path], samples: Sequence[Sample]) -> set[str]:
    """Keys of samples that weights have learned from, be it in a folder of another name.

    Of an ensemble, also what a member alone has learned from.
    """
    return learned_keys(list(splits_beside(weights).values()), samples)


def splits_beside(weights: Iterable[Path]) -> dict[Path, Split]:
    """The splits that weights, and the members of an ensemble, were trained with, by their files.

    Raises:
        lesion.splits.SplitError: if one of them is damaged.
    """
    weights = list(weights)
    members = member_files([path for path in weights if path.suffix == ".json"])
    found = dict.fromkeys(own_split(path) for path in [*weights, *members])
    return {file: Split.load(file) for file in found if file}


def own_split(weights: Path) -> Path | None:
    """The split that weights were trained with, of whatever images.

    Of a symbolic link also what lies beside the file itself: a run's folder is that one's.
    """
    places = weights, Path(os.path.realpath(weights))
    beside = [companion(path, ".split.json") for path in places]
    beside += [path.parent / SPLIT_FILE for path in reversed(places)]
    return next((path for path in beside if path.is_file()), None)


def require_whole(report: "LoadReport", path: Path) -> None:
    """Raises `mrcnn.weights.WeightsError` if a layer stayed random."""
    if report.missing_layers:
        raise WeightsError(f"{path} is incomplete: {', '.join(report.missing_layers)} missing.")
