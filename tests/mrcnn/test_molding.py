import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from skimage.transform import resize as skimage_resize

from mrcnn.config import Config
from mrcnn.molding import (
    META,
    compose_image_meta,
    mold_image,
    mold_inputs,
    parse_image_meta,
    resize,
    resize_bilinear,
    resize_image,
    unmold_image,
)

CONFIG = SimpleNamespace(MEAN_PIXEL=np.array([123.7, 116.8, 103.9]))
NOISE = np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8)
NO_PADDING = [(0, 0), (0, 0), (0, 0)]

sides = st.integers(1, 70)


def oracle(image, size):
    return skimage_resize(
        image.astype(np.float64), size, order=1, mode="constant", anti_aliasing=False
    )


class TestParity:
    @pytest.mark.parametrize(
        "name, different, arguments",
        [
            ("square", 0, {"min_dim": 96, "max_dim": 128, "mode": "square"}),
            ("pad64", 0, {"min_dim": 128, "mode": "pad64"}),
            # At a scale of 1.5 one value in forty is a whole number, which the last bit of its sum
            # may truncate to the one below: 68 of 85,050 do so here and not there.
            (
                "square_min_scale",
                68,
                {"min_dim": 64, "max_dim": 256, "min_scale": 1.5, "mode": "square"},
            ),
        ],
    )
    def test_resize_image(self, parity_units, name, different, arguments):
        image, window, scale, padding, crop = resize_image(
            parity_units["resize/image"], **arguments
        )
        golden = parity_units[f"resize/{name}/image"]
        assert image.dtype == golden.dtype and image.shape == golden.shape
        np.testing.assert_array_equal(window, parity_units[f"resize/{name}/window"])
        assert scale == pytest.approx(parity_units[f"resize/{name}/scale"], abs=1e-12)
        np.testing.assert_array_equal(padding, parity_units[f"resize/{name}/padding"])
        assert crop is None
        difference = np.abs(image.astype(int) - golden)
        assert difference.max() <= 1
        assert np.count_nonzero(difference) <= different

    @pytest.mark.parametrize("index", [0, 1])
    def test_network_input(self, parity_network, index):
        config = SimpleNamespace(**json.loads(str(parity_network["meta"]))["config"])
        original = parity_network[f"{index}/image"]
        image, window, scale, _, _ = resize_image(
            original,
            config.IMAGE_MIN_DIM,
            config.IMAGE_MAX_DIM,
            config.IMAGE_MIN_SCALE,
            config.IMAGE_RESIZE_MODE,
        )
        np.testing.assert_array_equal(window, parity_network[f"{index}/window"])
        active = np.zeros(config.NUM_CLASSES)
        meta = compose_image_meta(0, original.shape, image.shape, window, scale, active)
        np.testing.assert_allclose(meta, parity_network[f"{index}/image_meta"], atol=1e-5)
        molded = mold_image(image, config)
        total = parity_network[f"{index}/molded_sum"]
        np.testing.assert_allclose(molded.sum(dtype=np.float64), total, rtol=1e-6)


class TestResizeBilinear:
    def test_by_hand(self):
        # Twice as wide: new centres lie a quarter of a pixel beside the old ones; beyond the
        # outermost old centres a quarter of the value is lost.
        row = np.array([[0.0, 100.0, 200.0]])
        np.testing.assert_allclose(resize_bilinear(row, (1, 6)), [[0, 25, 75, 125, 175, 150]])

    @settings(max_examples=150)
    @given(sides, sides, sides, sides, st.integers(0, 9))
    def test_equals_scikit_image(self, height, width, new_height, new_width, seed):
        image = np.random.default_rng(seed).uniform(-3, 9, (height, width, 2))
        # scikit-image gives zeros that lie below the smallest value a pass around clipping.
        assume(image.min() <= 0)
        size = (new_height, new_width)
        np.testing.assert_allclose(resize_bilinear(image, size), oracle(image, size), atol=1e-9)

    @pytest.mark.parametrize("size", [(30, 50), (90, 50), (200, 141), (91, 300), (1, 1)])
    @pytest.mark.parametrize(
        "dtype, result, tolerance",
        [
            (np.uint8, np.float64, 1e-10),
            (np.uint16, np.float64, 1e-10),
            (np.float64, np.float64, 1e-10),
            (np.float32, np.float32, 1e-4),
            (np.float16, np.float32, 1e-4),
        ],
    )
    def test_precision(self, dtype, result, tolerance, size):
        image = NOISE.astype(dtype)
        resized = resize_bilinear(image, size)
        assert resized.dtype == result
        np.testing.assert_allclose(resized, oracle(image, size), atol=tolerance)

    @settings(max_examples=50)
    @given(sides, sides, sides, sides)
    def test_even_areas_keep_exactly_their_value(self, height, width, new_height, new_width):
        image = np.full((height, width, 3), 77, np.uint8)
        assert (resize_bilinear(image, (new_height, new_width)) == 77).all()

    @settings(max_examples=50)
    @given(sides, sides, st.data())
    def test_part_is_a_part_of_the_whole(self, new_height, new_width, data):
        y1, y2 = sorted(data.draw(st.integers(0, new_height)) for _ in range(2))
        x1, x2 = sorted(data.draw(st.integers(0, new_width)) for _ in range(2))
        image = NOISE[:20, :30].astype(np.float64)
        whole = resize_bilinear(image, (new_height, new_width))
        part = resize_bilinear(image, (new_height, new_width), (y1, x1, y2, x2))
        np.testing.assert_allclose(part, whole[y1:y2, x1:x2], atol=1e-9)

    def test_no_channels_like_one(self):
        np.testing.assert_array_equal(
            resize_bilinear(NOISE[:, :, 0], (50, 60)), resize_bilinear(NOISE, (50, 60))[:, :, 0]
        )

    def test_input_is_not_written_to(self):
        image = np.ones((4, 4))
        resize_bilinear(image, (9, 9))
        assert (image == 1).all()


