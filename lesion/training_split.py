"""What a training learns from: the split it draws, is given, or goes on with."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lesion.samples import Sample
from lesion.splits import SPLIT_FILE, Split, carried_over, learned_keys, split_by_parts
from lesion.weights import learned_by, own_split, split_of

logger = logging.getLogger(__name__)


def choose_split(
    arguments: argparse.Namespace, samples: Sequence[Sample], task: Any, last: str | None = None
) -> Split:
    """The split of a training. It knows all that its start weights have learned from, too.

    Args:
        arguments: of `lesion train`.
        samples: all that are sound.
        task: the module of the task, with `FRACTIONS` and `STARTS`.
        last: the checkpoint that a run goes on from, if it does.

    Raises:
        ValueError: if `--split` is another than the run has learned by so far, or scores start
            weights on what they have learned from.
        lesion.splits.SplitError: if a split file cannot be used.
    """
    begun = Path(last).parent / SPLIT_FILE if last else None
    if begun and begun.exists():
        return _kept(arguments, begun)
    start = None if last or arguments.weights in task.STARTS else Path(arguments.weights)
    if arguments.split:
        return _given(arguments, samples, start)
    fractions = dict(task.FRACTIONS)
    fractions["train"] += fractions["test"] - arguments.test_share
    fractions["test"] = arguments.test_share
    earlier = learned_before(start)
    if not earlier:
        return split_by_parts(samples, fractions, arguments.split_seed)
    if split_of(start, samples):
        logger.info("The split is that of %s.", start)
        return earlier
    carried = carried_over(earlier, samples, fractions, arguments.split_seed)
    if carried:
        logger.info("The split is that of %s, as far as it knows the images.", start)
    split = carried or split_by_parts(samples, fractions, arguments.split_seed)
    return split.with_learned(earlier)


def _kept(arguments, begun):
    """The split of a run that goes on, which no other may take the place of."""
    kept = Split.load(begun)
    if arguments.split and Split.load(arguments.split).with_learned(kept).parts != kept.parts:
        raise ValueError(
            f"--split={arguments.split} is another split than {begun}, by which this run has "
            "learned so far. Leave it out, or start a run from its weights by --weights=PATH."
        )
    return kept


def _given(arguments, samples, start):
    """The split of `--split`, which may not score start weights on what they have seen."""
    split, earlier = Split.load(arguments.split), learned_before(start)
    if not earlier:
        return split
    trained = Split({"train": earlier.parts.get("train", ())}, earlier.seed, {})
    # To have been chosen by images does not forbid to choose by them again.
    for part, learned in (("validation", trained), ("test", earlier)):
        scored = split.select(samples, part) if part in split.parts else []
        if seen := learned_keys([learned], scored):
            raise ValueError(
                f"--weights={start} has learned from {len(seen)} of the {len(scored)} images that "
                f"the part {part!r} of --split={arguments.split} is to score, or from their "
                "lesions. Move these to its training part, or start from other weights."
            )
    return split.with_learned(earlier)


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
    if not arguments.folds or arguments.weights in starts:
        return
    if seen := learned_by([Path(arguments.weights)], samples):
        raise ValueError(
            f"--weights={arguments.weights} has learned from {len(seen)} of these {len(samples)} "
            "images, on which --folds is to test what starts from it. Start from "
            f"{' or '.join(starts)}, or train --members."
        )
