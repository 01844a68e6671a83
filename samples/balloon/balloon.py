"""Learns balloons, and shows them in colour on a picture that is grey but for them.

A script to copy for objects of your own, drawn with the VGG Image Annotator (VIA):

    python samples/balloon/balloon.py train --dataset=DIR --weights=coco
    python samples/balloon/balloon.py train --dataset=DIR --weights=last
    python samples/balloon/balloon.py splash --weights=last --image=photo.jpg
    python samples/balloon/balloon.py splash --weights=last --video=party.mp4
    python samples/balloon/balloon.py detect --weights=last --image=photos

DIR has two folders, of images to learn from and of others to measure by, each with what VIA
exported of them as JSON:

    DIR/train/via_region_data.json    DIR/val/via_region_data.json

So has balloon_dataset.zip of release 2.1 of matterport/Mask_RCNN.
"""

import argparse
import logging
import os
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's errors, without its warnings

import keras
import numpy as np
from skimage.color import rgb2gray
from skimage.measure import approximate_polygon, find_contours
from tqdm import tqdm

# Runs from a checkout that is not installed, too.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from mrcnn.checks import check_dataset
from mrcnn.config import Config
from mrcnn.files import atomic_path, write_json
from mrcnn.images import read_image, write_image
from mrcnn.masks import CompactMasks, label_map
from mrcnn.model import MaskRCNN
from mrcnn.named_instances import image_files
from mrcnn.readers import ViaDataset
from mrcnn.visualize import display_instances

# ---- For objects of your own, change these first ----------------------------------------------

NAME = "balloon"  # of the runs in logs/
CLASS_NAMES = ["balloon"]
CLASS_ATTRIBUTE = None  # of several classes: the region attribute of VIA that says which it is
ANNOTATIONS = "via_region_data.json"  # in DIR/train and in DIR/val
EPOCHS = 30


class BalloonConfig(Config):
    """What differs from the settings in mrcnn/config.py."""

    NAME = NAME
    NUM_CLASSES = 1 + len(CLASS_NAMES)  # the background is one, too
    IMAGES_PER_GPU = 2  # 1 where memory is short
    STEPS_PER_EPOCH = 100
    DETECTION_MIN_CONFIDENCE = 0.9


class BalloonDataset(ViaDataset):
    """Images with balloons; `load_mask` and `image_reference` are those of `ViaDataset`.

    For other annotations put another reader of mrcnn/readers.py in its place, or
    `mrcnn.utils.Dataset` with a `load_mask` of your own.
    """

    def load_balloon(self, dataset_dir: str | os.PathLike, subset: str) -> None:
        """Adds the images of a part, "train" or "val", and prepares the data set."""
        if subset not in ("train", "val"):
            raise ValueError(f"subset must be 'train' or 'val'; received {subset!r}.")
        path = Path(dataset_dir) / subset / ANNOTATIONS
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no {path}. The folder of the data set holds train and val, and each of "
                "them images and, under this name, what VIA exported of them as JSON."
            )
        self.load_annotations(
            path, class_attribute=CLASS_ATTRIBUTE, classes=CLASS_NAMES, source=NAME
        )


# ---- Commands ---------------------------------------------------------------------------------


def train(arguments: argparse.Namespace) -> None:
    config, dataset_train, dataset_val = BalloonConfig(), BalloonDataset(), BalloonDataset()
    for subset, dataset in (("train", dataset_train), ("val", dataset_val)):
        dataset.load_balloon(arguments.dataset, subset)
        check = check_dataset(dataset, config)
        print(f"{subset}: {check}")
        if check.problems:
            raise ValueError(f"{subset} cannot be used as it is: see what begins with ! above.")
    model = MaskRCNN("training", config, arguments.logs)
    # What is of another number of classes in a file is learned anew.
    model.load_weights(arguments.weights, skip_mismatch=True)
    model.train(
        dataset_train,
        dataset_val,
        learning_rate=config.LEARNING_RATE,
        epochs=EPOCHS,
        layers="heads",  # with few images the backbone is best left as it is; else "all"
        augmentation=keras.layers.RandomFlip("horizontal"),
    )
    print(f"The weights are {model.find_last()}")


def splash(arguments: argparse.Namespace) -> None:
    if arguments.video:
        splash_video(arguments)
        return
    for path, image, found in detections(arguments):
        write_image(path, color_splash(image, found["masks"]))


def splash_video(arguments: argparse.Namespace) -> None:
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            f"--video needs OpenCV ({error}): pip install opencv-python-headless. Or save the "
            "frames as images, and give their folder by --image."
        ) from error
    video = cv2.VideoCapture(arguments.video)
    there_is_one, frame = video.read()
    if not there_is_one:
        raise ValueError(f"OpenCV can read no frame of --video={arguments.video}.")
    model = trained_model(arguments)
    path = arguments.out / f"splash_{name_of(arguments.video)}.avi"
    with atomic_path(path) as temporary, tqdm(desc="Frames") as progress:
        rate, size = video.get(cv2.CAP_PROP_FPS) or 25, frame.shape[1::-1]
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter_fourcc(*"MJPG"), rate, size)
        try:
            while there_is_one:
                image = frame[..., ::-1]  # OpenCV's are BGR
                (found,) = model.detect([image], compact=True)
                writer.write(color_splash(image, found["masks"])[..., ::-1])
                progress.update()
                there_is_one, frame = video.read()
        finally:
            writer.release()
    print(f"See {path}")


