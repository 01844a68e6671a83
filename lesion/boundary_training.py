"""How the boundary task is trained: its options, configuration, start weights and data."""

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion.cache import ImageCache
from lesion.options import choose_precision
from lesion.samples import Sample
from lesion.splits import FRACTIONS as FRACTIONS
from lesion.weights import say_other_settings
from mrcnn.config import Config
from mrcnn.runs import InRun

if TYPE_CHECKING:  # it loads TensorFlow
    from lesion.boundary import BoundaryConfig

logger = logging.getLogger(__name__)

STARTS = ("coco", "imagenet", "none")
SIZE_HELP = "width of the network's input; its height is three quarters, rounded to 32"
DEFAULTS = {
    "image_size": 224,
    "epochs": 6,
    "batch": 8,
    "learning_rate": 0.001,
    "released_heads": False,  # set by --weights=coco, kept with the run
}
RUN_SETTINGS = ("released_heads", "mask_size", "semantic")
# Share of images shown from afar: a lesion may fill the frame or a tenth of it.
FAR = 0.15
# Settings by which start weights may have learned otherwise, with their options.
_SEEN = {
    "IMAGE_MAX_DIM": "--image-size",
    "MASK_SHAPE": "--mask-size",
    "SEMANTIC_BRANCH": "--semantic",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mask-size", type=int, default=56, choices=[28, 56, 112], help="side of predicted masks"
    )
    parser.add_argument(
        "--semantic",
        action="store_true",
        help="learn a map of the whole image, too; the boundary is that of its mean with the mask",
    )


def check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.weights == "coco":  # these weights fit the widths of their own network alone
        if arguments.backbone not in (None, "resnet101"):
            raise ValueError(
                f"--weights=coco has the backbone resnet101, and --backbone={arguments.backbone} "
                "is another; leave it out."
            )
        arguments.released_heads = True
        arguments.backbone = "resnet101"


def build_model(arguments: argparse.Namespace, samples: Sequence[Sample]) -> InRun:
    """The `MaskRCNN` that is to learn from `samples`."""
    from lesion.boundary import BoundaryConfig
    from mrcnn.model import MaskRCNN

    config = configure(BoundaryConfig, arguments, len(samples), SEMANTIC_BRANCH=arguments.semantic)
    return MaskRCNN("training", config, arguments.logs)


def configure(
    config_class: "type[BoundaryConfig]",
    arguments: argparse.Namespace,
    image_count: int,
    **settings: Any,
) -> "BoundaryConfig":
    """The configuration for an epoch of `image_count` images, with some settings more."""
    width = arguments.image_size
    backbone = arguments.backbone or config_class.BACKBONE
    scale = width / config_class.IMAGE_MAX_DIM
    widths = (
        "TOP_DOWN_PYRAMID_SIZE",
        "RPN_CONV_CHANNELS",
        "FPN_CLASSIF_FC_LAYERS_SIZE",
        "MASK_CONV_CHANNELS",
    )
    source = Config if arguments.released_heads else config_class
    return config_class(
        **{name: getattr(source, name) for name in widths},
        BACKBONE=backbone,
        MEAN_PIXEL=mean_pixel(config_class, backbone),
        IMAGE_MAX_DIM=width,
        IMAGE_MIN_DIM=max(32, round(0.75 * width / 32 - 0.01) * 32),
        RPN_ANCHOR_SCALES=tuple(round(side * scale) for side in config_class.RPN_ANCHOR_SCALES),
        MASK_SHAPE=[arguments.mask_size] * 2,
        MASK_POOL_SIZE=arguments.mask_size // 2,
        MINI_MASK_SHAPE=(2 * arguments.mask_size,) * 2,
        IMAGES_PER_GPU=arguments.batch,
        STEPS_PER_EPOCH=arguments.steps or -(-image_count // arguments.batch),
        VALIDATION_STEPS=None,
        PRECISION=choose_precision(arguments.precision, backbone),
        LEARNING_RATE=arguments.learning_rate,
        **settings,
    )


def mean_pixel(config_class: "type[BoundaryConfig]", backbone: str) -> Sequence[float] | np.ndarray:
    """What a backbone's ImageNet weights want taken off each channel."""
    if backbone in ("resnet50", "resnet101"):
        return [123.7, 116.8, 103.9]
    return config_class.MEAN_PIXEL


def load_start_weights(model: Any, arguments: argparse.Namespace, last: str | None) -> None:
    """Loads what `--weights` names; `last` is the checkpoint of the run to be continued."""
    from mrcnn.backbone import load_imagenet
    from mrcnn.weights import CLASS_LAYERS

    start = arguments.weights
    if last:
        model.load_weights(last)
    elif start == "imagenet":
        logger.info("%s", load_imagenet(model.keras_model, model.config).summary())
    elif start == "coco":
        model.load_weights("coco", exclude=CLASS_LAYERS, skip_mismatch=True)
    elif start != "none":
        model.load_weights(start, skip_mismatch=True)
        options = {name: option for name, option in _SEEN.items() if _has(arguments, option)}
        say_other_settings(start, model.config.to_dict(), options)
        model.set_log_dir()  # a run of its own, also from the weights of another run


def _has(arguments, option):
    """Whether the task has an option; the attributes, which load their start here, lack some."""
    return hasattr(arguments, option.removeprefix("--").replace("-", "_"))


def datasets(
    arguments: argparse.Namespace, parts: Sequence[Sequence[Sample]], cache: ImageCache
) -> Sequence[Any]:
    """Each part's samples as `mrcnn` wants them; None for one without images."""
    from lesion.boundary_data import LesionDataset

    prepared = [LesionDataset(samples, cache) for samples in parts]
    for part in prepared:
        part.prepare()
    return [part if part.num_images else None for part in prepared]


def augmentation(arguments: argparse.Namespace) -> Callable:
    from lesion.augment import DermoscopyAugmentation

    return DermoscopyAugmentation(far=FAR)


def finish(
    arguments: argparse.Namespace,
    weights: str | Path,
    training: Sequence[Sample],
    validation: Sequence[Sample],
) -> None:
    """Nothing remains to be done after the last epoch."""
