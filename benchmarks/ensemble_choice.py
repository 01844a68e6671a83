"""Which classifiers answer best together, by images of the validation part as they are and changed.

    python benchmarks/ensemble_choice.py --weights A.h5 --weights B.h5 --dataset DIR --json OUT

Every network predicts each image as it is, with eight views and with one, and under nine changes of
light, focus, noise and compression (`robustness.py`) with one. All choices of the networks are then
scored by the log loss of their mean, with a temperature for each choice.
"""

import argparse
import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import timing  # noqa: F401  (puts the repository on the path)
from robustness import CHANGES
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from lesion import NOTICE
from lesion.analyzer import METHOD
from lesion.calibration import MELANOMA, Calibration, expected_calibration_error
from lesion.diagnosis import load_classifier
from lesion.layouts import find_collections
from lesion.options import add_datasets, positive
from lesion.printing import CommandParser
from lesion.samples import DIAGNOSES, Collection, Sample
from lesion.selection import select_samples
from lesion.splits import Split
from lesion.tables import aligned
from lesion.weights import member_files, split_of
from mrcnn.arrays import read_metadata
from mrcnn.files import atomic_path, sha256_of, write_json
from mrcnn.images import read_image

CHOSEN_BY = (
    *("blur 0.5 % of the side", "blur 1 % of the side", "JPEG quality 30", "warm light"),
    *("cold light", "darker, x 0.6", "brighter, x 1.3", "noise", "hair"),
)
AS_IT_IS = "as it is"
EIGHT = f"{AS_IT_IS}, eight views"
_CHUNK = 64


def probabilities_of(weights: Path, samples: Sequence[Sample], kept: Path) -> dict[str, np.ndarray]:
    """Calibrated probabilities float64 [images, 7] by change, from a file or else into it.

    The file is of these weights, images, changes and views alone.
    """
    asked = [sha256_of(weights), METHOD, CHOSEN_BY]
    asked += [(sample.key, sha256_of(sample.image), sample.metadata) for sample in samples]
    file = kept / f"{hashlib.sha256(json.dumps(asked).encode()).hexdigest()}.npz"
    if file.exists():
        with np.load(file) as arrays:
            return dict(arrays)
    found = {EIGHT: _predicted(load_classifier(weights, views=8), samples, AS_IT_IS)}
    one = load_classifier(weights, views=1)
    for change in tqdm((AS_IT_IS, *CHOSEN_BY), weights.name, disable=None):
        found[change] = _predicted(one, samples, change)
    kept.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **found)
    return found


def _predicted(predictor, samples, change):
    logits = []
    for start in range(0, len(samples), _CHUNK):
        chunk = samples[start : start + _CHUNK]
        images = [_changed(read_image(sample.image), sample, change) for sample in chunk]
        logits.append(predictor.logits_of_views(images, [s.metadata for s in chunk]).mean(axis=1))
    return predictor.calibration.probabilities(np.concatenate(logits))


def _changed(image, sample, change):
    """The image after a change, which depends on its name alone where anything is drawn."""
    rng = np.random.default_rng(list(sample.image_id.encode()))
    image, _ = CHANGES[change](image, np.zeros((*image.shape[:2], 0), bool), rng)
    return image


def score(members: Sequence[Mapping[str, np.ndarray]], labels: np.ndarray) -> dict:
    """Figures of the networks' mean: as they are with eight views, in the mean of changes, and of
    each change with one view as `by_change`.
    """
    mean = {change: np.mean([m[change] for m in members], axis=0) for change in members[0]}
    eight = Calibration.fit(np.log(mean[EIGHT]), labels).probabilities(np.log(mean[EIGHT]))
    one = Calibration.fit(np.log(mean[AS_IT_IS]), labels)
    by_change = {
        change: figures_of(one.probabilities(np.log(mean[change])), labels)
        for change in (AS_IT_IS, *CHOSEN_BY)
    }
    changed = [by_change[change] for change in CHOSEN_BY]
    return {
        **figures_of(eight, labels),
        **{
            f"changed_{name}": float(np.mean([figures[name] for figures in changed]))
            for name in changed[0]
        },
        "by_change": by_change,
    }


