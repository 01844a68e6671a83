"""Squares that cover long images, and their maps put together."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from lesion import serving
from lesion.squares import LONGEST, NEARLY_SQUARE, joined, squares

sides = st.integers(1, 90)


def boxes(shape):
    return [
        (rows.start, columns.start, rows.stop, columns.stop) for rows, columns in squares(shape)
    ]


class TestSquares:
    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            ((450, 600, 3), [(0, 0, 450, 450), (0, 150, 450, 600)]),
            ((600, 450), [(0, 0, 450, 450), (150, 0, 600, 450)]),
            ((100, 210), [(0, 0, 100, 100), (0, 55, 100, 155), (0, 110, 100, 210)]),
            ((100, 110), [(0, 0, 100, 110)]),
            ((7, 7), [(0, 0, 7, 7)]),
            ((1, 1024), [(0, 0, 1, 1024)]),
            ((401, 100), [(0, 0, 401, 100)]),
        ],
    )
    def test_examples(self, shape, expected):
        assert boxes(shape) == expected

    @given(sides, sides)
    def test_cover_the_image_and_are_squares_of_its_shorter_side(self, height, width):
        side, longer = sorted((height, width))
        covered, parts = np.zeros((height, width), bool), squares((height, width))
        for part in parts:
            covered[part] = True
            if len(parts) > 1:
                assert covered[part].shape == (side, side)
        assert covered.all()
        long = NEARLY_SQUARE * side < longer <= LONGEST * side
        assert len(parts) == (np.ceil(longer / side) if long else 1)

    @given(st.lists(st.tuples(sides, sides), min_size=1, max_size=4))
    def test_same_in_a_graph(self, sizes):
        owners, parts = serving.squares(tf.constant(sizes))
        for place, size in enumerate(sizes):
            found = parts.numpy()[owners.numpy() == place]
            found[:, 2:] += found[:, :2]
            assert [tuple(box) for box in found.tolist()] == boxes(size)


class TestJoined:
    @given(sides, sides)
    def test_gives_back_what_was_cut(self, height, width):
        image = np.random.default_rng(height).random((height, width, 2), np.float32)
        parts = squares(image.shape)
        back = joined(parts, [image[part] for part in parts], image.shape)
        np.testing.assert_allclose(back, image, rtol=1e-6)

    def test_weighs_by_the_distance_from_the_ends_where_squares_overlap(self):
        parts = squares((4, 6))
        maps = [np.full((4, 4), value, np.float32) for value in (0.0, 1.0)]
        # Columns 2 and 3 are 1.5 and 0.5 from the first one's end, 0.5 and 1.5 from the second's.
        expected = np.array([[0, 0, 0.25, 0.75, 1, 1]] * 4)
        np.testing.assert_allclose(joined(parts, maps, (4, 6)), expected)
        turned = joined(squares((6, 4)), maps, (6, 4))
        np.testing.assert_allclose(turned, expected.T)
