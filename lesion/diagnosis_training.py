"""How the diagnosis task is trained: its options, configuration, start weights and data."""

import argparse
import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lesion.cache import ImageCache
from lesion.options import (
    add_frozen_stages,
    check_frozen_stages,
    choose_precision,
    positive,
    refuse_coco,
    share,
)
from lesion.samples import DIAGNOSES, Sample
from lesion.splits import Split
from lesion.weights import find_weights, member_files, say_other_settings, weights_path
from mrcnn.arrays import load_arrays, save_arrays
from mrcnn.files import sha256_of
from mrcnn.runs import InRun

logger = logging.getLogger(__name__)

STARTS = ("imagenet", "none")
SIZE_HELP = "side of the network's square input"
DEFAULTS = {"image_size": 224, "epochs": 30, "batch": 32, "learning_rate": 0.001}
TEACHER_SHARE, UNLABELLED_SHARE = 0.7, 0.25
FRACTIONS = {"train": 0.80, "validation": 0.05, "test": 0.15}
CONFIG_SETTINGS = (
    "colour_constancy",
    "usual_light",
    "patient_data",
    "batch_statistics",
    "frozen_stages",
    "dropout",
    "weight_decay",
    "label_smoothing",
    "mixing",
    "teacher_share",
    "unlabelled_share",
    "sampling_power",
    "logit_adjustment",
)
RUN_SETTINGS = (
    *CONFIG_SETTINGS,
    "strong_changes",
    "crop_weights",
    "crop_sha256",
    "teacher",
    "unlabelled",
    "prevalence_power",
)
# Settings by which start weights may have learned otherwise.
_SEEN = {
    **{"image_size": "--image-size", "crop": "--crop-weights", "usual_light": "--usual-light"},
    **{"colour_constancy": "--colour-constancy", "patient_data": "--patient-data"},
}
# What costs no training, and its usual value: a run that is gone on with takes another value, but
# keeps its own if none is given. The hash is no option: none is ever given.
CHANGEABLE = {"prevalence_power": 0.25, "crop_sha256": None}
# What runs had before there was an option, where that is not its usual value.
FORMER = {"batch_statistics": False}


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--folds",
        type=positive,
        metavar="K",
        help="cross-validate: train K members on all but the test part; the same command goes on",
    )
    add(
        "--members",
        type=positive,
        metavar="K",
        help="train an ensemble: K members with seeds of their own, all on the training part; the "
        "same command goes on",
    )
    add(
        "--jobs",
        type=positive,
        default=1,
        metavar="N",
        help="train N members at once, each on its share of the cores where the system allows it; "
        "what they say is in their train.log (1)",
    )
    add(
        "--crop-weights",
        metavar="PATH",
        help="crop images to the lesion that these weights of the boundary task find",
    )
    parser.set_defaults(crop_sha256=None)
    add("--colour-constancy", action="store_true", help="take out the light's colour first")
    add(
        "--usual-light",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="bring the colour and brightness of light SHARE of the way to what is usual in "
        "HAM10000: 1 all of it, 0 leaves images as they are (0)",
    )
    add("--patient-data", action="store_true", help="learn from age, sex and site, too")
    add(
        "--sampling-power",
        type=share,
        default=0.5,
        metavar="P",
        help="draw a category by its frequency to the power of P: 1 as it is, 0 all alike (0.5)",
    )
    add(
        "--logit-adjustment",
        type=share,
        default=1.0,
        metavar="T",
        help="share of what is left of the frequencies that the loss makes up for (1)",
    )
    add(
        "--prevalence-power",
        type=share,
        metavar="P",
        help="the probabilities are those of a clinic with the training part's frequencies to the "
        "power of P, before the temperature: 1 as they are, 0 all categories alike (0.25)",
    )
    add("--label-smoothing", type=share, default=0.05, metavar="SHARE", help="(0.05)")
    add(
        "--mixing",
        type=share,
        default=0.0,
        metavar="ALPHA",
        help="blend images by shares of the distribution Beta(ALPHA, ALPHA); 0: none (0)",
    )
    add(
        "--strong-changes",
        action="store_true",
        help="change light, focus, size and compression of the training's images more",
    )
    add(
        "--teacher",
        metavar="PATH",
        help="learn in part from the answers of these weights, or of an ensemble (distillation); "
        "lesion: the project's own",
    )
    add(
        "--teacher-share",
        type=share,
        metavar="SHARE",
        help="of the teacher's answer in the truth of an image that has a diagnosis (0.7)",
    )
    add(
        "--unlabelled",
        action="append",
        metavar="DIR",
        help="folder of images without a diagnosis, which the teacher alone answers for; may be "
        "repeated",
    )
    add(
        "--unlabelled-share",
        type=share,
        metavar="SHARE",
        help="of images without a diagnosis among those drawn (0.25)",
    )
    add("--weight-decay", type=share, default=0.02, metavar="SHARE", help="of AdamW (0.02)")
    add("--dropout", type=share, default=0.2, metavar="SHARE", help="before the last layer (0.2)")
    add_frozen_stages(parser)
    add(
        "--batch-statistics",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let batch normalization learn its statistics, which is slower and better "
        "(docs/experiments.md), or keep those of the start (on)",
    )


