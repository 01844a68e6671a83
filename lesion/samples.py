"""What is known of a dermoscopic image, and of a collection of them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

TASKS = ("boundary", "attributes", "diagnosis")
# The order is the challenge's in both cases.
ATTRIBUTES = ("pigment_network", "negative_network", "streaks", "milia_like_cyst", "globules")
DIAGNOSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
PARTS = ("training", "validation", "test")
# What a task learns from and is scored by, in words; `Sample.truth` gives it.
TRUTHS = {"boundary": "a mask", "attributes": "attribute masks", "diagnosis": "a diagnosis"}
# Of the ISIC archive, also of copies that are cut, reduced or numbered (`ISIC_0024306_256`). The
# phantoms' begin with 900 and mean other images in every set of them; the archive has few there.
_ARCHIVE_ID = re.compile(r"(?<![a-z0-9])ISIC_(?!900)\d{7}(?!\d)", re.IGNORECASE)


class DatasetError(ValueError):
    """A data set that cannot be read as it lies there."""


@dataclass(frozen=True)
class Sample:
    """One image and what is known about it.

    Attributes:
        collection: name of the data set, unique among those used together.
        image_id: the image's name without its suffix, such as `ISIC_0000001`.
        mask: the lesion's boundary; None where the data set has none for this image.
        attributes: masks of dermoscopic structures by attribute (`ATTRIBUTES`).
        lesion_id: the lesion that is shown, where known; several images may show one.
        diagnosis: one of `DIAGNOSES`.
        metadata: `age`, `sex`, `site`, `confirmation` (of the diagnosis) where known.
        part: the part of the challenge (`PARTS`) that the image belongs to.
        patient_id: whose lesion it is, where known.
        copies_of: further `("lesion", lesion_id)` and `("patient", patient_id)` under which copies
            of the image are listed, which are left out (`lesion.checks`).
    """

    collection: str
    image_id: str
    image: Path
    mask: Path | None = None
    attributes: Mapping[str, Path] = field(default_factory=dict, hash=False)
    lesion_id: str | None = None
    diagnosis: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    part: str | None = None
    patient_id: str | None = None
    copies_of: set[tuple[str, str]] = field(default_factory=set, compare=False)

    @property
    def known_by(self) -> list[tuple[str, str]]:
        """All lesions and patients it is of, in the form of `copies_of`."""
        own = [("lesion", self.lesion_id), ("patient", self.patient_id)]
        named = [(kind, name) for kind, name in own if name is not None]
        return named + sorted(self.copies_of.difference(named))

    @property
    def key(self) -> str:
        """Names the sample among all collections; split files hold these."""
        return f"{self.collection}/{self.image_id}"

    def without_truth(self) -> "Sample":
        """The same image, to be predicted alone."""
        return replace(self, mask=None, attributes={}, diagnosis=None)

    def truth(self, task: str) -> Path | Mapping[str, Path] | str | None:
        """What a task learns from and is scored by; None or empty where it is not known."""
        return {
            "boundary": self.mask,
            "attributes": self.attributes,
            "diagnosis": self.diagnosis,
        }[task]


def archive_id(name: str) -> str | None:
    """The id in the ISIC archive that a file's name, without suffix, holds; None where none."""
    found = _ARCHIVE_ID.search(name)
    return found[0].upper() if found else None


def distinct_names(samples: Sequence[Sample]) -> list[str]:
    """The images' ids, as the challenge lists them; keys where two data sets share an id."""
    ids = [sample.image_id for sample in samples]
    return ids if len(set(ids)) == len(ids) else [sample.key for sample in samples]


@dataclass(frozen=True)
class Problem:
    """Something about a file that its user should know."""

    path: Path
    reason: str

    @classmethod
    def of(cls, path: str | Path, error: Exception) -> "Problem":
        """What an exception says of a file, without the path that its message may begin with."""
        return cls(Path(path), str(error).removeprefix(f"{path}: "))

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"

    def to_dict(self) -> dict[str, str]:
        """As plain values for JSON."""
        return {"path": str(self.path), "reason": self.reason}


_MOST = 20  # lines about one file, or of one kind


def said_of(problems: Sequence[Problem]) -> list[str]:
    """Lines of text about problems.

    Of one file (as of a table's rows) there are no more than 20, and more files than that of
    which the same is to be said, in one folder, are one line.
    """
    alike = Counter((problem.path.parent, problem.reason) for problem in problems)
    shown: list[str] = []
    more: Counter[Path] = Counter()
    for problem in problems:
        count = alike[problem.path.parent, problem.reason]
        if count > _MOST:
            alike[problem.path.parent, problem.reason] = -1
            where, name = problem.path.parent, problem.path.name
            shown.append(f"{where}: {count:,} files, such as {name}: {problem.reason}")
        elif count > 0:
            more[problem.path] += 1
            if more[problem.path] <= _MOST:
                shown.append(str(problem))
    shown += [f"{p}: and {n - _MOST} more such lines" for p, n in more.items() if n > _MOST]
    return [printable(line) for line in shown]


def printable(text: str) -> str:
    """Text with names of files, which need not be Unicode, as a terminal takes it."""
    return text.encode("utf-8", "backslashreplace").decode()


class RowProblems:
    """Rows of tables of which the same is to be said, told of together: there may be thousands."""

    def __init__(self):
        self._rows: dict[tuple[Path, str], list[tuple[int, str]]] = {}

    def add(self, what: str, image_id: str, place: tuple[Path, int]) -> None:
        path, number = place
        self._rows.setdefault((path, what), []).append((number, image_id))

    def problems(self, of_one: str, of_several: str | None = None) -> list[Problem]:
        """One for each kind of row, the most frequent first; `{what}` and `{image}` in them."""
        problems = []
        for (path, what), rows in sorted(self._rows.items(), key=lambda item: -len(item[1])):
            (number, image), count = rows[0], len(rows)
            if count == 1:
                reason = f"line {number}: {of_one.format(what=what, image=image)}"
            else:
                images = f"{count:,} images, such as {image} in line {number},"
                reason = (of_several or of_one).format(what=what, image=images)
            problems.append(Problem(path, reason))
        return problems


@dataclass
class Collection:
    """The samples of one data set.

    Attributes:
        layout: `isic2016`, `isic2017`, `isic2018`, `isic2018-task3`, `isic2019`, `isic2020`,
            `ham10000`, `ph2`, `plain` or `classes`.
        part: one of `PARTS`, or `all`: whatever there is.
        problems: faults found; `--strict` stops at them.
        notes: remarks that are no faults.
        left_out: number of images that were found and are not among `samples`.
        diagnoses_listed: number of rows of its tables that name a diagnosis.
        sizes: number of samples by image size (height, width); filled by `check_samples`.
    """

    name: str
    root: Path
    layout: str
    part: str
    samples: list[Sample]
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    left_out: int = 0
    diagnoses_listed: int = 0
    sizes: Counter = field(default_factory=Counter)
