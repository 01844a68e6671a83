"""Data sets whose instances are files: binary masks, or label images."""

import functools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.images import read_labels, read_mask
from mrcnn.named_instances import SUFFIXES, NamedInstances, image_files, only_class, record_of

logger = logging.getLogger(__name__)


class MaskFolderDataset(NamedInstances):
    """Images with masks in files: one mask, a folder of them, or a label image for each.

    White is inside. In a folder of masks, sub-folders name classes; without them all instances are
    of one class, "object" unless `classes` names it. Hidden files and folders do not count.
    """

    def load_folders(
        self,
        images: str | os.PathLike,
        masks: str | os.PathLike,
        classes: Sequence[str] | None = None,
        source: str = "masks",
        labels: bool = False,
    ) -> None:
        """Adds IMAGES/a.jpg with the masks MASKS/a/*.png or MASKS/a/<class>/*.png, or MASKS/a.png.

        Args:
            images: folder of images.
            masks: folder that holds a folder for each image, an empty one where it shows nothing,
                or a file for each.
            classes: as in `ViaDataset.load_annotations`.
            source: name of the source.
            labels: whether the files MASKS/a.png are label images, with 0 for the background and a
                number for each instance, instead of one instance in white.

        Raises:
            FileNotFoundError: if there is no image, or no masks for one.
            ValueError: if an image cannot be read or the folders are ambiguous.
        """
        paths = image_files(images)
        twice = [name for name, count in Counter(path.stem for path in paths).items() if count > 1]
        if twice:
            raise ValueError(
                f"{images} has several images named {twice[0]} for one folder of masks: rename all "
                "but one, and the masks of these."
            )
        pairs = [(path, Path(masks) / path.stem) for path in paths]
        self._add_pairs(pairs, classes, source, labels, _files_by_stem(Path(masks)))

    def load_nucleus(
        self, root: str | os.PathLike, classes: Sequence[str] | None = None, source: str = "nucleus"
    ) -> None:
        """Adds ROOT/<id>/images/*.png with ROOT/<id>/masks/*.png, for every id.

        That is the layout of the Data Science Bowl 2018. Arguments and errors are those of
        `load_folders`.
        """
        pairs = []
        for folder in sorted(path.parent for path in Path(root).glob("*/images")):
            paths = image_files(folder / "images")
            if len(paths) > 1:
                raise ValueError(f"{folder / 'images'} holds {len(paths)} images; expected one.")
            pairs.append((paths[0], folder / "masks"))
        if not pairs:
            raise FileNotFoundError(f"There is no <id>/images in {root}.")
        self._add_pairs(pairs, classes, source)

    def _add_pairs(self, pairs, classes, source, labels=False, alone=None):
        """`alone` has files of masks for images without a folder of them, by the name of both."""
        only = only_class(classes)
        records = []
        for path, folder in pairs:
            if not folder.is_dir():
                files = [file for file in (alone or {}).get(path.stem, []) if file != path]
                if len(files) != 1:
                    several = f"{len(files) or 'no'} file{'s' * (len(files) > 1)} of that name"
                    raise FileNotFoundError(
                        f"{path} has no folder of masks {folder}, and {several} instead. Make an "
                        "empty folder if the image shows no instance."
                    )
                values = _labels_in(files[0]) if labels else [None]
                instances = [(only, (files[0], value)) for value in values]
                records.append(record_of(path, path, instances))
                continue
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
            instances = [(only, (file, None)) for file in files]
            for folder_of_class in inner:
                masks = _mask_files(folder_of_class)
                instances += [(folder_of_class.name, (file, None)) for file in masks]
            records.append(record_of(path, path, instances))
        self.add_all(source, classes, records)

    def instance_masks(
        self, info: dict[str, Any], contents: Iterable[tuple[Path, int | None]]
    ) -> list[np.ndarray]:
        read = functools.lru_cache(maxsize=1)(read_labels)  # one for all instances of an image
        return [self.instance_mask(info, content, read) for content in contents]

    def instance_mask(
        self,
        info: dict[str, Any],
        content: tuple[Path, int | None],
        read: Callable[[Path], np.ndarray] | None = None,
    ) -> np.ndarray:
        file, value = content
        mask = read_mask(file) if value is None else (read or read_labels)(file) == value
        if mask.shape != (info["height"], info["width"]):
            raise ValueError(
                f"{file} is {mask.shape[0]}x{mask.shape[1]}, but its image {info['path']} is "
                f"{info['height']}x{info['width']}."
            )
        return mask


def _files_by_stem(folder):
    """Image files of a folder that may be missing, by their names without endings."""
    named = {}
    for file in image_files(folder, empty=True) if folder.is_dir() else []:
        named.setdefault(file.stem, []).append(file)
    return named


def _labels_in(file):
    """The numbers of the instances of a label image."""
    return [int(value) for value in np.unique(read_labels(file)) if value]


def _mask_files(folder):
    """Image files of a folder that may be empty."""
    masks = image_files(folder, empty=True)
    others = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    if others and not masks:
        logger.warning(
            "%s holds no mask but %s: its image is taken to show nothing. Masks are files %s.",
            folder,
            others[0].name,
            ", ".join(sorted(SUFFIXES)),
        )
    return masks
