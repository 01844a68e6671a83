"""The collection of images and instance masks that a user subclasses."""

import os
from typing import Any

import numpy as np

from mrcnn.images import read_image


class Dataset:
    """Images with instance masks, identified by consecutive numbers after `prepare`.

    A subclass adds classes and images (`add_class`, `add_image`) and overrides `load_mask`.
    `load_image` reads `image_info[i]["path"]` unless overridden, too.
    """

    def __init__(self, class_map: Any = None):
        self._image_ids = np.zeros(0, np.int64)
        self.image_info: list[dict[str, Any]] = []
        self.class_info: list[dict[str, Any]] = [{"source": "", "id": 0, "name": "BG"}]
        self.source_class_ids: dict[str, list[int]] = {}
        self.class_map = class_map

    def add_class(self, source: str, class_id: int, class_name: str) -> None:
        """Registers a class once; `source` names the data set and may not contain a dot."""
        if "." in source:
            raise ValueError(f"A source's name may not contain a dot; received {source!r}.")
        if any(c["source"] == source and c["id"] == class_id for c in self.class_info):
            return
        self.class_info.append({"source": source, "id": class_id, "name": class_name})

    def add_image(
        self, source: str, image_id: int | str, path: str | os.PathLike | None, **kwargs
    ) -> None:
        """Registers an image; keyword arguments are kept in `image_info`."""
        self.image_info.append({"id": image_id, "source": source, "path": path, **kwargs})

    def image_reference(self, image_id: int) -> str:
        """A name of the image for people, in messages; the path, or "", unless overridden."""
        return str(self.image_info[image_id]["path"] or "")

    def prepare(self, class_map: Any = None) -> None:
        """Numbers classes and images; call it once after the last `add_image`.

        `class_map` is accepted for compatibility.
        """
        self.num_classes = len(self.class_info)
        self.class_ids = np.arange(self.num_classes)
        self.class_names = [info["name"].split(",")[0] for info in self.class_info]
        self.num_images = len(self.image_info)
        self._image_ids = np.arange(self.num_images)
        self.class_from_source_map = {
            f"{info['source']}.{info['id']}": number for number, info in enumerate(self.class_info)
        }
        self.image_from_source_map = {
            f"{info['source']}.{info['id']}": number
            for info, number in zip(self.image_info, self.image_ids, strict=True)
        }
        self.sources = list({info["source"]: None for info in self.class_info})
        # The background belongs to every source.
        self.source_class_ids = {
            source: [
                number
                for number, info in enumerate(self.class_info)
                if number == 0 or info["source"] == source
            ]
            for source in self.sources
        }

    @property
    def image_ids(self) -> np.ndarray:
        return self._image_ids

    def map_source_class_id(self, source_class_id: str) -> int:
        """The class id here of `"<source>.<id>"` there."""
        return self.class_from_source_map[source_class_id]

    def get_source_class_id(self, class_id: int, source: str) -> int:
        """The class id in `source` of a class id here."""
        info = self.class_info[class_id]
        if info["source"] != source:
            raise ValueError(
                f"Class {class_id} ({info['name']}) belongs to source {info['source']!r}, "
                f"not to {source!r}."
            )
        return info["id"]

    def source_image_link(self, image_id: int) -> str | os.PathLike | None:
        """The path or URL of the image."""
        return self.image_info[image_id]["path"]

    def load_image(self, image_id: int) -> np.ndarray:
        """The image as uint8 RGB [height, width, 3], whatever the file holds."""
        return read_image(self.image_info[image_id]["path"])

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """The image's instances, to be overridden; here there are none.

        Returns:
            bool masks [height, width, instances] and int32 class ids [instances].
        """
        return np.zeros((0, 0, 0), bool), np.zeros(0, np.int32)


def every_nth(ids: np.ndarray, limit: int | None) -> np.ndarray:
    """At most `limit` of the ids, from all over them; None takes all.

    Raises:
        ValueError: for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be at least 1, or None for all; received {limit!r}.")
    return ids if limit is None else ids[:: max(1, -(-len(ids) // limit))]
