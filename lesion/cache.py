"""Decoded and reduced images on disk, so that an epoch decodes no original a second time."""

import hashlib
import logging
import math
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from lesion.records import stamp_of
from mrcnn.files import atomic_path
from mrcnn.images import ImageError, read_image, read_mask

logger = logging.getLogger(__name__)

# Part of every key: raise it when an entry of old no longer holds what would be made now.
_VERSION = 2
# An entry is height, width and channels, a byte for each value, and a checksum of all that, since a
# crash may leave blocks of zeros. It is no .npy file: NumPy has Python parse the header of these,
# which Python before 3.11.8, 3.12.0 and 3.12.1 cannot do in two threads at once ("AST constructor
# recursion depth mismatch", python/cpython#106905), and TensorFlow parses Python when it traces.
_SHAPE = struct.Struct("<3I")
_CHECKSUM = struct.Struct("<I")


class ImageCache:
    """Images and masks reduced to a largest side, as uncompressed arrays in a folder.

    An entry belongs to a source file's path, size and time of change, so that a changed source is
    decoded anew. Entries that are damaged are made anew, too. Where the folder cannot be written
    (a full disk), a warning is logged once and everything is decoded as if there were no cache.
    Several threads, and several processes, may share a folder.

    Args:
        directory: folder of the entries; made when the first is written.
        max_side: largest height or width, in pixels. Smaller images keep their size.
    """

    def __init__(self, directory: str | Path, max_side: int):
        if max_side < 1:
            raise ValueError(f"`max_side` must be at least 1 pixel; received {max_side}.")
        self.directory = Path(directory)
        self.max_side = int(max_side)
        self._writable = True
        # Threads that want one entry wait for the first; two entries seldom share a lock.
        self._locks = [threading.Lock() for _ in range(64)]

    def image(self, path: str | Path) -> np.ndarray:
        """The image as uint8 RGB [height, width, 3], neither side above `max_side`.

        Raises:
            ImageError: where the source cannot be decoded.
        """
        path = Path(path)
        return self._entry(
            path,
            f"image {self.max_side}",
            lambda: read_image(path, max_side=self.max_side),
            np.uint8,
            lambda shape: shape[2] == 3,
        )

    def mask(self, path: str | Path, shape: tuple[int, int]) -> np.ndarray:
        """The mask as bool [height, width] of the size that `image` gave its image.

        A reduced pixel is inside where at least half of the source's pixels under it are.

        Raises:
            ImageError: where the source cannot be decoded or is not of the image's proportions.
        """
        path = Path(path)
        height, width = (int(side) for side in shape)
        mask = self._entry(
            path,
            f"mask {height} {width}",
            lambda: reduce_mask(read_mask(path), (height, width), path)[..., None],
            bool,
            lambda shape: shape == (height, width, 1),
        )
        return mask[..., 0]

    def _entry(
        self,
        source: Path,
        kind: str,
        make: Callable[[], np.ndarray],
        dtype: type,
        fits: Callable[[tuple[int, int, int]], bool],
    ) -> np.ndarray:
        try:
            size, changed = stamp_of(source)
        except OSError as error:
            raise ImageError(f"{source} cannot be read: {error.strerror}.") from error
        text = f"{_VERSION}|{source.resolve()}|{size}|{changed}|{kind}"
        key = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        # Folders of some hundreds of files stay quick on every file system.
        entry = self.directory / key[:2] / f"{key}.pixels"
        array = _load(entry, dtype)
        if array is not None and fits(array.shape):
            return array
        with self._locks[int(key[:8], 16) % len(self._locks)]:
            array = _load(entry, dtype)
            if array is not None and fits(array.shape):
                return array
            array = make()
            self._store(entry, array)
            return array

    def _store(self, entry: Path, array: np.ndarray) -> None:
        if not self._writable:
            return
        content = _SHAPE.pack(*array.shape) + array.tobytes()
        try:
            with atomic_path(entry) as partial:
                partial.write_bytes(content + _CHECKSUM.pack(zlib.crc32(content)))
        except OSError as error:
            self._writable = False
            logger.warning(
                "The image cache %s cannot be written (%s): going on without it, more slowly.",
                self.directory,
                error.strerror or error,
            )


def _load(entry: Path, dtype: type) -> np.ndarray | None:
    """An entry, [height, width, channels]; None where there is none, or a damaged one."""
    try:
        stored = memoryview(entry.read_bytes())
    except OSError:
        return None
    content, checksum = stored[: -_CHECKSUM.size], stored[-_CHECKSUM.size :]
    if len(content) >= _SHAPE.size and checksum == _CHECKSUM.pack(zlib.crc32(content)):
        shape = _SHAPE.unpack_from(content)
        if math.prod(shape) == len(content) - _SHAPE.size:
            return np.frombuffer(content, dtype, offset=_SHAPE.size).reshape(shape).copy()
    logger.info("The cache entry %s is damaged: made anew.", entry)
    return None


def reduce_mask(mask: np.ndarray, shape: tuple[int, int], path: Path) -> np.ndarray:
    """A mask of its image's reduced size; `path` names it where it is not of the proportions."""
    height, width = shape
    if mask.shape == (height, width):
        return mask
    # Each side of the image was rounded to a pixel; more than that is another image's mask.
    stretch = (mask.shape[0] / height) / (mask.shape[1] / width)
    if abs(stretch - 1) > 1 / height + 1 / width:
        raise ImageError(
            f"The mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels, which is not of the "
            f"proportions of its image, kept as {width} x {height}."
        )
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(grey.resize((width, height), Image.Resampling.BOX)) >= 128
