"""DICOM images in, DICOM segmentations out; needs the extra `dicom` (pydicom and highdicom).

Who the patient is stays in the data set and in the segmentation, which by its nature carries the
patient and study of its source and is to be stored beside it. No message, no log and no `repr` of
this module holds a value of the data set: pydicom and highdicom, which quote values in warnings,
errors and log records, are silenced while they work. File names are the caller's, and named.
"""

import copy
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lesion import NOTICE, __version__
from mrcnn import images
from mrcnn.files import atomic_path
from mrcnn.images import ImageError, as_rgb8

SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic Image Storage",
    "1.2.840.10008.5.1.4.1.1.77.1.7": "Dermoscopic Photography Image Storage",
}
PRIVATE_SCHEME = "99LESION"
"""Designates the codes of dermoscopic attributes, which are the names in `ATTRIBUTES`."""

_MANUFACTURER = "mask-rcnn-lesion"
# What DICOM wants in every object, empty where unknown (type 2), and careless writers leave out.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_IDENTIFIERS = ("StudyInstanceUID", "SOPClassUID", "SOPInstanceUID")
_COLORS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_GREYS = ("MONOCHROME1", "MONOCHROME2")
# Largest difference between a pixel's sides, as a share, for which it still counts as square.
_SQUARE = 0.01

_silence = threading.Lock()


@dataclass(frozen=True)
class DicomImage:
    """A photograph and what is needed to write results for it.

    Attributes:
        pixels: uint8 [height, width, 3], RGB.
        millimetres_per_pixel: side of a pixel, or None where the file does not say (Pixel Spacing),
            or says that pixels are not square.
        source: the `pydicom.Dataset` without its pixels. It holds the patient's identity.
    """

    pixels: np.ndarray = field(repr=False)
    millimetres_per_pixel: float | None
    source: Any = field(repr=False)


def is_dicom(path: str | os.PathLike) -> bool:
    """Whether a file can be read and has DICOM's mark, DICM behind a preamble of 128 bytes."""
    try:
        return _has_mark(path)
    except OSError:
        return False


def read_dicom(path: str | os.PathLike) -> DicomImage:
    """A DICOM photograph as RGB.

    Colours in YCbCr and palettes become RGB, MONOCHROME1 is inverted, and more than eight bits are
    scaled to eight. Compressed pixels need what pydicom needs for them: JPEG and JPEG 2000 come
    with Pillow, JPEG-LS with highdicom, others with pylibjpeg. An embedded colour profile is not
    applied, as in `mrcnn.images.read_image`.

    Raises:
        ImageError: for a file that is missing, damaged or no DICOM; of another SOP class than those
            in `SOP_CLASSES`; without pixels, of several frames (neither class has any), above
            `mrcnn.images.MAX_PIXELS`, or in a transfer syntax or photometric interpretation that
            cannot be read.
        ImportError: if pydicom is not installed.
    """
    with _extra():
        import pydicom.pixels
    try:
        marked = _has_mark(path)
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise ImageError(f"{path}: the file cannot be read: {error.strerror}.") from None
    if not marked:
        raise ImageError(f"{path}: this is not a DICOM file; it has no DICM mark.")
    with _silenced(), _values_hidden(path, "the DICOM file is damaged"):
        dataset = pydicom.dcmread(path)
        _check(dataset)
        pixels = _pixels(dataset)
        spacing = _spacing(dataset)
        del dataset.PixelData
        return DicomImage(pixels, spacing, dataset)


def write_segmentation(
    path: str | os.PathLike,
    image: DicomImage,
    boundary: np.ndarray | None,
    attributes: Mapping[str, np.ndarray],
    models: Mapping[str, Mapping],
) -> list[str]:
    """Writes masks as a binary DICOM SEG, one segment for each mask that is not empty.

    The lesion is coded as "Skin lesion" of SNOMED CT, attributes in `PRIVATE_SCHEME`: SNOMED CT has
    no codes for them that this project is certain of. Each segment names its network and the
    SHA-256 of its weights; the research-use notice is the content description. The segmentation is
    a new series of the source's study, with the source's patient.

    Args:
        path: of the file, such as `name_seg.dcm`.
        image: what `read_dicom` returned.
        boundary: bool [height, width] of the image; None where it was not looked for.
        attributes: the same by name, in the order in which they are written; they may overlap.
        models: what the predictors' `describe()` returned, by task: "boundary" and "attributes",
            as far as there are masks of them.

    Returns:
        The labels of the segments. Without any nothing is written: DICOM has no empty segmentation.

    Raises:
        ValueError: for a mask of another type or size.
        ImageError: if the source lacks what identifies it, or holds what cannot be written.
        ImportError: if highdicom is not installed.
    """
    with _extra():
        import highdicom
    masks = {**({} if boundary is None else {"boundary": boundary}), **attributes}
    for name, mask in masks.items():
        if mask.dtype != bool or mask.shape != image.pixels.shape[:2]:
            raise ValueError(
                f"The mask of {name} must be bool and as large as the image, received {mask.dtype} "
                f"{mask.shape} for an image {image.pixels.shape}."
            )
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    if not masks:
        return []
    with _silenced(), _values_hidden(path, "no segmentation can be written for this image"):
        source = _complete(image.source)
        segments = [
            _segment(number, name, models["boundary" if name == "boundary" else "attributes"])
            for number, name in enumerate(masks, 1)
        ]
        segmentation = highdicom.seg.Segmentation(
            source_images=[source],
            pixel_array=np.stack(list(masks.values()), axis=-1)[np.newaxis].astype(np.uint8),
            segmentation_type="BINARY",
            segment_descriptions=segments,
            series_instance_uid=highdicom.UID(),
            series_number=1,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=_MANUFACTURER,
            manufacturer_model_name=_MANUFACTURER,
            software_versions=__version__,
            device_serial_number="none",
            content_label="LESION",
            content_description=_ascii(NOTICE),
            series_description=_ascii(NOTICE),
        )
        if encodings := image.source.get("SpecificCharacterSet"):
            segmentation.SpecificCharacterSet = encodings
        content = io.BytesIO()
        segmentation.save_as(content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getvalue())
    return [segment.SegmentLabel for segment in segments]


