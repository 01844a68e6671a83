"""From an image of any size to the network's input, and what is needed to find the way back."""

import random
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from mrcnn.config import Config
from mrcnn.images import as_channels

Window = tuple[int, int, int, int]
Padding = list[tuple[int, int]]
Crop = tuple[int, int, int, int]

META: dict[str, int | slice] = {
    "image_id": 0,
    "original_image_shape": slice(1, 4),
    "image_shape": slice(4, 7),
    "window": slice(7, 11),
    "scale": 11,
    "active_class_ids": slice(12, None),
}
"""Where each part of an image's meta vector lies; its length is 12 + number of classes."""


def resize_image(
    image: np.ndarray,
    min_dim: int | None = None,
    max_dim: int | None = None,
    min_scale: float | None = None,
    mode: str = "square",
    antialias: bool = False,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, Window, float, Padding, Crop | None]:
    """Resize an image and pad or crop it to the size that the network takes.

    But for "none" and "stretch" the image keeps its aspect: it is enlarged until its shorter side
    is `min_dim`, or by `min_scale` where that is more; it is never reduced to reach `min_dim`.

    Args:
        image: [height, width, channels] or [height, width] of any real type.
        min_dim: wanted length of the shorter side in pixels.
        max_dim: side of the result in mode "square", its width in "stretch".
        min_scale: smallest enlargement, also where `min_dim` asks for none.
        mode:
            "none": the image as it is.
            "square": fitted into [max_dim, max_dim], with zeros around it.
            "pad64": zeros around it until height and width are multiples of 64.
            "crop": a part of [min_dim, min_dim], at a place drawn from Python's `random`.
            "stretch": resized to the landscape format [min_dim, max_dim], each axis on its own.
        antialias: average over the pixels that a smaller image leaves out, instead of skipping
            them as matterport does; for uint8 images.
        rng: `numpy.random.Generator` that draws the place of a crop instead.

    Returns:
        image: of the same type; interpolated values are truncated to integers where it has them.
        window: (y1, x1, y2, x2), half-open, of the image within the result.
        scale: the factor it was resized by; in "stretch" the mean of both axes' factors.
        padding: [(top, bottom), (left, right), (0, 0)].
        crop: (y, x, height, width) in the resized image, or None.

    Raises:
        ValueError: if the mode is unknown or lacks the length it needs.
    """
    height, width = image.shape[:2]
    if height < 1 or width < 1:
        raise ValueError(f"An image without pixels cannot be resized, received {image.shape}.")
    no_padding = [(0, 0), (0, 0), (0, 0)]
    if mode == "none":
        return image, (0, 0, height, width), 1.0, no_padding, None
    if mode == "stretch":
        size = (_length("min_dim", min_dim, mode), _length("max_dim", max_dim, mode))
        scale = (size[0] / height + size[1] / width) / 2
        return _resized(image, size, antialias), (0, 0, *size), scale, no_padding, None

    scale = max(1.0, min_dim / min(height, width)) if min_dim else 1.0
    scale = max(scale, min_scale or 0.0)
    if mode == "square":
        side = _length("max_dim", max_dim, mode)
        if round(max(height, width) * scale) > side:
            scale = side / max(height, width)
        resized = _resized(image, scaled_size((height, width), scale), antialias)
        padded, window, padding = _centred(resized, (side, side))
        return padded, window, scale, padding, None
    if mode == "pad64":
        if min_dim != 0 and _length("min_dim", min_dim, mode) % 64:
            raise ValueError(
                f"Mode 'pad64' pads to multiples of 64, so min_dim must be one; received {min_dim}."
            )
        resized = _resized(image, scaled_size((height, width), scale), antialias)
        size = tuple(-(-side // 64) * 64 for side in resized.shape[:2])
        padded, window, padding = _centred(resized, size)
        return padded, window, scale, padding, None
    if mode == "crop":
        side = _length("min_dim", min_dim, mode)
        resized = _resized(image, scaled_size((height, width), scale), antialias)
        # Without a generator Python's own, as in matterport.
        draw = random.randint if rng is None else partial(rng.integers, endpoint=True)
        y = int(draw(0, resized.shape[0] - side))
        x = int(draw(0, resized.shape[1] - side))
        part = resized[y : y + side, x : x + side]
        return part, (0, 0, side, side), scale, no_padding, (y, x, side, side)
    raise ValueError(
        "The resize mode must be 'none', 'square', 'pad64', 'crop' or 'stretch', "
        f"received {mode!r}."
    )


def resize_for(
    image: np.ndarray, config: Config, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, Window, float, Padding, Crop | None]:
    """`resize_image` by the settings of a configuration."""
    return resize_image(
        image,
        min_dim=config.IMAGE_MIN_DIM,
        max_dim=config.IMAGE_MAX_DIM,
        min_scale=config.IMAGE_MIN_SCALE,
        mode=config.IMAGE_RESIZE_MODE,
        antialias=config.IMAGE_ANTIALIAS,
        rng=rng,
    )


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) times `scale` in whole pixels: the one rounding for images and masks."""
    return max(1, round(size[0] * float(scale))), max(1, round(size[1] * float(scale)))


def resize_bilinear(
    image: np.ndarray, size: tuple[int, int], part: Window | None = None
) -> np.ndarray:
    """Bilinear interpolation between pixel centres, without anti-aliasing.

    Beyond the outermost pixel centres values fall off towards zero, as scikit-image's
    `resize(order=1, mode="constant")` has them, though never below the image's smallest value.

    Args:
        image: [height, width] or [height, width, channels], bool or real.
        size: (height, width) of the result.
        part: (y1, x1, y2, x2) of the result, where no more of it is wanted.

    Returns:
        float [height, width] or [height, width, channels] of the size or the part: float32 for
        bool, float16 and float32, else float64, since a value that is whole but for float32's
        rounding might be truncated to the one below.
    """
    single = image.dtype in (bool, np.float16, np.float32)
    dtype = np.dtype(np.float32 if single else np.float64)
    y1, x1, y2, x2 = (0, 0, *size) if part is None else part
    height, width, *channels = image.shape
    depth = int(np.prod(channels))
    values = image.reshape(height, width * depth)
    rows = _positions(height, size[0], y1, y2)
    columns = _positions(width, size[1], x1, x2)
    # The axis that leaves less for the other comes first.
    if (y2 - y1) * width <= height * (x2 - x1):
        values = _interpolate_rows(values, rows, dtype)
        values = _interpolate_columns(values, columns, depth, dtype)
    else:
        values = _interpolate_columns(values, columns, depth, dtype)
        values = _interpolate_rows(values, rows, dtype)
    np.maximum(values, image.min().astype(dtype), out=values)
    return values.reshape(y2 - y1, x2 - x1, *channels)


def resize(
    image: np.ndarray,
    output_shape: Sequence[int],
    order: int = 1,
    mode: str = "constant",
    cval: float = 0,
    clip: bool = True,
    preserve_range: bool = False,
    anti_aliasing: bool = False,
    anti_aliasing_sigma: float | Sequence[float] | None = None,
) -> np.ndarray:
    """scikit-image's `resize` with matterport's defaults, for code written against them.

    The network itself uses `resize_bilinear`, whose numbers are those of the defaults here and
    which is several times quicker.
    """
    from skimage.transform import resize as skimage_resize

    image = np.asarray(image)
    # scikit-image refuses to interpolate bool.
    image = image.astype(np.float64) if image.dtype == bool and order > 0 else image
    return skimage_resize(
        image,
        output_shape,
        order=order,
        mode=mode,
        cval=cval,
        clip=clip,
        preserve_range=preserve_range,
        anti_aliasing=anti_aliasing,
        anti_aliasing_sigma=anti_aliasing_sigma,
    )


def compose_image_meta(
    image_id: int,
    original_image_shape: ArrayLike,
    image_shape: ArrayLike,
    window: ArrayLike,
    scale: float,
    active_class_ids: ArrayLike,
) -> np.ndarray:
    """All that is known of an input image beside its pixels, as one vector laid out as `META`.

    Args:
        image_id: index of the image in its data set.
        original_image_shape: [height, width, channels] before resizing.
        image_shape: [height, width, channels] of the network's input.
        window: (y1, x1, y2, x2) of the image within the input, in pixels.
        scale: factor between the original and the input.
        active_class_ids: 1 for every class that the image's source labels, else 0.

    Returns:
        float64 [12 + number of classes].
    """
    return np.concatenate(
        [[image_id], original_image_shape, image_shape, window, [scale], active_class_ids]
    ).astype(np.float64)


def parse_image_meta(meta: np.ndarray) -> dict[str, np.ndarray]:
    """Inverse of `compose_image_meta` for a batch.

    Args:
        meta: [batch, 12 + number of classes].

    Returns:
        Arrays [batch] or [batch, n] by the names of `META`; int32 but for the float32 `scale`.
    """
    return {
        name: meta[:, place].astype(np.float32 if name == "scale" else np.int32)
        for name, place in META.items()
    }


def mold_inputs(
    images: Sequence[np.ndarray], config: Config
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the network takes of images in which to find something.

    Args:
        images: arrays of any size, see `mrcnn.images.as_channels`.
        config: gives the resizing, the channels and the mean pixel.

    Returns:
        molded: float32 [n, h, w, c].
        metas: float64 [n, 12 + classes], no class active.
        windows: int [n, (y1, x1, y2, x2)], of each image in its input.

    Raises:
        ValueError: if an image cannot be used, there is none, or the mode makes inputs of
            different sizes.
    """
    if config.IMAGE_RESIZE_MODE == "crop":
        raise ValueError(
            "IMAGE_RESIZE_MODE='crop' takes a random part of an image, which is for training "
            "alone: detect with a configuration that has 'square' or 'pad64'."
        )
    if not len(images):
        raise ValueError("There is no image to mold.")
    parts = []
    active = np.zeros(config.NUM_CLASSES, np.int32)
    for image in images:
        image = as_channels(image, config.IMAGE_CHANNEL_COUNT)
        resized, window, scale, _, _ = resize_for(image, config)
        meta = compose_image_meta(0, image.shape, resized.shape, window, scale, active)
        parts.append((mold_image(resized, config), meta, window))
    sizes = {molded.shape[:2] for molded, _, _ in parts}
    if len(sizes) > 1:
        raise ValueError(
            f"{len(images)} images make inputs of {len(sizes)} sizes {sorted(sizes)} by "
            f"IMAGE_RESIZE_MODE={config.IMAGE_RESIZE_MODE!r}; a batch has one. Give one at a time, "
            "or use 'square'."
        )
    molded, metas, windows = map(np.stack, zip(*parts, strict=True))
    return molded, metas, windows


def require_halvable(image_shape: Sequence[int] | np.ndarray) -> None:
    """Raises ValueError unless the pyramid can halve an input [height, width, ...] five times."""
    height, width = image_shape[:2]
    if height % 32 or width % 32:
        raise ValueError(
            f"An image of {height}x{width} pixels cannot go through the pyramid, which halves it "
            "five times. With IMAGE_RESIZE_MODE='none' both sides must be divisible by 32; 'pad64' "
            "fills them up, 'square' resizes."
        )


def require_several(images: object) -> None:
    """Raises ValueError if `images` is one image, whose rows would be taken for images."""
    if not isinstance(images, np.ndarray) or images.dtype == object or not images.size:
        return
    if images.ndim < 3 or (images.ndim == 3 and images.shape[2] in (1, 3, 4)):
        raise ValueError(
            f"`images` is one array of shape {images.shape}; give a list of images: [image]."
        )


def mold_image(images: np.ndarray, config: Config) -> np.ndarray:
    """float32 [..., channels] of images less MEAN_PIXEL, channels in RGB order."""
    return np.asarray(images, np.float32) - np.asarray(config.MEAN_PIXEL, np.float32)


def unmold_image(normalized_images: np.ndarray, config: Config) -> np.ndarray:
    """uint8 images that `mold_image` has made float, exactly as they were."""
    images = np.asarray(normalized_images) + np.asarray(config.MEAN_PIXEL, np.float32)
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def _length(name: str, value: int | None, mode: str) -> int:
    if not value or value < 1:
        raise ValueError(f"Resize mode {mode!r} needs {name} in pixels, received {value!r}.")
    return int(value)


def _resized(image: np.ndarray, size: tuple[int, int], antialias: bool) -> np.ndarray:
    if image.shape[:2] == size:
        return image
    if antialias and image.dtype == np.uint8:
        shape = (*size, *image.shape[2:])
        channels = image.reshape(*image.shape[:2], -1)
        if channels.shape[2] not in (1, 3):  # Pillow would take a fourth for alpha
            parts = [_resized(channels[:, :, i], size, True) for i in range(channels.shape[2])]
            return np.stack(parts, axis=2).reshape(shape)
        picture = Image.fromarray(channels.squeeze(2) if channels.shape[2] == 1 else channels)
        picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(picture).reshape(shape)
    return resize_bilinear(image, size).astype(image.dtype)


def _centred(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, Window, Padding]:
    """The image amid zeros; an odd pixel of padding goes below or to the right."""
    height, width = image.shape[:2]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    window = (top, left, top + height, left + width)
    padding = [(top, size[0] - height - top), (left, size[1] - width - left), (0, 0)]
    padded = np.zeros((*size, *image.shape[2:]), image.dtype)
    padded[window[0] : window[2], window[1] : window[3]] = image
    return padded, window, padding


class _Positions(NamedTuple):
    """Where target pixels lie on the source axis."""

    before: np.ndarray  # the source pixel at or before each position
    after: np.ndarray  # the one after it
    fraction: np.ndarray  # distance from the former, 0 to 1
    share: np.ndarray  # of the value; below 1 only beyond the outermost pixel centres


def _positions(source: int, target: int, start: int, stop: int) -> _Positions:
    """Positions of the pixels `start` to `stop` of an axis resized from `source` to `target`."""
    positions = (np.arange(start, stop) + 0.5) * (source / target) - 0.5
    inside = np.clip(positions, 0, source - 1)
    before = np.floor(inside).astype(np.intp)
    after = np.minimum(before + 1, source - 1)
    return _Positions(before, after, inside - before, 1 - np.abs(positions - inside))


def _interpolate_rows(values: np.ndarray, at: _Positions, dtype: np.dtype) -> np.ndarray:
    """[height, n] -> [rows, n]."""
    result = values[at.before].astype(dtype)
    # In this form equal neighbours give exactly their value, which truncation depends on.
    difference = values[at.after] - result
    difference *= at.fraction.astype(dtype)[:, np.newaxis]
    result += difference
    border = np.flatnonzero(at.share < 1)
    result[border] *= at.share[border, np.newaxis].astype(dtype)
    return result


def _interpolate_columns(
    values: np.ndarray, at: _Positions, depth: int, dtype: np.dtype
) -> np.ndarray:
    """[n, width * depth] -> [n, columns * depth]."""
    before, after = (
        (pixel[:, np.newaxis] * depth + np.arange(depth)).ravel() for pixel in (at.before, at.after)
    )
    result = values.take(before, axis=1).astype(dtype)
    difference = values.take(after, axis=1) - result
    difference *= at.fraction.astype(dtype).repeat(depth)
    result += difference
    share = at.share.repeat(depth)
    border = np.flatnonzero(share < 1)
    result[:, border] *= share[border].astype(dtype)
    return result
