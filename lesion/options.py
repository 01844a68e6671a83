"""Values of options on the command line, and what `auto` means among them."""

import argparse
import math
from pathlib import Path
from typing import Any

from lesion.boundary_views import VIEWS


def natural(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, not {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)


def rate(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")
    return value


def _number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


def add_datasets(parser: argparse.ArgumentParser) -> None:
    """`--dataset`, once or several times."""
    parser.add_argument(
        "--dataset",
        action="append",
        required=True,
        metavar="DIR",
        help="folder of ISIC 2016-2020, HAM10000 or PH2, or one's own (docs/data.md); repeatable",
    )


def add_analyzer(parser: argparse.ArgumentParser) -> None:
    """The options of an `Analyzer`, by the names of its arguments, for `analyzer_options`."""
    for task, options, action, several in (
        ("boundary", ("--weights", "--boundary"), "store", ""),
        ("attributes", ("--attributes-weights",), "store", ""),
        ("diagnosis", ("--diagnosis-weights",), "append", "; of several, the mean is taken"),
    ):
        parser.add_argument(
            *options,
            metavar="PATH",
            dest=task,
            action=action,
            help=f'weights of the {task} task, "last", or "none" to leave it out (the project\'s)'
            f"{several}",
        )
    add_views(parser)
    add_referral(parser)


def analyzer_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What an `Analyzer` is given, by name, from the options of `add_analyzer`."""
    names = ("boundary", "attributes", "diagnosis", "views", "risk", "melanoma_sensitivity")
    return {name: getattr(arguments, name) for name in names}


def add_views(parser: argparse.ArgumentParser) -> None:
    """The option of boundary and diagnosis, which know the same numbers of views."""
    parser.add_argument(
        "--views",
        type=int,
        choices=VIEWS,
        default=max(VIEWS),
        help="average this many views of an image for boundary and diagnosis; 1 is quicker "
        "(%(default)s)",
    )


def add_frozen_stages(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--frozen-stages",
        type=natural,
        default=0,
        metavar="N",
        help="the backbone's first N of 5 stages never learn, which is quicker (0)",
    )


def check_frozen_stages(arguments: argparse.Namespace) -> None:
    if arguments.frozen_stages > 4:
        raise ValueError(
            f"--frozen-stages={arguments.frozen_stages} leaves nothing of the backbone to learn; "
            "give 0 to 4."
        )


def add_referral(parser: argparse._ActionsContainer, risk: float | None = None) -> None:
    """Options that say which answers of the diagnosis are referred; `risk` by default."""
    parser.add_argument(
        "--risk",
        type=share,
        default=risk,
        metavar="SHARE",
        help="refer the least sure images, so that of the others at most this share was wrong in "
        f"validation ({'none is referred' if risk is None else risk})",
    )
    parser.add_argument(
        "--melanoma-sensitivity",
        type=share,
        metavar="SHARE",
        help="refer, too, what is as near to melanoma as this share of the images of melanoma in "
        "validation",
    )


def refuse_coco(arguments: argparse.Namespace) -> None:
    """For tasks whose network is not the one of the released weights."""
    if arguments.weights == "coco":
        raise ValueError(
            f"--weights=coco is for the boundary task; --task={arguments.task} starts from "
            "imagenet, none, a file or the last run (last)."
        )


def choose_precision(precision: str, backbone: str) -> str:
    """float32 or mixed_bfloat16; "auto" decides by hardware and backbone.

    bfloat16 pays where dense convolutions meet matrix units. TensorFlow's depthwise convolutions
    are slower in it on a processor.
    """
    if precision != "auto":
        return precision
    import keras

    depthwise = any(name in backbone for name in ("efficientnet", "mobilenet", "convnext"))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(device) for device in devices]
        if devices:  # of NVIDIA's since Ampere
            quick = all(each.get("compute_capability", (0,)) >= (8,) for each in details)
            return "mixed_bfloat16" if quick else "float32"
    facts = Path("/proc/cpuinfo")
    matrix_units = facts.exists() and b"amx_bf16" in facts.read_bytes()
    return "mixed_bfloat16" if matrix_units and not depthwise else "float32"
