"""Image files in a graph: the levels of Python, upright, and whatever is no image refused."""

import io

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mrcnn.images import read_image

if keras.backend.backend() != "tensorflow":
    pytest.skip("these are TensorFlow's graphs", allow_module_level=True)

tf = pytest.importorskip("tensorflow")
from mrcnn import images_graph  # noqa: E402

# Compiled, as it is used.
decode = tf.function(images_graph.decode, [tf.TensorSpec([], tf.string)], autograph=False)
orientation = tf.function(images_graph.orientation, [tf.TensorSpec([], tf.string)], autograph=False)


def picture(height, width):
    """Soft noise, in which every flip and turn shows."""
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def encoded(kind="JPEG", mode="RGB", **options):
    content = io.BytesIO()
    Image.fromarray(picture(40, 52)).convert(mode).save(content, kind, **options)
    return content.getvalue()


def translucent(kind, **options):
    """A picture under every degree of transparency."""
    image = Image.fromarray(picture(40, 52))
    image.putalpha(Image.fromarray(picture(40, 52)[:, ::-1, 0]))
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def animated(mode):
    content = io.BytesIO()
    frames = [Image.new(mode, (20, 16), colour) for colour in ("red", "blue")]
    frames[0].save(content, "WEBP", save_all=True, append_images=frames[1:])
    return content.getvalue()


def gif(*alphas, margin=0, **options):
    """A GIF of frames that have a transparent colour or none, on a screen with a margin."""
    content = io.BytesIO()
    frames = [Image.fromarray(picture(40, 52)).quantize(16) for _ in alphas]
    for frame, alpha in zip(frames, alphas, strict=True):
        if alpha:
            frame.info["transparency"] = 3
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], **options)
    content = bytearray(content.getvalue())
    content[6:10] = (52 + margin).to_bytes(2, "little") + (40 + margin).to_bytes(2, "little")
    return bytes(content)


def segment(marker, content):
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content


def exif(value, order="little", kind=3, count=1, before=3, gap=0):
    """A segment with a directory in which the orientation follows some other entries."""

    def number(value, size):
        return value.to_bytes(size, order)

    others = [number(n + 1, 2) + number(4, 2) + number(1, 4) + number(7, 4) for n in range(before)]
    field = number(0x0112, 2) + number(kind, 2) + number(count, 4)
    field += (number(value, 2) + bytes(2)) if kind == 3 else number(value, 4)
    tiff = (b"II" if order == "little" else b"MM") + number(42, 2) + number(8 + gap, 4) + bytes(gap)
    tiff += number(before + 1, 2) + b"".join([*others, field]) + bytes(4)
    return segment(0xE1, b"Exif\0\0" + tiff)


APP0 = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
XMP = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>")


def with_segments(*segments):
    """A JPEG that begins with these instead of the APP0 that Pillow writes."""
    content = encoded()
    assert content[2:20] == APP0
    return content[:2] + b"".join(segments) + content[20:]


def python_reads(path, content):
    path.write_bytes(content)
    return read_image(path)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("PNG", mode) for mode in ("RGB", "RGBA", "L", "P")),
        *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
        ("GIF", "P"),
        ("BMP", "RGB"),
        ("WEBP", "RGB"),
    ],
)
def test_levels_are_those_of_python(tmp_path, kind, mode):
    content = encoded(kind, mode)
    np.testing.assert_array_equal(decode(content), python_reads(tmp_path / "image", content))


@pytest.mark.parametrize(
    ("kind", "options", "chunk"),
    [
        ("PNG", {}, None),
        ("WEBP", {}, b"VP8X"),
        ("WEBP", {"lossless": True}, b"VP8L"),
        ("WEBP", {"lossless": True, "exif": Image.Exif().tobytes()}, b"VP8X"),
    ],
    ids=["png", "lossy", "lossless", "extended"],
)
def test_alpha_is_dropped(tmp_path, kind, options, chunk):
    content = translucent(kind, **options)
    assert chunk in (None, content[12:16])
    np.testing.assert_array_equal(decode(content), python_reads(tmp_path / "image", content))


@pytest.mark.parametrize("options", [{}, {"exif": Image.Exif().tobytes()}, {"lossless": True}])
def test_webp_without_alpha(tmp_path, options):
    content = encoded("WEBP", **options)
    np.testing.assert_array_equal(decode(content), python_reads(tmp_path / "image", content))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_bmp_of_few_bits_is_refused(mode):
    """TensorFlow's decoder would show the places in the palette for levels of grey."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="save it as PNG"):
        decode(encoded("BMP", mode))


def test_bmp_of_32_bits(tmp_path):
    content = encoded("BMP", "RGBA")
    assert content[28] == 32
    np.testing.assert_array_equal(decode(content), python_reads(tmp_path / "image", content))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_animated_webp_is_refused(monkeypatch, mode):
    """With no number of channels asked for, TensorFlow's decoder writes beyond its memory."""
    content, sound = animated(mode), tf.io.decode_image
    assert content[12:16] == b"VP8X" and content[20] & 2

    def guarded(content, channels, **options):
        assert channels == 3
        return sound(content, channels, **options)

    monkeypatch.setattr(tf.io, "decode_image", guarded)
    with pytest.raises(tf.errors.InvalidArgumentError):
        images_graph.decode(tf.constant(content))  # not compiled: only the way taken is called
    monkeypatch.undo()
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(content)


