"""Small lesions, shown from nearby to networks that have learned from large ones.

The images that attributes and diagnosis are learned from are filled by their lesions. A lesion in
a wide frame shows these networks too little. What they are shown instead is the square around it,
as the boundary network finds it; docs/experiments.md says what that is worth.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lesion.crop import lesion_square, mask_ends

SMALL = 0.35
"""A lesion is small whose longer side is a smaller share of the image's shorter side."""
MARGIN = 1.6
"""Side of the square around a small lesion over that lesion's longer side."""
MIN_SHARE = 0.1
"""Least side of that square as a share of the image's shorter side."""

Part = tuple[slice, slice]
"""Rows and columns of an image."""


def part_to_show(mask: np.ndarray) -> Part:
    """The square around a small lesion, or the whole image.

    Args:
        mask: bool [height, width], of the lesion.
    """
    longer = max(end - start for start, end in mask_ends(mask)) if mask.any() else np.inf
    if longer >= SMALL * min(mask.shape):
        return slice(None), slice(None)
    top, left, side = lesion_square(mask, MARGIN, MIN_SHARE)
    return slice(top, top + side), slice(left, left + side)


def put_back(attributes: Any, part: Part, shape: tuple[int, ...]) -> Any:
    """Attributes of a part of an image as those of the image, which shows none elsewhere.

    Args:
        attributes: with `masks` by attribute, as `lesion.attributes.Attributes`.
        part: what they were found in.
        shape: of the image.
    """
    whole = copy.copy(attributes)
    object.__setattr__(whole, "masks", _placed(attributes.masks, part, shape))
    return whole


def _placed(masks, part, shape):
    placed = {name: np.zeros(shape[:2], bool) for name in masks}
    for name, mask in masks.items():
        placed[name][part] = mask
    return placed


class _Nearby:
    """A predictor, and the boundary's, which finds what it is shown."""

    def __init__(self, predictor: Any, boundary: Any):
        self.predictor = predictor
        self.boundary = boundary

    def describe(self) -> dict:
        """The predictor's description, and below `boundary` that of what finds lesions."""
        return {**self.predictor.describe(), "boundary": self.boundary.describe()}

    def _parts(self, images):
        """The part of each image that is shown, and where it lies."""
        parts = [part_to_show(lesion.mask) for lesion in self.boundary.predict(images)]
        return [image[part] for image, part in zip(images, parts, strict=True)], parts


class NearbyDiagnosis(_Nearby):
    """A `lesion.diagnosis.DiagnosisPredictor`, or an ensemble, that is shown small lesions so.

    Args:
        predictor: of diagnoses.
        boundary: as `lesion.boundary.BoundaryPredictor`.

    Raises:
        ValueError: if the predictor crops images itself, and has learned from crops.
    """

    def __init__(self, predictor: Any, boundary: Any):
        super().__init__(predictor, boundary)
        if predictor.crops:
            raise ValueError(
                "This classifier crops images to their lesion by itself; it needs no other "
                "boundary weights."
            )

    def predict(
        self, images: Sequence[np.ndarray], patients: Sequence[Mapping[str, str]] | None = None
    ) -> list[Any]:
        """See `lesion.diagnosis.DiagnosisPredictor.predict`."""
        shown, _ = self._parts(images)
        return self.predictor.predict(shown, patients)


class NearbyAttributes(_Nearby):
    """A `lesion.attributes.AttributesPredictor` that is shown small lesions so.

    Args:
        predictor: of attributes.
        boundary: as `lesion.boundary.BoundaryPredictor`.
    """

    @property
    def method(self) -> str:
        """See `lesion.attributes.AttributesPredictor`."""
        return self.predictor.method

    def predict(self, images: Sequence[np.ndarray]) -> list[Any]:
        """See `lesion.attributes.AttributesPredictor.predict`."""
        shown, parts = self._parts(images)
        found = self.predictor.predict(shown)
        return [put_back(*each, i.shape) for *each, i in zip(found, parts, images, strict=True)]

    def predict_by_method(
        self, images: Sequence[np.ndarray]
    ) -> list[dict[str, dict[str, np.ndarray]]]:
        """See `lesion.attributes.AttributesPredictor.predict_by_method`."""
        shown, parts = self._parts(images)
        found = self.predictor.predict_by_method(shown)
        return [
            {method: _placed(masks, part, image.shape) for method, masks in methods.items()}
            for methods, part, image in zip(found, parts, images, strict=True)
        ]