def check_arguments(arguments: argparse.Namespace) -> None:
    refuse_coco(arguments)
    if arguments.crop_weights:
        # Known to the run, which may go on from another folder.
        arguments.crop_weights = str(find_weights(arguments.crop_weights, "boundary")[0].resolve())
        _crop_sha256(arguments)
    if arguments.folds == 1:
        raise ValueError("--folds=1 leaves nothing to learn from; give 2 or more.")
    if arguments.members == 1:
        raise ValueError("--members=1 is no ensemble; give 2 or more.")
    if arguments.folds and arguments.members:
        raise ValueError("--folds and --members are two ways to an ensemble; give one of them.")
    several = "--folds" if arguments.folds else "--members" if arguments.members else None
    if several and arguments.weights == "last":
        raise ValueError(
            f"{several} goes on by itself where it stopped: give the --weights it was begun with."
        )
    if arguments.jobs > 1 and not several:
        raise ValueError(
            f"--jobs={arguments.jobs} trains several networks at once, and this is one; give it "
            "with --folds or --members."
        )
    check_frozen_stages(arguments)
    _check_teacher(arguments)


def _crop_sha256(arguments):
    """Of the network that crops; ValueError where it is another than the run was begun with."""
    found = sha256_of(arguments.crop_weights)
    if arguments.crop_sha256 not in (None, found):
        raise ValueError(
            f"{arguments.crop_weights} is another file than the one by which this run has cropped "
            f"its images: its SHA-256 is {found[:12]}…, not {arguments.crop_sha256[:12]}…. Put "
            "that one back and go on by --weights=last, or begin a run with the checkpoint as "
            "--weights."
        )
    return found


def _check_teacher(arguments):
    """Finds the teacher, and gives its share where it was not given."""
    if arguments.unlabelled and not arguments.teacher:
        raise ValueError(
            "--unlabelled gives images without a diagnosis, which need a --teacher that answers "
            "for them; --teacher=lesion is the project's own."
        )
    for name, whole, usual in (
        ("teacher_share", "teacher", TEACHER_SHARE),
        ("unlabelled_share", "unlabelled", UNLABELLED_SHARE),
    ):
        if not getattr(arguments, whole):
            if getattr(arguments, name):
                option = name.replace("_", "-")
                raise ValueError(f"--{option} is of what --{whole} gives, which is missing.")
            setattr(arguments, name, 0.0)
        elif getattr(arguments, name) is None:
            setattr(arguments, name, usual)
    if arguments.unlabelled:  # a run goes on from any folder
        arguments.unlabelled = [str(Path(each).resolve()) for each in arguments.unlabelled]
    if arguments.teacher:
        arguments.teacher = str(weights_path(arguments.teacher, "diagnosis").resolve())
        for member in member_files([arguments.teacher]):
            find_weights(member, "diagnosis")  # says what is wrong before any image is read


