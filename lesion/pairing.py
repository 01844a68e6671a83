"""A folder's images, and the masks that belong to them, by their names."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from lesion.folders import image_files, passed_over
from lesion.metadata import rows_of
from lesion.samples import ATTRIBUTES, Collection, Problem

_ENDING = re.compile(r"_(segmentation|mask|lesion)$", re.IGNORECASE)


def images_in(folder: Path, collection: Collection, taken: Iterable[str]) -> dict[str, Path]:
    """Images by id. Of two with one id the first is kept and the other a problem."""
    images: dict[str, Path] = {}
    # Beside a data set's folders there are those of its masks.
    collection.problems += passed_over(folder, deeper=folder != collection.root)
    for path in image_files(folder):
        image_id = stem_of(path)
        if collection.layout == "isic2017" and image_id.endswith("_superpixels"):
            continue
        if image_id in images or image_id in taken:
            collection.problems.append(Problem(path, f"another image has the id {image_id}"))
            collection.left_out += 1
        else:
            images[image_id] = path
    return images


def stem_of(path: Path) -> str:
    """The name without its suffix; some systems write letters with marks as several characters."""
    return unicodedata.normalize("NFC", path.stem)


def paired(
    images: Mapping[str, Path], mask_folders: list[Path], collection: Collection
) -> dict[str, tuple[Path, Path | None]]:
    """Each image with its mask, which has its name, or that with _mask or the like after it."""
    masks: dict[str, Path] = {}
    names: dict[Path, str] = {}
    for path in (path for folder in mask_folders for path in image_files(folder)):
        name = stem_of(path)  # an image's own name may end in "_mask", too
        names[path] = name if name in images else _ENDING.sub("", name)
    image_of = {name: image_id for image_id, name in rows_of(images, names.values()).items()}
    for path, name in names.items():
        image_id = image_of.get(name)
        if image_id is None:
            collection.problems.append(Problem(path, "mask without its image"))
        elif image_id in masks:
            reason = f"another mask of {image_id}, {masks[image_id].name} is used"
            collection.problems.append(Problem(path, reason))
        else:
            masks[image_id] = path
    return {image_id: (path, masks.get(image_id)) for image_id, path in images.items()}


def attribute_masks(folder: Path, collection: Collection) -> dict[str, dict[str, Path]]:
    """Masks by image and attribute; other images in the folder are problems."""
    masks: dict[str, dict[str, Path]] = {}
    for path in image_files(folder):
        image_id, _, attribute = stem_of(path).partition("_attribute_")
        if attribute not in ATTRIBUTES:
            collection.problems.append(Problem(path, "not a mask of one of the five attributes"))
            continue
        own = masks.setdefault(image_id, {})
        if first := own.get(attribute):
            reason = f"another mask of {image_id}, {first.name} is used"
            collection.problems.append(Problem(path, reason))
        else:
            own[attribute] = path
    return masks
