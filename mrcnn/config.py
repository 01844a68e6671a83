"""The settings of a network and of its training, as class attributes to override."""

import difflib
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from mrcnn.printing import log
from mrcnn.validation import validate

logger = logging.getLogger(__name__)

# Settings that no weights show, and that change what these answer.
MEANINGS = (
    "BACKBONE",
    "IMAGE_ANTIALIAS",
    "MEAN_PIXEL",
    "RPN_ANCHOR_SCALES",
    "RPN_ANCHOR_RATIOS",
    "RPN_ANCHOR_STRIDE",
    "RPN_BBOX_STD_DEV",
    "BBOX_STD_DEV",
    "BACKBONE_STRIDES",
    "ROI_ALIGNED",
    "ROI_LEVEL_ROUNDING",
    "ROI_CANONICAL_SIZE",
    "MASK_CANONICAL_SIZE",
    "MASK_BOX_SCALE",
    "MASK_POOL_SIZE",
    "MASK_SHAPE",
)
# What is computed of other settings, and these.
COMPUTED = ("BATCH_SIZE", "IMAGE_SHAPE", "IMAGE_META_SIZE", "TRAIN_MASK_ROIS")
COMPUTED_FROM = (
    "GPU_COUNT",
    "IMAGES_PER_GPU",
    "NUM_CLASSES",
    "IMAGE_RESIZE_MODE",
    "IMAGE_MIN_DIM",
    "IMAGE_MAX_DIM",
    "IMAGE_CHANNEL_COUNT",
)
FUNCTIONS = ("BACKBONE", "COMPUTE_BACKBONE_SHAPE", "OPTIMIZER")
"""The settings that may be functions."""


