"""Coloured squares, circles and triangles: a data set and a network that learns it in minutes.

The notebooks beside this file import it; there is nothing to download.

With MRCNN_SAMPLE_SMALL=1 in the environment the network learns for a few steps on a few images,
which tries the notebooks out and teaches the network nothing. MRCNN_SAMPLE_LOGS names another
folder of runs than logs/ of the repository.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from skimage import draw

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed, too

import mrcnn.model as modellib
from mrcnn import utils
from mrcnn.config import Config

SMALL = os.environ.get("MRCNN_SAMPLE_SMALL") == "1"
MODEL_DIR = os.environ.get("MRCNN_SAMPLE_LOGS", str(ROOT / "logs"))

SHAPES = ("square", "circle", "triangle")
TRAIN_IMAGES, VALIDATION_IMAGES = (16, 8) if SMALL else (800, 50)
EPOCHS = 1 if SMALL else 15


def light_backbone(input_image: Any, stage5: bool, train_bn: bool | None) -> list[Any]:
    """Five stages of two convolutions; the names let `layers="3+"` and its like work."""
    features = keras.layers.Rescaling(1 / 64, name="rescale")(input_image)
    stages = []
    for stage, channels in enumerate((16, 32, 48, 64, 64), start=1):
        for part, strides in (("a", 2), ("b", 1)):
            features = keras.layers.Conv2D(
                channels,
                3,
                strides=strides,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
                name=f"res{stage}{part}",
            )(features)
        stages.append(features)
    return stages


class ShapesConfig(Config):
    """For images of 128 pixels, and with a hundredth of the parameters of the usual network."""

    NAME = "shapes_small" if SMALL else "shapes"
    NUM_CLASSES = 1 + len(SHAPES)
    IMAGES_PER_GPU = 2 if SMALL else 8
    STEPS_PER_EPOCH = 2 if SMALL else 100
    VALIDATION_STEPS = 1 if SMALL else 5

    IMAGE_MIN_DIM = 128
    IMAGE_MAX_DIM = 128
    MEAN_PIXEL = np.array([128.0, 128.0, 128.0])
    MINI_MASK_SHAPE = (28, 28)
    MAX_GT_INSTANCES = 8

    BACKBONE = staticmethod(light_backbone)
    BACKBONE_STRIDES = [4, 8, 16]  # shapes are 16 to 60 pixels wide: coarser levels have no use
    RPN_ANCHOR_SCALES = (16, 32, 64)
    TOP_DOWN_PYRAMID_SIZE = 32
    RPN_CONV_CHANNELS = 64
    FPN_CLASSIF_FC_LAYERS_SIZE = 128
    MASK_CONV_CHANNELS = 32

    RPN_TRAIN_ANCHORS_PER_IMAGE = 64
    PRE_NMS_LIMIT = 500
    POST_NMS_ROIS_TRAINING = 100
    POST_NMS_ROIS_INFERENCE = 50
    TRAIN_ROIS_PER_IMAGE = 32
    ADD_GT_TO_PROPOSALS = True  # while the proposals are still poor, the heads learn from these
    DETECTION_MAX_INSTANCES = 10

    # For a short training from random weights; the defaults are for a long one from trained ones.
    OPTIMIZER = "adamw"
    LEARNING_RATE = 0.002
    WARMUP_STEPS = 50
    LEARNING_RATE_DECAY = "cosine"


class InferenceConfig(ShapesConfig):
    IMAGES_PER_GPU = 1


class ShapesDataset(utils.Dataset):
    """Images that exist as descriptions only and are drawn when they are asked for."""

    def load_shapes(self, count: int, height: int, width: int, seed: int = 0) -> None:
        """Makes up `count` images, the same ones for the same seed."""
        for class_id, name in enumerate(SHAPES, start=1):
            self.add_class("shapes", class_id, name)
        for number in range(count):
            rng = np.random.default_rng((seed, number))
            background, shapes = random_image(height, width, rng)
            self.add_image(
                "shapes",
                image_id=number,
                path=None,
                size=(height, width),
                background=background,
                shapes=shapes,
            )

    def load_image(self, image_id: int) -> np.ndarray:
        info = self.image_info[image_id]
        image = np.full((*info["size"], 3), info["background"], np.uint8)
        for name, color, place in info["shapes"]:
            image[outline(name, place, info["size"])] = color
        return image

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """What is seen of each shape, bool [height, width, shapes], and their class ids."""
        info = self.image_info[image_id]
        masks = visible([outline(name, place, info["size"]) for name, _, place in info["shapes"]])
        class_ids = [self.class_names.index(name) for name, _, _ in info["shapes"]]
        return np.stack(masks, axis=-1), np.array(class_ids, np.int32)

    def image_reference(self, image_id: int) -> str:
        names = [name for name, _, _ in self.image_info[image_id]["shapes"]]
        return f"image {image_id} ({', '.join(names)})"


def random_image(
    height: int, width: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[str, np.ndarray, tuple[int, int, int]]]]:
    """A background's colour, a greyish one, and two to five shapes, the hindmost first.

    Returns:
        uint8 [3], and a list of (name, colour uint8 [3], (y, x, half the side)).
    """
    background = (rng.integers(20, 216) + rng.integers(0, 20, 3)).astype(np.uint8)
    wanted = rng.integers(2, 6)
    shapes, outlines = [], []
    while len(shapes) < wanted:
        half = int(rng.integers(8, min(height, width) // 4))
        y, x = (int(rng.integers(half, side - half)) for side in (height, width))
        name = SHAPES[rng.integers(len(SHAPES))]
        color = rng.integers(0, 256, 3, np.uint8)
        contrast = np.abs(color.astype(int) - background).max()
        candidates = [*outlines, outline(name, (y, x, half), (height, width))]
        # Shapes may hide one another, but of each at least a half is to be seen.
        whole, seen = (np.sum(masks, axis=(1, 2)) for masks in (candidates, visible(candidates)))
        if contrast > 60 and (seen >= 0.5 * whole).all():
            shapes.append((name, color, (y, x, half)))
            outlines = candidates
    return background, shapes


def outline(name: str, place: tuple[int, int, int], size: tuple[int, int]) -> np.ndarray:
    """Mask bool [height, width] of a whole shape at (y, x, half the side)."""
    y, x, half = place
    mask = np.zeros(size, bool)
    if name == "circle":
        mask[draw.disk((y, x), half, shape=size)] = True
    elif name == "square":
        mask[y - half : y + half, x - half : x + half] = True
    else:
        rows, columns = (y - half, y + half, y + half), (x, x - half, x + half)
        mask[draw.polygon(rows, columns, shape=size)] = True
    return mask


def visible(outlines: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The masks without what later ones cover."""
    covered = np.zeros_like(outlines[0])
    result = []
    for mask in reversed(outlines):
        result.append(mask & ~covered)
        covered = covered | mask
    return result[::-1]


