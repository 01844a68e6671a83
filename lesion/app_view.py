"""What the page shows of one image: a picture with outlines that can be switched, and the facts.

All of it, the report to download included, is one piece of HTML that refers to no file: whoever
closes the page leaves nothing of it behind. The outlines are shapes over the picture, and a style
hides those whose box is not ticked, so that switching asks nothing of the server.
"""

import base64
import dataclasses
import math
import tempfile
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from skimage.measure import approximate_polygon, find_contours

from lesion import NOTICE
from lesion.analysis import Analysis
from lesion.analyzer import Analyzer
from lesion.attribute_overlay import ATTRIBUTE_COLORS, ATTRIBUTE_LABELS, DASHED, attribute_overlay
from lesion.folders import ANALYSED_SUFFIXES, image_stem
from lesion.overlay import PREDICTION_COLOR, boundary_overlay
from lesion.patient import unrecognised
from lesion.report import write_report
from lesion.report_case import PICTURE_SIDE, case_name, color_swatch, data_url, facts_html
from lesion.results import ATTRIBUTE_OVERLAY, OVERLAY
from mrcnn.images import ImageError, fitted_size, write_image

SUFFIXES = tuple(suffix for suffix in ANALYSED_SUFFIXES if suffix != ".dcm")
"""Of files that are taken. DICOM files, which say who the patient is, are left to the command."""

MAX_UPLOAD = 64 * 2**20
"""Bytes of the largest file that is taken."""

MAX_MEGAPIXELS = 89
"""The most that can be asked for: above it Pillow suspects a decompression bomb."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Of files that are opened. Pillow hands some others to programs, such as EPS to Ghostscript."""

_RESULT = '<article class="lesion-case lesion-result"'
_PICTURE_SIDE = 1024
_ENDINGS = {"overlay": OVERLAY, "attribute_overlay": ATTRIBUTE_OVERLAY}
# Straight pieces of an outline lie this close to it, in pixels of the picture.
_TOLERANCE = 0.35


def examine(
    analyzer: Analyzer,
    path: str | Path,
    max_megapixels: float,
    patient: Mapping[str, object] | None = None,
) -> str:
    """Analyses a file of whatever kind and says in HTML what was found, or what is wrong with it.

    Args:
        analyzer: with its networks.
        path: of the file, named as its user named it.
        max_megapixels: larger images are refused by their header, at most `MAX_MEGAPIXELS`.
        patient: as for `Analyzer.analyze`.
    """
    path = Path(path)
    if unknown := unrecognised(patient or {}):
        return error_html(f"This says nothing about the patient: {', '.join(unknown)}.")
    try:
        _check(path, max_megapixels)
        analysis = analyzer.analyze(path, patient)
    except ImageError as error:
        return error_html(f"{path.name}: {str(error).removeprefix(f'{path}: ')}")
    except OSError as error:  # whose text would name the folder
        return error_html(f"{path.name}: {error.strerror or 'it cannot be read'}")
    # The folder is no one's business, and soon gone.
    source = analysis.source and dataclasses.replace(analysis.source, path=path.name)
    return result_html(dataclasses.replace(analysis, source=source))


def _check(path: Path, max_megapixels: float) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise ImageError(
            f"files of this type are not taken here, but {', '.join(SUFFIXES)}; "
            "`lesion analyze` takes DICOM files, too."
        )
    size = path.stat().st_size
    if size > MAX_UPLOAD:
        raise ImageError(
            f"the file has {size / 2**20:.0f} MB; up to {MAX_UPLOAD // 2**20} MB are taken."
        )
    try:
        # These formats are opened by their header alone.
        with Image.open(path, formats=FORMATS) as image:
            megapixels = image.width * image.height / 1e6
    except Image.UnidentifiedImageError:
        raise ImageError(
            f"the file's content is none of {', '.join(FORMATS)}, whatever its name says, or it is "
            "damaged."
        ) from None
    except Image.DecompressionBombError:
        megapixels = math.inf
    except (ValueError, SyntaxError) as error:  # of a chunk that is cut short, or far too large
        raise ImageError(f"the image cannot be read: {error}.") from None
    if megapixels > max_megapixels:
        size = f"has {megapixels:,.1f}" if megapixels < math.inf else "has far too many"
        raise ImageError(
            f"the image {size} megapixels; up to {max_megapixels:g} are taken. Reduce it, or give "
            "--max-megapixels when starting the page."
        )


def error_html(message: str) -> str:
    """A line about a file that cannot be analysed."""
    return f'<p class="lesion-error" role="alert">{escape(message)}</p>'


def is_result(html: str) -> bool:
    """Whether `examine` gave a result and no error."""
    return html.startswith(_RESULT)


def result_html(analysis: Analysis) -> str:
    """All that was found in a file's image; `CASE_STYLE` and `PAGE_STYLE` give it its looks."""
    record = analysis.to_dict()
    name = escape(case_name(record))
    height, width = analysis.image.shape[:2]
    report = base64.b64encode(report_html(analysis).encode("utf-8", "replace")).decode("ascii")
    stem = escape(image_stem(case_name(record)))
    return f"""{_RESULT} aria-label="Result. {NOTICE}">
<header><div><h2>{name}</h2>
<p class="about">{width:,} × {height:,} pixels</p></div>
<a class="download" download="{stem}_report.html"
 href="data:text/html;base64,{report}">Download report</a></header>
<div class="parts">
<div class="pictures">{_picture(analysis, record, name)}</div>
<div class="facts">{"".join(facts_html(record))}</div>
</div>
</article>"""


