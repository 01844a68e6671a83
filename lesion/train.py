"""Trains a task on dermoscopic images.

python lesion/train.py --task=boundary|attributes|diagnosis --dataset=DIR
    --weights=imagenet|last|PATH|none
"""

import argparse
import logging
import sys
from pathlib import Path

if not __package__:  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from lesion import NOTICE
from lesion.cache import ImageCache
from lesion.checks import check_samples
from lesion.crew import MemberFailed, take_changeable
from lesion.crop import MIN_SHARE
from lesion.layouts import find_collections
from lesion.patient import NOTHING_KNOWN, known_of, told
from lesion.samples import TRUTHS, DatasetError, Sample, said_of
from lesion.splits import RUN_FILE, SPLIT_FILE, UNLABELLED, Split
from lesion.stopping import stoppable
from lesion.train_options import RUN_SETTINGS, check_arguments, parse, training_of
from lesion.training_split import choose_split, refuse_seen_folds
from lesion.weights import checked_metadata, read_settings
from mrcnn.files import require_writable, write_json
from mrcnn.runs import InRun, find_last

logger = logging.getLogger(__name__)

# A backbone that has learned from millions of images is to be changed with care.
ALL_LAYERS_RATE = 0.4


# === Command line ===


@stoppable
def main(argv: list[str] | None = None) -> int:
    """Returns 0, 1 (it diverged or stopped), 2 (something is to be mended) or 130 (Ctrl-C)."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    print(NOTICE)
    try:
        require_writable(arguments.logs)
        if _trains_several(arguments):
            _train_several(arguments)
        else:
            train(arguments)
    except (DatasetError, OSError, ValueError) as error:
        print(f"lesion train: {error}", file=sys.stderr)
        return 2
    except (FloatingPointError, MemberFailed) as error:
        print(f"lesion train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Before it has a checkpoint, this run is not the last one.
        run = getattr(arguments, "run", None)
        kept = arguments.weights == "last" or (run and any(run.glob("*_[0-9]*.h5")))
        if _trains_several(arguments):
            way = "The same command goes on from the epochs that were completed."
        elif kept:
            way = "--weights=last continues from the last epoch."
        else:
            way = "No epoch was completed: the same command begins anew."
        print(f"Stopped. {way}", file=sys.stderr)
        return 130
    return 0


# === Training ===


def train(arguments: argparse.Namespace) -> InRun:
    """Trains as the parsed `arguments` say; returns the model, such as a `MaskRCNN`."""
    task = training_of(arguments.task)
    last = _last_run(arguments, task) if arguments.weights == "last" else None
    take_changeable(arguments, getattr(task, "CHANGEABLE", {}), {})
    check_arguments(arguments)
    samples = load_samples(arguments)

    import keras

    keras.utils.set_random_seed(arguments.seed)  # of the layers that begin at random
    split, training, validation, more = _divide(arguments, task, samples, last)
    counts = {"train": len(training), "validation": len(validation), UNLABELLED: len(more)}
    _refuse_other_data(last, counts)
    # Loading weights resets the run's folder, so the model comes first.
    model = task.build_model(arguments, [*training, *more])
    task.load_start_weights(model, arguments, last)
    if model.epoch >= arguments.epochs:
        logger.info(
            "This run has reached its %d epochs. To train on, start one from its weights: "
            "--weights=%s",
            arguments.epochs,
            last,
        )
    _keep_run(arguments, task, model, split, counts)
    datasets = task.datasets(arguments, ([*training, *more], validation), _cache(arguments))
    _fit(arguments, task, model, datasets)
    weights = model.checkpoint_path.format(epoch=model.epoch)
    task.finish(arguments, weights, training, validation)
    print(f"Weights: {weights}")
    return model


def _divide(arguments, task, samples, last):
    """The split, its parts `train` and `validation`, and what more is learned from."""
    split = choose_split(arguments, samples, task, last).with_marks(samples)
    training, validation = (split.select(samples, part) for part in ("train", "validation"))
    if not training:
        raise DatasetError("The split leaves no image to train on; give more images.")
    more = task.find_more(arguments, samples, split) if hasattr(task, "find_more") else []
    taught = Split({UNLABELLED: [sample.key for sample in more]}, split.seed, {})
    return split.with_learned(taught.with_marks(more)), training, validation, more


def _refuse_other_data(last, counts):
    """DatasetError where a run would go on with other numbers of images than it was begun with."""
    before = {**counts, **((last and _settings_of(last).get("images")) or {})}
    if before != counts:
        raise DatasetError(
            f"The run that is to go on has learned from {before['train']} images with a truth and "
            f"{before[UNLABELLED]} without, and was judged by {before['validation']}; here are "
            f"{counts['train']}, {counts[UNLABELLED]} and {counts['validation']}. Give the data "
            "that it was begun with."
        )


def _keep_run(arguments, task, model, split, counts):
    """Writes split and settings into the run's folder, by which it can go on, and be told of."""
    model.make_log_dir()
    folder = Path(model.log_dir)
    split.save(folder / SPLIT_FILE)
    settings = (*RUN_SETTINGS, *task.RUN_SETTINGS)
    kept = {name: getattr(arguments, name) for name in settings}
    write_json(folder / RUN_FILE, {**kept, "images": counts}, durable=True)
    arguments.run = folder
    print(f"Run: {folder}")


