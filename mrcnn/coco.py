"""Data sets in COCO's annotation format (https://cocodataset.org/#format-data).

Polygons and run lengths (RLE) become masks by faster-coco-eval's mask functions, pixel for pixel
as by COCO's own.
"""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import mrcnn.images
from mrcnn.dataset import Dataset
from mrcnn.named_instances import warn_left_out

CLASS_NAMES = tuple(
    " ".join(
        """
        BG, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire
        hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear,
        zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports
        ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine
        glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot
        dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
        mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book,
        clock, vase, scissors, teddy bear, hair drier, toothbrush
        """.split()
    ).split(", ")
)
"""Of the 80 categories, the background first, as matterport's weights have them."""

# The rasteriser walks along every edge: a coordinate far outside would fill the memory.
_FARTHEST = 100_000
# JSON knows no largest number; one beyond float's range would fail wherever it is used.
_MOST_DIGITS = 300


class CocoDataset(Dataset):
    """Images and instances of one or several COCO annotation files.

    Example:
        ```python
        dataset = CocoDataset()
        dataset.load_annotations("annotations/instances_val2017.json", "val2017")
        masks, class_ids = dataset.load_mask(0)
        ```
    """

    def load_annotations(
        self,
        annotations: str | os.PathLike,
        images: str | os.PathLike,
        class_ids: Iterable[int] | None = None,
        source: str = "coco",
    ) -> None:
        """Adds the images of one annotation file and prepares the data set.

        Annotations without area or segmentation, and polygons of fewer than three points, are left
        out with a warning. Images without annotations stay, unless `class_ids` are given: then
        images that show none of these are left out.

        Args:
            annotations: the JSON file.
            images: folder that the file names in it start from.
            class_ids: ids of the categories to take, in the order of the classes here. By default
                all categories, and all images.
            source: name of the source; files of other categories need another one.

        Raises:
            FileNotFoundError: if the file or an image is missing.
            ValueError: if the file is cut short, an entry cannot be used, which is named, or no
                annotation has a segmentation.
            ImportError: if faster-coco-eval is not installed.
        """
        coco_masks()  # its absence is to show before minutes have passed
        content = read_json(annotations)
        names = _categories(annotations, content)
        if class_ids is not None:
            class_ids = np.asarray(list(class_ids)).tolist()  # an array, an iterator
        unknown = [class_id for class_id in class_ids or () if class_id not in names]
        if unknown:
            raise ValueError(
                f"{annotations} has no category {unknown[0]!r}; its categories are "
                f"{', '.join(f'{i} ({name})' for i, name in sorted(names.items()))}."
            )
        records = _images(annotations, content, Path(images))
        _add_annotations(annotations, content, records, names, class_ids)
        taken = {i: r for i, r in records.items() if class_ids is None or r["annotations"]}
        for image_id, record in taken.items():
            if not os.path.isfile(record["path"]):  # also of a name that no file can have
                raise FileNotFoundError(
                    f"{annotations}: image {image_id} is missing: there is no {record['path']}."
                )
        for class_id in sorted(names) if class_ids is None else class_ids:
            self._add_category(annotations, source, class_id, names[class_id])
        for image_id, record in taken.items():
            self.add_image(source, image_id, **record)
        self.prepare()

    def _add_category(self, file, source, class_id, name):
        for info in self.class_info:
            if (info["source"], info["id"]) == (source, class_id) and info["name"] != name:
                raise ValueError(
                    f"{file} calls category {class_id} {name!r}, which an earlier file of source "
                    f"{source!r} called {info['name']!r}; give it a source of its own."
                )
        self.add_class(source, class_id, name)

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Masks bool [height, width, instances] and int32 class ids, negative ones for crowds."""
        masks = coco_masks()
        info = self.image_info[image_id]
        planes, class_ids = [], []
        for annotation in self.coco_annotations(image_id):
            try:
                plane = masks.decode(annotation["segmentation"]).astype(bool)
            except (ValueError, RuntimeError) as error:
                raise ValueError(
                    f"{info['path']}: annotation {annotation['id']} holds a damaged run-length "
                    f"code ({error})."
                ) from error
            if plane.any():
                planes.append(plane)
                sign = -1 if annotation["iscrowd"] else 1
                class_ids.append(sign * annotation["category_id"])
        if not planes:
            return np.zeros((info["height"], info["width"], 0), bool), np.zeros(0, np.int32)
        return np.stack(planes, axis=2), np.array(class_ids, np.int32)

    def coco_annotations(self, image_id: int) -> list[dict]:
        """The image's annotations in COCO's format, by which COCO's own measure is computed.

        `category_id` is the class id here, `segmentation` a compressed RLE, `bbox` and `area` are
        the file's own where it has them.
        """
        masks = coco_masks()
        info = self.image_info[image_id]
        result = []
        for annotation in info["annotations"]:
            code = annotation["segmentation"]
            if isinstance(code, list):
                polygons = [polygon.tolist() for polygon in code]
                code = masks.merge(masks.frPyObjects(polygons, info["height"], info["width"]))
            category = self.map_source_class_id(f"{info['source']}.{annotation['category_id']}")
            bbox, area = annotation["bbox"], annotation["area"]
            result.append(
                {
                    **annotation,
                    "category_id": int(category),
                    "segmentation": code,
                    "bbox": masks.toBbox(code).tolist() if bbox is None else bbox,
                    "area": float(masks.area(code) if area is None else area),
                }
            )
        return result


def coco_masks() -> ModuleType:
    """The mask functions of faster-coco-eval; ImportError saying what to install without it."""
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise ImportError(
            "COCO's masks and average precision need faster-coco-eval: pip install faster-coco-eval"
        ) from error
    return mask


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no JSON, or cut short.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file, parse_int=_whole_number)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no annotation file {path}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is no valid JSON ({error}); it may have been cut short. Fetch or export it "
            "again."
        ) from error


def _whole_number(text):
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"the number {text[:9]}... has {len(text)} digits")
    return int(text)


def _list(file, content, key):
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError(
            f"{file} is no COCO annotation file, which holds the lists 'images', 'annotations' "
            f"and 'categories': it has no {key!r}."
        )
    return entries


def _name(entry, index):
    return entry.get("id", f"number {index}") if isinstance(entry, dict) else f"number {index}"


def _value(where, entry, key, types):
    value = _whole(entry.get(key) if isinstance(entry, dict) else None)
    if not isinstance(value, types) or isinstance(value, bool):
        raise ValueError(f"{where} lacks {key!r}, or it is unusable: {value!r}.")
    return value


def _whole(value):
    """A whole number as an int, which some programs write as a float; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _categories(file, content):
    names = {}
    for index, entry in enumerate(_list(file, content, "categories")):
        where = f"{file}: category {_name(entry, index)}"
        class_id = _value(where, entry, "id", int)
        if class_id in names:
            raise ValueError(f"{where} is listed twice.")
        names[class_id] = _value(where, entry, "name", str)
    return names


