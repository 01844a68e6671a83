"""From probabilities to masks of attributes: thresholds that are best for the challenge's score.

The score of Task 2 is one Jaccard index over all images and attributes: the sum of all
intersections over the sum of all unions. Each attribute's thresholds change its own share of both
sums alone, so that the best choice for all of them together can be found exactly on a grid.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lesion.samples import ATTRIBUTES

if TYPE_CHECKING:  # it imports this module
    from lesion.attributes import Evidence

logger = logging.getLogger(__name__)

NEVER = 2.0
"""A threshold that no probability reaches."""

METHODS = ("combined", "semantic", "instances")
"""How a mask is made: of both, of the semantic map alone, of detected instances alone."""

# The grid: thresholds of the semantic map and of instances' scores, rising, and of presence.
_SEMANTIC = np.arange(1, 40, dtype=np.float32) / 40
_INSTANCES = np.arange(1, 20, dtype=np.float32) / 20
_PRESENCE = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Threshold:
    """When a pixel belongs to an attribute; `NEVER` switches a source off.

    Attributes:
        presence: score that the image must have of showing the attribute at all.
        semantic: probability that the semantic map must have there, or
        instance: score that an instance there must have.
    """

    presence: float = 0.0
    semantic: float = 0.5
    instance: float = 0.7

    def mask(self, semantic: np.ndarray, instances: np.ndarray, presence: float) -> np.ndarray:
        """bool [height, width] from maps of that size; see `lesion.attributes.Evidence`."""
        if presence < self.presence:
            return np.zeros(semantic.shape, bool)
        return (semantic >= self.semantic) | (instances >= self.instance)


DEFAULTS: Mapping[str, Mapping[str, Threshold]] = {
    "combined": dict.fromkeys(ATTRIBUTES, Threshold()),
    "semantic": dict.fromkeys(ATTRIBUTES, Threshold(instance=NEVER)),
    "instances": dict.fromkeys(ATTRIBUTES, Threshold(semantic=NEVER)),
}
"""Thresholds of weights that come without their own."""


class ThresholdSearch:
    """Collects what a network says of images and what is true, and finds the best thresholds.

    Memory is a table of 800 counts for each image and attribute, whatever the images' sizes.
    """

    def __init__(self):
        self._presence = []  # by image [5]
        self._area = []  # of the truth
        self._inside = []  # by image [5, semantic, instances]: share of pixels, true ones
        self._outside = []  # and others

    def add(self, evidence: "Evidence", truth: Mapping[str, np.ndarray]) -> None:
        """Takes in one image.

        Args:
            evidence: a `lesion.attributes.Evidence`.
            truth: bool [height, width] by attribute, all five.
        """
        tables = []
        for place, name in enumerate(ATTRIBUTES):
            semantic = np.searchsorted(_SEMANTIC, evidence.semantic[:, :, place], side="right")
            instances = np.searchsorted(_INSTANCES, evidence.instances[:, :, place], side="right")
            # The cell of a pixel counts how many thresholds of each kind it reaches.
            cell = semantic * (len(_INSTANCES) + 1) + instances
            shape = (len(_SEMANTIC) + 1, len(_INSTANCES) + 1)
            for pixels in (cell[truth[name]], cell[~truth[name]]):
                counts = np.bincount(pixels, minlength=shape[0] * shape[1])
                tables.append(counts.reshape(shape) / cell.size)
        self._inside.append(np.array(tables[0::2], np.float32))
        self._outside.append(np.array(tables[1::2], np.float32))
        self._area.append([truth[name].mean() for name in ATTRIBUTES])
        self._presence.append(evidence.presence)

    def best(self, method: str) -> tuple[dict[str, Threshold], float]:
        """The thresholds of a method, and the global Jaccard index that they reach.

        Found by Dinkelbach's algorithm (1967) for a ratio of sums: with J the best ratio so far,
        each attribute takes the thresholds that make its intersection less J times its union
        largest; the ratio of the sums is the next J, until it stays.
        """
        shared, united, grid = self._sums(method)
        ratio, chosen = 0.0, None
        while True:
            # Never quite zero: of choices that find nothing, the one that claims least.
            value = (shared - max(ratio, 1e-6) * united).reshape(len(ATTRIBUTES), -1)
            places = value.argmax(axis=1)
            rows = np.arange(len(ATTRIBUTES))
            total = united.reshape(value.shape)[rows, places].sum()
            reached = shared.reshape(value.shape)[rows, places].sum() / total if total else 1.0
            if chosen is not None and reached <= ratio + 1e-9:
                break
            ratio, chosen = float(reached), places
        thresholds = {}
        for name, place in zip(ATTRIBUTES, chosen, strict=True):
            indices = np.unravel_index(place, shared.shape[1:])
            values = (float(axis[index]) for axis, index in zip(grid, indices, strict=True))
            thresholds[name] = Threshold(*values)
        return thresholds, ratio

    def _sums(self, method):
        """Intersections and unions [5, presence, semantic, instances] over all images; the grid."""
        semantic = [*map(_rounded, _SEMANTIC), NEVER]
        instances = [*map(_rounded, _INSTANCES), NEVER]
        kept_rows, kept_columns = slice(None), slice(None)
        gates = _PRESENCE
        if method == "semantic":
            kept_columns = slice(-1, None)
        elif method == "instances":
            kept_rows, gates = slice(-1, None), (0.0,)
        presence = np.array(self._presence, np.float32)  # [images, 5]
        area = np.array(self._area).sum(axis=0)[:, None, None, None]
        sums = []
        for tables in (self._inside, self._outside):
            tables = np.array(tables)
            gated = [np.einsum("ia,iast->ast", presence >= gate, tables) for gate in gates]
            positive = _at_or_above(np.stack(gated, axis=1))
            sums.append(positive[:, :, kept_rows, kept_columns])
        shared, false = sums
        return shared, area + false, (gates, semantic[kept_rows], instances[kept_columns])


def _at_or_above(tables):
    """Pixels that reach either threshold, from counts by the number of thresholds reached.

    Args:
        tables: [..., s + 1, t + 1].

    Returns:
        [..., s + 1, t + 1]: entry (i, j) has those that reach semantic threshold i or instance
        threshold j; the last of each kind is never reached.
    """
    below = tables.cumsum(axis=-2).cumsum(axis=-1)
    return below[..., -1:, -1:] - below


def _rounded(value):
    return round(float(value), 4)
