"""`images.read_image` once more, in TensorFlow, for graphs that are to run without Python."""

import numpy as np
import tensorflow as tf

# A camera's metadata come first; a segment of a JPEG has at most 64 KiB.
_HEAD = 2**17
_MAX_SEGMENTS = 32
_MAX_ENTRIES = 256
_ENTRY_SIZE = 12
_ORIENTATION_TAG, _SHORT, _LONG = 0x0112, 3, 4
# EXIF orientations by what is done, in this order, to make the image upright.
_TRANSPOSED, _MIRRORED, _UPSIDE_DOWN = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)


def decode(content: tf.Tensor) -> tf.Tensor:
    """The image uint8 [h, w, 3] of a JPEG, PNG, GIF, BMP or WebP file, a string [].

    JPEGs have the values that Pillow gives, and are turned upright. Alpha is dropped, grey
    repeated, of an animated GIF the first frame taken. GIFs with a transparent colour or with a
    first frame that is smaller than their screen, animated WebP files and BMP files of less than
    24 bits per pixel are refused, as is whatever is no image: with an InvalidArgumentError.
    """
    image = tf.cond(
        tf.io.is_jpeg(content),
        lambda: _upright(
            tf.io.decode_jpeg(content, 3, dct_method="INTEGER_ACCURATE"), orientation(content)
        ),
        lambda: _decode_other(content),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _decode_other(content):
    """`decode` of what is no JPEG."""
    head = tf.cast(tf.io.decode_raw(content, tf.uint8, fixed_length=30), tf.int32)

    def holds(at, text):
        return tf.reduce_all(head[at : at + len(text)] == list(text))

    bits = head[28] + 256 * head[29]
    # TensorFlow takes the indices of a palette for levels of grey.
    readable = tf.debugging.Assert(
        ~holds(0, b"BM") | (bits >= 24),
        ["A BMP image must have 24 or 32 bits per pixel; save it as PNG. It has", bits],
    )
    # https://developers.google.com/speed/webp/docs/riff_container: the second bit of the flags.
    animated = holds(12, b"VP8X") & (head[20] // 2 % 2 == 1)
    # WebP is decoded with as many channels as it has, or not at all; but TensorFlow (2.21) would
    # write four of an animation where it has room for three. Asked for three it refuses that.
    still = holds(0, b"RIFF") & holds(8, b"WEBP") & ~animated
    with tf.control_dependencies([readable]):
        return tf.case(
            [
                (still, lambda: tf.io.decode_image(content, 0, expand_animations=False)[..., :3]),
                (holds(0, b"GIF8"), lambda: _decode_gif(content, head)),
            ],
            lambda: tf.io.decode_image(content, 3, expand_animations=False),
        )


def _decode_gif(content, head):
    """`decode` of a GIF: its first frame, of which TensorFlow's decoder must lose nothing.

    It shows a transparent colour as black, and of a frame that leaves a margin the frame alone.
    https://www.w3.org/Graphics/GIF/spec-gif89a.txt, 18 and 23
    """
    image = tf.io.decode_image(content, 3, expand_animations=False)
    fills = tf.reduce_all(tf.shape(image)[:2] == head[8:5:-2] + 256 * head[9:6:-2])
    padded = tf.concat([tf.io.decode_raw(content, tf.uint8), np.zeros(4, np.uint8)], 0)
    end = tf.size(padded) - 4

    def byte(at):
        return tf.cast(padded[tf.minimum(at, end)], tf.int32)

    def next_block(at, within, flags):
        """Extensions are 0x21, a label and blocks: their size and content, the last of size 0."""
        begins = ~within & (byte(at + 1) == 0xF9)  # a graphic control extension
        flags = tf.where(begins, byte(at + 3), flags)
        return tf.where(within, at + 1 + byte(at), at + 2), ~within | (byte(at) != 0), flags

    palette = tf.where(head[10] >= 128, 3 * 2 ** (head[10] % 8 + 1), 0)
    *_, flags = tf.while_loop(  # from what follows the palette to the first frame
        lambda at, within, flags: within | (byte(at) == 0x21),
        next_block,
        (13 + palette, tf.constant(False), tf.constant(0)),
    )
    opaque = flags % 2 == 0
    whole = tf.debugging.Assert(
        fills & opaque,
        [
            "A GIF image must have no transparent colour, and a first frame as large as its "
            "screen; save it as PNG. Opaque, and as large:",
            *(opaque, fills),
        ],
    )
    with tf.control_dependencies([whole]):
        return tf.identity(image)


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
    128 KiB. Empty and damaged files are no error: theirs is 1. (CIPA DC-008, "Exchangeable image
    file format", 4.5 and 4.6)
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

    others = tf.where(head != 0xFF)[:, 0]  # the last zero is always among them

    def marker(at):
        """The last 0xFF of those from the place `at` on: before a marker any number may stand."""
        at = tf.minimum(at, _HEAD - 1)
        return tf.maximum(tf.gather(others, tf.searchsorted(others, [at]))[0] - 1, at)

    def is_exif(at):
        return (number(at, 2) == 0xFFE1) & (number(at + 4, 6) == int.from_bytes(b"Exif\0\0"))

    def is_other(at):
        """Whether a segment is there that is not EXIF; behind 0xDA come the pixels."""
        is_segment = (number(at, 1) == 0xFF) & (number(at + 1, 1) != 0xDA)
        return is_segment & (number(at + 2, 2) >= 2) & ~is_exif(at)

    (segment,) = tf.while_loop(
        is_other,
        lambda at: (marker(at + 2 + number(at + 2, 2)),),
        (marker(tf.constant(2, tf.int64)),),
        maximum_iterations=_MAX_SEGMENTS,
    )
    # A TIFF file is in it: byte order, 42, where the directory is; there a count and the entries,
    # each of tag, type, count and value.
    tiff = segment + 10
    little = number(tiff, 2) == int.from_bytes(b"II")
    directory = tiff + number(tiff + 4, 4, little)
    indices = np.arange(_MAX_ENTRIES)
    entries = directory + 2 + _ENTRY_SIZE * indices
    kind = number(entries + 2, 2, little)
    value = tf.where(kind == _LONG, number(entries + 8, 4, little), number(entries + 8, 2, little))
    found = (
        is_exif(segment)
        & (little | (number(tiff, 2) == int.from_bytes(b"MM")))
        & (number(tiff + 2, 2, little) == 42)
        & (indices < number(directory, 2, little))
        & (number(entries, 2, little) == _ORIENTATION_TAG)
        & ((kind == _SHORT) | (kind == _LONG))
        & (number(entries + 4, 4, little) == 1)
        & (value >= 1)
        & (value <= 8)
    )
    return tf.reduce_max(tf.where(found, value, 1))
