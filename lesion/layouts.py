"""Where the published data sets keep their images, masks and metadata.

`find_samples` recognises the folders of the ISIC challenges of 2016, 2017 and 2018 (of 2018 with
attributes and diagnosis), HAM10000 with its segmentations, PH2, and one's own data: `images` with
`masks`, a table, or both. It reads names and tables; `lesion.checks` decodes the files.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

from lesion.folders import (
    entries,
    folders,
    part_folders,
    part_tables,
    table_files,
    table_in,
    unread_tables,
)
from lesion.metadata import read_groupings, read_metadata, read_ph2, read_truth, rows_of
from lesion.pairing import attribute_masks, images_in, paired
from lesion.samples import ATTRIBUTES, PARTS, Collection, DatasetError, Problem, Sample

_PART = r"(?P<part>training|validation|test)"
# Folder names of images, boundary masks and attribute masks, for `re.fullmatch`. The newest of
# several releases of a folder (`_v2`, `_v3`) sorts last and is used.
_CHALLENGES = {
    "isic2018": (
        rf"isic2018_task1-2_{_PART}_input",
        rf"isic2018_task1_{_PART}_groundtruth",
        rf"isic2018_task2_{_PART}_groundtruth(_v\d)?",
    ),
    "isic2017": (
        rf"isic-2017_{_PART}(_v\d)?_data",
        rf"isic-2017_{_PART}(_v\d)?_part1_groundtruth",
    ),
    "isic2016": (
        rf"isbi2016_isic_part1_{_PART}_data",
        rf"isbi2016_isic_part1_{_PART}_groundtruth",
    ),
}
_TASK3 = "isic2018-task3"
_TASK3_IMAGES = rf"isic2018_task3_{_PART}_(input|images)"
_TASK3_TRUTH = rf"isic2018_task3_{_PART}_groundtruth(\.csv|\.tab)?"
_TASK3_GROUPINGS = rf"isic2018_task3_{_PART}_lesiongroupings(\.csv)?"
_HAM_METADATA = re.compile(r"ham10000_metadata[^.]*(\.csv|\.tab|\.tsv|\.txt)?")
_HAM_IMAGES = re.compile(r"ham10000_images.*")
_HAM_MASKS = re.compile(r"ham10000_segmentations.*")
# Names of the folders after some redistribute HAM10000; only looked for beside its metadata.
_HAM_OTHER_IMAGES = ("images", "ham10000", "all_images")
_HAM_OTHER_MASKS = ("masks", "segmentations")
# Every image of PH2 has a folder of its own, with others for the image and the mask in it.
_PH2_CASE = re.compile(r"imd\d+")
_PH2_CASES = "ph2 dataset images"
_PH2_TABLE = "ph2_dataset.txt"
# How HAM10000, the archive, BCN20000 and ISIC 2019 call lesions, and the archive patients, of whom
# several data sets may have images.
_PUBLISHED = re.compile(r"(HAM|HAMTEST|IL|IP|BCN|MSK\d?)_\d{7}")

# Layouts that hold the truth of a task, for folders in which several were unpacked.
_LAYOUTS_OF = {
    "boundary": (*_CHALLENGES, "ham10000", "ph2", "plain"),
    "attributes": ("isic2018",),
    "diagnosis": (_TASK3, "ham10000", "ph2", "plain"),
}

RECOGNISED = (
    "the folders of ISIC 2016, 2017 or 2018 (such as ISIC2018_Task1-2_Training_Input and "
    "ISIC2018_Task1_Training_GroundTruth, or ISIC2018_Task3_Training_Input and "
    "ISIC2018_Task3_Training_GroundTruth), HAM10000 (HAM10000_images_part_1, "
    "HAM10000_metadata.csv, HAM10000_segmentations_lesion_tschandl), PH2, or a folder named images "
    "and beside it one named masks, a table (.csv) of diagnoses, or both"
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
    collection = Collection(Path(os.path.realpath(root)).name, root, layout, part or "all", [])
    if layout in _CHALLENGES:
        _find_challenge(collection, part)
    elif layout == _TASK3:
        _find_task3(collection, part)
    elif part is not None:
        raise DatasetError(
            f"{root} has the layout {layout}, which has no parts; received part={part!r}. "
            "Leave the part out and split the samples instead."
        )
    elif layout == "ham10000":
        _find_ham10000(collection)
    elif layout == "ph2":
        _find_ph2(collection, task)
    else:
        _find_plain(collection, task)
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
    times = Counter(root.name for root in resolved)
    if alike := [str(root) for root in resolved if times[root.name] > 1]:
        raise DatasetError(
            f"The data sets {' and '.join(alike)} have one name, by which splits know their "
            "images; rename a folder."
        )
    return [find_samples(root, part, task=task) for root in roots]


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
    raise DatasetError(f"{root} is no data set that is known here: {RECOGNISED}.{hint}")


def _may_be_meant(folder: Path) -> bool:
    try:
        return bool(_layouts_in(folder))
    except OSError:  # somebody else's, which may not be listed
        return False


def _layouts_in(root: Path) -> list[str]:
    names = {entry.name.lower() for entry in root.iterdir()}
    layouts = [
        layout
        for layout, patterns in _CHALLENGES.items()
        if any(re.fullmatch(patterns[0], name) for name in names)
    ]
    if any(re.fullmatch(_TASK3_IMAGES, name) for name in names):
        layouts.append(_TASK3)
    images = any(_HAM_IMAGES.fullmatch(name) for name in names)
    # Beside a challenge's folders the table alone tells of patients, and is not of its images.
    if images or (not layouts and any(_HAM_METADATA.fullmatch(name) for name in names)):
        layouts.append("ham10000")
    elif not layouts and _ph2_cases(root):
        layouts.append("ph2")
    elif not layouts and "images" in names and ("masks" in names or table_files(root)):
        layouts.append("plain")
    return layouts


# === Layouts ===


def _find_challenge(collection: Collection, part: str | None) -> None:
    root, patterns = collection.root, _CHALLENGES[collection.layout]
    images, masks, *attributes = (part_folders(root, pattern) for pattern in patterns)
    attributes = attributes[0] if attributes else {}
    _choose_part(collection, part, images)
    for name in PARTS:
        if part not in (None, name):
            continue
        if name not in images:
            for folder in filter(None, (masks.get(name), attributes.get(name))):
                collection.problems.append(Problem(folder, "masks without a folder of images"))
            continue
        named_masks = {}
        if name in attributes:
            named_masks = attribute_masks(attributes[name], collection)
        found = images_in(images[name], collection, {s.image_id for s in collection.samples})
        pairs = paired(found, [masks[name]] if name in masks else [], collection)
        for image_id, (image, mask) in pairs.items():
            named = named_masks.pop(image_id, {})
            if named and len(named) < len(ATTRIBUTES):  # without any it is named where it counts
                missing = ", ".join(a for a in ATTRIBUTES if a not in named)
                collection.problems.append(Problem(image, f"no mask of the attribute {missing}"))
            sample = Sample(collection.name, image_id, image, mask, named, part=name)
            collection.samples.append(sample)
        for named in named_masks.values():
            for path in named.values():
                collection.problems.append(Problem(path, "mask without its image"))


def _choose_part(collection: Collection, part: str | None, images: Mapping[str, Path]) -> None:
    """Names the only part that is there; DatasetError if the one that is wanted is not."""
    if part is not None and part not in images:
        there = ", ".join(images)
        raise DatasetError(
            f"{collection.root} ({collection.layout}) has no part {part!r}; it has {there}."
        )
    if part is None and len(images) == 1:
        collection.part = next(iter(images))


def _find_task3(collection: Collection, part: str | None) -> None:
    images = part_folders(collection.root, _TASK3_IMAGES)
    truths, groupings = (
        part_tables(collection.root, pattern) for pattern in (_TASK3_TRUTH, _TASK3_GROUPINGS)
    )
    _choose_part(collection, part, images)
    for name in images if part is None else (part,):
        found = images_in(images[name], collection, {s.image_id for s in collection.samples})
        truth, contradictory = read_truth(truths.get(name), collection)
        rows = read_groupings(groupings[name]) if name in groupings else {}
        grouped = {image for of in (rows, truth) for image in of if of[image].get("lesion_id")}
        alone = sorted(set(found) - grouped - contradictory)
        if alone and (rows or name == "training"):  # published for this part alone
            reason = (
                f"no LesionGroupings of {len(alone)} of the images, such as {alone[0]}: lesions "
                "are unknown, splits are by image"
            )
            collection.problems.append(Problem(groupings.get(name, images[name]), reason))
        collection.left_out += len(contradictory & found.keys())
        for image_id, path in found.items():
            if image_id in contradictory:
                continue
            row, known = rows.get(image_id, {}), truth.pop(image_id, {})
            confirmed = {"confirmation": row["confirmation"]} if row.get("confirmation") else {}
            sample = Sample(
                collection.name,
                image_id,
                path,
                lesion_id=_among_all(collection, row.get("lesion_id") or known.get("lesion_id")),
                patient_id=_among_all(collection, known.get("patient_id")),
                diagnosis=known.get("diagnosis"),
                metadata={**known.get("metadata", {}), **confirmed},
                part=name,
            )
            collection.samples.append(sample)
        if truth:
            reason = f"lists {len(truth)} images that are not there, such as {min(truth)}"
            collection.problems.append(Problem(truths[name], reason))


def _find_ham10000(collection: Collection) -> None:
    root = collection.root
    # Some call it otherwise; a folder of that name is what unpacking HAM10000_metadata.zip leaves.
    metadata = entries(root, _HAM_METADATA.fullmatch) or table_files(root)
    # Some keep the images beside the metadata.
    image_folders = _ham_folders(root, _HAM_IMAGES, _HAM_OTHER_IMAGES) or [root]
    found: dict[str, Path] = {}
    for folder in image_folders:
        found |= images_in(folder, collection, found)
    pairs = paired(found, _ham_folders(root, _HAM_MASKS, _HAM_OTHER_MASKS), collection)
    if len(metadata) > 1:
        names = ", ".join(path.name for path in metadata)
        raise DatasetError(f"{root} has several tables of its images ({names}); leave one.")
    if not metadata:
        reason = "no HAM10000_metadata: lesions and diagnoses are unknown, splits are by image"
        collection.problems.append(Problem(root, reason))
        _add(collection, pairs, None, {})
        return
    published = _HAM_METADATA.fullmatch(metadata[0].name.lower())
    required = ("lesion_id", "image_id", "dx") if published else ()
    table = table_in(metadata[0])
    _add(collection, pairs, table, *read_metadata(table, collection, required))


def _add(
    collection: Collection,
    pairs: Mapping[str, tuple[Path, Path | None]],
    table: Path | None,
    rows: dict[str, dict],
    contradictory: Set[str] = frozenset(),
) -> None:
    """Samples of images with their masks, and of what the rows of a table say of them."""
    row_of = rows_of(pairs, [*rows, *contradictory])
    for image_id, (image, mask) in pairs.items():
        if row_of.get(image_id) in contradictory:
            collection.left_out += 1
            continue
        known = rows.pop(row_of.get(image_id), {})
        if table and not known:
            collection.problems.append(Problem(image, f"not in {table.name}: lesion unknown"))
        for name in {"lesion_id", "patient_id"} & known.keys():
            known[name] = _among_all(collection, known[name])
        collection.samples.append(Sample(collection.name, image_id, image, mask, **known))
    if rows:
        reason = f"lists {len(rows)} images that are not there, such as {min(rows)}"
        collection.problems.append(Problem(table, reason))


def _among_all(collection: Collection, name: str | None) -> str | None:
    """A lesion's or a patient's name among all data sets: each hospital counts from 1 on."""
    own = name and not _PUBLISHED.fullmatch(name)
    return f"{collection.name}/{name}" if own else name or None


def _ham_folders(root: Path, pattern: re.Pattern, other_names: tuple[str, ...]) -> list[Path]:
    return folders(root, pattern.fullmatch) or folders(root, other_names.__contains__)


def _find_plain(collection: Collection, task: str | None) -> None:
    found: dict[str, Path] = {}
    for folder in folders(collection.root, "images".__eq__):
        found |= images_in(folder, collection, found)
    masks = folders(collection.root, "masks".__eq__)
    _add_own(collection, paired(found, masks, collection), task)


def _find_ph2(collection: Collection, task: str | None) -> None:
    """`IMD002/IMD002_Dermoscopic_Image/IMD002.bmp` and `IMD002/IMD002_lesion/IMD002_lesion.bmp`."""
    found: dict[str, Path] = {}
    masks = []
    for case in _ph2_cases(collection.root):
        for folder in folders(case, lambda name: name.endswith("_dermoscopic_image")):
            found |= images_in(folder, collection, found)
        masks += folders(case, lambda name: name.endswith("_lesion"))
    _add_own(collection, paired(found, masks, collection), task)


def _ph2_cases(root: Path) -> list[Path]:
    inner = folders(root, _PH2_CASES.__eq__)
    return folders(inner[0] if inner else root, _PH2_CASE.fullmatch)


def _add_own(
    collection: Collection, pairs: Mapping[str, tuple[Path, Path | None]], task: str | None
) -> None:
    """Samples of one's own data, and what the one table beside them says.

    A table that cannot be used is a problem; for the diagnosis, which needs it, an error.
    """
    tables = table_files(collection.root)
    rows, contradictory = {}, set()
    try:
        if len(tables) > 1:
            names = ", ".join(table.name for table in tables)
            raise DatasetError(
                f"{collection.root} has several tables ({names}); leave one, with a row for each "
                "image and the columns of the others that are needed: diagnoses, and lesion_id or "
                "patient_id, without which images of one lesion are learned from and scored."
            )
        if tables:
            rows, contradictory = read_metadata(tables[0], collection)
        elif collection.layout == "ph2" and (tables := entries(collection.root, _PH2_TABLE.__eq__)):
            rows = read_ph2(tables[0], collection)
        else:
            collection.problems += unread_tables(collection.root)
    except DatasetError as error:
        if task == "diagnosis":
            raise
        collection.problems.append(Problem(collection.root, f"no table is used: {error}"))
        tables = []
    _add(collection, pairs, tables[0] if tables else None, rows, contradictory)
