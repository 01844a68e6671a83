"""The folder that an evaluation is written to, and what an earlier one has left in it."""

import json
from collections.abc import Sequence
from pathlib import Path

SUMMARY = "evaluation.json"
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
    if out.resolve() in {Path(each).resolve() for each in datasets}:
        raise ValueError(
            f"--out={out} is the folder of a data set, whose tables the results would be taken "
            "for; give another."
        )
    earlier = _earlier(out)
    if earlier and earlier["task"] != task:
        raise ValueError(
            f"--out={out} holds the results of the {earlier['task']} task; give another folder for "
            f"those of the {task}."
        )


def clear_folder(out: Path) -> str | None:
    """Removes what an earlier evaluation has left; says of which weights it was, or None."""
    earlier = _earlier(out)
    if not earlier:
        return None
    for name in (SUMMARY, *_FILES[earlier["task"]]):
        (out / name).unlink(missing_ok=True)
    return f"Replaced in {out}: the results of {earlier['weights']['name']}."


def _earlier(out):
    """The summary that an earlier evaluation wrote; None where there is none of ours."""
    try:
        content = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
        return content if content["task"] in _FILES and content["weights"]["name"] else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
