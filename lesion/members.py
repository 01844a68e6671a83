"""Several networks of one training part as an ensemble: each with a seed of its own.

LOGS/diagnosis-K-members/ holds `split.json`, the runs in `member-1/` … and `ensemble.json`. How
sure the members are together is fitted on the validation part, which none of them learned from.
"""

import argparse
import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from lesion.calibration import Calibration
from lesion.crew import train_all
from lesion.samples import DIAGNOSES, DatasetError, Sample
from lesion.splits import SPLIT_FILE, Split
from lesion.weights import write_ensemble

logger = logging.getLogger(__name__)


def train_members(
    arguments: argparse.Namespace, samples: Sequence[Sample], split: Split, train: Callable
) -> Path:
    """Trains the members and fits their joint temperature; the same call again goes on.

    Args:
        arguments: of `lesion train`, with `members`. The first member has the seed given, the next
            one more, and so on.
        samples: all that are sound.
        split: of all members.
        train: trains as such arguments say.

    Returns:
        The path of the ensemble, which `lesion.ensemble.load_classifiers` reads.

    Raises:
        lesion.samples.DatasetError: if the folder holds an ensemble of another split.
        lesion.crew.MemberFailed: if a member that is trained beside others stopped.
    """
    folder = Path(arguments.logs) / f"{arguments.task}-{arguments.members}-members"
    kept = folder / SPLIT_FILE
    if kept.exists() and Split.load(kept).parts != split.parts:
        raise DatasetError(
            f"{kept} belongs to an ensemble of other images or another split. Give the data sets "
            "and options it was begun with, or another --logs."
        )
    folder.mkdir(parents=True, exist_ok=True)
    split.save(kept)
    numbers = range(arguments.members)
    members = train_all(
        arguments,
        {folder / f"member-{n + 1}": {"seed": arguments.seed + n, "split": kept} for n in numbers},
        train,
    )
    validation = split.select(samples, "validation")
    calibration = fit_jointly(members, validation) if validation else {}
    ensemble = folder / "ensemble.json"
    names = [str(path.relative_to(folder)) for path in members]
    write_ensemble(ensemble, arguments.task, names, calibration)
    print(f"Ensemble: {ensemble}")
    return ensemble


def fit_jointly(
    members: Sequence[Path], samples: Sequence[Sample]
) -> dict[str, dict[str, float | list]]:
    """By number of views the `Calibration` of the members' mean probabilities, as plain values.

    Means are less sure than their parts, so that the members' own temperatures do not do.

    Args:
        members: weights files.
        samples: of none of which a member learned.
    """
    import numpy as np

    from lesion.diagnosis import VIEWS, load_classifier, logits_of_samples

    labels = np.array([DIAGNOSES.index(sample.diagnosis) for sample in samples])
    means = {views: 0.0 for views in VIEWS}
    for path in members:
        logits = logits_of_samples(load_classifier(path, views=max(VIEWS)), samples)
        for views in VIEWS:
            own = load_classifier(path, views=views).calibration
            means[views] += own.probabilities(logits[:, :views].mean(axis=1)) / len(members)
    fitted = {views: Calibration.fit(np.log(mean), labels) for views, mean in means.items()}
    for views, calibration in fitted.items():
        logger.info("Joint temperature with %d views: %.3f.", views, calibration.temperature)
    return {str(views): dataclasses.asdict(calibration) for views, calibration in fitted.items()}
