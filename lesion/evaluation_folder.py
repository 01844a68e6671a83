"""The folder that an evaluation is written to, and what an earlier one has left in it."""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from lesion.folders import SUMMARY, image_files
from mrcnn.files import is_stream

# What the tasks write besides, which must not seem to belong to a later evaluation.
_FILES = {
    "boundary": ("jaccard.csv", "jaccard.png", "cases.png"),
    "attributes": ("attributes.csv", "disagreements.png"),
    "diagnosis": (
        *("submission.csv", "predictions.csv", "confusion.png", "roc.png", "reliability.png"),
        *("coverage.png", "heat_maps.png"),
    ),
}


def refuse_folder(out: Path, datasets: Sequence[str], task: str) -> None:
    """Raises ValueError where results would lie among a data set's files or another task's results.

    Args:
        out: the folder, which need not exist.
        datasets: folders of the data sets.
        task: one of `lesion.samples.TASKS`, which is evaluated.
    """
    if os.path.realpath(out) in map(os.path.realpath, datasets):
        raise ValueError(
            f"--out={out} is the folder of a data set, whose tables the results would be taken "
            "for; give another."
        )
    if among := next(filter(None, (_images_around(out, root) for root in datasets)), None):
        raise ValueError(
            f"--out={out} lies in {among}, among the images of a data set, for which the figures "
            "would be taken; give another."
        )
    earlier = _earlier(out)
    if earlier and earlier["task"] != task:
        raise ValueError(
            f"--out={out} holds the results of the {earlier['task']} task; give another folder for "
            f"those of the {task}."
        )


def _images_around(out, root):
    """The folder of a data set's images that a folder is, or lies in; None where there is none."""
    real, root = Path(os.path.realpath(out)), Path(os.path.realpath(root))
    if root not in real.parents:
        return None
    around = [real, *real.parents]
    inside = (folder for folder in around[: around.index(root)] if folder.is_dir())
    return next((f for f in inside if image_files(f) and not (f / SUMMARY).is_file()), None)


def refuse_copy(file: Path) -> None:
    """Raises ValueError where a copy of the summary would replace a file that is none."""
    if not is_stream(file) and file.is_file() and file.stat().st_size and not _summary_in(file):
        raise ValueError(
            f"--json={file} is there, and no result of `lesion evaluate`, which would replace it; "
            "name another."
        )


def weights_in(out: Path) -> str | None:
    """Name of the weights of which a folder holds the results; None where it holds none."""
    earlier = _earlier(out)
    return earlier and earlier["weights"]["name"]


def clear_folder(out: Path, task: str) -> None:
    """Removes the tables and figures that an earlier evaluation of the task has left.

    What cannot be removed, as a table that a program has open, is left.
    """
    for name in _FILES[task]:
        with contextlib.suppress(OSError):
            (out / name).unlink()


def _earlier(out):
    """The summary that an earlier evaluation wrote; None where there is none of ours."""
    return _summary_in(out / SUMMARY)


def _summary_in(file):
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return content if content["task"] in _FILES and content["weights"]["name"] else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
