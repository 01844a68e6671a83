"""Which samples of a data set are sound: every file decoded once, every fault named."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from lesion.grouping import remember_content
from lesion.records import read_record, stamp_of, write_record
from lesion.samples import ATTRIBUTES, TASKS, TRUTHS, Collection, Problem, Sample
from mrcnn.files import sha256_of
from mrcnn.images import ImageError, image_orientation, image_size, read_image, read_mask

logger = logging.getLogger(__name__)

# With a shorter side a file is an icon, not a dermoscopic image.
MIN_SIDE = 32
# A large JPEG is read to its end when decoded at about this size, in a fraction of the time; a
# small one is quicker left as it is.
_CHECK_SIDE = 512
_RECORD, _RECORD_VERSION = "checked files", 2
_HALF_TURNED = (2, 3, 4)  # EXIF orientations that leave the sides what they were


def check_samples(
    collection: Collection,
    task: str = "boundary",
    workers: int = 2,
    record: str | Path | None = None,
    used: dict[str, Sample] | None = None,
    with_boundary: bool = False,
) -> Collection:
    """Decodes all files once and keeps the samples that are sound for a task.

    Left out, each with a problem that names the file: an image that cannot be decoded to its end
    or is smaller than `MIN_SIDE`; one of the same bytes as an earlier image (the first is kept, if
    both do not have different diagnoses); one without the task's truth, a mask, a diagnosis or all
    five attribute masks; one with an unreadable mask, or one of another size than its image.
    Attribute masks may be blank or full. For the boundary, one that is white all over is a fault,
    and an empty one where the data set shows a lesion in every image (ISIC, HAM10000); in plain
    folders it says that the image shows none, and the sample is kept.

    Args:
        collection: as `lesion.layouts.find_collections` gives it.
        task: one of `TASKS`.
        workers: number of decoding threads.
        record: JSON file that remembers sound files by path, size and time of change, so that the
            next check does not decode them again. Files at fault are looked at each time.
        used: samples of the data sets checked before by SHA-256, copies of which are left out, too;
            those of this one are added.
        with_boundary: whether the attributes need the lesion's mask, too.

    Returns:
        A new collection; `left_out` counts the images that were dropped.

    Raises:
        ValueError: for another task.
    """
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}; received {task!r}.")
    samples = collection.samples
    images = [sample.image for sample in samples]
    masks = [mask for sample in samples for mask in _masks_of(sample, task, with_boundary)]
    facts = _examine_all(images, masks, workers, None if record is None else Path(record))
    used = {} if used is None else used
    sound, problems = _sort_out(collection, facts, task, used, with_boundary)
    _warn_of_turned(collection.name, sound, facts, task, with_boundary)
    notes = list(collection.notes)
    known = {path: fact for path, fact in facts.items() if not isinstance(fact, str)}
    if task == "boundary":
        found = [known[mask] for sample in sound for mask in _masks_of(sample, task, False)]
        if empty := sum(mask["cover"] == "none" for mask in found):
            reason = f"{empty} empty masks: used as images without a lesion"
            notes.append(Problem(collection.root, reason))
    return replace(
        collection,
        samples=sound,
        problems=[*collection.problems, *problems],
        notes=notes,
        left_out=collection.left_out + len(samples) - len(sound),
        sizes=Counter((known[s.image]["height"], known[s.image]["width"]) for s in sound),
    )


def find_copies(samples: Sequence[Sample], task: str) -> tuple[set[str], list[Problem]]:
    """Keys of samples, of any data sets, that are copies of others, and a problem for each.

    Of files with the same bytes the first that has a truth is none, be its masks sound or not; but
    it counts as one, too, where another of its data set has another diagnosis. No file is decoded,
    and only those of one size are read. What cannot be read is no copy, nor is what has no truth.
    """
    sizes = {sample.key: _of_file(sample.image, os.path.getsize) for sample in samples}
    times = Counter(sizes.values())
    used: dict[str, Sample] = {}
    problems: list[Problem] = []
    keys: set[str] = set()
    for sample in samples:
        sha256 = None
        if times[sizes[sample.key]] > 1 and sample.truth(task):
            sha256 = _of_file(sample.image, sha256_of)
        if sha256 is not None and (first := used.setdefault(sha256, sample)) is not sample:
            problems.append(_take_copy(sample, first, task, keys))
            keys.add(sample.key)
    return keys, problems


def _of_file(path, function):
    """What a function finds out of a file; None where it cannot be read."""
    try:
        return function(path)
    except OSError:
        return None


def _take_copy(sample, first, task, doubtful):
    """Has the first know what a copy of it is known by; the problem that this copy is.

    The first's key is `doubtful` where neither is to be used.
    """
    problem = Problem(sample.image, _duplicate(sample, first, task))
    first.copies_of.update(sample.known_by)  # what is of them is of one lesion with it
    if _contradict(sample, first, task) and first.collection == sample.collection:
        doubtful.add(first.key)
    return problem


def _sort_out(
    collection: Collection,
    facts: dict[Path, dict | str],
    task: str,
    used: dict[str, Sample],
    with_boundary: bool,
) -> tuple[list[Sample], list[Problem]]:
    """The sound samples, which are added to `used`, and what is wrong with the others."""
    bare = _folders_without(task, collection.samples)
    noun = TRUTHS[task].removeprefix("a ")
    problems = [
        Problem(folder, f"{count} images and no {noun} for any of them")
        for folder, count in bare.items()
    ]
    sound: list[Sample] = []
    doubtful: set[str] = set()  # keys of those of which a copy has another diagnosis
    for sample in collection.samples:
        image = facts[sample.image]
        first = None if isinstance(image, str) else used.get(image["sha256"])
        if isinstance(image, str):
            problems.append(Problem(sample.image, image))
        elif first:
            problems.append(_take_copy(sample, first, task, doubtful))
        elif not sample.truth(task):
            if sample.image.parent not in bare:
                problems.append(Problem(sample.image, f"image without {TRUTHS[task]}"))
        elif task == "attributes" and len(sample.attributes) < len(ATTRIBUTES):
            pass  # of which the collection's own problems tell
        elif with_boundary and sample.mask is None:
            problems.append(Problem(sample.image, "image without a mask of the lesion"))
        elif faults := _mask_faults(sample, facts, task, with_boundary, collection.layout):
            problems += faults
        else:
            used[image["sha256"]] = sample
            remember_content(sample.image, image["sha256"])
            sound.append(sample)
    return [sample for sample in sound if sample.key not in doubtful], problems


def _contradict(sample: Sample, first: Sample, task: str) -> bool:
    """Whether two names of one image have two diagnoses."""
    both = None not in (sample.diagnosis, first.diagnosis)
    return task == "diagnosis" and both and sample.diagnosis != first.diagnosis


def _duplicate(sample: Sample, first: Sample, task: str) -> str:
    name = first.image.name if first.image.parent == sample.image.parent else first.image
    if not _contradict(sample, first, task):
        said = f"duplicate: the same bytes as {name}"
        known = None not in (sample.lesion_id, first.lesion_id)
        if known and ("lesion", sample.lesion_id) not in first.known_by:
            said += (
                f"; lesion {first.lesion_id} there and {sample.lesion_id} here are taken for one"
            )
        return said
    left = "neither is" if first.collection == sample.collection else "this one is not"
    return (
        f"duplicate: the same bytes as {name}, and another diagnosis ({first.diagnosis} there, "
        f"{sample.diagnosis} here): {left} used"
    )


def _folders_without(task: str, samples: list[Sample]) -> dict[Path, int]:
    """Image folders none of whose images has a truth: one problem instead of thousands."""
    count = Counter(sample.image.parent for sample in samples)
    known = {sample.image.parent for sample in samples if sample.truth(task)}
    return {folder: n for folder, n in count.items() if folder not in known and n > 1}


def _masks_of(sample: Sample, task: str, with_boundary: bool) -> list[Path]:
    attributes = sample.attributes.values() if task == "attributes" else ()
    boundary = task == "boundary" or with_boundary
    return [*attributes, *([sample.mask] if boundary and sample.mask is not None else [])]


def _warn_of_turned(name, samples, facts, task, with_boundary):
    """Tells of masks that may be of an image as it is stored, which their sizes do not say."""
    doubtful = []
    for sample in samples:
        image, masks = facts[sample.image], _masks_of(sample, task, with_boundary)
        square = image["height"] == image["width"]
        if image["orientation"] in _HALF_TURNED or (square and image["orientation"] != 1):
            if any(image_orientation(mask) == 1 for mask in masks):
                doubtful.append(sample.image)
    if doubtful:
        logger.warning(
            "%s: %d images are turned as their files say (EXIF), such as %s, and their masks say "
            "nothing of it: they are taken to be of the upright image.",
            *(name, len(doubtful), doubtful[0]),
        )


def _mask_faults(sample, facts, task, with_boundary, layout) -> list[Problem]:
    image = facts[sample.image]
    layout = None if task == "attributes" else layout
    found = {path: facts[path] for path in _masks_of(sample, task, with_boundary)}
    reasons = {path: _mask_fault(mask, image, layout) for path, mask in found.items()}
    return [Problem(path, reason) for path, reason in reasons.items() if reason]


def _mask_fault(mask: dict | str, image: dict, layout: str | None) -> str | None:
    """What is wrong with a mask; of a boundary's in a data set of a `layout`, its extent, too."""
    if isinstance(mask, str):
        return mask
    if (mask["height"], mask["width"]) != (image["height"], image["width"]):
        return (
            f"mask of another size: {mask['width']} x {mask['height']} pixels, "
            f"its image {image['width']} x {image['height']}"
        )
    if layout is not None and mask["cover"] == "all":
        return "all-white mask"
    if layout not in (None, "plain") and mask["cover"] == "none":
        return "empty mask"
    return None