def figures_of(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Log loss, balanced accuracy, AUC of melanoma and calibration error of probabilities."""
    true = probabilities[np.arange(len(labels)), labels]
    right = probabilities.argmax(axis=1) == labels
    return {
        "log_loss": float(-np.log(true).mean()),
        "balanced_accuracy": float(np.mean([right[labels == k].mean() for k in np.unique(labels)])),
        "melanoma_auc": float(roc_auc_score(labels == MELANOMA, probabilities[:, MELANOMA])),
        "ece": expected_calibration_error(probabilities, labels),
    }


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Adds the options of which networks are scored, on what; `find_data` reads them."""
    add_datasets(parser)
    parser.add_argument(
        "--weights",
        action="append",
        required=True,
        metavar="PATH",
        help="of a network, or of an ensemble, whose members are meant; repeatable",
    )
    parser.add_argument("--split", metavar="FILE", help="default: the one of the first weights")


def find_data(arguments: argparse.Namespace) -> tuple[list[Collection], Split]:
    """The data sets, and the split that is named or lies beside the first weights.

    `arguments.weights` become the paths of single networks.

    Raises:
        ValueError: if there is no such split, or one of the arguments is of no use.
        FileNotFoundError: if weights are missing.
    """
    arguments.weights = member_files(arguments.weights)
    for path in arguments.weights:
        read_metadata(path)  # says what is wrong with a file before anything takes long
    collections = find_collections(arguments.dataset, task="diagnosis")
    everything = [sample for collection in collections for sample in collection.samples]
    file = arguments.split or split_of(arguments.weights[0], everything)
    if file is None:
        raise ValueError("There is no split beside the weights that knows these data sets.")
    return collections, Split.load(file)


def labels_of(parser: argparse.ArgumentParser, samples: Sequence[Sample]) -> np.ndarray:
    """The categories' numbers int [images]; ends the command where melanoma has no AUC."""
    labels = np.array([DIAGNOSES.index(sample.diagnosis) for sample in samples], int)
    if len({*(labels == MELANOMA)}) < 2:
        parser.error(f"{len(samples)} images show melanoma in all or in none: there is no AUC.")
    return labels


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(description=__doc__.splitlines()[0])
    add_networks(parser)
    parser.add_argument("--most", type=positive, metavar="N", help="networks in a choice (all)")
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("ensemble-choice"),
        metavar="DIR",
        help="where each network's answers are kept for the next call (ensemble-choice)",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the results")
    arguments = parser.parse_args(argv)

    with parser.explaining():
        collections, split = find_data(arguments)
        samples = select_samples(collections, split, "validation", None)
    labels = labels_of(parser, samples)
    networks = [probabilities_of(path, samples, arguments.keep) for path in arguments.weights]
    rows = []
    for count in range(1, (arguments.most or len(networks)) + 1):
        for choice in itertools.combinations(range(len(networks)), count):
            figures = score([networks[place] for place in choice], labels)
            rows.append({"networks": [place + 1 for place in choice], **figures})
    rows.sort(key=lambda row: row["log_loss"] + row["changed_log_loss"])
    for place, path in enumerate(arguments.weights, 1):
        print(f"{place}: {path.name} (sha256 {sha256_of(path)[:12]})")
    names = [name for name in rows[0] if name not in ("networks", "by_change")]
    table = [["networks", *names]]
    for row in rows:
        chosen = "+".join(map(str, row["networks"]))
        table.append([chosen, *(f"{row[name]:.3f}" for name in names)])
    print("\n".join(aligned(table)))
    print(f"{len(samples)} images of the validation part, {os.cpu_count()} cores")
    print(NOTICE)
    if arguments.json:
        content = {
            "weights": [{"name": p.name, "sha256": sha256_of(p)} for p in arguments.weights],
            "collections": [collection.name for collection in collections],
            "images": len(samples),
            "changes": list(CHOSEN_BY),
            "choices": rows,
            "notice": NOTICE,
        }
        write_json(arguments.json, content)


if __name__ == "__main__":
    main()
