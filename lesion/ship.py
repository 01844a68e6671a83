"""Turns a trained checkpoint into the weights that the project ships, with their record.

    python lesion/ship.py --task=TASK --weights=PATH --dataset=DIR --command="make train-TASK …"
        [--figures=evaluation.json] [--out=weights]

OUT gets three files: `lesion_TASK.weights.h5`, what inference needs, stored as float16;
`lesion_TASK.json`, how it came about, its figures and its SHA-256; `lesion_TASK.split.json`, which
images it learned from. None gets its name before all are written.

Of an ensemble, `--weights=…/ensemble.json`, each member gets three such files, with its number in
their names and without figures; `lesion_TASK.ensemble.json` names them and holds the figures of
all together, `lesion_TASK.split.json` the images that any of them learned from. Members that were
shipped before, in OUT or elsewhere, stay as they are, with their records. What OUT held of the task
before, and holds no more, is removed.

Weights in OUT that came from the same checkpoint stay as they are. Figures may therefore be those
of the checkpoint, or of the file itself, which include what float16 costs: ship it, score it by
`lesion/evaluate.py --weights=OUT/lesion_TASK.weights.h5`, and ship it again with these figures.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack

from lesion import NOTICE
from lesion.printing import CommandParser
from lesion.provenance import describe_data
from lesion.samples import TASKS
from lesion.splits import RUN_FILE, SPLIT_FILE, Split
from lesion.stopping import stoppable
from lesion.weights import (
    companion,
    ensemble_calibration,
    find_weights,
    joint_sha256,
    member_files,
    own_split,
    shipped_name,
    weights_path,
    write_ensemble,
)
from mrcnn.arrays import WeightsError
from mrcnn.files import atomic_path, sha256_of, write_json

LARGEST = 25_000_000
# What a training adds to the weights at its end.
_ADDED = {"attributes": "thresholds", "diagnosis": "calibration"}
# What of an evaluation names files of one machine, or is in the record already.
_LEFT_OUT = ("problems", "split", "model", "task", "notice")


def ship(
    task: str,
    weights: str | Path,
    datasets: Sequence[str | Path],
    command: str,
    out: str | Path = "weights",
    figures: Sequence[str | Path] = (),
    revision: str | None = None,
) -> Path:
    """Writes weights, record and split of a task into a folder; returns what Analyzer is given.

    That is the path of the weights, or of the file that names an ensemble's members.

    Args:
        task: one of `lesion.samples.TASKS`.
        weights: the last checkpoint of a training, in its run's folder, or the `ensemble.json` of
            several members. Checkpoints of trainings that average their weights hold the
            average.
        datasets: the folders it was trained on.
        command: that repeats the training.
        out: the folder.
        figures: files `evaluation.json` of the checkpoint, or of what was written before.
        revision: of the code that trained; by default git's of this working tree.

    Raises:
        mrcnn.weights.WeightsError: if the checkpoint is damaged, of another task or not at its end.
        lesion.splits.SplitError: if the data sets lack an image of the split.
        FileNotFoundError: if the checkpoint's run lacks its settings or its split.
        ValueError: if figures are of other weights, or the file is larger than `LARGEST`.
    """
    weights = weights_path(weights, task)
    origin = {"command": command, "revision": revision or _revision()}
    out = Path(out)
    if weights.suffix != ".json":
        target = out / shipped_name(task)
        with ExitStack() as written:
            _ship_network(written, task, weights, target, datasets, origin, figures)
        _remove_others(task, out, [target])
        return target
    target = out / shipped_name(task, member=0)
    members = {
        out / shipped_name(task, number): path
        for number, path in enumerate(member_files([weights], task), start=1)
    }
    with ExitStack() as written:  # which gives the last its name first
        stored = written.enter_context(atomic_path(target))
        records = [
            _ship_again(written, path, own)
            or _ship_network(written, task, path, own, datasets, origin)
            for own, path in members.items()
        ]
        calibration = ensemble_calibration([weights])
        hashes = {
            key: joint_sha256([record[key] for record in records], calibration)
            for key in ("checkpoint_sha256", "sha256")
        }
        # Members shipped before were scored as they are, the others before they were stored.
        given = joint_sha256([sha256_of(path) for path in members.values()], calibration)
        scored = {given, *hashes.values()}
        split = Split.load(_beside(weights, SPLIT_FILE))
        # One alone may have had a start or a teacher.
        for own in filter(None, map(own_split, members.values())):
            split = split.with_learned(Split.load(own))
        details = {
            **origin,
            "data": describe_data(task, datasets, split, learned_of(records, split)),
            **hashes,
            "bytes": sum(record["bytes"] for record in records),
            "figures": [read_figures(file, scored) for file in figures],
            "notice": NOTICE,
        }
        split.save(written.enter_context(atomic_path(companion(target, ".split.json"))))
        names = [path.name for path in members]
        write_ensemble(stored, task, names, calibration, **details)
    _remove_others(task, out, [target, *members])
    return target


def learned_of(records: Sequence[Mapping], split: Split) -> dict[str, int]:
    """Numbers of images in the parts of an ensemble that its members learned by, by their records.

    In a cross-validation each member's validation part is among what the others learned from.
    """
    names = ("train", "validation")
    counts = [
        [record["data"]["parts"].get(name, {}).get("images", 0) for name in names]
        for record in records
    ]
    if not split.parts.get("validation"):
        return {"train": max(map(sum, counts))}
    return dict(zip(names, map(max, *counts, [0, 0]), strict=True))


def _remove_others(task, out, kept):
    """Removes what is left of a task's former weights, which would be taken for these or their own.

    `kept` are the weights, and the file that names them, whose records and splits stay, too.
    """
    names = {path.name for path in kept}
    names |= {companion(path, ".split.json").name for path in kept}
    names |= {companion(path, ".json").name for path in kept if path.suffix == ".h5"}
    former = re.compile(rf"lesion_{task}(_\d+)?\.(weights\.h5|(ensemble\.|split\.)?json)")
    for path in out.iterdir():
        if former.fullmatch(path.name) and path.name not in names:
            path.unlink()


def _ship_again(written, weights, target):
    """Copies the files of a network that was shipped before; its record, or None if it was not."""
    record = _record_of(weights)
    if record:
        for ending in (".weights.h5", ".split.json", ".json"):
            copy = written.enter_context(atomic_path(companion(target, ending)))
            shutil.copyfile(companion(weights, ending), copy)
    return record


def _ship_network(written, task, weights, target, datasets, origin, figures=()):
    """Writes the three files of one network, which get their names when `written` closes.

    Returns its record.
    """
    path, metadata = find_weights(weights, task)
    added = _ADDED.get(task)
    if added and added not in metadata:
        raise WeightsError(
            f"{path} lacks its {added}: the training did not reach its last epoch, or had no "
            "validation part. Continue it with --weights=last."
        )
    settings = _read_json(_beside(path, RUN_FILE), "settings of a run", "seed")
    if metadata.get("epoch", math.inf) < settings.get("epochs", 0):
        raise WeightsError(
            f"{path} is of epoch {metadata['epoch']} of {settings['epochs']}: the training did not "
            "reach its last. Continue it with --weights=last."
        )
    split = Split.load(_beside(path, SPLIT_FILE))
    for name in ("crop_weights", "teacher", "unlabelled"):  # paths of the machine that trained
        value = settings.get(name)
        if isinstance(value, list):
            settings[name] = [Path(each).name for each in value]
        elif value:
            settings[name] = Path(value).name
    record = {
        "task": task,
        **origin,
        "seed": settings["seed"],
        "settings": settings,
        "data": describe_data(task, datasets, split, settings.get("images")),
        "checkpoint_sha256": sha256_of(path),
    }
    stored = written.enter_context(atomic_path(target))
    if _is_from(record["checkpoint_sha256"], target):
        shutil.copyfile(target, stored)
    else:
        _store(task, path, metadata, stored)
    size = stored.stat().st_size
    if size > LARGEST:
        raise ValueError(
            f"The weights of {path} take {size:,} bytes as float16, and {LARGEST:,} are "
            "allowed. Train a smaller backbone."
        )
    record |= {"storage": "float16", "bytes": size, "sha256": sha256_of(stored)}
    hashes = (record["checkpoint_sha256"], record["sha256"])
    record["figures"] = [read_figures(file, hashes) for file in figures]
    record["notice"] = NOTICE
    split.save(written.enter_context(atomic_path(companion(target, ".split.json"))))
    write_json(written.enter_context(atomic_path(companion(target, ".json"))), record)
    return record


def _beside(weights, name):
    """A file of the run that a checkpoint came from."""
    path = weights.parent / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: give a checkpoint that lies in the folder of its run."
        )
    return path


def read_figures(path: str | Path, hashes: Collection[str]) -> dict:
    """The figures of a file `evaluation.json`, without what names files of one machine.

    Raises:
        ValueError: if the file is no evaluation, or one of weights that have none of the `hashes`.
    """
    content = _read_json(path, "figures as lesion/evaluate.py writes them", "weights")
    weights = content["weights"]
    scored = weights.get("sha256") if isinstance(weights, dict) else None
    if scored not in hashes:
        raise ValueError(
            f"{path} holds figures of other weights (SHA-256 {str(scored)[:12]}…). Score these "
            "with lesion/evaluate.py first."
        )
    return {name: value for name, value in content.items() if name not in _LEFT_OUT}


def _read_json(path, kind, key):
    """An object that has `key`; ValueError says of any other file that it is none of its `kind`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON text: {error}.") from error
    if not isinstance(content, dict) or key not in content:
        raise ValueError(f"{path} does not hold the {kind}: it lacks {key!r}.")
    return content


