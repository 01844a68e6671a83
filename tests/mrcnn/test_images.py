import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mrcnn import images, pixels
from mrcnn.images import (
    ImageError,
    as_channels,
    as_rgb8,
    image_orientation,
    image_size,
    read_image,
    read_mask,
    write_image,
)

# A picture whose corners differ, so that every flip and turn shows.
CORNERS = np.zeros((40, 64, 3), np.uint8)
CORNERS[:20, :32] = (250, 10, 10)
CORNERS[:20, 32:] = (10, 250, 10)
CORNERS[20:, :32] = (10, 10, 250)
CORNERS[20:, 32:] = (200, 200, 200)

# EXIF orientation -> the stored array whose upright form is `upright`. The comments are the EXIF
# standard's words: where row 0 and column 0 of the stored picture lie in the upright one.
STORED = {
    1: lambda upright: upright,  # row 0 at the top, column 0 at the left
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.swapaxes(0, 1),  # left, top
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),  # right, top
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda upright: upright[::-1].swapaxes(0, 1),  # left, bottom
}


def save(path, array, **options):
    Image.fromarray(np.ascontiguousarray(array)).save(path, **options)
    return path


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def png_chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_header_only(path, width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b""))
    return path


class TestReadImage:
    @pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
    def test_rgb_comes_back_exactly(self, tmp_path, suffix):
        image = read_image(save(tmp_path / f"a.{suffix}", CORNERS))
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, CORNERS)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
    def test_exif_orientation_is_applied(self, tmp_path, suffix, orientation):
        stored = STORED[orientation](CORNERS)
        path = save(tmp_path / f"a.{suffix}", stored, exif=exif(orientation))
        image = read_image(path)
        assert image.shape == CORNERS.shape
        # JPEG and WebP are lossy next to the edges: look at the middle of each quarter.
        for row, column in [(10, 16), (10, 48), (30, 16), (30, 48)]:
            np.testing.assert_allclose(image[row, column], CORNERS[row, column], atol=12)
        assert image_size(path) == (40, 64)
        # Pillow turns a TIFF by itself.
        assert image_orientation(path) == (1 if suffix == "tif" else orientation)

    def test_exif_behind_the_pixels_of_a_png_is_found(self, tmp_path):
        plain = save(tmp_path / "plain.png", STORED[6](CORNERS)).read_bytes()
        block = exif(6).tobytes().removeprefix(b"Exif\x00\x00")
        path = tmp_path / "a.png"
        path.write_bytes(plain[:-12] + png_chunk(b"eXIf", block) + plain[-12:])
        np.testing.assert_array_equal(read_image(path), CORNERS)
        assert image_size(path) == (40, 64)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
    def test_damaged_exif_does_not_refuse_sound_pixels(self, tmp_path):
        path = save(tmp_path / "a.jpg", CORNERS, exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
        assert read_image(path).shape == CORNERS.shape
        assert image_size(path) == (40, 64)

    def test_grey_is_repeated(self, tmp_path):
        image = read_image(save(tmp_path / "a.png", CORNERS[:, :, 0]))
        np.testing.assert_array_equal(image, CORNERS[:, :, [0, 0, 0]])

    def test_palette_is_looked_up(self, tmp_path):
        palette = Image.fromarray(CORNERS).convert("P", palette=Image.Palette.ADAPTIVE)
        palette.save(tmp_path / "a.png")
        np.testing.assert_allclose(read_image(tmp_path / "a.png"), CORNERS, atol=6)

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
    def test_alpha_is_dropped(self, tmp_path, mode):
        grey = Image.fromarray(CORNERS[:, :, 0])
        image = grey.convert("RGBA")
        image.putalpha(Image.fromarray(CORNERS[:, :, 1]))
        suffix = "tif" if mode == "PA" else "png"
        image.convert("LA").convert(mode).save(tmp_path / f"a.{suffix}")
        expected = CORNERS[:, :, [0, 0, 0]]
        np.testing.assert_allclose(read_image(tmp_path / f"a.{suffix}"), expected, atol=1)

    def test_cmyk_is_converted(self, tmp_path):
        Image.new("CMYK", (8, 6), (255, 0, 0, 0)).save(tmp_path / "a.tif")
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0, 0], [0, 255, 255])

    def test_one_bit_is_black_and_white(self, tmp_path):
        bits = CORNERS[:, :, 0] > 127
        Image.fromarray(bits).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_image(tmp_path / "a.png")[:, :, 2], bits * np.uint8(255))

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_sixteen_bits_are_scaled_to_eight(self, tmp_path, suffix):
        values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
        image = read_image(save(tmp_path / f"a.{suffix}", values))
        np.testing.assert_array_equal(image[0, :, 1], [0, 0, 1, 1, 128, 254, 255, 255])

    def test_file_whose_sixteen_bits_are_hardly_used_is_named(self, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr(pixels, "_said_dark", False)
        path = save(tmp_path / "a.png", np.array([[0, 4000]], np.uint16))
        assert read_image(path)[0, :, 0].tolist() == [0, 16]
        assert f"{path} has 16 bits and no value above 4000" in caplog.text

    def test_float_tiff_from_zero_to_one(self, tmp_path):
        values = np.array([[0, 0.5, 1]], np.float32)
        image = read_image(save(tmp_path / "a.tif", values))
        np.testing.assert_array_equal(image[0, :, 0], [0, 128, 255])

    def test_first_frame_of_an_animation(self, tmp_path):
        frames = [Image.new("RGB", (9, 5), colour) for colour in ["red", "blue"]]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(read_image(tmp_path / "a.gif")[2, 2], [255, 0, 0])

    def test_result_may_be_written_to(self, tmp_path):
        image = read_image(save(tmp_path / "a.png", CORNERS))
        image[0, 0] = 1
        assert image.flags.c_contiguous


class TestReduction:
    @pytest.mark.parametrize("suffix", ["jpg", "png"])
    @pytest.mark.parametrize("max_side", [64, 100])
    def test_small_images_stay_as_they_are(self, tmp_path, suffix, max_side):
        path = save(tmp_path / f"a.{suffix}", CORNERS)
        np.testing.assert_array_equal(read_image(path, max_side), read_image(path))

    @pytest.mark.parametrize("suffix", ["jpg", "png"])
    @pytest.mark.parametrize("max_side", [1, 33, 100, 256, 511])
    def test_longer_side_becomes_max_side(self, tmp_path, suffix, max_side):
        path = save(tmp_path / f"a.{suffix}", np.full((300, 512, 3), 77, np.uint8))
        image = read_image(path, max_side)
        assert image.shape == (max(1, round(300 * max_side / 512)), max_side, 3)
        np.testing.assert_allclose(image, 77, atol=1)

    def test_reduction_is_antialiased(self, tmp_path):
        # Stripes one pixel wide would come out as 0 or 255 by sampling alone.
        stripes = np.zeros((256, 256), np.uint8)
        stripes[:, ::2] = 255
        image = read_image(save(tmp_path / "a.png", stripes), 64)
        np.testing.assert_allclose(image[8:-8, 8:-8], 127.5, atol=4)

    def test_draft_decoding_shows_the_same_picture(self, tmp_path):
        rows, columns = np.mgrid[:400, :600]
        smooth = np.stack([rows / 2, columns / 3, 128 + 60 * np.sin(rows / 40)], -1)
        smooth = smooth.astype(np.uint8)
        reduced = read_image(save(tmp_path / "a.jpg", smooth, quality=95), 100)
        expected = read_image(save(tmp_path / "a.png", smooth), 100)
        assert np.abs(reduced.astype(int) - expected).mean() < 2

    @pytest.mark.parametrize("orientation", [3, 6])
    def test_reduced_image_is_upright(self, tmp_path, orientation):
        stored = STORED[orientation](CORNERS.repeat(8, 0).repeat(8, 1))
        path = save(tmp_path / "a.jpg", stored, exif=exif(orientation))
        image = read_image(path, 64)
        assert image.shape == CORNERS.shape
        assert np.abs(image[5:15, 5:25].astype(int) - CORNERS[0, 0]).max() < 20

    def test_max_side_below_one_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="max_side"):
            read_image(save(tmp_path / "a.png", CORNERS), 0)


