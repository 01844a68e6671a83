"""Training, validation and test parts that share neither a lesion nor a patient."""

import functools
import hashlib
import json
import logging
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from lesion.grouping import content_mark, grouped, marks_of
from lesion.samples import Sample, archive_id
from mrcnn.files import write_json

logger = logging.getLogger(__name__)

FRACTIONS = {"train": 0.82, "validation": 0.03, "test": 0.15}
SPLIT_FILE = "split.json"
"""Name of the split beside the weights that were trained with it."""
RUN_FILE = "run.json"
"""Name of the settings of a run, likewise."""

UNLABELLED = "unlabelled"
"""The part of images that were learned from by a teacher's answers alone; few splits have it."""

_FORMAT = "lesion split 1"


class SplitError(ValueError):
    """A split file that cannot be used, or that does not belong to the samples."""


@dataclass(frozen=True)
class Split:
    """Which sample belongs to which part.

    A sample is known by its key, which begins with its folder's name. What weights have learned
    from is also known by its id, where that is one of the ISIC archive, else by its file's content;
    and by its lesion and its patient: they must not be scored on it because somebody calls the
    folder otherwise, or has other images of it.

    Attributes:
        parts: keys (`Sample.key`) by the part's name; no key is in two parts.
        seed: the seed it was drawn with.
        fractions: the share of the images that each part was to have.
        marks: the lesions that a part's images show, by its name, as far as they are known; their
            patients; and the beginning of the SHA-256 of files whose names are their folder's own.
    """

    parts: Mapping[str, list[str]]
    seed: int
    fractions: Mapping[str, float]
    marks: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def collections(self) -> list[str]:
        """Names of the data sets that it was drawn for."""
        return sorted({key.rpartition("/")[0] for key in self._part_by_key})

    def select(self, samples: Iterable[Sample], part: str) -> list[Sample]:
        """The samples of one part, in the order given.

        Samples that the split does not know belong to no part and are counted in a warning.

        Raises:
            SplitError: if there is no such part, or none of the samples is in the split.
        """
        if part not in self.parts:
            raise SplitError(f"The split has no part {part!r}; it has {', '.join(self.parts)}.")
        samples = list(samples)
        unknown = len(samples) - len(self.among(samples))
        if samples and unknown == len(samples):
            raise SplitError(
                "None of the samples is in the split: it was drawn for "
                f"{', '.join(self.collections) or 'nothing'}, the "
                f"samples are of {', '.join(sorted({sample.collection for sample in samples}))}. "
                "Give the data sets it was drawn for, or draw another."
            )
        if unknown:
            logger.warning("%d of %d samples are not in the split: unused.", unknown, len(samples))
        wanted = set(self.parts[part])
        return [sample for sample in samples if sample.key in wanted]

    def among(self, samples: Iterable[Sample]) -> list[Sample]:
        """The samples that the split knows."""
        return [sample for sample in samples if sample.key in self._part_by_key]

    def with_learned(self, earlier: "Split") -> "Split":
        """The same, which also knows what weights learned from before they were trained with it.

        What was to be tested on is no longer.
        """
        parts = _with_learned(self.parts, earlier.parts, self._parts_of_key)
        marks = _with_learned(self.marks, earlier.marks, self._parts_of_mark)
        learned = Split(parts, self.seed, self.fractions, marks)
        parts = _without_learned(parts, learned._parts_of_key)
        marks = _without_learned(marks, learned._parts_of_mark)
        both = Split(parts, self.seed, self.fractions, marks)
        return self if both == self else both

    def means(self, other: "Split") -> bool:
        """Whether both have the same parts, copies of learned images left out of the test part."""
        return self.with_learned(self).parts == other.with_learned(other).parts

    def with_marks(self, samples: Iterable[Sample]) -> "Split":
        """The same, which also knows the marks of those samples whose keys it knows."""
        marks = defaultdict(set, {part: set(names) for part, names in self.marks.items()})
        for sample in self.among(samples):
            content = content_mark(sample)
            own = [*marks_of(sample), *([content] if content else [])]
            marks[self._part_by_key[sample.key]].update(own)
        ordered = {part: sorted(names) for part, names in marks.items() if names}
        return Split(self.parts, self.seed, self.fractions, ordered)

    def part_of(self, sample: Sample) -> str | None:
        """The part of a sample by its key, as an image of the ISIC archive, or by its marks.

        Of several one that is learned from.
        """
        parts = [part for part in self._parts_of(sample) if part is not None]
        return next((part for part in parts if part != "test"), parts[0] if parts else None)

    def has_learned(self, sample: Sample) -> bool:
        """Whether a training on this split has seen an image, or another of its lesion or patient.

        Be it to learn, to choose or to calibrate.
        """
        return _any_learned(self._parts_of(sample))

    def _parts_of(self, sample):
        yield from self._parts_of_key(sample.key)
        for mark in marks_of(sample):
            yield from self._parts_of_mark(mark)
        if self.knows_files and sample.key not in self._part_by_key:
            yield from self._parts_of_mark(content_mark(sample))

    def _parts_of_key(self, key):
        return self._part_by_key.get(key), self._part_by_id.get(archive_id(key.rpartition("/")[2]))

    def _parts_of_mark(self, name):
        return (self._part_by_mark.get(name),)

    @functools.cached_property
    def _part_by_id(self):
        ids = {
            part: filter(None, (archive_id(key.rpartition("/")[2]) for key in keys))
            for part, keys in self.parts.items()
        }
        return _part_by(ids)

    @functools.cached_property
    def _part_by_mark(self):
        return _part_by(self.marks)

    @functools.cached_property
    def knows_files(self) -> bool:
        """Whether it knows what is in files whose names are their folder's own."""
        return any(name.startswith("sha256 ") for names in self.marks.values() for name in names)

    @functools.cached_property
    def _part_by_key(self):
        return _part_by(self.parts)

    def save(self, path: str | Path) -> None:
        """Writes the split as JSON."""
        content = {
            "format": _FORMAT,
            "seed": self.seed,
            "fractions": dict(self.fractions),
            "parts": {name: list(keys) for name, keys in self.parts.items()},
            **({"marks": dict(self.marks)} if self.marks else {}),
        }
        write_json(path, content, durable=True)  # as the weights beside it are

    @classmethod
    def load(cls, path: str | Path) -> "Split":
        """Reads a file that `save` wrote; SplitError says what is wrong with any other."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise SplitError(f"The split {path} cannot be read: {error.strerror}.") from error
        except (ValueError, RecursionError) as error:
            raise SplitError(f"The split {path} is no JSON text: {error}.") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise SplitError(f'The file {path} is no split: it lacks "format": "{_FORMAT}".')
        parts, seed, fractions = (content.get(key) for key in ("parts", "seed", "fractions"))
        if not isinstance(seed, int):
            raise SplitError(f"The split {path} must have a whole number as seed, not {seed!r}.")
        marks = content.get("marks", content.get("lesions", {}))  # once of lesions alone
        if not (isinstance(fractions, dict) and _are_names_by_part(parts)):
            raise SplitError(
                f"The split {path} must hold `fractions` by part and lists of keys by part."
            )
        if not _are_names_by_part(marks):
            raise SplitError(f"The split {path} must hold lists of names by part as `marks`.")
        # As names of files are known since letters with marks are single characters in them.
        parts = {part: [unicodedata.normalize("NFC", k) for k in of] for part, of in parts.items()}
        times = Counter(key for keys in parts.values() for key in keys)
        twice = [key for key, count in times.items() if count > 1]
        if twice:
            raise SplitError(f"The split {path} lists {twice[0]} more than once.")
        return cls(parts, seed, fractions, marks)


def _any_learned(parts):
    """Whether one of several parts, of which None is none, is learned from."""
    return any(part not in (None, "test") for part in parts)


def _part_by(names):
    """By each name the part that it is in; of several that which is learned from the most."""
    rank = {"test": 0, "validation": 1, UNLABELLED: 2}
    ordered = sorted(names.items(), key=lambda item: rank.get(item[0], len(rank)))
    return {name: part for part, of_part in ordered for name in of_part}


def _with_learned(names, earlier, parts_of):
    """Names by part, and those of an earlier training's that none of these is learned from by."""
    both = dict(names)
    for part, others in earlier.items():
        added = {name for name in others if not _any_learned(parts_of(name))}
        if added and part != "test":
            part = UNLABELLED if part == UNLABELLED else "train"
            both[part] = sorted({*both.get(part, ()), *added})
    return both


