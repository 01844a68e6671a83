"""Scores predictions against the truth with the metrics of the ISIC 2018 challenge.

    python lesion/evaluate.py --dataset=DIR --task=boundary --weights=PATH [--split=FILE]
    python lesion/evaluate.py --dataset=DIR --task=attributes --weights=PATH [--predictions=DIR]
    python lesion/evaluate.py --dataset=DIR --task=diagnosis --weights=PATH [--views=8] [--risk=0.1]

Prints the scores and writes `evaluation.json` and a table of all images. For the boundary the table
is `jaccard.csv`, with a histogram and a contact sheet of the worst, median and best cases; for the
attributes `attributes.csv`, with a sheet of the worst disagreements; for the diagnosis
`predictions.csv`, with the challenge's `submission.csv`, the confusion matrix, ROC
curves, and how far the probabilities can be trusted. A sample that cannot be read or has no truth
is named, counted and left out; the exit code is then 1. Of images of which none has a diagnosis, as
the challenge's test part, `submission.csv` is written.
"""

import sys
from pathlib import Path

# Run as a script, import the packages beside this one, not the modules in it.
if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse  # noqa: E402
import json  # noqa: E402
from collections.abc import Sequence, Set  # noqa: E402
from typing import Any  # noqa: E402

from lesion import NOTICE  # noqa: E402
from lesion.attribute_thresholds import METHODS  # noqa: E402
from lesion.attributes_evaluation import (  # noqa: E402
    evaluate_attributes,
    format_attributes,
    summarize_attributes,
    write_attributes,
)
from lesion.boundary_evaluation import (  # noqa: E402
    evaluate_boundary,
    format_table,
    summarize_boundary,
    write_boundary,
)
from lesion.layouts import find_collections  # noqa: E402
from lesion.nearby import NearbyAttributes, NearbyDiagnosis  # noqa: E402
from lesion.options import add_views, natural, rate  # noqa: E402
from lesion.samples import TASKS, Collection, DatasetError, Sample  # noqa: E402
from lesion.splits import Split, SplitError  # noqa: E402
from lesion.weights import learned_by, split_of, weights_path  # noqa: E402
from mrcnn.files import atomic_path  # noqa: E402
from mrcnn.images import ImageError  # noqa: E402

# What data sets and split files call the part that is trained on differs.
_PARTS = {"train": "training", "validation": "validation", "test": "test"}
_TRUTHS = {
    "boundary": ("mask", "lesion mask to compare with"),
    "attributes": ("attributes", "mask of an attribute to compare with"),
    "diagnosis": ("diagnosis", "diagnosis"),
}


def select_samples(
    collections: Sequence[Collection],
    split: Split | None,
    part: str,
    limit: int | None,
    learned: Set[str] = frozenset(),
) -> list[Sample]:
    """The samples to be scored: a split's part or all of them, and of each data set the first.

    Args:
        collections: the data sets.
        split: whose `part` is taken; None takes all samples.
        part: a name of the split's.
        limit: number of samples of each data set; None: all.
        learned: keys of samples that are left out.
    """
    samples = [sample for collection in collections for sample in collection.samples]
    if split is not None:
        samples = split.select(samples, part)
    samples = [sample for sample in samples if sample.key not in learned]
    if limit is None:
        return samples
    return [
        sample
        for collection in collections
        for sample in [s for s in samples if s.collection == collection.name][:limit]
    ]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Scores predictions with the metrics of the ISIC 2018 challenge.",
        epilog=NOTICE,
    )
    parser.add_argument(
        "--dataset", action="append", required=True, metavar="DIR", help="data set; repeatable"
    )
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
        help="split file; default: the one beside the weights, if it knows the data, or else all "
        "but images of the ISIC archive that they learned from; none: score all samples",
    )
    parser.add_argument(
        "--part",
        choices=list(_PARTS),
        help="part of the split (test); without a split the challenge's own part (all)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="the result (evaluation.json in --out)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("evaluation"),
        metavar="DIR",
        help="folder for tables and figures (./evaluation)",
    )
    parser.add_argument(
        "--batch", type=int, default=8, metavar="N", help="images predicted at once (8)"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="score the first N samples of each data set only"
    )
    add_views(parser)
    parser.add_argument(
        "--boundary-weights",
        metavar="PATH",
        help="find attributes and diagnosis of small lesions from nearby, where these weights see "
        "them, as `lesion analyze` does",
    )
    attributes = parser.add_argument_group("attributes")
    attributes.add_argument(
        "--method",
        choices=METHODS,
        default="combined",
        help="what the masks are made of; the table shows all (combined)",
    )
    attributes.add_argument(
        "--predictions",
        type=Path,
        metavar="DIR",
        help="also write the predicted masks, five per image, named as the challenge wants them",
    )
    diagnosis = parser.add_argument_group("diagnosis")
    diagnosis.add_argument(
        "--images-alone",
        action="store_true",
        help="score as if nothing was known of the patients",
    )
    diagnosis.add_argument(
        "--risk",
        type=rate,
        default=0.1,
        metavar="SHARE",
        help="refer images so that at most this share of the others was wrong in validation (0.1)",
    )
    diagnosis.add_argument(
        "--heat-maps",
        type=natural,
        default=0,
        metavar="N",
        help="draw Grad-CAM++ maps, a debugging aid, of the N most confident mistakes (0)",
    )
    return parser


