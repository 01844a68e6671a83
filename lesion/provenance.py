"""Which data a training learned from, told without the data."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lesion.layouts import find_collections
from lesion.samples import ATTRIBUTES, Sample
from lesion.splits import UNLABELLED, Split, SplitError
from mrcnn.files import sha256_of


def describe_data(
    task: str, datasets: Sequence[str | Path], split: Split, counts: Mapping[str, int] | None
) -> dict:
    """Names of the data sets, and number and fingerprint of the images in each part of the split.

    Of images without a truth, and of those that start weights or a teacher had learned from
    `before`, which are in none of the data sets, the number alone.

    Args:
        counts: numbers of images in the parts `train` and `validation` that the training itself
            learned by; None: it learned by all.

    Raises:
        lesion.splits.SplitError: if the data sets lack an image of the split.
    """
    collections = find_collections(datasets, task=task)
    samples = {sample.key: sample for collection in collections for sample in collection.samples}
    labelled = {name: keys for name, keys in split.parts.items() if name != UNLABELLED}
    missing = [key for keys in labelled.values() for key in keys if key not in samples]
    here = {name: [key for key in keys if key in samples] for name, keys in labelled.items()}
    # Start weights and teachers bring no images to test on, but may bring what they learned from.
    complete = counts is not None and all(
        len(here.get(name, ())) >= counts.get(name, 0) for name in ("train", "validation")
    )
    if missing and not (complete and here.get("test") == labelled.get("test")):
        raise SplitError(
            f"{len(missing)} images of the split, such as {missing[0]}, are not in "
            f"{', '.join(map(str, datasets))}. Give the data sets of the training, in folders of "
            "the same names."
        )
    taught = len(split.parts.get(UNLABELLED, ()))
    return {
        "collections": [collection.name for collection in collections],
        "parts": {
            name: {
                "images": len(keys),
                "sha256": fingerprint(task, (samples[key] for key in keys)),
            }
            for name, keys in here.items()
        }
        | ({UNLABELLED: {"images": taught}} if taught else {})
        | ({"before": {"images": len(missing)}} if missing else {}),
    }


def fingerprint(task: str, samples: Iterable[Sample]) -> str:
    """SHA-256 of what a task learns from samples: names, image files and truths, in any order."""
    lines = []
    for sample in samples:
        truths = {
            "boundary": [sample.mask],
            "attributes": [sample.attributes.get(name) for name in ATTRIBUTES],
            "diagnosis": [],
        }[task]
        words = [sample.image_id, sha256_of(sample.image)]
        words += [sha256_of(truth) if truth else "" for truth in truths]
        if task == "diagnosis":
            words += [str(sample.diagnosis), json.dumps(dict(sample.metadata), sort_keys=True)]
        lines.append("\t".join(words))
    text = "\n".join(sorted(lines))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