def _has_mark(path):
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _segment(number, name, model):
    """The description of one segment, by the description of the network that found it."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    label = name.replace("_", " ").capitalize()
    kind = Code(name, PRIVATE_SCHEME, label)
    if name == "boundary":
        label, kind = "Skin lesion", codes.SCT.SkinLesion
    segment = SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=f"{model['network']}, {model['task']}"[:64],
            family=codes.DCM.ArtificialIntelligence,
            version=model["sha256"][:64],
            source=f"{_MANUFACTURER} {__version__}",
        ),
    )
    segment.SegmentDescription = _ascii(NOTICE)
    return segment


def _complete(source):
    """A copy of the source that has all that highdicom wants, empty where unknown."""
    missing = [keyword for keyword in _IDENTIFIERS if not source.get(keyword)]
    if missing:
        raise ImageError(f"the source image has no {' and no '.join(missing)}.")
    complete = copy.deepcopy(source)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in complete:
            setattr(complete, keyword, "")
    # highdicom would repeat it without a slice thickness, and not read its own file again.
    complete.pop("PixelSpacing", None)
    # It refuses some that are valid, such as Japanese ones, and has garbled names by others.
    complete.pop("SpecificCharacterSet", None)
    return complete


def _check(dataset):
    """Refuses what is no single photograph of a size that can be handled."""
    kind = dataset.get("SOPClassUID")
    if not kind:
        raise ImageError("the DICOM file does not say what it holds; it may be cut off.")
    if kind not in SOP_CLASSES:
        # A UID that is not in the standard has itself for a name; in a damaged file it may be
        # anything.
        known = kind.name != kind
        raise ImageError(
            f"this is DICOM of another kind ({kind.name if known else 'an unknown one'}); expected "
            f"{' or '.join(SOP_CLASSES.values())}."
        )
    if "PixelData" not in dataset:
        raise ImageError("the DICOM file holds no pixels; it may be cut off.")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ImageError(f"the DICOM file holds {frames} frames; a photograph has one.")
    if dataset.Rows * dataset.Columns > images.MAX_PIXELS:
        raise ImageError(
            f"the image has {dataset.Columns} x {dataset.Rows} pixels, more than the "
            f"{images.MAX_PIXELS:,} allowed; raise mrcnn.images.MAX_PIXELS."
        )


def _pixels(dataset):
    """uint8 [height, width, 3]."""
    from pydicom.pixels import apply_color_lut, get_decoder

    interpretation = dataset.PhotometricInterpretation
    if interpretation not in (*_COLORS, *_GREYS, "PALETTE COLOR"):
        raise ImageError("the photometric interpretation is none that can be read.")
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ImageError("the transfer syntax is none that pydicom reads.") from None
    if not decoder.is_available:
        raise ImageError(
            f"reading {syntax.name} needs a plugin of pydicom: "
            f"{'; '.join(decoder.missing_dependencies)}."
        )
    values, decoded = decoder.as_array(dataset, index=0)
    if interpretation == "PALETTE COLOR":
        return as_rgb8(apply_color_lut(values, dataset)[:, :, :3])
    if values.dtype.kind != "u":
        raise ImageError("the pixels are signed numbers; a photograph has none below zero.")
    bits = int(decoded["bits_stored"])
    if bits > 16:
        raise ImageError(f"the pixels have {bits} bits; at most 16 can be read.")
    full = 2**bits - 1
    values = np.minimum(values, full)
    if bits == 8:
        values = values.astype(np.uint8)  # they may be stored in sixteen
    else:
        values = ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)
    if interpretation == "MONOCHROME1":
        values = 255 - values
    return as_rgb8(values)


def _spacing(dataset):
    spacing = dataset.get("PixelSpacing")
    if not spacing or len(spacing) != 2:
        return None
    row, column = map(float, spacing)
    if not (0 < row < np.inf and abs(row - column) <= _SQUARE * row):
        return None
    return (row + column) / 2


def _ascii(text):
    """Text for any character set a source may have."""
    return text.replace("–", "-")


@contextmanager
def _extra() -> Iterator[None]:
    """Turns a failing import into one that says what to install."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            "DICOM needs the extra `dicom`, which is not installed: "
            'pip install -e ".[dicom]", in the checkout'
        ) from error


@contextmanager
def _silenced() -> Iterator[None]:
    """Keeps what pydicom and highdicom say out of warnings and logs. One thread at a time."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    with _silence, warnings.catch_warnings():
        levels = [logger.level for logger in loggers]
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _values_hidden(path: str | os.PathLike, problem: str) -> Iterator[None]:
    """Turns any error into an `ImageError` that names the file and no value of the data set."""
    try:
        yield
    except ImageError as error:
        message = str(error)
    except Exception as error:
        # Damaged content makes pydicom and its plugins raise anything, quoting what they read.
        message = f"{problem} ({type(error).__name__})."
    else:
        return
    raise ImageError(f"{Path(path)}: {message}") from None
