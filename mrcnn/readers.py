"""Data sets as annotation tools and other people leave them, ready to train on.

| class | reads |
|---|---|
| `CocoDataset` | COCO's JSON: polygons and run lengths |
| `ViaDataset` | the JSON of the VGG Image Annotator, 1.x and 2.x |
| `LabelmeDataset` | a folder of labelme's JSON files, one per image |
| `MaskFolderDataset` | a folder per image with one binary mask file per instance |
"""

import abc
import logging
import os
from collections import Counter
from pathlib import Path

import numpy as np

from mrcnn.coco import CocoDataset, read_json
from mrcnn.dataset import Dataset
from mrcnn.images import image_size, read_mask
from mrcnn.shapes import (
    LABELME_LINES,
    draw_shape,
    has_area,
    labelme_shape,
    via_class,
    via_shape,
)

__all__ = ["CocoDataset", "LabelmeDataset", "MaskFolderDataset", "ViaDataset"]

logger = logging.getLogger(__name__)

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
_ONLY_CLASS = "object"


class _NamedInstances(Dataset, abc.ABC):
    """Images whose instances have the name of a class; what an instance is, a subclass knows."""

    @abc.abstractmethod
    def instance_mask(self, info, content):
        """The mask bool [height, width] of one instance of the image with this `image_info`."""

    def load_mask(self, image_id):
        """Masks bool [height, width, instances] and int32 class ids."""
        info = self.image_info[image_id]
        instances = info["instances"]  # of its own: other threads shorten the list, too
        masks = [self.instance_mask(info, content) for _, content in instances]
        seen = [place for place, mask in enumerate(masks) if mask.any()]
        if len(seen) < len(masks):
            logger.warning(
                "%s: %d instances have no pixel and are left out.",
                info["path"],
                len(masks) - len(seen),
            )
            masks = [masks[place] for place in seen]
            instances = info["instances"] = [instances[place] for place in seen]
        if not masks:
            return np.zeros((info["height"], info["width"], 0), bool), np.zeros(0, np.int32)
        numbers = {self.class_info[i]["name"]: i for i in self.source_class_ids[info["source"]]}
        class_ids = [numbers[label] for label, _ in instances]
        return np.stack(masks, axis=2), np.array(class_ids, np.int32)

    def _add_all(self, source, classes, records):
        """Adds images with their classes and prepares the data set.

        Args:
            source: their name.
            classes: names in the order of their ids, or None for all there are, sorted.
            records: for each image `path`, `height`, `width`, `instances` [(name, content)], and
                `file` to name in messages.
        """
        if isinstance(classes, str):
            raise ValueError(f"classes is a list of names; received the text {classes!r}.")
        labels = {label: r for r in reversed(records) for label, _ in r["instances"]}
        names = sorted(labels) if classes is None else list(classes)
        for label in sorted(labels):
            if label not in names:
                raise ValueError(
                    f"{labels[label]['file']} has an instance of class {label!r}, but the "
                    f"classes given are {', '.join(names)}."
                )
        known = [info["name"] for info in self.class_info if info["source"] == source]
        for number, name in enumerate([*known, *(n for n in names if n not in known)], start=1):
            self.add_class(source, number, name)
        for record in records:
            self.add_image(source, Path(record["path"]).name, **record)
        self.prepare()


class _DrawnInstances(_NamedInstances):
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
        classes=None,
        keep_empty: bool = False,
        source: str = "via",
    ) -> None:
        """Adds the images of one project or export and prepares the data set.

        Polygons, rectangles, circles and ellipses are instances. Those without area are left out
        with a warning.

        Args:
            annotations: a project saved by VIA 2, or annotations exported as JSON.
            images: folder of the images; by default that of the annotations.
            class_attribute: name of the region attribute that holds the class; None where all
                regions are of one class.
            classes: names in the order of their class ids; by default those found, sorted. Give
                them where training and validation might not show the same ones.
            keep_empty: keep images without regions as images that show nothing; by default they
                are taken for images not annotated yet, and left out.
            source: name of the source.

        Raises:
            FileNotFoundError: if the file or an image is missing.
            ValueError: if the file is cut short or a region cannot be used; names the region.
        """
        content = read_json(annotations)
        content = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
        if not isinstance(content, dict):
            raise ValueError(f"{annotations} is no project or JSON export of VIA 1.x or 2.x.")
        folder = Path(annotations).parent if images is None else Path(images)
        only = classes[0] if classes and len(classes) == 1 else _ONLY_CLASS
        records, empty, flat = [], 0, []
        for key, entry in content.items():
            if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
                raise ValueError(
                    f"{annotations}: entry {key!r} names no image. Expected a project or JSON "
                    "export of VIA 1.x or 2.x."
                )
            regions = entry.get("regions") or []
            if not isinstance(regions, dict | list):
                raise ValueError(f"{annotations}: the regions of entry {key!r} are {regions!r}.")
            # A list since 2.0, before that a dictionary whose keys are numbers.
            items = regions.items() if isinstance(regions, dict) else enumerate(regions)
            if not regions and not keep_empty:
                empty += 1
                continue
            instances = []
            for number, region in items:
                where = f"{annotations}: region {number} of {entry['filename']}"
                shape = via_shape(where, region)
                label = only
                if class_attribute is not None:
                    label = via_class(where, region, class_attribute)
                if has_area(*shape):
                    instances.append((label, [shape]))
                else:
                    flat.append(where)
            records.append(_record(annotations, folder / entry["filename"], instances))
        if empty:
            logger.info("%s: %d images without regions are left out.", annotations, empty)
        _warn_of(flat)
        self._add_all(source, classes, records)


