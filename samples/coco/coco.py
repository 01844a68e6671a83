"""Trains on COCO, or on any data set in its format and folders, and evaluates there.

    python samples/coco/coco.py train --dataset=DIR --model=coco
    python samples/coco/coco.py evaluate --dataset=DIR --model=last

DIR holds COCO's folders as they are published:

    annotations/instances_train2017.json  annotations/instances_val2017.json  train2017/  val2017/

--year=2014 takes the pictures of 2014 instead, by the parts that matterport's weights learned from
and were measured on. Those are not of COCO's own server, and may have to be found elsewhere.

With MRCNN_SAMPLE_SMALL=1 in the environment and --model=none a network for images of 64 pixels
learns for one step, which tries the commands out in half a minute.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Runs from a checkout that is not installed, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mrcnn import coco
from mrcnn.config import Config
from mrcnn.download import download

IMAGES = "http://images.cocodataset.org/zips/{name}.zip"
# The parts of 2014's validation set that Girshick made; the others come together.
ANNOTATIONS = {
    "minival": "https://dl.dropboxusercontent.com/s/o43o90bna78omob/"
    "instances_minival2014.json.zip?dl=0",
    "valminusminival": "https://dl.dropboxusercontent.com/s/s3tw5zcg7395368/"
    "instances_valminusminival2014.json.zip?dl=0",
}
ALL_ANNOTATIONS = "http://images.cocodataset.org/annotations/annotations_trainval{year}.zip"

# Layers that learn, the last epoch, and the share of the learning rate.
STAGES = [("heads", 40, 1.0), ("4+", 120, 1.0), ("all", 160, 0.1)]

SMALL = {
    "BACKBONE": "efficientnetlite0",
    "IMAGE_MIN_DIM": 64,
    "IMAGE_MAX_DIM": 64,
    "RPN_ANCHOR_SCALES": (4, 8, 16, 32, 64),
    "TOP_DOWN_PYRAMID_SIZE": 16,
    "RPN_CONV_CHANNELS": 16,
    "FPN_CLASSIF_FC_LAYERS_SIZE": 32,
    "MASK_CONV_CHANNELS": 16,
    "PRE_NMS_LIMIT": 200,
    "POST_NMS_ROIS_TRAINING": 50,
    "POST_NMS_ROIS_INFERENCE": 50,
    "TRAIN_ROIS_PER_IMAGE": 16,
    "STEPS_PER_EPOCH": 1,
    "VALIDATION_STEPS": 1,
}


class CocoConfig(Config):
    NAME = "coco"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + 80


class InferenceConfig(CocoConfig):
    IMAGES_PER_GPU = 1
    DETECTION_MIN_CONFIDENCE = 0  # all detections count in COCO's average precision


class CocoDataset(coco.CocoDataset):
    """COCO by the name of its parts."""

    def load_coco(
        self,
        dataset_dir: str | os.PathLike,
        subset: str,
        year: str | None = None,
        class_ids: Sequence[int] | None = None,
        class_map: Any = None,
        return_coco: bool = False,
        auto_download: bool = False,
    ) -> Any | None:
        """Adds a part of COCO and prepares the data set.

        Args:
            dataset_dir: the folder that holds COCO's.
            subset: train, val, and of 2014 also minival and valminusminival.
            year: 2014 or 2017; by default 2017, but for the parts that 2014 alone has.
            class_ids: ids of the categories to take; all by default.
            class_map: accepted for compatibility.
            return_coco: gives the annotations as faster-coco-eval's COCO, which has the
                interface of pycocotools'.
            auto_download: fetch what is missing; the images of train are 13 to 19 GB.
        """
        root = Path(dataset_dir)
        year = year or ("2014" if subset in ANNOTATIONS else "2017")
        annotations = root / "annotations" / f"instances_{subset}{year}.json"
        images = root / f"{'val' if subset in ANNOTATIONS else subset}{year}"
        if auto_download:
            if not annotations.exists():
                url = ANNOTATIONS.get(subset, ALL_ANNOTATIONS.format(year=year))
                unpack(url, annotations.parent if subset in ANNOTATIONS else root)
            if not images.exists():
                unpack(IMAGES.format(name=images.name), root)
        elif not annotations.exists():
            raise FileNotFoundError(
                f"There is no {annotations}. Unpack COCO in {root}, fetch it with --download=True, "
                "or give the --year of what is there, 2014 or 2017."
            )
        self.load_annotations(annotations, images, class_ids)
        if return_coco:
            from faster_coco_eval import COCO

            return COCO(str(annotations))
        return None


def unpack(url: str, folder: Path) -> None:
    """Fetches an archive and unpacks it in a folder."""
    path = download(url, folder / url.rpartition("/")[2].removesuffix("?dl=0"))
    print(f"Unpacking {path}")
    # Aside, and moved when it is whole: a folder that is there is taken to be complete.
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(aside)
        except zipfile.BadZipFile as error:
            path.unlink()
            raise ValueError(
                f"What {url} gave is no archive ({error}); it is removed. Fetch it again."
            ) from error
        for entry in Path(aside).iterdir():
            _move(entry, folder / entry.name)
    path.unlink()


def _move(entry, target):
    """Renames a file or a folder; of a folder that is there, too, what it holds."""
    if entry.is_dir() and target.is_dir():
        for inner in entry.iterdir():
            _move(inner, target / inner.name)
    else:
        entry.replace(target)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["train", "evaluate"])
    parser.add_argument("--dataset", required=True, metavar="DIR", help="folder of COCO")
    parser.add_argument("--year", default="2017", choices=["2014", "2017"], help="default 2017")
    parser.add_argument(
        "--model",
        required=True,
        metavar="WEIGHTS",
        help="a weights file, coco, imagenet, last (of --logs) or none to begin at random",
    )
    parser.add_argument("--logs", default="logs", metavar="DIR", help="folder of all runs")
    parser.add_argument(
        "--limit", type=natural, default=500, help="images to evaluate; default 500, 0 takes all"
    )
    parser.add_argument(
        "--download",
        nargs="?",
        type=boolean,
        const=True,
        default=False,
        metavar="True|False",
        help="fetch what is missing of COCO",
    )
    return parser


def natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, not {text!r}")
    return int(text)


def boolean(text: str) -> bool:
    if text not in ("True", "False"):
        raise argparse.ArgumentTypeError(f"must be True or False, not {text!r}")
    return text == "True"


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        {"train": train, "evaluate": evaluate}[arguments.command](arguments)
    except (OSError, ValueError, ImportError, zipfile.BadZipFile) as error:
        print(f"coco.py: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"coco.py: {error}", file=sys.stderr)
        return 1
    return 0


def train(arguments: argparse.Namespace) -> None:
    import keras

    from mrcnn.model import MaskRCNN

    training = load(arguments, "train")
    if arguments.year == "2014":
        load(arguments, "valminusminival", training)
    validation = load(arguments, "minival" if arguments.year == "2014" else "val")
    config = CocoConfig(NUM_CLASSES=training.num_classes, **small())
    model = MaskRCNN("training", config, arguments.logs)
    if arguments.model != "none":
        model.load_weights(arguments.model)
    for layers, last_epoch, share in [("heads", 1, 1.0)] if small() else STAGES:
        if model.epoch < last_epoch:  # of a run that goes on, some stages are over
            model.train(
                training,
                validation,
                learning_rate=config.LEARNING_RATE * share,
                epochs=last_epoch,
                layers=layers,
                augmentation=keras.layers.RandomFlip("horizontal"),
            )


def evaluate(arguments: argparse.Namespace) -> None:
    from mrcnn.coco_metrics import METRICS, evaluate_dataset
    from mrcnn.model import MaskRCNN

    dataset = load(arguments, "minival" if arguments.year == "2014" else "val")
    config = InferenceConfig(NUM_CLASSES=dataset.num_classes, **small())
    model = MaskRCNN("inference", config, arguments.logs)
    if arguments.model != "none":
        model.load_weights(arguments.model)
    image_ids = dataset.image_ids[: arguments.limit or None]
    start = time.perf_counter()
    result = evaluate_dataset(model, dataset, image_ids)
    seconds = time.perf_counter() - start
    for kind, metrics in result.items():
        print(f"\n{kind} of {len(image_ids)} images")
        for name in METRICS:
            print(f"  {name:6} {metrics[name]:.3f}")
        print(
            "  AP by class: " + ", ".join(f"{n} {v:.3f}" for n, v in metrics["per_class"].items())
        )
    print(f"\n{seconds / max(1, len(image_ids)):.2f} seconds per image")


def load(
    arguments: argparse.Namespace, subset: str, dataset: CocoDataset | None = None
) -> CocoDataset:
    """Adds a part of the data set to `dataset`, or to a new one."""
    dataset = dataset or CocoDataset()
    dataset.load_coco(arguments.dataset, subset, arguments.year, auto_download=arguments.download)
    return dataset


def small() -> dict[str, Any]:
    """Settings of a network that only tries the commands out, where that is asked for."""
    return SMALL if os.environ.get("MRCNN_SAMPLE_SMALL", "0") not in ("", "0") else {}


if __name__ == "__main__":
    sys.exit(main())
