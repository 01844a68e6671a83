"""Trains a task on dermoscopic images.

python lesion/train.py --dataset=DIR --weights=coco|imagenet|last|PATH|none
"""

import argparse
import json
import logging
import math
import sys
from pathlib import Path

if __package__ in (
    None,
    "",
):  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from lesion import NOTICE  # noqa: E402
from lesion.cache import ImageCache  # noqa: E402
from lesion.dataset import LesionDataset, check_samples  # noqa: E402
from lesion.layouts import find_collections  # noqa: E402
from lesion.samples import DatasetError  # noqa: E402
from lesion.splits import SPLIT_FILE, Split, split_samples  # noqa: E402
from mrcnn.arrays import read_metadata  # noqa: E402
from mrcnn.config import Config  # noqa: E402
from mrcnn.files import atomic_path  # noqa: E402
from mrcnn.runs import find_last  # noqa: E402

logger = logging.getLogger(__name__)

STARTS = ("coco", "imagenet", "none", "last")  # for --weights, besides the path of a file
RUN_FILE = "run.json"
# A backbone that has learned from millions of images is to be changed with care.
ALL_LAYERS_RATE = 0.4
# What a continued run takes from the run it continues; the rest may be given anew.
RUN_SETTINGS = (
    "task",
    "backbone",
    "released_heads",
    "image_size",
    "mask_size",
    "epochs",
    "head_epochs",
    "steps",
    "batch",
    "learning_rate",
    "precision",
    "seed",
)


def build_parser():
    parser = argparse.ArgumentParser(
        prog="lesion train", description="Trains a network on dermoscopic images.", epilog=NOTICE
    )
    parser.add_argument(
        "--dataset",
        action="append",
        required=True,
        metavar="DIR",
        help="a data set: ISIC 2016-2018, HAM10000, or images/ and masks/; may be repeated",
    )
    parser.add_argument(
        "--weights",
        default="imagenet",
        help="start from coco, imagenet, none, a file, or continue the last run (last)",
    )
    parser.add_argument("--task", choices=["boundary"], default="boundary")
    parser.add_argument(
        "--backbone",
        default=None,
        help="efficientnetlite0 (default), resnet50, resnet101 or a model of keras.applications",
    )
    parser.add_argument(
        "--image-size",
        type=_positive,
        default=224,
        metavar="PIXELS",
        help="width of the network's input; its height is three quarters, rounded to 32",
    )
    parser.add_argument(
        "--mask-size", type=int, default=56, choices=[28, 56, 112], help="side of predicted masks"
    )
    parser.add_argument(
        "--epochs", type=_positive, default=6, help="in all, with the heads' epochs"
    )
    parser.add_argument(
        "--head-epochs",
        type=_natural,
        default=None,
        help="with the backbone fixed; default a tenth",
    )
    parser.add_argument(
        "--steps", type=_positive, default=None, help="batches per epoch; default all images once"
    )
    parser.add_argument("--batch", type=_positive, default=8, help="images per step")
    parser.add_argument("--learning-rate", type=_rate, default=0.001)
    parser.add_argument(
        "--precision", choices=["auto", "float32", "mixed_bfloat16"], default="auto"
    )
    parser.add_argument("--logs", default="logs", metavar="DIR", help="folder of all runs")
    parser.add_argument("--cache", default=None, metavar="DIR", help="default: LOGS/cache")
    parser.add_argument("--split", default=None, metavar="FILE", help="reuse a split file")
    parser.add_argument("--seed", type=_natural, default=0)
    parser.add_argument("--workers", type=_positive, default=2, help="threads that prepare images")
    parser.add_argument("--strict", action="store_true", help="stop if any image is unsound")
    parser.set_defaults(released_heads=False)  # set by --weights=coco, kept with the run
    return parser


def _natural(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, not {text!r}")
    return int(text)


def _positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)


def _rate(text):
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return rate


