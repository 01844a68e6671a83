"""What single settings of the attributes and diagnosis networks give, by commands a user types.

Each variant is a short training that differs from the first in what it is named for, scored on the
validation part of one split; "another seed" tells how much of a difference is chance. For the
diagnosis, whose rare categories would have a handful of images there, that part is a fourth of what
the task would learn from; no test part is touched. A variant's figures stay in OUT, so that an
interrupted run goes on where it stopped; for other steps or data give another OUT.

    python benchmarks/task_settings.py --task attributes --dataset isic2018_512 --out OUT
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timing  # noqa: F401  (puts the repository on the path)

from lesion import attributes_training, diagnosis_training
from lesion import train as training
from lesion.folds import split_folds
from lesion.printing import CommandParser
from lesion.splits import Split, split_by_parts

ROOT = Path(__file__).resolve().parents[1]
COMMON = {
    "attributes": ["--image-size=256", "--batch=8", "--frozen-stages=2"],
    "diagnosis": ["--image-size=160", "--batch=32", "--frozen-stages=2"],
}
VARIANTS = {
    "attributes": {
        "cross-entropy and Dice": [],
        "another seed": ["--seed=1"],
        "cross-entropy alone": ["--semantic-loss=crossentropy"],
        "rare attributes not repeated": ["--repeat-threshold=0"],
        "boundary learned, too": ["--with-boundary"],
    },
    "diagnosis": {
        "square root sampling, adjusted loss": [],
        "another seed": ["--seed=1"],
        "all images alike, plain loss": ["--sampling-power=1", "--logit-adjustment=0"],
        "all images alike, adjusted loss": ["--sampling-power=1"],
        "balanced sampling": ["--sampling-power=0"],
        "shades of grey": ["--colour-constancy"],
        "usual light": ["--usual-light=1"],
        "age, sex and site": ["--patient-data"],
        "ImageNet's batch statistics": ["--no-batch-statistics"],
        "images blended": ["--mixing=0.2"],
        "dropout 0.4, decay 0.1": ["--dropout=0.4", "--weight-decay=0.1"],
    },
}
EPOCHS = 4
FRACTIONS = {
    "attributes": attributes_training.FRACTIONS,
    "diagnosis": diagnosis_training.FRACTIONS,
}


def draw_split(task: str, dataset: str, cache: Path, path: Path) -> None:
    """Writes the split of all variants: the training's own, but for the diagnosis' validation."""
    options = [f"--task={task}", f"--dataset={dataset}", f"--cache={cache}"]
    samples = training.load_samples(training.parse(options))
    split = split_by_parts(samples, FRACTIONS[task], seed=0)
    if task == "diagnosis":
        learned = [s for part in ("train", "validation") for s in split.select(samples, part)]
        held_out, *rest = split_folds(learned, 4)
        train = sorted(key for fold in rest for key in fold)
        parts = {**split.parts, "train": train, "validation": sorted(held_out)}
        split = Split(parts, split.seed, split.fractions)
    split.save(path)


def run(script: str, task: str, *options: str) -> None:
    command = [sys.executable, str(ROOT / "lesion" / script), f"--task={task}", *map(str, options)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)


def train_and_score(
    arguments: argparse.Namespace, folder: Path, options: Sequence[str]
) -> dict[str, Any]:
    """The validation part's figures of a variant, made if they are not there."""
    result = folder / "evaluation" / "evaluation.json"
    if not result.exists():
        shutil.rmtree(folder, ignore_errors=True)
        split = arguments.out / "split.json"
        run(
            "train.py",
            arguments.task,
            f"--dataset={arguments.dataset}",
            f"--logs={folder}",
            f"--cache={arguments.out / 'cache'}",
            f"--epochs={EPOCHS}",
            "--head-epochs=1",
            f"--steps={arguments.steps // EPOCHS}",
            f"--split={split}",
            *COMMON[arguments.task],
            *options,
        )
        (weights,) = folder.glob(f"*/*_{EPOCHS:04d}.h5")
        run(
            "evaluate.py",
            arguments.task,
            f"--dataset={arguments.dataset}",
            f"--weights={weights}",
            "--part=validation",
            *(["--views=1"] if arguments.task == "diagnosis" else []),
            f"--out={result.parent}",
        )
        for state in weights.parent.glob("*.h5"):
            state.unlink()
    return json.loads(result.read_text())


def table(task: str, figures: Mapping[str, Any]) -> dict[str, float | None]:
    """What `evaluate.py --json` says of each variant, as columns by name."""
    if task == "diagnosis":
        names = ("balanced_accuracy", "melanoma_auc", "mean_auc", "ece", "brier")
        return {name: figures[name] for name in names}
    each = {name: value["jaccard"] for name, value in figures["attributes"].items()}
    return {"global": figures["jaccard"], **each}


def _figure(value):
    return "unknown" if value is None else f"{value:.4f}"


def main() -> None:
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=sorted(VARIANTS), required=True)
    parser.add_argument("--dataset", required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=400, help="for each variant")
    parser.add_argument("--variant", action="append", help="default: all")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    split = arguments.out / "split.json"
    if not split.exists():
        with parser.explaining():
            draw_split(arguments.task, arguments.dataset, arguments.out / "cache", split)
    variants = VARIANTS[arguments.task]
    if unknown := set(arguments.variant or []) - set(variants):
        parser.error(f"--variant={unknown.pop()!r} is none of {', '.join(map(repr, variants))}")
    rows = {}
    for name in arguments.variant or variants:
        folder = arguments.out / name.replace(" ", "_").replace(",", "")
        rows[name] = table(arguments.task, train_and_score(arguments, folder, variants[name]))
        print(name, *(f"{key} {_figure(value)}" for key, value in rows[name].items()), sep=", ")
    results = arguments.out / "results.json"
    kept = json.loads(results.read_text()) if results.exists() else {}
    results.write_text(json.dumps({**kept, **rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
