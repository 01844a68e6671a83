import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops

from mrcnn import boxes as box_module
from mrcnn.boxes import (
    apply_box_deltas,
    box_area,
    box_refinement,
    clip_boxes,
    compute_iou,
    compute_overlaps,
    denorm_boxes,
    denorm_boxes_graph,
    non_max_suppression,
    norm_boxes,
    norm_boxes_graph,
    scale_boxes,
)

TWO_KINDS = pytest.mark.parametrize(
    "kind", [np.asarray, ops.convert_to_tensor], ids=["numpy", "tensor"]
)


@st.composite
def boxes_of_positive_size(draw, count=4):
    corners = draw(arrays(np.float32, (count, 2), elements=st.integers(-50, 50)))
    sizes = draw(arrays(np.float32, (count, 2), elements=st.integers(1, 60)))
    return np.concatenate([corners, corners + sizes], axis=1)


def pixels_of(box, side=40):
    canvas = np.zeros((side, side), bool)
    y1, x1, y2, x2 = box
    canvas[y1:y2, x1:x2] = True
    return canvas


class TestParity:
    """matterport's numbers; for its compute_overlaps the golden boxes are those of "box/boxes"."""

    def test_refinement(self, parity_units):
        # In float32 a coordinate of 200 pixels carries 1.5e-5, which boxes of a fraction of a
        # pixel's height divide by.
        deltas = box_refinement(parity_units["box/boxes"], parity_units["box/gt"])
        np.testing.assert_allclose(deltas, parity_units["box/refinement"], rtol=1e-5, atol=1e-5)

    @TWO_KINDS
    def test_applied_deltas(self, parity_units, kind):
        boxes, deltas = parity_units["box/boxes"], parity_units["box/refinement"]
        applied = np.asarray(apply_box_deltas(kind(boxes), kind(deltas)))
        np.testing.assert_allclose(applied, parity_units["box/applied"], atol=1e-4)

    def test_overlaps(self, parity_units):
        overlaps = compute_overlaps(parity_units["box/boxes"], parity_units["box/gt"])
        np.testing.assert_allclose(overlaps, parity_units["box/overlaps"], atol=1e-5)

    def test_non_max_suppression(self, parity_units):
        keep = non_max_suppression(parity_units["box/boxes"], parity_units["nms/scores"], 0.3)
        np.testing.assert_array_equal(keep, parity_units["nms/keep_0.3"])


class TestRefinement:
    def test_by_hand(self):
        box = np.array([[0.0, 0.0, 10.0, 20.0]])
        gt = np.array([[5.0, -10.0, 25.0, 10.0]])
        # Centres (5, 10) and (15, 0), sizes (10, 20) and (20, 20).
        expected = [[1.0, -0.5, np.log(2), 0.0]]
        np.testing.assert_allclose(box_refinement(box, gt), expected, atol=1e-6)

    def test_integer_pixels_are_not_truncated(self):
        box, gt = np.array([[0, 0, 3, 3]]), np.array([[0, 0, 4, 4]])
        expected = [[1 / 6, 1 / 6, np.log(4 / 3), np.log(4 / 3)]]
        np.testing.assert_allclose(box_refinement(box, gt), expected, atol=1e-6)

    @given(boxes_of_positive_size(), boxes_of_positive_size())
    def test_apply_undoes_refinement(self, boxes, gt):
        applied = apply_box_deltas(boxes, box_refinement(boxes, gt))
        np.testing.assert_allclose(applied, gt, atol=1e-3)

    @settings(max_examples=20)
    @given(boxes_of_positive_size(), boxes_of_positive_size())
    def test_tensors_give_the_numbers_of_numpy(self, boxes, gt):
        deltas = box_refinement(ops.convert_to_tensor(boxes), ops.convert_to_tensor(gt))
        np.testing.assert_allclose(np.asarray(deltas), box_refinement(boxes, gt), atol=1e-5)

    @TWO_KINDS
    def test_log_scale_is_bounded_from_above_alone(self, kind):
        box = np.array([[0, 0, 2, 2]], np.float32)
        deltas = np.array([[0, 0, 500, -1]], np.float32)
        bound = box_module.MAX_LOG_SCALE
        applied = np.asarray(apply_box_deltas(kind(box), kind(deltas), bound))
        half_height, half_width = 1000 / 16, np.exp(-1)
        expected = [[1 - half_height, 1 - half_width, 1 + half_height, 1 + half_width]]
        np.testing.assert_allclose(applied, expected, rtol=1e-5)

    @TWO_KINDS
    def test_without_a_bound_boxes_are_finite(self, kind):
        box = np.array([[0.2, 0.2, 0.6, 0.8]], np.float32)
        deltas = np.array([[0, 0, 500, 500]], np.float32)
        applied = apply_box_deltas(kind(box), kind(deltas))
        assert np.isfinite(np.asarray(applied)).all()
        clipped = clip_boxes(applied, kind(np.array([0, 0, 1, 1], np.float32)))
        np.testing.assert_array_equal(np.asarray(clipped), [[0, 0, 1, 1]])

    @TWO_KINDS
    def test_without_a_bound_other_boxes_are_as_the_formula_says(self, kind):
        rng = np.random.default_rng(0)
        corner, side = rng.uniform(0, 0.5, (2, 500, 2))
        box = kind(np.concatenate([corner, corner + side], axis=1).astype(np.float32))
        deltas = kind(rng.uniform(-20, 20, (500, 4)).astype(np.float32))
        xp = np if kind is np.asarray else ops
        size = box[..., 2:4] - box[..., 0:2]
        centre = box[..., 0:2] + 0.5 * size + deltas[..., 0:2] * size
        size = size * xp.exp(deltas[..., 2:4])
        expected = xp.concatenate([centre - 0.5 * size, centre - 0.5 * size + size], axis=-1)
        np.testing.assert_array_equal(
            np.asarray(apply_box_deltas(box, deltas)), np.asarray(expected)
        )