def _cache(arguments):
    side = 2 * arguments.image_size
    if getattr(arguments, "crop_weights", None):  # of which a crop may be a small part
        side = round(side / MIN_SHARE)
    return ImageCache(cache_folder(arguments), max_side=max(256, side))


def _fit(arguments, task, model, datasets):
    """Trains the heads, and then all layers, each up to its last epoch."""
    head_epochs = arguments.head_epochs
    if head_epochs is None:
        head_epochs = max(1, arguments.epochs // 10) if arguments.epochs > 1 else 0
    for layers, last_epoch in (("heads", head_epochs), ("all", arguments.epochs)):
        if model.epoch < last_epoch:
            factor = ALL_LAYERS_RATE if layers == "all" else 1
            model.train(
                *datasets,
                learning_rate=arguments.learning_rate * factor,
                epochs=last_epoch,
                layers=layers,
                augmentation=task.augmentation(arguments),
                seed=arguments.seed,
                workers=arguments.workers,
                keep_checkpoints=3,
                metadata={"task": arguments.task, "notice": NOTICE},
            )


def _trains_several(arguments):
    return getattr(arguments, "folds", None) or getattr(arguments, "members", None)


def _train_several(arguments):
    """Trains an ensemble; see `lesion.folds` and `lesion.members`."""
    task = training_of(arguments.task)
    check_arguments(arguments)
    samples = load_samples(arguments)
    refuse_seen_folds(arguments, samples, task.STARTS)
    split = choose_split(arguments, samples, task).with_marks(samples)
    from lesion.folds import cross_validate
    from lesion.members import train_members

    arguments.cache = str(cache_folder(arguments))  # one for all members
    changeable = getattr(task, "CHANGEABLE", {})
    settings = [n for n in (*RUN_SETTINGS, *task.RUN_SETTINGS, "weights") if n not in changeable]
    several = cross_validate if arguments.folds else train_members
    several(arguments, samples, split, train, settings, changeable)


def load_samples(arguments: argparse.Namespace) -> list[Sample]:
    """Sound samples of all `--dataset`s; says what was left out.

    Raises:
        DatasetError: if nothing is sound, or with --strict if anything is not.
    """
    samples: list[Sample] = []
    used: dict[str, Sample] = {}
    for collection in find_collections(arguments.dataset, task=arguments.task):
        checked = check_samples(
            collection,
            arguments.task,
            workers=arguments.workers,
            record=cache_folder(arguments) / "checked.json",
            used=used,
            with_boundary=getattr(arguments, "with_boundary", False),
        )
        for line in said_of(checked.problems):
            logger.warning("%s", line)
        if checked.problems and arguments.strict:
            raise DatasetError(
                f"{collection.root} has {len(checked.problems)} problems (listed above) and "
                "--strict was given. Mend them, or train without --strict to leave these out."
            )
        for line in said_of(checked.notes):
            logger.info("%s", line)
        counts = len(checked.samples), checked.left_out
        logger.info("%s: %d images, %d left out.", collection.name, *counts)
        samples.extend(checked.samples)
    if not samples:
        folders = ", ".join(map(str, arguments.dataset))
        raise DatasetError(
            f"No sound image with {TRUTHS[arguments.task]} in {folders}; "
            f"`python lesion/dataset.py --task={arguments.task} --dataset DIR` lists every problem."
        )
    if getattr(arguments, "patient_data", False):
        _require_patients([sample.metadata for sample in samples])
    return samples


def _require_patients(patients):
    """Says what is known of the patients; DatasetError where it is nothing."""
    if not any(map(told, patients)):
        raise DatasetError(NOTHING_KNOWN)
    known, *unknown = known_of(patients)
    logger.info("%s", known)
    for line in unknown:
        logger.warning("%s", line)


def cache_folder(arguments: argparse.Namespace) -> Path:
    return Path(arguments.cache or Path(arguments.logs) / "cache")


def _last_run(arguments, task):
    """The last checkpoint; the run's own settings replace those given."""
    last = find_last(arguments.logs, arguments.task)
    kept = _settings_of(last)
    if not kept:
        logger.warning(
            "%s is missing: the run goes on with the settings of this command.",
            Path(last).parent / RUN_FILE,
        )
    if kept:  # what is younger than the run had its usual value in it
        kept = getattr(arguments, "usual", {}) | kept
    changeable = getattr(task, "CHANGEABLE", {})
    for name, value in kept.items():
        known = (name in RUN_SETTINGS or name in task.RUN_SETTINGS) and name not in changeable
        if known and value != (given := getattr(arguments, name)):
            if value or given:  # a check may have made 0 of what was not given
                logger.info("The run continues with its own %s: %s.", name, value)
            setattr(arguments, name, value)
    if changeable:
        kept = {**checked_metadata(Path(last)), **_settings_of(last)}
        take_changeable(arguments, changeable, kept)
    return last


def _settings_of(last):
    return read_settings(Path(last).parent / RUN_FILE)


if __name__ == "__main__":
    sys.exit(main())
