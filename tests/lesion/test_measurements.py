"""Measurements: exact shapes, invariance to how a lesion lies in its image, colours, no lesion."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.special import ellipe
from skimage.color import rgb2lab

from lesion.measurements import MIN_COLOR_SHARE, REFERENCE_COLORS, measure

SKIN = (225, 180, 160)
SHAPE = (
    "asymmetry_major_axis",
    "asymmetry_minor_axis",
    "axis_ratio",
    "compactness",
    "radial_deviation",
)


def drawn(inside, height=300, width=340, angle=0.3):
    """Mask of the points for which `inside(x, y)` holds, about the middle, turned by `angle`."""
    y, x = np.mgrid[:height, :width] - np.array([height / 2 + 0.3, width / 2 - 0.4])[:, None, None]
    return inside(x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle))


def painted(mask, color=(120, 80, 60)):
    return np.where(mask[:, :, np.newaxis], color, SKIN).astype(np.uint8)


def measured(mask, **options):
    return measure(painted(mask), mask, **options)


def blob(harmonics, scale=80.0, angle=0.0, side=300):
    """A smooth outline: a radius with harmonics of 2, 3, ... periods, (amplitude, phase) each."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    theta = np.arctan2(y, x) - angle
    waves = (
        amplitude * np.cos(number * theta + phase)
        for number, (amplitude, phase) in enumerate(harmonics, 2)
    )
    return np.hypot(y, x) < scale * (1 + sum(waves))


# The amplitude of two periods keeps the shape oblong, so that its principal axes are defined.
harmonics = st.tuples(
    st.tuples(st.floats(0.1, 0.3), st.just(0.0)),
    *[st.tuples(st.floats(0, 0.1), st.floats(0, 2 * np.pi))] * 3,
)


