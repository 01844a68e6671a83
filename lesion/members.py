"""Several networks of one training part as an ensemble: each with a seed of its own.

LOGS/diagnosis-K-members/ holds `split.json`, the runs in `member-1/` … and `ensemble.json`. How
sure the members are together is fitted on the validation part, which none of them learned from.
"""

import argparse
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lesion.calibration import Calibration
from lesion.crew import keep_settings, train_all
from lesion.diagnosis import VIEWS, calibrations_in, load_classifier, logits_of_samples
from lesion.diagnosis_network import NAME
from lesion.ensemble import plain
from lesion.samples import DIAGNOSES, DatasetError, Sample
from lesion.splits import SPLIT_FILE, Split
from lesion.weights import find_weights, write_ensemble
from mrcnn.weights import WeightsError

logger = logging.getLogger(__name__)


def train_members(
    arguments: argparse.Namespace,
    samples: Sequence[Sample],
    split: Split,
    train: Callable,
    settings: Iterable[str],
    changeable: Mapping[str, object] | None = None,
) -> Path:
    """Trains the members and fits their joint temperature; the same call again goes on.

    Args:
        arguments: of `lesion train`, with `members`. The first member has the seed given, the next
            one more, and so on.
        samples: all that are sound.
        split: of all members.
        train: trains as such arguments say.
        settings: names of the arguments that have to stay the same when a call goes on.
        changeable: see `lesion.crew.keep_settings`.

    Returns:
        The path of the ensemble, which `lesion.ensemble.load_classifiers` reads.

    Raises:
        lesion.samples.DatasetError: if the folder has an ensemble of another split or settings.
        lesion.crew.MemberFailed: if a member that is trained beside others stopped.
    """
    folder = Path(arguments.logs) / f"{arguments.task}-{arguments.members}-members"
    kept = folder / SPLIT_FILE
    for part in ("train", "validation"):
        split.select(samples, part)  # raises where it is a split of other images
    if kept.exists() and not Split.load(kept).means(split):
        raise DatasetError(
            f"{kept} belongs to an ensemble of other images or another split. Give the data sets "
            "and options it was begun with, or another --logs."
        )
    keep_settings(folder, arguments, settings, changeable)
    split.save(kept)
    numbers = range(arguments.members)
    members = train_all(
        arguments,
        {folder / f"member-{n + 1}": {"seed": arguments.seed + n, "split": kept} for n in numbers},
        train,
    )
    validation = split.select(samples, "validation")
    calibrations = fit_jointly(members, validation) if validation else {}
    ensemble = folder / "ensemble.json"
    names = [path.relative_to(folder).as_posix() for path in members]
    write_ensemble(ensemble, arguments.task, names, plain(calibrations))
    print(f"Ensemble: {ensemble}")
    return ensemble


def fit_jointly(members: Sequence[Path], samples: Sequence[Sample]) -> dict[int, Calibration]:
    """By number of views the `Calibration` of the logarithms of the members' mean probabilities.

    Means are less sure than their parts, so that the members' own temperatures do not do.

    Args:
        members: weights files, each with its own calibration.
        samples: of none of which a member learned.

    Raises:
        mrcnn.weights.WeightsError: if a member is not calibrated.
    """
    labels = np.array([DIAGNOSES.index(sample.diagnosis) for sample in samples])
    means: dict[int, float | np.ndarray] = dict.fromkeys(VIEWS, 0.0)
    for path in members:
        own = calibrations_in(find_weights(path, NAME)[1], path)
        if missing := set(VIEWS) - set(own):
            raise WeightsError(
                f"{path} has no calibration for {min(missing)} views: its training did not reach "
                "its last epoch, or had no validation part. Continue it with --weights=last."
            )
        logits = logits_of_samples(load_classifier(path, views=max(VIEWS)), samples, "Calibrating")
        for views in VIEWS:
            mean = logits[:, :views].mean(axis=1)
            means[views] += own[views].probabilities(mean) / len(members)
    fitted = {views: Calibration.fit(np.log(mean), labels) for views, mean in means.items()}
    for views, calibration in fitted.items():
        logger.info("Joint temperature (views: %d): %.3f.", views, calibration.temperature)
    return fitted
