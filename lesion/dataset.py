"""Data sets of dermoscopic images: what a folder holds, what is wrong with it, training on it.

`python lesion/dataset.py --dataset DIR` decodes every file once, prints what it found and names
every file at fault. `LesionDataset` hands sound samples to `mrcnn`.
"""

import sys
from pathlib import Path

if __package__ in (
    None,
    "",
):  # run as a script: import the packages, not their modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Iterable  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from dataclasses import replace  # noqa: E402

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from lesion import NOTICE  # noqa: E402
from lesion.cache import ImageCache  # noqa: E402
from lesion.layouts import find_collections, find_samples  # noqa: E402
from lesion.samples import (  # noqa: E402
    ATTRIBUTES,
    DIAGNOSES,
    Collection,
    DatasetError,
    Problem,
    Sample,
)
from mrcnn.dataset import Dataset  # noqa: E402
from mrcnn.files import atomic_path, sha256_of  # noqa: E402
from mrcnn.images import ImageError, image_size, read_image, read_mask  # noqa: E402

__all__ = [
    "ATTRIBUTES",
    "DIAGNOSES",
    "Collection",
    "DatasetError",
    "LesionDataset",
    "Problem",
    "Sample",
    "check_samples",
    "find_collections",
    "find_samples",
]

logger = logging.getLogger(__name__)

# With a shorter side a file is an icon, not a dermoscopic image.
MIN_SIDE = 32
# A large JPEG is read to its end when decoded at about this size, in a fraction of the time; a
# small one is quicker left as it is.
_CHECK_SIDE = 512
_RECORD_VERSION = 1


# === Check ===


def check_samples(
    collection: Collection,
    task: str = "boundary",
    workers: int = 2,
    record: str | Path | None = None,
) -> Collection:
    """Decodes all files once and keeps the sound samples.

    Left out, each with a problem that names the file: an image that cannot be decoded to its end
    or is smaller than `MIN_SIDE`; one of the same bytes as an earlier image (the first is kept); a
    missing or unreadable mask, one of another size than its image, and one that is white all over.
    An empty mask is a fault where the data set shows a lesion in every image (ISIC, HAM10000); in
    plain folders it says that the image shows none, and the sample is kept.

    Args:
        task: `boundary`.
        workers: number of decoding threads.
        record: JSON file that remembers sound files by path, size and time of change, so that the
            next check does not decode them again. Files at fault are looked at each time.

    Returns:
        A new collection; `left_out` counts the images that were dropped.
    """
    if task != "boundary":
        raise ValueError(f"`task` must be 'boundary'; received {task!r}.")
    samples = collection.samples
    images = [sample.image for sample in samples]
    masks = [sample.mask for sample in samples if sample.mask is not None]
    facts = _examine_all(images, masks, workers, None if record is None else Path(record))

    sound: list[Sample] = []
    problems: list[Problem] = []
    sizes: Counter = Counter()
    first_of: dict[str, Path] = {}
    empty = 0
    unmasked = _folders_without_masks(samples)
    problems += [
        Problem(folder, f"{count} images and no mask for any of them")
        for folder, count in unmasked.items()
    ]
    for sample in samples:
        image = facts[sample.image]
        if isinstance(image, str):
            problems.append(Problem(sample.image, image))
            continue
        first = first_of.setdefault(image["sha256"], sample.image)
        if first is not sample.image:
            reason = f"duplicate: the same bytes as {first.name}, which is used"
            problems.append(Problem(sample.image, reason))
            continue
        if sample.mask is None:
            if sample.image.parent not in unmasked:
                problems.append(Problem(sample.image, "image without a mask"))
            continue
        mask = facts[sample.mask]
        reason = _mask_fault(mask, image, collection.layout)
        if reason:
            problems.append(Problem(sample.mask, reason))
            continue
        empty += mask["cover"] == "none"
        sizes[image["height"], image["width"]] += 1
        sound.append(sample)
    notes = list(collection.notes)
    if empty:
        notes.append(
            Problem(collection.root, f"{empty} empty masks: used as images without a lesion")
        )
    return replace(
        collection,
        samples=sound,
        problems=[*collection.problems, *problems],
        notes=notes,
        left_out=collection.left_out + len(samples) - len(sound),
        sizes=sizes,
    )


def _folders_without_masks(samples: list[Sample]) -> dict[Path, int]:
    """Image folders none of whose images has a mask: one problem instead of thousands."""
    count = Counter(sample.image.parent for sample in samples)
    masked = {sample.image.parent for sample in samples if sample.mask is not None}
    return {folder: n for folder, n in count.items() if folder not in masked and n > 1}