def _split_path(arguments: argparse.Namespace, collections: Sequence[Collection]) -> Path | None:
    if arguments.split == "none":
        return None
    if arguments.split:
        return Path(arguments.split)
    samples = [sample for collection in collections for sample in collection.samples]
    paths = [
        split_of(weights_path(weights, arguments.task), samples) for weights in arguments.weights
    ]
    if len(paths) > 1 and any(paths) and not _agree_on_test(paths):
        raise SplitError(
            "The weights were trained with splits of different test parts, so that some have "
            "learned from what others are tested on. Give --split, or --split=none to score all."
        )
    if paths[0]:
        print(f"Scoring what these weights have not learned from, by {paths[0]}.")
    return paths[0]


def _agree_on_test(paths: Sequence[Path | None]) -> bool:
    tests = [set(Split.load(path).parts["test"]) if path else None for path in paths]
    return all(test == tests[0] for test in tests)


# What differs by task. TensorFlow and scikit-learn are loaded here and not above, so that a
# mistyped command answers at once.


def _load_predictor(arguments):
    from lesion.boundary import load_predictor

    if arguments.task == "boundary":
        return load_predictor(arguments.weights[0], views=arguments.views)
    if arguments.task == "attributes":
        from lesion.attributes import load_attributes

        predictor = load_attributes(arguments.weights[0], method=arguments.method)
    else:
        from lesion.ensemble import load_classifiers

        predictor = load_classifiers(arguments.weights, arguments.views, arguments.risk)
    if arguments.boundary_weights is None:
        return predictor
    nearby = NearbyAttributes if arguments.task == "attributes" else NearbyDiagnosis
    return nearby(predictor, load_predictor(arguments.boundary_weights, views=arguments.views))


def _evaluate(arguments, predictor, samples, names):
    """The evaluation, its summary and that as text."""
    if arguments.task == "boundary":
        evaluation = evaluate_boundary(predictor, samples, arguments.batch)
        summary = summarize_boundary(evaluation, names)
        return evaluation, summary, format_table(summary)
    if arguments.task == "attributes":
        evaluation = evaluate_attributes(predictor, samples, arguments.batch, arguments.predictions)
        summary = summarize_attributes(evaluation, arguments.method)
        return evaluation, summary, format_attributes(summary)
    from lesion.diagnosis_evaluation import (
        evaluate_diagnosis,
        format_diagnosis,
        summarize_diagnosis,
    )

    known = not arguments.images_alone
    evaluation = evaluate_diagnosis(predictor, samples, arguments.batch, known)
    summary = summarize_diagnosis(evaluation, names)
    return evaluation, summary, format_diagnosis(summary)


def name_and_hash(predictor: Any) -> dict[str, str]:
    """By which a result names the weights it is of."""
    model = predictor.describe()
    return {"name": model["weights"], "sha256": model["sha256"]}


