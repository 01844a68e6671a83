from types import SimpleNamespace

import numpy as np
import pytest

from mrcnn.anchors import (
    anchors_of,
    compute_backbone_shapes,
    generate_anchors,
    generate_pyramid_anchors,
    suggest_anchors,
)
from mrcnn.boxes import compute_overlaps
from mrcnn.config import Config

STRIDES = [4, 8, 16, 32, 64]


def settings(**settings):
    return SimpleNamespace(
        **{"BACKBONE": "resnet50", "COMPUTE_BACKBONE_SHAPE": None, "BACKBONE_STRIDES": STRIDES}
        | settings
    )


def test_parity_with_matterport(parity_units):
    shapes = compute_backbone_shapes(settings(), parity_units["anchors/shape_hw"])
    anchors = generate_pyramid_anchors(
        parity_units["anchors/scales"], [0.5, 1, 2], shapes, STRIDES, 1
    )
    expected = parity_units["anchors/boxes_pixels"]
    assert anchors.dtype == expected.dtype
    np.testing.assert_allclose(anchors, expected, rtol=0, atol=1e-5)


class TestOneLevel:
    def test_by_hand(self):
        # Ratio is width / height: at scale 8, ratio 4 is 4 high and 16 wide.
        anchors = generate_anchors(8, [1, 4], (1, 2), 10, 1)
        expected = [[-4, -4, 4, 4], [-2, -8, 2, 8], [-4, 6, 4, 14], [-2, 2, 2, 18]]
        np.testing.assert_allclose(anchors, expected)

    def test_positions_go_row_by_row(self):
        anchors = generate_anchors(2, [1], (2, 3), 5, 1)
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        np.testing.assert_array_equal(centres, [[0, 0], [0, 5], [0, 10], [5, 0], [5, 5], [5, 10]])

    def test_scale_changes_faster_than_ratio(self):
        anchors = generate_anchors([2, 4], [1, 4], (1, 1), 1, 1)
        heights = anchors[:, 2] - anchors[:, 0]
        widths = anchors[:, 3] - anchors[:, 1]
        np.testing.assert_allclose(heights, [2, 4, 1, 2])
        np.testing.assert_allclose(widths, [2, 4, 4, 8])

    def test_area_does_not_depend_on_the_ratio(self):
        anchors = generate_anchors(32, [0.25, 0.5, 1, 2, 3], (1, 1), 1, 1)
        areas = (anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1])
        np.testing.assert_allclose(areas, 32**2)

    @pytest.mark.parametrize("stride, rows, columns", [(1, 5, 4), (2, 3, 2), (3, 2, 2), (9, 1, 1)])
    def test_anchor_stride_leaves_out_positions(self, stride, rows, columns):
        anchors = generate_anchors(2, [1], (5, 4), 8, stride)
        assert len(anchors) == rows * columns
        np.testing.assert_array_equal(
            anchors[-1, :2] + 1, [(rows - 1) * stride * 8] + [(columns - 1) * stride * 8]
        )


class TestPyramid:
    def test_count_at_1024(self):
        shapes = compute_backbone_shapes(settings(), (1024, 1024, 3))
        anchors = generate_pyramid_anchors((32, 64, 128, 256, 512), [0.5, 1, 2], shapes, STRIDES, 1)
        assert anchors.shape == (261_888, 4)

    def test_levels_follow_one_another(self):
        anchors = generate_pyramid_anchors([8, 16], [1], [(2, 2), (1, 1)], [4, 8], 1)
        np.testing.assert_array_equal(anchors[:4], generate_anchors(8, [1], (2, 2), 4, 1))
        np.testing.assert_array_equal(anchors[4:], generate_anchors(16, [1], (1, 1), 8, 1))

    def test_lengths_that_differ_are_an_error(self):
        with pytest.raises(ValueError, match="3 scales, 2 feature shapes and 2 strides"):
            generate_pyramid_anchors([1, 2, 3], [1], [(1, 1), (1, 1)], [4, 8], 1)


class TestBackboneShapes:
    @pytest.mark.parametrize(
        "shape, expected",
        [
            ((256, 128, 3), [[64, 32], [32, 16], [16, 8], [8, 4], [4, 2]]),
            ((100, 65), [[25, 17], [13, 9], [7, 5], [4, 3], [2, 2]]),
        ],
    )
    def test_sizes_are_rounded_up(self, shape, expected):
        np.testing.assert_array_equal(compute_backbone_shapes(settings(), shape), expected)

    def test_callable_backbone_may_say_its_own(self):
        config = settings(
            BACKBONE=lambda *arguments: None, COMPUTE_BACKBONE_SHAPE=lambda shape: [shape[:2]] * 5
        )
        np.testing.assert_array_equal(compute_backbone_shapes(config, (7, 9, 3)), [[7, 9]] * 5)

    def test_callable_backbone_that_says_none_goes_by_strides(self):
        config = settings(BACKBONE=lambda *arguments: None)
        assert compute_backbone_shapes(config, (64, 64, 3)).tolist()[-1] == [1, 1]