def _is_from(checkpoint_sha256, target):
    """Whether shipped weights are whole and came from a checkpoint, by their record."""
    record = _record_of(target)
    return record is not None and record.get("checkpoint_sha256") == checkpoint_sha256


def _record_of(weights):
    """The record of shipped weights; None where there is none, or one of another file."""
    file = companion(weights, ".json")
    if not weights.is_file() or not file.is_file():
        return None
    try:
        record = _read_json(file, "record of shipped weights", "sha256")
    except ValueError:  # damaged: it is made anew
        return None
    return record if record["sha256"] == sha256_of(weights) else None


def _store(task, path: Path, metadata: Mapping, out: Path) -> None:
    """Writes the network in `path` as float16, and within it the boundary's, if it has one."""
    # TensorFlow is loaded here and not above, so that a mistyped command answers at once.
    from mrcnn.weights import save_weights

    if task == "boundary":
        from lesion.boundary import load_predictor

        save_weights(load_predictor(path).model.keras_model, out, metadata, "float16")
    elif task == "attributes":
        from lesion.attributes import load_attributes

        save_weights(load_attributes(path).model.keras_model, out, metadata, "float16")
    else:
        from lesion.diagnosis import BOUNDARY, load_classifier, with_boundary

        classifier = load_classifier(path)
        save_weights(classifier.network, out, metadata, "float16")
        if classifier.boundary:
            with tempfile.TemporaryDirectory() as folder:
                inner = Path(folder) / "boundary.weights.h5"
                network = classifier.boundary.model.keras_model
                save_weights(network, inner, metadata[BOUNDARY], "float16")
                with_boundary(out, inner)