class TestUnsoundFiles:
    @pytest.mark.parametrize("read", [read_image, read_mask, image_size])
    @pytest.mark.parametrize("content", [b"", b"\x00" * 500, b"<html>404 not found</html>"])
    def test_foreign_content(self, tmp_path, read, content):
        path = tmp_path / "foreign.jpg"
        path.write_bytes(content)
        with pytest.raises(ImageError, match="foreign.jpg"):
            read(path)

    @pytest.mark.parametrize("read", [read_image, read_mask, image_size])
    def test_missing_file_and_folder(self, tmp_path, read):
        with pytest.raises(ImageError, match="missing.png: there is no such file"):
            read(tmp_path / "missing.png")
        (tmp_path / "folder.png").mkdir()
        with pytest.raises(ImageError, match="folder.png"):
            read(tmp_path / "folder.png")

    @pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "gif", "bmp", "webp"])
    @pytest.mark.parametrize("kept", [0.05, 0.5, 0.8])
    def test_truncated_file(self, tmp_path, suffix, kept):
        noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
        content = save(tmp_path / f"whole.{suffix}", noise).read_bytes()
        path = tmp_path / f"part.{suffix}"
        path.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(ImageError, match=f"part.{suffix}"):
            read_image(path)

    @pytest.mark.parametrize("read", [read_image, read_mask, image_size])
    def test_decompression_bomb_is_refused_by_its_header(self, tmp_path, read):
        path = png_header_only(tmp_path / "bomb.png", 50_000, 50_000)
        with pytest.raises(ImageError, match="bomb.png.*50000 x 50000"):
            read(path)

    def test_size_between_the_limits_of_pillow_and_of_the_project(self, tmp_path, recwarn):
        path = png_header_only(tmp_path / "large.png", 19_000, 10_000)
        assert image_size(path) == (10_000, 19_000)
        assert not recwarn.list

    def test_the_limit_of_pillow_is_given_back(self, tmp_path):
        before = Image.MAX_IMAGE_PIXELS
        read_image(save(tmp_path / "a.png", CORNERS))
        assert before == Image.MAX_IMAGE_PIXELS

    def test_limit_is_the_module_constant(self, tmp_path, monkeypatch):
        path = save(tmp_path / "a.png", CORNERS)
        monkeypatch.setattr(images, "MAX_PIXELS", CORNERS.shape[0] * CORNERS.shape[1] - 1)
        with pytest.raises(ImageError, match="MAX_PIXELS"):
            read_image(path)