class TestShape:
    def test_disc(self):
        result = measured(drawn(lambda x, y: x**2 + y**2 < 100**2))
        assert result.asymmetry_major_axis == pytest.approx(0, abs=0.01)
        assert result.asymmetry_minor_axis == pytest.approx(0, abs=0.01)
        assert result.axis_ratio == pytest.approx(1, abs=0.01)
        assert result.compactness == pytest.approx(1, abs=0.01)
        assert result.radial_deviation == pytest.approx(0, abs=0.005)
        assert result.diameter_pixels == pytest.approx(200, abs=2)
        assert result.equivalent_diameter_pixels == pytest.approx(200, abs=0.5)

    def test_ellipse(self):
        result = measured(drawn(lambda x, y: (x / 120) ** 2 + (y / 60) ** 2 < 1))
        perimeter = 4 * 120 * ellipe(1 - 60**2 / 120**2)
        assert result.asymmetry_major_axis == pytest.approx(0, abs=0.01)
        assert result.asymmetry_minor_axis == pytest.approx(0, abs=0.01)
        assert result.axis_ratio == pytest.approx(0.5, abs=0.005)
        assert result.compactness == pytest.approx(
            perimeter**2 / (4 * np.pi * np.pi * 120 * 60), rel=0.01
        )
        # Along the outline at equal steps of its parameter, weighted with their lengths.
        t = np.linspace(0, 2 * np.pi, 10_000)
        radius = np.hypot(2 * np.cos(t), np.sin(t))
        length = np.hypot(2 * np.sin(t), np.cos(t))
        mean = np.average(radius, weights=length)
        deviation = np.sqrt(np.average((radius - mean) ** 2, weights=length)) / mean
        assert result.radial_deviation == pytest.approx(deviation, abs=0.005)
        assert result.diameter_pixels == pytest.approx(240, abs=2)

    def test_rectangle(self):
        result = measured(drawn(lambda x, y: (abs(x) < 100) & (abs(y) < 50)))
        assert result.axis_ratio == pytest.approx(0.5, abs=0.005)
        # 36 / 8 pi; the blur takes a little off the corners.
        assert result.compactness == pytest.approx(4.5 / np.pi, rel=0.02)
        assert result.diameter_pixels == pytest.approx(np.hypot(200, 100), abs=2)

    def test_square(self):
        mask = np.zeros((200, 200), bool)
        mask[20:180, 20:180] = True
        result = measured(mask)
        assert result.asymmetry_major_axis == pytest.approx(0, abs=1e-9)
        assert result.asymmetry_minor_axis == pytest.approx(0, abs=1e-9)
        assert result.compactness == pytest.approx(4 / np.pi, rel=0.02)
        assert result.area_pixels == 160**2
        assert result.area_share == 160**2 / 200**2

    def test_half_disc_is_symmetric_about_its_minor_axis_only(self):
        result = measured(drawn(lambda x, y: (x**2 + y**2 < 120**2) & (y > 0), 400, 400))
        # The major axis lies at 4 / 3 pi above the straight side. What is mirrored there stays
        # within the half-disc where twice that height bounds it.
        c = 4 / (3 * np.pi)

        def integral(y):
            """Of the width 2 sqrt(1 - y^2)."""
            return y * np.sqrt(1 - y**2) + np.arcsin(y)

        overlap = 2 * (integral(2 * c) - integral(c))
        assert result.asymmetry_major_axis == pytest.approx(1 - overlap / (np.pi / 2), abs=0.005)
        assert result.asymmetry_minor_axis == pytest.approx(0, abs=0.01)
        assert result.compactness == pytest.approx((np.pi + 2) ** 2 / (2 * np.pi**2), rel=0.02)

    def test_rough_outline_is_less_compact_and_deviates_more(self):
        smooth = measured(blob(((0.15, 0),)))
        rough = measured(blob(((0.15, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0.08, 0))))
        assert rough.compactness > smooth.compactness * 1.05
        assert rough.radial_deviation > smooth.radial_deviation * 1.05

    def test_hole_adds_to_the_perimeter(self):
        ring = measured(drawn(lambda x, y: (x**2 + y**2 < 100**2) & (x**2 + y**2 > 50**2)))
        # (2 pi (100 + 50))^2 / (4 pi pi (100^2 - 50^2))
        assert ring.compactness == pytest.approx(3, rel=0.01)

    @pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 3), (3, 40)])
    def test_tiny_lesions_have_numbers_or_none(self, size):
        mask = np.zeros((50, 60), bool)
        mask[10 : 10 + size[0], 10 : 10 + size[1]] = True
        result = measured(mask)
        assert result.diameter_pixels == pytest.approx(np.hypot(*size), abs=1)
        assert (result.compactness is None) == (min(size) == 1)
        assert 0 <= result.asymmetry_major_axis < 0.01
        json.dumps(result.to_dict(), allow_nan=False)

    def test_far_regions_are_measured_as_one_in_bounded_memory(self):
        mask = np.zeros((2000, 2000), bool)
        mask[3:6, 3:6] = mask[-6:-3, -6:-3] = True
        result = measured(mask)
        assert result.diameter_pixels == pytest.approx(1994 * np.sqrt(2), abs=4)
        assert result.axis_ratio < 0.01


