"""Cross-validation: one classifier for each fold, and all of them as an ensemble.

LOGS/diagnosis-K-folds/ holds `split.json`, `fold-1.json` … (which images each member learns from),
the runs in `fold-1/` …, `ensemble.json` and `cross_validation.json`.
"""

import argparse
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lesion import NOTICE
from lesion.crew import keep_settings, train_all
from lesion.diagnosis_training import STARTS
from lesion.grouping import independent_groups
from lesion.samples import DatasetError, Sample
from lesion.splits import SPLIT_FILE, Split, SplitError
from lesion.training_split import learned_before
from lesion.weights import write_ensemble
from mrcnn.files import write_json


def cross_validate(
    arguments: argparse.Namespace,
    samples: Sequence[Sample],
    split: Split,
    train: Callable,
    settings: Iterable[str],
    changeable: Mapping[str, object] | None = None,
) -> Path:
    """Trains a member for each fold of what is not to test; the same call again goes on.

    Args:
        arguments: of `lesion train`, with `folds`.
        samples: all that are sound.
        split: whose test part no member sees.
        train: trains as such arguments say.
        settings: names of the arguments that have to stay the same when a call goes on.
        changeable: see `lesion.crew.keep_settings`.

    Returns:
        The path of the ensemble, which `lesion.ensemble.load_classifiers` reads.

    Raises:
        lesion.samples.DatasetError: if the folder holds a cross-validation of other images, other
            folds or other settings.
        lesion.crew.MemberFailed: if a member that is trained beside others stopped.
    """
    folder = Path(arguments.logs) / f"{arguments.task}-{arguments.folds}-folds"
    learned = [s for part in ("train", "validation") for s in split.select(samples, part)]
    start = None if arguments.weights in STARTS else Path(arguments.weights)
    earlier = learned_before(start) or Split({"train": []}, 0, {})
    split = _kept_split(folder / SPLIT_FILE, samples, learned, split, earlier)
    folds = split_folds(learned, arguments.folds, arguments.split_seed)
    fold_files, test = {}, split.parts.get("test", [])
    for number, fold in enumerate(folds, start=1):
        fold_file = folder / f"fold-{number}.json"
        rest = [key for other in folds if other is not fold for key in other]
        parts = {"train": sorted(rest), "validation": sorted(fold), "test": test}
        drawn = Split(parts, arguments.split_seed, split.fractions).with_learned(earlier)
        if fold_file.exists() and Split.load(fold_file).with_learned(earlier).parts != drawn.parts:
            raise DatasetError(
                f"{fold_file} holds other folds than --split-seed={arguments.split_seed} draws. "
                "Give the one that the cross-validation was begun with, or another --logs."
            )
        drawn.save(fold_file)
        fold_files[folder / f"fold-{number}"] = {"split": fold_file}
    keep_settings(folder, arguments, settings, changeable)
    members = train_all(arguments, fold_files, train)
    ensemble = folder / "ensemble.json"
    names = [path.relative_to(folder).as_posix() for path in members]
    write_ensemble(ensemble, arguments.task, names)
    _score(members, folds, learned, folder / "cross_validation.json")
    print(f"Ensemble: {ensemble}")
    return ensemble


def split_folds(samples: Sequence[Sample], folds: int, seed: int = 0) -> list[list[str]]:
    """Keys of the samples in each fold of a cross-validation.

    Folds share neither a lesion nor an image, and hold the diagnoses in like shares
    (scikit-learn's `StratifiedGroupKFold`).

    Raises:
        SplitError: if there are fewer lesions than folds, or fewer images of every diagnosis.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    by_lesion = defaultdict(list)
    for sample, lesion in zip(samples, independent_groups(samples), strict=True):
        by_lesion[lesion].append(sample.key)
    groups = sorted(map(sorted, by_lesion.values()))
    if len(groups) < folds:
        raise SplitError(f"{len(groups)} lesions cannot be divided into {folds} folds.")
    diagnoses = {sample.key: sample.diagnosis or "" for sample in samples}
    keys = [key for group in groups for key in group]
    numbers = [number for number, group in enumerate(groups) for _ in group]
    labels = [diagnoses[key] for key in keys]
    if max(Counter(labels).values()) < folds:
        raise SplitError(f"No diagnosis has {folds} images, one for each fold; give more images.")
    divider = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # of a diagnosis with fewer lesions than folds
        warnings.simplefilter("ignore", UserWarning)
        return [[keys[i] for i in held] for _, held in divider.split(keys, labels, numbers)]


def _kept_split(path, samples, learned, split, earlier):
    """The split as it will be used; the one of an earlier call must be the same."""
    keys = sorted(sample.key for sample in learned)
    parts = {"train": keys, "validation": [], "test": split.parts.get("test", [])}
    whole = Split(parts, split.seed, {}).with_marks(samples).with_learned(earlier)
    if path.exists() and Split.load(path).with_learned(earlier).parts != whole.parts:
        raise DatasetError(
            f"{path} belongs to a cross-validation of other images or another split. Give the data "
            "sets and options it was begun with, or another --logs."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save(path)
    return whole


def _score(members, folds, samples, path):
    """Scores one view of each image by the member that did not learn from it.

    The member's temperature was fitted on these images.
    """
    from lesion.diagnosis import load_classifier
    from lesion.diagnosis_evaluation import (
        DiagnosisEvaluation,
        evaluate_diagnosis,
        format_diagnosis,
        summarize_diagnosis,
    )

    joint = DiagnosisEvaluation()
    for member, fold in zip(members, folds, strict=True):
        keys = set(fold)
        held_out = [sample for sample in samples if sample.key in keys]
        evaluation = evaluate_diagnosis(load_classifier(member), held_out)
        joint.samples += evaluation.samples
        joint.diagnoses += evaluation.diagnoses
        joint.problems += evaluation.problems
    summary = {**summarize_diagnosis(joint), "views": 1, "notice": NOTICE}
    print(format_diagnosis(summary))
    write_json(path, summary)