def build_model(arguments: argparse.Namespace, samples: Sequence[Sample]) -> InRun:
    """The `DiagnosisModel` that is to learn from `samples`."""
    from lesion.diagnosis_model import DiagnosisModel
    from lesion.diagnosis_network import DiagnosisConfig

    if arguments.crop_weights:  # known to the run from now on
        arguments.crop_sha256 = _crop_sha256(arguments)
    backbone = arguments.backbone or DiagnosisConfig.backbone
    config = DiagnosisConfig(
        backbone=backbone,
        crop="lesion" if arguments.crop_weights else "centre",
        image_size=arguments.image_size,
        precision=choose_precision(arguments.precision, backbone),
        batch=arguments.batch,
        steps=arguments.steps or -(-len(samples) // arguments.batch),
        **{name: getattr(arguments, name) for name in CONFIG_SETTINGS},
    )
    return DiagnosisModel(config, arguments.logs)


def load_start_weights(model: Any, arguments: argparse.Namespace, last: str | None) -> None:
    """Loads what `--weights` names; `last` is the checkpoint of the run to be continued."""
    from mrcnn.backbone import load_imagenet

    start = arguments.weights
    if last:
        logger.info("%s", model.load_weights(last).summary())
    elif start == "imagenet":
        logger.info("%s", load_imagenet(model.keras_model, model.config.to_mrcnn()).summary())
    elif start != "none":
        logger.info("%s", model.load_weights(start, skip_mismatch=True).summary())
        say_other_settings(start, dataclasses.asdict(model.config), _SEEN)
        model.set_log_dir()  # a run of its own, also from the weights of another run


def find_more(
    arguments: argparse.Namespace, samples: Sequence[Sample], split: Split
) -> list[Sample]:
    """Samples besides those of the data sets: images that a teacher answers for."""
    if not arguments.unlabelled:
        return []
    from lesion.distillation import find_unlabelled
    from lesion.layouts import find_collections

    listed = [s for c in find_collections(arguments.dataset, task="diagnosis") for s in c.samples]
    return find_unlabelled(arguments.unlabelled, samples, split, listed)


def datasets(
    arguments: argparse.Namespace, parts: Sequence[Sequence[Sample]], cache: ImageCache
) -> Sequence[Any]:
    """Each part's samples with their images, cropped if that is wanted; the first one is taught."""
    from lesion.diagnosis_data import DiagnosisDataset

    crops = None
    if arguments.crop_weights:
        from lesion.boundary import load_predictor
        from lesion.crop import find_crops

        paths = [sample.image for samples in parts for sample in samples]
        boundary = load_predictor(arguments.crop_weights, batch=8)
        crops = find_crops(boundary, paths, cache, cache.directory / "lesions.json")
    training, *others = (DiagnosisDataset(samples, cache, crops) for samples in parts)
    if arguments.teacher:
        from lesion.distillation import taught

        power = arguments.sampling_power
        training = taught(training, arguments.teacher, power, cache.directory)
    return [training, *others]


def augmentation(arguments: argparse.Namespace) -> Callable:
    """Milder than for the boundary: here colour and fine structure mean something.

    With `--strong-changes` light, focus and compression change nearly as much as there.
    """
    from lesion.augment import DermoscopyAugmentation, Obstacles

    side = arguments.image_size
    settings: dict[str, Any] = {"scale": (0.8, 1.3), "colour": 0.12, "blur": 0.8, "compression": 0}
    if arguments.strong_changes:
        settings = {"scale": (0.75, 1.3), "colour": 0.2, "blur": 1.5, "compression": 0.1}
    view = DermoscopyAugmentation(shift=0.08, side=side, **settings)
    obstacles = Obstacles(side)

    def augment(image, rng):
        changed, _ = view(image, np.zeros((*image.shape[:2], 0), bool), rng)
        return obstacles(changed, rng)

    return augment


def finish(
    arguments: argparse.Namespace,
    weights: str | Path,
    training: Sequence[Sample],
    validation: Sequence[Sample],
) -> None:
    """Fits the temperatures on the validation part and stores them with the weights.

    So is the boundary network that crops, if one does. The frequencies that the probabilities are
    of go into an offset of the logits: `power log(share) - (1 - logit_adjustment) log(drawn share)`
    of each category. A run that was finished before is left as it is.
    """
    from lesion.calibration import FEW, Calibration
    from lesion.diagnosis import VIEWS, load_classifier, logits_of_samples, with_boundary
    from lesion.diagnosis_data import log_shares

    arrays, metadata = load_arrays(weights)
    power = arguments.prevalence_power
    if metadata.get("prevalence_power") == power:
        return  # of a run that was finished before
    if arguments.crop_weights and "boundary" not in metadata:
        _crop_sha256(arguments)  # it may have been replaced meanwhile
        with_boundary(weights, arguments.crop_weights)
        arrays, metadata = load_arrays(weights)
    if not validation:
        logger.warning("There is no validation part: the probabilities stay uncalibrated.")
        return
    if len(validation) < FEW:
        logger.warning(
            "The validation part has %d images, which say little of how sure answers may be: the "
            "probabilities may be far from what they say. Give more data.",
            len(validation),
        )
    predictor = load_classifier(weights, views=max(VIEWS), finished=False)
    logits = logits_of_samples(predictor, validation, "Calibrating")
    # A category that does not occur is taken to be as rare as one image.
    counts = np.maximum(np.bincount(_labels(training), minlength=len(DIAGNOSES)), 1)
    offset = power * np.log(counts / counts.sum())
    # What of the frequencies the loss did not make up for is in the logits already.
    drawn = log_shares(_labels(training), arguments.sampling_power)
    offset -= (1 - arguments.logit_adjustment) * drawn
    fitted = {
        n: Calibration.fit(logits[:, :n].mean(axis=1), _labels(validation), offset) for n in VIEWS
    }
    for views, calibration in fitted.items():
        logger.info("Temperature with %d views: %.3f.", views, calibration.temperature)
    calibrations = {str(views): vars(calibration) for views, calibration in fitted.items()}
    metadata |= {"calibration": calibrations, "prevalence_power": power}
    save_arrays(weights, arrays, metadata)


def _labels(samples):
    return np.array([DIAGNOSES.index(sample.diagnosis) for sample in samples])