class Config:
    """Settings with matterport's names and defaults; subclass and override what differs.

    Attributes below the line "beyond matterport" are new; their defaults keep its numbers.

    Example:
        ```python
        class CellConfig(Config):
            NAME = "cell"
            NUM_CLASSES = 1 + 2

        config = CellConfig(IMAGE_MAX_DIM=512, IMAGE_MIN_DIM=512)
        ```

    A keyword that is no setting is a ValueError, an attribute a warning; settings that contradict
    one another are a ValueError of `validate`, which a network's making calls.
    """

    NAME: str | None = None  # of the run; lower-cased in names of log folders and checkpoints
    GPU_COUNT: int = 1
    IMAGES_PER_GPU: int = 2
    # Rounded up, so that they may be quotients; None or 0: every image once
    STEPS_PER_EPOCH: float | None = 1000
    VALIDATION_STEPS: float | None = 50

    # Backbone: "resnet50", "resnet101", "efficientnetlite0" to "efficientnetlite4", the lower-case
    # name of a keras.applications model, or a callable
    # (input_image, stage5, train_bn) -> [C1, C2, C3, C4, C5].
    BACKBONE: str | Callable = "resnet101"
    # callable(image_shape) -> [levels, (h, w)], for a callable one
    COMPUTE_BACKBONE_SHAPE: Callable | None = None
    BACKBONE_STRIDES: Sequence[int] = [4, 8, 16, 32, 64]  # of the pyramid levels with anchors
    # False: frozen statistics; None: as usual in Keras; True: always batch ones
    TRAIN_BN: bool | None = False
    TOP_DOWN_PYRAMID_SIZE: int = 256
    FPN_CLASSIF_FC_LAYERS_SIZE: int = 1024
    NUM_CLASSES: int = 1  # including the background

    # Region proposal network
    RPN_ANCHOR_SCALES: Sequence[float] = (32, 64, 128, 256, 512)  # sides in pixels, by level
    RPN_ANCHOR_RATIOS: Sequence[float] = [0.5, 1, 2]  # width / height
    RPN_ANCHOR_STRIDE: int = 1
    RPN_NMS_THRESHOLD: float = 0.7
    RPN_TRAIN_ANCHORS_PER_IMAGE: int = 256
    PRE_NMS_LIMIT: int = 6000
    POST_NMS_ROIS_TRAINING: int = 2000
    POST_NMS_ROIS_INFERENCE: int = 1000

    # Input
    IMAGE_RESIZE_MODE: str = "square"  # none, square, pad64, crop, stretch
    IMAGE_MIN_DIM: int = 800
    IMAGE_MAX_DIM: int = 1024
    IMAGE_MIN_SCALE: float = 0
    IMAGE_CHANNEL_COUNT: int = 3
    # One per channel, or one for all
    MEAN_PIXEL: np.ndarray | Sequence[float] | float = np.array([123.7, 116.8, 103.9])
    USE_MINI_MASK: bool = True
    MINI_MASK_SHAPE: Sequence[int] = (56, 56)
    MAX_GT_INSTANCES: int = 100

    # Heads
    USE_RPN_ROIS: bool = True
    TRAIN_ROIS_PER_IMAGE: int = 200
    ROI_POSITIVE_RATIO: float = 0.33
    POOL_SIZE: int = 7
    MASK_POOL_SIZE: int = 14  # half of MASK_SHAPE: the mask head doubles it
    MASK_SHAPE: Sequence[int] = [28, 28]
    RPN_BBOX_STD_DEV: np.ndarray | Sequence[float] = np.array([0.1, 0.1, 0.2, 0.2])
    BBOX_STD_DEV: np.ndarray | Sequence[float] = np.array([0.1, 0.1, 0.2, 0.2])

    # Detection
    DETECTION_MAX_INSTANCES: int = 100
    DETECTION_MIN_CONFIDENCE: float | None = 0.7
    DETECTION_NMS_THRESHOLD: float = 0.3

    # Training
    LEARNING_RATE: float = 0.001
    LEARNING_MOMENTUM: float = 0.9
    WEIGHT_DECAY: float = 0.0001
    GRADIENT_CLIP_NORM: float | None = 5.0  # of all gradients together
    LOSS_WEIGHTS: dict[str, float] = {
        "rpn_class_loss": 1.0,
        "rpn_bbox_loss": 1.0,
        "mrcnn_class_loss": 1.0,
        "mrcnn_bbox_loss": 1.0,
        "mrcnn_mask_loss": 1.0,
    }

    # ---- beyond matterport -------------------------------------------------------------------
    IMAGE_ANTIALIAS: bool = False  # average over the pixels that a reduced image leaves out
    PRECISION: str = "float32"  # or "mixed_bfloat16": convolutions in bfloat16, boxes in float32
    RPN_CONV_CHANNELS: int = 512
    RPN_NMS_PER_LEVEL: bool = False  # True: PRE_NMS_LIMIT and suppression for each level alone
    MASK_CONV_CHANNELS: int = 256
    FREEZE_BACKBONE_STAGES: int = 0  # no gradient below this stage: 2 freezes C1 and C2
    ROI_ALIGNED: bool = False  # True: half-pixel-exact ROIAlign, the mean of 2x2 samples per bin
    ROI_LEVEL_ROUNDING: str = "round"  # or "floor", as in the FPN paper (equation 1)
    ROI_CANONICAL_SIZE: int = 224  # pixels of the box that is pooled from P4 by the box head
    MASK_CANONICAL_SIZE: int = 224  # the same for the mask head; smaller takes finer levels
    MASK_BOX_SCALE: float = 1.0  # boxes are enlarged by this factor before the mask head
    MASK_SOFT_TARGETS: bool = False  # True: cells on the boundary keep their share, not 0 or 1
    MASK_LOSS: str = "crossentropy"  # or "crossentropy_dice": plus the soft Dice loss
    SEMANTIC_BRANCH: bool = False  # True: a probability per pixel and class, a presence per class
    SEMANTIC_CHANNELS: int = 128
    SEMANTIC_LOSS: str = "crossentropy"  # or "crossentropy_dice": plus the soft Dice loss
    DETECTION_ALL_CLASSES: bool = False  # every class above the threshold, not the best alone
    DETECTION_NMS_ACROSS_CLASSES: bool = False  # True: one object has one box, whatever its class
    ADD_GT_TO_PROPOSALS: bool = False  # ground truth boxes join the proposals in training
    SAMPLE_NEGATIVES_ALWAYS: bool = False  # True: fill up with negatives whatever the positives
    IGNORE_PADDED_ROIS: bool = False  # True: zero-padded ROIs do not enter the class loss
    CLAMP_DELTAS: bool = False  # bound log(dh), log(dw) of predictions by log(1000 / 16)
    # "sgd", "adamw", or a callable(learning rate or schedule) -> Keras optimizer
    OPTIMIZER: str | Callable = "sgd"
    WARMUP_STEPS: int = 0
    LEARNING_RATE_DECAY: str | None = None  # or "cosine": to zero over all epochs of `train`
    DIVIDE_WEIGHT_DECAY: bool = True  # each weight's L2 by its size; False: half the sum of squares

    # Computed of the settings above, but where somebody has assigned them.
    BATCH_SIZE: int
    IMAGE_SHAPE: np.ndarray  # int [height, width, channels]
    IMAGE_META_SIZE: int

    _given: frozenset[str] = frozenset()  # the computed settings that somebody has assigned

    def __init__(self, **settings: Any):
        for name, value in settings.items():
            _check_keyword(type(self), name)
            setattr(self, name, value)
        for parent in type(self).__mro__:
            if parent not in Config.__mro__:
                for name in vars(parent):
                    _check_attribute(parent, name)
        for name in FUNCTIONS:
            value = getattr(self, name)
            # A function in the body of a class is a method to Python, and mostly not meant as one.
            if getattr(value, "__self__", None) is self and not _takes_self(value.__func__):
                setattr(self, name, value.__func__)
        self._compute()

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(self, name) and name not in COMPUTED:
            _check_attribute(type(self), name)
        super().__setattr__(name, value)
        if name in COMPUTED:  # by somebody who knows better than `_compute`
            super().__setattr__("_given", self._given | {name})
        elif name in COMPUTED_FROM and "BATCH_SIZE" in vars(self):  # not before all are there
            self._compute()

    def _compute(self):
        """Brings the settings up to date that follow from others, but for those given one by one.

        They lie in the instance, so that old scripts may assign them.
        """
        height = width = self.IMAGE_MAX_DIM
        if self.IMAGE_RESIZE_MODE in ("crop", "stretch"):
            height = self.IMAGE_MIN_DIM
        if self.IMAGE_RESIZE_MODE == "crop":
            width = self.IMAGE_MIN_DIM
        computed = {
            "BATCH_SIZE": self.IMAGES_PER_GPU * self.GPU_COUNT,
            "IMAGE_SHAPE": np.array([height, width, self.IMAGE_CHANNEL_COUNT]),
            "IMAGE_META_SIZE": 12 + self.NUM_CLASSES,  # as `mrcnn.molding.META` lays it out
        }
        vars(self).update({n: value for n, value in computed.items() if n not in self._given})

    def validate(self) -> None:
        """Checks that the settings fit one another.

        Raises:
            ValueError: naming the setting, its value and what it may be.
        """
        validate(self)

    @property
    def TRAIN_MASK_ROIS(self) -> int:
        """Slots for positive ROIs in training, the only ones that reach the mask head."""
        return max(1, int(self.TRAIN_ROIS_PER_IMAGE * self.ROI_POSITIVE_RATIO))

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON types; of those that are functions this is "function NAME"."""
        return {
            name: _plain(getattr(self, name))
            for name in dir(self)
            if name.isupper() and name != "TRAIN_MASK_ROIS"
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; computed settings are computed anew, unknown ones refused.

        An optimizer that was a function is the default one again: no other setting hangs on it.
        """
        known = {name: value for name, value in settings.items() if name not in COMPUTED}
        if is_function(known.get("OPTIMIZER")):
            del known["OPTIMIZER"]
        return cls(**known)

    def differences(self, settings: Mapping[str, Any]) -> list[str]:
        """How settings that weights were trained with differ in what these mean, as phrases.

        Args:
            settings: as of `to_dict`; those that are missing do not count.
        """
        own = self.to_dict()
        return [
            f"{name}={settings[name]} and not {own[name]}"
            for name in MEANINGS
            if name in settings
            and settings[name] != own[name]
            # Two functions may be one, under the name that a process or a script gave it.
            and not (is_function(settings[name]) and is_function(own[name]))
        ]

    def display(self) -> None:
        """Prints all settings, one a line."""
        own = {n: getattr(self, n) for n in dir(self) if not (n.startswith("_") or n.isupper())}
        own = {name: value for name, value in own.items() if not callable(value)}
        lines = [f"{name:30} {value}" for name, value in {**self.to_dict(), **own}.items()]
        log("\nConfigurations:\n" + "\n".join(lines) + "\n")


