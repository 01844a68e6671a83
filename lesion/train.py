"""Trains a task on dermoscopic images.

python lesion/train.py --task=boundary|attributes|diagnosis --dataset=DIR
    --weights=imagenet|last|PATH|none
"""

import argparse
import json
import logging
import re
import sys
import textwrap
from pathlib import Path

if not __package__:  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from lesion import NOTICE, attributes_training, boundary_training, diagnosis_training
from lesion.cache import ImageCache
from lesion.checks import check_samples
from lesion.crew import MemberFailed, take_changeable
from lesion.crop import MIN_SHARE
from lesion.layouts import find_collections
from lesion.options import natural, positive, rate, share
from lesion.patient import NOTHING_KNOWN, known_of, told
from lesion.samples import TASKS, DatasetError, Sample, said_of
from lesion.splits import RUN_FILE, SPLIT_FILE, UNLABELLED, Split
from lesion.training_split import choose_split, refuse_seen_folds
from lesion.weights import checked_metadata, member_files
from mrcnn.files import write_json
from mrcnn.runs import InRun, find_last

logger = logging.getLogger(__name__)

# A backbone that has learned from millions of images is to be changed with care.
ALL_LAYERS_RATE = 0.4
# What a continued run takes from the run it continues, besides the settings of its task; the rest
# may be given anew.
RUN_SETTINGS = (
    "task",
    "backbone",
    "image_size",
    "epochs",
    "head_epochs",
    "steps",
    "batch",
    "learning_rate",
    "precision",
    "seed",
    "split_seed",
)


# === Command line ===


def build_parser(task: str = "boundary") -> argparse.ArgumentParser:
    """The parser of a task's options; `parse` finds out which task is meant."""
    training = _training_of(task)
    parser = argparse.ArgumentParser(
        prog="lesion train",
        description="Trains a network on dermoscopic images.",
        epilog=f"{_options_of_others(task)}\n\n{NOTICE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dataset",
        action="append",
        required=True,
        metavar="DIR",
        help="folder of ISIC 2016-2020, HAM10000 or PH2, or one's own (docs/data.md); repeatable",
    )
    parser.add_argument(
        "--weights",
        default="imagenet",
        help=f"start from {', '.join(training.STARTS)}, a file, or the project's own (lesion); or "
        "continue the last run (last)",
    )
    parser.add_argument(
        "--task", choices=TASKS, default="boundary", help="further options depend on it"
    )
    parser.add_argument(
        "--backbone",
        default=None,
        help="efficientnetlite0 (default) to efficientnetlite4, resnet50, resnet101 or a model of "
        "keras.applications",
    )
    parser.add_argument("--image-size", type=positive, metavar="PIXELS", help=training.SIZE_HELP)
    parser.add_argument("--epochs", type=positive, help="in all, with the heads' epochs")
    parser.add_argument(
        "--head-epochs",
        type=natural,
        default=None,
        help="with the backbone fixed; default a tenth",
    )
    parser.add_argument(
        "--steps",
        type=positive,
        default=None,
        help="batches per epoch; default as many as show every image once",
    )
    parser.add_argument("--batch", type=positive, help="images per step")
    parser.add_argument("--learning-rate", type=rate)
    parser.add_argument(
        "--precision", choices=["auto", "float32", "mixed_bfloat16"], default="auto"
    )
    parser.add_argument("--logs", default="logs", metavar="DIR", help="folder of all runs")
    parser.add_argument("--cache", default=None, metavar="DIR", help="default: LOGS/cache")
    parser.add_argument(
        "--split",
        default=None,
        metavar="FILE",
        help="reuse a split file; default: that of the weights it starts from, if it knows the "
        "images, or a new one",
    )
    parser.add_argument(
        "--test-share",
        type=share,
        default=training.FRACTIONS["test"],
        metavar="SHARE",
        help="of the lesions, set aside to test on; 0 where a test set is at hand (%(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=natural,
        default=0,
        help="of order, changes of images and what begins at random (0); not of the split",
    )
    parser.add_argument(
        "--split-seed",
        type=natural,
        default=0,
        help="of the split, and of folds: another one learns from other images (0)",
    )
    parser.add_argument("--workers", type=positive, default=2, help="threads that prepare images")
    parser.add_argument("--strict", action="store_true", help="stop if any image is unsound")
    training.add_options(parser)
    parser.set_defaults(**training.DEFAULTS)
    return parser


