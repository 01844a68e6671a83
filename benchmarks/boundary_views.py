"""What further views of an image add to the boundary: mirror images, and a look from nearby.

    python benchmarks/boundary_views.py --weights PATH --dataset DIR [--dataset DIR] [--json OUT]

The same images are scored by one view, by the means of some, and by the eight that are the default.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timing  # noqa: F401  (puts the repository on the path)
from tqdm import tqdm

from lesion import NOTICE
from lesion.boundary import load_predictor, one_region
from lesion.boundary_views import Look, close_up, look_mirrored, look_twice
from lesion.layouts import find_collections
from lesion.metrics import aggregate, boundary_metrics
from lesion.options import positive
from lesion.printing import CommandParser
from lesion.selection import select_samples
from lesion.splits import Split
from lesion.tables import aligned
from lesion.weights import split_of
from mrcnn.files import write_json
from mrcnn.images import read_image, read_mask


def once(look: Callable[[list[np.ndarray]], list[Look]], image: np.ndarray) -> Look:
    return look([image])[0]


def nearby(look: Callable[[list[np.ndarray]], list[Look]], image: np.ndarray) -> Look:
    """Four mirror images of the close-up alone, where four of the whole image put it."""
    frame = close_up(look_mirrored(look, image).probability >= 0.5)
    near = look_mirrored(look, np.ascontiguousarray(image[frame]))
    probability = np.zeros(image.shape[:2], np.float32)
    probability[frame] = near.probability
    return Look(probability, near.score)


def twice(look: Callable[[list[np.ndarray]], list[Look]], image: np.ndarray) -> Look:
    """One view of the whole image and one of the close-up."""
    whole = once(look, image)
    frame = close_up(whole.probability >= 0.5)
    joint = whole.probability.copy()
    near = once(look, np.ascontiguousarray(image[frame]))
    joint[frame] = (joint[frame] + near.probability) / 2
    return Look(joint, whole.score)


WAYS = {
    "one view": once,
    "one view and one from nearby": twice,
    "four mirror images": look_mirrored,
    "four from nearby alone": nearby,
    "four and four from nearby (8 views)": look_twice,
}


def main() -> None:
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, metavar="PATH", help='or "last", or "lesion"')
    parser.add_argument("--dataset", action="append", required=True, metavar="DIR")
    parser.add_argument("--part", default="validation", help="of the weights' split (validation)")
    parser.add_argument("--limit", type=positive, metavar="N", help="first N of each data set")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the results")
    arguments = parser.parse_args()
    with parser.explaining():
        predictor = load_predictor(arguments.weights, views=8)
        collections = find_collections(arguments.dataset, task="boundary")
        everything = [sample for collection in collections for sample in collection.samples]
        split = split_of(predictor.weights, everything)
        if split is None:
            raise ValueError("There is no split beside the weights that knows these data sets.")
        samples = select_samples(collections, Split.load(split), arguments.part, arguments.limit)
    scores: dict[str, defaultdict[str, list[dict[str, float]]]] = {
        way: defaultdict(list) for way in WAYS
    }
    for sample in tqdm(samples, disable=None):
        image, truth = read_image(sample.image), read_mask(sample.mask)
        for way, see in WAYS.items():
            mask = one_region(see(predictor.look, image).probability >= 0.5)
            for name in (sample.collection, "all"):
                scores[way][name].append(boundary_metrics(mask, truth))
    names = [*(collection.name for collection in collections), "all"]
    results = {
        way: {name: aggregate(found[name]) for name in names} for way, found in scores.items()
    }
    rows = [["views", *names, "thresholded"]]
    for way, found in results.items():
        figures = [*(found[name]["jaccard"] for name in names), found["all"]["threshold_jaccard"]]
        rows.append([way, *(f"{figure:.4f}" for figure in figures)])
    print(f"{len(samples)} images of part {arguments.part}, mean Jaccard index")
    print("\n".join(aligned(rows)))
    print(NOTICE)
    if arguments.json:
        content = {"part": arguments.part, "limit": arguments.limit, "views": results}
        write_json(arguments.json, {**content, "notice": NOTICE})


if __name__ == "__main__":
    main()
