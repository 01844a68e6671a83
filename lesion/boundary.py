"""The boundary task: Mask R-CNN with one class, one lesion per image."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from lesion.boundary_views import VIEWS, Look, look_twice
from lesion.reading import chunks
from lesion.weights import find_weights, require_whole
from mrcnn.config import Config
from mrcnn.files import sha256_of
from mrcnn.images import as_rgb8
from mrcnn.masks import mask_extent
from mrcnn.model import MaskRCNN
from mrcnn.molding import require_several
from mrcnn.weights import WeightsError

logger = logging.getLogger(__name__)

_LARGE = 3 * 4_000_000  # images with more values than this are predicted one by one


class BoundaryConfig(Config):
    """Settings for one large object in a small image, made for two processor cores.

    Compared with `mrcnn`'s defaults: a light backbone, narrow heads, a mask of 56 pixels that
    reaches beyond its box, so that a box which is a little too small does not cut the lesion.
    With `SEMANTIC_BRANCH` the boundary is that of the mean of this mask and of the branch's map.
    """

    NAME = "boundary"
    NUM_CLASSES = 1 + 1
    IMAGES_PER_GPU = 8
    BACKBONE = "efficientnetlite0"
    MEAN_PIXEL = np.array([127.0, 127.0, 127.0])
    IMAGE_RESIZE_MODE = "stretch"
    IMAGE_MIN_DIM = 160
    IMAGE_MAX_DIM = 224
    IMAGE_ANTIALIAS = True
    MAX_GT_INSTANCES = 2
    MINI_MASK_SHAPE = (112, 112)

    TOP_DOWN_PYRAMID_SIZE = 64
    RPN_CONV_CHANNELS = 64
    BACKBONE_STRIDES = [8, 16, 32, 64]
    RPN_ANCHOR_SCALES = (24, 48, 96, 160)
    RPN_TRAIN_ANCHORS_PER_IMAGE = 64
    PRE_NMS_LIMIT = 300
    POST_NMS_ROIS_TRAINING = 64
    POST_NMS_ROIS_INFERENCE = 32
    FPN_CLASSIF_FC_LAYERS_SIZE = 256
    TRAIN_ROIS_PER_IMAGE = 16
    ROI_POSITIVE_RATIO = 0.125
    MASK_CONV_CHANNELS = 64
    MASK_POOL_SIZE = 28
    MASK_SHAPE = [56, 56]
    DETECTION_MAX_INSTANCES = 3
    DETECTION_MIN_CONFIDENCE = 0.05
    DETECTION_ALL_CLASSES = True

    SEMANTIC_CHANNELS = 64
    SEMANTIC_LOSS = "crossentropy_dice"
    # Every image shows the one class there is.
    LOSS_WEIGHTS = {**Config.LOSS_WEIGHTS, "presence_loss": 0.0}

    ROI_ALIGNED = True
    ROI_LEVEL_ROUNDING = "floor"
    ROI_CANONICAL_SIZE = 224
    MASK_CANONICAL_SIZE = 320
    MASK_BOX_SCALE = 1.25
    MASK_SOFT_TARGETS = True
    MASK_LOSS = "crossentropy_dice"
    ADD_GT_TO_PROPOSALS = True
    SAMPLE_NEGATIVES_ALWAYS = True
    IGNORE_PADDED_ROIS = True
    CLAMP_DELTAS = True

    OPTIMIZER = "adamw"
    WEIGHT_DECAY = 0.01
    LEARNING_RATE = 0.001
    LEARNING_RATE_DECAY = "cosine"
    WARMUP_STEPS = 200


@dataclass(frozen=True)
class Boundary:
    """The lesion found in one image.

    Attributes:
        mask: bool [height, width] of the image; all false where nothing was found.
        score: the network's score in 0..1, zero where nothing was found.
        box: `(y1, x1, y2, x2)` in pixels, or None.
    """

    mask: np.ndarray
    score: float
    box: tuple[int, int, int, int] | None


class BoundaryPredictor:
    """Finds the lesion's boundary in images.

    Args:
        model: a `MaskRCNN` with its weights.
        weights: the path these came from.
        views: how many views of an image are averaged (`lesion.boundary_views.VIEWS`).
    """

    def __init__(self, model: MaskRCNN, weights: str | Path, views: int = 1):
        if views not in VIEWS:
            raise ValueError(f"`views` must be one of {VIEWS}, received {views}.")
        self.model = model
        self.weights = Path(weights)
        self.views = views
        self._sha256 = sha256_of(self.weights)

    def predict(self, images: Sequence[np.ndarray]) -> list[Boundary]:
        """The boundary in each of a list of images [height, width(, channels)]: `Boundary`s."""
        require_several(images)
        if self.views == 1:  # batch by batch, since maps of large photographs take much memory
            large = max((np.size(image) for image in images), default=0) > _LARGE
            size = 1 if large else self.model.config.BATCH_SIZE
            return [_outlined(s) for part in chunks(images, size) for s in self.look(part)]
        return [_outlined(look_twice(self.look, as_rgb8(image))) for image in images]

    def look(self, images: Sequence[np.ndarray]) -> list[Look]:
        """One view of each of a list of images uint8 [height, width, 3]: `Look`s."""
        return [_surest(found) for found in self.model.detect(images, mask_threshold=None)]

    def describe(self) -> dict:
        """Name, weights and input size, as plain JSON values."""
        height, width = (int(side) for side in self.model.config.IMAGE_SHAPE[:2])
        return {
            "task": "boundary",
            "network": "Mask R-CNN",
            "backbone": str(self.model.config.BACKBONE),
            "weights": self.weights.name,
            "sha256": self._sha256,
            "input_size": [height, width],
            "views": self.views,
        }


def _surest(result):
    """The detection of the best score as a map of the image; its mean with a semantic one."""
    if not len(result["scores"]):
        return Look(np.zeros(result["masks"].shape[:2], np.float32), 0.0)
    best = int(np.argmax(result["scores"]))
    probability = result["masks"][:, :, best]
    if "semantic" in result:
        probability = (probability + result["semantic"][:, :, 0]) / 2
    return Look(probability, float(result["scores"][best]))


def _outlined(look):
    """The boundary that views agree on: where the lesion is more probable than not."""
    mask = look.probability >= 0.5
    if not mask.any():
        return Boundary(mask, 0.0, None)
    mask = one_region(mask)
    return Boundary(mask, look.score, mask_extent(mask))


def one_region(mask: np.ndarray) -> np.ndarray:
    """The largest region of a mask bool [height, width], without holes; empty as it is."""
    if not mask.any():
        return mask
    return ndimage.binary_fill_holes(_largest_region(mask))


def _largest_region(mask):
    regions, count = ndimage.label(mask)
    if count < 2:
        return mask
    return regions == 1 + np.argmax(np.bincount(regions.ravel())[1:])


def load_predictor(weights: str | Path, batch: int = 4, views: int = 1) -> BoundaryPredictor:
    """The predictor of a weights file of the boundary task.

    Args:
        weights: path of a file that `lesion/train.py` wrote, "last" or "lesion".
        batch: images, or views of some, per pass through the network.
        views: see `BoundaryPredictor`.

    Raises:
        mrcnn.weights.WeightsError: if the file is damaged or of another task.
        FileNotFoundError: if there is none.
    """
    path, metadata = find_weights(weights, BoundaryConfig.NAME)
    model = build_model(BoundaryConfig, metadata, batch, path)
    require_whole(model.load_weights(path), path)
    return BoundaryPredictor(model, path, views)


def build_model(
    config_class: type[Config], metadata: Mapping, batch: int, path: str | Path
) -> MaskRCNN:
    """The `MaskRCNN` that the metadata of a weights file describe, without its weights.

    It computes in float32, whatever it was trained in: results then do not depend on the machine.

    Raises:
        mrcnn.weights.WeightsError: if a newer version wrote them; it names the file `path`.
    """
    own = {"IMAGES_PER_GPU": batch, "GPU_COUNT": 1, "PRECISION": "float32"}
    settings = {**metadata["config"], **own}
    try:
        config = config_class.from_dict(settings)
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} has settings that this version cannot use ({error}); install a newer one."
        ) from error
    return MaskRCNN("inference", config, "logs")
