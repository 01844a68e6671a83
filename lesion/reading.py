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


def chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in order, `size` at a time; the last ones may be fewer."""
    return [items[start : start + size] for start in range(0, len(items), size)]


class Prediction(NamedTuple):
    """An image with what was predicted for it."""

    image: np.ndarray
    found: Any


def predict_images(
    predict: Callable[[list[np.ndarray]], Sequence[Any]],
    paths: Sequence[str | Path],
    batch: int = 8,
) -> Iterator[Prediction | Problem]:
    """Reads and predicts images in batches; the next batch is read while one is predicted.

    Args:
        predict: takes a list of uint8 `[height, width, 3]` and returns something for each, such as
            a `lesion.boundary.Boundary`.
        paths: image files.
        batch: images predicted at once. At most twice as many are held in memory.

    Yields:
        One `Prediction` per path, in order, or what is wrong with the file.
    """
    if batch < 1:
        raise ValueError(f"`batch` must be at least 1, received {batch}.")
    for read in read_ahead(read_or_problem, map(Path, paths), batch):
        images = [each for each in read if not isinstance(each, Problem)]
        found = iter(predict(images) if images else [])
        for each in read:
            if isinstance(each, Problem):
                yield each
            else:
                yield Prediction(each, next(found))


def read_or_problem(path: Path) -> np.ndarray | Problem:
    """An image, uint8 [height, width, 3], or what is wrong with its file."""
    try:
        return read_image(path)
    except (ImageError, OSError) as error:
        return Problem.of(path, error)


def read_truth_mask(path: Path, shape: Sequence[int]) -> np.ndarray | Problem:
    """A mask to compare with, bool [height, width], or why an image of that shape cannot be."""
    try:
        mask = read_mask(path)
    except (ImageError, OSError) as error:
        return Problem.of(path, error)
    height, width = shape[:2]
    if mask.shape == (height, width):
        return mask
    sizes = f"{mask.shape[1]} x {mask.shape[0]} pixels, its image {width} x {height}"
    return Problem(path, f"mask of another size: {sizes}")
