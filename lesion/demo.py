"""Trains the boundary task for some minutes on phantoms, and analyses others.

The analysis is by the weights that the project ships, which have learned from real images; by those
just trained where it ships none of the boundary task.

python lesion/demo.py [--out demo]
"""

import argparse
import shutil
import sys
from pathlib import Path

if not __package__:  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from lesion.options import positive
from lesion.printing import CommandParser
from lesion.stopping import stoppable

# The seeds keep the phantoms that are learned from and those that are shown apart.
TRAINING_SEED, SHOWN_SEED = 1, 2


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="lesion demo", description="Trains briefly on phantoms and reports."
    )
    parser.add_argument("--out", default="demo", metavar="DIR", help="folder for all results")
    for option, usual, help_text in (
        ("--images", 400, "phantoms to learn from"),
        ("--shown", 24, "further phantoms to analyse"),
        ("--epochs", 5, "passes through what is learned from"),
        ("--image-size", 192, "width of the network's input"),
    ):
        parser.add_argument(
            option, type=positive, default=usual, metavar="N", help=f"{help_text} ({usual})"
        )
    return parser


@stoppable
def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    from lesion import analyze, evaluate, train
    from lesion.phantom import IMAGE_FOLDER, write_phantoms
    from lesion.weights import shipped_weights
    from mrcnn.runs import find_last

    out = Path(arguments.out)
    learned, shown, logs = out / "phantoms", out / "shown", out / "demo_logs"
    print(f"1. Drawing {arguments.images} + {arguments.shown} phantoms in {out}/")
    try:
        write_phantoms(learned, arguments.images, TRAINING_SEED, overwrite=True)
        write_phantoms(
            shown,
            arguments.shown,
            SHOWN_SEED,
            height=450,
            width=600,
            overwrite=True,
            attributes=True,
        )
    # A full disk, a folder with somebody else's images, or more phantoms than there are names.
    except (OSError, ValueError) as error:
        print(f"lesion demo: {error}", file=sys.stderr)
        return 2

    print("2. Training Mask R-CNN on them (some minutes)")
    shutil.rmtree(logs, ignore_errors=True)
    code = train.main(
        [
            f"--dataset={learned}",
            "--weights=imagenet",
            f"--epochs={arguments.epochs}",
            f"--image-size={arguments.image_size}",
            f"--logs={logs}",
        ]
    )
    if code:
        if code == 130:  # what the training says of continuing is not for its folder here
            print("The demo begins anew when it is called again.", file=sys.stderr)
        return code
    weights = find_last(logs, "boundary")

    print("3. Scoring phantoms it has not seen")
    code = evaluate.main(
        [
            f"--dataset={shown}",
            "--split=none",
            f"--weights={weights}",
            f"--out={out / 'evaluation'}",
        ]
    )
    if code:
        return code

    shipped = shipped_weights("boundary")
    print(f"4. Analysing them by the weights {'of the project' if shipped else 'just trained'}")
    report = out / "report"
    chosen = [] if shipped else [f"--weights={weights}"]
    code = analyze.main([str(shown / IMAGE_FOLDER), *chosen, f"--out={report}", "--overwrite"])
    if code in (0, 1):  # of 2 and 3 there is no report
        print(f"\nOpen {(report / 'report.html').absolute()} in a browser.")
    return code


if __name__ == "__main__":
    sys.exit(main())
