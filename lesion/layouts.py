"""Where the published data sets keep their images, masks and metadata.

`find_samples` recognises the folders of the ISIC challenges (`lesion.challenges`), HAM10000 with
its segmentations, PH2, and one's own data: `images` with `masks`, tables, or both, or a folder for
each diagnosis. It reads names and tables; `lesion.checks` decodes the files.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from lesion.challenges import SEGMENTATION, TABLED, TASK3, challenges_in, find_challenge
from lesion.folders import entries, folders, table_files, table_in, unread_tables
from lesion.metadata import read_metadata
from lesion.own_folders import PH2_CASES, add_own, class_folders, find_classes, find_plain
from lesion.pairing import add_samples, images_in, paired
from lesion.samples import PARTS, Collection, DatasetError, Problem

_HAM_METADATA = re.compile(r"ham10000_metadata[^.]*(\.csv|\.tab|\.tsv|\.txt)?")
_HAM_IMAGES = re.compile(r"ham10000_images.*")
_HAM_MASKS = re.compile(r"ham10000_segmentations.*")
# Names of the folders after some redistribute HAM10000; only looked for beside its metadata.
_HAM_OTHER_IMAGES = ("images", "ham10000", "all_images")
_HAM_OTHER_MASKS = ("masks", "segmentations")
# Every image of PH2 has a folder of its own, with others for the image and the mask in it.
_PH2_CASE = re.compile(r"imd\d+")
_FEWEST = 2
"""Folders named after a diagnosis, from which on a data set is one of such folders."""

# Layouts that hold the truth of a task, for folders in which several were unpacked.
_LAYOUTS_OF = {
    "boundary": (*SEGMENTATION, "ham10000", "ph2", "plain"),
    "attributes": ("isic2018",),
    "diagnosis": (TASK3, *TABLED, "ham10000", "ph2", "plain", "classes"),
}

RECOGNISED = (
    "the folders of ISIC 2016 to 2020 (such as ISIC2018_Task1-2_Training_Input and "
    "ISIC2018_Task1_Training_GroundTruth, or ISIC2018_Task3_Training_Input and "
    "ISIC2018_Task3_Training_GroundTruth), HAM10000 (HAM10000_images_part_1, "
    "HAM10000_metadata.csv, HAM10000_segmentations_lesion_tschandl), PH2, a folder named images "
    "and beside it one named masks, a table (.csv) of diagnoses, or both, or a folder of images "
    "for each diagnosis (such as melanoma and nevus)"
)


def find_samples(root: str | Path, part: str | None = None, task: str | None = None) -> Collection:
    """Lists a data set's samples without decoding a file.

    Args:
        root: the folder that holds the data set's folders.
        part: one of `PARTS`; None takes all that are there. Only challenges have parts.
        task: decides between the folders of several tasks side by side.

    Raises:
        DatasetError: where the layout is not recognised, or a table is unusable.
    """
    root = Path(root)
    if part is not None and part not in PARTS:
        raise ValueError(f"`part` must be one of {', '.join(PARTS)} or None; received {part!r}.")
    layout = detect_layout(root, task)
    collection = Collection(_name_of(root), root, layout, part or "all", [])
    if layout not in _WITHOUT_PARTS:
        find_challenge(collection, part)
    elif part is None:
        _WITHOUT_PARTS[layout](collection, task)
    else:
        raise DatasetError(
            f"{root} has the layout {layout}, which has no parts; received part={part!r}. "
            "Leave the part out and split the samples instead."
        )
    if not collection.samples:
        raise DatasetError(f"{root} has the layout {layout} but holds no image of it.")
    collection.samples.sort(key=lambda sample: sample.image_id)
    return collection


def find_collections(
    roots: Iterable[str | Path], part: str | None = None, task: str | None = None
) -> list[Collection]:
    """`find_samples` of several folders, whose names must differ."""
    roots = [Path(root) for root in roots]
    resolved = [Path(os.path.realpath(root)) for root in roots]
    twice = [str(root) for root, times in Counter(resolved).items() if times > 1]
    if twice:
        raise DatasetError(f"The data set {twice[0]} is given twice; give it once.")
    times = Counter(map(_name_of, resolved))
    if alike := [str(root) for root in resolved if times[_name_of(root)] > 1]:
        raise DatasetError(
            f"The data sets {' and '.join(alike)} have one name, by which splits know their "
            "images; rename a folder."
        )
    return [find_samples(root, part, task=task) for root in roots]


def _name_of(root: Path) -> str:
    """A data set's name, by which split files know it; letters with marks are one character."""
    return unicodedata.normalize("NFC", os.path.basename(os.path.realpath(root)))