def report_html(analysis: Analysis) -> str:
    """The report of `lesion analyze` for this image; its pictures are in it."""
    record = analysis.to_dict()
    stem = image_stem(case_name(record))
    with tempfile.TemporaryDirectory(prefix="lesion_app_") as folder:
        record["outputs"] = {}
        for name, picture in _drawn(analysis).items():
            record["outputs"][name] = stem + _ENDINGS[name]
            write_image(Path(folder, record["outputs"][name]), picture)
        (page,) = write_report(Path(folder, "report.html"), [record], [], folder)
        return page.read_text(encoding="utf-8")


def _drawn(analysis: Analysis) -> dict[str, np.ndarray]:
    """The report's pictures by their names in the record, drawn at the size it shows them in.

    On the image itself a line is as much wider, which takes half a minute on 12 megapixels.
    """
    size = _size(analysis.image, PICTURE_SIDE)
    image = np.asarray(Image.fromarray(analysis.image).resize(size, Image.Resampling.LANCZOS))
    masks = {layer.name: _shares(layer.mask, size) > 127 for layer in _layers(analysis)}
    boundary = masks.pop("boundary", None)
    pictures = {"overlay": image if boundary is None else boundary_overlay(image, boundary)}
    if analysis.attributes is not None:
        pictures["attribute_overlay"] = attribute_overlay(image, masks, boundary)
    return pictures


class _Layer(NamedTuple):
    """An outline: its name in HTML and what it is of."""

    name: str
    label: str
    color: tuple[int, int, int]
    mask: np.ndarray
    dashed: bool = False


def _layers(analysis: Analysis) -> Iterator[_Layer]:
    if analysis.mask is not None:
        yield _Layer("boundary", "boundary", PREDICTION_COLOR, analysis.mask)
    if analysis.attributes is not None:
        for name, mask in analysis.attributes.masks.items():
            label, color = ATTRIBUTE_LABELS[name], ATTRIBUTE_COLORS[name]
            yield _Layer(name, label, color, mask, name in DASHED)


def _picture(analysis: Analysis, record: dict, name: str) -> str:
    """The image below its outlines, and a box to tick for each; `name` is escaped."""
    size = _size(analysis.image, _PICTURE_SIDE)
    shapes, boxes = [], []
    for layer in _layers(analysis):
        found = bool(layer.mask.any())
        state = "checked" if found else "disabled"
        note = "" if found else " – none"
        boxes.append(
            f'<label><input type="checkbox" name="{layer.name}" {state}>'
            f"{color_swatch(layer.color)}<span>{layer.label}{note}</span></label>"
        )
        if found:
            dashed = ' class="dashed"' if layer.dashed else ""
            path = f'd="{_outline(layer.mask, size)}"'
            shapes.append(
                f'<g data-layer="{layer.name}"{dashed} style="color:rgb{layer.color}">'
                f'<path class="edge" {path}/><path class="line" {path}/></g>'
            )
    boundary = record["boundary"]
    caption = ""
    if boundary is not None:
        found = boundary["found"]
        caption = f"Boundary, score {boundary['score']:.2f}" if found else "No lesion was found"
        caption = f"<figcaption>{caption}</figcaption>"
    switches = f"<fieldset><legend>Show</legend>{''.join(boxes)}</fieldset>" if boxes else ""
    return (
        f'<figure><div class="stack"><img src="{data_url(analysis.image, _PICTURE_SIDE)}" '
        f'alt="{name}"><svg viewBox="0 0 {size[0]} {size[1]}" preserveAspectRatio="none" '
        f'aria-hidden="true">{"".join(shapes)}</svg></div>{caption}</figure>{switches}'
    )


def _outline(mask: np.ndarray, size: tuple[int, int]) -> str:
    """A mask's boundary as an SVG path, in a picture of this (width, height)."""
    # The frame makes the image's edge a boundary, too; it moves all by 1, and the middle of the
    # first pixel lies at 0.5.
    contours = find_contours(np.pad(_shares(mask, size), 1), 127.5)
    pieces = []
    for contour in contours:
        points = approximate_polygon(contour, _TOLERANCE) - 0.5
        pieces.append("M" + "L".join(f"{x:.1f} {y:.1f}" for y, x in points) + "Z")
    return "".join(pieces)


def _size(image: np.ndarray, side: int) -> tuple[int, int]:
    """(width, height) of an image after it was reduced, if it is larger, to this longer side."""
    height, width = image.shape[:2]
    return fitted_size(width, height, min(side, max(height, width)))


def _shares(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask reduced to (width, height): how much of each pixel it covers, uint8, 255 for all.

    A mask too small to cover half of any is shown as if it covered the one it covers most.
    """
    shares = np.asarray(
        Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    )
    peak = int(shares.max(initial=0))
    return shares if peak in (0, 255) or peak > 127 else np.where(shares == peak, 255, shares)
