"""Writes a trained network as a TensorFlow SavedModel, which is served without Python.

    python lesion/export.py --task boundary|attributes|diagnosis --weights PATH --out DIR/1

`DIR` is what TensorFlow Serving is given, `1` the version. What goes in and comes out is described
in docs/serving.md, and computed by `lesion.serving`.

Exit codes:

    0    the SavedModel is written
    2    the command, the weights or the folder cannot be used
    3    the SavedModel cannot be written, as on a full disk; nothing of it is left
    130  stopped by Ctrl-C, SIGTERM or a terminal that is closed; nothing of it is left
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from typing import Any

from lesion import NOTICE
from lesion.printing import CommandParser
from lesion.samples import TASKS
from lesion.stopping import stoppable

# TensorFlow is loaded within functions, so that a mistyped command answers at once.


def _load(task: str, weights: str | Path) -> tuple[Any, dict]:
    """The `mrcnn.export.Answer` of a weights file, and what is to be said of it.

    Raises:
        mrcnn.weights.WeightsError: if the file is damaged or of another task.
        FileNotFoundError: if there is none.
        ValueError: for settings that cannot be expressed in a graph.
    """
    from lesion import diagnosis_serving, serving
    from lesion.attributes import load_attributes
    from lesion.boundary import load_predictor
    from lesion.diagnosis_network import describe_network
    from lesion.ensemble import DiagnosisEnsemble, load_classifiers

    if task == "boundary":
        predictor = load_predictor(weights)
        answer, metadata = serving.BoundaryAnswer(predictor), predictor.model.metadata()
    elif task == "attributes":
        predictor = load_attributes(weights)
        answer, metadata = serving.AttributesAnswer(predictor), predictor.model.metadata()
    else:
        predictor = load_classifiers([weights])
        if isinstance(predictor, DiagnosisEnsemble):
            answer = diagnosis_serving.EnsembleAnswer(predictor)
            metadata = describe_network(predictor.members[0].config)
            del metadata["config"]  # of each member its own
        else:
            answer = diagnosis_serving.DiagnosisAnswer(predictor)
            metadata = describe_network(predictor.config)
    return answer, {**metadata, **predictor.describe(), "notice": NOTICE}


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="lesion export",
        description="Writes a trained network as a TensorFlow SavedModel.",
    )
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument(
        "--weights", required=True, metavar="PATH", help='trained weights, "last" or "lesion"'
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR/1",
        help="folder for the SavedModel, for TensorFlow Serving named by a version number",
    )
    return parser


@stoppable
def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    from mrcnn.export import write_saved_model
    from mrcnn.files import require_writable
    from mrcnn.saved_model import require_replaceable

    try:
        require_replaceable(arguments.out)
        require_writable(arguments.out.parent)
        answer, model = _load(arguments.task, arguments.weights)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        write_saved_model(arguments.out, answer, model)
    except (FileExistsError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"The SavedModel cannot be written: {error}", file=sys.stderr)
        return 3
    print(f"{arguments.out}: SavedModel of {model['weights']} for the {arguments.task} task")
    print(NOTICE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