def test_tiff_of_32_bits_that_holds_eight(tmp_path):
    values = np.array([[0, 100, 255]], np.int32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 100, 255]
    Image.fromarray(values * 257).save(tmp_path / "deep.tif")
    assert read_image(tmp_path / "deep.tif")[0, :, 0].tolist() == [0, 100, 255]


class TestReadMask:
    def test_true_above_127(self, tmp_path):
        values = np.array([[0, 1, 127, 128, 255]], np.uint8)
        mask = read_mask(save(tmp_path / "a.png", values))
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, [[False, False, False, True, True]])

    def test_zero_and_another_value(self, tmp_path):
        inside = np.array([[True, False, False]])
        red = inside[:, :, np.newaxis] * np.array([255, 0, 0], np.uint8)
        palette = Image.fromarray(red).convert("P")
        assert (read_mask(save(tmp_path / "grey.png", inside * np.uint8(100))) == inside).all()
        assert (read_mask(save(tmp_path / "red.png", red)) == inside).all()
        palette.save(tmp_path / "palette.png")
        assert (read_mask(tmp_path / "palette.png") == inside).all()

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
    def test_zeros_and_ones(self, tmp_path, dtype):
        values = np.array([[0, 1, 1], [0, 0, 1]], dtype)
        mask = read_mask(save(tmp_path / "a.png", values))
        np.testing.assert_array_equal(mask, values.astype(bool))

    @pytest.mark.parametrize("high", [255, 65535])
    def test_sixteen_bits(self, tmp_path, high):
        values = np.array([[0, high, 0]], np.uint16)
        mask = read_mask(save(tmp_path / "a.png", values))
        np.testing.assert_array_equal(mask, [[False, True, False]])

    def test_floats_from_zero_to_one(self, tmp_path):
        values = np.array([[0, 0.4, 0.6, 1]], np.float32)
        mask = read_mask(save(tmp_path / "a.tif", values))
        np.testing.assert_array_equal(mask, [[False, False, True, True]])

    @pytest.mark.parametrize("value", [-1, 70_000])
    def test_values_of_no_known_range(self, tmp_path, value):
        path = save(tmp_path / "a.tif", np.full((2, 2), value, np.int32))
        with pytest.raises(ImageError, match=f"a.tif.*{value}"):
            read_mask(path)

    def test_specks_that_vanish_leave_it_empty(self, tmp_path):
        whole = np.zeros((768, 1024), np.uint8)
        whole[100:103, 200:202] = whole[500:502, 30:33] = 255
        for how in (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS):
            Image.fromarray(whole).resize((128, 96), how).save(tmp_path / "a.png")
            assert not read_mask(tmp_path / "a.png").any()

    @pytest.mark.parametrize("values", [[0, 1, 2], [0, 50, 50, 50, 100, 100]])
    def test_numbers_of_regions_are_no_mask(self, tmp_path, values):
        path = save(tmp_path / "a.png", np.array([values], np.uint8))
        with pytest.raises(ImageError, match=rf"a\.png.*end at {values[-1]} of 255"):
            read_mask(path)
        assert read_mask(save(path, np.array([[0, 2, 128]], np.uint8))).sum() == 1

    def test_empty_mask(self, tmp_path):
        assert not read_mask(save(tmp_path / "a.png", np.zeros((5, 7), np.uint8))).any()

    def test_palette_counts_by_its_colours(self, tmp_path):
        palette = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
        palette.putpalette([255, 255, 255, 0, 0, 0])
        palette.save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), [[True, False]])

    def test_colours_and_alpha_count_as_grey(self, tmp_path):
        values = np.array([[[255, 255, 255, 0], [0, 0, 0, 255]]], np.uint8)
        np.testing.assert_array_equal(read_mask(save(tmp_path / "a.png", values)), [[True, False]])

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
    def test_shape_in_the_alpha_channel_alone(self, tmp_path, mode):
        values = np.full((2, 2, 4), 255, np.uint8)
        Image.fromarray(values).convert(mode).save(tmp_path / "opaque.png")
        assert read_mask(tmp_path / "opaque.png").all()
        values[0, 0, 3] = 0
        Image.fromarray(values).convert(mode).save(tmp_path / "a.png")
        with pytest.raises(ImageError, match=r"a\.png.*only its alpha channel"):
            read_mask(tmp_path / "a.png")

    def test_orientation_is_applied(self, tmp_path):
        mask = np.arange(40).reshape(5, 8) % 3 == 0
        path = save(tmp_path / "a.png", STORED[6](mask) * np.uint8(255), exif=exif(6))
        np.testing.assert_array_equal(read_mask(path), mask)

    def test_lossy_mask(self, tmp_path):
        mask = np.zeros((64, 64), bool)
        mask[16:48, 8:40] = True
        path = save(tmp_path / "a.jpg", mask * np.uint8(255), quality=80)
        np.testing.assert_array_equal(read_mask(path), mask)


