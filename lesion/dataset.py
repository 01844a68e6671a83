"""Data sets of dermoscopic images: what a folder holds, and what is wrong with it.

`python lesion/dataset.py --dataset DIR` decodes every file once, prints what it found and names
every file at fault.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections import Counter

from lesion import NOTICE
from lesion.checks import check_samples
from lesion.layouts import find_collections
from lesion.options import add_datasets, positive
from lesion.patient import known_of
from lesion.printing import CommandParser
from lesion.samples import (
    ATTRIBUTES,
    DIAGNOSES,
    TASKS,
    Collection,
    DatasetError,
    printable,
    said_of,
)
from lesion.stopping import stoppable
from mrcnn.files import write_json


def summarize(collection: Collection) -> dict:
    """What a checked collection holds, as plain values for JSON."""
    samples = collection.samples
    diagnoses = Counter(sample.diagnosis for sample in samples if sample.diagnosis)
    lesions = {sample.lesion_id for sample in samples if sample.lesion_id}
    attributes = Counter(name for sample in samples for name in sample.attributes)
    parts = Counter(sample.part for sample in samples if sample.part)
    sizes = [
        {"height": height, "width": width, "images": count}
        for (height, width), count in collection.sizes.most_common()
    ]
    return {
        "name": collection.name,
        "root": str(collection.root),
        "layout": collection.layout,
        "part": collection.part,
        "images": len(samples) + collection.left_out,
        "sound": len(samples),
        "left_out": collection.left_out,
        "parts": dict(parts),
        "sizes": sizes,
        "attributes": {name: attributes[name] for name in ATTRIBUTES if name in attributes},
        "diagnoses": {name: diagnoses[name] for name in DIAGNOSES if name in diagnoses},
        "lesions": len(lesions),
        "images_without_lesion_id": sum(sample.lesion_id is None for sample in samples),
        "notes": [str(note) for note in collection.notes],
        "problems": [problem.to_dict() for problem in collection.problems],
    }


def _describe(collection: Collection, summary: dict) -> str:
    def counts(values: dict) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in values.items())

    sizes = summary["sizes"]
    common = ", ".join(f"{s['width']} x {s['height']} ({s['images']:,})" for s in sizes[:4])
    more = f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""
    lines = [
        f"{summary['name']}: {summary['layout']}, {summary['part']} ({summary['root']})",
        f"  images      {summary['images']:,}, of which {summary['sound']:,} are sound "
        f"and {summary['left_out']:,} left out",
    ]
    if len(summary["parts"]) > 1:
        lines.append(f"  parts       {counts(summary['parts'])}")
    lines.append(f"  sizes       {common or 'none'}{more}")
    lines.append(f"  attributes  {counts(summary['attributes']) or 'no masks'}")
    lines.append(f"  diagnoses   {counts(summary['diagnoses']) or 'unknown'}")
    unknown = summary["images_without_lesion_id"]
    known = f"{summary['lesions']:,} in {summary['sound'] - unknown:,} images"
    lines.append(f"  lesions     {known if summary['lesions'] else 'unknown, splits are by image'}")
    lines += [f"  note        {note}" for note in said_of(collection.notes)]
    lines.append(f"  problems    {len(summary['problems']):,}")
    lines += [f"    {line}" for line in said_of(collection.problems)]
    return printable("\n".join(lines))


def build_parser() -> argparse.ArgumentParser:
    description = "Says what a data set holds and names every file at fault."
    parser = CommandParser(prog="lesion dataset", description=description)
    add_datasets(parser)
    parser.add_argument("--task", choices=TASKS, default="boundary", help="what to check for")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if there is any problem")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the result as JSON")
    parser.add_argument(
        "--workers", type=positive, default=2, metavar="N", help="decoding threads (2)"
    )
    return parser


@stoppable
def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 2, or with --strict 1 for any problem."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.json and arguments.json.is_dir():
        parser.error(f"--json {arguments.json} is a folder; name a file.")
    try:
        return _run(arguments)
    except (DatasetError, OSError) as error:
        print(f"lesion dataset: {error}", file=sys.stderr)
        return 2


def _run(arguments):
    collections = find_collections(arguments.dataset, task=arguments.task)
    summaries, used = [], {}  # copies count among all of them, as when they are learned from
    for collection in collections:
        checked = check_samples(collection, arguments.task, arguments.workers, used=used)
        summaries.append(summarize(checked))
        print(_describe(checked, summaries[-1]))
        if arguments.task == "diagnosis" and checked.samples:
            print("\n".join(known_of([sample.metadata for sample in checked.samples])))
    print(NOTICE)
    if arguments.json:
        report = {"notice": NOTICE, "task": arguments.task, "collections": summaries}
        write_json(arguments.json, report)
    faults = any(summary["problems"] for summary in summaries)
    return 1 if arguments.strict and faults else 0


if __name__ == "__main__":
    sys.exit(main())
