"""Which images belong together: those of one lesion, of one patient, or of one number.

They must not be divided between learning and scoring, and are no independent draws.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from lesion.records import stamp_of
from lesion.samples import Collection, Problem, Sample, archive_id
from mrcnn.files import sha256_of

_MANY = 20
"""Images of one lesion: more of them are rather a word for "not known"."""
_MUCH = 0.1
"""Share of the images of one patient, likewise."""
_SHOWN = 3  # names in a message


def grouped(samples: Sequence[Sample], patients: bool = True) -> list[list[Sample]]:
    """Samples that share a lesion, a patient or an image of the ISIC archive, also through others.

    Other names of files mean nothing beyond their data set. (Union-find.)

    Args:
        samples: in any order.
        patients: whether those of one patient belong together, too.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def find(token):
        parent.setdefault(token, token)
        while parent[token] != token:
            parent[token] = parent[parent[token]]
            token = parent[token]
        return token

    def image_of(sample):
        return "image", archive_id(sample.image_id) or sample.key

    for sample in samples:
        for kind, name in sample.known_by:
            if patients or kind != "patient":
                parent[find(image_of(sample))] = find((kind, name))
    found: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        found[find(image_of(sample))].append(sample)
    return list(found.values())


def lesion_groups(samples: Sequence[Sample]) -> list[str]:
    """A name for each sample, the same for those of one lesion; an unknown one is the image's own.

    An image of the ISIC archive that several data sets have is one image.
    """
    return _names(samples, grouped(samples, patients=False))


def independent_groups(samples: Sequence[Sample]) -> list[str]:
    """As `lesion_groups`, and the same name for those of one patient, where these are known."""
    return _names(samples, grouped(samples))


def unit_of(samples: Sequence[Sample]) -> str:
    """In words, what `independent_groups` go by: lesion and patient, as far as these are known."""
    kinds = {"lesion": "lesion_id", "patient": "patient_id"}
    known = [kind for kind, name in kinds.items() if any(getattr(s, name) for s in samples)]
    if not known:
        return "image"
    everywhere = all(sample.lesion_id or sample.patient_id for sample in samples)
    return " and ".join(known) + ("" if everywhere else " where known")


def _names(samples, found):
    names = {sample.key: group[0].key for group in found for sample in group}
    return [names[sample.key] for sample in samples]


def look_at_groups(rows: Mapping[str, dict], path: Path, collection: Collection) -> None:
    """Names lesions and patients that look like a word for "not known", or contradict others.

    Args:
        rows: by image, as `lesion.metadata.read_metadata` returns them.
        path: of the table that they are said to be of.
        collection: to whose notes and problems they are added.
    """
    images = Counter(row["lesion_id"] for row in rows.values() if row["lesion_id"])
    for lesion_id, count in images.items():
        if count > _MANY:
            reason = f"lesion {lesion_id} has {count} images; leave lesion_id empty if not known"
            collection.notes.append(Problem(path, reason))
    if owners := _several_by_lesion(rows, "patient_id"):
        lesion_id, shown = next(iter(owners.items()))
        which = f"{len(owners)} lesions are" if len(owners) > 1 else "one lesion is"
        reason = (
            f"{which} of several patients, such as lesion {lesion_id} of "
            f"{', '.join(shown[:_SHOWN])}{', …' if len(shown) > _SHOWN else ''}: all images of "
            "such a lesion, and of its patients, are taken for one group. Where each patient's "
            f"lesions are numbered anew, name them by both, as {shown[0]}-{lesion_id}"
        )
        collection.problems.append(Problem(path, reason))
    patients = Counter(row["patient_id"] for row in rows.values() if row["patient_id"])
    for patient_id, count in patients.items():
        if count > max(_MANY, _MUCH * len(rows)):
            reason = f"patient {patient_id} has {count} images; leave patient_id empty if not known"
            collection.notes.append(Problem(path, reason))
    for lesion_id, names in _several_by_lesion(rows, "diagnosis").items():
        reason = f"lesion {lesion_id} has several diagnoses: {', '.join(names)}"
        collection.problems.append(Problem(path, reason))


def _several_by_lesion(rows, column):
    """By lesion the values that its images have in a column, sorted, where these are several."""
    values: dict[str, set[str]] = defaultdict(set)
    for row in rows.values():
        if row["lesion_id"] and row[column]:
            values[row["lesion_id"]].add(row[column])
    return {lesion_id: sorted(found) for lesion_id, found in values.items() if len(found) > 1}


def marks_of(sample: Sample) -> list[str]:
    """By which an image is known in whatever folder: its lesion and its patient, where known."""
    return [name if kind == "lesion" else f"patient {name}" for kind, name in sample.known_by]


def content_mark(sample: Sample) -> str | None:
    """By which the file of an image that is not the archive's is known under any other name.

    None where its name says which image it is, or the file cannot be read.
    """
    return None if archive_id(sample.image_id) else _content_mark(sample.image)


def remember_content(path: Path, sha256: str) -> None:
    """Spares `content_mark` a file that has been read already."""
    with contextlib.suppress(OSError):  # it has gone meanwhile
        _known[path, *stamp_of(path)] = f"sha256 {sha256[:16]}"


_known: dict[tuple, str] = {}  # by path, size and time of change; every split that knows files asks


def _content_mark(path: Path) -> str | None:
    try:
        stamp = path, *stamp_of(path)
        if stamp not in _known:
            _known[stamp] = f"sha256 {sha256_of(path)[:16]}"
        return _known[stamp]
    except OSError:
        return None
