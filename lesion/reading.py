"""Images read while others are in the networks, for whatever is predicted of them."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lesion.samples import Problem
from mrcnn.images import ImageError, read_image, read_mask

_READERS = 2

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(
    read: Callable[[Item], Read], items: Iterable[Item], batch: int
) -> Iterator[list[Read]]:
    """Reads items in threads, a batch ahead of whoever takes them.

    Args:
        read: makes something of an item.
        items: any number of them; no more are taken than are read.
        batch: at most twice as many are held in memory.

    Yields:
        What was read, in order, `batch` at a time.
    """
    items = iter(items)
    with ThreadPoolExecutor(_READERS) as pool:
        upcoming = [pool.submit(read, item) for item in itertools.islice(items, batch)]
        while upcoming:
            current = [future.result() for future in upcoming]
            upcoming = [pool.submit(read, item) for item in itertools.islice(items, batch)]
            yield current


class Prediction(NamedTuple):
    """An image with what was predicted for it, or the reason why it could not be read."""

    path: Path
    image: np.ndarray | None
    found: Any | None
    error: str | None


def predict_images(
    predictor: Any, paths: Sequence[str | Path], batch: int = 8
) -> Iterator[Prediction]:
    """Reads and predicts images in batches; the next batch is read while one is predicted.

    Args:
        predictor: has `predict(images)`, which takes a list of uint8 `[height, width, 3]` and
            returns something for each, such as a `lesion.boundary.Boundary`.
        paths: image files.
        batch: images predicted at once. At most twice as many are held in memory.

    Yields:
        One `Prediction` per path, in order.
    """
    if batch < 1:
        raise ValueError(f"`batch` must be at least 1, received {batch}.")
    for read in read_ahead(read_or_reason, map(Path, paths), batch):
        images = [image for _, image, _ in read if image is not None]
        found = iter(predictor.predict(images) if images else [])
        for path, image, error in read:
            yield Prediction(path, image, None if image is None else next(found), error)


def read_or_reason(path: Path) -> tuple[Path, np.ndarray | None, str | None]:
    """The path with its image and None, or with None and what is wrong with it."""
    try:
        return path, read_image(path), None
    except (ImageError, OSError) as error:
        # The message begins with the path, which its listing names already.
        return path, None, str(error).removeprefix(f"{path}: ")


def read_truth_mask(path: Path, shape: Sequence[int]) -> np.ndarray | Problem:
    """A mask to compare with, bool [height, width], or why an image of that shape cannot be."""
    try:
        mask = read_mask(path)
    except (ImageError, OSError) as error:
        return Problem(path, str(error).removeprefix(f"{path}: "))
    height, width = shape[:2]
    if mask.shape == (height, width):
        return mask
    sizes = f"{mask.shape[1]} x {mask.shape[0]} pixels, its image {width} x {height}"
    return Problem(path, f"mask of another size: {sizes}")
