"""The attributes task: five dermoscopic structures, by instances and a semantic branch together.

Attributes are textures rather than things. A pixel belongs to one where the semantic branch, or a
detected instance, says so clearly enough and the image is thought to show the attribute at all; how
clearly is what `lesion.attribute_thresholds` finds out on the validation part.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lesion.attribute_thresholds import DEFAULTS, METHODS, Threshold
from lesion.boundary import BoundaryConfig, build_model
from lesion.boundary_views import reduced
from lesion.samples import ATTRIBUTES
from lesion.squares import joined, squares
from lesion.weights import UNFINISHED, find_weights, require_whole
from mrcnn.files import sha256_of
from mrcnn.images import as_rgb8
from mrcnn.model import MaskRCNN
from mrcnn.molding import require_several
from mrcnn.weights import WeightsError

NAME = "attributes"

logger = logging.getLogger(__name__)


class AttributesConfig(BoundaryConfig):
    """Settings for structures of all sizes, several to an image, and their semantic map."""

    NAME = NAME
    NUM_CLASSES = 1 + len(ATTRIBUTES)
    IMAGE_RESIZE_MODE = "square"
    IMAGE_MIN_DIM = 384
    IMAGE_MAX_DIM = 384
    MAX_GT_INSTANCES = 24
    MINI_MASK_SHAPE = (56, 56)

    RPN_ANCHOR_SCALES = (24, 64, 144, 288)
    TRAIN_ROIS_PER_IMAGE = 32
    ROI_POSITIVE_RATIO = 0.25
    MASK_POOL_SIZE = 14
    MASK_SHAPE = [28, 28]
    MASK_CANONICAL_SIZE = 224
    DETECTION_MAX_INSTANCES = 24

    SEMANTIC_BRANCH = True
    SEMANTIC_CHANNELS = 64
    SEMANTIC_LOSS = "crossentropy_dice"
    # What is left of instances after the semantic map is little: it may not push the map aside.
    LOSS_WEIGHTS = {
        "rpn_class_loss": 0.3,
        "rpn_bbox_loss": 0.3,
        "mrcnn_class_loss": 0.3,
        "mrcnn_bbox_loss": 0.3,
        "mrcnn_mask_loss": 0.3,
        "semantic_loss": 2.0,
        "presence_loss": 0.5,
    }


@dataclass(frozen=True)
class Attributes:
    """The attributes found in one image.

    Attributes:
        masks: bool [height, width] of the image by attribute, in the order of `ATTRIBUTES`.
        presence: score in 0..1, not calibrated, of whether the image shows the attribute at all.
    """

    masks: dict[str, np.ndarray]
    presence: dict[str, float]


@dataclass(frozen=True)
class Evidence:
    """What the network says of one image, before any threshold.

    Attributes:
        semantic: float32 [height, width, 5] in 0..1.
        instances: float32 [height, width, 5]: the best score of an instance that covers a pixel.
        presence: float32 [5] in 0..1.

    Of a long image the first two are `joined` of the squares that a pixel is in, and the last is
    the most that one of its squares says.
    """

    semantic: np.ndarray
    instances: np.ndarray
    presence: np.ndarray

    def masks(self, thresholds: Mapping[str, Threshold]) -> dict[str, np.ndarray]:
        """bool [height, width] by attribute."""
        return {
            name: thresholds[name].mask(
                self.semantic[:, :, place], self.instances[:, :, place], self.presence[place]
            )
            for place, name in enumerate(ATTRIBUTES)
        }


class AttributesPredictor:
    """Finds dermoscopic attributes in images.

    Args:
        model: a `MaskRCNN` with its weights.
        weights: the path these came from.
        thresholds: by method (`METHODS`) and attribute.
        method: how instances and the semantic map are combined.
    """

    def __init__(
        self,
        model: MaskRCNN,
        weights: str | Path,
        thresholds: Mapping[str, Mapping[str, Threshold]] = DEFAULTS,
        method: str = "combined",
    ):
        if method not in METHODS:
            raise ValueError(f"`method` must be one of {', '.join(METHODS)}; received {method!r}.")
        self.model = model
        self.weights = Path(weights)
        self.thresholds = thresholds
        self.method = method
        self._sha256 = sha256_of(self.weights)

    def predict(self, images: Sequence[np.ndarray]) -> list[Attributes]:
        """The attributes in each of a list of images [height, width(, channels)]."""
        return [
            Attributes(
                _enlarged(found.masks(self.thresholds[self.method]), image.shape),
                dict(zip(ATTRIBUTES, map(float, found.presence), strict=True)),
            )
            for image, found in zip(images, self.evidence(images), strict=True)
        ]

    def predict_by_method(
        self, images: Sequence[np.ndarray]
    ) -> Iterator[dict[str, dict[str, np.ndarray]]]:
        """Of each image masks by method and attribute, all from one pass through the network.

        They are made when they are asked for: those of a batch of photographs are gigabytes.
        """
        for image, found in zip(images, self.evidence(images), strict=True):
            yield {
                method: _enlarged(found.masks(self.thresholds[method]), image.shape)
                for method in METHODS
            }

    def evidence(self, images: Sequence[np.ndarray]) -> list[Evidence]:
        """What the network says of images, no larger than `MAX_SIDE`, of long ones by `squares`.

        As a whole, a long image would fill the network's square in part, and be smaller in it than
        what was learned from.
        """
        require_several(images)
        small = [reduced(as_rgb8(image)) for image in images]
        parts = [squares(image.shape) for image in small]
        shown = [image[part] for image, of_it in zip(small, parts, strict=True) for part in of_it]
        found = map(_evidence, self.model.detect(shown))
        return [
            _joined(of_it, [next(found) for _ in of_it], image.shape)
            for of_it, image in zip(parts, small, strict=True)
        ]

    def describe(self) -> dict:
        """Name, weights and input size, as plain JSON values."""
        height, width = (int(side) for side in self.model.config.IMAGE_SHAPE[:2])
        return {
            "task": NAME,
            "network": "Mask R-CNN with a semantic branch",
            "backbone": str(self.model.config.BACKBONE),
            "weights": self.weights.name,
            "sha256": self._sha256,
            "input_size": [height, width],
            "method": self.method,
            "thresholds": {
                name: vars(threshold) for name, threshold in self.thresholds[self.method].items()
            },
        }


def _evidence(result):
    """What `detect` gave for one image, attribute by attribute; other classes are left out."""
    count = len(ATTRIBUTES)
    instances = np.zeros((*result["masks"].shape[:2], count), np.float32)
    for place in np.argsort(result["scores"]):  # the best last
        attribute = result["class_ids"][place] - 1
        if attribute < count:
            instances[result["masks"][:, :, place], attribute] = result["scores"][place]
    return Evidence(result["semantic"][:, :, :count], instances, result["presence"][:count])


def _joined(parts, found, shape):
    """The evidence of an image from that of its parts: it shows what one of them shows."""
    return Evidence(
        joined(parts, [each.semantic for each in found], shape),
        joined(parts, [each.instances for each in found], shape),
        np.max([each.presence for each in found], axis=0),
    )


def _enlarged(masks, shape):
    """Masks by attribute, from the size they were found at to that of their image."""
    size = (shape[1], shape[0])
    enlarged = {}
    for name, mask in masks.items():
        if mask.shape != tuple(shape[:2]):
            grey = Image.fromarray(mask.astype(np.uint8) * 255)
            mask = np.asarray(grey.resize(size, Image.Resampling.BILINEAR)) >= 128
        enlarged[name] = mask
    return enlarged


def load_attributes(
    weights: str | Path, batch: int = 4, method: str = "combined", finished: bool = True
) -> AttributesPredictor:
    """The predictor of a weights file of the attributes task.

    Args:
        weights: path of a file that `lesion/train.py --task=attributes` wrote, "last" or "lesion".
        batch: images per pass through the network.
        method: see `AttributesPredictor`.
        finished: whether thresholds are to be there; that they are not is then warned of.

    Raises:
        mrcnn.weights.WeightsError: if the file is damaged or of another task.
        FileNotFoundError: if there is none.
    """
    path, metadata = find_weights(weights, NAME)
    model = build_model(AttributesConfig, metadata, batch, path)
    require_whole(model.load_weights(path), path)
    thresholds = DEFAULTS
    if "thresholds" in metadata:
        thresholds = _thresholds_in(metadata["thresholds"], path)
    elif finished:
        logger.warning(UNFINISHED, path, "thresholds")
    return AttributesPredictor(model, path, thresholds, method)


def _thresholds_in(chosen, path):
    try:
        return {
            by: {name: Threshold(**values) for name, values in thresholds.items()}
            for by, thresholds in chosen.items()
        }
    except TypeError as error:
        raise WeightsError(
            f"{path} has thresholds that this version cannot use ({error}); install a newer one."
        ) from error
