"""How the attributes task is trained: its options, configuration, start weights and data."""

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lesion import boundary_training
from lesion.cache import ImageCache, reduce_mask
from lesion.options import (
    add_frozen_stages,
    check_frozen_stages,
    choose_precision,
    refuse_coco,
    share,
)
from lesion.reading import chunks
from lesion.samples import ATTRIBUTES, Sample
from mrcnn.arrays import load_arrays, save_arrays
from mrcnn.images import read_image, read_mask
from mrcnn.runs import InRun

if TYPE_CHECKING:  # it loads TensorFlow
    from lesion.attributes import AttributesConfig

logger = logging.getLogger(__name__)

STARTS = ("imagenet", "none")
SIZE_HELP = "side of the network's square input, divisible by 32"
DEFAULTS = {"image_size": 384, "epochs": 12, "batch": 8, "learning_rate": 0.001}
# Thresholds are chosen on the validation part, where the rarest attribute is in one image of 25.
FRACTIONS = {"train": 0.75, "validation": 0.10, "test": 0.15}
# Structures of a few pixels are the first to go where a photograph is out of focus.
BLUR = 0.008  # of the side, largest standard deviation
RUN_SETTINGS = ("with_boundary", "repeat_threshold", "semantic_loss", "frozen_stages")

load_start_weights = boundary_training.load_start_weights


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--with-boundary",
        action="store_true",
        help="learn the lesion's boundary, too, as a sixth class",
    )
    add(
        "--repeat-threshold",
        type=share,
        default=0.25,
        metavar="SHARE",
        help="images of attributes rarer than this are seen more often; 0: all alike (0.25)",
    )
    add(
        "--semantic-loss",
        choices=["crossentropy", "crossentropy_dice"],
        default="crossentropy_dice",
    )
    add_frozen_stages(parser)


def check_arguments(arguments: argparse.Namespace) -> None:
    refuse_coco(arguments)
    check_frozen_stages(arguments)


def build_model(arguments: argparse.Namespace, samples: Sequence[Sample]) -> InRun:
    """The `MaskRCNN` that is to learn from `samples`."""
    from lesion.attributes import AttributesConfig
    from mrcnn.model import MaskRCNN

    return MaskRCNN("training", configure(AttributesConfig, arguments, samples), arguments.logs)


def configure(
    config_class: "type[AttributesConfig]", arguments: argparse.Namespace, samples: Sequence[Sample]
) -> "AttributesConfig":
    """The configuration; without `--steps` an epoch has as many squares as there are images."""
    side = arguments.image_size
    backbone = arguments.backbone or config_class.BACKBONE
    scale = side / config_class.IMAGE_MAX_DIM
    return config_class(
        NUM_CLASSES=config_class.NUM_CLASSES + bool(arguments.with_boundary),
        BACKBONE=backbone,
        MEAN_PIXEL=boundary_training.mean_pixel(config_class, backbone),
        IMAGE_MIN_DIM=side,
        IMAGE_MAX_DIM=side,
        RPN_ANCHOR_SCALES=tuple(round(size * scale) for size in config_class.RPN_ANCHOR_SCALES),
        FREEZE_BACKBONE_STAGES=arguments.frozen_stages,
        SEMANTIC_LOSS=arguments.semantic_loss,
        IMAGES_PER_GPU=arguments.batch,
        STEPS_PER_EPOCH=arguments.steps or -(-len(samples) // arguments.batch),
        VALIDATION_STEPS=None,
        PRECISION=choose_precision(arguments.precision, backbone),
        LEARNING_RATE=arguments.learning_rate,
    )


def augmentation(arguments: argparse.Namespace) -> Callable:
    from lesion.augment import DermoscopyAugmentation

    return DermoscopyAugmentation(far=boundary_training.FAR, blur=BLUR * arguments.image_size)


def datasets(
    arguments: argparse.Namespace, parts: Sequence[Sequence[Sample]], cache: ImageCache
) -> Sequence[Any]:
    """The training part, rare attributes repeated, and the validation part, if it has images."""
    from lesion.attributes_data import AttributesDataset

    training, validation = (
        AttributesDataset(samples, cache, threshold, arguments.with_boundary)
        for samples, threshold in zip(parts, (arguments.repeat_threshold, 0.0), strict=True)
    )
    training.prepare()
    validation.prepare()
    logger.info(
        "%d images, %d squares of them with those repeated that show rare attributes.",
        len(parts[0]),
        training.num_images,
    )
    return training, validation if validation.num_images else None


def finish(
    arguments: argparse.Namespace,
    weights: str | Path,
    training: Sequence[Sample],
    validation: Sequence[Sample],
) -> None:
    """Chooses the thresholds on the validation part and stores them with the weights."""
    from lesion.attribute_thresholds import METHODS, ThresholdSearch
    from lesion.attributes import load_attributes

    arrays, metadata = load_arrays(weights)
    if "thresholds" in metadata:
        return  # of a run that was finished before
    if not validation:
        logger.warning("There is no validation part: the thresholds stay as they are.")
        return
    predictor = load_attributes(weights, batch=4, finished=False)
    search = ThresholdSearch()
    for chunk in tqdm(chunks(validation, 4), "Choosing thresholds", disable=None):
        images = [read_image(sample.image) for sample in chunk]
        for sample, evidence in zip(chunk, predictor.evidence(images), strict=True):
            shape = evidence.semantic.shape[:2]
            search.add(evidence, {name: _truth(sample, name, shape) for name in ATTRIBUTES})
    thresholds = {}
    for method in METHODS:
        chosen, jaccard = search.best(method)
        logger.info("%s: global Jaccard %.4f on the validation part.", method, jaccard)
        thresholds[method] = {name: vars(threshold) for name, threshold in chosen.items()}
    save_arrays(weights, arrays, {**metadata, "thresholds": thresholds})


def _truth(sample, name, shape):
    """A mask of a size; large images are searched reduced, as they are predicted."""
    return reduce_mask(read_mask(sample.attributes[name]), shape, sample.attributes[name])
