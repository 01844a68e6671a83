"""Outlines: where they are drawn, and what they leave alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lesion import overlay as overlay_module
from lesion.overlay import PREDICTION_COLOR, TRUTH_COLOR, boundary_overlay, outline

GREY = np.full((40, 60, 3), 128, np.uint8)


def rectangle(top, left, bottom, right, shape=(40, 60)):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def luminance(color):
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    values = np.asarray(color) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_line_lies_on_both_sides_of_the_boundary():
    drawn = outline(GREY, rectangle(10, 20, 30, 40), (255, 0, 0), width=2)
    # Across the left side: dark edge, one pixel of line outside, one inside, dark edge.
    assert drawn[20, 19].tolist() == drawn[20, 20].tolist() == [255, 0, 0]
    assert drawn[20, 18].max() < 100
    assert drawn[20, 21].max() < 100
    assert drawn[20, 16].tolist() == drawn[20, 23].tolist() == [128, 128, 128]


def test_skin_inside_and_outside_stays_as_it_was():
    mask = rectangle(10, 20, 30, 40)
    drawn = outline(GREY, mask, (255, 0, 0), width=2)
    # One of the two is 0 at each pixel.
    distance = ndimage.distance_transform_edt(mask) + ndimage.distance_transform_edt(~mask)
    assert (drawn[distance > 4] == 128).all()


def test_image_is_not_changed():
    image = GREY.copy()
    outline(image, rectangle(10, 20, 30, 40), (255, 0, 0), width=3)
    assert (image == GREY).all()


def test_line_runs_along_the_frame():
    drawn = outline(GREY, np.ones((40, 60), bool), (255, 0, 0), width=2)
    for corner in ((0, 0), (0, 59), (39, 0), (39, 59), (0, 30)):
        assert drawn[corner].tolist() == [255, 0, 0]
    assert drawn[20, 30].tolist() == [128, 128, 128]


def test_empty_mask_draws_nothing():
    assert (boundary_overlay(GREY, np.zeros((40, 60), bool)) == GREY).all()


@given(arrays(bool, (7, 9)), st.floats(1, 4))
def test_pixels_beside_the_boundary_have_its_color(mask, width):
    drawn = outline(np.zeros((7, 9, 3), np.uint8), mask, (255, 255, 255), width)
    inner = mask & ~ndimage.binary_erosion(mask)
    # The middle of such a pixel is half a pixel from the line's middle.
    expected = 255 * min(width / 2, 1)
    assert (drawn[inner] >= round(expected) - 1).all()


def test_a_dashed_line_is_the_same_line_with_gaps():
    mask = rectangle(5, 10, 35, 50)
    full = outline(GREY, mask, (255, 0, 0), width=2)
    dashed = outline(GREY, mask, (255, 0, 0), width=2, dashed=True)
    red, kept = ((drawn == (255, 0, 0)).all(axis=2) for drawn in (full, dashed))
    assert not np.any(kept & ~red)
    assert 0.5 < kept.sum() / red.sum() < 0.8  # a dash is 7 of 12 pixels, and its ends are round
    bare = (dashed == GREY).all(axis=2) & red
    assert ndimage.label(kept)[1] >= 10
    assert ndimage.label(bare)[1] >= 10


@given(arrays(bool, (7, 9)), st.floats(1, 4))
def test_dashes_of_any_mask_lie_on_its_line(mask, width):
    black = np.zeros((7, 9, 3), np.uint8)
    full = outline(black, mask, (255, 255, 255), width)
    dashed = outline(black, mask, (255, 255, 255), width, dashed=True)
    assert np.all(dashed <= full)
    assert dashed.any() == full.any()


@pytest.mark.parametrize(
    ("mask", "width", "message"),
    [
        (np.zeros((40, 60), np.uint8), 2, "must be bool"),
        (np.zeros((40, 61), bool), 2, "as large as the image"),
        (np.zeros((40, 60), bool), 0, "at least 1 pixel, received 0"),
    ],
)
def test_unusable_arguments_are_refused(mask, width, message):
    with pytest.raises(ValueError, match=message):
        outline(GREY, mask, (255, 0, 0), width)


def test_overlay_is_uint8_of_the_images_size():
    drawn = boundary_overlay(GREY, rectangle(10, 20, 30, 40), rectangle(12, 22, 32, 42))
    assert (drawn.shape, drawn.dtype) == (GREY.shape, np.uint8)


def test_truth_shows_where_it_agrees_with_the_prediction():
    mask = rectangle(10, 20, 30, 40)
    drawn = boundary_overlay(GREY, mask, mask)
    assert (drawn == PREDICTION_COLOR).all(axis=2).any()
    # Yellow seen past the prediction's dark edge: red and green well above blue.
    yellow = drawn.astype(int)
    assert ((yellow[:, :, 0] > yellow[:, :, 2] + 60) & (yellow[:, :, 0] > 120)).any()


def test_lines_grow_with_the_image():
    def drawn_columns(size):
        mask = rectangle(size // 4, size // 4, size // 2, size // 2, (size, size))
        image = np.full((size, size, 3), 128, np.uint8)
        row = boundary_overlay(image, mask)[size // 3]
        return int((row == PREDICTION_COLOR).all(axis=1).sum())

    assert drawn_columns(100) == 4
    assert drawn_columns(800) == 8


def test_colors_differ_in_grey_too():
    light, dark = sorted((luminance(TRUTH_COLOR), luminance(PREDICTION_COLOR)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 1.5


@settings(max_examples=50)
@given(arrays(bool, (7, 9)).filter(np.any), st.floats(0.5, 6))
def test_distance_is_that_to_the_nearest_side_between_inside_and_outside(mask, reach):
    window, distance = overlay_module._distance_to_boundary(mask, reach)
    outside = ~np.pad(mask, 1)
    middles = [
        (y + dy / 2, x + dx / 2)
        for y, x in np.argwhere(mask)
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
        if outside[1 + y + dy, 1 + x + dx]
    ]
    pixels = np.moveaxis(np.mgrid[:7, :9], 0, -1)[window]
    expected = np.linalg.norm(pixels[:, :, np.newaxis] - middles, axis=-1).min(axis=-1)
    near = expected <= reach
    np.testing.assert_allclose(distance[near], expected[near], rtol=1e-6)
    assert (distance[~near] > reach).all()


def test_a_long_line_in_a_large_image_lies_where_a_short_one_does():
    rows, columns = np.mgrid[:900, :1200]
    mask = np.hypot(rows - 450, columns - 600) + 60 * np.sin(rows / 9) * np.sin(columns / 7) < 330
    _, exact = overlay_module._distance_to_boundary(mask, 12.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlay_module, "_MANY", 0)
        _, quick = overlay_module._distance_to_boundary(mask, 12.0)
    near = exact <= 12
    assert np.abs(quick - exact)[near].max() < 0.75
    assert (quick[~near] > 11).all()
