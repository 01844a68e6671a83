"""Weights files of the tasks: which task one is of, and that it is whole."""

from pathlib import Path

from mrcnn.runs import weights_path
from mrcnn.weights import LoadReport, WeightsError, read_metadata


def find_weights(weights: str | Path, task: str) -> tuple[Path, dict]:
    """Path and metadata of a weights file of a task.

    Args:
        weights: path of a file that `lesion/train.py` wrote, or "last" for the last run's in
            `logs`.
        task: one of `lesion.samples.TASKS`.

    Raises:
        mrcnn.weights.WeightsError: if the file is damaged or of another task.
        FileNotFoundError: if there is none.
    """
    path = weights_path(weights, "logs", task)
    metadata = read_metadata(path)
    if metadata.get("task") != task:
        raise WeightsError(
            f"{path} does not hold weights of the {task} task, but of "
            f"{metadata.get('task', 'an unknown one')}. Train some with lesion/train.py "
            f"--task={task}, or give the path of such a file."
        )
    return path, metadata


def require_whole(report: LoadReport, path: Path) -> None:
    """Raises `mrcnn.weights.WeightsError` if a layer stayed random."""
    if report.missing_layers:
        raise WeightsError(f"{path} is incomplete: {', '.join(report.missing_layers)} missing.")
