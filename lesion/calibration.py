"""Probabilities that mean what they say: temperature, calibration error, and when to refer.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (arXiv 1706.04599). A single
temperature is fitted, which changes no decision. What is known of the frequencies of the classes
comes in as an offset of the logits, which is given and not fitted.
"""

import logging
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from lesion.samples import DIAGNOSES

logger = logging.getLogger(__name__)

BINS = 15
MELANOMA = DIAGNOSES.index("MEL")
FEW = 50
"""Fewer images than these tell little of a temperature."""
_LOG_TEMPERATURES = (-1.0, 3.0)
"""Where everything is right, ever lower temperatures are better, and all would be certain."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """Top-label confidence and accuracy by bins of equal width; NaN where a bin is empty.

    Attributes:
        edges: float64 [bins + 1], from 0 to 1. A bin holds its upper edge, the first also 0.
        count: int [bins], images.
        confidence: float64 [bins], their mean confidence.
        accuracy: float64 [bins], the share of them that is right.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """What a reliability diagram shows.

    Args:
        probabilities: [images, classes], rows that sum to 1.
        labels: int [images].
        bins: number of bins of equal width.
    """
    confidence, correct = top_label(probabilities, labels)
    index = _bin_index(confidence, bins)
    count = np.bincount(index, minlength=bins)
    filled = np.where(count, count, np.nan)
    return Reliability(
        np.linspace(0, 1, bins + 1),
        count,
        np.bincount(index, confidence, bins) / filled,
        np.bincount(index, correct, bins) / filled,
    )


def expected_calibration_error(
    probabilities: np.ndarray,
    labels: np.ndarray,
    bins: int = BINS,
    weights: np.ndarray | None = None,
) -> float:
    """Mean difference of accuracy and confidence over the bins of `reliability`, by their images.

    Naeini et al. 2015, of the top label. 0 is best. `weights` [images] count images more than once.
    """
    confidence, correct = top_label(probabilities, labels)
    weights = np.ones(len(labels)) if weights is None else weights
    gaps = np.bincount(_bin_index(confidence, bins), weights * (correct - confidence))
    return float(np.abs(gaps).sum() / weights.sum())