def _revision():
    """Commit of the working tree, with "-dirty" where it differs from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    root = Path(__file__).resolve().parents[1]
    try:
        found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(
            f"git does not tell the revision of {root} ({error}). Give it by --revision."
        ) from error
    return found.stdout.strip()


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        description="Turns a trained checkpoint into the weights that the project ships.",
    )
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument(
        "--weights",
        required=True,
        metavar="PATH",
        help='checkpoint in the folder of its run, "last", or an ensemble.json of `lesion train`',
    )
    parser.add_argument(
        "--dataset",
        action="append",
        required=True,
        metavar="DIR",
        help="data set it was trained on; repeatable",
    )
    parser.add_argument(
        "--command", required=True, metavar="TEXT", help="command that repeats the training"
    )
    parser.add_argument(
        "--figures",
        action="append",
        default=[],
        metavar="FILE",
        help="evaluation.json of these weights; repeatable",
    )
    parser.add_argument(
        "--revision", metavar="TEXT", help="of the code that trained (git's of this working tree)"
    )
    parser.add_argument("--out", default="weights", metavar="DIR", help="folder (./weights)")
    return parser


@stoppable
def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    try:
        written = ship(
            arguments.task,
            arguments.weights,
            arguments.dataset,
            arguments.command,
            arguments.out,
            arguments.figures,
            arguments.revision,
        )
    except (OSError, ValueError) as error:
        print(f"lesion ship: {error}", file=sys.stderr)
        return 2
    record = written if written.suffix == ".json" else companion(written, ".json")
    size = json.loads(record.read_text(encoding="utf-8"))["bytes"]
    print(f"{written}: weights of {size:,} bytes; record {record.name}")
    if not arguments.figures:
        print(
            f"It has no figures yet: `python lesion/evaluate.py --task={arguments.task} "
            f"--weights={written} --dataset=DIR`, then the same command with --figures."
        )
    print(NOTICE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