class PaperConfig(Config):
    """The settings of He et al. 2017 on a feature pyramid; Detectron's where they are left open.

    They are for COCO on pictures whose shorter side becomes 800 pixels. The learning rate falls
    to a tenth after three quarters of the steps (120,000 of 160,000): call `train` twice,
    the second time with `WARMUP_STEPS` of 0.
    """

    IMAGE_MAX_DIM = 1344  # 1333 rounded up to what the pyramid can halve
    MINI_MASK_SHAPE = (112, 112)  # Detectron draws polygons at the mask head's own resolution
    FREEZE_BACKBONE_STAGES = 2

    # Region proposal network: every level's best 2000, deltas as they are
    RPN_CONV_CHANNELS = 256
    RPN_BBOX_STD_DEV = np.ones(4)
    PRE_NMS_LIMIT = 2000
    RPN_NMS_PER_LEVEL = True
    CLAMP_DELTAS = True

    # 512 regions per image, one in four positive
    TRAIN_ROIS_PER_IMAGE = 512
    ROI_POSITIVE_RATIO = 0.25
    ADD_GT_TO_PROPOSALS = True
    SAMPLE_NEGATIVES_ALWAYS = True
    IGNORE_PADDED_ROIS = True
    ROI_ALIGNED = True
    ROI_LEVEL_ROUNDING = "floor"

    DETECTION_ALL_CLASSES = True
    DETECTION_MIN_CONFIDENCE = 0.05
    DETECTION_NMS_THRESHOLD = 0.5

    # 0.02 for 16 images, in proportion for other batches; every instance has the number
    LEARNING_RATE: float = None  # type: ignore[assignment]
    WARMUP_STEPS = 500
    DIVIDE_WEIGHT_DECAY = False
    GRADIENT_CLIP_NORM: float | None = None

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        if self.LEARNING_RATE is None:
            self.LEARNING_RATE = 0.02 * self.BATCH_SIZE / 16


