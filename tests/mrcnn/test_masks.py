import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.transform import resize as skimage_resize

from mrcnn.evaluate import compute_ap
from mrcnn.masks import (
    CompactMasks,
    compact_masks,
    compute_overlaps_masks,
    expand_mask,
    extract_bboxes,
    label_map,
    minimize_mask,
    paste_mask,
    place_mask,
    resize_mask,
    some_masks,
    unmold_mask,
)
from mrcnn.molding import resize_image
from mrcnn.visualize import display_differences, display_instances, draw_boxes

small_masks = arrays(bool, st.tuples(*[st.integers(1, 6)] * 3))


def disc(height, width, centre, radius):
    rows, columns = np.mgrid[:height, :width]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def pasted_whole(mask, box, image_shape):
    """Slow oracle: the whole box on a canvas that holds it, then cut to the image."""
    y1, x1, y2, x2 = box
    margin = 60
    canvas = np.zeros((image_shape[0] + 2 * margin, image_shape[1] + 2 * margin), bool)
    resized = skimage_resize(
        mask.astype(np.float64), (y2 - y1, x2 - x1), order=1, mode="constant", anti_aliasing=False
    )
    canvas[margin + y1 : margin + y2, margin + x1 : margin + x2] = resized >= 0.5
    return canvas[margin : margin + image_shape[0], margin : margin + image_shape[1]]


class TestParity:
    """All golden masks are met to the last pixel."""

    def test_boxes(self, parity_units):
        boxes = extract_bboxes(parity_units["mask/full"])
        assert boxes.dtype == parity_units["mask/boxes"].dtype
        np.testing.assert_array_equal(boxes, parity_units["mask/boxes"])

    def test_mini_masks(self, parity_units):
        mini = minimize_mask(parity_units["mask/boxes"], parity_units["mask/full"], (56, 56))
        np.testing.assert_array_equal(mini, parity_units["mask/mini_56"])

    def test_expanded(self, parity_units):
        full = expand_mask(parity_units["mask/boxes"], parity_units["mask/mini_56"], (120, 160, 3))
        np.testing.assert_array_equal(full, parity_units["mask/expanded"])

    def test_unmolded(self, parity_units):
        box = parity_units["mask/unmold_box"]
        full = unmold_mask(parity_units["mask/pred_28"], box, (120, 160, 3))
        assert full.dtype == bool
        np.testing.assert_array_equal(full, parity_units["mask/unmolded"])

    def test_overlaps(self, parity_units):
        overlaps = compute_overlaps_masks(
            parity_units["ap/pred_masks"], parity_units["ap/gt_masks"]
        )
        order = np.argsort(overlaps.max(axis=1))
        golden = parity_units["ap/overlaps"]
        golden_order = np.argsort(golden.max(axis=1))
        np.testing.assert_allclose(overlaps[order], golden[golden_order], atol=1e-5)


class TestExtractBboxes:
    def test_by_hand(self):
        mask = np.zeros((10, 12, 3), bool)
        mask[2:5, 3:9, 0] = True
        mask[9, 11, 1] = True
        np.testing.assert_array_equal(
            extract_bboxes(mask), [[2, 3, 5, 9], [9, 11, 10, 12], [0, 0, 0, 0]]
        )

    @given(small_masks)
    def test_equals_looking_at_each_pixel(self, mask):
        for i, box in enumerate(extract_bboxes(mask)):
            rows, columns = np.nonzero(mask[:, :, i])
            if rows.size:
                expected = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
            else:
                expected = [0, 0, 0, 0]
            assert box.tolist() == expected

    @pytest.mark.parametrize("shape", [(0, 0, 0), (5, 7, 0), (0, 7, 2)])
    def test_nothing_at_all(self, shape):
        boxes = extract_bboxes(np.zeros(shape, bool))
        assert boxes.shape == (shape[2], 4) and boxes.dtype == np.int32 and not boxes.any()

    def test_numbers_count_as_inside(self):
        mask = np.zeros((4, 4, 1), np.uint8)
        mask[1, 2] = 255
        np.testing.assert_array_equal(extract_bboxes(mask), [[1, 2, 2, 3]])


