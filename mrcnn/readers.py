"""Data sets as annotation tools and other people leave them, ready to train on.

| class | reads |
|---|---|
| `CocoDataset` | COCO's JSON: polygons and run lengths |
| `ViaDataset` | the JSON of the VGG Image Annotator, 1.x and 2.x |
| `LabelmeDataset` | a folder of labelme's JSON files, one per image |
| `MaskFolderDataset` | for each image a folder of binary masks, one mask, or a label image |
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mrcnn.coco import CocoDataset, read_json
from mrcnn.mask_folders import MaskFolderDataset
from mrcnn.named_instances import NamedInstances, only_class, record_of, warn_left_out
from mrcnn.shapes import (
    LABELME_LINES,
    VIA_LINES,
    draw_shape,
    has_area,
    labelme_shape,
    via_class,
    via_kind,
    via_shape,
)

__all__ = ["CocoDataset", "LabelmeDataset", "MaskFolderDataset", "ViaDataset"]

logger = logging.getLogger(__name__)


class _DrawnInstances(NamedInstances):
    """Instances drawn as shapes; one may have several, which are united."""

    def instance_mask(self, info, content):
        mask = np.zeros((info["height"], info["width"]), bool)
        for kind, values in content:
            draw_shape(mask, kind, values)
        return mask


class ViaDataset(_DrawnInstances):
    """Images annotated with the VGG Image Annotator (VIA) 1.x or 2.x."""

    def load_annotations(
        self,
        annotations: str | os.PathLike,
        images: str | os.PathLike | None = None,
        class_attribute: str | None = None,
        classes: Sequence[str] | None = None,
        keep_empty: bool = False,
        source: str = "via",
    ) -> None:
        """Adds the images of one project or export and prepares the data set.

        Polygons, rectangles, circles and ellipses are instances. Those without area, points and
        polylines are left out with a warning.

        Args:
            annotations: a project saved by VIA 2, or annotations exported as JSON.
            images: folder of the images; by default that of the annotations.
            class_attribute: name of the region attribute that holds the class; None where all
                regions are of one class, which is then "object" or the one of `classes`.
            classes: names in the order of their class ids; by default those found, sorted. Give
                them where training and validation might not show the same ones.
            keep_empty: keep images without regions as images that show nothing; by default they
                are taken for images not annotated yet, and left out.
            source: name of the source.

        Raises:
            FileNotFoundError: if the file or an image is missing.
            ValueError: if the file is cut short, a region cannot be used, which is named, or no
                image has any.
        """
        content = read_json(annotations)
        content = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
        if not isinstance(content, dict):
            raise ValueError(f"{annotations} is no project or JSON export of VIA 1.x or 2.x.")
        folder = Path(annotations).parent if images is None else Path(images)
        only = only_class(classes)
        # Of several classes, which nothing of a region tells apart without `class_attribute`.
        named = [] if classes is None or isinstance(classes, str) else classes
        undecided = bool(named) and only not in named
        records, empty, flat = [], 0, []
        for key, entry in content.items():
            instances = []
            for where, region in _via_regions(annotations, key, entry):
                if via_kind(region) in VIA_LINES:
                    flat.append(where)
                    continue
                shape = via_shape(where, region)
                label = only
                if class_attribute is not None:
                    label = via_class(where, region, class_attribute)
                elif undecided:
                    raise ValueError(
                        f"{where} may be of any of the classes {', '.join(named)}: give "
                        "class_attribute, the name of the region attribute that says which. This "
                        f"region's attributes are {region.get('region_attributes')!r}."
                    )
                if has_area(*shape):
                    instances.append((label, [shape]))
                else:
                    flat.append(where)
            if not instances and not keep_empty:
                empty += 1
                continue
            records.append(record_of(annotations, folder / entry["filename"], instances))
        if empty and not records:
            raise ValueError(
                f"None of the {empty} images of {annotations} has a region with an area. Draw some "
                "in VIA and export them anew, or keep such images with keep_empty=True."
            )
        if empty:
            logger.info(
                "%s: %d images without regions that have an area are left out.", annotations, empty
            )
        warn_left_out("instances have no area", flat)
        self.add_all(source, classes, records)


def _via_regions(annotations, key, entry):
    """The regions of an entry of VIA's, each with what an error message calls it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
        raise ValueError(
            f"{annotations}: entry {key!r} names no image. Expected a project or JSON export of "
            "VIA 1.x or 2.x."
        )
    regions = entry.get("regions") or []
    if not isinstance(regions, dict | list):
        raise ValueError(f"{annotations}: the regions of entry {key!r} are {regions!r}.")
    # A list since 2.0, before that a dictionary whose keys are numbers.
    numbered = regions.items() if isinstance(regions, dict) else enumerate(regions)
    image = entry["filename"]
    return [(f"{annotations}: region {number} of {image}", region) for number, region in numbered]


class LabelmeDataset(_DrawnInstances):
    """Images annotated with labelme."""

    def load_annotations(
        self,
        folder: str | os.PathLike,
        classes: Sequence[str] | None = None,
        source: str = "labelme",
    ) -> None:
        """Adds the images of a folder of labelme files and prepares the data set.

        Polygons, rectangles, circles and masks are instances; those that share label and group id
        are parts of one. Those without area, lines and points are left out with a warning. Images
        that have no JSON file are not seen.

        Args:
            folder: of JSON files; each names its image relative to itself.
            classes: as in `ViaDataset.load_annotations`.
            source: name of the source.

        Raises:
            FileNotFoundError: if there is no JSON file, or an image is missing.
            ValueError: if a file is cut short or a shape cannot be used; names file and shape.
        """
        files = sorted(Path(folder).glob("*.json"))
        if not files:
            raise FileNotFoundError(f"There is no labelme file (*.json) in {folder}.")
        records, flat = [], []
        for file in files:
            content = read_json(file)
            shapes = content.get("shapes") if isinstance(content, dict) else None
            name = content.get("imagePath") if isinstance(content, dict) else None
            if not isinstance(shapes, list) or not isinstance(name, str):
                raise ValueError(f"{file} is no labelme file: it lacks 'shapes' or 'imagePath'.")
            instances: dict[tuple[str, str | int], list[tuple]] = {}
            for number, entry in enumerate(shapes):
                where = f"{file}: shape {number}"
                if isinstance(entry, dict) and entry.get("shape_type") in LABELME_LINES:
                    flat.append(where)
                    continue
                label, group, shape = labelme_shape(where, entry)
                if has_area(*shape):
                    key = (label, number if group is None else f"group {group}")
                    instances.setdefault(key, []).append(shape)
                else:
                    flat.append(where)
            # Files written on Windows have its separators.
            path = file.parent / name.replace("\\", "/")
            record = record_of(file, path, [(key[0], parts) for key, parts in instances.items()])
            size = [content.get("imageHeight"), content.get("imageWidth")]
            if None not in size and size != [record["height"], record["width"]]:
                raise ValueError(
                    f"{file} was drawn on an image of {size[0]}x{size[1]}, but {path} is "
                    f"{record['height']}x{record['width']}."
                )
            records.append(record)
        warn_left_out("instances have no area", flat)
        self.add_all(source, classes, records)
