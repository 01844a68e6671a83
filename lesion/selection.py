"""Which samples are scored: above all none that the weights have learned from."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from lesion.checks import find_copies
from lesion.layouts import find_collections
from lesion.samples import Collection, DatasetError, Problem, Sample, said_of
from lesion.splits import Split, SplitError, learned_keys
from lesion.weights import own_split, splits_beside, weights_path

EVERYTHING = "none"
"""The split that leaves nothing out."""
# What data sets and split files call the part that is trained on differs.
PART_NAMES = {"train": "training", "validation": "validation", "test": "test"}

_UNLISTED = (
    "Left out: {} images in folders of the training that its split does not list: unsound then, or "
    "new. New ones belong into a folder of another name; --split=none --part=test scores a test "
    "part of the challenge's own."
)
_SHOWN = 3  # problems named where a run ends at once
_MASKS = {"boundary": "lesion mask", "attributes": "mask of an attribute"}


@dataclass(frozen=True)
class Selection:
    """Samples to be scored.

    Attributes:
        samples: in the order of the data sets.
        part: of the split, or of the challenge; `all` where there is none.
        split: the file that decided, if one did.
        left_out: number of samples left out because the weights learned from their lesions.
        unused: number of samples left out because the split does not know them.
        elsewhere: number of those, of data sets of which it knows nothing.
        learned: number of `samples` from whose lesions the weights have learned nevertheless.
        without_split: weights with no split beside them: nobody knows what they have learned from.
        namesakes: number of `samples` called as images of folders that were learned from, in data
            sets of which the splits know none, and most are called so: it may be the same folder
            under another name.
        copies: images that are not scored because their files are copies of others', each with its
            reason.
    """

    samples: list[Sample]
    part: str
    split: Path | None
    left_out: int = 0
    unused: int = 0
    elsewhere: int = 0
    learned: int = 0
    without_split: tuple[Path, ...] = ()
    namesakes: int = 0
    copies: tuple[Problem, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether it is known what of the samples the weights have learned from."""
        return not (self.without_split or self.namesakes)


def select(
    datasets: Sequence[str],
    task: str,
    weights: Sequence[str],
    split: str | None = None,
    part: str | None = None,
    limit: int | None = None,
    predicts: bool = False,
) -> tuple[list[Collection], Selection]:
    """The data sets, and what of them is scored.

    Without `split` and `part` that is what the weights have not learned from: the test part of the
    split beside them, and data sets that this split does not know. In those that it knows it left
    images out that were unsound, among them copies of others: what it does not list is not scored.
    Of files with the same bytes one is scored, as one is learned from. Where predictions are
    wanted, as those of the diagnosis are, images without a truth are among the samples, too, of the
    part `test` those of the challenge's; and copies, whose truth is taken away.

    Args:
        datasets: folders.
        task: one of `lesion.samples.TASKS`.
        weights: as `lesion.weights.weights_path` takes them.
        split: a split file, or "none" for all samples.
        part: of the split, by default `test`; without any split a part of the challenge.
        limit: number of samples of each data set, first of those that are scored; None: all.
        predicts: as for `require_truths`.

    Raises:
        lesion.samples.DatasetError: see `lesion.layouts.find_collections`.
        SplitError: if the split cannot be used.
        FileNotFoundError: for weights given by a word that are not there.
    """
    collections = find_collections(datasets, task=task)
    paths = [weights_path(each, task) for each in weights]
    splits = splits_beside(paths)
    beside = [own_split(path) for path in paths]
    known = {file for file in splits if splits[file].among(_all(collections))}
    own = [] if split else [file for file in beside if file in known]
    if own and part:
        _require_one_test_part([splits[file] if file in known else None for file in beside])
    file = Path(split) if split not in (None, EVERYTHING) else next(iter(own), None)
    if file is None and part:
        try:
            collections = find_collections(datasets, PART_NAMES[part], task=task)
        except DatasetError as error:
            names = sorted({name for each in splits.values() for name in each.collections})
            way = f" The weights' split knows folders called {', '.join(names)}." if names else ""
            raise DatasetError(f"{error}{way}") from error
    everything = _all(collections)
    learned = learned_keys(list(splits.values()), everything)
    without_truth = set()  # of which nothing but their predictions is wanted
    predicts = predicts or task == "diagnosis"
    if predicts:
        without_truth = {s.key for s in everything if not s.truth(task)} - learned
    if file and (split or part):
        chosen = Split.load(file) if split else splits[file]
        selection = _of_part(collections, chosen, part or "test", limit, without_truth)
    else:
        own_splits, left_out = [splits[each] for each in own], set() if split else learned
        selection = _unlearned(collections, own_splits, part, limit, left_out, without_truth)
    named = [splits[each] for each in beside if each]
    unscored, copies = find_copies(selection.samples, task)
    samples = [s.without_truth() if s.key in unscored else s for s in selection.samples]
    if not predicts:
        samples = [sample for sample in samples if sample.key not in unscored]
    return collections, replace(
        selection,
        samples=samples,
        copies=tuple(copies),
        split=file,
        learned=sum(sample.key in learned for sample in samples),
        without_split=tuple(p for p, each in zip(paths, beside, strict=True) if each is None),
        namesakes=0 if split else _namesakes(named, samples),
    )


