"""Scores predictions against the truth with the metrics of the ISIC 2018 challenge.

    python lesion/evaluate.py --dataset=DIR --task=boundary --weights=PATH [--split=FILE]
    python lesion/evaluate.py --dataset=DIR --task=attributes --weights=PATH [--method=semantic]
    python lesion/evaluate.py --dataset=DIR --task=diagnosis --weights=PATH [--views=8] [--risk=0.1]

Prints the scores and writes `evaluation.json` and a table of all images. For the boundary the table
is `jaccard.csv`, with a histogram and a contact sheet of the worst, median and best cases; for the
attributes `attributes.csv`, with a sheet of the worst disagreements; for the diagnosis
`predictions.csv`, with the challenge's `submission.csv`, the confusion matrix, ROC
curves, and how far the probabilities can be trusted. A sample that cannot be read or has no truth
is named, counted and left out; the exit code is then 1. Images without a truth, as those of the
challenge's test parts, are predicted and counted where that is of use: those without a diagnosis
for `submission.csv`, those without masks with `--predictions=DIR`.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import contextlib
from typing import Any

from lesion import NOTICE
from lesion.attribute_thresholds import METHODS
from lesion.evaluation_folder import (
    SUMMARY,
    clear_folder,
    refuse_copy,
    refuse_folder,
    weights_in,
)
from lesion.evaluation_tasks import load_predictor_of, score, write_figures
from lesion.nearby import NearbyAttributes, NearbyDiagnosis
from lesion.options import add_datasets, add_referral, add_views, natural, positive
from lesion.printing import CommandParser
from lesion.samples import TASKS
from lesion.selection import PART_NAMES, notes_on, require_truths, select
from lesion.stopping import stoppable
from lesion.submission import refuse_masks_in
from lesion.weights import NONE, SHIPPED, learned_by, own_split, shipped_weights, weights_path
from lesion.writing import writing_alone
from mrcnn.files import is_stream, require_writable, write_json
from mrcnn.images import ImageError

_SHOWN_WHOLE = (
    "Images are shown whole, while `lesion analyze` shows lesions that are small in them from "
    "nearby: --boundary-weights=lesion does so here."
)
_SHOWN = 20  # masks that could not be written, named one by one
# Options that mean something for one task alone.
_OPTIONS_OF = {
    "attributes": ("method",),
    "diagnosis": ("images_alone", "risk", "melanoma_sensitivity", "heat_maps"),
}


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="lesion evaluate",
        description="Scores predictions with the metrics of the ISIC 2018 challenge.",
    )
    add_datasets(parser)
    parser.add_argument("--task", choices=TASKS, default="boundary", help="what to score")
    parser.add_argument(
        "--weights",
        action="append",
        required=True,
        metavar="PATH",
        help="trained weights, the last run's (last) or those of the project (lesion); of the "
        "diagnosis several, whose probabilities are averaged",
    )
    parser.add_argument(
        "--split",
        metavar="FILE",
        help="split file; default: all but what the weights learned from and other images of its "
        "lesions, by the split beside them; none: score all samples",
    )
    parser.add_argument(
        "--part",
        choices=list(PART_NAMES),
        help="part of the split; without a split the challenge's own part",
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="where evaluation.json, the result, is copied to"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for results, tables and figures (./evaluation/TASK)",
    )
    parser.add_argument(
        "--batch", type=positive, default=8, metavar="N", help="images predicted at once (8)"
    )
    parser.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="score the first N samples of each data set only",
    )
    add_views(parser)
    parser.add_argument(
        "--boundary-weights",
        metavar="PATH",
        help="find attributes and diagnosis of lesions that are small or leave the middle in a "
        "square around them, where these weights see them, as `lesion analyze` does; default: "
        "lesion for --weights=lesion, or else none",
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="DIR",
        help="also write the predicted masks, named as the challenge wants them, of images without "
        "a mask to compare with, too; of the diagnosis submission.csv in --out has all",
    )
    attributes = parser.add_argument_group("attributes")
    attributes.add_argument(
        "--method",
        choices=METHODS,
        default="combined",
        help="what the masks are made of; the table shows all (combined)",
    )
    diagnosis = parser.add_argument_group("diagnosis")
    diagnosis.add_argument(
        "--images-alone",
        action="store_true",
        help="score as if nothing was known of the patients",
    )
    add_referral(diagnosis, risk=0.1)
    diagnosis.add_argument(
        "--heat-maps",
        type=natural,
        default=0,
        metavar="N",
        help="draw Grad-CAM++ maps, a debugging aid, of the N most confident mistakes (0)",
    )
    return parser


def name_and_hash(predictor: Any) -> dict[str, str]:
    """By which a result names the weights it is of."""
    model = predictor.describe()
    return {"name": model["weights"], "sha256": model["sha256"]}


def _write_summary(arguments, summary):
    earlier = weights_in(arguments.out)
    own = arguments.out / SUMMARY
    paths = [own] if arguments.json in (None, own) else [own, arguments.json]
    for path in paths:
        write_json(path, summary)
    if earlier:
        clear_folder(arguments.out, arguments.task)
        print(f"Replaced in {arguments.out}: the results of {earlier}.")
    return paths


def _refuse(parser, arguments):
    """Ends the command where options contradict one another, or paths are of the wrong kind."""
    if arguments.task != "diagnosis" and len(arguments.weights) > 1:
        parser.error(f"--weights can be given once for --task={arguments.task}.")
    if arguments.task == "boundary" and arguments.boundary_weights:
        parser.error("--boundary-weights is for the other tasks; --weights are the boundary's own.")
    if arguments.heat_maps and arguments.boundary_weights not in (None, NONE):
        parser.error("--heat-maps are of whole images; give them without --boundary-weights.")
    if arguments.task == "diagnosis" and arguments.predictions:
        parser.error("--predictions is for masks; submission.csv in --out has all diagnoses.")
    for task, names in _OPTIONS_OF.items():
        given = [n for n in names if getattr(arguments, n) != parser.get_default(n)]
        if given and task != arguments.task:
            option = given[0].replace("_", "-")
            parser.error(f"--{option} is for --task={task}, not for --task={arguments.task}.")
    if arguments.json and arguments.json.is_dir():
        parser.error(f"--json {arguments.json} is a folder; name a file.")
    arguments.out = arguments.out or Path("evaluation") / arguments.task
    if arguments.out.exists() and not arguments.out.is_dir():
        parser.error(f"--out {arguments.out} is a file; give a folder.")
    copy = arguments.json
    among = copy and copy.resolve().parent == arguments.out.resolve()
    if among and copy.suffix in (".csv", ".png"):
        parser.error(f"--json {copy} may be a table or a figure of the evaluation; name another.")


def _boundary_weights(arguments):
    """Weights that find the squares which other networks are shown, or NONE."""
    if arguments.boundary_weights is not None:
        return arguments.boundary_weights
    own = arguments.weights == [SHIPPED] and shipped_weights("boundary") is not None
    if own and arguments.heat_maps:
        print("Heat maps are of whole images: no square around a lesion is shown instead.")
    return SHIPPED if own and arguments.task != "boundary" and not arguments.heat_maps else NONE


@stoppable
def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    _refuse(parser, arguments)
    try:
        with contextlib.ExitStack() as held:
            return _run(parser, arguments, held)
    except KeyboardInterrupt:
        print("Stopped before the end: the same command begins anew.", file=sys.stderr)
        return 130


def _run(parser, arguments, held):
    boundary, predicts = _boundary_weights(arguments), arguments.predictions is not None
    folders = [arguments.out, *([arguments.predictions] if predicts else [])]
    named = arguments.json and not is_stream(arguments.json)
    copies = [arguments.json.absolute().parent] if named else []
    try:  # what "last" means now, it means to the end
        held.enter_context(writing_alone(*folders))
        refuse_folder(arguments.out, arguments.dataset, arguments.task)
        if arguments.json:
            refuse_copy(arguments.json)
        arguments.weights = [str(weights_path(w, arguments.task)) for w in arguments.weights]
        if boundary != NONE:
            boundary = str(weights_path(boundary, "boundary"))
        collections, selection = select(
            *(arguments.dataset, arguments.task, arguments.weights),
            *(arguments.split, arguments.part, arguments.limit, predicts),
        )
        require_truths(collections, selection, arguments.task, predicts)
        for folder in (*folders, *copies):
            require_writable(folder)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    said, wrong = notes_on(collections, selection, arguments.task, arguments.split is not None)
    _print_all(wrong, sys.stderr)
    _print_all(said, sys.stdout)
    try:
        every = [sample for collection in collections for sample in collection.samples]
        refuse_masks_in(arguments.predictions, every)
        predictor = load_predictor_of(arguments, boundary)
        _refuse_several_pictures(arguments, predictor)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    nearby = isinstance(predictor, NearbyAttributes | NearbyDiagnosis)
    unasked = arguments.boundary_weights is None and not arguments.heat_maps
    by_itself = nearby or getattr(predictor, "crops", False)
    if arguments.task != "boundary" and unasked and not by_itself:
        print(_SHOWN_WHOLE)
    names = [collection.name for collection in collections]
    evaluation, scores, table = score(arguments, predictor, selection.samples, names)
    facts = _facts(arguments, selection, predictor, boundary if nearby else NONE)
    summary = {**scores, **facts}
    _print_scores(arguments, summary, table)
    lost = _write_all(arguments, evaluation, predictor, summary)
    print(NOTICE)
    _print_problems(arguments, evaluation.problems, len(selection.samples))
    # Images that the data set could not offer at all; a split never named them.
    by_split = selection.split and selection.part != "all"
    left_out = 0 if by_split else sum(each.left_out for each in collections)
    return 1 if evaluation.problems or summary.get("incomplete") or left_out or lost else 0


def _print_all(lines, file):
    for line in lines:
        print(line, file=file)


def _refuse_several_pictures(arguments, predictor):
    """Raises ValueError where heat maps would be of the whole image and of a crop of it."""
    if arguments.heat_maps and len({member.crops for member in predictor.members}) > 1:
        raise ValueError(
            "--heat-maps are of one picture: some members of this ensemble crop it to the lesion, "
            "others see all of it. Give the weights of one member."
        )


def _print_scores(arguments, summary, table):
    model, title = summary["model"], arguments.task.capitalize()
    weights = f"weights {model['weights']} (sha256 {model['sha256'][:12]})"
    print(f"{title}, part {summary['part']}, {weights}")
    print(table)
    if arguments.predictions and summary["unscored"]:
        copies = " or as copies" if summary["copies"] else ""
        print(
            f"Not scored, for want of a mask{copies}, but predicted: {summary['unscored']} images."
        )


def _print_problems(arguments, problems, count):
    if problems:
        # Of a sample of the attributes some masks may be at fault, and the others scored.
        of_files = arguments.task == "attributes"
        failed = "files could not be used" if of_files else f"of {count} samples failed"
        print(f"{len(problems)} {failed}:", file=sys.stderr)
        _print_all((f"  {problem}" for problem in problems), sys.stderr)


def _facts(arguments, selection, predictor, boundary):
    """What a summary says besides scores: what was scored, how, and by which networks."""
    learned = None
    if boundary != NONE and own_split(Path(boundary)):
        # Samples whose lesions' outlines the boundary weights have learned, if that is known.
        learned = len(learned_by([Path(boundary)], selection.samples))
    of_diagnosis = arguments.task == "diagnosis"
    return {
        "task": arguments.task,
        "part": selection.part,
        "split": str(selection.split) if selection.split else None,
        "left_out": selection.left_out,
        "unused": selection.unused,
        "copies": len(selection.copies),
        "learned": selection.learned or (0 if selection.is_known else None),
        "limit": arguments.limit,
        "views": None if arguments.task == "attributes" else arguments.views,
        "risk": arguments.risk if of_diagnosis else None,
        "referral_sensitivity": arguments.melanoma_sensitivity,
        "images_alone": arguments.images_alone if of_diagnosis else None,
        "weights": name_and_hash(predictor),
        "boundary_weights": name_and_hash(predictor.boundary) if boundary != NONE else None,
        "boundary_learned": learned,
        "model": predictor.describe(),
        "notice": NOTICE,
    }


def _write_all(arguments, evaluation, predictor, summary):
    """Writes the numbers first: neither they nor the pictures are to cost the other.

    Returns whether anything could not be written.
    """
    written, unwritten = [], getattr(evaluation, "unwritten", [])
    lost = bool(unwritten)
    for write in (
        lambda: _write_summary(arguments, summary),
        lambda: write_figures(arguments, evaluation, predictor),
    ):
        try:
            written += write()
        except (OSError, ImageError) as error:
            print(f"The results cannot be written: {error}", file=sys.stderr)
            lost = True
    if written:
        print(f"Written: {', '.join(map(str, written))}")
    if unwritten:
        print(f"{len(unwritten)} masks could not be written:", file=sys.stderr)
    for problem in unwritten[:_SHOWN]:
        print(f"  {problem}", file=sys.stderr)
    return lost


if __name__ == "__main__":
    sys.exit(main())