def _options_of_others(task):
    """A sentence that names the options of the other tasks."""
    sentences = []
    for other in TASKS:
        if other != task:
            parser = argparse.ArgumentParser(add_help=False)
            _training_of(other).add_options(parser)
            names = ", ".join(re.findall(r"--[\w-]+", parser.format_usage()))
            sentences.append(f"Options of --task={other}, which its own --help explains: {names}.")
    return textwrap.fill(" ".join(sentences), 79, break_on_hyphens=False)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of a command line, by the parser of the task that it names."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--task", nargs="?")
    known, _ = first.parse_known_args(argv)
    task = known.task if known.task in TASKS else "boundary"
    parser = build_parser(task)
    arguments = parser.parse_args(argv)
    names = (*RUN_SETTINGS, *_training_of(task).RUN_SETTINGS)
    usual = {name: parser.get_default(name) for name in names if name != "task"}
    arguments.usual = usual | getattr(_training_of(task), "FORMER", {})
    return arguments


def _training_of(task):
    """The module that knows how a task is trained."""
    return {
        "boundary": boundary_training,
        "attributes": attributes_training,
        "diagnosis": diagnosis_training,
    }[task]


def main(argv: list[str] | None = None) -> int:
    """Returns 0, 1 (it diverged or stopped), 2 (something is to be mended) or 130 (Ctrl-C)."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    print(NOTICE)
    try:
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
        way = "--weights=last" if kept and not _trains_several(arguments) else "The same command"
        print(f"Stopped. {way} continues from the last epoch.", file=sys.stderr)
        return 130
    return 0


# === Training ===


def train(arguments: argparse.Namespace) -> InRun:
    """Trains as the parsed `arguments` say; returns the model, such as a `MaskRCNN`."""
    task = _training_of(arguments.task)
    last = _last_run(arguments, task) if arguments.weights == "last" else None
    take_changeable(arguments, getattr(task, "CHANGEABLE", {}), {})
    _check_arguments(arguments, task)
    samples = load_samples(arguments)

    import keras

    keras.utils.set_random_seed(arguments.seed)  # of the layers that begin at random
    split = choose_split(arguments, samples, task, last).with_marks(samples)
    training, validation = (split.select(samples, part) for part in ("train", "validation"))
    if not training:
        raise DatasetError("The split leaves no image to train on; give more images.")
    more = task.find_more(arguments, samples, split) if hasattr(task, "find_more") else []
    counts = {"train": len(training), "validation": len(validation), UNLABELLED: len(more)}
    before = {**counts, **(_settings_of(last).get("images", {}) if last else {})}
    if before != counts:
        raise DatasetError(
            f"The run that is to go on has learned from {before['train']} images with a truth and "
            f"{before[UNLABELLED]} without, and was judged by {before['validation']}; here are "
            f"{counts['train']}, {counts[UNLABELLED]} and {counts['validation']}. Give the data "
            "that it was begun with."
        )
    taught = Split({UNLABELLED: [sample.key for sample in more]}, split.seed, {})
    split = split.with_learned(taught.with_marks(more))
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
    model.make_log_dir()
    folder = Path(model.log_dir)
    split.save(folder / SPLIT_FILE)
    settings = (*RUN_SETTINGS, *task.RUN_SETTINGS)
    kept = {name: getattr(arguments, name) for name in settings}
    write_json(folder / RUN_FILE, {**kept, "images": counts})
    arguments.run = folder
    print(f"Run: {folder}")

    side = 2 * arguments.image_size
    if getattr(arguments, "crop_weights", None):  # of which a crop may be a small part
        side = round(side / MIN_SHARE)
    cache = ImageCache(cache_folder(arguments), max_side=max(256, side))
    head_epochs = arguments.head_epochs
    if head_epochs is None:
        head_epochs = max(1, arguments.epochs // 10) if arguments.epochs > 1 else 0
    datasets = task.datasets(arguments, ([*training, *more], validation), cache)
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
    weights = model.checkpoint_path.format(epoch=model.epoch)
    task.finish(arguments, weights, training, validation)
    print(f"Weights: {weights}")
    return model


def _trains_several(arguments):
    return getattr(arguments, "folds", None) or getattr(arguments, "members", None)


def _train_several(arguments):
    """Trains an ensemble; see `lesion.folds` and `lesion.members`."""
    task = _training_of(arguments.task)
    _check_arguments(arguments, task)
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
    samples, used = [], {}
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
        counts = len(checked.samples), checked.left_out
        logger.info("%s: %d images, %d left out.", collection.name, *counts)
        samples.extend(checked.samples)
    if not samples:
        truths = {"boundary": "a mask", "attributes": "attribute masks"}
        folders = ", ".join(map(str, arguments.dataset))
        raise DatasetError(
            f"No sound image with {truths.get(arguments.task, 'a diagnosis')} in {folders}; "
            f"`python lesion/dataset.py --task={arguments.task} --dataset DIR` lists every problem."
        )
    if getattr(arguments, "patient_data", False):
        known, *unknown = known_of(patients := [sample.metadata for sample in samples])
        if not any(map(told, patients)):
            raise DatasetError(NOTHING_KNOWN)
        logger.info("%s", known)
        for line in unknown:
            logger.warning("%s", line)
    return samples


def cache_folder(arguments: argparse.Namespace) -> Path:
    return Path(arguments.cache or Path(arguments.logs) / "cache")


def _last_run(arguments, task):
    """The last checkpoint; the run's own settings replace those given."""
    last = find_last(arguments.logs, arguments.task)
    kept = _settings_of(last)
    if kept:  # what is younger than the run had its usual value in it
        kept = getattr(arguments, "usual", {}) | kept
    changeable = getattr(task, "CHANGEABLE", {})
    for name, value in kept.items():
        known = (name in RUN_SETTINGS or name in task.RUN_SETTINGS) and name not in changeable
        if known and value != getattr(arguments, name):
            logger.info("The run continues with its own %s: %s.", name, value)
            setattr(arguments, name, value)
    if changeable:
        kept = {**checked_metadata(Path(last)), **_settings_of(last)}
        take_changeable(arguments, changeable, kept)
    return last


def _settings_of(last):
    run = Path(last).parent / RUN_FILE
    return json.loads(run.read_text()) if run.exists() else {}


def _check_arguments(arguments, task):
    """Finds out what is wrong with the arguments before any image is decoded."""
    task.check_arguments(arguments)
    if arguments.weights not in (*task.STARTS, "last"):
        # Of an ensemble one member; `choose_split` leaves it what it has not learned from.
        start, *others = member_files([arguments.weights], arguments.task)
        checked_metadata(start)
        if others:
            logger.info("%s: the first of %d networks.", arguments.weights, 1 + len(others))
        arguments.weights = str(start.resolve())
    if arguments.split:
        Split.load(arguments.split)
    if arguments.test_share > 0.5:
        raise ValueError(
            f"--test-share={arguments.test_share} leaves too little to learn from; give 0 to 0.5."
        )
    if (arguments.head_epochs or 0) > arguments.epochs:
        raise ValueError(
            f"--head-epochs={arguments.head_epochs} is more than --epochs={arguments.epochs}, "
            "which counts all epochs."
        )


if __name__ == "__main__":
    sys.exit(main())
