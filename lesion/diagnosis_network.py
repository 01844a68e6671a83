"""The classifier: its settings, its network, and what it makes of an image before the network.

The network is one `keras.Model` from a square of RGB to logits; `classifier_model` puts around it
what turns a photograph of any size into probabilities.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from lesion.calibration import Calibration
from lesion.patient import VECTOR_SIZE
from lesion.samples import DIAGNOSES
from mrcnn import __version__
from mrcnn.backbone import build_backbone, frozen_layers
from mrcnn.config import Config
from mrcnn.efficientnet_lite import SCALES, top_features
from mrcnn.images import as_rgb8
from mrcnn.tensors import precision_policy
from mrcnn.weights import WeightsError

NAME = "diagnosis"


@dataclass(frozen=True)
class DiagnosisConfig:
    """Settings of the network and of its training.

    Attributes:
        backbone: as `mrcnn.Config.BACKBONE`.
        image_size: side of the square that the network sees, reduced with anti-aliasing.
        crop: what of an image: "centre", the largest square in its middle, or "lesion", a square
            around what the boundary network finds (`lesion.crop`).
        colour_constancy: whether the light's colour is taken out first (`ShadesOfGray`).
        usual_light: how far the light is brought to what is usual, 0 to 1 (`UsualLight`).
        patient_data: whether age, sex and site are a second input.
        batch_statistics: whether batch normalization learns its statistics; not in the networks of
            files that say nothing of it, as there was no choice once.
        frozen_stages: number of the backbone's stages that never learn, from the first on.
        dropout: before the last layer.
        precision: "float32" or "mixed_bfloat16".
        batch: images per step.
        steps: batches per epoch.
        weight_decay: of AdamW.
        label_smoothing: share of the truth that is spread over all categories.
        sampling_power: see `lesion.diagnosis_data.sampling_shares`.
        logit_adjustment: multiple of the log of the sampled shares that is added to the logits in
            the loss (Menon et al. 2021); with 1 the network's own probabilities are those of a
            clinic in which all categories were equally common.
        mixing, teacher_share, unlabelled_share: see `lesion.diagnosis_data.DiagnosisBatches`.
        patient_dropout: share of training images whose patient data are withheld.
    """

    backbone: str = "efficientnetlite0"
    image_size: int = 224
    crop: str = "centre"
    colour_constancy: bool = False
    usual_light: float = 0.0
    patient_data: bool = False
    batch_statistics: bool = False
    frozen_stages: int = 0
    dropout: float = 0.2
    precision: str = "float32"
    batch: int = 32
    steps: int = 100
    weight_decay: float = 0.02
    label_smoothing: float = 0.05
    sampling_power: float = 0.5
    logit_adjustment: float = 1.0
    mixing: float = 0.0
    teacher_share: float = 0.0
    unlabelled_share: float = 0.0
    patient_dropout: float = 0.2

    def to_mrcnn(self) -> Config:
        """The same for what comes from `mrcnn`: backbone and optimizer."""
        return Config(
            NAME=NAME,
            BACKBONE=self.backbone,
            TRAIN_BN=None if self.batch_statistics else False,
            MEAN_PIXEL=np.zeros(3),
            OPTIMIZER="adamw",
            WEIGHT_DECAY=self.weight_decay,
            LEARNING_RATE_DECAY="cosine",
            WARMUP_STEPS=200,
        )


@keras.saving.register_keras_serializable("lesion")
class ShadesOfGray(keras.layers.Layer):
    """Scales the channels so that their Minkowski means of order 6 agree.

    Finlayson & Trezzi 2004; for dermoscopy Barata et al. 2015. RGB 0..255, [B, H, W, 3].
    """

    order = 6

    def call(self, images: Any) -> Any:
        means = ops.mean((images / 255.0) ** self.order, axis=(1, 2), keepdims=True)
        light = ops.maximum(means, 1e-12) ** (1 / self.order)
        return ops.clip(images * self.gains(light), 0.0, 255.0)

    def gains(self, light: Any) -> Any:
        """Factors [B, 1, 1, 3] of the channels, of their means [B, 1, 1, 3], 0..1."""
        length = ops.sqrt(ops.mean(ops.square(light), axis=-1, keepdims=True))
        return length / light


@keras.saving.register_keras_serializable("lesion")
class UsualLight(ShadesOfGray):
    """Brings colour and brightness of the light to what is usual, or a part of the way.

    Cameras differ in both; what is left of the difference in the logarithm is `1 - share` of it.
    Towards grey instead, skin would look as no skin does that the backbone has seen.

    Args:
        share: of the way, 0 to 1.
    """

    usual = (0.780, 0.579, 0.610)
    """Geometric mean of the channels' means over the training part of HAM10000."""

    def __init__(self, share: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.share = share

    def gains(self, light: Any) -> Any:
        return (ops.convert_to_tensor(self.usual, light.dtype) / light) ** self.share

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "share": self.share}


