"""Outlines of attributes: their colours, what they leave alone, and the legend."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import deltaE_ciede2000

from lesion.attribute_overlay import ATTRIBUTE_COLORS, ATTRIBUTE_LABELS, attribute_overlay
from lesion.overlay import PREDICTION_COLOR, TRUTH_COLOR, boundary_overlay
from lesion.phantom_layers import MELANIN, SKIN_TONES
from lesion.samples import ATTRIBUTES

GREY = np.full((60, 90, 3), 128, np.uint8)


def rectangle(top, left, bottom, right, shape=(60, 90)):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize("vision", ["normal", "protanopia", "deuteranopia", "tritanopia"])
def test_colors_are_told_apart_whatever_the_vision(vision, as_seen):
    colors = [*ATTRIBUTE_COLORS.values(), PREDICTION_COLOR, TRUTH_COLOR]
    lines = as_seen(np.array(colors) / 255, vision)
    pairs = list(itertools.combinations(lines, 2))[:-1]  # the last one is not of attributes
    assert min(deltaE_ciede2000(one, other) for one, other in pairs) > 16
    depths = np.array([0.0, 0.3, 0.6, 1.0, 1.5])[:, None, None]
    skin = (SKIN_TONES * np.exp(-depths * MELANIN)).reshape(-1, 3)
    background = as_seen(skin / 255, vision)
    distances = deltaE_ciede2000(lines[:5, None], background[None])
    assert np.median(distances, axis=1).min() > 16
    assert distances.min() > 7


def test_every_attribute_has_a_color_and_a_label():
    assert tuple(ATTRIBUTE_COLORS) == tuple(ATTRIBUTE_LABELS) == ATTRIBUTES


def test_each_outline_has_its_color_and_the_rest_stays():
    for name in ATTRIBUTES:
        drawn = attribute_overlay(GREY, {name: rectangle(20, 30, 40, 60)}, legend=False)
        assert drawn.shape == GREY.shape
        changed = np.any(drawn != GREY, axis=2)
        assert not changed[:16].any()
        assert not changed[25:35, 35:55].any()
        assert np.any(np.all(drawn == ATTRIBUTE_COLORS[name], axis=2)), name


@settings(max_examples=20)
@given(
    st.integers(8, 120),
    st.integers(8, 120),
    st.sets(st.sampled_from(ATTRIBUTES)),
    st.booleans(),
)
def test_the_input_stays_and_the_size_is_kept_above_the_legend(height, width, names, bounded):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    masks = {name: rectangle(2, 2, 6, 7, (height, width)) for name in names}
    boundary = rectangle(1, 1, 7, 8, (height, width)) if bounded else None
    before = image.copy()
    bare = attribute_overlay(image, masks, boundary, legend=False)
    full = attribute_overlay(image, masks, boundary)
    bare_again = attribute_overlay(image, masks, boundary, legend=False)
    np.testing.assert_array_equal(image, before)
    assert (bare.shape, bare.dtype, full.dtype) == (image.shape, np.uint8, np.uint8)
    assert full.shape[0] > height
    assert full.shape[1:] == image.shape[1:]
    np.testing.assert_array_equal(full[:height], bare)
    np.testing.assert_array_equal(bare, bare_again)
    assert not np.shares_memory(bare, image)


def test_the_legend_shows_the_colors_of_what_is_present_only():
    masks = {
        "streaks": rectangle(20, 30, 40, 60),
        "globules": rectangle(5, 5, 15, 15),
        "milia_like_cyst": np.zeros((60, 90), bool),
    }
    strip = attribute_overlay(GREY, masks, rectangle(2, 2, 50, 80))[60:]
    colors = {tuple(color) for color in strip.reshape(-1, 3).tolist()}
    assert {ATTRIBUTE_COLORS["streaks"], ATTRIBUTE_COLORS["globules"], PREDICTION_COLOR} <= colors
    assert ATTRIBUTE_COLORS["milia_like_cyst"] not in colors
    assert ATTRIBUTE_COLORS["negative_network"] not in colors


def test_where_nothing_is_present_the_legend_says_so():
    blank = attribute_overlay(GREY, {"streaks": np.zeros((60, 90), bool)})
    np.testing.assert_array_equal(blank[:60], GREY)
    assert blank[60:].max() > 200  # letters
    np.testing.assert_array_equal(blank, attribute_overlay(GREY, {}))


def test_letters_grow_with_the_image():
    def strip(size):
        masks = {"streaks": rectangle(2, 2, size // 2, size // 2, (size, size))}
        image = np.full((size, size, 3), 128, np.uint8)
        return attribute_overlay(image, masks).shape[0] - size

    assert strip(256) == strip(320)
    assert strip(1600) > 2 * strip(256)


def test_the_boundary_lies_below():
    mask = rectangle(20, 30, 40, 60)
    both = attribute_overlay(GREY, {"streaks": mask}, mask, legend=False)
    alone = attribute_overlay(GREY, {"streaks": mask}, legend=False)
    boundary = boundary_overlay(GREY, mask)
    assert np.any(both != alone)
    assert np.any(both != boundary)
    line, covered = (
        np.all(drawn == ATTRIBUTE_COLORS["streaks"], axis=2) for drawn in (alone, both)
    )
    np.testing.assert_array_equal(line, covered)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"veil": np.zeros((60, 90), bool)}, "received veil"),
        ({"streaks": np.zeros((60, 90), np.uint8)}, "streaks.*must be bool"),
        ({"streaks": np.zeros((9, 9), bool)}, "streaks.*as large as the image"),
    ],
)
def test_unusable_masks_are_refused(masks, message):
    with pytest.raises(ValueError, match=message):
        attribute_overlay(GREY, masks)
