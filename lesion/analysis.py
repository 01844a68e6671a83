"""What was found in one image: as Python values, as a JSON record, as HTML in a notebook."""

import functools
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from lesion import NOTICE
from lesion.attribute_overlay import attribute_overlay
from lesion.measurements import Measurements, measure
from lesion.nearby import SMALL, longer_share
from lesion.overlay import boundary_overlay
from lesion.quality import QualityWarning
from lesion.report_case import notebook_html
from lesion.samples import DIAGNOSES
from mrcnn.files import sha256_of

if TYPE_CHECKING:  # most of these load TensorFlow
    from lesion.attributes import Attributes
    from lesion.boundary import Boundary
    from lesion.diagnosis import Diagnosis
    from lesion.dicom import DicomImage

SCHEMA_VERSION = 3
"""Version of the records; a field that changes its meaning or goes raises it (docs/analysis.md)."""


@dataclass(frozen=True)
class Source:
    """The file an image came from.

    Attributes:
        path: as it was given.
        bytes: its size.
        modified: when it was last written, ISO 8601 in UTC.
        sha256: of its content.
    """

    path: str
    bytes: int
    modified: str
    sha256: str

    @classmethod
    def of(cls, path: str | os.PathLike) -> "Source":
        """Raises OSError where the file cannot be read."""
        size, modified = size_and_time(path)
        return cls(str(path), size, modified, sha256_of(path))


def size_and_time(path: str | os.PathLike) -> tuple[int, str]:
    """A file's size in bytes, and when it was last written, as in `Source`; or OSError."""
    status = Path(path).stat()
    try:
        return status.st_size, datetime.fromtimestamp(status.st_mtime, UTC).isoformat()
    except (OverflowError, ValueError) as error:  # as damaged file systems have it
        raise OSError(f"{path}: its date cannot be read: {error}") from error


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found in one image. It draws itself in Jupyter.

    Attributes:
        image: uint8 [height, width, 3].
        boundary: `lesion.boundary.Boundary` (mask, score, box); None without this task.
        attributes: `lesion.attributes.Attributes` (masks, presence); None without this task.
        diagnosis: `lesion.diagnosis.Diagnosis`; None without this task.
        quality: what is wrong with the image itself.
        models: what each network says of itself, by task.
        settings: what else the result depends on.
        source: the file, if the image came from one.
        dicom: `lesion.dicom.DicomImage`, if that file was DICOM. It holds the patient's identity.
        millimetres_per_pixel: the scale, where known.
        nearby: the square (y1, x1, y2, x2) that attributes and diagnosis were found in, of a lesion
            that is small or leaves the middle (`lesion.nearby`); None: they are of the whole image.
    """

    image: np.ndarray = field(repr=False)
    boundary: "Boundary | None" = field(default=None, repr=False)
    attributes: "Attributes | None" = field(default=None, repr=False)
    diagnosis: "Diagnosis | None" = None
    quality: tuple[QualityWarning, ...] = ()
    models: Mapping[str, dict] = field(default_factory=dict, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    source: Source | None = None
    dicom: "DicomImage | None" = field(default=None, repr=False)
    millimetres_per_pixel: float | None = None
    nearby: tuple[int, int, int, int] | None = None

    @property
    def mask(self) -> np.ndarray | None:
        """The lesion, bool [height, width]; all False where none was found."""
        return None if self.boundary is None else self.boundary.mask

    @property
    def probabilities(self) -> dict[str, float] | None:
        """Of each of `lesion.samples.DIAGNOSES`, by the weights' temperature, if they have one.

        They sum to 1.
        """
        if self.diagnosis is None:
            return None
        return dict(zip(DIAGNOSES, map(float, self.diagnosis.probabilities), strict=True))

    @property
    def refer(self) -> bool | None:
        """Whether the diagnosis is too uncertain for the risk chosen, or too near to melanoma.

        None if nothing was chosen, or if the network is not calibrated.
        """
        return None if self.diagnosis is None else self.diagnosis.refer

    @functools.cached_property
    def measurements(self) -> Measurements | None:
        """Of the lesion within its boundary, made at the first look; None without this task."""
        if self.mask is None:
            return None
        return measure(self.image, self.mask, self.millimetres_per_pixel)

    @functools.cached_property
    def warnings(self) -> tuple[QualityWarning, ...]:
        """What a reader should know before using the result: of the image, then of the boundary."""
        return (*self.quality, *self._boundary_warnings())

    def _boundary_warnings(self):
        if self.measurements is None:
            return
        if not self.measurements.area_pixels:
            yield QualityWarning("no_lesion", "No lesion was found.", 0, 1)
            return
        if self.measurements.touches_frame:
            message = "The lesion touches the edge of the image and may extend beyond it."
            yield QualityWarning("touches_frame", message, 1, 0)
        if self.nearby and (share := longer_share(self.mask)) < SMALL:
            message = "The lesion is small: attributes and diagnosis are of the square around it."
            yield QualityWarning("small_lesion", message, share, SMALL)
        regions = ndimage.label(self.mask, structure=np.ones((3, 3)))[1]
        if regions > 1:
            message = f"The boundary consists of {regions} separate regions."
            yield QualityWarning("several_regions", message, regions, 1)

    def overlay(self) -> np.ndarray:
        """The image with the boundary as a line, uint8 [height, width, 3]."""
        return self.image if self.mask is None else boundary_overlay(self.image, self.mask)

    def attribute_overlay(self) -> np.ndarray | None:
        """The image with boundary and attributes, uint8 [height, width, 3], or None without."""
        if self.attributes is None:
            return None
        return attribute_overlay(self.image, self.attributes.masks, self.mask)

    def to_dict(self) -> dict:
        """The JSON record; docs/analysis.md describes it."""
        height, width = self.image.shape[:2]
        measured = self.measurements
        return {
            "schema_version": SCHEMA_VERSION,
            "notice": NOTICE,
            "source": None if self.source is None else asdict(self.source),
            "size": {"height": height, "width": width},
            "boundary": None if self.boundary is None else _boundary_record(self.boundary),
            "nearby": None if self.nearby is None else list(map(int, self.nearby)),
            "measurements": None if measured is None else measured.to_dict(),
            "attributes": None if self.attributes is None else _attributes_record(self.attributes),
            "diagnosis": None if self.diagnosis is None else self._diagnosis_record(),
            "warnings": [asdict(warning) for warning in self.warnings],
            "models": dict(self.models),
            "settings": dict(self.settings),
        }

    def _diagnosis_record(self):
        return {
            "category": self.diagnosis.category,
            "probabilities": self.probabilities,
            "refer": self.refer,
        }

    def _repr_html_(self) -> str:
        return notebook_html(self)


def _boundary_record(boundary):
    found = bool(boundary.mask.any())
    return {
        "found": found,
        "score": float(boundary.score) if found else None,
        "box": [round(float(side)) for side in boundary.box] if found else None,
    }


def _attributes_record(attributes):
    return {
        name: {
            "presence": float(attributes.presence[name]),
            "area_pixels": int(np.count_nonzero(mask)),
            "area_share": float(mask.mean()),
        }
        for name, mask in attributes.masks.items()
    }