def detect_layout(root: Path, task: str | None = None) -> str:
    """The name of the layout of a folder; DatasetError where there is none, or several.

    Of several, those that hold nothing for the task do not count.
    """
    if not root.is_dir():
        raise DatasetError(f"The data set folder {root} does not exist or is no folder.")
    layouts = _layouts_in(root)
    if task is not None:
        layouts = [layout for layout in layouts if layout in _LAYOUTS_OF[task]] or layouts
    if len(layouts) == 1:
        return layouts[0]
    if layouts:
        raise DatasetError(
            f"{root} holds several data sets ({', '.join(layouts)}), which may share images; "
            "move each into a folder of its own and give these."
        )
    children = [child for child in sorted(root.iterdir()) if child.is_dir()]
    nearby = [folder for folder in (root.absolute().parent, *children) if _may_be_meant(folder)]
    hint = f" Did you mean {' or '.join(map(str, nearby))}?" if nearby else ""
    hint += "".join(f" {problem}." for problem in unread_tables(root))
    raise DatasetError(f"{root} is no data set that is known here: {RECOGNISED}.{hint}")


def _may_be_meant(folder: Path) -> bool:
    try:
        return bool(_layouts_in(folder))
    except OSError:  # somebody else's, which may not be listed
        return False


def _layouts_in(root: Path) -> list[str]:
    names = {entry.name.lower() for entry in root.iterdir()}
    layouts = challenges_in(names)
    images = any(_HAM_IMAGES.fullmatch(name) for name in names)
    # Beside a challenge's folders the table alone tells of patients, and is not of its images.
    if images or (not layouts and any(_HAM_METADATA.fullmatch(name) for name in names)):
        layouts.append("ham10000")
    elif not layouts and _ph2_cases(root):
        layouts.append("ph2")
    elif not layouts and "images" in names and _is_plain(root, names):
        layouts.append("plain")
    elif not layouts and len(class_folders(root)) >= _FEWEST:
        layouts.append("classes")
    return layouts


def _is_plain(root: Path, names: set[str]) -> bool:
    if "masks" in names or table_files(root):
        return True
    return any(len(class_folders(images)) >= _FEWEST for images in folders(root, "images".__eq__))


# === Layouts ===


def _find_ham10000(collection: Collection, _: str | None) -> None:
    root = collection.root
    # Some call it otherwise; a folder of that name is what unpacking HAM10000_metadata.zip leaves.
    published = entries(root, _HAM_METADATA.fullmatch)
    tables = [table_in(entry) for entry in published]
    tables += [table for table in table_files(root) if table not in tables]
    # Some keep the images beside the metadata.
    image_folders = _ham_folders(root, _HAM_IMAGES, _HAM_OTHER_IMAGES) or [root]
    found: dict[str, Path] = {}
    for folder in image_folders:
        # Beside a data set's folders there are those of its masks.
        found |= images_in(folder, collection, found, deeper=folder != root)
    pairs = paired(found, _ham_folders(root, _HAM_MASKS, _HAM_OTHER_MASKS), collection)
    if not tables:
        reason = "no HAM10000_metadata: lesions and diagnoses are unknown, splits are by image"
        collection.problems.append(Problem(root, reason))
        add_samples(collection, pairs, [], {})
        return
    required = ("lesion_id", "image_id", "dx") if published else ()
    read = read_metadata(tables, collection, required, images=pairs)
    add_samples(collection, pairs, tables, *read)


def _ham_folders(root: Path, pattern: re.Pattern, other_names: tuple[str, ...]) -> list[Path]:
    return folders(root, pattern.fullmatch) or folders(root, other_names.__contains__)


def _find_ph2(collection: Collection, task: str | None) -> None:
    """`IMD002/IMD002_Dermoscopic_Image/IMD002.bmp` and `IMD002/IMD002_lesion/IMD002_lesion.bmp`."""
    found: dict[str, Path] = {}
    masks = []
    for case in _ph2_cases(collection.root):
        for folder in folders(case, lambda name: name.endswith("_dermoscopic_image")):
            found |= images_in(folder, collection, found)
        masks += folders(case, lambda name: name.endswith("_lesion"))
    add_own(collection, paired(found, masks, collection), task)


def _ph2_cases(root: Path) -> list[Path]:
    inner = folders(root, PH2_CASES.__eq__)
    return folders(inner[0] if inner else root, _PH2_CASE.fullmatch)


# What adds the samples of a layout, for a task.
_WITHOUT_PARTS = {
    "ham10000": _find_ham10000,
    "ph2": _find_ph2,
    "classes": find_classes,
    "plain": find_plain,
}
