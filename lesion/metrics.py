"""The metrics of the ISIC 2018 challenge, in NumPy.

Task 1 (boundary) compares one predicted mask per image with the true one and reports the mean over
images. Task 2 (attributes) adds up the pixels of all images and attributes, each mask's divided by
their number, and reports one index for all. Degenerate masks are scored as the challenge's own
scorer does (`isic-challenge-scoring`): a quantity that has nothing to be measured on counts as 1.
"""

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLD = 0.65
"""Jaccard below which the challenge counts an image as failed, and scores it 0."""

METRICS = ("jaccard", "threshold_jaccard", "dice", "sensitivity", "specificity", "accuracy")
"""Names of the metrics of Task 1, in the order in which tables show them."""


@dataclass(frozen=True)
class Confusion:
    """Counts of pixels by truth and prediction.

    Counts may be fractions: Task 2 divides each mask's counts by its pixels before it adds them.
    """

    true_positive: float
    true_negative: float
    false_positive: float
    false_negative: float

    @classmethod
    def of(cls, prediction: np.ndarray, truth: np.ndarray) -> "Confusion":
        """Counts the pixels of two masks.

        Args:
            prediction: bool `[height, width]`.
            truth: bool, of the same shape.

        Raises:
            ValueError: a mask is not bool, has no pixels, or the shapes differ.
        """
        for name, mask in (("prediction", prediction), ("truth", truth)):
            # A mask of 0 and 255 would pass through `&` and `|` with quietly wrong counts.
            kind = getattr(mask, "dtype", type(mask).__name__)
            if kind != np.dtype(bool):
                raise ValueError(
                    f"`{name}` must be a bool array, received {kind}. "
                    "Compare it with a threshold first, for example `mask > 127`."
                )
        if prediction.shape != truth.shape:
            raise ValueError(
                "`prediction` and `truth` must have one shape, "
                f"received {prediction.shape} and {truth.shape}."
            )
        if truth.size == 0:
            raise ValueError(f"Masks must have at least one pixel, received shape {truth.shape}.")
        both = int(np.count_nonzero(prediction & truth))
        predicted = int(np.count_nonzero(prediction))
        positive = int(np.count_nonzero(truth))
        return cls(
            true_positive=both,
            true_negative=truth.size - predicted - positive + both,
            false_positive=predicted - both,
            false_negative=positive - both,
        )

    @property
    def normalized(self) -> "Confusion":
        """Shares instead of counts, so that large images weigh as much as small ones."""
        return Confusion(*(count / sum(self.counts) for count in self.counts))

    @property
    def counts(self) -> tuple[float, float, float, float]:
        """True positive, true negative, false positive, false negative."""
        return (
            self.true_positive,
            self.true_negative,
            self.false_positive,
            self.false_negative,
        )

    @classmethod
    def total(cls, confusions: Iterable["Confusion"]) -> "Confusion":
        """The sums of all counts; of none, zeros."""
        counts = [confusion.counts for confusion in confusions]
        return cls(*map(math.fsum, zip(*counts, strict=True))) if counts else cls(0, 0, 0, 0)

    @property
    def jaccard(self) -> float:
        """Intersection over union; 1 where both masks are empty."""
        union = self.true_positive + self.false_positive + self.false_negative
        return _ratio(self.true_positive, union)

    @property
    def threshold_jaccard(self) -> float:
        """The Jaccard index, or 0 where it is below `THRESHOLD`."""
        return self.jaccard if self.jaccard >= THRESHOLD else 0.0

    @property
    def dice(self) -> float:
        """Twice the intersection over the sum of areas; 1 where both masks are empty."""
        double = 2 * self.true_positive
        return _ratio(double, double + self.false_positive + self.false_negative)

    @property
    def sensitivity(self) -> float:
        """Share of the true pixels that was found; 1 where the truth is empty."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """Share of the background that was left out; 1 where the truth covers everything."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def accuracy(self) -> float:
        """Share of all pixels that agree."""
        agree = self.true_positive + self.true_negative
        return _ratio(agree, agree + self.false_positive + self.false_negative)


def boundary_metrics(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Scores one predicted lesion mask.

    Args:
        prediction: bool `[height, width]`.
        truth: bool, of the same shape.

    Returns:
        One number in 0..1 for each name in `METRICS`.
    """
    confusion = Confusion.of(prediction, truth)
    return {name: getattr(confusion, name) for name in METRICS}


def aggregate(scores: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean over images, every image with the same weight.

    Args:
        scores: what `boundary_metrics` gave for each image.

    Returns:
        `images`, their number, and the mean of each name in `METRICS`.

    Raises:
        ValueError: there is no image.
    """
    scores = list(scores)
    if not scores:
        raise ValueError("There is no image to aggregate: `scores` is empty.")
    means = {name: float(np.mean([score[name] for score in scores])) for name in METRICS}
    return {"images": len(scores), **means}


def bootstrap_weights(
    groups: Sequence[Hashable], seed: int = 0, resamples: int = 1000
) -> Iterator[np.ndarray]:
    """Draws whole groups with replacement, as many as there are.

    Images of one lesion are not independent, so that an interval over images alone would come out
    too narrow. A draw is given as weights, which is what most metrics take (`sample_weight`).

    Args:
        groups: the group (a lesion) of each item.
        seed: makes the draws repeatable.
        resamples: number of draws.

    Yields:
        int `[items]`: how often each item's group was drawn.
    """
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.intp)
    random = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = random.integers(0, len(numbers), size=len(numbers))
        yield np.bincount(drawn, minlength=len(numbers))[index]


def bootstrap_interval(
    values: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979), by whole groups.

    Args:
        values: one finite number per item.
        groups: the group (a lesion) of each value; by default each value stands alone.
        seed: makes the interval repeatable.
        resamples: number of draws.
        level: share of the draws' means that the interval holds, between 0 and 1.

    Returns:
        (lower, upper). Both are the mean where there is only one group.

    Raises:
        ValueError: no values, a value that is not finite, groups of another length, or a level
            or number of draws out of range.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(
            f"`values` must be a list of at least one number, received shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError("`values` must be finite; it holds NaN or infinity.")
    if groups is None:
        groups = range(len(values))
    if len(groups) != len(values):
        raise ValueError(
            "`groups` must name one group per value, "
            f"received {len(groups)} groups for {len(values)} values."
        )
    if not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1, received {level}.")
    if resamples < 1:
        raise ValueError(f"`resamples` must be at least 1, received {resamples}.")
    means = [
        float(weights @ values / weights.sum())
        for weights in bootstrap_weights(groups, seed, resamples)
    ]
    return percentile_interval(means, level)


def percentile_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """The interval that holds a share `level` of resampled values, the rest equally beside it."""
    tail = (1 - level) / 2
    lower, upper = np.quantile(values, [tail, 1 - tail])
    return float(lower), float(upper)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 1.0
