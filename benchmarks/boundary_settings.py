"""What single settings of the boundary network give: short trainings that differ in one thing.

Each variant trains on the images of one split for the same number of steps, and is scored on its
validation part. "another seed" tells how much of a difference is chance. A variant's result is kept
in OUT/results.json, so that an interrupted run goes on where it stopped.

    python benchmarks/boundary_settings.py --dataset isic2018 --dataset ham10000 --out OUT
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import timing  # noqa: F401  (puts the repository on the path)

# Options of lesion/train.py, and attributes of BoundaryConfig.
VARIANTS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "as it is": ([], {}),
    "another seed": (["--seed=1"], {}),
    "mask 28": (["--mask-size=28"], {}),
    "mask 112": (["--mask-size=112"], {}),
    "ROIAlign of matterport": ([], {"ROI_ALIGNED": False, "ROI_LEVEL_ROUNDING": "round"}),
    "width 160": (["--image-size=160"], {}),
    "width 320": (["--image-size=320"], {}),
    "semantic map": (["--semantic"], {}),
    "loss without Dice": ([], {"MASK_LOSS": "crossentropy"}),
    "bfloat16": (["--precision=mixed_bfloat16"], {}),
    "from random weights": (["--weights=none"], {}),
    "MobileNetV3-Small, random": (["--weights=none", "--backbone=mobilenetv3small"], {}),
    "masks end at their boxes": ([], {"MASK_BOX_SCALE": 1.0}),
    "targets of 0 and 1": ([], {"MASK_SOFT_TARGETS": False}),
    "each region's best class": ([], {"DETECTION_ALL_CLASSES": False}),
}


def train_and_score(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains one variant in this process; returns its figures."""
    from lesion import train
    from lesion.boundary import BoundaryConfig, load_predictor
    from lesion.boundary_evaluation import evaluate_boundary, summarize_boundary
    from lesion.layouts import find_collections
    from lesion.selection import select_samples
    from lesion.splits import SPLIT_FILE, Split
    from mrcnn.runs import find_last

    options, attributes = VARIANTS[name]
    for attribute, value in attributes.items():
        setattr(BoundaryConfig, attribute, value)
    logs = arguments.out / name.replace(" ", "_").replace("'", "")
    datasets = [f"--dataset={folder}" for folder in arguments.dataset]
    split = arguments.out / SPLIT_FILE
    start = time.time()
    code = train.main(
        [
            *datasets,
            f"--logs={logs}",
            f"--cache={arguments.out / 'cache'}",
            "--epochs=4",
            "--head-epochs=1",
            f"--steps={arguments.steps // 4}",
            "--learning-rate=0.0008",
            "--precision=float32",
            *([f"--split={split}"] if split.exists() else []),
            *options,
        ]
    )
    if code:
        raise SystemExit(code)
    seconds = time.time() - start
    last = Path(find_last(logs, "boundary"))
    collections = find_collections(arguments.dataset, task="boundary")
    if not split.exists():  # the first run's, for all others
        shutil.copy(last.parent / SPLIT_FILE, split)
    samples = select_samples(collections, Split.load(split), "validation", None)
    summary = summarize_boundary(evaluate_boundary(load_predictor(last), samples))
    with (last.parent / "history.csv").open() as file:
        loss = float(list(csv.DictReader(file))[-1]["val_loss"])
    return {
        "datasets": {key: value["jaccard"] for key, value in summary["datasets"].items()},
        "jaccard": summary["jaccard"],
        "threshold_jaccard": summary["threshold_jaccard"],
        "images": summary["images"],
        "validation_loss": loss,
        "seconds": round(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", action="append", required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=400, help="of 8 images, for each variant")
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="default: all")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    results = arguments.out / "results.json"
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = arguments.variant or list(VARIANTS)
    if arguments.here:
        figures = train_and_score(names[0], arguments)
        done = json.loads(results.read_text()) if results.exists() else {}
        results.write_text(json.dumps({**done, names[0]: figures}, indent=1) + "\n")
        return
    for name in names:  # each in a process of its own: settings and memory start afresh
        done = json.loads(results.read_text()) if results.exists() else {}
        if name not in done:
            options = [f"--dataset={folder}" for folder in arguments.dataset]
            options += [
                f"--out={arguments.out}",
                f"--steps={arguments.steps}",
                f"--variant={name}",
                "--here",
            ]
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            subprocess.run([sys.executable, __file__, *options], check=True, env=environment)
    done = json.loads(results.read_text())
    for name, figures in ((name, done[name]) for name in names):
        parts = ", ".join(f"{key} {value:.4f}" for key, value in figures["datasets"].items())
        print(f"{name:28} Jaccard {figures['jaccard']:.4f} ({parts}), {figures['seconds']} s")


if __name__ == "__main__":
    main()
