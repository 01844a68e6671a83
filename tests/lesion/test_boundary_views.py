import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion import boundary_views, diagnosis
from lesion.boundary_views import (
    MAX_SIDE,
    MIN_SHARE,
    Look,
    close_up,
    enlarged,
    look_twice,
    mirrored,
    reduced,
)


def test_one_option_is_of_boundary_and_diagnosis():
    assert boundary_views.VIEWS == diagnosis.VIEWS


def rectangle(shape, top, left, height, width):
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


class Brightness:
    """Takes what is bright for the lesion; remembers the shapes of what it was shown."""

    def __init__(self, bias=0.0):
        self.bias = bias
        self.shapes = []

    def __call__(self, images):
        self.shapes += [image.shape for image in images]
        return [Look(self._map(image), float(image.max()) / 255) for image in images]

    def _map(self, image):
        slope = self.bias * np.linspace(-1, 1, image.shape[1], dtype=np.float32)
        return image[:, :, 0].astype(np.float32) / 255 * 0.8 + slope


def painted(mask):
    return np.repeat(np.where(mask, 255, 0).astype(np.uint8)[:, :, np.newaxis], 3, axis=2)


@pytest.mark.parametrize("number", range(4))
def test_mirroring_twice_changes_nothing(number):
    array = np.arange(24).reshape(4, 3, 2)
    assert (mirrored(mirrored(array, number), number) == array).all()
    assert number == 0 or (mirrored(array, number) != array).any()


def test_mirror_images_all_differ():
    array = np.arange(12).reshape(4, 3)
    assert len({mirrored(array, number).tobytes() for number in range(4)}) == 4


class TestCloseUp:
    @given(st.data())
    def test_holds_the_lesion_in_the_image_s_proportions(self, data):
        height, width = (data.draw(st.integers(40, 200)) for _ in range(2))
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        mask = rectangle(
            (height, width),
            top,
            left,
            data.draw(st.integers(1, height - top)),
            data.draw(st.integers(1, width - left)),
        )
        rows, columns = close_up(mask)
        assert mask[rows, columns].sum() == mask.sum()
        assert 0 <= rows.start < rows.stop <= height and 0 <= columns.start < columns.stop <= width
        share = (rows.stop - rows.start) / height
        assert share >= MIN_SHARE - 1 / height
        assert share == pytest.approx((columns.stop - columns.start) / width, abs=0.03)

    def test_by_hand(self):
        # 30 of 100 rows and 40 of 200 columns: the rows fill more, and 1.6 x 0.3 is 0.48.
        assert close_up(rectangle((100, 200), 35, 80, 30, 40)) == (slice(26, 74), slice(52, 148))

    def test_is_moved_into_the_image(self):
        assert close_up(rectangle((100, 100), 90, 0, 10, 50)) == (slice(20, 100), slice(0, 80))

    def test_without_a_lesion_the_whole_image(self):
        assert close_up(np.zeros((30, 40), bool)) == (slice(0, 30), slice(0, 40))


class TestLookTwice:
    def test_eight_views(self):
        look = Brightness()
        look_twice(look, painted(rectangle((60, 80), 20, 30, 12, 16)))
        # 1.6 x 0.2 of each side is the close-up's.
        assert look.shapes == [(60, 80, 3)] * 4 + [(19, 26, 3)] * 4

    def test_the_close_up_is_of_what_is_at_least_as_likely_as_not(self):
        shapes = []

        def look(images):
            shapes.append(images[0].shape)
            return [Look(np.float32(np.where(i[:, :, 0], 0.5, 0.49)), 1.0) for i in images]

        look_twice(look, painted(rectangle((60, 80), 20, 30, 12, 16)))
        assert shapes == [(60, 80, 3), (19, 26, 3)]

    @pytest.mark.parametrize("mask", [rectangle((60, 80), 5, 9, 40, 52), np.zeros((60, 80), bool)])
    def test_a_lesion_that_fills_the_image_is_not_looked_at_again(self, mask):
        look = Brightness()
        found = look_twice(look, painted(mask))
        assert look.shapes == [(60, 80, 3)] * 4
        np.testing.assert_allclose(found.probability, 0.8 * mask, atol=1e-6)

    def test_what_is_seen_comes_back_to_its_place(self):
        mask = rectangle((60, 80), 5, 50, 20, 25)
        found = look_twice(Brightness(), painted(mask))
        np.testing.assert_allclose(found.probability, 0.8 * mask, atol=1e-6)
        assert found.score == 1.0

    def test_a_bias_to_one_side_cancels_out(self):
        mask = rectangle((60, 80), 5, 50, 20, 25)
        found = look_twice(Brightness(bias=0.2), painted(mask))
        np.testing.assert_allclose(found.probability, 0.8 * mask, atol=1e-6)

    def test_the_close_up_counts_half_and_only_where_it_lies(self):
        mask = rectangle((100, 100), 40, 40, 20, 20)

        def look(images):
            near = images[0].shape != (100, 100, 3)
            return [Look(np.full(i.shape[:2], 0.5 + 0.5 * near, np.float32), 0.4) for i in images]

        def first_finds(images):
            found = Brightness()(images) if images[0].shape == (100, 100, 3) else look(images)
            return [Look(one.probability, 0.4) for one in found]

        found = look_twice(first_finds, painted(mask))
        expected = 0.8 * mask
        expected[34:66, 34:66] = (expected[34:66, 34:66] + 1) / 2
        np.testing.assert_allclose(found.probability, expected, atol=1e-6)
        assert found.score == pytest.approx(0.4)

    def test_large_images_are_reduced_and_their_maps_are_not(self):
        look = Brightness()
        mask = rectangle((1500, 2000), 500, 600, 500, 800)
        found = look_twice(look, painted(mask))
        assert look.shapes[0] == (768, MAX_SIDE, 3)
        assert found.probability.shape == mask.shape
        inside = found.probability >= 0.4
        assert (inside & mask).sum() / (inside | mask).sum() > 0.99

    def test_nothing_to_see(self):
        found = look_twice(Brightness(), np.zeros((30, 40, 3), np.uint8))
        assert found.score == 0 and not found.probability.any()


def test_reduced_and_enlarged_sizes():
    small = np.zeros((30, MAX_SIDE, 3), np.uint8)
    assert reduced(small) is small
    assert reduced(np.zeros((3, 2 * MAX_SIDE, 3), np.uint8)).shape == (2, MAX_SIDE, 3)
    assert enlarged(np.ones((2, 4), np.float32), (5, 8)).shape == (5, 8)
