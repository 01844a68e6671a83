"""The diagnosis task: from images to the probabilities of seven categories.

A weights file holds all that lies between: how the image is cut and reduced, colour constancy,
temperature. `load_classifier` rebuilds it.
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from lesion.boundary import BoundaryConfig, BoundaryPredictor, build_model
from lesion.calibration import Calibration
from lesion.crop import crop_to_lesion
from lesion.diagnosis_network import (
    NAME,
    DiagnosisConfig,
    DiagnosisNetwork,
    classifier_model,
    config_from,
    prepare_square,
)
from lesion.patient import VECTOR_SIZE, patient_vector
from lesion.samples import DIAGNOSES, Sample
from lesion.weights import UNFINISHED, find_weights, require_whole
from mrcnn.files import sha256_of
from mrcnn.images import read_image
from mrcnn.molding import require_several
from mrcnn.weights import (
    WeightsError,
    assign_weights,
    load_arrays,
    load_weights,
    save_arrays,
)

logger = logging.getLogger(__name__)

BOUNDARY = "boundary"  # what belongs to the boundary network in a file of weights
_CHUNK = 8  # images at a time, of which large photographs may be gigabytes
VIEWS = (1, 8)
"""Numbers of views that can be averaged: the image alone, or its quarter turns, and once more their
mirror images from nearer."""
NEARER = 1.15
"""How much larger those show it. Training magnifies as much at random, and answers at two sizes err
less alike than at one (docs/experiments.md)."""


@dataclass(frozen=True)
class Diagnosis:
    """What the classifier makes of one image.

    Attributes:
        probabilities: float64 [7] in the order of `DIAGNOSES`, after the temperature.
        uncalibrated: the same before it.
        refer: whether the answer is too uncertain for the risk that was chosen, or too near to
            melanoma for the sensitivity; None if neither was, or if no risk is known.
    """

    probabilities: np.ndarray
    uncalibrated: np.ndarray
    refer: bool | None = None

    @property
    def category(self) -> str:
        """The most probable of `DIAGNOSES`."""
        return DIAGNOSES[int(self.probabilities.argmax())]


class DiagnosisPredictor:
    """Gives the diagnoses of images.

    Args:
        network: with its weights.
        config: it was built with.
        weights: the path these came from.
        calibration: by number of views.
        views: how many views of an image are averaged (`VIEWS`).
        risk: share of wrong answers that may remain among those not referred; None refers none.
        batch: squares per pass through the network.
        boundary: finds the lesion, where images are cropped to it.
        melanoma_sensitivity: share of the validation's images of melanoma that would have been
            referred for their probability of melanoma; None refers none for it.

    Raises:
        ValueError: for another number of views, or if the validation had no such images.
    """

    def __init__(
        self,
        network: DiagnosisNetwork,
        config: DiagnosisConfig,
        weights: str | Path,
        calibration: Mapping[int, Calibration] | None = None,
        views: int = 1,
        risk: float | None = None,
        batch: int = 16,
        boundary: BoundaryPredictor | None = None,
        melanoma_sensitivity: float | None = None,
    ):
        if views not in VIEWS:
            raise ValueError(f"`views` must be one of {VIEWS}, received {views}.")
        self.network = network
        self.config = config
        self.weights = Path(weights)
        self.calibration = (calibration or {}).get(views, Calibration())
        self.views = views
        self.batch = batch
        self.boundary = boundary
        self.risk, self.melanoma_sensitivity = risk, melanoma_sensitivity
        self.referral = self.calibration.referral(risk, melanoma_sensitivity)
        if risk is not None and self.referral.confidence is None:
            logger.warning("%s is not calibrated: no diagnosis is referred.", self.weights)

    @functools.cached_property
    def sha256(self) -> str:
        """Of the weights' file, as it was when this was first asked."""
        return sha256_of(self.weights)

    @functools.cached_property
    def model(self) -> keras.Model:
        """See `classifier_model`; of one view, and of an image that has been cropped."""
        return classifier_model(self.network, self.calibration)

    @property
    def members(self) -> list["DiagnosisPredictor"]:
        """The networks that answer: this one."""
        return [self]

    def predict(
        self,
        images: Sequence[np.ndarray],
        patients: Sequence[Mapping[str, object]] | None = None,
        whole: Sequence[np.ndarray] | None = None,
    ) -> list[Diagnosis]:
        """The diagnosis of each of a list of images.

        Args:
            images: arrays [height, width(, channels)] of any size; grey, RGB, RGBA.
            patients: `Sample.metadata` of each; used if the network was trained with patient data.
            whole: where `images` are parts of images, all of these, for a network that itself crops
                them to the lesion.
        """
        seen = whole if self.crops and whole is not None else images
        logits = self.logits_of_views(seen, patients).mean(axis=1)
        before = dataclasses.replace(self.calibration, temperature=1.0).probabilities(logits)
        return [
            Diagnosis(row, raw, self.referral(row))
            for row, raw in zip(self.calibration.probabilities(logits), before, strict=True)
        ]

    def logits_of_views(
        self, images: Sequence[np.ndarray], patients: Sequence[Mapping[str, object]] | None = None
    ) -> np.ndarray:
        """float64 [images, views, 7]; the first view is the image as it is."""
        require_several(images)
        if not len(images):
            return np.zeros((0, self.views, len(DIAGNOSES)))
        size, cropped = self.config.image_size, self.crop(images)
        inputs = [np.stack([v for image in cropped for v in _views(image, size, self.views)])]
        if self.config.patient_data:
            patients = patients or [{}] * len(images)
            vectors = np.array([patient_vector(known) for known in patients])
            inputs.append(np.repeat(vectors.reshape(-1, VECTOR_SIZE), self.views, axis=0))
        logits = [
            self._run([part[start : start + self.batch] for part in inputs])
            for start in range(0, len(inputs[0]), self.batch)
        ]
        shape = (len(images), self.views, len(DIAGNOSES))
        return np.concatenate(logits).reshape(shape).astype(np.float64)

    @property
    def crops(self) -> bool:
        """Whether images are cropped to their lesion first."""
        return self.boundary is not None

    def crop(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What the network is to see of images; all of them unless they are cropped."""
        if self.boundary is None:
            return list(images)
        lesions = self.boundary.predict(images)
        return [crop_to_lesion(i, lesion.mask) for i, lesion in zip(images, lesions, strict=True)]

    def _run(self, inputs):
        """Logits of a batch; a short one is filled up to the one size that is traced."""
        count = len(inputs[0])
        filled = [
            np.pad(part, [(0, self.batch - count)] + [(0, 0)] * (part.ndim - 1)) for part in inputs
        ]
        return self.network.predict_on_batch(filled if len(filled) > 1 else filled[0])[:count]

    def describe(self) -> dict:
        """Name, weights and settings, as plain JSON values."""
        return {
            "task": NAME,
            "network": "classifier",
            "backbone": self.config.backbone,
            "weights": self.weights.name,
            "sha256": self.sha256,
            "input_size": [self.config.image_size] * 2,
            "crop": self.config.crop,
            "colour_constancy": self.config.colour_constancy,
            "usual_light": self.config.usual_light,
            "patient_data": self.config.patient_data,
            "views": self.views,
            "temperature": self.calibration.temperature,
            "refer_below": self.referral.confidence,
            "refer_melanoma_from": self.referral.melanoma,
        }


def _views(image, size, count):
    """The network's squares of an image, `VIEWS` in number; the first is of the image as it is."""
    whole = prepare_square(image, size)
    if count == 1:
        return [whole]
    mirrored = prepare_square(image, size, NEARER)[:, ::-1]
    return [np.rot90(square, turns) for square in (whole, mirrored) for turns in range(4)]


def load_classifier(
    weights: str | Path,
    views: int = 1,
    risk: float | None = None,
    batch: int = 16,
    melanoma_sensitivity: float | None = None,
    finished: bool = True,
) -> DiagnosisPredictor:
    """The predictor of a weights file of the diagnosis task.

    Args:
        weights: path of a file that `lesion/train.py --task=diagnosis` wrote, or "last"; "lesion"
            is an ensemble (`lesion.ensemble.load_classifiers`).
        views, risk, batch, melanoma_sensitivity: see `DiagnosisPredictor`.
        finished: whether a calibration is to be there; that there is none is then warned of.

    Raises:
        mrcnn.weights.WeightsError: if the file is damaged or of another task.
        FileNotFoundError: if there is none.
        ValueError: as `DiagnosisPredictor`.
    """
    path, metadata = find_weights(weights, NAME)
    if metadata["class_names"] != list(DIAGNOSES):
        raise WeightsError(
            f"{path} knows the categories {', '.join(metadata['class_names'])}, not "
            f"{', '.join(DIAGNOSES)}."
        )
    # In float32, whatever it was trained in: results then do not depend on the machine.
    config = dataclasses.replace(config_from(metadata["config"], path), precision="float32")
    network = DiagnosisNetwork(config)
    require_whole(load_weights(network, path), path)
    boundary = _boundary_in(path, metadata) if config.crop == "lesion" else None
    calibrations = calibrations_in(metadata, path)
    if finished and not calibrations:
        logger.warning(UNFINISHED, path, "calibration")
    predictor = DiagnosisPredictor(
        *(network, config, path, calibrations, views, risk, batch, boundary, melanoma_sensitivity)
    )
    _ = predictor.sha256  # now: a training may replace the file while images are predicted
    return predictor


def calibrations_in(metadata: Mapping, path: str | Path) -> dict[int, Calibration]:
    """By number of views the calibrations in the metadata of a weights file, or of an ensemble's.

    Raises:
        mrcnn.weights.WeightsError: if a newer version wrote them; it names the file `path`.
    """
    try:
        values = metadata.get("calibration", {}).items()
        return {int(number): Calibration(**fitted) for number, fitted in values}
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} has a calibration that this version does not know ({error}); install a newer "
            "one, or make the file anew."
        ) from error