class LabelmeDataset(_DrawnInstances):
    """Images annotated with labelme."""

    def load_annotations(
        self, folder: str | os.PathLike, classes=None, source: str = "labelme"
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
            instances = {}
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
            record = _record(file, path, [(key[0], parts) for key, parts in instances.items()])
            size = [content.get("imageHeight"), content.get("imageWidth")]
            if None not in size and size != [record["height"], record["width"]]:
                raise ValueError(
                    f"{file} was drawn on an image of {size[0]}x{size[1]}, but {path} is "
                    f"{record['height']}x{record['width']}."
                )
            records.append(record)
        _warn_of(flat)
        self._add_all(source, classes, records)


class MaskFolderDataset(_NamedInstances):
    """Images with a folder of binary mask files each, one file per instance.

    White is inside. In a folder of masks, sub-folders name classes; without them all instances are
    of one class, "object" unless `classes` names it. Hidden files and folders do not count.
    """

    def load_folders(
        self,
        images: str | os.PathLike,
        masks: str | os.PathLike,
        classes=None,
        source: str = "masks",
    ) -> None:
        """Adds IMAGES/a.jpg with the masks MASKS/a/*.png or MASKS/a/<class>/*.png, and so on.

        Args:
            images: folder of images.
            masks: folder that holds a folder for each image, an empty one where it shows nothing.
            classes: as in `ViaDataset.load_annotations`.
            source: name of the source.

        Raises:
            FileNotFoundError: if there is no image, or no folder of masks for one.
            ValueError: if an image cannot be read or the folders are ambiguous.
        """
        paths = _image_files(images)
        twice = [name for name, count in Counter(path.stem for path in paths).items() if count > 1]
        if twice:
            raise ValueError(
                f"{images} has several images named {twice[0]} for one folder of masks."
            )
        self._add_pairs([(path, Path(masks) / path.stem) for path in paths], classes, source)

    def load_nucleus(self, root: str | os.PathLike, classes=None, source: str = "nucleus") -> None:
        """Adds ROOT/<id>/images/*.png with ROOT/<id>/masks/*.png, for every id.

        That is the layout of the Data Science Bowl 2018. Arguments and errors are those of
        `load_folders`.
        """
        pairs = []
        for folder in sorted(path.parent for path in Path(root).glob("*/images")):
            paths = _image_files(folder / "images")
            if len(paths) > 1:
                raise ValueError(f"{folder / 'images'} holds {len(paths)} images; expected one.")
            pairs.append((paths[0], folder / "masks"))
        if not pairs:
            raise FileNotFoundError(f"There is no <id>/images in {root}.")
        self._add_pairs(pairs, classes, source)

    def _add_pairs(self, pairs, classes, source):
        only = classes[0] if classes and len(classes) == 1 else _ONLY_CLASS
        records = []
        for path, folder in pairs:
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"{path} has no folder of masks {folder}. Make an empty one if the image "
                    "shows no instance."
                )
            files = _mask_files(folder)
            inner = sorted(
                entry
                for entry in folder.iterdir()
                if entry.is_dir() and not entry.name.startswith(".")
            )
            if files and inner:
                raise ValueError(
                    f"{folder} holds masks beside folders of masks ({inner[0].name}); move all "
                    "masks into folders named after their classes, or none."
                )
            instances = [(only, file) for file in files]
            for folder_of_class in inner:
                masks = _mask_files(folder_of_class)
                instances += [(folder_of_class.name, file) for file in masks]
            records.append(_record(path, path, instances))
        self._add_all(source, classes, records)

    def instance_mask(self, info, content):
        mask = read_mask(content)
        if mask.shape != (info["height"], info["width"]):
            raise ValueError(
                f"{content} is {mask.shape[0]}x{mask.shape[1]}, but its image {info['path']} is "
                f"{info['height']}x{info['width']}."
            )
        return mask


def _record(file, path, instances):
    """What `_NamedInstances._add_all` takes of an image that `file` says is at `path`."""
    if not os.path.isfile(path):  # also of a name that no file can have
        raise FileNotFoundError(f"{file} names the image {path}, which does not exist.")
    height, width = image_size(path)
    return {
        "path": path,
        "height": height,
        "width": width,
        "instances": instances,
        "file": file,
    }


def _mask_files(folder):
    """Image files of a folder that may be empty."""
    masks = _image_files(folder, empty=True)
    others = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    if others and not masks:
        logger.warning(
            "%s holds no mask but %s: its image is taken to show nothing. Masks are files %s.",
            folder,
            others[0].name,
            ", ".join(sorted(_SUFFIXES)),
        )
    return masks


def _warn_of(flat):
    if flat:
        logger.warning(
            "%d instances have no area and are left out, the first of them is %s.",
            len(flat),
            flat[0],
        )


def _image_files(folder, empty=False):
    """Image files of a folder by name; hidden ones are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    )
    if not paths and not empty:
        raise FileNotFoundError(f"There is no image in {folder}.")
    return paths