class TestResize:
    @pytest.mark.parametrize("size", [(30, 50), (200, 141)])
    def test_defaults_are_those_of_the_network(self, size):
        expected = resize_bilinear(NOISE, size)
        np.testing.assert_allclose(resize(NOISE, size, preserve_range=True), expected, atol=1e-4)
        np.testing.assert_allclose(resize(NOISE, size), expected / 255, atol=1e-6)

    def test_bool_is_interpolated(self):
        assert 0.3 < resize(np.array([[True, False]] * 2), (2, 3))[0, 1] < 0.7

    @pytest.mark.parametrize(
        "options",
        [
            {"order": 0, "mode": "edge", "preserve_range": True},
            {"order": 3, "mode": "constant", "cval": 0.5, "clip": False},
            {"mode": "edge", "anti_aliasing": True, "anti_aliasing_sigma": (2, 2, 0)},
        ],
    )
    def test_other_options_are_scikit_images(self, options):
        expected = skimage_resize(NOISE, (33, 44), **{"anti_aliasing": False, **options})
        np.testing.assert_array_equal(resize(NOISE, (33, 44), **options), expected)


class TestResizeImage:
    def test_none_changes_nothing(self):
        image, window, scale, padding, crop = resize_image(NOISE, 800, 1024, 2, "none")
        assert image is NOISE
        assert (window, scale, padding, crop) == ((0, 0, 90, 140), 1, NO_PADDING, None)

    def test_square_does_not_reduce_what_fits(self):
        image, window, scale, padding, _ = resize_image(NOISE, 64, 151, mode="square")
        assert scale == 1 and window == (30, 5, 120, 145)
        assert padding == [(30, 31), (5, 6), (0, 0)]
        np.testing.assert_array_equal(image[30:120, 5:145], NOISE)
        assert image.sum() == NOISE.sum()

    def test_square_keeps_a_scale_that_fits_when_rounded(self):
        # 9 / 7 of 10 columns are 12.86, and so 13 pixels: there is no need for 13 / 10.
        _, window, scale, _, _ = resize_image(NOISE[:7, :10], 9, 13, mode="square")
        assert scale == 9 / 7 and window == (2, 0, 11, 13)

    @settings(max_examples=100)
    @given(
        st.integers(1, 500),
        st.integers(1, 500),
        st.sampled_from([None, 16, 32, 48]),
        st.sampled_from([None, 0, 0.5, 2]),
    )
    def test_square_is_always_square(self, height, width, min_dim, min_scale):
        source = np.ones((height, width, 1), np.uint8)
        image, window, scale, padding, _ = resize_image(source, min_dim, 48, min_scale, "square")
        assert image.shape == (48, 48, 1)
        y1, x1, y2, x2 = window
        assert (y2 - y1, x2 - x1) == (max(1, round(height * scale)), max(1, round(width * scale)))
        (top, bottom), (left, right), _ = padding
        assert 0 <= bottom - top <= 1 and 0 <= right - left <= 1
        assert (top, left, 48 - bottom, 48 - right) == window
        assert image[y1:y2, x1:x2].all() and image.sum() == (y2 - y1) * (x2 - x1)

    @pytest.mark.parametrize("shape", [(64, 128), (65, 128), (1, 127), (190, 10)])
    def test_pad64_is_a_multiple_of_64(self, shape):
        image, window, *_ = resize_image(np.ones((*shape, 3), np.uint8), 64, mode="pad64")
        assert image.shape[0] % 64 == image.shape[1] % 64 == 0
        y1, x1, y2, x2 = window
        assert image[y1:y2, x1:x2].all()
        assert min(y2 - y1, x2 - x1) >= 64
        assert image.shape[0] - (y2 - y1) < 64 and image.shape[1] - (x2 - x1) < 64

    @pytest.mark.parametrize("shape", [(32, 32), (20, 50), (200, 33), (31, 31)])
    def test_crop_is_a_part_of_the_resized_image(self, shape):
        source = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        image, window, scale, padding, crop = resize_image(source, 32, mode="crop")
        assert image.shape == (32, 32, 3) and window == (0, 0, 32, 32) and padding == NO_PADDING
        y, x, height, width = crop
        size = (round(shape[0] * scale), round(shape[1] * scale))
        assert (height, width) == (32, 32)
        assert 0 <= y <= size[0] - 32 and 0 <= x <= size[1] - 32
        whole = resize_bilinear(source, size).astype(np.uint8)
        np.testing.assert_array_equal(image, whole[y : y + 32, x : x + 32])

    def test_crop_follows_the_seed_of_random(self):
        random.seed(3)
        first = resize_image(NOISE, 20, mode="crop")[4]
        others = [resize_image(NOISE, 20, mode="crop")[4] for _ in range(5)]
        random.seed(3)
        assert resize_image(NOISE, 20, mode="crop")[4] == first
        assert any(other != first for other in others)

    def test_crop_follows_a_generator(self):
        def crops(seed):
            rng = np.random.default_rng(seed)
            return [resize_image(NOISE, 20, mode="crop", rng=rng)[4] for _ in range(5)]

        assert crops(1) == crops(1) != crops(2)

    def test_stretch_fills_the_format(self):
        image, window, scale, padding, crop = resize_image(NOISE, 120, 180, mode="stretch")
        expected = resize_bilinear(NOISE, (120, 180)).astype(np.uint8)
        np.testing.assert_array_equal(image, expected)
        assert (window, padding, crop) == ((0, 0, 120, 180), NO_PADDING, None)
        assert scale == pytest.approx((120 / 90 + 180 / 140) / 2)

    def test_antialias_averages_what_is_left_out(self):
        columns = np.zeros((8, 64), np.uint8)
        columns[:, ::4] = 255  # every fourth column: a quarter of the light
        skipped = resize_image(columns, 8, 16, mode="stretch")[0]
        averaged = resize_image(columns, 8, 16, mode="stretch", antialias=True)[0]
        assert skipped.std() == 0 and skipped.mean() == 0
        assert averaged[:, 2:-2].mean() == pytest.approx(255 / 4, abs=3)

    def test_antialias_keeps_images_that_grow(self):
        plain = resize_image(NOISE, 180, 280, mode="stretch")[0].astype(int)
        averaged = resize_image(NOISE, 180, 280, mode="stretch", antialias=True)[0].astype(int)
        # Truncated there and rounded here, and without the fade at the rim.
        assert np.abs(plain - averaged)[2:-2, 2:-2].max() <= 1

    def test_antialias_of_five_channels(self):
        image = np.random.default_rng(0).integers(0, 256, (40, 60, 5), dtype=np.uint8)
        resized = resize_image(image, 16, 32, mode="stretch", antialias=True)[0]
        single = resize_image(image[:, :, 3], 16, 32, mode="stretch", antialias=True)[0]
        np.testing.assert_array_equal(resized[:, :, 3], single)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
    @pytest.mark.parametrize("mode", ["none", "square", "pad64", "crop", "stretch"])
    def test_type_is_kept(self, dtype, mode):
        assert resize_image(NOISE.astype(dtype), 64, 64, mode=mode)[0].dtype == dtype

    @pytest.mark.parametrize("mode", ["none", "square", "pad64", "crop", "stretch"])
    def test_grey_image_without_channels(self, mode):
        assert resize_image(NOISE[:, :, 0], 64, 64, mode=mode)[0].ndim == 2

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"mode": "diamond", "min_dim": 8, "max_dim": 8}, "'diamond'"),
            ({"mode": "square", "min_dim": 8}, "'square' needs max_dim"),
            ({"mode": "stretch", "min_dim": 8}, "'stretch' needs max_dim"),
            ({"mode": "stretch", "max_dim": 8}, "'stretch' needs min_dim"),
            ({"mode": "crop", "max_dim": 8}, "'crop' needs min_dim"),
            ({"mode": "pad64", "max_dim": 8}, "'pad64' needs min_dim"),
            ({"mode": "pad64", "min_dim": 100}, "multiples of 64.*100"),
        ],
    )
    def test_what_is_missing_is_named(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            resize_image(NOISE, **arguments)

    def test_pad64_without_a_least_side_pads_alone(self):
        image = NOISE[:50, :40]
        padded, window, scale, *_ = resize_image(image, 0, 64, mode="pad64")
        assert (padded.shape[:2], window, scale) == ((64, 64), (7, 12, 57, 52), 1)

    def test_image_without_pixels_is_an_error(self):
        with pytest.raises(ValueError, match="without pixels"):
            resize_image(np.zeros((0, 5, 3), np.uint8), 8, 8)


class TestMeta:
    META_VECTOR = compose_image_meta(
        7, (480, 640, 3), (1024, 1024, 3), (128, 0, 896, 1024), 1.6, [1, 0, 1, 1]
    )

    def test_layout(self):
        expected = [7, 480, 640, 3, 1024, 1024, 3, 128, 0, 896, 1024, 1.6, 1, 0, 1, 1]
        np.testing.assert_array_equal(self.META_VECTOR, expected)

    def test_parts_come_back(self):
        parts = parse_image_meta(np.stack([self.META_VECTOR, self.META_VECTOR + 1]))
        assert set(parts) == set(META)
        np.testing.assert_array_equal(parts["image_id"], [7, 8])
        np.testing.assert_array_equal(parts["original_image_shape"][0], [480, 640, 3])
        np.testing.assert_array_equal(parts["image_shape"][0], [1024, 1024, 3])
        np.testing.assert_array_equal(parts["window"][0], [128, 0, 896, 1024])
        np.testing.assert_array_equal(parts["active_class_ids"][0], [1, 0, 1, 1])
        np.testing.assert_allclose(parts["scale"], [1.6, 2.6])
        assert parts["scale"].dtype == np.float32 and parts["window"].dtype == np.int32


class TestMoldInputs:
    def test_random_part_is_refused(self):
        with pytest.raises(ValueError, match="'crop' takes a random part"):
            mold_inputs([NOISE], Config(IMAGE_RESIZE_MODE="crop", IMAGE_MIN_DIM=64))

    def test_no_image(self):
        with pytest.raises(ValueError, match="no image"):
            mold_inputs([], Config())

    def test_sizes_that_make_no_batch(self):
        config = Config(IMAGE_RESIZE_MODE="pad64", IMAGE_MIN_DIM=0, IMAGE_MIN_SCALE=1)
        with pytest.raises(ValueError, match=r"inputs of 2 sizes \[\(128, 192\), \(192, 128"):
            mold_inputs([NOISE, NOISE.transpose(1, 0, 2)], config)


class TestMoldImage:
    def test_mean_is_subtracted_by_channel(self):
        molded = mold_image(np.zeros((2, 2, 3), np.uint8), CONFIG)
        assert molded.dtype == np.float32
        np.testing.assert_allclose(molded[0, 0], [-123.7, -116.8, -103.9], atol=1e-5)

    def test_every_value_comes_back(self):
        image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        np.testing.assert_array_equal(unmold_image(mold_image(image, CONFIG), CONFIG), image)

    def test_batches(self):
        assert mold_image(np.zeros((4, 5, 6, 3), np.uint8), CONFIG).shape == (4, 5, 6, 3)


@pytest.mark.parametrize("channels", [1, 3, 4, 8])
def test_antialiasing_treats_channels_alike(channels):
    """A fourth channel is no alpha, which would be multiplied in."""
    image = np.random.default_rng(0).integers(256, size=(40, 40, channels), dtype=np.uint8)
    image[..., -1] = 0
    whole, *_ = resize_image(image, 16, 16, mode="stretch", antialias=True)
    for channel in range(channels):
        alone, *_ = resize_image(image[..., channel], 16, 16, mode="stretch", antialias=True)
        np.testing.assert_array_equal(whole[..., channel], alone)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("mean", [7, [7.0], "each"])
def test_mean_pixel_of_any_channels(channels, mean):
    mean = np.arange(channels) + 7.0 if mean == "each" else mean
    config = Config(IMAGE_CHANNEL_COUNT=channels, MEAN_PIXEL=mean)
    image = np.random.default_rng(0).integers(256, size=(5, 6, channels), dtype=np.uint8)
    molded = mold_image(image, config)
    np.testing.assert_array_equal(molded, image.astype(np.float32) - np.float32(mean))
    np.testing.assert_array_equal(unmold_image(molded, config), image)