def main(argv=None):
    """Runs the command; returns its exit code.

    0, 1 for a training that diverged, or 2 for what the user has to mend.
    """
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    print(NOTICE)
    try:
        train(arguments)
    except (DatasetError, OSError, ValueError) as error:
        print(f"lesion train: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"lesion train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. --weights=last continues from the last epoch.", file=sys.stderr)
        return 130
    return 0


def train(arguments):
    """Trains as the parsed `arguments` say; returns the `MaskRCNN`."""
    if arguments.weights == "coco":  # these weights fit the widths of their own network alone
        arguments.released_heads = True
        arguments.backbone = arguments.backbone or "resnet101"
    last = _last_run(arguments) if arguments.weights == "last" else None
    _check_arguments(arguments)
    samples = load_samples(arguments)

    import keras

    from lesion.boundary import BoundaryConfig
    from mrcnn.model import MaskRCNN

    keras.utils.set_random_seed(arguments.seed)  # of the layers that begin at random
    split = _split(arguments, samples, last)
    config = _config(BoundaryConfig, arguments, len(split.select(samples, "train")))
    # Loading weights resets the run's folder, so the model comes first.
    model = MaskRCNN("training", config, arguments.logs)
    _load_start_weights(model, arguments, last)
    if model.epoch >= arguments.epochs:
        logger.info(
            "This run has reached its %d epochs. To train on, start one from its weights: "
            "--weights=%s",
            arguments.epochs,
            last,
        )
    folder = Path(model.log_dir)
    folder.mkdir(parents=True, exist_ok=True)
    split.save(folder / SPLIT_FILE)
    _write_json(folder / RUN_FILE, {name: getattr(arguments, name) for name in RUN_SETTINGS})
    print(f"Run: {folder}")

    cache = ImageCache(_cache_folder(arguments), max_side=max(256, 2 * arguments.image_size))
    training, validation = (
        _dataset(split.select(samples, part), cache) for part in ("train", "validation")
    )
    from lesion.augment import DermoscopyAugmentation

    head_epochs = arguments.head_epochs
    if head_epochs is None:
        head_epochs = max(1, arguments.epochs // 10) if arguments.epochs > 1 else 0
    for layers, last_epoch in (("heads", head_epochs), ("all", arguments.epochs)):
        if last_epoch:
            model.train(
                training,
                validation,
                learning_rate=arguments.learning_rate * (ALL_LAYERS_RATE if layers == "all" else 1),
                epochs=last_epoch,
                layers=layers,
                augmentation=DermoscopyAugmentation(),
                seed=arguments.seed,
                workers=arguments.workers,
                keep_checkpoints=3,
                metadata={"task": "boundary", "notice": NOTICE},
            )
    print(f"Weights: {model.checkpoint_path.format(epoch=model.epoch)}")
    return model


def load_samples(arguments):
    """Sound samples of all `--dataset`s; says what was left out.

    Raises:
        DatasetError: if nothing is sound, or with --strict if anything is not.
    """
    samples = []
    for collection in find_collections(arguments.dataset):
        checked = check_samples(
            collection,
            arguments.task,
            workers=arguments.workers,
            record=_cache_folder(arguments) / "checked.json",
        )
        for problem in checked.problems:
            logger.warning("%s", problem)
        if checked.problems and arguments.strict:
            raise DatasetError(
                f"{collection.root} has {len(checked.problems)} problems (listed above) and "
                "--strict was given. Mend them, or train without --strict to leave these out."
            )
        logger.info(
            "%s: %d images, %d left out.",
            collection.name,
            len(checked.samples),
            len(collection.samples) - len(checked.samples),
        )
        samples.extend(checked.samples)
    if not samples:
        raise DatasetError(
            f"No sound image with a mask in {', '.join(map(str, arguments.dataset))}; "
            "`python lesion/dataset.py --dataset DIR` lists every problem."
        )
    return samples


def choose_precision(precision, backbone):
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

        if tf.config.list_physical_devices("GPU"):
            return "mixed_bfloat16"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "mixed_bfloat16" if "amx_bf16" in flags and not depthwise else "float32"


def _config(config_class, arguments, image_count):
    if image_count == 0:
        raise DatasetError("The split leaves no image to train on; give more images.")
    width = arguments.image_size
    backbone = arguments.backbone or config_class.BACKBONE
    mean = config_class.MEAN_PIXEL
    if backbone in ("resnet50", "resnet101"):
        mean = [123.7, 116.8, 103.9]
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
        MEAN_PIXEL=mean,
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
    )


def _load_start_weights(model, arguments, last):
    from mrcnn.backbone import load_imagenet
    from mrcnn.download import coco_weights
    from mrcnn.model import CLASS_LAYERS

    start = arguments.weights
    if last:
        model.load_weights(last)
    elif start == "imagenet":
        logger.info("%s", load_imagenet(model.keras_model, model.config).summary())
    elif start == "coco":
        report = model.load_weights(coco_weights(), exclude=CLASS_LAYERS, skip_mismatch=True)
        logger.info("%s", report.summary())
    elif start != "none":
        logger.info("%s", model.load_weights(start, skip_mismatch=True).summary())
        model.set_log_dir()  # a run of its own, also from the weights of another run


def _last_run(arguments):
    """The last checkpoint; the run's own settings replace those given."""
    from lesion.boundary import BoundaryConfig

    last = find_last(arguments.logs, BoundaryConfig.NAME)
    run = Path(last).parent / RUN_FILE
    if run.exists():
        for name, value in json.loads(run.read_text()).items():
            if name in RUN_SETTINGS and value != getattr(arguments, name):
                logger.info("The run continues with its own %s: %s.", name, value)
                setattr(arguments, name, value)
    return last


def _check_arguments(arguments):
    """Finds out what is wrong with the arguments before any image is decoded."""
    if arguments.weights not in STARTS:
        read_metadata(arguments.weights)
    if (arguments.head_epochs or 0) > arguments.epochs:
        raise ValueError(
            f"--head-epochs={arguments.head_epochs} is more than --epochs={arguments.epochs}, "
            "which counts all epochs."
        )


def _split(arguments, samples, last):
    if arguments.split:
        return Split.load(arguments.split)
    if last and (Path(last).parent / SPLIT_FILE).exists():
        return Split.load(Path(last).parent / SPLIT_FILE)
    return split_samples(samples, seed=arguments.seed)


def _dataset(samples, cache):
    dataset = LesionDataset(samples, cache)
    dataset.prepare()
    return dataset


def _cache_folder(arguments):
    return Path(arguments.cache or Path(arguments.logs) / "cache")


def _write_json(path, content):
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