def logits_of_samples(
    predictor: DiagnosisPredictor, samples: Sequence[Sample], title: str | None = None
) -> np.ndarray:
    """`DiagnosisPredictor.logits_of_views` of images as they are read.

    Args:
        title: of a bar that shows the progress; None shows none.
    """
    chunks = [samples[start : start + _CHUNK] for start in range(0, len(samples), _CHUNK)]
    return np.concatenate(
        [
            predictor.logits_of_views(
                [read_image(sample.image) for sample in chunk],
                [sample.metadata for sample in chunk],
            )
            for chunk in tqdm(chunks, title, disable=None if title else True)
        ]
    )


def with_boundary(weights: str | Path, boundary: str | Path) -> None:
    """Puts a boundary network into a file of weights, so that it can crop images by itself."""
    arrays, metadata = load_arrays(weights)
    inner, description = load_arrays(boundary)
    arrays |= {f"{BOUNDARY}/{name}": value for name, value in inner.items()}
    save_arrays(weights, arrays, {**metadata, BOUNDARY: description})


def _boundary_in(path, metadata):
    """The predictor of the boundary network that `with_boundary` put into a file."""
    if BOUNDARY not in metadata:
        raise WeightsError(
            f"{path} lacks the boundary network that crops the images: its training did not reach "
            "its last epoch. Continue it with --weights=last."
        )
    arrays, _ = load_arrays(path)
    prefix = f"{BOUNDARY}/"
    inner = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
    model = build_model(BoundaryConfig, metadata[BOUNDARY], 4, path)
    assign_weights(model.keras_model, inner, str(path), by_name=False)
    return BoundaryPredictor(model, path)