def _without_learned(names, parts_of):
    """Names by part; of those to test on, only what no other part has."""
    tested = names.get("test")
    kept = tested and [name for name in tested if not _any_learned(parts_of(name))]
    return {**names, "test": kept} if tested else names


def knows_any(path: str | Path, samples: Iterable[Sample]) -> bool:
    """Whether a split file has any of the samples in one of its parts.

    Whoever scores weights on the data they were trained on must leave out what they have seen.
    """
    return bool(Split.load(path).among(samples))


def _are_names_by_part(parts: object) -> TypeGuard[dict[str, list[str]]]:
    return isinstance(parts, dict) and all(
        isinstance(keys, list) and all(isinstance(key, str) for key in keys)
        for keys in parts.values()
    )


def split_samples(
    samples: Sequence[Sample],
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
) -> Split:
    """Divides samples at random into parts that share neither a lesion nor an image.

    Images of one lesion stay together, as do those of one patient, and those of one id of the ISIC
    archive in several collections; where neither is known, an image stands for itself. Every
    collection and diagnosis is divided in the given fractions of its images, as far as whole
    lesions allow; what rounding leaves over is made up for in the next, so that many small ones do
    not all fall to the largest part. The result depends on the samples, the fractions and the seed,
    not on the order of the samples.

    Raises:
        ValueError: if the fractions do not sum to 1, or two samples have one key.
    """
    if any(share < 0 for share in fractions.values()) or not math.isclose(
        math.fsum(fractions.values()), 1, abs_tol=1e-6
    ):
        raise ValueError(f"`fractions` must be at least 0 and sum to 1; received {fractions}.")
    times = Counter(sample.key for sample in samples)
    twice = [key for key, count in times.items() if count > 1]
    if twice:
        raise ValueError(
            f"Two samples are called {min(twice)}; give their collections different names."
        )

    strata: dict[tuple, list[list[str]]] = defaultdict(list)
    for group in grouped(samples):
        labels = {(sample.collection, sample.diagnosis or "") for sample in group}
        strata[tuple(sorted(labels))].append(sorted(sample.key for sample in group))

    parts: dict[str, list[str]] = {name: [] for name in fractions}
    # Images that each part may still take.
    due = dict.fromkeys(fractions, 0.0)
    for _, groups in sorted(strata.items()):
        size = sum(len(group) for group in groups)
        for name, share in fractions.items():
            due[name] += share * size
        for group in sorted(groups, key=lambda keys: _draw(seed, keys[0])):
            name = max(due, key=due.__getitem__)
            parts[name] += group
            due[name] -= len(group)
    for name, keys in parts.items():
        keys.sort()
        if fractions[name] and not keys:
            logger.warning("The part %r of the split is empty: too few samples.", name)
    return Split(parts, seed, dict(fractions))