def detect(arguments: argparse.Namespace) -> None:
    for path, image, found in detections(arguments):
        shown = found["rois"], found["masks"], found["class_ids"], ["BG", *CLASS_NAMES]
        display_instances(image, *shown, found["scores"], save_to=path)
        write_json(path.with_suffix(".json"), described(found), indent=None)


# ---- What they do with an image ---------------------------------------------------------------


def color_splash(image: np.ndarray, masks: np.ndarray | CompactMasks) -> np.ndarray:
    """The image uint8 [height, width, 3] in grey, but in its colours where the masks are."""
    grey = np.round(255 * rgb2gray(image)).astype(np.uint8)
    inside = label_map(masks) > 0
    return np.where(inside[..., np.newaxis], image, grey[..., np.newaxis])


def described(found: dict[str, Any]) -> dict[str, Any]:
    """What was found in an image, in pixels, as JSON has it. Outlines are of points (x, y)."""
    masks, instances = found["masks"], []
    for index, (y1, x1, y2, x2) in enumerate(found["rois"].tolist()):
        mask, (top, left) = masks.parts[index], masks.boxes[index][:2]
        # Padded, so that outlines are closed where the mask touches its box.
        lines = find_contours(np.pad(mask, 1).astype(float), 0.5)
        lines = [approximate_polygon(line, 0.5)[:, ::-1] + (left - 1, top - 1) for line in lines]
        instances.append(
            {
                "class": CLASS_NAMES[found["class_ids"][index] - 1],
                "score": round(float(found["scores"][index]), 4),
                "box": {"y1": y1, "x1": x1, "y2": y2, "x2": x2},
                "area": int(mask.sum()),
                "outlines": [line.tolist() for line in lines],
            }
        )
    height, width = masks.image_shape
    return {"height": height, "width": width, "instances": instances}


def detections(arguments: argparse.Namespace) -> Iterator[tuple[Path, np.ndarray, dict[str, Any]]]:
    """Of each image asked for: where its picture goes, itself, and what is found in it."""
    paths = [arguments.image]
    if os.path.isdir(arguments.image):
        paths = [str(path) for path in image_files(arguments.image)]
    elif not is_address(arguments.image) and not os.path.exists(arguments.image):
        raise FileNotFoundError(f"There is no file or folder --image={arguments.image}.")
    model = trained_model(arguments)
    names = Counter(name_of(path) for path in paths)
    for path in paths:
        image = fetch_image(path) if is_address(path) else read_image(path)
        (found,) = model.detect([image], compact=True)
        # Of a.jpg and a.png in one folder, each is to have a file of its own.
        name = name_of(path) if names[name_of(path)] == 1 else os.path.basename(path)
        target = arguments.out / f"{arguments.command}_{name}.png"
        yield target, image, found
        print(f"{path}: {len(found['scores']) or 'none'} found; see {target}")


def trained_model(arguments: argparse.Namespace) -> MaskRCNN:
    if arguments.weights in ("coco", "imagenet"):
        raise ValueError(
            f"--weights={arguments.weights} knows nothing of {', '.join(CLASS_NAMES)}. Train with "
            "it first; then give --weights=last, or the path of a file."
        )
    model = MaskRCNN("inference", BalloonConfig(), arguments.logs)
    model.load_weights(arguments.weights)
    return model


def is_address(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def name_of(path: str) -> str:
    """The file's name without its ending."""
    return Path(unquote(urlsplit(path).path) if is_address(path) else path).stem


def fetch_image(url: str) -> np.ndarray:
    request = urllib.request.Request(url, headers={"User-Agent": "mrcnn"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                path.write_bytes(answer.read())
            return read_image(path)
        except (OSError, ValueError, HTTPException) as error:
            raise ValueError(
                f"No image can be fetched from {url}: {error}. Save it, and give its path."
            ) from error


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    learning = commands.add_parser("train", help="learn from a data set")
    learning.add_argument("--dataset", required=True, metavar="DIR", help="folder of train and val")
    splashing = commands.add_parser("splash", help="leave the balloons alone in colour")
    source = splashing.add_mutually_exclusive_group(required=True)
    image = {"metavar": "PATH", "help": "path or address of an image, or a folder of them"}
    source.add_argument("--image", **image)
    source.add_argument("--video", metavar="PATH", help="path or address of a video")
    detecting = commands.add_parser("detect", help="draw what is found, and write it as JSON")
    detecting.add_argument("--image", required=True, **image)
    for command in (splashing, detecting):
        command.add_argument(
            "--out", type=Path, default="results", metavar="DIR", help="folder of the pictures"
        )
    for command in (learning, splashing, detecting):
        command.add_argument(
            "--weights", required=True, help="last (of --logs), a file; for train coco, imagenet"
        )
        command.add_argument("--logs", default="logs", metavar="DIR", help="folder of all runs")
    return parser


def main(argv: list[str] | None = None) -> None:
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # progress is logged
    try:
        {"train": train, "splash": splash, "detect": detect}[arguments.command](arguments)
    except (OSError, ValueError, ImportError, FloatingPointError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")


if __name__ == "__main__":
    main()
