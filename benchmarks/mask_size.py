"""The Jaccard that a mask of 28, 56 or 112 pixels allows at best.

Each true mask is sampled in its own box, as the training's targets are, and placed back: what is
lost is lost to the mask's size alone, before any network errs.
"""

import numpy as np
import timing  # noqa: F401  (puts the repository on the path)
from tqdm import tqdm

from lesion.layouts import find_samples
from lesion.metrics import boundary_metrics
from lesion.options import positive
from lesion.printing import CommandParser
from mrcnn.boxes import scale_boxes
from mrcnn.images import read_mask
from mrcnn.masks import extract_bboxes, place_mask


def through_grid(mask: np.ndarray, size: int, box_scale: float) -> np.ndarray:
    """A bool mask [h, w] sampled on a grid of `size` in its enlarged box and placed back."""
    box = scale_boxes(extract_bboxes(mask[..., None])[0].astype(np.float64), box_scale)
    y1, x1, y2, x2 = box
    rows = y1 + (np.arange(size) + 0.5) * (y2 - y1) / size - 0.5
    columns = x1 + (np.arange(size) + 0.5) * (x2 - x1) / size - 0.5
    grid = (_sample(mask.astype(float), rows, columns) >= 0.5).astype(float)
    return place_mask(grid, box, mask.shape)


def _sample(values, rows, columns):
    """Bilinear samples [len(rows), len(columns)], zero outside."""
    values = np.pad(values, 1)
    for positions in (rows, columns):
        positions = np.clip(positions + 1, 0, len(values) - 1)
        before = np.floor(positions).astype(int)
        after = np.minimum(before + 1, len(values) - 1)
        fraction = (positions - before)[:, None]
        values = (values[before] * (1 - fraction) + values[after] * fraction).T
    return values


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--dataset", action="append", required=True)
    parser.add_argument("--limit", type=positive, default=400, help="masks per data set")
    parser.add_argument("--box-scale", type=float, default=1.25)
    arguments = parser.parse_args()
    for root in arguments.dataset:
        with parser.explaining():
            collection = find_samples(root, task="boundary")
        masked = [sample for sample in collection.samples if sample.mask]
        chosen = masked[:: max(1, -(-len(masked) // arguments.limit))]
        masks = [read_mask(sample.mask) for sample in tqdm(chosen, desc=collection.name)]
        masks = [mask for mask in masks if mask.any()]
        if not masks:
            parser.error(f"{root} has no mask of a lesion.")
        for size in (28, 56, 112):
            values = [
                boundary_metrics(through_grid(mask, size, arguments.box_scale), mask)["jaccard"]
                for mask in masks
            ]
            print(
                f"{collection.name}: mask {size:3d} in a box enlarged {arguments.box_scale} x: "
                f"mean Jaccard {np.mean(values):.4f} of {len(values)} masks"
            )


if __name__ == "__main__":
    main()