def _of_part(collections, split, part, limit, without_truth):
    """The samples of a split's part; of `test` also the challenge's without a truth."""
    samples = _all(collections)
    unlisted = {s.key for s in samples} - {s.key for s in split.among(samples)}
    tested = set()
    if part == "test":
        tested = {s.key for s in samples if s.part == "test"} & without_truth & unlisted
    unused = unlisted - tested
    chosen = select_samples(collections, split, part, limit, also=tested, last=without_truth)
    elsewhere = unused - _unknown([split], samples)
    return Selection(chosen, part, None, unused=len(unused), elsewhere=len(elsewhere))


def _unlearned(collections, splits, part, limit, learned, without_truth):
    """All samples but those learned from, and those that the weights' splits should know."""
    unknown = _unknown(splits, _all(collections)) - learned - without_truth
    chosen = select_samples(collections, None, "all", limit, learned | unknown, last=without_truth)
    scored = {sample.key for sample in chosen} - without_truth
    tested = set(splits[0].parts.get("test", ())) if splits else set()
    part = part or ("test" if scored and scored <= tested else "all")
    return Selection(chosen, part, None, len(learned), len(unknown))


def _namesakes(splits, samples):
    """How many samples have names of images that weights learned from."""
    # Where the files themselves are known, names say nothing.
    nameless = [split for split in splits if not split.knows_files]
    parts = [split.parts.get(part, ()) for split in nameless for part in ("train", "validation")]
    names = {key.rpartition("/")[2] for keys in parts for key in keys}
    known = {sample.collection for split in splits for sample in split.among(samples)}
    count = 0
    for name in {sample.collection for sample in samples} - known:
        own = [sample.image_id for sample in samples if sample.collection == name]
        alike = sum(each in names for each in own)
        count += alike if 2 * alike > len(own) else 0
    return count


def select_samples(
    collections: Sequence[Collection],
    split: Split | None,
    part: str,
    limit: int | None,
    learned: Set[str] = frozenset(),
    also: Set[str] = frozenset(),
    last: Set[str] = frozenset(),
) -> list[Sample]:
    """The samples of a split's part, or all of them, and of each data set the first.

    Args:
        collections: the data sets.
        split: whose `part` is taken; None takes all samples.
        part: a name of the split's.
        limit: number of samples of each data set; None: all.
        learned: keys of samples that are left out.
        also: keys of samples that are taken though the split does not know them.
        last: keys of samples that are taken where the others are fewer than the limit.
    """
    samples = _all(collections)
    if split is not None:
        known = split.select([sample for sample in samples if sample.key not in also], part)
        chosen = {sample.key for sample in known} | also
        samples = [sample for sample in samples if sample.key in chosen]
    samples = [sample for sample in samples if sample.key not in learned]
    if limit is None:
        return samples
    limited = []
    for collection in collections:
        own = [sample for sample in samples if sample.collection == collection.name]
        taken = {s.key for s in sorted(own, key=lambda sample: sample.key in last)[:limit]}
        limited += [sample for sample in own if sample.key in taken]
    return limited