def _mask_fault(mask: dict | str, image: dict, layout: str) -> str | None:
    if isinstance(mask, str):
        return mask
    if (mask["height"], mask["width"]) != (image["height"], image["width"]):
        return (
            f"mask of another size: {mask['width']} x {mask['height']} pixels, "
            f"its image {image['width']} x {image['height']}"
        )
    if mask["cover"] == "all":
        return "all-white mask"
    if mask["cover"] == "none" and layout != "plain":
        return "empty mask"
    return None


def _examine_image(path: Path) -> dict:
    read_image(path, max_side=_CHECK_SIDE)
    height, width = image_size(path)
    if min(height, width) < MIN_SIDE:
        raise ImageError(f"too small: {width} x {height} pixels, not {MIN_SIDE} or more")
    return {"height": height, "width": width, "sha256": sha256_of(path)}


def _examine_mask(path: Path) -> dict:
    mask = read_mask(path)
    cover = "all" if mask.all() else "some" if mask.any() else "none"
    return {"height": mask.shape[0], "width": mask.shape[1], "cover": cover}


def _examine_all(
    images: list[Path], masks: list[Path], workers: int, record: Path | None
) -> dict[Path, dict | str]:
    """What is known of each file: its facts, or as text what is wrong with it."""
    known = {} if record is None else _read_record(record)
    facts: dict[Path, dict | str] = {}
    stamps: dict[Path, list[int]] = {}
    pending = []
    for paths, examine in ((images, _examine_image), (masks, _examine_mask)):
        for path in paths:
            try:
                status = path.stat()
            except OSError as error:
                facts[path] = f"it cannot be read: {error.strerror}"
                continue
            stamps[path] = [status.st_size, status.st_mtime_ns]
            entry = known.get(str(path.resolve()))
            if entry and entry["stamp"] == stamps[path] and entry["check"] == examine.__name__:
                facts[path] = entry["facts"]
            else:
                pending.append((path, examine))

    def examine_one(job):
        path, examine = job
        try:
            return path, examine.__name__, examine(path)
        except (ImageError, OSError) as error:
            return path, examine.__name__, str(error).removeprefix(f"{path}: ")

    if not pending:
        return facts
    with ThreadPoolExecutor(workers) as pool:
        # `disable=None` shows the bar on a terminal only.
        for path, check, result in tqdm(
            pool.map(examine_one, pending), "Checking", len(pending), unit="file", disable=None
        ):
            facts[path] = result
            if not isinstance(result, str):
                entry = {"stamp": stamps[path], "check": check, "facts": result}
                known[str(path.resolve())] = entry
    if record is not None:
        _write_record(record, known)
    return facts


