"""What is shown to networks that have learned from squares filled by lesions.

A lesion in a wide frame shows the networks of attributes and diagnosis too little, and one at the
side of a long image leaves the square in the middle. What they are shown instead is a square around
it, as the boundary network finds it; docs/experiments.md says what that is worth.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lesion.crop import lesion_square, mask_ends
from lesion.squares import Part

SMALL = 0.35
"""A lesion is small whose longer side is a smaller share of the image's shorter side."""
MARGIN = 1.6
"""Side of the square around a small lesion over that lesion's longer side."""
MIN_SHARE = 0.1
"""Least side of that square as a share of the image's shorter side."""


WHOLE: Part = (slice(None), slice(None))


def longer_share(mask: np.ndarray) -> float:
    """The longer side of a lesion, bool [height, width], over the image's shorter side."""
    return max(end - start for start, end in mask_ends(mask)) / min(mask.shape)


def part_to_show(mask: np.ndarray) -> Part:
    """The square around a small lesion, or one that leaves the middle; else the whole image.

    Of a lesion that is not small the square has the image's shorter side, if that holds it.

    Args:
        mask: bool [height, width], of the lesion.
    """
    if not mask.any():
        return WHOLE
    share = longer_share(mask)
    if share < SMALL:
        top, left, side = lesion_square(mask, MARGIN, MIN_SHARE)
    elif share <= 1 and not _in_the_middle(mask):
        top, left, side = lesion_square(mask, least=1)
    else:
        return WHOLE
    return slice(top, top + side), slice(left, left + side)


def _in_the_middle(mask):
    """Whether a lesion lies within the largest square in the middle of its image."""
    top, left, side = lesion_square(np.zeros_like(mask))
    return mask[top : top + side, left : left + side].sum() == mask.sum()


def box_of(part: Part) -> tuple[int, int, int, int] | None:
    """A part as a half-open box (y1, x1, y2, x2) in pixels; None for the whole image."""
    if part == WHOLE:
        return None
    rows, columns = part
    return rows.start, columns.start, rows.stop, columns.stop


def shown(images: Sequence[np.ndarray], parts: Sequence[Part]) -> list[np.ndarray]:
    """Those parts of the images."""
    return [image[part] for image, part in zip(images, parts, strict=True)]


def put_back(attributes: Any, part: Part, shape: tuple[int, ...]) -> Any:
    """Attributes of a part of an image as those of the image, which shows none elsewhere.

    Args:
        attributes: a dataclass with `masks` by attribute, as `lesion.attributes.Attributes`.
        part: what they were found in.
        shape: of the image.
    """
    return dataclasses.replace(attributes, masks=_placed(attributes.masks, part, shape))


def _placed(masks, part, shape):
    if part == WHOLE:
        return masks
    placed = {name: np.zeros(shape[:2], bool) for name in masks}
    for name, mask in masks.items():
        placed[name][part] = mask
    return placed


def diagnoses_of(
    predictor: Any,
    near: Sequence[np.ndarray],
    images: Sequence[np.ndarray],
    patients: Sequence[Mapping[str, object]] | None,
) -> list[Any]:
    """The diagnoses of what is shown of images; networks that crop images themselves get all."""
    members = getattr(predictor, "members", [predictor])
    if any(getattr(member, "crops", False) for member in members):
        return predictor.predict(near, patients, whole=images)
    return predictor.predict(near, patients)


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
        return shown(images, parts), parts


class NearbyDiagnosis(_Nearby):
    """A `lesion.diagnosis.DiagnosisPredictor`, or an ensemble, that is shown these parts.

    Args:
        predictor: of diagnoses. Members of an ensemble that crop images themselves get all of them.
        boundary: as `lesion.boundary.BoundaryPredictor`.

    Raises:
        ValueError: if it or every member crops images itself, and has learned from crops.
    """

    def __init__(self, predictor: Any, boundary: Any):
        super().__init__(predictor, boundary)
        if predictor.crops:
            raise ValueError(
                "This classifier crops images to their lesion by itself; it needs no other "
                "boundary weights."
            )

    def predict(
        self, images: Sequence[np.ndarray], patients: Sequence[Mapping[str, object]] | None = None
    ) -> list[Any]:
        """See `lesion.diagnosis.DiagnosisPredictor.predict`."""
        near, _ = self._parts(images)
        return diagnoses_of(self.predictor, near, images, patients)


class NearbyAttributes(_Nearby):
    """A `lesion.attributes.AttributesPredictor` that is shown these parts.

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
        near, parts = self._parts(images)
        found = self.predictor.predict(near)
        together = zip(found, parts, images, strict=True)
        return [put_back(each, part, image.shape) for each, part, image in together]

    def predict_by_method(
        self, images: Sequence[np.ndarray]
    ) -> Iterator[dict[str, dict[str, np.ndarray]]]:
        """See `lesion.attributes.AttributesPredictor.predict_by_method`."""
        near, parts = self._parts(images)
        found = self.predictor.predict_by_method(near)
        for methods, part, image in zip(found, parts, images, strict=True):
            yield {method: _placed(masks, part, image.shape) for method, masks in methods.items()}
