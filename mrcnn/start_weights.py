"""Where a network's weights come from: words for files, and the configuration in a file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mrcnn.backbone import is_known_backbone
from mrcnn.coco import CLASS_NAMES
from mrcnn.config import COMPUTED, Config, is_function
from mrcnn.download import coco_weights
from mrcnn.weights import CLASS_LAYERS, WeightsError, read_metadata

if TYPE_CHECKING:  # it imports this module
    from mrcnn.model import MaskRCNN

logger = logging.getLogger(__name__)

COCO_BACKBONE = "resnet101"
"""Of the weights that matterport trained on COCO."""
RPN_LAYERS = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")
"""The layers inside of `rpn_model`."""


def chosen_weights(
    model: MaskRCNN, word: str | os.PathLike, exclude: Iterable[str] | str | None = None
) -> tuple[str | os.PathLike, tuple[str, ...], tuple[str, ...] | None]:
    """What a word for weights stands for: `(path, layers to leave out, class names or None)`.

    Args:
        model: the `MaskRCNN` that is to load it.
        word: "coco", "imagenet" or "last"; anything else is the path of a file.
        exclude: layers to leave out in any case; a name, several or None.

    Raises:
        ValueError: for "coco" with another backbone.
    """
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude or ())
    if "rpn_model" not in exclude and (inner := [name for name in RPN_LAYERS if name in exclude]):
        logger.warning(
            "exclude leaves %s as they are, random in a new network: they lie inside of rpn_model, "
            "where matterport's loading took no notice of names. Take them out of it to load them.",
            ", ".join(inner),
        )
    if word == "coco":
        config = model.config
        if config.BACKBONE != COCO_BACKBONE:
            own = "" if callable(config.BACKBONE) else ', whose own are load_weights("imagenet")'
            raise ValueError(
                f"matterport's weights are of BACKBONE={COCO_BACKBONE!r}; this is "
                f"{config.BACKBONE!r}{own}."
            )
        if config.NUM_CLASSES != len(CLASS_NAMES):
            exclude += CLASS_LAYERS
        return str(coco_weights()), exclude, CLASS_NAMES
    words = {"imagenet": model.get_imagenet_weights, "last": model.find_last}
    return words[word]() if word in words else word, exclude, None


def is_coco(word: str | os.PathLike) -> bool:
    """Whether it is the word for matterport's weights, and no file in the folder one is in."""
    return word == "coco" and not os.path.isfile(word)


def read_config(path: str | os.PathLike, mode: str = "inference", **settings) -> Config:
    """The configuration that is stored in a weights file of this project.

    Args:
        path: of the file, or "coco" for matterport's, whose configuration is the default one.
        mode: what it is for. An optimizer that was a function matters for "training" alone.
        settings: taken instead of stored ones.

    Raises:
        WeightsError: if the file is damaged, of another kind of network, or tells none.
        FileNotFoundError: if there is no file.
        ValueError: if a setting does not exist, or one that was a function is not given.
    """
    if is_coco(path):
        return Config(**{"NAME": "coco", "NUM_CLASSES": len(CLASS_NAMES), **settings})
    metadata = read_metadata(path)
    kind, stored = metadata.get("network", "mask_rcnn"), metadata.get("config")
    if kind != "mask_rcnn":
        raise WeightsError(f"{path} holds another kind of network than a Mask R-CNN: {kind}.")
    if not isinstance(stored, dict):
        raise WeightsError(
            f"{path} does not tell the configuration of its network; make a MaskRCNN of a Config "
            "and call its load_weights."
        )
    functions = [] if is_known_backbone(stored.get("BACKBONE", "")) else ["BACKBONE"]
    if stored.get("COMPUTE_BACKBONE_SHAPE") is not None:
        functions.append("COMPUTE_BACKBONE_SHAPE")
    if is_function(stored.get("OPTIMIZER")):
        if mode == "training":
            functions.append("OPTIMIZER")
        stored = {**stored, "OPTIMIZER": Config.OPTIMIZER}
    if missing := [name for name in functions if name not in settings]:
        function = metadata["config"][missing[0]]
        raise ValueError(
            f"{path} was trained with {function}, which a file cannot hold; give it as "
            f"{missing[0]}=…"
        )
    unknown = [name for name in stored if name not in COMPUTED and not hasattr(Config, name)]
    if unknown:  # somebody's own, or a newer version's
        logger.warning("%s has settings that are not known here: %s.", path, ", ".join(unknown))
    left_out = {*unknown, *COMPUTED}
    known = {name: value for name, value in stored.items() if name not in left_out}
    return Config(**{**known, **settings})