def _write(arguments, evaluation, predictor):
    """Paths of the tables and figures that were written."""
    if arguments.task == "boundary":
        return write_boundary(evaluation, predictor, arguments.out, arguments.batch)
    if arguments.task == "attributes":
        return write_attributes(evaluation, predictor, arguments.out, arguments.batch)
    from lesion.diagnosis_evaluation import write_diagnosis, write_heat_maps

    written = write_diagnosis(evaluation, arguments.out)
    if arguments.heat_maps:
        written += write_heat_maps(evaluation, predictor, arguments.heat_maps, arguments.out)
    return written


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    for name in ("batch", "limit"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1, received {value}.")
    if arguments.task != "diagnosis" and len(arguments.weights) > 1:
        parser.error(f"--weights can be given once for --task={arguments.task}.")
    if arguments.task == "boundary" and arguments.boundary_weights:
        parser.error("--boundary-weights is for the other tasks; --weights are the boundary's own.")
    if arguments.heat_maps and arguments.boundary_weights:
        parser.error("--heat-maps are of whole images; give them without --boundary-weights.")
    if arguments.out.exists() and not arguments.out.is_dir():
        parser.error(f"--out {arguments.out} is a file; give a folder.")
    try:
        collections = find_collections(arguments.dataset, task=arguments.task)
        split_path = _split_path(arguments, collections)
        split = Split.load(split_path) if split_path else None
        if split is None and arguments.part:
            collections = find_collections(
                arguments.dataset, _PARTS[arguments.part], task=arguments.task
            )
        part = arguments.part or ("test" if split else "all")
        learned: set[str] = set()
        if split is None and arguments.split != "none":
            everything = [sample for collection in collections for sample in collection.samples]
            weights = [weights_path(path, arguments.task) for path in arguments.weights]
            learned = learned_by(weights, everything)
        samples = select_samples(collections, split, part, arguments.limit, learned)
    except (DatasetError, SplitError, FileNotFoundError) as error:
        parser.error(str(error))
    truth, description = _TRUTHS[arguments.task]
    if learned and not samples:
        parser.error(
            f"The weights have learned from all {len(learned)} images, or from others of their "
            "lesions. Give others, or --split=none to score these nevertheless."
        )
    if not samples:
        parser.error(f"Part {part!r} has no image.")
    if learned:
        print(f"Left out: {len(learned)} images of lesions that these weights learned from.")
    if not any(getattr(sample, truth) for sample in samples) and arguments.task != "diagnosis":
        parser.error(
            f"None of the {len(samples)} samples of part {part!r} has a {description}; give a data "
            "set or a split that has some."
        )
    try:
        predictor = _load_predictor(arguments)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    names = [collection.name for collection in collections]
    evaluation, summary, table = _evaluate(arguments, predictor, samples, names)
    model, nearby = predictor.describe(), arguments.boundary_weights is not None
    summary = {
        **summary,
        "task": arguments.task,
        "part": part,
        "split": str(split_path) if split_path else None,
        "left_out": len(learned),
        "limit": arguments.limit,
        "views": None if arguments.task == "attributes" else arguments.views,
        "risk": arguments.risk if arguments.task == "diagnosis" else None,
        "images_alone": arguments.images_alone if arguments.task == "diagnosis" else None,
        "weights": name_and_hash(predictor),
        "boundary_weights": name_and_hash(predictor.boundary) if nearby else None,
        "model": model,
        "notice": NOTICE,
    }
    title = arguments.task.capitalize()
    print(f"{title}, part {part}, weights {model['weights']} (sha256 {model['sha256'][:12]})")
    print(table)
    try:
        written = _write(arguments, evaluation, predictor)
        result = arguments.json or arguments.out / "evaluation.json"
        with atomic_path(result) as temporary:
            temporary.write_text(json.dumps(summary, indent=2, allow_nan=False), encoding="utf-8")
    except (OSError, ImageError) as error:
        print(f"The results cannot be written: {error}", file=sys.stderr)
        return 1
    print(f"Written: {', '.join(map(str, [*written, result]))}")
    print(NOTICE)

    # Images that the data set could not offer at all; a split never named them.
    left_out = 0 if split else sum(collection.left_out for collection in collections)
    for collection in collections:
        for problem in collection.problems:
            print(f"Data set {collection.name}: {problem}", file=sys.stderr)
    if evaluation.problems:
        print(f"{len(evaluation.problems)} of {len(samples)} samples failed:", file=sys.stderr)
        for problem in evaluation.problems:
            print(f"  {problem}", file=sys.stderr)
    return 1 if evaluation.problems or left_out else 0


if __name__ == "__main__":
    sys.exit(main())