def _examine_image(path: Path) -> dict:
    read_image(path, max_side=_CHECK_SIDE)
    height, width = image_size(path)
    if min(height, width) < MIN_SIDE:
        raise ImageError(f"too small: {width} x {height} pixels, not {MIN_SIDE} or more")
    facts = {"height": height, "width": width, "orientation": image_orientation(path)}
    return {**facts, "sha256": sha256_of(path)}


def _examine_mask(path: Path) -> dict:
    mask = read_mask(path)
    cover = "all" if mask.all() else "some" if mask.any() else "none"
    return {"height": mask.shape[0], "width": mask.shape[1], "cover": cover}


def _examine_all(
    images: list[Path], masks: list[Path], workers: int, record: Path | None
) -> dict[Path, dict | str]:
    """What is known of each file: its facts, or as text what is wrong with it."""
    content = {} if record is None else read_record(record, _RECORD)
    known = content.get("files", {}) if content.get("version") == _RECORD_VERSION else {}
    facts: dict[Path, dict | str] = {}
    stamps: dict[Path, list[int]] = {}
    pending = []
    for paths, examine in ((images, _examine_image), (masks, _examine_mask)):
        for path in paths:
            try:
                stamps[path] = stamp_of(path)
            except OSError as error:
                facts[path] = f"it cannot be read: {error.strerror}"
                continue
            entry = known.get(str(path.resolve()))
            if entry and entry["stamp"] == stamps[path] and entry["check"] == examine.__name__:
                facts[path] = entry["facts"]
            else:
                pending.append((path, examine))
    if not pending:
        return facts
    try:
        with ThreadPoolExecutor(workers) as pool:
            # `disable=None` shows the bar on a terminal only.
            results = pool.map(_examine, pending)
            results = tqdm(results, "Checking", len(pending), unit="file", disable=None)
            for (path, examine), result in zip(pending, results, strict=True):
                facts[path] = result
                if not isinstance(result, str):
                    entry = {"stamp": stamps[path], "check": examine.__name__, "facts": result}
                    known[str(path.resolve())] = entry
    finally:  # what was found before an interruption need not be found again
        if record is not None:
            write_record(record, {"version": _RECORD_VERSION, "files": known}, _RECORD)
    return facts


def _examine(job):
    """The facts of a file, or as text what is wrong with it."""
    path, examine = job
    try:
        return examine(path)
    except (ImageError, OSError) as error:
        return Problem.of(path, error).reason