class TestAsRgb8:
    def test_rgb_comes_back_as_it_is(self):
        assert as_rgb8(CORNERS) is CORNERS or np.shares_memory(as_rgb8(CORNERS), CORNERS)
        np.testing.assert_array_equal(as_rgb8(CORNERS), CORNERS)

    @pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
    @pytest.mark.parametrize(
        "dtype, high",
        [(bool, 1), (np.uint8, 255), (np.uint16, 65535), (np.int64, 255), (np.float32, 1)]
        + [(np.float64, 255), (np.float16, 1)],
    )
    def test_every_accepted_kind(self, shape, dtype, high):
        array = np.zeros(shape, dtype)
        array[1:] = high
        result = as_rgb8(array)
        assert result.dtype == np.uint8 and result.shape == (4, 5, 3)
        assert (result[0] == 0).all() and (result[1:] == 255).all()

    def test_floats_are_rounded(self):
        values = np.array([[0.4, 0.6, 200.5, 254.9]])
        np.testing.assert_array_equal(as_rgb8(values)[0, :, 0], [0, 1, 200, 255])

    def test_hair_outside_the_range_is_cut_off(self):
        np.testing.assert_array_equal(as_rgb8(np.array([[-1e-6, 1 + 1e-6]]))[0, :, 0], [0, 255])

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros(5),
            np.zeros((3, 8, 8)),
            np.zeros((2, 8, 8, 3)),
            np.zeros((0, 8, 3)),
            np.full((2, 2), np.nan),
            np.full((2, 2), np.inf),
            np.full((2, 2), -1.0),
            np.full((2, 2), 300.0),
            np.full((2, 2), 256),
            np.full((2, 2), -1),
            np.zeros((2, 2), complex),
            np.array([["letters"]]),
        ],
    )
    def test_anything_else_is_an_error(self, array):
        with pytest.raises(ImageError):
            as_rgb8(array)

    def test_pillow_image(self):
        np.testing.assert_array_equal(as_rgb8(Image.fromarray(CORNERS)), CORNERS)

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV"])
    def test_pillow_image_of_any_mode(self, mode):
        skin = Image.new("RGB", (8, 6), (200, 150, 120)).convert(mode)
        np.testing.assert_array_equal(as_rgb8(skin), np.asarray(skin.convert("RGB")))

    def test_pillow_image_of_sixteen_bits(self):
        deep = np.array([[0, 257 * 100, 65535]], np.uint16)
        assert as_rgb8(Image.fromarray(deep))[0, :, 0].tolist() == [0, 100, 255]


