"""What a training learns from: the split it draws, is given, or goes on with."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lesion.samples import Sample
from lesion.splits import (
    SPLIT_FILE,
    UNLABELLED,
    Split,
    SplitError,
    carried_over,
    learned_keys,
    split_by_parts,
)
from lesion.weights import learned_by, member_files, own_split

logger = logging.getLogger(__name__)


def choose_split(
    arguments: argparse.Namespace, samples: Sequence[Sample], task: Any, last: str | None = None
) -> Split:
    """The split of a training. It knows all that start weights and teacher learned from, too.

    Args:
        arguments: of `lesion train`.
        samples: all that are sound.
        task: the module of the task, with `FRACTIONS` and `STARTS`.
        last: the checkpoint that a run goes on from, if it does.

    Raises:
        ValueError: if `--split` is another than the run has learned by so far, or scores start
            weights, or what a teacher taught, on what these have learned from.
        lesion.splits.SplitError: if a split file cannot be used, or the run's own is missing.
    """
    begun = Path(last).parent / SPLIT_FILE if last else None
    if begun and begun.exists():
        return _kept(arguments, begun)
    if begun and not arguments.split:
        raise SplitError(
            f"{begun} is missing, which says what this run has learned from. Put it back or give "
            f"it by --split, or start a run of its own by --weights={last}."
        )
    sources = _sources(arguments, task, last)
    if arguments.split:
        split = Split.load(arguments.split)
    else:
        split = _drawn(arguments, samples, task, sources)
    for option, earlier in sources:
        _refuse_seen(arguments, option, earlier, split, samples)
        split = split.with_learned(earlier)
    return split


def _sources(arguments, task, last):
    """Splits of what has learned before, each with what it was given as: start and teacher."""
    paths = []
    if not last and arguments.weights not in task.STARTS:
        paths.append((f"--weights={arguments.weights}", Path(arguments.weights)))
    if teacher := getattr(arguments, "teacher", None):
        paths += [(f"--teacher={teacher}", path) for path in member_files([teacher])]
    splits = []  # the members of an ensemble mostly have one in common
    for option, path in paths:
        earlier = learned_before(path)
        if earlier and (option, earlier) not in splits:
            splits.append((option, earlier))
    return splits


def _drawn(arguments, samples, task, sources):
    """The split of what has learned before, as far as it knows the images; the rest is drawn."""
    fractions = dict(task.FRACTIONS)
    fractions["train"] += fractions["test"] - arguments.test_share
    fractions["test"] = arguments.test_share
    for option, earlier in sources:
        known = earlier.among(samples)
        parts = {earlier.part_of(sample) for sample in known}
        divided = any(_seen(earlier, earlier, samples).values())  # as before patients were known
        tested = [s for s in known if earlier.part_of(s) == "test" and s.part != "test"]
        freed = bool(tested) and not arguments.test_share
        if len(known) == len(samples) and UNLABELLED not in parts and not (divided or freed):
            logger.info("The split is that of %s.", option)
            return earlier
        carried = carried_over(earlier, samples, fractions, arguments.split_seed)
        if carried:
            logger.info("The split is that of %s, as far as it knows the images.", option)
            if freed:
                logger.info("What it set aside to test on is learned from now (--test-share=0).")
            return carried
    return split_by_parts(samples, fractions, arguments.split_seed)


def _kept(arguments, begun):
    """The split of a run that goes on, which no other may take the place of."""
    kept = Split.load(begun)
    if arguments.split and not Split.load(arguments.split).with_learned(kept).means(kept):
        raise ValueError(
            f"--split={arguments.split} is another split than {begun}, by which this run has "
            "learned so far. Leave it out, or start a run from its weights by --weights=PATH."
        )
    return kept


def _refuse_seen(arguments, option, earlier, split, samples):
    """ValueError where a split scores images that start weights or a teacher have learned from."""
    for part, seen in _seen(earlier, split, samples).items():
        if seen:
            keys = set(split.parts[part])
            scored = [sample for sample in samples if sample.key in keys]
            named = f" of --split={arguments.split}" if arguments.split else ""
            raise ValueError(
                f"{option} has learned from {len(seen)} of the {len(scored)} images that the part "
                f"{part!r}{named} is to score, or from their lesions. Move these to its training "
                f"part, or take other weights than {option}."
            )


def _seen(earlier, split, samples):
    """By part that a split scores the keys of what an earlier training has learned from."""
    parts, marks = (
        {part: of.get(part, ()) for part in ("train", UNLABELLED)}
        for of in (earlier.parts, earlier.marks)
    )
    # To have been chosen by images does not forbid to choose by them again.
    trained = Split(parts, earlier.seed, {}, marks)
    return {
        part: learned_keys([learned], samples) & set(split.parts.get(part, ()))
        for part, learned in (("validation", trained), ("test", earlier))
    }


def learned_before(start: Path | None) -> Split | None:
    """The split that start weights were trained with, if there are any, and it is known."""
    if start is None:
        return None
    if not (path := own_split(start)):
        logger.warning(
            "No split lies beside %s: what it has learned from is not known, and may be among the "
            "images that this training is scored on.",
            start,
        )
    return Split.load(path) if path else None


def refuse_seen_folds(
    arguments: argparse.Namespace, samples: Sequence[Sample], starts: Sequence[str]
) -> None:
    """Raises ValueError where folds would test start weights on what these have learned from.

    Args:
        arguments: of `lesion train`.
        samples: all that are sound.
        starts: words for start weights that have seen none.
    """
    if not arguments.folds:
        return
    sources = {}
    if arguments.weights not in starts:
        sources[f"--weights={arguments.weights}"] = [Path(arguments.weights)]
    if teacher := getattr(arguments, "teacher", None):
        sources[f"--teacher={teacher}"] = member_files([teacher])
    for option, paths in sources.items():
        if seen := learned_by(paths, samples):
            raise ValueError(
                f"{option} has learned from {len(seen)} of these {len(samples)} images, on which "
                f"--folds is to test what comes of it. Leave {option} out, or train --members."
            )
