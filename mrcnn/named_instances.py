"""What readers of annotations share: images whose instances have the name of a class."""

import abc
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.dataset import Dataset
from mrcnn.images import image_size

logger = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
"""Endings of the names of image files, in lower case."""
ONLY_CLASS = "object"
"""Name of the class where nothing says what the instances are."""


class NamedInstances(Dataset, abc.ABC):
    """Images whose instances have the name of a class; what an instance is, a subclass knows."""

    @abc.abstractmethod
    def instance_mask(self, info: dict[str, Any], content: Any) -> np.ndarray:
        """The mask bool [height, width] of one instance of the image with this `image_info`."""

    def instance_masks(self, info: dict[str, Any], contents: Iterable[Any]) -> list[np.ndarray]:
        """The masks of several instances of one image."""
        return [self.instance_mask(info, content) for content in contents]

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Masks bool [height, width, instances] and int32 class ids."""
        info = self.image_info[image_id]
        instances = info["instances"]  # of its own: other threads shorten the list, too
        masks = self.instance_masks(info, [content for _, content in instances])
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

    def add_all(
        self, source: str, classes: Iterable[str] | None, records: Sequence[dict[str, Any]]
    ) -> None:
        """Adds images with their classes and prepares the data set.

        Args:
            source: their name.
            classes: names in the order of their ids, or None for all there are, sorted.
            records: for each image `path`, `height`, `width`, `instances` [(name, content)], and
                `file` to name in messages.
        """
        if isinstance(classes, str):
            raise ValueError(f"classes is a list of names; received the text {classes!r}.")
        first_record_of = {label: r for r in reversed(records) for label, _ in r["instances"]}
        names = sorted(first_record_of) if classes is None else list(classes)
        for label in sorted(first_record_of):
            if label not in names:
                raise ValueError(
                    f"{first_record_of[label]['file']} has an instance of class {label!r}, but the "
                    f"classes given are {', '.join(names)}."
                )
        known = [info["name"] for info in self.class_info if info["source"] == source]
        for number, name in enumerate([*known, *(n for n in names if n not in known)], start=1):
            self.add_class(source, number, name)
        for record in records:
            self.add_image(source, Path(record["path"]).name, **record)
        self.prepare()


def only_class(classes: Sequence[str] | None) -> str:
    """The class of instances that nothing names: the one of `classes`, where it is one alone."""
    return classes[0] if classes is not None and len(classes) == 1 else ONLY_CLASS


def warn_left_out(what: str, places: Sequence[str]) -> None:
    """Warns of what a reader leaves out, `what` being plural, if there is anything in `places`."""
    if places:
        logger.warning(
            "%d %s and are left out, the first of them is %s.", len(places), what, places[0]
        )


def record_of(
    file: str | os.PathLike, path: str | os.PathLike, instances: list[tuple[str, Any]]
) -> dict[str, Any]:
    """What `NamedInstances.add_all` takes of an image that `file` says is at `path`."""
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


def image_files(folder: str | os.PathLike, empty: bool = False) -> list[Path]:
    """Image files of a folder by name; hidden ones are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not paths and not empty:
        raise FileNotFoundError(f"There is no image in {folder}.")
    return paths