class TestClipAndScale:
    @TWO_KINDS
    def test_clip_by_hand(self, kind):
        boxes = np.array([[-5, 2, 8, 20], [12, 12, 15, 15]], np.float32)
        window = np.array([0, 0, 10, 10], np.float32)
        clipped = np.asarray(clip_boxes(kind(boxes), kind(window)))
        np.testing.assert_array_equal(clipped, [[0, 2, 8, 10], [10, 10, 10, 10]])

    @TWO_KINDS
    def test_one_window_for_each_image(self, kind):
        boxes = np.tile(np.array([-9, -9, 99, 99], np.float32), (2, 3, 1))
        windows = np.array([[[0, 1, 2, 3]], [[4, 5, 6, 7]]], np.float32)
        clipped = np.asarray(clip_boxes(kind(boxes), kind(windows)))
        np.testing.assert_array_equal(clipped, np.broadcast_to(windows, (2, 3, 4)))

    @TWO_KINDS
    def test_scale_about_the_centre(self, kind):
        boxes = np.array([[10, 10, 20, 30]], np.float32)
        scaled = np.asarray(scale_boxes(kind(boxes), 2.0))
        np.testing.assert_array_equal(scaled, [[5, 0, 25, 40]])

    @TWO_KINDS
    def test_inverted_boxes_have_no_area(self, kind):
        boxes = np.array([[0, 0, 2, 3], [2, 3, 0, 0], [0, 5, 4, 1]], np.float32)
        np.testing.assert_array_equal(np.asarray(box_area(kind(boxes))), [6, 0, 0])