class TestSuggestion:
    @pytest.fixture
    def config(self, tiny_config):
        """Two levels, and images of 64 x 64 as they are unless something else is asked for."""

        def make(**settings):
            return tiny_config(**{"RPN_ANCHOR_RATIOS": [1.0]} | settings)

        return make

    def test_by_hand(self, config, rectangles):
        images = [[(1, (y, y, y + side, y + side))] for side in (8, 32) for y in (0, 10, 20)]
        suggestion = suggest_anchors(rectangles(images, size=(64, 64)), config())
        assert suggestion.settings == {"RPN_ANCHOR_SCALES": (8, 32), "RPN_ANCHOR_RATIOS": [1.0]}
        assert suggestion.boxes == 6

    def test_ratios_are_width_to_height(self, config, rectangles):
        images = [[(1, (0, 0, 10, 40))], [(1, (0, 0, 40, 10))]]
        suggestion = suggest_anchors(
            rectangles(images, size=(64, 64)), config(RPN_ANCHOR_RATIOS=[1, 2])
        )
        assert suggestion.settings["RPN_ANCHOR_RATIOS"] == [0.25, 4.0]
        assert suggestion.settings["RPN_ANCHOR_SCALES"] == (20, 20)

    @pytest.mark.parametrize(
        "settings, side",
        [
            ({}, 16),
            ({"IMAGE_RESIZE_MODE": "none"}, 12),
            ({"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 64}, 24),
            # 64/32 in height times 96/48 in width
            ({"IMAGE_RESIZE_MODE": "stretch", "IMAGE_MAX_DIM": 96}, 24),
            # twice as large, of which the crop to 64 x 64 cannot miss a part
            ({"IMAGE_RESIZE_MODE": "crop"}, 24),
        ],
        ids=["square", "none", "pad64", "stretch", "crop"],
    )
    def test_boxes_are_resized_as_in_training(self, config, rectangles, settings, side):
        dataset = rectangles([[(1, (10, 17, 22, 29))]], size=(32, 48))
        suggestion = suggest_anchors(dataset, config(**settings))
        assert suggestion.settings["RPN_ANCHOR_SCALES"] == (side, side)

    def test_crops_are_the_same_every_time(self, config, rectangles):
        images = [[(1, (y, 4 * y, y + 14, 4 * y + 30))] for y in range(8)]
        dataset = rectangles(images, size=(32, 80))
        first, second = (
            suggest_anchors(dataset, config(IMAGE_RESIZE_MODE="crop")) for _ in range(2)
        )
        assert first == second

    def test_recall_is_that_of_all_anchors(self, config, rectangles):
        rng = np.random.default_rng(0)
        corners = np.sort(rng.integers(64, size=(60, 2, 2)), axis=1)
        boxes = np.concatenate([corners[:, 0], corners[:, 1] + 1], axis=1)
        dataset = rectangles([[(1, tuple(box))] for box in boxes.tolist()], size=(64, 64))
        given = config(RPN_ANCHOR_RATIOS=[0.5, 1, 2])
        suggestion = suggest_anchors(dataset, given)
        for settings, recall in (
            ({}, suggestion.recall_before),
            (suggestion.settings, suggestion.recall_after),
        ):
            anchors = anchors_of(config(**{"RPN_ANCHOR_RATIOS": [0.5, 1, 2]} | settings), (64, 64))
            best = compute_overlaps(anchors, boxes).max(axis=0)
            assert recall == {0.5: (best >= 0.5).mean(), 0.7: (best >= 0.7).mean()}

    def test_it_helps(self, rectangles):
        rng = np.random.default_rng(1)
        images = []
        for _ in range(40):
            y, x = rng.integers(0, 60, size=2).tolist()
            height, width = rng.integers(45, 60).item(), rng.integers(8, 12).item()
            images.append([(1, (y, x, y + height, x + width))])
        config = Config(IMAGE_MIN_DIM=128, IMAGE_MAX_DIM=128)
        suggestion = suggest_anchors(rectangles(images, size=(128, 128)), config)
        assert suggestion.recall_before[0.5] < 0.1
        assert suggestion.recall_after[0.5] > 0.9

    def test_crowds_and_empty_images_do_not_count(self, config, rectangles):
        dataset = rectangles([[(-1, (0, 0, 60, 60)), (1, (0, 0, 16, 16))], []], size=(64, 64))
        suggestion = suggest_anchors(dataset, config())
        assert suggestion.boxes == 1
        assert suggestion.settings["RPN_ANCHOR_SCALES"] == (16, 16)

    def test_limit_takes_every_nth(self, config, rectangles):
        dataset = rectangles([[(1, (0, 0, 9, 9))]] * 7, size=(64, 64))
        asked = []
        load_mask = dataset.load_mask
        dataset.load_mask = lambda image_id: asked.append(image_id) or load_mask(image_id)
        assert suggest_anchors(dataset, config(), limit=3).boxes == 3
        assert asked == [0, 3, 6]

    def test_no_image_is_loaded(self, config, rectangles):
        dataset = rectangles()
        dataset.load_image = None
        suggest_anchors(dataset, config())

    def test_nothing_to_fit(self, config, rectangles):
        with pytest.raises(ValueError, match="2 images looked at show no instance"):
            suggest_anchors(rectangles([[], []]), config())
