"""Threads that ask one loaded SavedModel all at once: errors, throughput, and growth of memory.

The model is the one of `--model`, or a boundary network of random weights. Requests are JPEGs of
three sizes, one to a request.
"""

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf
import timing  # noqa: F401  (puts the repository on the path)

from lesion.boundary import BoundaryConfig
from lesion.options import positive
from lesion.printing import CommandParser
from lesion.serving import BoundaryAnswer
from mrcnn.export import write_saved_model
from mrcnn.model import MaskRCNN

SIZES = ((768, 1024), (450, 600), (600, 450))


def random_boundary(folder: Path) -> Path:
    """An exported boundary network of random weights."""
    model = MaskRCNN("inference", BoundaryConfig(DETECTION_MIN_CONFIDENCE=0.0), "logs")
    predictor: Any = SimpleNamespace(model=model, views=1)  # whose weights no file holds
    write_saved_model(folder, BoundaryAnswer(predictor), {})
    return folder


def requests() -> list[tf.Tensor]:
    """Encoded images, smooth enough to be JPEGs of a usual size."""
    random = np.random.default_rng(0)
    contents = []
    for height, width in SIZES:
        small = random.integers(0, 256, (1, height // 16, width // 16, 3))
        pixels = tf.image.resize(small, (height, width), "bicubic")[0]
        pixels = tf.cast(tf.clip_by_value(pixels, 0, 255), tf.uint8)
        contents.append(tf.constant([tf.io.encode_jpeg(pixels, quality=90).numpy()]))
    return contents


def resident() -> float:
    """Memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Load:
    """Threads that call a signature until they are stopped."""

    def __init__(self, signature: Callable, contents: Sequence[tf.Tensor], threads: int):
        self.signature, self.contents = signature, contents
        self.stopped = threading.Event()
        self.milliseconds: list[float] = []
        self.errors: list[tf.errors.OpError] = []
        self.threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(threads)]

    def _ask(self, turn):
        while not self.stopped.is_set():
            start = time.perf_counter()
            try:
                outputs = self.signature(image_bytes=self.contents[turn % len(self.contents)])
                for value in outputs.values():
                    value.numpy()
            except tf.errors.OpError as error:
                self.errors.append(error)
            self.milliseconds.append(1000 * (time.perf_counter() - start))
            turn += 1

    def run(self, seconds: float) -> tuple[float, float]:
        """The memory at a tenth of the time, when all buffers are there, and at its end."""
        for thread in self.threads:
            thread.start()
        time.sleep(seconds / 10)
        before = resident()
        time.sleep(seconds * 9 / 10)
        after = resident()
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        return before, after


def main() -> int:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--model", help="folder of a SavedModel")
    parser.add_argument("--threads", type=positive, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or random_boundary(Path(folder) / "1")
        with parser.explaining():
            signature = tf.saved_model.load(str(path)).signatures["serving_default"]
        contents = requests()
        for content in contents:
            signature(image_bytes=content)
        load = Load(signature, contents, arguments.threads)
        before, after = load.run(arguments.seconds)
    answers = len(load.milliseconds) - len(load.errors)
    print(
        f"{arguments.threads} threads, {arguments.seconds:.0f} s: {answers} answers, "
        f"{len(load.errors)} errors; {answers / arguments.seconds:.1f} images/s, median "
        f"{statistics.median(load.milliseconds):.0f} ms; memory {before:.0f} -> {after:.0f} MiB"
    )
    if load.errors:
        print(f"first error: {load.errors[0]}")
    return 1 if load.errors else 0


if __name__ == "__main__":
    sys.exit(main())
