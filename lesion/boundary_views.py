"""A lesion looked at several times: mirrored, and once more from nearby.

The network sees an image as few pixels. Once it is known where the lesion lies, the part of the
image around it fills them better, as in the second stage of the challenge's winner of 2018 (Qian et
al., arXiv 1809.03917); here the same network takes both looks, and their mean is the answer.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

VIEWS = (1, 8)
"""Numbers of views that can be averaged: the image alone, or four mirror images of two looks."""
MARGIN = 1.6
"""Sides of the close-up over those of the lesion, of that axis which fills the image more."""
MIN_SHARE = 0.15
"""Least side of the close-up as a share of the image's."""
MAX_SIDE = 1024
"""Longer side to which images are reduced before: a network sees less, and maps of several views at
the size of a large photograph would take a gigabyte."""

_MIRRORS = 4


class Look(NamedTuple):
    """What one or several views of an image say.

    Attributes:
        probability: float32 [height, width] of the image: how surely a pixel is the lesion's.
        score: of the network, in 0..1, zero where nothing was found.
    """

    probability: np.ndarray
    score: float


def look_twice(
    look: Callable[[list[np.ndarray]], list[Look]], images: Sequence[np.ndarray]
) -> list[Look]:
    """The mean of eight views of each image, of its own size.

    Args:
        look: what the network says of a list of images.
        images: uint8 [height, width, 3].
    """
    small = [reduced(image) for image in images]
    whole = _mirrored_look(look, small)
    frames = [close_up(found.probability >= 0.5) for found in whole]
    near = _mirrored_look(look, [image[frame] for image, frame in zip(small, frames, strict=True)])
    answers = []
    for image, first, second, frame in zip(images, whole, near, frames, strict=True):
        joint = first.probability.copy()
        joint[frame] = (joint[frame] + second.probability) / 2
        score = (first.score + second.score) / 2
        answers.append(Look(enlarged(joint, image.shape[:2]), score))
    return answers


def _mirrored_look(look, images):
    """The mean of what is seen of each image and of its mirror images."""
    views = look([mirrored(image, number) for image in images for number in range(_MIRRORS)])
    answers = []
    for start in range(0, len(views), _MIRRORS):
        seen = views[start : start + _MIRRORS]
        back = [mirrored(view.probability, number) for number, view in enumerate(seen)]
        score = float(np.mean([view.score for view in seen]))
        answers.append(Look(np.mean(back, axis=0, dtype=np.float32), score))
    return answers


def mirrored(array: np.ndarray, number: int) -> np.ndarray:
    """An array [height, width, ...] as it is (0), mirrored (1), upside down (2), or both (3).

    It is its own inverse.
    """
    return np.ascontiguousarray(array[:: -1 if number & 2 else 1, :: -1 if number & 1 else 1])


def close_up(mask: np.ndarray) -> tuple[slice, slice]:
    """The part of an image around its lesion, of the image's proportions and within it.

    Args:
        mask: bool [height, width]; without a lesion the whole image is taken.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    spans = [(line[0], line[-1] + 1) for line in (rows, columns)]
    shares = [(end - start) / size for (start, end), size in zip(spans, mask.shape, strict=True)]
    share = float(np.clip(MARGIN * max(shares), MIN_SHARE, 1))
    frame = []
    for (start, end), size in zip(spans, mask.shape, strict=True):
        side = max(1, round(share * size))
        first = int(np.clip((start + end - side) // 2, 0, size - side))
        frame.append(slice(first, first + side))
    return tuple(frame)


def reduced(image: np.ndarray) -> np.ndarray:
    """An image uint8 [height, width, 3] of at most `MAX_SIDE`: means of the pixels under each."""
    height, width = image.shape[:2]
    share = MAX_SIDE / max(height, width)
    if share >= 1:
        return image
    size = max(1, round(width * share)), max(1, round(height * share))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def enlarged(probability: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A map float32 [h, w] of a reduced image at the size `(height, width)` it had before."""
    if probability.shape == tuple(shape):
        return probability
    size = shape[1], shape[0]
    return np.asarray(Image.fromarray(probability).resize(size, Image.Resampling.BILINEAR))