class TestWriteImage:
    @pytest.mark.parametrize("shape", [(6, 9), (6, 9, 3), (6, 9, 4)])
    def test_png_round_trip(self, tmp_path, shape):
        array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        write_image(tmp_path / "new" / "a.PNG", array)
        with Image.open(tmp_path / "new" / "a.PNG") as image:
            np.testing.assert_array_equal(np.asarray(image), array)

    def test_jpeg_is_close(self, tmp_path):
        write_image(tmp_path / "a.jpg", CORNERS)
        image = read_image(tmp_path / "a.jpg")
        assert np.abs(image.astype(int) - CORNERS).mean() < 3

    @pytest.mark.parametrize("suffix", [".jpg", ".png"])
    def test_disk_that_takes_only_a_part(self, tmp_path, suffix):
        resource = pytest.importorskip("resource")
        noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)
        usual = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, usual[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                write_image(tmp_path / f"a{suffix}", noise)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        assert not list(tmp_path.iterdir())

    def test_mask_becomes_0_and_255(self, tmp_path):
        mask = np.array([[True, False]])
        write_image(tmp_path / "a.png", mask)
        with Image.open(tmp_path / "a.png") as image:
            assert np.asarray(image).tolist() == [[255, 0]]
        np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)

    def test_views_may_be_written(self, tmp_path):
        write_image(tmp_path / "a.png", CORNERS[::-1, ::2])
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), CORNERS[::-1, ::2])

    @pytest.mark.parametrize(
        "name, array",
        [
            ("a.gif", CORNERS),
            ("a", CORNERS),
            ("a.jpg", np.zeros((4, 4, 4), np.uint8)),
            ("a.png", np.zeros((4, 4, 3))),
            ("a.png", np.zeros((4, 4, 3), bool)),
            ("a.png", np.zeros((4, 4, 2), np.uint8)),
            ("a.png", np.zeros((0, 4, 3), np.uint8)),
        ],
    )
    def test_what_cannot_be_written_is_an_error_naming_the_file(self, tmp_path, name, array):
        with pytest.raises(ImageError, match=str(tmp_path / name)):
            write_image(tmp_path / name, array)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("shape", [(1, 65_501), (65_501, 1, 3)])
    def test_a_jpeg_of_too_many_pixels(self, tmp_path, shape):
        with pytest.raises(ImageError, match=r"a.jpg: .* 65501.* than 65,500; write it as .png"):
            write_image(tmp_path / "a.jpg", np.zeros(shape, np.uint8))
        assert list(tmp_path.iterdir()) == []
        write_image(tmp_path / "a.png", np.zeros(shape, np.uint8))
        write_image(tmp_path / "a.jpg", np.zeros(shape, np.uint8)[:65_500, :65_500])
        assert image_size(tmp_path / "a.jpg") == tuple(min(65_500, side) for side in shape[:2])


def test_saved_exif_helper_writes_the_tag():
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "JPEG", exif=exif(6))
    with Image.open(buffer) as image:
        assert image.getexif()[0x0112] == 6


class TestChannels:
    """Images as a network of another number of input channels takes them."""

    def noise(self, *shape, dtype=np.uint8):
        return np.random.default_rng(0).integers(256, size=shape).astype(dtype)

    @pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1)])
    def test_grey_stays_as_it_is(self, shape):
        grey = self.noise(*shape)
        np.testing.assert_array_equal(as_channels(grey, 1), grey.reshape(4, 5, 1))

    def test_colours_become_grey_by_their_luminance(self):
        red_green_blue = np.uint8([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]])
        assert as_channels(red_green_blue, 1)[0, :, 0].tolist() == [76, 150, 29]

    def test_three_are_rgb(self):
        grey = self.noise(4, 5)
        np.testing.assert_array_equal(as_channels(grey, 3), as_rgb8(grey))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_other_numbers_are_taken_as_they_are(self, dtype):
        image = self.noise(4, 5, 8, dtype=dtype)
        assert as_channels(image, 8) is image

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_no_numbers(self, value):
        image = np.zeros((4, 5, 8))
        image[1, 2, 3] = value
        with pytest.raises(ImageError, match="not finite"):
            as_channels(image, 8)

    @pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (4, 5, 5)])
    def test_other_shapes_are_refused(self, shape):
        with pytest.raises(ImageError, match="IMAGE_CHANNEL_COUNT is 4.*received uint8"):
            as_channels(self.noise(*shape), 4)


def test_a_format_that_needs_another_program_is_refused(tmp_path):
    path = tmp_path / "picture.png"  # PostScript, which Pillow would hand to Ghostscript
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    with pytest.raises(ImageError, match=r"picture\.png"):
        read_image(path)