@keras.saving.register_keras_serializable("lesion")
class DiagnosisNetwork(keras.Model):
    """From the network's square of RGB 0..255, and the patient if so set, to logits.

    Attributes:
        frozen_layers: names of the layers that never learn.
    """

    def __init__(self, config: DiagnosisConfig):
        size = config.image_size
        with precision_policy(config.precision):
            image = keras.Input((size, size, 3), name="image")
            inputs, x = [image], image
            if config.colour_constancy:
                x = ShadesOfGray(dtype="float32", name="shades_of_gray")(x)
            if config.usual_light:
                x = UsualLight(config.usual_light, dtype="float32", name="usual_light")(x)
            settings = config.to_mrcnn()
            stages = build_backbone(x, settings)
            features = stages[-1]
            if config.backbone in SCALES:
                features = top_features(features, settings.TRAIN_BN)
            vector = keras.layers.GlobalAveragePooling2D(name="diagnosis_pool")(features)
            if config.patient_data:
                patient = keras.Input((VECTOR_SIZE,), name="patient")
                inputs.append(patient)
                known = keras.layers.Dense(32, "relu", name="diagnosis_patient")(patient)
                vector = keras.layers.Concatenate(name="diagnosis_all")([vector, known])
            vector = keras.layers.Dropout(config.dropout, name="diagnosis_dropout")(vector)
            logits = keras.layers.Dense(len(DIAGNOSES), name="diagnosis_logits", dtype="float32")(
                vector
            )
            # One input stands alone, or Keras warns of calls that do not give a list of it.
            given = inputs if config.patient_data else image
            super().__init__(inputs=given, outputs=logits, name="diagnosis")
        self.frozen_layers = frozen_layers(image, stages, config.frozen_stages, config.backbone)
        self.config = config

    def get_config(self) -> dict[str, Any]:
        return {"config": dataclasses.asdict(self.config)}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> "DiagnosisNetwork":
        return cls(DiagnosisConfig(**config["config"]))


def classifier_model(network: DiagnosisNetwork, calibration: Calibration) -> keras.Model:
    """All of it as one model: RGB 0..255 [B, H, W, 3] of any size to probabilities [B, 7]."""
    image, *others = network.inputs
    photograph = keras.Input((None, None, 3), name="photograph")
    square = _square_layer(image.shape[1])(photograph)
    # Resizing takes training for granted and would hand that on: dropout would answer at random.
    logits = network([square, *others] if others else square, training=False)
    calibrate, softmax = calibration_layers(calibration)
    probabilities = softmax(calibrate(logits))
    inputs = [photograph, *others] if others else photograph
    return keras.Model(inputs, probabilities, name="diagnosis_classifier")


def calibration_layers(calibration: Calibration) -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """`Calibration.probabilities` of logits [B, 7] as two layers, the second softmax."""
    scale = keras.layers.Rescaling(
        1 / calibration.temperature,
        calibration.scaled(np.zeros(len(DIAGNOSES))).tolist(),
        dtype="float32",
        name="calibration",
    )
    return scale, keras.layers.Softmax(name="probabilities", dtype="float32")


def _square_layer(size):
    return keras.layers.Resizing(
        size, size, crop_to_aspect_ratio=True, antialias=True, dtype="float32", name="square"
    )


_kept_square_layer = functools.cache(_square_layer)  # for images one by one


def prepare_square(image: np.ndarray, size: int, magnification: float = 1.0) -> np.ndarray:
    """The network's square of an image of any size: float32 [size, size, 3], 0..255.

    Args:
        magnification: how much larger than the largest square shows it, at least 1; what then lies
            beyond the edges is not seen.
    """
    pixels = as_rgb8(image)
    # The layer would cut the same square, but after all of a large photograph is made float32.
    side = max(1, round(min(pixels.shape[:2]) / magnification))
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    pixels = pixels[top : top + side, left : left + side].astype(np.float32)
    return ops.convert_to_numpy(_kept_square_layer(size)(pixels[np.newaxis]))[0]


def describe_network(config: DiagnosisConfig) -> dict:
    """What a weights file says of its network."""
    return {
        "network": "classifier",
        "version": __version__,
        "config": dataclasses.asdict(config),
        "class_names": list(DIAGNOSES),
    }


def config_from(settings: Mapping, path: str | Path) -> DiagnosisConfig:
    """The configuration in a weights file; WeightsError where a newer version wrote it."""
    known = {field.name for field in dataclasses.fields(DiagnosisConfig)}
    if unknown := set(settings) - known:
        raise WeightsError(
            f"{path} has settings that this version does not know ({', '.join(sorted(unknown))}); "
            "install a newer one."
        )
    return DiagnosisConfig(**settings)
