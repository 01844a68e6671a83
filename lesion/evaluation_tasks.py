"""What `lesion evaluate` does otherwise for each of the three tasks.

TensorFlow and scikit-learn are loaded where they are needed, so that a mistyped command answers at
once.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lesion.attributes_evaluation import (
    evaluate_attributes,
    format_attributes,
    summarize_attributes,
    write_attributes,
)
from lesion.boundary_evaluation import (
    evaluate_boundary,
    format_table,
    summarize_boundary,
    write_boundary,
)
from lesion.nearby import NearbyAttributes, NearbyDiagnosis
from lesion.patient import known_of
from lesion.samples import Sample
from lesion.weights import NONE


def load_predictor_of(arguments: argparse.Namespace, boundary: str) -> Any:
    """The predictor; `boundary` are weights that find the squares it is shown, or NONE.

    Whoever finds its lesion by itself is shown none that nobody asked for.
    """
    from lesion.boundary import load_predictor

    if arguments.task == "boundary":
        return load_predictor(arguments.weights[0], views=arguments.views)
    if arguments.task == "attributes":
        from lesion.attributes import load_attributes

        predictor = load_attributes(arguments.weights[0], method=arguments.method)
    else:
        from lesion.ensemble import load_classifiers

        sensitivity = arguments.melanoma_sensitivity
        predictor = load_classifiers(
            arguments.weights, arguments.views, arguments.risk, melanoma_sensitivity=sensitivity
        )
    by_itself = arguments.boundary_weights is None and getattr(predictor, "crops", False)
    if boundary == NONE or by_itself:
        return predictor
    nearby = NearbyAttributes if arguments.task == "attributes" else NearbyDiagnosis
    return nearby(predictor, load_predictor(boundary, views=arguments.views))


def score(
    arguments: argparse.Namespace, predictor: Any, samples: Sequence[Sample], names: Sequence[str]
) -> tuple[Any, dict, str]:
    """The evaluation, its summary and that as text."""
    if arguments.task == "boundary":
        evaluation = evaluate_boundary(predictor, samples, arguments.batch, arguments.predictions)
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
    if known:
        line, *unknown = known_of([sample.metadata for sample in samples])
        print(line)
        for each in unknown:
            print(each, file=sys.stderr)
    evaluation = evaluate_diagnosis(predictor, samples, arguments.batch, known)
    summary = summarize_diagnosis(evaluation, names)
    return evaluation, summary, format_diagnosis(summary)


def write_figures(arguments: argparse.Namespace, evaluation: Any, predictor: Any) -> list[Path]:
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