def split_by_parts(
    samples: Sequence[Sample], fractions: Mapping[str, float], seed: int = 0
) -> Split:
    """As `split_samples`, but the parts that a challenge has set apart remain apart.

    Samples of its validation and test parts belong to these, as do all others of their groups.
    Where a data set has such a part, no other sample of it is put there.
    """
    apart = defaultdict(set)  # by collection
    for sample in samples:
        if sample.part in ("validation", "test"):
            apart[sample.collection].add(sample.part)
    parts: dict[str, list[str]] = {name: [] for name in fractions}
    free: dict[tuple, list[Sample]] = defaultdict(list)
    for group in grouped(samples):
        fixed = {sample.part for sample in group}
        name = next((name for name in ("test", "validation") if name in fixed), None)
        if name:
            parts[name] += [sample.key for sample in group]
        else:
            taken = set().union(*(apart[sample.collection] for sample in group))
            free[tuple(sorted(taken))] += group
    for taken, group in sorted(free.items()):
        left = {name: 0.0 if name in taken else share for name, share in fractions.items()}
        total = math.fsum(left.values())
        drawn = split_samples(group, {name: share / total for name, share in left.items()}, seed)
        for name, keys in drawn.parts.items():
            parts[name] += keys
    return Split({name: sorted(keys) for name, keys in parts.items()}, seed, dict(fractions))


def learned_keys(splits: Sequence[Split], samples: Sequence[Sample]) -> set[str]:
    """Keys of samples that trainings on these splits have seen, or others of their group."""
    return {
        sample.key
        for group in grouped(samples)
        if any(split.has_learned(sample) for split in splits for sample in group)
        for sample in group
    }


def carried_over(
    split: Split, samples: Sequence[Sample], fractions: Mapping[str, float], seed: int = 0
) -> Split | None:
    """A split's parts for the samples that it knows; the rest is drawn.

    Images of the ISIC archive are known in folders of other names, too. Lesions stay together: with
    the part that learned from one of their images, if any did. Where nothing is to be tested on by
    the fractions, what was is learned from, but for the test part of a challenge.

    Returns:
        None if the split has none of the images.
    """
    parts: dict[str, list[str]] = {name: [] for name in fractions}
    rest: list[Sample] = []
    for group in grouped(samples):
        own = {split.part_of(sample) for sample in group}
        if UNLABELLED in own:  # learned from without a diagnosis, which they have here
            own.add("train")
        name = next((name for name in fractions if name in own), None)  # the training's first
        if name == "test" and not fractions["test"] and all(s.part != "test" for s in group):
            name = "train"
        if name is None:
            rest += group
        else:
            parts[name] += [sample.key for sample in group]
    if len(rest) == len(samples):
        return None
    for name, keys in split_by_parts(rest, fractions, seed).parts.items():
        parts[name] += keys
    return Split({name: sorted(keys) for name, keys in parts.items()}, seed, dict(fractions))


def _draw(seed: int, key: str) -> bytes:
    """A random sort key: the same on every machine and with every version of every library."""
    return hashlib.sha256(f"{seed}|{key}".encode("utf-8", "surrogateescape")).digest()