def require_truths(
    collections: Sequence[Collection], selection: Selection, task: str, predicts: bool = False
) -> None:
    """Raises ValueError where there is nothing to be scored, with the way out.

    Args:
        predicts: whether images without a truth are of use, too, as their predictions are written.
            Those of the diagnosis always are.
    """
    problems = [f"\n{_named(c, p)}" for c in collections for p in c.problems]
    first = "".join(problems[:_SHOWN])
    if not selection.samples and selection.left_out:
        new = f" {_UNLISTED.format(selection.unused)}" if selection.unused else ""
        raise ValueError(
            f"The weights have learned from all {selection.left_out} images that their split "
            "knows, or from others of their lesions. Give others; --part=validation scores those "
            f"that they were chosen and calibrated by, if any, --split=none scores all.{new}"
        )
    if not selection.samples:
        raise ValueError(f"Part {selection.part!r} has no image.")
    if predicts or any(sample.truth(task) for sample in selection.samples):
        return
    count = len(selection.samples)
    if task != "diagnosis":
        raise ValueError(
            f"None of the {count} samples of part {selection.part!r} has a {_MASKS[task]} to "
            f"compare with; give a data set or a split that has some.{first}"
        )
    unfit = [each for each in collections if not any(sample.diagnosis for sample in each.samples)]
    if listed := sum(collection.diagnoses_listed for collection in unfit):
        raise ValueError(
            f"The tables list {listed} diagnoses, and none of them is one of the seven and of "
            f"one of these {count} images.{first}"
        )


def _named(collection, problem):
    return f"Data set {collection.name}: {problem}"


def notes_on(
    collections: Sequence[Collection], selection: Selection, task: str, by_request: bool
) -> tuple[list[str], list[str]]:
    """What is scored, as lines of text, and what is wrong or not known, likewise.

    Args:
        task: one of `lesion.samples.TASKS`.
        by_request: whether the user has named the split.
    """
    wrong = [_named(each, line) for each in collections for line in said_of(each.problems)]
    wrong += said_of(selection.copies)
    said = [_named(each, line) for each in collections for line in said_of(each.notes)]
    without_truth = sum(not sample.truth(task) for sample in selection.samples)
    if task == "diagnosis" and without_truth:
        wrong, said = wrong + said, []  # what is said of tables tells why, if anything does
        count = len(selection.samples)
        end = ": nothing will be scored" if without_truth == count else ""
        copies = " or are copies" if selection.copies else ""
        wrong.append(
            f"{without_truth:,} of {count:,} images have no diagnosis to compare with{copies}, and "
            f"are only predicted{end}."
        )
    wrong += [
        f"No split lies beside {path}: whether it has learned from these images is not known."
        for path in selection.without_split
    ]
    if not (selection.is_known or selection.without_split):
        wrong.append(
            f"{selection.namesakes} of these {len(selection.samples)} images are called as images "
            "that the weights learned from in a folder of another name. If it is the same folder, "
            "call it what it was called: the scores are too good."
        )
    if selection.split and selection.left_out:
        said.append(f"Scoring what these weights have not learned from, by {selection.split}.")
    if selection.left_out:
        said.append(
            f"Left out: {selection.left_out} images of lesions that these weights learned from."
        )
    if selection.unused and by_request:
        said.append(f"Left out: {selection.unused} images that the split does not know.")
    elif unlisted := selection.unused - selection.elsewhere:
        said.append(_UNLISTED.format(unlisted))
    if selection.elsewhere and not by_request:
        said.append(
            f"Left out: {selection.elsewhere} images of data sets that the split does not know; "
            "without --part, those are scored that were not learned from."
        )
    if selection.learned:
        said.append(
            f"Of these {len(selection.samples)} images the weights have seen {selection.learned} "
            "in training or validation, or others of their lesions: the scores are too good."
        )
    return said, wrong


def _all(collections):
    return [sample for collection in collections for sample in collection.samples]


def _unknown(splits, samples):
    """Keys of samples in none of the splits, whose data set some of these know."""
    known = {sample.key for split in splits for sample in split.among(samples)}
    names = {sample.collection for sample in samples if sample.key in known}
    return {s.key for s in samples if s.collection in names and s.key not in known}


def _require_one_test_part(splits):
    """Raises SplitError if a part by name would be another for each of several weights."""
    tests = [split and set(split.parts.get("test", [])) for split in splits]
    if any(test != tests[0] for test in tests):
        raise SplitError(
            "The weights were trained with splits of different test parts, so that some have "
            "learned from what others are tested on. Leave out --part, or give --split."
        )
