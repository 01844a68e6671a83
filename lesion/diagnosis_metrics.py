"""The metrics of ISIC 2018 Task 3, and what else a reader of seven probabilities should know.

Balanced multi-class accuracy is scored as the challenge's own scorer does it
(`isic-challenge-scoring`): an image whose highest probability two categories share is wrong.
A category that does not occur is left out of all means; its own values are None.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_curve

from lesion.calibration import MELANOMA, brier_score, expected_calibration_error
from lesion.metrics import bootstrap_weights, percentile_interval
from lesion.patient import OLDEST, read_age, told
from lesion.samples import DIAGNOSES, Sample

UNDECIDED = -1
SPECIFICITIES = (0.80, 0.90, 0.95)
RESAMPLES = 1000
_AGES = ((0, 30), (30, 45), (45, 60), (60, 75), (75, OLDEST + 1))


def decide(probabilities: np.ndarray) -> np.ndarray:
    """int [images]: the most probable category, or UNDECIDED where two share the highest value."""
    highest = probabilities.max(axis=1, keepdims=True)
    tied = (probabilities == highest).sum(axis=1) > 1
    return np.where(tied, UNDECIDED, probabilities.argmax(axis=1))


def confusion_matrix(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """int [7, 7], true categories by decided ones; undecided images are in no column."""
    size = len(DIAGNOSES)
    decided = decisions != UNDECIDED
    flat = labels[decided] * size + decisions[decided]
    return np.bincount(flat, minlength=size * size).reshape(size, size)


def _recall(labels, decisions, weights):
    """float64 [7]; NaN where a category does not occur."""
    total = np.bincount(labels, weights, len(DIAGNOSES))
    right = np.bincount(labels, weights * (labels == decisions), len(DIAGNOSES))
    return np.divide(right, total, out=np.full(len(total), np.nan), where=total > 0)


class RankedScores:
    """The area under the ROC curve for many weightings of the same images.

    Args:
        positive: bool [images].
        scores: [images].
    """

    def __init__(self, positive: np.ndarray, scores: np.ndarray):
        self.positive = positive
        self.rank = np.unique(scores, return_inverse=True)[1]

    def auc(self, weights: np.ndarray) -> float:
        """Probability that a positive image scores above a negative one, ties counting half.

        NaN where no image, or every one, is positive.
        """
        positive = np.bincount(self.rank, weights * self.positive)
        negative = np.bincount(self.rank, weights * ~self.positive)
        pairs = positive.sum() * negative.sum()
        below = np.cumsum(negative) - negative
        return float(positive @ (below + negative / 2) / pairs) if pairs else float("nan")


def sensitivity_at(positive: np.ndarray, scores: np.ndarray, specificity: float) -> float | None:
    """Highest sensitivity of a threshold that has at least this specificity; None if undefined."""
    if positive.all() or not positive.any():
        return None
    false_rate, true_rate, _ = roc_curve(positive, scores, drop_intermediate=False)
    return float(true_rate[1 - false_rate >= specificity - 1e-12].max())


class ScoredPredictions:
    """Labels and probabilities of images, scored as a whole or with weights.

    Args:
        labels: int [images], positions in `DIAGNOSES`.
        probabilities: float [images, 7], rows that sum to 1.
        groups: of each image those that are drawn with it, for intervals: its lesion or patient.
        lesions: of each image, to be counted; by default the groups.
    """

    def __init__(
        self,
        labels: np.ndarray,
        probabilities: np.ndarray,
        groups: Sequence[Hashable],
        lesions: Sequence[Hashable] | None = None,
    ):
        self.labels = np.asarray(labels, int)
        self.probabilities = np.asarray(probabilities, np.float64)
        self.groups = list(groups)
        self.lesions = self.groups if lesions is None else list(lesions)
        self.decisions = decide(self.probabilities)
        self._ranked = [
            RankedScores(self.labels == number, self.probabilities[:, number])
            for number in range(len(DIAGNOSES))
        ]

    def scores(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """The main figures; `recall` and `auc` are float64 [7], NaN where undefined."""
        weights = np.ones(len(self.labels)) if weights is None else weights
        recall = _recall(self.labels, self.decisions, weights)
        auc = np.array([ranked.auc(weights) for ranked in self._ranked])
        return {
            "balanced_accuracy": _mean(recall),
            "accuracy": float(np.average(self.labels == self.decisions, weights=weights)),
            "melanoma_auc": auc[MELANOMA],
            "mean_auc": _mean(auc),
            "ece": expected_calibration_error(self.probabilities, self.labels, weights=weights),
            "brier": brier_score(self.probabilities, self.labels, weights),
            "recall": recall,
            "auc": auc,
        }

    def intervals(self, seed: int = 0) -> dict:
        """95 % interval of each of `scores`: RESAMPLES draws of whole lesions and patients.

        Draws in which a figure is undefined, as the recall of a category that was not drawn, do
        not count for it; nor, for means over categories, do draws that lack one of them, whose mean
        is of something else. None where fewer than half of the draws count, and where they all
        agree, as on a category of few lesions that are all answered alike: that says how few they
        are, not how sure the figure is. None likewise for the balanced accuracy if half of its
        categories or more do not vary.

        That of the calibration error lies too high: what a draw adds by chance to a bin can only
        raise a mean of absolute values. It tells how far the error may reach, not how small it is.
        """
        occurs = np.bincount(self.labels, minlength=len(DIAGNOSES)) > 0
        draws = []
        for weights in bootstrap_weights(self.groups, seed, RESAMPLES):
            scores = self.scores(weights)
            if np.isnan(scores["recall"][occurs]).any():
                scores |= dict.fromkeys(("balanced_accuracy", "mean_auc"), float("nan"))
            draws.append(scores)
        result = {}
        for name in draws[0]:
            values = np.array([draw[name] for draw in draws])
            if values.ndim == 1:
                result[name] = _interval(values)
            else:
                result[name] = {
                    diagnosis: _interval(values[:, number])
                    for number, diagnosis in enumerate(DIAGNOSES)
                }
        varying = sum(interval is not None for interval in result["recall"].values())
        if 2 * varying <= occurs.sum():
            result["balanced_accuracy"] = None
        return result

    def summary(self, intervals: bool = True) -> dict:
        """Everything as plain values for JSON; None where a figure is undefined."""
        scores = {
            name: _by_category(value) if np.ndim(value) else _plain(value)
            for name, value in self.scores().items()
        }
        melanoma = self.labels == MELANOMA
        scores_of_melanoma = self.probabilities[:, MELANOMA]
        images_of = np.bincount(self.labels, minlength=len(DIAGNOSES)).tolist()
        return {
            "images": len(self.labels),
            "lesions": len(set(self.lesions)),
            **scores,
            "precision": _by_category(self._precision()),
            "average_precision": _by_category(self._average_precision()),
            "melanoma_sensitivity": {
                f"{specificity:.2f}": sensitivity_at(melanoma, scores_of_melanoma, specificity)
                for specificity in SPECIFICITIES
            },
            "images_of": dict(zip(DIAGNOSES, images_of, strict=True)),
            "undecided": int((self.decisions == UNDECIDED).sum()),
            "confusion": confusion_matrix(self.labels, self.decisions).tolist(),
            **({"confidence": self.intervals()} if intervals else {}),
        }

    def select(self, positions: Sequence[int]) -> "ScoredPredictions":
        """The same of some images."""
        groups, lesions = ([of[i] for i in positions] for of in (self.groups, self.lesions))
        return ScoredPredictions(
            self.labels[positions], self.probabilities[positions], groups, lesions
        )

    def _precision(self):
        matrix = confusion_matrix(self.labels, self.decisions)
        decided = matrix.sum(axis=0)
        nothing = np.full(len(decided), np.nan)
        return np.divide(matrix.diagonal(), decided, out=nothing, where=decided > 0)

    def _average_precision(self):
        return np.array(
            [
                average_precision_score(self.labels == number, self.probabilities[:, number])
                if (self.labels == number).any()
                else np.nan
                for number in range(len(DIAGNOSES))
            ]
        )


def subgroups(samples: Sequence[Sample]) -> dict[str, dict[str, list[int]]]:
    """Positions of the samples by `age`, `sex`, `site` and `confirmation`; "unknown" among them."""
    result: dict[str, dict[str, list[int]]] = {}
    for name in ("age", "sex", "site", "confirmation"):
        groups: dict[str, list[int]] = {}
        for position, sample in enumerate(samples):
            if name == "age":
                value = _age_group(read_age(sample.metadata))
            elif name == "confirmation":
                value = sample.metadata.get(name, "").strip().lower() or "unknown"
            else:
                value = told(sample.metadata).get(name, "unknown")
            groups.setdefault(value, []).append(position)
        result[name] = dict(sorted(groups.items(), key=lambda item: (item[0] == "unknown", item)))
    return result


def _age_group(age):
    if age is None:
        return "unknown"
    low, high = next((low, high) for low, high in _AGES if low <= age < high)
    return f"{low}-{high - 1}" if high <= OLDEST else f"{low}+"


def _mean(values):
    """Mean of what is defined; NaN where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _interval(values):
    defined = values[~np.isnan(values)]
    if 2 * len(defined) < len(values):
        return None
    low, high = percentile_interval(defined)
    return [low, high] if low < high else None


def _by_category(values):
    return {name: _plain(value) for name, value in zip(DIAGNOSES, values, strict=True)}


def _plain(value):
    return None if np.isnan(value) else float(value)