class TestInvariance:
    @settings(max_examples=15)
    @given(harmonics, st.integers(0, 3), st.booleans())
    def test_quarter_turns_and_mirroring_change_nothing(self, harmonics, turns, mirror):
        mask = blob(harmonics, scale=40, side=150)
        image = painted(mask)
        image[mask, 0] = np.arange(np.count_nonzero(mask)) % 256
        before = measure(image, mask)
        if mirror:
            image, mask = image[:, ::-1], mask[:, ::-1]
        after = measure(np.rot90(image, turns), np.rot90(mask, turns))
        for name in SHAPE:
            assert getattr(after, name) == pytest.approx(getattr(before, name), abs=1e-6), name
        assert after.diameter_pixels == pytest.approx(before.diameter_pixels)
        assert after.color_shares == before.color_shares

    @settings(max_examples=15)
    @given(harmonics, st.floats(0, 2 * np.pi), st.floats(0.5, 1.5))
    def test_shape_does_not_depend_on_angle_and_size(self, harmonics, angle, scale):
        """Within what redrawing on pixels does to an outline of 40 pixels' radius."""
        before = measured(blob(harmonics))
        after = measured(blob(harmonics, 80 * scale, angle, 450))
        for name in SHAPE:
            assert getattr(after, name) == pytest.approx(getattr(before, name), abs=0.03), name
        assert after.diameter_pixels == pytest.approx(before.diameter_pixels * scale, abs=3)

    @settings(max_examples=10)
    @given(harmonics, st.integers(2, 9))
    def test_repeated_pixels_change_no_share(self, harmonics, factor):
        mask = blob(harmonics, scale=30, side=110)
        image = painted(mask, REFERENCE_COLORS["red"])
        large = [np.repeat(np.repeat(array, factor, 0), factor, 1) for array in (image, mask)]
        before, after = measure(image, mask), measure(*large)
        assert after.color_shares == before.color_shares
        assert after.area_share == before.area_share
        assert after.asymmetry_major_axis == pytest.approx(before.asymmetry_major_axis, abs=0.03)

    @settings(max_examples=15)
    @given(harmonics)
    def test_values_stay_in_their_ranges(self, harmonics):
        result = measured(blob(harmonics))
        for name in SHAPE[:3]:
            assert 0 <= getattr(result, name) <= 1
        assert result.compactness >= 1
        assert result.diameter_pixels >= result.equivalent_diameter_pixels


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_diameter_is_the_largest_distance_on_the_outline(seed):
    random = np.random.default_rng(seed)
    mask = random.random((12, 17)) < random.uniform(0.05, 0.9)
    mask[5, 5] = True
    # The outline of `find_contours` runs through the middles between pixels inside and outside.
    rows, columns = np.nonzero(mask)
    middles = [
        (row + dy / 2, column + dx / 2)
        for row, column in zip(rows, columns, strict=True)
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
    ]
    assert measured(mask).diameter_pixels == pytest.approx(pdist(np.array(middles)).max())


class TestColors:
    mask = np.zeros((60, 60), bool)
    mask[10:50, 10:50] = True

    @pytest.mark.parametrize("name", REFERENCE_COLORS)
    def test_each_reference_colour_is_found(self, name):
        result = measure(painted(self.mask, REFERENCE_COLORS[name]), self.mask)
        assert result.colors == (name,)
        assert result.color_shares[name] == 1

    def test_shares_are_of_the_lesion(self):
        image = painted(self.mask, REFERENCE_COLORS["dark_brown"])
        image[10:20, 10:50] = REFERENCE_COLORS["red"]
        image[:10] = REFERENCE_COLORS["blue_grey"]  # beside the lesion
        result = measure(image, self.mask)
        assert result.color_shares["red"] == 0.25
        assert result.color_shares["dark_brown"] == 0.75
        assert result.colors == ("red", "dark_brown")

    def test_specks_do_not_count_as_present(self):
        image = painted(self.mask, REFERENCE_COLORS["red"])
        few = int(MIN_COLOR_SHARE * 1600)
        image[self.mask] = [REFERENCE_COLORS["black"]] * (few - 1) + [REFERENCE_COLORS["red"]] * (
            1600 - few + 1
        )
        result = measure(image, self.mask)
        assert result.color_shares["black"] == (few - 1) / 1600
        assert result.colors == ("red",)

    def test_skin_has_none_of_the_colours(self):
        result = measure(painted(self.mask, SKIN), self.mask)
        assert result.colors == ()
        assert sum(result.color_shares.values()) == 0

    def test_shares_are_those_of_all_pixels_one_by_one(self):
        random = np.random.default_rng(0)
        # Few enough colours that many pixels share one.
        image = random.choice(np.array([20, 70, 110, 180, 240], np.uint8), (60, 60, 3))
        known = rgb2lab(np.array(list(REFERENCE_COLORS.values())) / 255)
        lab = rgb2lab(image / 255)
        known = np.vstack([known, np.median(lab[~self.mask], axis=0)])
        distances = np.linalg.norm(lab[self.mask][:, np.newaxis] - known, axis=2)
        counts = np.bincount(distances.argmin(axis=1), minlength=7)[:6]
        shares = measure(image, self.mask).color_shares
        assert list(shares.values()) == pytest.approx(counts / self.mask.sum(), abs=1e-12)
        assert min(counts) > 0

    def test_lesion_without_skin_beside_it(self):
        image = np.full((20, 20, 3), REFERENCE_COLORS["black"], np.uint8)
        assert measure(image, np.ones((20, 20), bool)).colors == ("black",)

    def test_large_lesion_is_sampled_evenly(self):
        mask = np.ones((700, 900), bool)
        image = np.full((700, 900, 3), REFERENCE_COLORS["black"], np.uint8)
        image[:, 300:] = REFERENCE_COLORS["red"]
        assert measure(image, mask).color_shares["red"] == pytest.approx(2 / 3, abs=0.01)


