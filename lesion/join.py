"""Makes one ensemble of classifiers that were trained on one split, and calibrates their mean.

python lesion/join.py --weights=PATH --weights=PATH --dataset=DIR --out=FOLDER
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from lesion import NOTICE
from lesion.layouts import find_collections
from lesion.options import add_datasets
from lesion.printing import CommandParser
from lesion.splits import SPLIT_FILE, Split, SplitError
from lesion.stopping import stoppable
from lesion.weights import (
    find_weights,
    member_files,
    require_different,
    split_of,
    write_ensemble,
)
from mrcnn.files import require_writable

TASK = "diagnosis"


def join(weights: Sequence[str | Path], datasets: Sequence[str | Path], out: str | Path) -> Path:
    """Writes `ensemble.json` and the split of its members into a folder; returns the former's path.

    Args:
        weights: checkpoints in the folders of their runs, "last", or files that name such.
        datasets: that they were trained on, for the images of their validation part.
        out: the folder.

    Raises:
        lesion.splits.SplitError: if the members were trained on different splits, or have no
            validation part, or the data sets lack images of it; if the folder has another split.
        ValueError: if there is only one, or one of them twice.
        mrcnn.weights.WeightsError: as `lesion.weights.member_files` and `find_weights`, and if a
            member is not at the end of its training.
        FileNotFoundError: likewise.
    """
    members = member_files(weights, TASK)
    if len(members) < 2:
        raise ValueError(
            f"An ensemble takes at least two networks, received {', '.join(map(str, members))}."
        )
    for path in members:
        find_weights(path, TASK)
    require_different(members)
    collections = find_collections(datasets, task=TASK)
    samples = [sample for collection in collections for sample in collection.samples]
    split = _common_split(members, samples)
    known = {sample.key: sample for sample in samples}
    missing = [key for key in split.parts.get("validation", []) if key not in known]
    if missing:
        raise SplitError(
            f"{len(missing)} images of the validation part, such as {missing[0]}, are not in "
            f"{', '.join(map(str, datasets))}. Give all data sets of the training."
        )
    validation = split.select(samples, "validation")
    if not validation:
        raise SplitError(
            f"The split of {members[0]} has no validation part, and without images that no member "
            "learned from their mean cannot be calibrated."
        )
    if bare := sum(sample.diagnosis is None for sample in validation):
        raise SplitError(
            f"{bare} of the {len(validation)} images of the validation part have no diagnosis in "
            f"{', '.join(map(str, datasets))}. Give the tables of the training, too."
        )
    out = Path(out)
    kept = out / SPLIT_FILE
    if kept.exists() and Split.load(kept).parts != split.parts:
        raise SplitError(
            f"{kept} is the split of something else, which would be tested on what it has learned "
            "from. Give a folder of its own by --out."
        )
    names = [Path(os.path.relpath(path.resolve(), out.resolve())).as_posix() for path in members]
    # TensorFlow is loaded here and not above, so that a mistyped command answers at once.
    from lesion.ensemble import plain
    from lesion.members import fit_jointly

    require_writable(out)
    calibrations = fit_jointly(members, validation)
    out.mkdir(parents=True, exist_ok=True)
    split.save(kept)
    write_ensemble(out / "ensemble.json", TASK, names, plain(calibrations))
    return out / "ensemble.json"


def _common_split(members, samples):
    splits = {}
    for path in members:
        found = split_of(path, samples)
        if found is None:
            raise SplitError(
                f"There is no split beside {path} that knows the images of the data sets. Give a "
                "checkpoint in the folder of its run, and the data sets it was trained on."
            )
        splits[path] = Split.load(found)
    first = splits[members[0]]
    for path, split in splits.items():
        # A start or a teacher may have learned from more; that is in no part that anyone is tested
        # on.
        if _held_out(split) != _held_out(first):
            raise SplitError(
                f"{path} was trained on another split than {members[0]}: what one may be tested "
                "on the other has learned from. Train them with one --split."
            )
    for split in splits.values():
        first = first.with_learned(split)
    return first


def _held_out(split):
    return [sorted(split.parts.get(part, ())) for part in ("validation", "test")]


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="lesion join",
        description="Makes one ensemble of classifiers that were trained on one split.",
    )
    parser.add_argument(
        "--weights",
        action="append",
        required=True,
        metavar="PATH",
        help='checkpoint in the folder of its run, "last", or an ensemble.json; repeatable',
    )
    add_datasets(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for ensemble.json")
    return parser


@stoppable
def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    print(NOTICE)
    try:
        print(f"Ensemble: {join(arguments.weights, arguments.dataset, arguments.out)}")
    except (OSError, ValueError) as error:
        print(f"lesion join: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
