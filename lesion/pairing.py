"""A folder's images, and what belongs to them by their names: masks, and rows of tables."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

from lesion.folders import image_files, not_read, passed_over
from lesion.metadata import rows_of
from lesion.samples import ATTRIBUTES, Collection, Problem, Sample

# How HAM10000, the archive, BCN20000 and ISIC 2019 call lesions, and the archive patients, of whom
# several data sets may have images.
_PUBLISHED = re.compile(r"(HAM|HAMTEST|IL|IP|BCN|MSK\d?)_\d{7}")

_ENDING = re.compile(r"_(segmentation|mask|lesion)$", re.IGNORECASE)


def images_in(
    folder: Path, collection: Collection, taken: Iterable[str], deeper: bool = True
) -> dict[str, Path]:
    """Images by id. Of two with one id the first is kept and the other a problem.

    Args:
        taken: ids that are not free.
        deeper: whether images in folders inside are a problem, too.
    """
    images: dict[str, Path] = {}
    collection.problems += passed_over(folder, deeper)
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
    images: Mapping[str, Path],
    mask_folders: list[Path],
    collection: Collection,
    ids: Mapping[tuple[str, str], str] | None = None,
) -> dict[str, tuple[Path, Path | None]]:
    """Each image with its mask, which has its name, or that with _mask or the like after it.

    Args:
        ids: of images in several folders, by their folder's name in lower case and their own; their
            masks lie in folders of the same names, or all in one.
    """
    for folder in mask_folders:
        if unread := not_read(path for path in folder.iterdir() if path.is_file()):
            collection.problems.append(Problem(folder, f"masks that are not read: {unread}"))
    ids = ids or {}
    inner = {folder for folder, _ in ids}
    masks: dict[str, Path] = {}
    names: dict[Path, str] = {}
    for path in (path for folder in mask_folders for path in image_files(folder)):
        name, folder = stem_of(path), path.parent.name.casefold()
        # An image's own name may end in "_mask", too.
        bare = name if name in images or (folder, name) in ids else _ENDING.sub("", name)
        names[path] = ids.get((folder, bare), "") if folder in inner else bare
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


def add_samples(
    collection: Collection,
    pairs: Mapping[str, tuple[Path, Path | None]],
    tables: Sequence[Path],
    rows: dict[str, dict],
    contradictory: Set[str] = frozenset(),
    part: str | None = None,
    known: Mapping[str, dict] | None = None,
) -> None:
    """Samples of images with their masks, and of what the rows of tables say of them.

    Args:
        contradictory: ids of images that are left out.
        known: what is known of images that no table lists, as by the name of their folder.
    """
    row_of = rows_of(pairs, [*rows, *contradictory])
    for image_id, (image, mask) in pairs.items():
        row = row_of.get(image_id, image_id)
        if row in contradictory:
            collection.left_out += 1
            continue
        facts = rows.pop(row, None)
        if facts is None:
            facts = dict((known or {}).get(image_id, {}))
            if tables:
                names = " or ".join(table.name for table in tables)
                collection.problems.append(Problem(image, f"not in {names}: lesion unknown"))
        for name in {"lesion_id", "patient_id"} & facts.keys():
            facts[name] = among_all(collection, facts[name])
        sample = Sample(collection.name, image_id, image, mask, part=part, **facts)
        collection.samples.append(sample)
    if rows:
        reason = f"lists {len(rows)} images that are not there, such as {min(rows)}"
        collection.problems.append(Problem(tables[0], reason))


def among_all(collection: Collection, name: str | None) -> str | None:
    """A lesion's or a patient's name among all data sets: each hospital counts from 1 on."""
    own = name and not _PUBLISHED.fullmatch(name)
    return f"{collection.name}/{name}" if own else name or None
