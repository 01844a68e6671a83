from types import SimpleNamespace

import numpy as np
import pytest

from mrcnn.anchors import (
    AnchorCache,
    compute_backbone_shapes,
    generate_anchors,
    generate_pyramid_anchors,
    normalised_anchors,
)
from mrcnn.boxes import norm_boxes

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


class TestCache:
    config = settings(
        RPN_ANCHOR_SCALES=[8, 16],
        RPN_ANCHOR_RATIOS=[1, 2, 4],
        RPN_ANCHOR_STRIDE=2,
        BACKBONE_STRIDES=[16, 32],
    )

    def test_gives_normalised_anchors_and_those_in_pixels(self):
        normalised, pixels = AnchorCache(self.config)((64, 96, 3))
        expected = generate_pyramid_anchors(
            [8, 16], [1, 2, 4], [(4, 6), (2, 3)], [16, 32], anchor_stride=2
        )
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(normalised, norm_boxes(expected, (64, 96)))
        np.testing.assert_array_equal(normalised_anchors(self.config, (64, 96, 3)), normalised)

    def test_keeps_the_last_few_shapes(self):
        cache = AnchorCache(self.config)
        first, second = cache((32, 32, 3)), cache((64, 32, 3))
        assert cache((32, 32, 1)) is first and cache((64, 32)) is second
        for side in range(cache.LARGEST):
            cache((96 + side, 32))
        assert cache((32, 32)) is not first