CONTROL = b"!\xf9\x04\x01\0\0\0\0"  # of a frame with a transparent colour


@pytest.mark.parametrize("options", [{}, {"duration": 40}, {"comment": CONTROL + 300 * b"a"}])
@pytest.mark.parametrize("alphas", [[False], [False, False], [False, True]])
def test_of_a_gif_the_first_frame_is_shown(tmp_path, alphas, options):
    content = gif(*alphas, **options)
    np.testing.assert_array_equal(decode(content), python_reads(tmp_path / "image", content))


@pytest.mark.parametrize("content", [gif(True), gif(True, comment=400 * b"!"), gif(True, False)])
def test_a_gif_with_a_transparent_colour_is_refused(content):
    with pytest.raises(tf.errors.InvalidArgumentError, match="save it as PNG"):
        decode(content)


def test_a_gif_that_leaves_a_margin_is_refused():
    content = gif(False, margin=9)
    with pytest.raises(tf.errors.InvalidArgumentError, match="save it as PNG"):
        decode(content)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff", encoded("PNG")[:60]])
def test_what_is_no_image_is_refused(content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(content)


class TestOrientation:
    @pytest.mark.parametrize("value", range(1, 9))
    @pytest.mark.parametrize("order", ["little", "big"])
    @pytest.mark.parametrize("before", [(), (APP0,)])
    def test_is_that_of_python(self, tmp_path, value, order, before):
        content = with_segments(*before, exif(value, order))
        expected = python_reads(tmp_path / "image.jpg", content)
        assert expected.shape[:2] == ((52, 40) if value > 4 else (40, 52))
        np.testing.assert_array_equal(decode(content), expected)

    @pytest.mark.parametrize(
        "segments",
        [
            (),
            (APP0,),
            (XMP, exif(6)),
            (APP0, segment(0xFE, b"a comment"), segment(0xE2, bytes(60_000)), exif(3, "big")),
            (segment(0xE0, b"Exif\0\0 \xff\xe1 Exif\0\0"), exif(8)),
            (exif(6, before=0, gap=50),),
            (exif(6, before=60),),
            (exif(6, kind=4),),
            (exif(8, "big", kind=4),),
            (b"\xff" + exif(6),),
            (b"\xff\xff" + APP0, b"\xff" * 500 + exif(6)),
        ],
    )
    def test_is_found_among_other_metadata(self, tmp_path, segments):
        content = with_segments(*segments)
        expected = python_reads(tmp_path / "image.jpg", content)
        np.testing.assert_array_equal(decode(content), expected)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
    @pytest.mark.parametrize(
        "block",
        [
            exif(0),
            exif(9),
            exif(6, kind=2),
            exif(0x10006, kind=4),
            exif(0x60000, "big", kind=4),
            exif(6).replace(b"II\x2a", b"II\x2b"),
            exif(6).replace(b"Exif\0\0", b"Exig\0\0"),
            segment(0xE1, b"Exif\0\0"),
            segment(0xE1, b"Exif\0\0MM\0\x2a\xff\xff\xff\xff"),
            segment(0xE1, b"Exif\0\0II\x2a\0\x08\0\0\0\xff\xff"),
        ],
        ids=lambda block: f"{len(block)} bytes",
    )
    def test_what_is_none_turns_nothing(self, tmp_path, block):
        content = with_segments(block)
        expected = python_reads(tmp_path / "image.jpg", content)
        assert expected.shape[:2] == (40, 52)
        np.testing.assert_array_equal(decode(content), expected)

    def test_several_are_none(self):
        assert orientation(with_segments(exif(6, count=2))) == 1

    @settings(max_examples=200)
    @given(st.binary(max_size=300))
    @example(b"")
    @example(b"\xff\xd8" + b"\xff\xe1\x00\x02" * 40_000)
    @example(b"\xff\xd8" + segment(0xE0, bytes(65_533)) * 3 + exif(6))
    def test_of_any_bytes_is_none(self, content):
        assert orientation(content) == 1

    @settings(max_examples=300)
    @given(st.data(), st.sampled_from(["little", "big"]))
    def test_damage_is_no_error(self, data, order):
        content = bytearray(with_segments(APP0, exif(6, order, before=1))[:80])
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, 79))] = data.draw(st.integers(0, 255))
        content = content[: data.draw(st.integers(0, 80))]
        assert 1 <= orientation(bytes(content)) <= 8