def _read_record(record: Path) -> dict[str, dict]:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        if content["version"] == _RECORD_VERSION:
            return content["files"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("The record of checked files %s is unusable (%s): made anew.", record, error)
    return {}


def _write_record(record: Path, files: dict[str, dict]) -> None:
    try:
        with atomic_path(record) as partial:
            content = {"version": _RECORD_VERSION, "files": files}
            partial.write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        logger.warning("The record of checked files %s cannot be written: %s.", record, error)


# === Training ===


class LesionDataset(Dataset):
    """The boundary task: at most one instance of the class `lesion` in each image.

    Args:
        samples: sound samples, as `check_samples` returns them; every one has a mask.
        cache: where decoded and reduced images are kept; without it each call decodes the
            original at full size.
    """

    def __init__(self, samples: Iterable[Sample], cache: ImageCache | None = None):
        super().__init__()
        self.cache = cache
        self.add_class("lesion", 1, "lesion")
        for sample in samples:
            if sample.mask is None:
                raise DatasetError(
                    f"The image {sample.image} has no mask to train on; "
                    "leave it out, as `check_samples` does."
                )
            self.add_image("lesion", image_id=sample.key, path=str(sample.image), sample=sample)

    def load_image(self, image_id):
        """The image, uint8 [height, width, 3], as large as the cache keeps it."""
        path = self.image_info[image_id]["sample"].image
        return read_image(path) if self.cache is None else self.cache.image(path)

    def load_mask(self, image_id):
        """bool masks [height, width, N] of the loaded image's size and int32 class ids [N].

        N is 1, or 0 where the mask is empty.
        """
        sample = self.image_info[image_id]["sample"]
        if self.cache is None:
            mask = read_mask(sample.mask)
            size = image_size(sample.image)
            if mask.shape != tuple(size):
                raise DatasetError(
                    f"The mask {sample.mask} is {mask.shape[1]} x {mask.shape[0]} pixels, its "
                    f"image {sample.image} {size[1]} x {size[0]}; leave the sample out."
                )
        else:
            mask = self.cache.mask(sample.mask, self.cache.image(sample.image).shape[:2])
        instances = 1 if mask.any() else 0
        return mask[:, :, np.newaxis][:, :, :instances], np.ones(instances, np.int32)


# === Command line ===


def summarize(collection: Collection) -> dict:
    """What a checked collection holds, as plain values for JSON."""
    samples = collection.samples
    diagnoses = Counter(sample.diagnosis for sample in samples if sample.diagnosis)
    lesions = {sample.lesion_id for sample in samples if sample.lesion_id}
    attributes = Counter(name for sample in samples for name in sample.attributes)
    parts = Counter(sample.part for sample in samples if sample.part)
    sizes = [
        {"height": height, "width": width, "images": count}
        for (height, width), count in collection.sizes.most_common()
    ]
    return {
        "name": collection.name,
        "root": str(collection.root),
        "layout": collection.layout,
        "part": collection.part,
        "images": len(samples) + collection.left_out,
        "sound": len(samples),
        "left_out": collection.left_out,
        "parts": dict(parts),
        "sizes": sizes,
        "attributes": {name: attributes[name] for name in ATTRIBUTES if name in attributes},
        "diagnoses": {name: diagnoses[name] for name in DIAGNOSES if name in diagnoses},
        "lesions": len(lesions),
        "images_without_lesion_id": sum(sample.lesion_id is None for sample in samples),
        "notes": [str(note) for note in collection.notes],
        "problems": [{"path": str(p.path), "reason": p.reason} for p in collection.problems],
    }


def _describe(summary: dict) -> str:
    def counts(values: dict) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in values.items())

    sizes = summary["sizes"]
    common = ", ".join(f"{s['width']} x {s['height']} ({s['images']:,})" for s in sizes[:4])
    more = f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""
    lines = [
        f"{summary['name']}: {summary['layout']}, {summary['part']} ({summary['root']})",
        f"  images      {summary['images']:,}, of which {summary['sound']:,} are sound "
        f"and {summary['left_out']:,} left out",
    ]
    if len(summary["parts"]) > 1:
        lines.append(f"  parts       {counts(summary['parts'])}")
    lines.append(f"  sizes       {common or 'none'}{more}")
    lines.append(f"  attributes  {counts(summary['attributes']) or 'no masks'}")
    lines.append(f"  diagnoses   {counts(summary['diagnoses']) or 'unknown'}")
    unknown = summary["images_without_lesion_id"]
    known = f"{summary['lesions']:,} in {summary['sound'] - unknown:,} images"
    lines.append(f"  lesions     {known if summary['lesions'] else 'unknown, splits are by image'}")
    lines += [f"  note        {note}" for note in summary["notes"]]
    lines.append(f"  problems    {len(summary['problems']):,}")
    lines += [f"    {problem['path']}: {problem['reason']}" for problem in summary["problems"]]
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    description = "Says what a data set holds and names every file at fault."
    parser = argparse.ArgumentParser(description=description, epilog=NOTICE)
    parser.add_argument(
        "--dataset",
        action="append",
        required=True,
        metavar="DIR",
        help="folder of ISIC 2016-2018, HAM10000, or with images/ and masks/; repeatable",
    )
    parser.add_argument(
        "--task", choices=["boundary"], default="boundary", help="what to check for"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if there is any problem")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the result as JSON")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="decoding threads (2)")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.workers < 1:
        parser.error(f"--workers must be at least 1; received {arguments.workers}")
    try:
        collections = find_collections(arguments.dataset)
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 2
    summaries = []
    for collection in collections:
        checked = check_samples(collection, arguments.task, arguments.workers)
        summaries.append(summarize(checked))
        print(_describe(summaries[-1]))
    print(NOTICE)
    if arguments.json:
        report = {"notice": NOTICE, "task": arguments.task, "collections": summaries}
        with atomic_path(arguments.json) as partial:
            partial.write_text(json.dumps(report, indent=2), encoding="utf-8")
    faults = any(summary["problems"] for summary in summaries)
    return 1 if arguments.strict and faults else 0


if __name__ == "__main__":
    sys.exit(main())