def _images(file, content, folder):
    records = {}
    for index, entry in enumerate(_list(file, content, "images")):
        where = f"{file}: image {_name(entry, index)}"
        image_id = _value(where, entry, "id", (int, str))
        if image_id in records:
            raise ValueError(f"{where} is listed twice.")
        height, width = (_value(where, entry, side, int) for side in ("height", "width"))
        if height < 1 or width < 1:
            raise ValueError(f"{where} has height {height} and width {width}.")
        if height * width > mrcnn.images.MAX_PIXELS:
            raise ValueError(
                f"{where} has height {height} and width {width}, more than the "
                f"{mrcnn.images.MAX_PIXELS:,} pixels allowed; raise mrcnn.images.MAX_PIXELS."
            )
        # Files written on Windows have its separators.
        path = folder / _value(where, entry, "file_name", str).replace("\\", "/")
        records[image_id] = {"path": path, "height": height, "width": width, "annotations": []}
    return records


def _add_annotations(file, content, records, names, class_ids):
    """Puts the annotations of the classes asked for into the `records` of their images."""
    bare, short, flat, count = [], [], [], 0
    for index, entry in enumerate(_list(file, content, "annotations")):
        where = f"{file}: annotation {_name(entry, index)}"
        image_id = _value(where, entry, "image_id", (int, str))
        if image_id not in records:
            raise ValueError(f"{where} belongs to image {image_id!r}, which is not listed.")
        category = _value(where, entry, "category_id", int)
        if category not in names:
            raise ValueError(f"{where} is of category {category}, which is not listed.")
        if class_ids is not None and category not in class_ids:
            continue
        record, count = records[image_id], count + 1
        value = entry.get("segmentation")
        if value is None or value == []:
            bare.append(where)
            continue
        segmentation, dropped = _segmentation(where, value, record["height"], record["width"])
        short += [where] * dropped
        if not segmentation:
            flat += [where] * (not dropped)
            continue
        record["annotations"].append(
            {
                "id": entry.get("id", index),
                "category_id": category,
                "segmentation": segmentation,
                "iscrowd": int(bool(entry.get("iscrowd", 0))),
                "bbox": _bbox(where, entry),
                "area": _area(entry),
            }
        )
    if count and len(bare) == count:
        raise ValueError(
            f"{file}: none of the {count} annotations has a segmentation, only a box perhaps; a "
            "Mask R-CNN learns from masks. Export the annotations with their polygons."
        )
    warn_left_out("annotations have no segmentation", bare)
    warn_left_out("polygons have fewer than three points", short)
    warn_left_out("annotations have no area", flat)


