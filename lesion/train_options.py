"""The options of `lesion train`: which there are for each task, and what they may be together."""

import argparse
import logging
import re
import textwrap
from types import ModuleType

from lesion import NOTICE, attributes_training, boundary_training, diagnosis_training
from lesion.options import add_datasets, natural, positive, rate, share
from lesion.printing import CommandParser
from lesion.samples import TASKS
from lesion.splits import Split
from lesion.weights import checked_metadata, member_files

logger = logging.getLogger(__name__)

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


def build_parser(task: str = "boundary") -> argparse.ArgumentParser:
    """The parser of a task's options; `parse` finds out which task is meant."""
    training = training_of(task)
    parser = CommandParser(
        prog="lesion train",
        description="Trains a network on dermoscopic images.",
        epilog=f"{_options_of_others(task)}\n\n{NOTICE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_datasets(parser)
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
        help="of the lesions, set aside to test on; 0 where a test set is at hand: then what the "
        "weights it starts from had set aside is learned from, too (%(default)s)",
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
            training_of(other).add_options(parser)
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
    names = (*RUN_SETTINGS, *training_of(task).RUN_SETTINGS)
    usual = {name: parser.get_default(name) for name in names if name != "task"}
    arguments.usual = usual | getattr(training_of(task), "FORMER", {})
    return arguments


def training_of(task: str) -> ModuleType:
    """The module that knows how a task is trained."""
    return {
        "boundary": boundary_training,
        "attributes": attributes_training,
        "diagnosis": diagnosis_training,
    }[task]


def check_arguments(arguments: argparse.Namespace) -> None:
    """Finds out what is wrong with the arguments before any image is decoded.

    Start weights are named by their whole path from then on.

    Raises:
        ValueError: if an option has a value that cannot be, or not together with others.
        OSError: if a file that is named is missing.
    """
    task = training_of(arguments.task)
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