class TestOverlaps:
    pixel_boxes = arrays(np.int32, (3, 4), elements=st.integers(0, 40))

    @given(pixel_boxes, pixel_boxes)
    def test_equals_counting_pixels(self, first, second):
        overlaps = compute_overlaps(first, second)
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                union = (pixels_of(a) | pixels_of(b)).sum()
                expected = (pixels_of(a) & pixels_of(b)).sum() / union if union else 0
                assert overlaps[i, j] == pytest.approx(expected, abs=1e-6)

    @settings(max_examples=20)
    @given(pixel_boxes, pixel_boxes)
    def test_tensors_give_the_numbers_of_numpy(self, first, second):
        tensors = [ops.convert_to_tensor(boxes.astype(np.float32)) for boxes in (first, second)]
        overlaps = np.asarray(compute_overlaps(*tensors))
        np.testing.assert_allclose(overlaps, compute_overlaps(first, second), atol=1e-6)

    def test_unit_of_boxes_does_not_matter(self):
        boxes = np.array([[0, 0, 10, 10], [0, 5, 10, 15], [2, 2, 4, 4]])
        normalised = (boxes / 64).astype(np.float32)
        expected = compute_overlaps(boxes, boxes)
        np.testing.assert_allclose(compute_overlaps(normalised, normalised), expected, atol=1e-6)

    def test_integers_of_few_bits_do_not_wrap(self):
        boxes = np.array([[0, 0, 200, 200], [100, 100, 250, 250], [220, 220, 255, 255]], np.uint8)
        overlaps = compute_overlaps(boxes[:1], boxes)
        np.testing.assert_allclose(overlaps, [[1, 100**2 / (200**2 + 150**2 - 100**2), 0]])

    @pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.float16])
    @pytest.mark.parametrize("other", [np.int64, np.float32, np.float64])
    def test_types_may_be_mixed(self, kind, other):
        boxes = np.array([[0, 0, 200, 250]])
        assert compute_overlaps(boxes.astype(other), boxes.astype(kind)) == 1
        assert compute_overlaps(boxes.astype(kind), boxes.astype(other)) == 1

    @TWO_KINDS
    def test_padding_overlaps_nothing(self, kind):
        padding = kind(np.zeros((2, 4), np.float32))
        np.testing.assert_array_equal(np.asarray(compute_overlaps(padding, padding)), 0)

    def test_batches(self):
        batch = np.random.default_rng(0).uniform(0, 1, (2, 5, 4)).astype(np.float32)
        overlaps = compute_overlaps(batch, batch[:, :3])
        assert overlaps.shape == (2, 5, 3)
        np.testing.assert_array_equal(overlaps[1], compute_overlaps(batch[1], batch[1, :3]))

    def test_iou_of_one_box_takes_and_ignores_areas(self):
        boxes = np.array([[0, 0, 10, 10], [0, 5, 10, 15], [20, 20, 30, 30]])
        iou = compute_iou(boxes[0], boxes, 100, np.array([100, 100, 100]))
        np.testing.assert_allclose(iou, [1, 1 / 3, 0])


class TestNormalisation:
    def test_whole_image_is_zero_to_one(self):
        boxes = np.array([[0, 0, 50, 100], [0, 0, 1, 1], [49, 99, 50, 100]])
        normalised = norm_boxes(boxes, (50, 100))
        np.testing.assert_array_equal(normalised, [[0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
        assert normalised.dtype == np.float32

    @given(
        arrays(np.int32, (5, 4), elements=st.integers(-100, 2000)),
        st.tuples(st.integers(2, 1500), st.integers(2, 1500)),
    )
    def test_pixels_survive_the_round_trip(self, boxes, shape):
        pixels = denorm_boxes(norm_boxes(boxes, shape), shape)
        np.testing.assert_array_equal(pixels, boxes)
        assert pixels.dtype == np.int32

    def test_tensors_give_the_numbers_of_numpy(self):
        boxes = np.random.default_rng(1).integers(0, 300, (7, 4))
        normalised = norm_boxes_graph(ops.convert_to_tensor(boxes), (200, 300))
        np.testing.assert_allclose(np.asarray(normalised), norm_boxes(boxes, (200, 300)), atol=1e-6)
        np.testing.assert_array_equal(np.asarray(denorm_boxes_graph(normalised, (200, 300))), boxes)


class TestNonMaxSuppression:
    BOXES = np.array([[0, 0, 10, 10], [0, 1, 10, 11], [50, 50, 60, 60], [0, 2, 10, 12]])

    def test_best_first_and_overlapping_ones_dropped(self):
        scores = np.array([0.5, 0.9, 0.7, 0.8])
        np.testing.assert_array_equal(non_max_suppression(self.BOXES, scores, 0.5), [1, 2])

    def test_threshold_itself_is_kept(self):
        boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]])
        np.testing.assert_array_equal(non_max_suppression(boxes, [0.9, 0.1], 0.5), [0, 1])

    def test_no_boxes_is_an_error(self):
        with pytest.raises(ValueError, match="at least one box"):
            non_max_suppression(np.zeros((0, 4)), np.zeros(0), 0.5)