def _segmentation(where, value, height, width):
    """Polygons as float [2 * points] each, or a compressed RLE; None for one without area.

    And the number of polygons of fewer than three points, which are left out.
    """
    if isinstance(value, list):
        polygons = [_polygon(where, polygon) for polygon in value]
        whole = [polygon for polygon in polygons if polygon.size >= 6]
        flat = all(_is_line(polygon) or _is_beside(polygon, height, width) for polygon in whole)
        return None if flat else whole, len(polygons) - len(whole)
    if not isinstance(value, dict):
        raise ValueError(
            f"{where} has a segmentation that is neither polygons nor run lengths: {value!r}."
        )
    size, counts = value.get("size"), value.get("counts")
    if isinstance(counts, list):
        counts = [_whole(count) for count in counts]
    if size != [height, width]:
        raise ValueError(
            f"{where} has a mask of size {size}, but its image is [{height}, {width}]."
        )
    masks = coco_masks()
    if isinstance(counts, list):
        whole = all(isinstance(count, int) and count >= 0 for count in counts)
        if not whole or sum(counts) != height * width:
            raise ValueError(
                f"{where} has run lengths that do not add up to its image's {height * width} "
                "pixels."
            )
    elif not isinstance(counts, str):
        raise ValueError(f"{where} has a segmentation without 'counts': {value!r}.")
    value = {"size": [height, width], "counts": counts}
    try:
        value = value if isinstance(counts, str) else masks.frPyObjects(value, height, width)
        return value if masks.area(value) else None, 0
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{where} holds a damaged run-length code ({error}).") from error


def _is_line(polygon):
    """Whether all points of a polygon lie on one line."""
    x, y = polygon[0::2] - polygon[0], polygon[1::2] - polygon[1]
    distances = np.hypot(x, y)
    last = np.argmax(distances)
    return bool(np.all(np.abs(x * y[last] - y * x[last]) <= 1e-9 * distances[last] ** 2))


def _is_beside(polygon, height, width):
    """Whether a polygon lies outside of its image."""
    x, y = polygon[0::2], polygon[1::2]
    return x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height


def _polygon(where, values):
    if not isinstance(values, list) or len(values) % 2:
        raise ValueError(
            f"{where} has a polygon that is no list of x and y in turn, or an odd number of "
            f"coordinates: {values!r}."
        )
    try:
        polygon = np.array(values, np.float64)
    except (TypeError, ValueError):
        polygon = np.array([math.nan])
    if polygon.ndim != 1 or not (np.abs(polygon) < _FARTHEST).all():
        raise ValueError(f"{where} has a polygon whose coordinates are unusable: {values!r}.")
    return polygon


def _bbox(where, entry):
    box = entry.get("bbox")
    if not box:
        return None
    numbers = isinstance(box, list) and all(isinstance(side, int | float) for side in box)
    if not numbers or len(box) != 4 or not all(map(math.isfinite, box)):
        raise ValueError(f"{where} has an unusable bbox: {box!r}; expected [x, y, width, height].")
    return box


def _area(entry):
    area = entry.get("area")
    return area if isinstance(area, int | float) and 0 < area < math.inf else None