class TestScaleAndFrame:
    def test_millimetres(self):
        mask = drawn(lambda x, y: x**2 + y**2 < 50**2)
        result = measured(mask, millimetres_per_pixel=0.02)
        assert result.area_mm2 == pytest.approx(np.pi, rel=0.01)
        assert result.diameter_mm == pytest.approx(2, rel=0.02)
        assert result.equivalent_diameter_mm == pytest.approx(2, rel=0.01)
        assert result.millimetres_per_pixel == 0.02

    @pytest.mark.parametrize("scale", [np.float32(0.5), np.int64(2), 2])
    def test_scale_of_another_type(self, scale):
        result = measured(np.eye(9, dtype=bool), millimetres_per_pixel=scale)
        assert json.loads(json.dumps(result.to_dict()))["millimetres_per_pixel"] == float(scale)

    def test_no_millimetres_without_a_scale(self):
        result = measured(drawn(lambda x, y: x**2 + y**2 < 50**2))
        assert result.area_mm2 is result.diameter_mm is result.equivalent_diameter_mm is None

    @pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), "0.02"])
    def test_impossible_scale_is_refused(self, scale):
        with pytest.raises(ValueError, match="`millimetres_per_pixel` must be a number above 0"):
            measured(np.ones((5, 5), bool), millimetres_per_pixel=scale)

    @pytest.mark.parametrize("side", [np.s_[0, 5], np.s_[-1, 5], np.s_[5, 0], np.s_[5, -1]])
    def test_lesion_at_the_frame_is_marked(self, side):
        mask = np.zeros((20, 20), bool)
        mask[5:15, 5:15] = True
        assert not measured(mask).touches_frame
        mask[side] = True
        assert measured(mask).touches_frame

    def test_no_lesion_has_no_measurements(self):
        result = measured(np.zeros((20, 30), bool), millimetres_per_pixel=0.1).to_dict()
        known = {"area_pixels": 0, "area_share": 0, "touches_frame": False}
        known["millimetres_per_pixel"] = 0.1
        assert {name: value for name, value in result.items() if value is not None} == known

    def test_dictionary_is_plain(self):
        mask = drawn(lambda x, y: x**2 + y**2 < 50**2)
        red = painted(mask, REFERENCE_COLORS["red"])
        values = measure(red, mask, millimetres_per_pixel=0.5).to_dict()
        assert json.loads(json.dumps(values, allow_nan=False)) == values
        assert values["colors"] == ["red"]

    def test_mask_that_pillow_made(self):
        """Its true is stored as 255."""
        mask = np.zeros((40, 40), np.uint8)
        mask[10:30, 5:30] = 255
        assert measured(mask.view(bool)) == measured(mask > 0)

    @pytest.mark.parametrize(
        ("image", "mask", "message"),
        [
            (np.zeros((5, 5), np.uint8), np.zeros((5, 5), bool), "`image` must be uint8"),
            (np.zeros((5, 5, 3)), np.zeros((5, 5), bool), "`image` must be uint8"),
            (np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5), np.uint8), "`mask` must be bool"),
            (np.zeros((5, 5, 3), np.uint8), np.zeros((5, 6), bool), "`mask` must be bool"),
        ],
    )
    def test_other_arrays_are_refused(self, image, mask, message):
        with pytest.raises(ValueError, match=message):
            measure(image, mask)