def _bin_index(confidence, bins):
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def brier_score(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean over images of the squared distance to the truth, summed over classes (0 to 2)."""
    truth = np.eye(probabilities.shape[1])[labels]
    distances = np.sum((probabilities - truth) ** 2, axis=1)
    return float(np.average(distances, weights=weights))


def top_label(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence float64 [images] of the most probable class, and bool whether it is the true."""
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or len(probabilities) == 0 or len(labels) != len(probabilities):
        raise ValueError(
            "`probabilities` must be [images, classes] with a label for each of at least one "
            f"image, received shape {probabilities.shape} and {len(labels)} labels."
        )
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == np.asarray(labels)


class Coverage(NamedTuple):
    """Accuracy on the most confident images, for every share of images that is kept.

    Attributes:
        threshold: float64 [steps], falling: the confidence from which on images are kept.
        coverage: float64 [steps], the share of images kept.
        accuracy: float64 [steps], the share of these that is right.
    """

    threshold: np.ndarray
    coverage: np.ndarray
    accuracy: np.ndarray


def coverage_curve(confidence: np.ndarray, correct: np.ndarray) -> Coverage:
    """Coverage and accuracy of selective prediction (Geifman & El-Yaniv 2017).

    Images of one confidence are kept or referred together.

    Args:
        confidence: [images].
        correct: bool [images].
    """
    order = np.argsort(-np.asarray(confidence, np.float64), kind="stable")
    confidence = np.asarray(confidence, np.float64)[order]
    right = np.cumsum(np.asarray(correct, float)[order])
    kept = np.arange(1, len(order) + 1)
    last = np.append(confidence[1:] != confidence[:-1], True)  # of those of one confidence
    return Coverage(confidence[last], (kept / len(order))[last], (right / kept)[last])


class Referral(NamedTuple):
    """Which answers a person is to look at; None in both places: nobody asked.

    Attributes:
        confidence: the probability of the most probable class, below which an answer is referred.
        melanoma: the probability of melanoma, from which on it is.
    """

    confidence: float | None = None
    melanoma: float | None = None

    def __call__(self, probabilities: np.ndarray) -> bool | None:
        """Whether an answer [classes] is referred."""
        if self == Referral():
            return None
        return self.unsure(probabilities) or self.suspects(probabilities)

    def unsure(self, probabilities: np.ndarray) -> bool:
        """Whether it is, for too little confidence."""
        return self.confidence is not None and bool(probabilities.max() < self.confidence)

    def suspects(self, probabilities: np.ndarray) -> bool:
        """Whether it is, for its nearness to melanoma."""
        return self.melanoma is not None and bool(probabilities[MELANOMA] >= self.melanoma)


@dataclass(frozen=True)
class Calibration:
    """A temperature, and how confidence and accuracy went together where it was fitted.

    Attributes:
        temperature: by which logits are divided.
        offset: added to the logits before that, one number for each class; empty for none.
        confidence: of the most probable class of each image, after the temperature.
        correct: whether that class was the true one.
        melanoma: the probability of melanoma of each image that shows one, after the temperature.
    """

    temperature: float = 1.0
    offset: list[float] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)
    melanoma: list[float] = field(default_factory=list)

    @classmethod
    def fit(
        cls, logits: np.ndarray, labels: np.ndarray, offset: np.ndarray | None = None
    ) -> "Calibration":
        """The temperature that makes the labels most likely.

        Args:
            logits: [images, classes] of images that were not learned from.
            labels: int [images].
            offset: [classes], added to the logits.
        """
        offset = np.zeros(0) if offset is None else np.asarray(offset)
        uncalibrated, rows = cls(offset=offset.tolist()), np.arange(len(labels))
        logits = uncalibrated.scaled(logits)

        def loss(log_temperature):
            return -np.mean(log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels])

        best = minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded")
        temperature = float(np.exp(best.x))
        if min(best.x - _LOG_TEMPERATURES[0], _LOG_TEMPERATURES[1] - best.x) < 0.01:
            logger.warning(
                "The temperature %.2f is at the bound of what is allowed: %d images do not tell "
                "how sure the answers may be. Calibrate with more images that were not learned "
                "from.",
                temperature,
                len(labels),
            )
        probabilities = softmax(logits / temperature, axis=1)
        confidence, correct = top_label(probabilities, labels)
        melanoma = probabilities[np.asarray(labels) == MELANOMA, MELANOMA]
        # Never up: what is kept or found here has to be, too, by the threshold that is made of it.
        confidence, melanoma = (
            (np.floor(values * 1e6) / 1e6).tolist() for values in (confidence, melanoma)
        )
        return cls(temperature, offset.tolist(), confidence, correct.tolist(), melanoma)

    def scaled(self, logits: np.ndarray) -> np.ndarray:
        """float64: the logits with offset and temperature."""
        shifted = np.asarray(logits, np.float64) + (np.array(self.offset) if self.offset else 0.0)
        return shifted / self.temperature

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float64 [images, classes] of logits."""
        return softmax(self.scaled(logits), axis=-1)

    def referral(
        self, risk: float | None = None, melanoma_sensitivity: float | None = None
    ) -> Referral:
        """By `threshold` and `melanoma_threshold`, where these are asked for."""
        return Referral(
            None if risk is None else self.threshold(risk),
            None if melanoma_sensitivity is None else self.melanoma_threshold(melanoma_sensitivity),
        )

    def melanoma_threshold(self, sensitivity: float) -> float:
        """The highest probability of melanoma that at least this share of its images had.

        Raises:
            ValueError: if `sensitivity` is no share, or nothing is known of such images.
        """
        if not 0 <= sensitivity <= 1:
            raise ValueError(
                f"`melanoma_sensitivity` is a share of images of melanoma, from 0 to 1; received "
                f"{sensitivity}."
            )
        if not self.melanoma:
            raise ValueError(
                "No threshold finds a share of images of melanoma: there was none in the "
                "validation part, or an earlier version calibrated these weights. Train them "
                "anew, or join the members of an ensemble anew; or leave out the sensitivity."
            )
        found = max(1, math.ceil(sensitivity * len(self.melanoma) - 1e-9))
        return float(np.sort(self.melanoma)[-found])

    def threshold(self, risk: float) -> float | None:
        """The lowest confidence from which on at most a share `risk` of answers was wrong.

        Images below it are to be referred. 1 where no confidence is enough; None where nothing was
        fitted, so that nobody knows which is.

        Raises:
            ValueError: if `risk` is no share.
        """
        if not 0 <= risk <= 1:
            raise ValueError(f"`risk` is a share of answers, from 0 to 1; received {risk}.")
        if not self.confidence:
            return None
        curve = coverage_curve(np.array(self.confidence), np.array(self.correct))
        enough = curve.threshold[1 - curve.accuracy <= risk + 1e-9]
        return float(enough.min()) if len(enough) else 1.0
