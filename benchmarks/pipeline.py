"""Images per second of the boundary task's input pipeline alone, on phantoms.

The first epoch decodes and reduces the originals into the cache, the second reads the cache. The
ratio is that of the two.
"""

import tempfile
import time
from pathlib import Path

import timing  # noqa: F401  (puts the repository on the path)

from lesion.augment import DermoscopyAugmentation
from lesion.boundary import BoundaryConfig
from lesion.boundary_data import LesionDataset
from lesion.cache import ImageCache
from lesion.layouts import find_samples
from lesion.options import positive
from lesion.phantom import write_phantoms
from lesion.printing import CommandParser
from mrcnn.data import Batches


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--images", type=positive, default=32)
    parser.add_argument("--width", type=positive, default=3000, help="of the originals")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        width = arguments.width
        write_phantoms(Path(folder) / "data", arguments.images, height=3 * width // 4, width=width)
        samples = find_samples(Path(folder) / "data").samples
        rates = []
        for _ in range(2):
            dataset = LesionDataset(samples, ImageCache(Path(folder) / "cache", max_side=448))
            dataset.prepare()
            batches = Batches(
                dataset, BoundaryConfig(), augmentation=DermoscopyAugmentation(), shuffle=False
            )
            start = time.perf_counter()
            for index in range(len(batches)):
                batches[index]
            rates.append(len(samples) / (time.perf_counter() - start))
    print(
        f"pipeline, one thread, {arguments.images} originals of {width} x {3 * width // 4}: "
        f"first epoch {rates[0]:.1f} images/s, second {rates[1]:.1f} images/s "
        f"({rates[1] / rates[0]:.0f} x)"
    )


if __name__ == "__main__":
    main()
