"""What several views of an image add to the diagnosis: turned, mirrored, and from nearer.

    python benchmarks/diagnosis_views.py --weights A.h5 --weights B.h5 --dataset DIR --json OUT

Each network is scored by one view, by the means of some, and by the eight that are the default, and
so is the mean of all networks; a temperature for each row.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timing  # noqa: F401  (puts the repository on the path)
from ensemble_choice import add_networks, figures_of, find_data, labels_of
from tqdm import tqdm

from lesion import NOTICE
from lesion.calibration import Calibration
from lesion.diagnosis import DiagnosisPredictor, load_classifier
from lesion.options import positive
from lesion.printing import CommandParser
from lesion.samples import Sample
from lesion.selection import select_samples
from lesion.tables import aligned
from mrcnn.files import write_json
from mrcnn.images import read_image

_CHUNK = 64
_WHOLE, _NEARER = np.arange(8), np.arange(8, 16)  # of what `logits_of` gives, turned first
WAYS = {
    "one view": _WHOLE[:1],
    "eight of the whole": _WHOLE,
    "eight from nearer": _NEARER,
    "four, and four from nearer (8 views)": np.concatenate([_WHOLE[:4], _NEARER[4:]]),
    "eight, and eight from nearer": np.concatenate([_WHOLE, _NEARER]),
}


def logits_of(predictor: DiagnosisPredictor, samples: Sequence[Sample]) -> np.ndarray:
    """float64 [images, 16, 7]: of the whole turned, and mirrored and turned; so from nearer."""
    found = []
    for start in tqdm(range(0, len(samples), _CHUNK), predictor.weights.name, disable=None):
        chunk = samples[start : start + _CHUNK]
        images = [read_image(sample.image) for sample in chunk]
        patients = [sample.metadata for sample in chunk]
        # Eight views are the whole turned, and from nearer mirrored and turned: those of the mirror
        # image are the other eight.
        own = predictor.logits_of_views(images, patients)
        other = predictor.logits_of_views([image[:, ::-1] for image in images], patients)
        found.append(np.concatenate([own[:, :4], other, own[:, 4:]], axis=1))
    return np.concatenate(found)


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(description=__doc__.splitlines()[0])
    add_networks(parser)
    parser.add_argument("--part", default="validation", help="of the split (validation)")
    parser.add_argument("--limit", type=positive, metavar="N", help="first N of each data set")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the results")
    arguments = parser.parse_args(argv)

    with parser.explaining():
        collections, split = find_data(arguments)
        samples = select_samples(collections, split, arguments.part, arguments.limit)
    labels = labels_of(parser, samples)
    answers: dict[str, dict[str, np.ndarray]] = {way: {} for way in WAYS}
    for number, path in enumerate(arguments.weights, 1):
        predictor = load_classifier(path, views=8)
        logits = logits_of(predictor, samples)
        for way, views in WAYS.items():
            mean = logits[:, views].mean(axis=1)
            answers[way][f"{number}: {path.name}"] = predictor.calibration.probabilities(mean)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for way, by_network in answers.items():
        by_network["all together"] = np.mean(list(by_network.values()), axis=0)
        for name, probabilities in by_network.items():
            joint = Calibration.fit(np.log(probabilities), labels)
            calibrated = joint.probabilities(np.log(probabilities))
            results.setdefault(name, {})[way] = figures_of(calibrated, labels)
    names = list(next(iter(results["all together"].values())))
    rows = [["network", "views", *names]]
    for network, by_way in results.items():
        for way, figures in by_way.items():
            rows.append([network, way, *(f"{figures[name]:.3f}" for name in names)])
    print("\n".join(aligned(rows)))
    print(f"{len(samples)} images of part {arguments.part}")
    print(NOTICE)
    if arguments.json:
        content = {"part": arguments.part, "images": len(samples), "networks": results}
        write_json(arguments.json, {**content, "notice": NOTICE})


if __name__ == "__main__":
    main()