class TestMiniMasks:
    @settings(max_examples=60)
    @given(st.integers(8, 40), st.integers(8, 40), st.integers(10, 30), st.integers(10, 30))
    def test_disc_survives(self, radius, y, x, side):
        mask = disc(100, 120, (y + 20, x + 20), radius)[:, :, np.newaxis]
        boxes = extract_bboxes(mask)
        mini = minimize_mask(boxes, mask, (28 + side, 58 - side))
        back = expand_mask(boxes, mini, mask.shape)
        assert compute_overlaps_masks(back, mask)[0, 0] > 0.85

    def test_mini_mask_of_the_boxes_own_size_is_exact(self):
        mask = disc(30, 30, (12, 14), 9)[:, :, np.newaxis]
        boxes = extract_bboxes(mask)
        y1, x1, y2, x2 = boxes[0]
        mini = minimize_mask(boxes, mask, (y2 - y1, x2 - x1))
        np.testing.assert_array_equal(expand_mask(boxes, mini, mask.shape), mask)

    def test_of_probabilities_those_above_one_half_are_inside(self):
        mini = np.stack([np.full((4, 4), 0.2), np.full((4, 4), 0.7)], axis=2)
        back = expand_mask(np.array([[0, 0, 5, 5]] * 2), mini, (9, 9))
        assert back.sum(axis=(0, 1)).tolist() == [0, 25]

    def test_box_without_area_gives_an_empty_mask(self):
        mask = np.ones((20, 20, 2), bool)
        boxes = np.array([[5, 5, 5, 9], [2, 2, 10, 10]])
        mini = minimize_mask(boxes, mask, (8, 8))
        assert not mini[:, :, 0].any() and mini[:, :, 1].all()
        back = expand_mask(boxes, np.ones((8, 8, 2), bool), (20, 20))
        assert not back[:, :, 0].any() and back[:, :, 1].sum() == 64

    def test_no_instances(self):
        boxes = np.zeros((0, 4), np.int32)
        assert minimize_mask(boxes, np.zeros((9, 9, 0), bool), (56, 56)).shape == (56, 56, 0)
        assert expand_mask(boxes, np.zeros((56, 56, 0), bool), (9, 9)).shape == (9, 9, 0)


class TestPasteMask:
    @settings(max_examples=80)
    @given(
        st.integers(-30, 50),
        st.integers(-30, 50),
        st.integers(1, 40),
        st.integers(1, 40),
        st.sampled_from([1, 2, 7, 28]),
    )
    def test_equals_the_whole_box_cut_to_the_image(self, y, x, height, width, side):
        # Values in sixteenths of odd numbers keep clear of the threshold's rounding.
        values = np.random.default_rng(side).integers(0, 9, (side, side)) / 8 * 0.97
        box = (y, x, y + height, x + width)
        expected = pasted_whole(values, box, (45, 35))
        np.testing.assert_array_equal(paste_mask(values, box, (45, 35)), expected)

    @pytest.mark.parametrize(
        "box", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 9, 5, 5), (0, 0, 0, 0), (9, 5, 5, 9)]
    )
    def test_degenerate_box_gives_an_empty_mask(self, box):
        full = paste_mask(np.ones((28, 28)), box, (20, 30))
        assert full.shape == (20, 30) and not full.any()

    @pytest.mark.parametrize(
        "box", [(-9, 3, -2, 8), (20, 3, 25, 8), (3, 30, 8, 35), (3, -9, 8, 0), (50, 50, 60, 60)]
    )
    def test_box_outside_the_image_gives_an_empty_mask(self, box):
        assert not paste_mask(np.ones((28, 28)), box, (20, 30)).any()

    def test_sure_mask_fills_exactly_its_box(self):
        full = paste_mask(np.ones((14, 14), np.float32), (3, 4, 18, 29), (20, 30, 3))
        assert full[3:18, 4:29].all() and full.sum() == 15 * 25

    def test_half_belongs_to_the_instance(self):
        assert paste_mask(np.full((4, 4), 0.5), (0, 0, 4, 4), (4, 4)).all()
        assert not paste_mask(np.full((4, 4), 0.4999), (0, 0, 4, 4), (4, 4)).any()

    def test_threshold(self):
        assert paste_mask(np.full((4, 4), 0.3), (0, 0, 4, 4), (4, 4), threshold=0.2).all()

    @pytest.mark.parametrize("put", [paste_mask, place_mask])
    def test_without_a_threshold_the_probabilities_are_kept(self, put):
        mask = np.random.default_rng(0).random((6, 7))
        soft = put(mask, (-2, 3, 20, 30), (25, 28), threshold=None)
        assert soft.dtype == np.float32 and 0 <= soft.min() < soft.max() <= 1
        for threshold in (0.3, 0.5):
            hard = put(mask, (-2, 3, 20, 30), (25, 28), threshold)
            assert hard.any() and not hard.all()
            clear = np.abs(soft - threshold) > 1e-6
            np.testing.assert_array_equal(hard[clear], soft[clear] > threshold)

    def test_huge_box_costs_no_more_than_the_image(self):
        full = paste_mask(np.ones((28, 28)), (-(10**9), -(10**9), 10**9, 10**9), (8, 9))
        assert full.all()


