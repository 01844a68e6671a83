"""Data sets whose instances are files: binary masks, or label images."""

import functools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from skimage.measure import label

from mrcnn.images import read_labels, read_mask
from mrcnn.named_instances import SUFFIXES, NamedInstances, image_files, only_class, record_of

logger = logging.getLogger(__name__)

BY_CLASS = "classes"
"""`labels` of `MaskFolderDataset.load_folders` where numbers are classes."""
VOID = 255
"""The number that pixels of no class have in many data sets, as in PASCAL VOC."""

# A file of masks; its instance's number, or None for a mask; and whether it numbers classes.
Content = tuple[Path, int | None] | tuple[Path, int, bool]


class MaskFolderDataset(NamedInstances):
    """Images with masks in files: one mask, a folder of them, or a label image for each.

    White is inside of a mask. In a folder of masks, sub-folders name classes; without them all
    instances are of one class, "object" unless `classes` names it. Hidden files and folders do not
    count.
    """

    def load_folders(
        self,
        images: str | os.PathLike,
        masks: str | os.PathLike,
        classes: Sequence[str] | None = None,
        source: str = "masks",
        labels: bool | str = False,
    ) -> None:
        """Adds IMAGES/a.jpg with the masks MASKS/a/*.png or MASKS/a/<class>/*.png, or MASKS/a.png.

        Args:
            images: folder of images.
            masks: folder that holds a folder for each image, an empty one where it shows nothing,
                or a file for each.
            classes: as in `ViaDataset.load_annotations`; with labels="classes" those that the
                numbers 1, 2, ... mean.
            source: name of the source.
            labels: whether the files MASKS/a.png are label images instead of one instance in
                white. True: with 0 for the background and a number for each instance, all of one
                class. "classes": with 0 for the background and a number for each class, as of
                semantic segmentation; what touches, corners included, is one instance, and 255
                is no class.

        Raises:
            FileNotFoundError: if there is no image, or no masks for one.
            ValueError: if an image cannot be read, the folders are ambiguous, or a label image
                holds the number of no class.
        """
        if labels not in (False, True, BY_CLASS):
            raise ValueError(f'labels must be False, True or "classes"; received {labels!r}.')
        if labels == BY_CLASS and (not classes or len(classes) >= VOID):
            raise ValueError(
                f'labels="classes" needs the {VOID - 1} or fewer classes that the numbers 1, 2, '
                f"... mean; received classes={classes!r}."
            )
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
                if labels == BY_CLASS:
                    instances = _regions_in(files[0], classes)
                else:
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

    def instance_masks(self, info: dict[str, Any], contents: Iterable[Content]) -> list[np.ndarray]:
        read = functools.lru_cache(maxsize=1)(_numbered)  # one for all instances of an image
        return [self.instance_mask(info, content, read) for content in contents]

    def instance_mask(
        self,
        info: dict[str, Any],
        content: Content,
        read: Callable[..., np.ndarray] | None = None,
    ) -> np.ndarray:
        file, value, *by_class = content
        mask = read_mask(file) if value is None else (read or _numbered)(file, *by_class) == value
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


def _numbered(file, by_class=False):
    """A label image int [height, width] with a number for each instance."""
    labels = read_labels(file)
    return label(np.where(labels == VOID, 0, labels), background=0) if by_class else labels


def _regions_in(file, classes):
    """The instances (class, content) of a label image whose numbers are classes."""
    labels = read_labels(file)
    numbers, places = np.unique(_numbered(file, True), return_index=True)
    instances = []
    for number, class_id in zip(numbers, labels.ravel()[places], strict=True):
        if number and not 0 < class_id <= len(classes):
            raise ValueError(
                f"{file} holds the number {class_id}, and there are {len(classes)} classes: "
                f"{', '.join(classes)}. Name those that are missing, or make it 0 or {VOID}."
            )
        if number:
            instances.append((classes[class_id - 1], (file, int(number), True)))
    return instances


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
