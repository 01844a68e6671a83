"""The folders of the ISIC challenges, 2016 to 2020.

`lesion.layouts` recognises them; of 2016 to 2018 there are masks, of 2018 (Task 3) to 2020
diagnoses.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from lesion.challenge_tables import read_groupings, read_truth
from lesion.folders import (
    by_part,
    entries,
    image_files,
    inner_folders,
    part_folders,
    part_tables,
    table_in,
)
from lesion.metadata import read_metadata
from lesion.pairing import add_samples, among_all, attribute_masks, images_in, paired
from lesion.samples import ATTRIBUTES, PARTS, Collection, DatasetError, Problem, Sample

_PART = r"(?P<part>training|validation|test)"
# Folder names of images, boundary masks and attribute masks, for `re.fullmatch`. The newest of
# several releases of a folder (`_v2`, `_v3`) sorts last and is used.
SEGMENTATION = {
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
# Folder names of images, and names of tables, each of which says a part of what is known.
TABLED = {
    "isic2019": (
        rf"isic_2019_{_PART}_(input|images)",
        rf"isic_2019_{_PART}_(groundtruth|metadata)(_v\d)?(\.csv)?",
    ),
    "isic2020": (
        rf"isic_2020_{_PART}_(jpeg|input|images)",
        rf"isic_2020_{_PART}_(groundtruth|metadata)(_v\d)?(\.csv)?",
    ),
}
TASK3 = "isic2018-task3"
_TASK3_IMAGES = rf"isic2018_task3_{_PART}_(input|images)"
_TASK3_TRUTH = rf"isic2018_task3_{_PART}_groundtruth(\.csv|\.tab)?"
_TASK3_GROUPINGS = rf"isic2018_task3_{_PART}_lesiongroupings(\.csv)?"


def challenges_in(names: Iterable[str]) -> list[str]:
    """The challenges of which folders of images are among lower-case names."""
    patterns = {name: folders[0] for name, folders in (SEGMENTATION | TABLED).items()}
    patterns[TASK3] = _TASK3_IMAGES
    return [layout for layout, p in patterns.items() if any(re.fullmatch(p, n) for n in names)]


def find_challenge(collection: Collection, part: str | None) -> None:
    """Adds the samples of a challenge, which `collection.layout` names, to the collection."""
    if collection.layout in SEGMENTATION:
        _find_segmentation(collection, part)
    elif collection.layout in TABLED:
        _find_tabled(collection, part)
    else:
        _find_task3(collection, part)


def _find_segmentation(collection: Collection, part: str | None) -> None:
    """Boundaries of 2016 to 2018, and attributes of 2018."""
    root, patterns = collection.root, SEGMENTATION[collection.layout]
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
    """Diagnoses of 2018."""
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
                lesion_id=among_all(collection, row.get("lesion_id") or known.get("lesion_id")),
                patient_id=among_all(collection, known.get("patient_id")),
                diagnosis=known.get("diagnosis"),
                metadata={**known.get("metadata", {}), **confirmed},
                part=name,
            )
            collection.samples.append(sample)
        if truth:
            reason = f"lists {len(truth)} images that are not there, such as {min(truth)}"
            collection.problems.append(Problem(truths[name], reason))


def _find_tabled(collection: Collection, part: str | None) -> None:
    """Diagnoses of 2019 and 2020, with lesions and patients where the tables name them."""
    root, (images_pattern, tables_pattern) = collection.root, TABLED[collection.layout]
    images = part_folders(root, images_pattern)
    _choose_part(collection, part, images)
    by_its_part = list(by_part(entries(root), tables_pattern))
    for name in images if part is None else (part,):
        folder = _of_images(images[name])
        found = images_in(folder, collection, {s.image_id for s in collection.samples})
        pairs = paired(found, [], collection)
        tables = [table_in(entry) for of, entry in by_its_part if of == name]
        if tables:
            rows, contradictory = read_metadata(tables, collection, images=pairs)
        else:
            rows, contradictory = {}, set()
            reason = "no table of its diagnoses, lesions and patients beside it"
            collection.problems.append(Problem(images[name], reason))
        add_samples(collection, pairs, tables, rows, contradictory, part=name)


def _of_images(folder: Path) -> Path:
    """The folder itself, or the only one in it: ISIC 2020's archives unpack to `train`, `test`."""
    inside = inner_folders(folder)
    return inside[0] if len(inside) == 1 and not image_files(folder) else folder
