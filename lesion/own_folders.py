"""One's own data: folders of images and masks, or folders of these, one for each diagnosis."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lesion.challenge_tables import read_ph2
from lesion.folders import (
    entries,
    folders,
    image_files,
    inner_folders,
    passed_over,
    table_files,
    unread_tables,
    unwrapped,
)
from lesion.metadata import read_metadata
from lesion.pairing import add_samples, images_in, paired
from lesion.samples import Collection, DatasetError, Problem
from lesion.vocabulary import category_of

PH2_CASES = "ph2 dataset images"
_PH2_TABLE = "ph2_dataset.txt"


class _Images(NamedTuple):
    """Images by id; what names of folders say of them; their ids by folder's name and own name."""

    images: dict[str, Path]
    known: dict[str, dict]
    ids: dict[tuple[str, str], str]


def class_folders(root: Path) -> list[Path]:
    """Folders that are named after one of the seven categories."""
    return [folder for folder in inner_folders(root) if category_of(folder.name)]


def find_plain(collection: Collection, task: str | None) -> None:
    """`images/`, or the folders in it, which may be named after diagnoses; and `masks/`."""
    images, masks = (folders(collection.root, name.__eq__) for name in ("images", "masks"))
    inside = [inner for folder in images for inner in _holding(folder)]
    found: dict[str, Path] = {}
    for folder in images:
        found |= images_in(folder, collection, found, deeper=not inside)
        others = [f for f in map(unwrapped, inner_folders(folder)) if inside and f not in inside]
        _name_unread(others, collection)
    below = _images_by_folder(inside, collection, found)
    masks += [inner for folder in masks for inner in inner_folders(folder)]
    pairs = paired(found | below.images, masks, collection, below.ids)
    add_own(collection, pairs, task, below)


def _holding(folder: Path) -> list[Path]:
    """Folders that hold a folder's images: those of diagnoses, or all if it has none itself."""
    inside = class_folders(folder) if image_files(folder) else inner_folders(folder)
    return [unwrapped(inner) for inner in inside]


def find_classes(collection: Collection, task: str | None) -> None:
    """Folders of images beside each other, two of them at least named after diagnoses."""
    root = collection.root
    masks = folders(root, "masks".__eq__)
    # One named after a diagnosis is not passed over in silence if it holds no images that are read.
    inside = [
        folder
        for folder in map(unwrapped, inner_folders(root))
        if folder not in masks and (image_files(folder) or category_of(folder.name))
    ]
    if beside := image_files(root):
        reason = f"{len(beside)} images beside the folders are not read, such as {beside[0].name}"
        collection.problems.append(Problem(root, reason))
    found = _images_by_folder(inside, collection, ())
    masks += [inner for folder in masks for inner in inner_folders(folder)]
    add_own(collection, paired(found.images, masks, collection, found.ids), task, found)


def _name_unread(others: Sequence[Path], collection: Collection) -> None:
    for folder in others:
        collection.problems += passed_over(folder)
        if images := image_files(folder):
            reason = f"{len(images)} images are not read: its name is none of the seven diagnoses"
            collection.problems.append(Problem(folder, reason))


def _images_by_folder(
    inside: Sequence[Path], collection: Collection, taken: Iterable[str]
) -> _Images:
    """Images of several folders.

    One whose name is taken, or occurs in several of them, has its folder's name before its own.
    """
    by_folder = {folder: images_in(folder, collection, ()) for folder in inside}
    times = Counter([*taken, *(name for images in by_folder.values() for name in images)])
    found = _Images({}, {}, {})
    named = any(category_of(folder.name) for folder in inside)
    for folder, images in by_folder.items():
        diagnosis = category_of(folder.name)
        if named and images and not diagnosis:
            reason = f"its name is none of the seven diagnoses; {len(images)} images have none"
            collection.problems.append(Problem(folder, reason))
        for name, path in images.items():
            image_id, joint = name, "_"
            while times[image_id] > (image_id == name) or image_id in found.images:
                image_id, joint = f"{folder.name}{joint}{name}", f"{joint}_"
            found.images[image_id] = path
            found.ids[folder.name.casefold(), name] = image_id
            if diagnosis:
                found.known[image_id] = {"diagnosis": diagnosis}
    return found


def add_own(
    collection: Collection,
    pairs: Mapping[str, tuple[Path, Path | None]],
    task: str | None,
    below: _Images | None = None,
) -> None:
    """Adds samples of one's own data, and what the tables beside them say, or the names of folders.

    A table that cannot be used is a problem; for the diagnosis, where it needs it, an error.

    Args:
        below: the images that lie in folders, and what the names of these say.
    """
    tables = table_files(collection.root)
    below = below or _Images({}, {}, {})
    known, of_ph2 = below.known, list[Path]()
    rows: dict[str, dict] = {}
    contradictory: set[str] = set()
    try:
        if collection.layout == "ph2":
            known, of_ph2 = _known_of_ph2(collection, task)
        if tables:
            rows, contradictory = read_metadata(
                tables, collection, known=known, ids=below.ids, images=pairs
            )
        else:
            collection.problems += unread_tables(collection.root)
            if known and not of_ph2:
                reason = "no table with lesion_id: lesions are unknown, splits are by image"
                collection.problems.append(Problem(collection.root, reason))
    except DatasetError as error:
        if task == "diagnosis" and not of_ph2:
            raise
        collection.problems.append(Problem(collection.root, f"no table is used: {error}"))
        tables = []
    if not tables:
        collection.diagnoses_listed += len(known)
    if of_ph2 and not tables:
        rows, tables = dict(known), of_ph2
    add_samples(collection, pairs, tables, rows, contradictory, known=known)


def _known_of_ph2(collection, task):
    """What PH2's own table says of images, and the table's path, if it is there."""
    root = collection.root
    within = root.absolute().name.casefold() == PH2_CASES
    places = [root, root.absolute().parent] if within else [root]
    found = [table for place in places for table in entries(place, _PH2_TABLE.__eq__)][:1]
    if not found and task == "diagnosis":
        reason = "no PH2_dataset.txt, which tells PH2's diagnoses, beside 'PH2 Dataset images'"
        collection.problems.append(Problem(root, reason))
    return read_ph2(found[0], collection) if found else {}, found