class TestResizeMask:
    @settings(max_examples=200)
    @given(
        st.integers(1, 300),
        st.integers(1, 300),
        st.sampled_from(["none", "square", "pad64", "crop"]),
        st.sampled_from([64, 128]),
        st.sampled_from([None, 0.7, 1.3]),
    )
    def test_mask_of_the_whole_image_becomes_the_window(self, height, width, mode, side, min_scale):
        # A side of one pixel would otherwise be enlarged to an image of thousands.
        height, width = max(height, width // 8, 1), max(width, height // 8, 1)
        image = np.ones((height, width, 1), np.uint8)
        resized, window, scale, padding, crop = resize_image(image, side, 128, min_scale, mode)
        mask = resize_mask(np.ones((height, width, 2), bool), scale, padding, crop)
        assert mask.shape == (*resized.shape[:2], 2) and mask.dtype == bool
        y1, x1, y2, x2 = window
        assert mask[y1:y2, x1:x2].all()
        assert mask.sum() == 2 * (y2 - y1) * (x2 - x1)

    @settings(max_examples=50)
    @given(st.integers(1, 300), st.integers(1, 300))
    def test_size_of_a_stretched_image(self, height, width):
        image, window, scale, padding, crop = resize_image(
            np.ones((height, width), np.uint8), 64, 96, mode="stretch"
        )
        size = (window[2] - window[0], window[3] - window[1])
        mask = resize_mask(np.ones((height, width, 1), bool), scale, padding, crop, size)
        assert mask.shape == (*image.shape, 1) and mask.all()

    @settings(max_examples=100)
    @given(st.integers(4, 90), st.integers(1, 89), st.sampled_from([16, 40, 64, 150]))
    def test_edge_lies_where_the_images_edge_lies(self, width, edge, side):
        image = np.zeros((40, width))
        image[:, edge:] = 1
        resized, _, scale, padding, crop = resize_image(image, 32, side, mode="square")
        mask = resize_mask(image[:, :, np.newaxis] > 0, scale, padding, crop)
        middle = side // 2
        np.testing.assert_array_equal(mask[middle, :, 0], resized[middle] >= 0.5 - 1e-9)

    def test_by_hand(self):
        mask = np.array([[1, 0, 2]])[:, :, np.newaxis]
        doubled = resize_mask(mask, 2, [(1, 0), (0, 2), (0, 0)])[:, :, 0]
        expected = [[0] * 8, [1, 1, 0, 0, 2, 2, 0, 0], [1, 1, 0, 0, 2, 2, 0, 0]]
        np.testing.assert_array_equal(doubled, expected)

    def test_crop(self):
        mask = np.arange(48).reshape(6, 8, 1)
        cropped = resize_mask(mask, 1, [(0, 0)] * 3, (2, 3, 3, 4))
        np.testing.assert_array_equal(cropped, mask[2:5, 3:7])

    def test_no_instances(self):
        resized = resize_mask(np.zeros((10, 20, 0), bool), 0.5, [(2, 3), (0, 0), (0, 0)])
        assert resized.shape == (10, 10, 0)


class TestOverlaps:
    @given(st.data())
    def test_equals_counting_pixels(self, data):
        shape = data.draw(st.tuples(*[st.integers(1, 5)] * 2))
        first = data.draw(arrays(bool, (*shape, 3)))
        second = data.draw(arrays(bool, (*shape, 2)))
        overlaps = compute_overlaps_masks(first, second)
        for i in range(3):
            for j in range(2):
                union = (first[:, :, i] | second[:, :, j]).sum()
                shared = (first[:, :, i] & second[:, :, j]).sum()
                assert overlaps[i, j] == pytest.approx(shared / union if union else 0)

    def test_more_pixels_than_float32_counts(self):
        count = 2**24 + 2**22
        masks = np.ones((count, 1, 2), bool)
        masks[: count // 2, 0, 1] = False
        overlaps = compute_overlaps_masks(masks, masks)
        assert overlaps.dtype == np.float32
        np.testing.assert_array_equal(overlaps, [[1, 0.5], [0.5, 1]])

    def test_above_half_is_inside(self):
        first = np.array([0.5, 0.6, 0.9]).reshape(1, 3, 1)
        second = np.array([1.0, 1.0, 0.0]).reshape(1, 3, 1)
        np.testing.assert_allclose(compute_overlaps_masks(first, second), [[1 / 3]])

    @pytest.mark.parametrize("n1, n2", [(0, 3), (3, 0), (0, 0)])
    def test_no_masks(self, n1, n2):
        # An empty set often comes with another image size, or none.
        masks = [np.ones((8, 8, n), bool) if n else np.zeros((0, 0, 0), bool) for n in (n1, n2)]
        assert compute_overlaps_masks(*masks).shape == (n1, n2)

    def test_images_of_other_sizes_are_an_error(self):
        with pytest.raises(ValueError, match="same image size"):
            compute_overlaps_masks(np.ones((8, 9, 1)), np.ones((9, 8, 1)))


class TestPlaceMask:
    @settings(max_examples=60)
    @given(st.integers(0, 2**32 - 1), st.integers(-12, 30), st.integers(-12, 40))
    def test_equals_loops(self, seed, y, x):
        """Every pixel whose centre lies in the box takes the clamped bilinear value there."""
        rng = np.random.default_rng(seed)
        mask = rng.random((5, 7))
        y1, x1 = y + rng.random(), x + rng.random()
        y2, x2 = y1 + rng.uniform(0.3, 25), x1 + rng.uniform(0.3, 25)
        found = place_mask(mask, (y1, x1, y2, x2), (30, 40))
        for row in range(30):
            for column in range(40):
                inside = y1 <= row + 0.5 < y2 and x1 <= column + 0.5 < x2
                value = 0.0
                if inside:
                    v = np.clip((row + 0.5 - y1) / (y2 - y1) * 5 - 0.5, 0, 4)
                    u = np.clip((column + 0.5 - x1) / (x2 - x1) * 7 - 0.5, 0, 6)
                    top, left = min(int(v), 3), min(int(u), 5)
                    corners = mask[top : top + 2, left : left + 2]
                    value = [top + 1 - v, v - top] @ corners @ [left + 1 - u, u - left]
                if abs(value - 0.5) > 1e-9:
                    assert found[row, column] == (value > 0.5)

    def test_equals_paste_mask_in_whole_pixels(self):
        """But for the rim, where `paste_mask` lets the values fade."""
        side = np.mgrid[:28, :28] - 13.5
        mask = np.clip(0.5 + (9.7 - np.hypot(*side)) / 4, 0, 1)
        for box in ((10, 20, 66, 90), (-20, 5, 50, 130), (40, 40, 54, 54)):
            np.testing.assert_array_equal(
                place_mask(mask, box, (80, 100)), paste_mask(mask, box, (80, 100))
            )

    def test_a_shift_by_whole_pixels_shifts_the_mask(self):
        mask = np.random.default_rng(0).random((6, 6))
        found = place_mask(mask, (10.3, 12.6, 24.1, 30.2), (50, 50))
        moved = place_mask(mask, (15.3, 10.6, 29.1, 28.2), (50, 50))
        np.testing.assert_array_equal(np.roll(found, (5, -2), axis=(0, 1)), moved)

    def test_a_solid_mask_fills_the_pixels_whose_centres_it_covers(self):
        found = place_mask(np.ones((4, 4)), (1.4, 2.6, 3.6, 5.4), (6, 8))
        expected = np.zeros((6, 8), bool)
        expected[1:4, 3:5] = True
        np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize(
        "box",
        [(-20, 0, -5, 10), (0, 60, 10, 80), (3.5, 3.5, 3.5, 9), (5, 9, 5, 2), (2.1, 2.1, 2.3, 2.3)],
    )
    def test_nothing_of_the_box_in_the_image(self, box):
        found = place_mask(np.ones((4, 4)), box, (30, 40))
        assert found.shape == (30, 40) and found.dtype == bool and not found.any()

    def test_box_larger_than_the_image(self):
        assert place_mask(np.ones((4, 4)), (-100, -100, 200, 200), (30, 40)).all()


class TestCompactMasks:
    @pytest.fixture
    def two(self):
        parts = [np.ones((2, 3), bool), np.eye(4, dtype=bool)]
        return CompactMasks(parts, np.array([[1, 2, 3, 5], [0, 0, 4, 4]], np.int32), (5, 6))

    def test_in_the_whole_image(self, two):
        masks = two.full()
        expected = np.zeros((5, 6, 2), bool)
        expected[1:3, 2:5, 0] = True
        expected[:4, :4, 1] = np.eye(4)
        np.testing.assert_array_equal(masks, expected)

    def test_numpy_takes_them_so(self, two):
        assert (len(two), two.shape, np.shape(two)) == (2, (5, 6, 2), (5, 6, 2))
        np.testing.assert_array_equal(two, two.full())
        np.testing.assert_array_equal(label_map(two), label_map(two.full()))

    def test_one_by_one(self, two):
        for index in range(2):
            np.testing.assert_array_equal(two.one(index), two.full()[..., index])

    def test_may_be_compared_with_the_truth(self, two, tmp_path):
        image, boxes, ids = np.zeros((5, 6, 3), np.uint8), two.boxes, np.array([1, 1])
        given = image, boxes, ids, two, boxes, ids, np.ones(2), two, ["BG", "a"]
        display_differences(*given, save_to=tmp_path / "a.png")
        draw_boxes(image, boxes, masks=two, save_to=tmp_path / "b.png")
        mean_ap, *_ = compute_ap(boxes, ids, two, boxes, ids, np.ones(2), two)
        assert mean_ap == 1

    def test_overlaps_are_those_of_full_masks(self, two, monkeypatch):
        truth = np.random.default_rng(0).random((*two.image_shape, 3)) > 0.5
        chosen = some_masks(two, [1, 0, 1])
        full = two.full()[:, :, [1, 0, 1]]
        np.testing.assert_array_equal(chosen.full(), full)
        np.testing.assert_array_equal(some_masks(two.full(), [1, 0, 1]), full)
        expected = compute_overlaps_masks(full, truth)
        assert expected.any()
        monkeypatch.setattr(CompactMasks, "full", None)  # they are never all in the whole image
        np.testing.assert_array_equal(compute_overlaps_masks(chosen, truth), expected)

    def test_may_be_drawn(self, two, tmp_path):
        image, boxes = np.zeros((5, 6, 3), np.uint8), two.boxes
        for name, masks in (("whole", two.full()), ("compact", two)):
            path = tmp_path / f"{name}.png"
            display_instances(image, boxes, masks, [1, 1], ["BG", "a"], save_to=path)
        assert (tmp_path / "whole.png").read_bytes() == (tmp_path / "compact.png").read_bytes()


class TestLabelMap:
    def test_the_first_instance_has_the_pixel(self):
        masks = np.zeros((4, 6, 2), bool)
        masks[:3, :3, 0] = masks[1:, 1:, 1] = True
        expected = [[1, 1, 1, 0, 0, 0], [1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2], [0, 2, 2, 2, 2, 2]]
        labels = label_map(masks)
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, expected)

    def test_probabilities_are_inside_from_a_half_on(self):
        soft = np.array([[[0.49, 0.9], [0.5, 0.9], [0.2, 0.1]]], np.float32)
        np.testing.assert_array_equal(label_map(soft), [[2, 1, 0]])
        whole = (0, 0, 1, 3)
        compact = compact_masks([soft[..., 0], soft[..., 1]], [whole] * 2, (1, 3), threshold=None)
        np.testing.assert_array_equal(label_map(compact), [[2, 1, 0]])

    def test_nothing_found(self):
        assert not label_map(np.zeros((4, 6, 0), bool)).any()
