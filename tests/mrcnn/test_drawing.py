"""Colours, tinted pixels, and boxes and regions on images."""

import itertools

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import rgb_to_hsv, to_rgb
from matplotlib.patches import Polygon, Rectangle
from skimage.color import deltaE_ciede2000

from mrcnn import drawing
from mrcnn.drawing import (
    apply_mask,
    as_picture,
    draw_box,
    draw_boxes,
    draw_rois,
    random_colors,
)
from mrcnn.images import ImageError

IMAGE = np.full((30, 40, 3), 100, np.uint8)
BOXES = np.array([[0, 0, 10, 8], [12, 15, 20, 35]])
NAMES = ["BG", "red", "green"]


@pytest.fixture(autouse=True)
def no_figure_stays():
    yield
    plt.close("all")


def of_type(axes, kind):
    return [patch for patch in axes.patches if isinstance(patch, kind)]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def tinted(axes):
    """The pixels of the picture that are not IMAGE's."""
    (picture,) = axes.images
    return (np.asarray(picture.get_array()) != IMAGE).any(axis=-1)


# ---- colours ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 7, 12, 81])
def test_colours_are_evenly_spaced_in_hue(count):
    colors = random_colors(count)
    assert len(colors) == count
    hues = np.sort([rgb_to_hsv(color)[0] for color in colors])
    np.testing.assert_allclose(np.diff(hues), np.full(max(count - 1, 0), 1 / max(count, 1)))


def test_colours_that_follow_each_other_are_far_apart_in_hue():
    for count in range(7, 90):
        hues = np.array([rgb_to_hsv(color)[0] for color in random_colors(count)])
        steps = np.abs(np.diff(hues))
        assert np.minimum(steps, 1 - steps).min() > 0.2, count


def test_colours_are_the_same_in_every_call():
    assert random_colors(9) == random_colors(9)


def test_colours_that_are_not_bright_have_seven_tenths_of_the_value():
    bright, dark = (np.array(random_colors(5, bright)) for bright in (True, False))
    np.testing.assert_allclose(dark, 0.7 * bright)


@pytest.mark.parametrize("vision", ["normal", "protanopia", "deuteranopia"])
@pytest.mark.parametrize("count", range(2, 7))
def test_few_colours_stay_apart_for_the_colour_blind(vision, count, as_seen):
    lab = as_seen(random_colors(count), vision)
    assert min(deltaE_ciede2000(*pair) for pair in itertools.combinations(lab, 2)) > 19


# ---- pixels ----------------------------------------------------------------------------------


def test_apply_mask_blends_in_place():
    image = np.array([[[100, 100, 100], [100, 100, 100]]], np.uint8)
    result = apply_mask(image, np.array([[True, False]]), (1.0, 0.0, 0.25), alpha=0.4)
    assert result is image
    # 0.6 * 100 + 0.4 * 255 * (1, 0, 0.25), fractions cut off
    assert image.tolist() == [[[162, 60, 85], [100, 100, 100]]]


@settings(max_examples=25)
@given(
    image=arrays(np.uint8, (3, 4, 4)),
    mask=arrays(np.uint8, (3, 4), elements=st.sampled_from([0, 1, 255])),
    color=st.tuples(*[st.floats(0, 1)] * 3),
    alpha=st.floats(0, 1),
)
def test_apply_mask_tints_the_colours_of_pixels_equal_to_one(image, mask, color, alpha):
    expected = image.copy()
    for y, x, c in itertools.product(range(3), range(4), range(3)):
        if mask[y, x] == 1:
            expected[y, x, c] = int(float(image[y, x, c]) * (1 - alpha) + alpha * color[c] * 255)
    np.testing.assert_array_equal(apply_mask(image.copy(), mask, color, alpha), expected)


def test_draw_box_draws_lines_two_pixels_wide_from_each_side():
    image = np.zeros((9, 9, 1), int)
    result = draw_box(image, (1, 1, 6, 6), [7])
    assert result is image
    # As in matterport the lines begin at y2 and x2, and their corner stays free.
    assert (image[:, :, 0] // 7).tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 1, 1, 1, 0],
        [0, 1, 1, 1, 1, 1, 1, 1, 0],
        [0, 1, 1, 0, 0, 0, 1, 1, 0],
        [0, 1, 1, 0, 0, 0, 1, 1, 0],
        [0, 1, 1, 0, 0, 0, 1, 1, 0],
        [0, 1, 1, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]


def test_draw_box_leaves_out_what_lies_outside_the_image():
    image = np.zeros((5, 5, 3), np.uint8)
    draw_box(image, (-1, -1, 2, 9), (1, 1, 1))
    # Of the upper and the left line one pixel's width lies inside, of the right one nothing.
    expected = [[1] * 5, [1, 0, 0, 0, 0], [1] * 5, [1] * 5, [0] * 5]
    assert image[:, :, 0].tolist() == expected


# ---- boxes and regions -----------------------------------------------------------------------


def test_visibility_decides_on_style_and_refined_box():
    boxes = np.concatenate([BOXES, [[5, 5, 9, 9]], [[0, 0, 0, 0]]])
    axes = draw_boxes(IMAGE, boxes, boxes + 2, None, list("abcd"), [0, 1, 2, 1])
    drawn = of_type(axes, Rectangle)
    assert [patch.get_linestyle() for patch in drawn] == ["dotted"] * 2 + ["solid"] * 3
    gray = to_rgb("gray")
    assert [to_rgb(patch.get_edgecolor()) == gray for patch in drawn] == [True] + [False] * 4
    # A line joins each refined box to its box; captions stand at the refined one.
    assert [line.get_xdata()[0] for line in axes.lines] == [14.5, 4.5]
    assert [line.get_xdata()[1] for line in axes.lines] == [16.5, 6.5]
    assert texts(axes) == ["a", "b", "c"]
    assert [text.get_position()[1] for text in axes.texts] == [-0.5, 13.5, 6.5]


@pytest.mark.parametrize(
    ("image", "value"),
    [
        (IMAGE - 123.7, 0),  # molded
        (IMAGE.astype(np.float32) * 4, 255),
        (np.full(IMAGE.shape, -1.0), 0),
        (np.full(IMAGE.shape, -3, np.int8), 0),
        (np.full(IMAGE.shape, 300, np.int32), 255),
    ],
)
def test_values_out_of_range_are_cut_with_a_warning(image, value, caplog):
    axes = draw_boxes(image, BOXES)
    assert (np.asarray(axes.images[0].get_array()) == value).all()
    assert "they are drawn cut to 0 to 255" in caplog.text


@pytest.mark.parametrize("image", [np.full(IMAGE.shape, np.nan), IMAGE[0, 0] - 200.0])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ImageError):
        draw_boxes(image, BOXES)


