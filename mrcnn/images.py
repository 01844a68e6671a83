"""Image files and arrays as the network wants them: uint8 RGB, upright, of known size."""

import io
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mrcnn.files import atomic_path
from mrcnn.pixels import ImageError, as_uint8, may_be_labels, require_finite

MAX_PIXELS = 200_000_000
"""Larger images are refused by their header, before any memory is asked for."""

# What Pillow decodes by itself; for EPS it would run a program, Ghostscript, on the file.
# An ICO would be decoded whole before its size is known.
FORMATS = "AVIF BMP DIB GIF JPEG JPEG2000 PCX PNG PPM QOI SGI SUN TGA TIFF WEBP".split()
_MAX_JPEG_SIDE = 65_500  # of libjpeg
_ORIENTATION_TAG = 0x0112
# EXIF orientation -> what turns the stored pixels upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDES_SWAPPED = (5, 6, 7, 8)

# What Pillow's decoders let through when a file is damaged.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_METADATA_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error)

_pillow_limit = threading.Lock()


def read_image(path: str | os.PathLike, max_side: int | None = None) -> np.ndarray:
    """An image file as RGB.

    EXIF orientation is applied, alpha dropped, grey repeated, 16 bits scaled to 8 (of which a
    warning tells where few of them are used), and of an animation the first frame is taken.

    Args:
        path: a file in any format Pillow reads.
        max_side: larger images are reduced, with anti-aliasing, until their longer side is this
            many pixels; JPEGs are then decoded at a fraction of their size, which is quicker.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ImageError: if the file is missing, empty, damaged, no image, or above `MAX_PIXELS`.
    """
    if max_side is not None and max_side < 1:
        raise ValueError(f"max_side must be at least 1 pixel or None, received {max_side}.")
    with _decoded(path, max_side) as (image, size):
        rgb = _rgb(image, str(path))
        if rgb.size != size:
            rgb = rgb.resize(size, Image.Resampling.BICUBIC)
        return np.array(_upright(rgb, _orientation(image)))


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """A mask file: true where its grey value is above the middle of its range.

    The range ends at 255, and at 65,535 in a file of 16 bits that uses more than eight of them. A
    file of 0 and one other value, as drawn in a colour, ends at that. EXIF orientation is applied
    as in `read_image`.

    Returns:
        bool [height, width].

    Raises:
        ImageError: as `read_image`, where the shape may be in the alpha channel alone, and where
            several values are all in the lower half of the range, as numbers of regions are.
    """
    with _decoded(path) as (image, _):
        values = np.asarray(image if _is_deep(image) else image.convert("L"))
        if values.min() == values.max() and image.has_transparency_data:
            if np.ptp(np.asarray(image.convert("RGBA").getchannel("A"))):
                raise ImageError(
                    "the mask is of one colour everywhere, and only its alpha channel shows a "
                    "shape. Save it in black and white, without transparency."
                )
        full_scale = next((full for full in (1, 255, 65535) if values.max() <= full), None)
        if full_scale is None or values.min() < 0:
            raise ImageError(
                f"the mask holds values from {values.min()} to {values.max()}; expected 0 to 1, "
                "0 to 255 or 0 to 65535."
            )
        peak = values.max()
        if np.all((values == 0) | (values == peak)):
            full_scale = peak
        if 0 < peak <= full_scale / 2 and may_be_labels(values):
            raise ImageError(
                f"the mask's values end at {peak} of {full_scale}, none of them above the middle: "
                "it may hold numbers of regions. Save what is inside as white, and all else black."
            )
        mask = Image.fromarray(values > full_scale / 2)
        return np.array(_upright(mask, _orientation(image)))


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """A label image: numbers as they are stored, a palette's indices.

    EXIF orientation is applied as in `read_image`.

    Returns:
        int [height, width].

    Raises:
        ImageError: as `read_image`, and where a pixel holds more than one whole number.
    """
    with _decoded(path) as (image, _):
        labels = np.asarray(_upright(image, _orientation(image)))
        labels = labels.astype(np.uint8) if labels.dtype == bool else labels
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
            raise ImageError(
                f"this is no label image: it has the shape {labels.shape} of {labels.dtype}, and "
                "one whole number for each pixel is wanted."
            )
        return labels


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) that `read_image` would give, without its work.

    The file's header is enough, but for a PNG whose EXIF may come behind its pixels: that file is
    read to its end, and decoded if it holds texts or EXIF.

    Raises:
        ImageError: if the file is missing, empty, no image, or above `MAX_PIXELS`.
    """
    (width, height), orientation = _header(path)
    return (width, height) if orientation in _SIDES_SWAPPED else (height, width)


def image_orientation(path: str | os.PathLike) -> int:
    """EXIF orientation that `read_image` turns a file by, 1 (as it lies) to 8, without its work.

    Raises:
        ImageError: as `image_size`.
    """
    return _header(path)[1]


def _header(path):
    """(width, height) as they are stored, and the orientation."""
    with _errors_naming(path), open(path, "rb") as file, _open(file) as image:
        if image.format == "PNG" and "exif" not in image.info:
            # Pillow decodes a PNG to look for metadata behind its pixels: let it, where there may
            # be some.
            file.seek(0)
            content = file.read()
            if not any(chunk in content for chunk in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")):
                return image.size, 1
            file.seek(0)
            with _open(file) as again:
                return image.size, _orientation(again)
        return image.size, _orientation(image)


def as_rgb8(array: np.ndarray | Image.Image) -> np.ndarray:
    """An image given as an array, as uint8 RGB; a uint8 RGB array comes back as it is.

    Args:
        array: [height, width], or [height, width, channels] with 1 (grey), 3 (RGB) or 4 (RGBA,
            alpha is dropped) channels; of bool, uint8, uint16 (its 65,535 becomes 255), another
            integer type with values 0 to 255, or float, with values 0 to 1 or 0 to 255. Or an image
            of Pillow, of any mode, read as a file is, but as it lies: who turned it may have left
            the EXIF orientation in it.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ImageError: for any other shape, type or range.
    """
    if isinstance(array, Image.Image):
        # As an array, a palette's would be its indices, and inks would be taken for light.
        array = _rgb(array)
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise ImageError(
            "An image must be of shape [height, width] or [height, width, 1, 3 or 4] and not "
            f"empty, received shape {array.shape}."
        )
    values = as_uint8(array[:, :, :3])
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


def as_channels(array: np.ndarray | Image.Image, channels: int) -> np.ndarray:
    """An image given as an array, with the number of channels that a network takes.

    Args:
        array: for 1 or 3 channels whatever `as_rgb8` takes, made grey or RGB; for any other
            number [height, width, channels] of any real type.
        channels: `Config.IMAGE_CHANNEL_COUNT`.

    Returns:
        [height, width, channels]: uint8 for 1 or 3 channels, else the array as it is.

    Raises:
        ImageError: for any other shape, type or range, and for values that are not finite.
    """
    if channels == 3:
        return as_rgb8(array)
    if channels == 1:
        return np.asarray(Image.fromarray(as_rgb8(array)).convert("L"))[:, :, np.newaxis]
    array = np.asarray(array)
    if array.ndim != 3 or array.shape[2] != channels or array.dtype.kind not in "buif":
        raise ImageError(
            f"IMAGE_CHANNEL_COUNT is {channels}, so an image must be of shape [height, width, "
            f"{channels}] and of numbers; received {array.dtype} {array.shape}."
        )
    require_finite(array)
    return array


def write_image(path: str | os.PathLike, array: np.ndarray, description: str | None = None) -> None:
    """Write an image or a mask as PNG or JPEG, whichever the suffix says, whole or not at all.

    Args:
        path: ends in .png, .jpg or .jpeg.
        array: uint8 [height, width], [height, width, 3] or, for PNG, [height, width, 4]; or bool
            [height, width], which is written as 0 and 255.
        description: a text that goes with it, as a PNG's Description or a JPEG's comment.

    Raises:
        ImageError: for another suffix, shape or type, or an image too large for a JPEG.
    """
    path = Path(path)
    array = np.asarray(array)
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise ImageError(f"{path}: images are written as .png, .jpg or .jpeg, not '{suffix}'.")
    if array.dtype == bool and array.ndim == 2:
        array = array.astype(np.uint8) * 255
    channels = (3, 4) if suffix == ".png" else (3,)
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in channels)
    if array.dtype != np.uint8 or not fits or array.size == 0:
        raise ImageError(
            f"{path}: expected a bool mask [height, width] or a uint8 image [height, width] or "
            f"[height, width, {' or '.join(map(str, channels))}], received {array.dtype} "
            f"{array.shape}. as_rgb8 converts other images."
        )
    if suffix != ".png" and max(array.shape[:2]) > _MAX_JPEG_SIDE:
        raise ImageError(
            f"{path}: the image has {array.shape[1]} x {array.shape[0]} pixels, and no side of a "
            f"JPEG may have more than {_MAX_JPEG_SIDE:,}; write it as .png."
        )
    options: dict[str, Any] = {} if suffix == ".png" else {"quality": 95, "subsampling": 0}
    if description and suffix == ".png":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("Description", description)
    elif description:
        options["comment"] = description.encode("utf-8")
    # Into memory first: of a JPEG Pillow does not notice that the disk took only a part.
    content, kind = io.BytesIO(), "PNG" if suffix == ".png" else "JPEG"
    Image.fromarray(np.ascontiguousarray(array)).save(content, kind, **options)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getvalue())


@contextmanager
def _errors_naming(path: str | os.PathLike) -> Iterator[None]:
    """Turn whatever goes wrong with a file into an `ImageError` that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such file.") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: this is not an image in a format that can be read "
            "(PNG, JPEG, TIFF, BMP, GIF, WebP, ...)."
        ) from error
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except _DECODER_ERRORS as error:
        raise ImageError(f"{path}: the image cannot be read: {error}.") from error


