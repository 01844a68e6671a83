"""What the benchmarks share: a stop-watch and the yardstick of a bare ResNet-50."""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import numpy as np

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.model import MaskRCNN


def parser(description: str, size: int, backbone: str = "resnet50") -> argparse.ArgumentParser:
    """The options all benchmarks have."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--size", type=int, default=size, help="side of the square input")
    result.add_argument("--backbone", default=backbone)
    result.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32")
    result.add_argument("--repeats", type=int, default=5)
    result.add_argument(
        "--instances", type=int, default=100, help="detections that get a mask, at most"
    )
    return result


def configuration(arguments: argparse.Namespace, **settings: Any) -> "Config":
    """A `Config` of COCO's 81 classes as the options say, for one image at a time."""
    from mrcnn.config import Config

    return Config(
        NAME="benchmark",
        NUM_CLASSES=81,
        BACKBONE=arguments.backbone,
        IMAGES_PER_GPU=1,
        IMAGE_MIN_DIM=arguments.size,
        IMAGE_MAX_DIM=arguments.size,
        PRECISION=arguments.precision,
        **settings,
    )


def detector(arguments: argparse.Namespace) -> "tuple[MaskRCNN, np.ndarray]":
    """A `MaskRCNN` of random weights that detects `--instances` things, and an image for it."""
    from mrcnn.model import MaskRCNN

    config = configuration(
        arguments, DETECTION_MIN_CONFIDENCE=0.0, DETECTION_MAX_INSTANCES=arguments.instances
    )
    shape = (arguments.size, arguments.size, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return MaskRCNN("inference", config, "logs"), image


def milliseconds(*functions: Callable[[], Any], repeats: int) -> list[float]:
    """Median time of a call of each function in milliseconds, after two calls to warm up.

    They take turns, so that a machine that is slow for a while is so for all of them.
    """
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(repeats + 2):
        for function, own in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if turn >= 2:
                own.append(1000 * (time.perf_counter() - start))
    return [statistics.median(own) for own in times]


def resnet50_forward(size: int) -> Callable[[], np.ndarray]:
    """The yardstick: a `keras.applications.ResNet50` float32 forward pass of one image."""
    model = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=(size, size, 3)
    )
    image = np.random.default_rng(0).uniform(0, 255, (1, size, size, 3)).astype(np.float32)
    return lambda: model.predict_on_batch(image)


def report(name: str, own: float, yardstick: float) -> None:
    """Prints a result as milliseconds and as the ratio to the yardstick of the same run."""
    print(
        f"{name}: {own:.0f} ms, {own / yardstick:.2f} x a ResNet-50 forward pass "
        f"({yardstick:.0f} ms); {os.cpu_count()} cores, {platform.machine()}"
    )