def train() -> None:
    """Trains the network as train_shapes.ipynb does."""
    config = ShapesConfig()
    keras.utils.set_random_seed(0)
    model = modellib.MaskRCNN("training", config, MODEL_DIR)
    model.train(
        *datasets(config),
        learning_rate=config.LEARNING_RATE,
        epochs=EPOCHS,
        layers="all",
        keep_checkpoints=1,
    )


def datasets(config: Config) -> list[ShapesDataset]:
    """Prepared data sets for training and validation, without a common image."""
    made = []
    for count, seed in ((TRAIN_IMAGES, 1), (VALIDATION_IMAGES, 2)):
        dataset = ShapesDataset()
        dataset.load_shapes(count, *config.IMAGE_SHAPE[:2], seed=seed)
        dataset.prepare()
        made.append(dataset)
    return made


def trained_model() -> modellib.MaskRCNN:
    """A `MaskRCNN` for inference with the latest weights of train_shapes.ipynb, or new ones."""
    model = modellib.MaskRCNN("inference", InferenceConfig(), MODEL_DIR)
    try:
        weights = model.find_last()
    except FileNotFoundError:
        print("No trained shapes network yet: training one, as train_shapes.ipynb does.")
        train()
        weights = model.find_last()
    print(f"Weights: {Path(weights).name}")
    model.load_weights(weights)
    return model
