"""A lesion looked at several times: mirrored, and once more from nearby.

The network sees an image as few pixels. Once it is known where the lesion lies, the part of the
image around it fills them better, as in the second stage of the challenge's winner of 2018 (Qian et
al., arXiv 1809.03917); here the same network takes both looks, and their mean is the answer.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from lesion.crop import centred, mask_ends
from mrcnn.images import fitted_size

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


def look_twice(look: Callable[[list[np.ndarray]], list[Look]], image: np.ndarray) -> Look:
    """The mean of eight views of an image, of its own size.

    Of four, where the lesion fills the image or none is found: nearer there is nothing else to see.

    Args:
        look: what the network says of a list of images.
        image: uint8 [height, width, 3].
    """
    small = reduced(image)
    whole = look_mirrored(look, small)
    frame = close_up(whole.probability >= 0.5)
    if small[frame].shape == small.shape:  # from nearby it would be the same once more
        return Look(enlarged(whole.probability, image.shape[:2]), whole.score)
    near = look_mirrored(look, small[frame])
    joint = whole.probability.copy()
    joint[frame] = (joint[frame] + near.probability) / 2
    return Look(enlarged(joint, image.shape[:2]), (whole.score + near.score) / 2)


def look_mirrored(look: Callable[[list[np.ndarray]], list[Look]], image: np.ndarray) -> Look:
    """The mean of what is seen of an image and of its three mirror images."""
    views = look([mirrored(image, number) for number in range(_MIRRORS)])
    back = [mirrored(view.probability, number) for number, view in enumerate(views)]
    score = float(np.mean([view.score for view in views]))
    return Look(np.stack(back).mean(axis=0, dtype=np.float32), score)


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
    if not mask.any():
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    spans = mask_ends(mask)
    shares = [(end - start) / size for (start, end), size in zip(spans, mask.shape, strict=True)]
    share = float(np.clip(MARGIN * max(shares), MIN_SHARE, 1))
    frame = []
    for span, size in zip(spans, mask.shape, strict=True):
        side = max(1, round(share * size))
        first = centred(span, side, size)
        frame.append(slice(first, first + side))
    rows, columns = frame
    return rows, columns


def reduced(image: np.ndarray) -> np.ndarray:
    """An image uint8 [height, width, 3] of at most `MAX_SIDE`: means of the pixels under each."""
    height, width = image.shape[:2]
    if max(height, width) <= MAX_SIDE:
        return image
    size = fitted_size(width, height, MAX_SIDE)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def enlarged(probability: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A map float32 [h, w] of a reduced image at the size `(height, width)` it had before."""
    if probability.shape == tuple(shape):
        return probability
    size = shape[1], shape[0]
    return np.asarray(Image.fromarray(probability).resize(size, Image.Resampling.BILINEAR))