def is_function(value: Any) -> bool:
    """Whether a setting as of `Config.to_dict` was a function."""
    return isinstance(value, str) and value.startswith("function ")


def _takes_self(function):
    """Whether a function's first parameter is a method's: `self`, or any there may be."""
    first = next(iter(inspect.signature(function).parameters.values()), None)
    return first is not None and (first.name == "self" or first.kind is first.VAR_POSITIONAL)


def _check_keyword(config_class, name):
    known = _settings(config_class)  # a class derived from Config may have settings of its own
    if name in COMPUTED:
        raise ValueError(f"{name} is computed from other settings and cannot be given.")
    if name not in known:
        raise ValueError(
            f"{config_class.__name__} has no setting named {name}.{_hint(name, known)}"
        )


def _check_attribute(config_class, name):
    known = _settings(Config)
    if name in COMPUTED:
        logger.warning("%s.%s is computed from other settings.", config_class.__name__, name)
    elif name not in known and (hint := _hint(name, known)):  # any other name may well be meant
        logger.warning("%s.%s is not a setting of Config.%s", config_class.__name__, name, hint)


def _settings(config_class):
    return [name for name in dir(config_class) if name.isupper() and name not in COMPUTED]


def _hint(name, known):
    """The setting that was probably meant; a name in lower case differs in nothing else."""
    cutoff = 0.75 if name.isupper() else 1.0
    close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=cutoff)
    return f" Did you mean {close[0]}?" if close else ""


def _plain(value):
    if isinstance(value, np.floating):
        return float(value)  # `tolist` of a longdouble is itself
    if isinstance(value, np.ndarray | np.generic) and not isinstance(value, np.clongdouble):
        return _plain(value.tolist())  # their values may be anything, too
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if callable(value):  # which no setting's text is
        return f"function {getattr(value, '__qualname__', repr(value))}"
    # Somebody's own setting may be anything, and must not end a training when it is stored.
    return value if isinstance(value, str | int | float | None) else repr(value)