@contextmanager
def _decoded(
    path: str | os.PathLike, max_side: int | None = None
) -> Iterator[tuple[Image.Image, tuple[int, int]]]:
    """The file's first frame, decoded, and the (width, height) it is to be reduced to.

    Errors of the block's work on the frame name the file too.
    """
    with _errors_naming(path):
        content = Path(path).read_bytes()
        if not content:
            raise ImageError("the file is empty.")
        with _open(io.BytesIO(content)) as image:
            size = image.size
            if max_side is not None and max(size) > max_side:
                size = fitted_size(*size, max_side)
                # JPEGs come out at a half, a quarter or an eighth, not below this size.
                image.draft(image.mode, size)
            image.load()
            yield image, size


def _open(file: IO[bytes]) -> Image.Image:
    """Read an image's header and check its size against `MAX_PIXELS`."""
    # Pillow warns from 89 million pixels on and refuses 179 million; its limit is a global of the
    # process, so it is given back at once. The pixels are read later, outside the lock.
    with _pillow_limit:
        previous, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = previous
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise ImageError(
            f"the image has {width} x {height} pixels, more than the {MAX_PIXELS:,} allowed; "
            "reduce it first, or raise mrcnn.images.MAX_PIXELS."
        )
    return image


def fitted_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """(width, height) scaled so that the longer becomes `max_side`, neither below one pixel."""
    scale = max_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) where none is stored or it cannot be read."""
    if image.format == "TIFF":
        # Pillow has already turned it.
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except _METADATA_ERRORS:
        # Metadata that no one can read is no reason to refuse sound pixels.
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _is_deep(image: Image.Image) -> bool:
    """Whether Pillow holds the pixels as single numbers of 16 or 32 bits."""
    return image.mode.startswith(("I", "F"))


def _rgb(image: Image.Image, name: str = "An image") -> Image.Image:
    if _is_deep(image):
        return Image.fromarray(_eight_bits(image, name)).convert("RGB")
    if image.mode in ("RGBa", "La"):
        # Colours stored multiplied by alpha are divided by it again.
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    return image.convert("RGB")


def _eight_bits(image: Image.Image, name: str) -> np.ndarray:
    """uint8 [height, width] of an image that Pillow holds in more bits."""
    values = np.asarray(image)
    small = values.max() <= 255 and image.format == "TIFF"
    if image.mode == "I" and values.min() >= 0 and values.max() <= 65535 and not small:
        # 16-bit files come in 32-bit integers from some of Pillow's decoders, though not of TIFF,
        # whose 32 bits may hold what others have in eight.
        values = values.astype(np.uint16)
    return as_uint8(values, name)
