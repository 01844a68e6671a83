"""What single settings of the diagnosis network give, by the commands that a user types.

Each variant is a short training that differs in one thing, scored on the validation part of one
split; "another seed" tells how much of a difference is chance. What exists in OUT is kept, so that
an interrupted run goes on. With --weights nothing is trained: the calibration of these weights is
fitted for several prevalences and numbers of views, and scored on the validation part.

    python benchmarks/diagnosis_settings.py --dataset HAM10000 --out OUT [--weights PATH]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMON = ["--image-size=192", "--epochs=4", "--head-epochs=1", "--frozen-stages=2"]
VARIANTS = {
    "square root sampling, adjusted loss": [],
    "another seed": ["--seed=1"],
    "all images alike, plain loss": ["--sampling-power=1", "--logit-adjustment=0"],
    "all images alike, adjusted loss": ["--sampling-power=1"],
    "balanced sampling": ["--sampling-power=0"],
    "shades of grey": ["--colour-constancy"],
    "age, sex and site": ["--patient-data"],
    "batch statistics learned": ["--batch-statistics"],
}
PREVALENCES = (0.0, 0.25, 0.5, 0.75, 1.0)
FIGURES = ("balanced_accuracy", "melanoma_auc", "mean_auc", "ece", "brier")


def run(script, *options):
    command = [sys.executable, ROOT / "lesion" / script, "--task=diagnosis", *map(str, options)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)


def score(arguments, weights, out, *options):
    """The validation part's figures of a weights file, computed once."""
    result = out / "evaluation.json"
    if not result.exists():
        run(
            "evaluate.py",
            f"--dataset={arguments.dataset}",
            f"--weights={weights}",
            "--part=validation",
            f"--out={out}",
            *options,
        )
    return json.loads(result.read_text())


def trained(arguments, folder, options):
    """The last weights of a short training, made if they are not there."""
    split = arguments.out / "split.json"
    pattern = "diagnosis*/diagnosis_0004.h5"
    if not list(folder.glob(pattern)):
        run(
            "train.py",
            f"--dataset={arguments.dataset}",
            f"--logs={folder}",
            f"--cache={arguments.out / 'cache'}",
            f"--steps={arguments.steps // 4}",
            *([f"--split={split}"] if split.exists() else []),
            *COMMON,
            *options,
        )
    (weights,) = folder.glob(pattern)
    if not split.exists():  # the first run's, for all others
        shutil.copy(weights.parent / "split.json", split)
    return weights


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--weights", type=Path, metavar="PATH", help="of a run with its split")
    parser.add_argument("--steps", type=int, default=240, help="of 32 images, for each variant")
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="default: all")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = {}
    if arguments.weights:
        for power in PREVALENCES:
            logs = arguments.out / f"prevalence_{power}"
            if not logs.exists():
                shutil.copytree(arguments.weights.parent, logs / arguments.weights.parent.name)
            weights = logs / arguments.weights.parent.name / arguments.weights.name
            run(
                "train.py",
                f"--dataset={arguments.dataset}",
                f"--logs={logs}",
                f"--cache={arguments.out / 'cache'}",
                "--weights=last",
                f"--prevalence-power={power}",
            )
            for views in (1, 8):
                out = logs / f"views_{views}"
                lines[f"prevalence {power}, {views} views"] = score(
                    arguments, weights, out, f"--views={views}"
                )
    else:
        for name in arguments.variant or VARIANTS:
            folder = arguments.out / name.replace(" ", "_").replace(",", "")
            weights = trained(arguments, folder, VARIANTS[name])
            lines[name] = score(arguments, weights, folder / "evaluation", "--views=1")
    print(f"{'':36}" + "".join(f"{figure:>19}" for figure in FIGURES))
    for name, figures in lines.items():
        print(f"{name:36}" + "".join(f"{figures[figure]:19.4f}" for figure in FIGURES))


if __name__ == "__main__":
    main()
