"""Shapes drawn with annotation tools: as VIA and labelme store them, and their pixels.

A shape is a pair of its kind and its numbers, in pixels, x to the right and y down:

    "polygon"  float [points, (x, y)]; corners lie on pixel centres, as in both tools' converters
    "box"      (x, y, width, height), half-open
    "ellipse"  (centre x, centre y, radius x, radius y, angle): clockwise in radians
    "mask"     (left, top, pixels): bool [height, width]
"""

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image
from skimage import draw

# What labelme and VIA draw that is no instance.
LABELME_LINES = ("point", "points", "line", "linestrip")
VIA_LINES = ("point", "polyline")
# No image is so large, and drawing counts pixels in whole numbers.
_FARTHEST = 1e8


def via_kind(region: Any) -> Any:
    """What a region of VIA is drawn as: "polygon", "rect", "point" and so on."""
    return _via_attributes(region).get("name")


def _via_attributes(region):
    attributes = region.get("shape_attributes") if isinstance(region, dict) else None
    return attributes if isinstance(attributes, dict) else {}


def via_shape(where: str, region: Any) -> tuple:
    """The shape of a region of VIA 1.x or 2.x.

    Raises:
        ValueError: for another kind or unusable numbers; begins with `where`.
    """
    attributes = _via_attributes(region)
    kind = attributes.get("name")
    if kind == "polygon":
        xs, ys = attributes.get("all_points_x"), attributes.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise ValueError(f"{where} has x and y coordinates that are no lists of one length.")
        return "polygon", _points(where, list(zip(xs, ys, strict=True)))
    if kind == "rect":
        return "box", _numbers(where, attributes, ("x", "y", "width", "height"))
    if kind == "circle":
        x, y, radius = _numbers(where, attributes, ("cx", "cy", "r"))
        return "ellipse", (x, y, radius, radius, 0.0)
    if kind == "ellipse":
        attributes = {"theta": 0, **attributes}
        return "ellipse", _numbers(where, attributes, ("cx", "cy", "rx", "ry", "theta"))
    raise ValueError(
        f"{where} is of shape {kind!r}; an instance must be a polygon, rect, circle or ellipse."
    )


def via_class(where: str, region: dict, attribute: str) -> str:
    """The class that a region's attribute names: text, a choice, or the one box that is checked.

    Raises:
        ValueError: if it names none or several; begins with `where`.
    """
    attributes = region.get("region_attributes") or {}
    value = attributes.get(attribute) if isinstance(attributes, dict) else None
    if isinstance(value, dict):
        checked = [name for name, is_checked in value.items() if is_checked]
        value = checked[0] if len(checked) == 1 else checked
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{where} has no single class in its attribute {attribute!r}: {value!r}. Its "
            f"attributes are {attributes!r}."
        )
    return value.strip()


def labelme_shape(where: str, entry: Any) -> tuple:
    """Label, group id (or None) and shape of an entry of labelme's `shapes`.

    Raises:
        ValueError: for another kind or unusable numbers; begins with `where`.
    """
    entry = entry if isinstance(entry, dict) else {}
    label, kind = entry.get("label"), entry.get("shape_type") or "polygon"
    if not isinstance(label, str) or not label:
        raise ValueError(f"{where} has no label.")
    if kind not in ("polygon", "rectangle", "circle", "mask"):
        raise ValueError(
            f"{where} ({label}) is of shape {kind!r}; an instance must be a polygon, rectangle, "
            "circle or mask."
        )
    points = _points(f"{where} ({label})", entry.get("points"), 0 if kind == "polygon" else 2)
    shape: tuple = (kind, points)
    if kind == "rectangle":
        shape = ("box", (*points.min(axis=0), *np.ptp(points, axis=0)))
    elif kind == "circle":  # its centre and a point on it
        radius = math.dist(points[0], points[1])
        shape = ("ellipse", (*points[0], radius, radius, 0.0))
    elif kind == "mask":  # its first point is the pixel at its upper left
        left, top = (_nearest(value) for value in points[0])
        shape = ("mask", (left, top, _encoded_mask(f"{where} ({label})", entry.get("mask"))))
    return label, entry.get("group_id"), shape


def has_area(kind: str, values: np.ndarray | tuple) -> bool:
    """Whether a shape is more than a point or a line."""
    if kind == "polygon":
        return len(values) > 2 and bool(np.ptp(values, axis=0).all())
    if kind == "mask":
        return bool(values[2].any())
    return values[2] > 0 and values[3] > 0


def _nearest(value):
    """The nearest whole number; halves go up, so that a box keeps its length wherever it lies."""
    return math.floor(value + 0.5)


def draw_shape(mask: np.ndarray, kind: str, values: np.ndarray | tuple) -> None:
    """Sets the pixels of a mask bool [height, width] that lie inside a shape."""
    place: tuple  # its rows and columns
    if kind == "box":
        x, y, width, height = values
        place = tuple(
            slice(max(0, _nearest(start)), max(0, _nearest(start + length)))
            for start, length in ((y, height), (x, width))
        )
    elif kind == "polygon":
        x, y = np.transpose(values)
        place = draw.polygon(y, x, mask.shape)
    elif kind == "mask":
        left, top, pixels = values
        rows, columns = np.nonzero(pixels)
        rows, columns = rows + top, columns + left
        inside = (rows >= 0) & (columns >= 0) & (rows < mask.shape[0]) & (columns < mask.shape[1])
        place = rows[inside], columns[inside]
    else:
        x, y, radius_x, radius_y, angle = values
        # scikit-image turns against the clock.
        place = draw.ellipse(y, x, radius_y, radius_x, mask.shape, rotation=-angle)
    mask[place] = True


def _encoded_mask(where, text) -> np.ndarray:
    """The pixels of a PNG in base64, as labelme stores a mask."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
            pixels = np.asarray(image.convert("L"))
    except (TypeError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where} has a mask that is no PNG in base64: {error}.") from error
    return pixels > 0


def _points(where, values, minimum=0) -> np.ndarray:
    try:
        points = np.zeros((0, 2)) if values == [] else np.array(values, np.float64)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2 or not (np.abs(points) <= _FARTHEST).all():
        raise ValueError(f"{where} has unusable points: {values!r}; expected pairs of numbers.")
    if len(points) < minimum:
        raise ValueError(f"{where} has {len(points)} points; it needs at least {minimum}.")
    return points


def _numbers(where, attributes, keys) -> tuple:
    try:
        values = tuple(float(attributes[key]) for key in keys)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where} needs the numbers {', '.join(keys)}; received {attributes!r}."
        ) from error
    if not all(abs(value) <= _FARTHEST for value in values):
        raise ValueError(f"{where} has numbers that are no places in an image: {attributes!r}.")
    return values
