"""`images.read_image` once more, in TensorFlow, for graphs that are to run without Python."""

import numpy as np
import tensorflow as tf

# A camera's metadata come first; a segment of a JPEG has at most 64 KiB.
_HEAD = 2**17
_MAX_SEGMENTS = 32
_MAX_ENTRIES = 256
_ENTRY_SIZE = 12
_ORIENTATION_TAG, _SHORT = 0x0112, 3
# EXIF orientations by what is done, in this order, to make the image upright.
_TRANSPOSED, _MIRRORED, _UPSIDE_DOWN = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)


def decode(content: tf.Tensor) -> tf.Tensor:
    """The image uint8 [h, w, 3] of a JPEG, PNG, GIF, BMP or WebP file, a string [].

    JPEGs have the values that Pillow gives, and are turned upright. Alpha is dropped, grey
    repeated, of an animation the first frame taken.
    """
    image = tf.cond(
        tf.io.is_jpeg(content),
        lambda: _upright(
            tf.io.decode_jpeg(content, 3, dct_method="INTEGER_ACCURATE"), orientation(content)
        ),
        lambda: tf.io.decode_image(content, 3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _upright(image, orientation):
    def where(orientations, change, image):
        return tf.cond(
            tf.reduce_any(orientation == orientations), lambda: change(image), lambda: image
        )

    image = where(_TRANSPOSED, lambda pixels: tf.transpose(pixels, [1, 0, 2]), image)
    image = where(_MIRRORED, lambda pixels: pixels[:, ::-1], image)
    return where(_UPSIDE_DOWN, lambda pixels: pixels[::-1], image)


def orientation(content: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation, int64 1 to 8, of a JPEG file, a string []; 1 where none is found.

    Looks for it where cameras write it: in the first directory of the EXIF segment, in the first
    128 KiB. No content is an error. (CIPA DC-008, "Exchangeable image file format", 4.5 and 4.6)
    """
    # Zeros follow the content; the last one stands for all that is beyond.
    head = tf.io.decode_raw(content, tf.uint8, fixed_length=_HEAD)
    head = tf.concat([head[:-1], [0]], 0)

    def number(at, size, little=False):
        """The number that `size` bytes from each of the places `at` [...] on make: int64 [...]."""
        places = tf.minimum(at[..., tf.newaxis] + np.arange(size), _HEAD - 1)
        digits = tf.cast(tf.gather(head, places), tf.int64)
        digits = tf.where(little, digits[..., ::-1], digits)
        return tf.reduce_sum(digits * 256 ** np.arange(size)[::-1], axis=-1)

    def is_exif(at):
        return (number(at, 2) == 0xFFE1) & (number(at + 4, 6) == int.from_bytes(b"Exif\0\0"))

    def is_other(at):
        """Whether a segment is there that is not EXIF; behind 0xDA come the pixels."""
        is_segment = (number(at, 1) == 0xFF) & (number(at + 1, 1) != 0xDA)
        return is_segment & (number(at + 2, 2) >= 2) & ~is_exif(at)

    (segment,) = tf.while_loop(
        is_other,
        lambda at: (at + 2 + number(at + 2, 2),),
        (tf.constant(2, tf.int64),),
        maximum_iterations=_MAX_SEGMENTS,
    )
    # A TIFF file is in it: byte order, 42, where the directory is; there a count and the entries,
    # each of tag, type, count and value.
    tiff = segment + 10
    little = number(tiff, 2) == int.from_bytes(b"II")
    directory = tiff + number(tiff + 4, 4, little)
    indices = np.arange(_MAX_ENTRIES)
    entries = directory + 2 + _ENTRY_SIZE * indices
    value = number(entries + 8, 2, little)
    found = (
        is_exif(segment)
        & (little | (number(tiff, 2) == int.from_bytes(b"MM")))
        & (number(tiff + 2, 2, little) == 42)
        & (indices < number(directory, 2, little))
        & (number(entries, 2, little) == _ORIENTATION_TAG)
        & (number(entries + 2, 2, little) == _SHORT)
        & (number(entries + 4, 4, little) == 1)
        & (value >= 1)
        & (value <= 8)
    )
    return tf.reduce_max(tf.where(found, value, 1))