def test_refined_boxes_can_be_drawn_alone_with_masks():
    masks = np.zeros((30, 40, 2), bool)
    masks[2:9, :6, 0] = masks[12:20, 15:35, 1] = True
    axes = draw_boxes(IMAGE, refined_boxes=BOXES, masks=masks)
    assert len(of_type(axes, Rectangle)) == len(of_type(axes, Polygon)) == 2
    assert not axes.lines
    np.testing.assert_array_equal(tinted(axes), masks.any(axis=-1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "received neither"),
        ({"boxes": np.ones((2, 4)), "visibilities": [1, 3]}, "received 3 for box 1"),
        ({"boxes": np.ones((2, 4)), "captions": ["a"]}, "2 boxes but 1 captions"),
        ({"boxes": np.ones((2, 4)), "refined_boxes": np.ones((1, 4))}, "1 refined_boxes"),
        ({"boxes": np.ones((2, 4)), "masks": np.ones((30, 40, 1))}, "2 boxes but 1 masks"),
    ],
)
def test_boxes_that_do_not_fit_are_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        draw_boxes(IMAGE, **settings)


def test_positive_rois_show_refinement_mask_and_class():
    masks, class_ids = np.ones((2, 28, 28)), np.array([0, 2])
    axes = draw_rois(IMAGE, BOXES, BOXES + 1, masks, class_ids, NAMES)
    assert len(of_type(axes, Rectangle)) == 3
    assert texts(axes) == ["green"]
    assert axes.get_title() == "2 of 2 ROIs; 1 are positive (50%), 1 negative"
    expected = np.zeros((30, 40), bool)
    expected[12:20, 15:35] = True
    np.testing.assert_array_equal(tinted(axes), expected)


def test_rois_as_lists():
    masks, class_ids = np.ones((2, 28, 28)), np.array([0, 2])
    arrays = draw_rois(IMAGE, BOXES, BOXES + 1, masks, class_ids, NAMES)
    lists = draw_rois(
        IMAGE, BOXES.tolist(), (BOXES + 1).tolist(), list(masks), class_ids.tolist(), NAMES
    )
    corners = [[patch.get_xy() for patch in of_type(axes, Rectangle)] for axes in (arrays, lists)]
    assert corners[0] == corners[1]
    assert texts(lists) == ["green"]


def test_some_of_many_rois_are_shown_the_same_in_every_call():
    rois = np.tile([5, 5, 20, 20], (50, 1)) + np.arange(50)[:, np.newaxis] % 9
    masks, class_ids = np.zeros((50, 28, 28)), np.zeros(50, int)
    first, second = (
        draw_rois(IMAGE, rois, rois, masks, class_ids, NAMES, limit=7) for _ in range(2)
    )
    corners = [[patch.get_xy() for patch in of_type(axes, Rectangle)] for axes in (first, second)]
    assert len(corners[0]) == 7
    assert corners[0] == corners[1]


def test_no_rois_at_all():
    nothing = np.zeros((0, 4), int), np.zeros((0, 4), int), np.zeros((0, 28, 28)), np.zeros(0, int)
    axes = draw_rois(IMAGE, *nothing, NAMES)
    assert axes.get_title().startswith("0 of 0 ROIs")


def test_rois_of_other_numbers_are_an_error():
    with pytest.raises(ValueError, match="2 rois but 1 mask"):
        draw_rois(IMAGE, BOXES, BOXES, np.ones((1, 28, 28)), np.ones(2, int), NAMES)


@pytest.mark.parametrize("count, shown", [(2, [0, 0, 0]), (5, [0, 1, 2]), (13, [0, 1, 2])])
def test_channels_that_are_no_colours_are_left_out_and_said_once(count, shown, caplog):
    drawing._warn_of_channels.cache_clear()
    image = np.random.default_rng(0).integers(0, 256, (4, 5, count), np.uint8)
    for _ in range(2):
        np.testing.assert_array_equal(as_picture(image), image[:, :, shown])
    assert len(caplog.records) == 1
    assert f"An image of {count} channels is no picture" in caplog.text


def test_boxes_on_an_image_of_seven_channels():
    image = np.repeat(IMAGE[:, :, :1], 7, axis=2)
    assert not tinted(draw_boxes(image, BOXES)).any()
