"""From the box head's outputs to detections, and from these to the original image."""

import numpy as np
import pytest

from mrcnn.boxes import non_max_suppression, norm_boxes
from mrcnn.config import Config
from mrcnn.detection import DetectionLayer, unmold_detections
from mrcnn.masks import paste_mask

FRAME = (64, 96)
CLASSES = 4
WINDOW = (8, 0, 56, 96)


def configuration(**settings):
    return Config(
        **{
            "NUM_CLASSES": CLASSES,
            "DETECTION_MAX_INSTANCES": 8,
            "DETECTION_MIN_CONFIDENCE": 0.4,
            **settings,
        },
    )


def random_inputs(seed=0, batch=2, count=30):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.7, (batch, count, 2))
    rois = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (batch, count, 2))], axis=-1)
    logits = rng.normal(0, 2, (batch, count, CLASSES))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    deltas = rng.normal(0, 1, (batch, count, CLASSES, 4))
    return rois.astype("float32"), probabilities.astype("float32"), deltas.astype("float32")


def detect(config, rois, probabilities, deltas, window=WINDOW):
    windows = np.tile(np.float32(window), (len(rois), 1))
    layer = DetectionLayer(config)
    return np.asarray(layer(rois, probabilities, deltas, windows, np.array(FRAME, np.int32)))


def oracle(config, rois, probabilities, deltas, window):
    """Detections of one image, region by region."""
    low_y, low_x, high_y, high_x = norm_boxes(np.array(window), FRAME)
    candidates = []
    best = probabilities.argmax(axis=1)
    for number, class_id in np.ndindex(len(rois), CLASSES):
        if not config.DETECTION_ALL_CLASSES and class_id != best[number]:
            continue
        roi, probability = rois[number], probabilities[number]
        dy, dx, log_height, log_width = deltas[number, class_id] * config.BBOX_STD_DEV
        height, width = roi[2] - roi[0], roi[3] - roi[1]
        y, x = roi[0] + height / 2 + dy * height, roi[1] + width / 2 + dx * width
        height, width = height * np.exp(log_height), width * np.exp(log_width)
        box = (
            np.clip(y - height / 2, low_y, high_y),
            np.clip(x - width / 2, low_x, high_x),
            np.clip(y + height / 2, low_y, high_y),
            np.clip(x + width / 2, low_x, high_x),
        )
        if class_id > 0 and probability[class_id] >= config.DETECTION_MIN_CONFIDENCE:
            candidates.append([*box, class_id, probability[class_id]])
    candidates = np.array(candidates).reshape(-1, 6)
    kept = [np.zeros((0, 6))]
    for class_id in np.unique(candidates[:, 4]):
        own = candidates[candidates[:, 4] == class_id]
        threshold = config.DETECTION_NMS_THRESHOLD
        kept.append(own[non_max_suppression(own[:, :4], own[:, 5], threshold)])
    kept = np.concatenate(kept)
    kept = kept[np.argsort(-kept[:, 5])][: config.DETECTION_MAX_INSTANCES]
    return np.pad(kept, ((0, config.DETECTION_MAX_INSTANCES - len(kept)), (0, 0)))


class TestDetectionLayer:
    @pytest.mark.parametrize("all_classes", [False, True])
    @pytest.mark.parametrize(("confidence", "limit"), [(0.4, 8), (0.0, 100), (0.9, 8)])
    def test_equals_numpy(self, confidence, limit, all_classes):
        config = configuration(
            DETECTION_MIN_CONFIDENCE=confidence,
            DETECTION_MAX_INSTANCES=limit,
            DETECTION_ALL_CLASSES=all_classes,
        )
        inputs = random_inputs()
        detections = detect(config, *inputs)
        assert detections.shape == (2, limit, 6)
        for image in range(2):
            expected = oracle(config, *(values[image] for values in inputs), WINDOW)
            np.testing.assert_allclose(detections[image], expected, atol=1e-5)

    def test_boxes_of_two_classes_may_overlap(self):
        rois = np.full((1, 3, 4), [0.2, 0.2, 0.6, 0.6], np.float32)
        probabilities = np.float32([[[0, 0.9, 0.1, 0], [0, 0.1, 0.8, 0.1], [0, 0.7, 0.2, 0.1]]])
        detections = detect(configuration(), rois, probabilities, np.zeros((1, 3, CLASSES, 4)))
        np.testing.assert_allclose(detections[0, :3, 4:], [[1, 0.9], [2, 0.8], [0, 0]], atol=1e-6)

    def test_one_object_has_one_box_where_classes_are_compared(self):
        rois = np.tile(np.float32([0.2, 0.2, 0.6, 0.6]), (1, 3, 1))
        rois[0, 2] += 0.3
        probabilities = np.float32([[[0, 0.8, 0.2, 0], [0, 0, 0.9, 0.1], [0, 0.1, 0.2, 0.7]]])
        config = configuration(DETECTION_NMS_ACROSS_CLASSES=True)
        detections = detect(config, rois, probabilities, np.zeros((1, 3, CLASSES, 4)))
        np.testing.assert_allclose(detections[0, :3, 4:], [[2, 0.9], [3, 0.7], [0, 0]], atol=1e-6)

    def test_padding_takes_no_place(self):
        """Whatever the network says of regions that are not there."""
        rois, probabilities, deltas = random_inputs(batch=1, count=4)
        rois[0, :2], probabilities[0] = 0, [0, 0.5, 0.3, 0.2]
        probabilities[0, :2] = [0, 0.9, 0.1, 0]
        config = configuration(DETECTION_MIN_CONFIDENCE=0, DETECTION_MAX_INSTANCES=2)
        detections = detect(config, rois, probabilities, 0 * deltas)
        np.testing.assert_allclose(detections[0, 0, 4:], [1, 0.5])

    def test_nothing_found(self):
        rois, probabilities, deltas = random_inputs()
        probabilities[:] = [0.7, 0.1, 0.1, 0.1]
        detections = detect(configuration(), rois, probabilities, deltas)
        assert detections.shape == (2, 8, 6) and not detections.any()

    def test_clamped_deltas_enlarge_by_1000_sixteenths(self):
        rois = np.float32([[[0.498, 0.498, 0.502, 0.502]]])
        deltas = np.zeros((1, 1, CLASSES, 4), np.float32)
        deltas[..., 2:] = 1e4
        config = configuration(CLAMP_DELTAS=True)
        detections = detect(config, rois, np.float32([[[0, 1, 0, 0]]]), deltas, (0, 0, *FRAME))
        np.testing.assert_allclose(detections[0, 0], [0.375, 0.375, 0.625, 0.625, 1, 1], atol=1e-4)


def rows(*detections):
    """Detections padded with one row of zeros."""
    return np.pad(np.float32(detections).reshape(-1, 6), ((0, 1), (0, 0)))


class TestUnmoldDetections:
    def test_boxes_by_hand(self):
        """Image of 96 x 192 at half its size, 8 pixels below the top of the network's input."""
        box = norm_boxes(np.array([8, 0, 56, 96]), FRAME)
        part = norm_boxes(np.array([20, 24, 33, 49]), FRAME)
        masks = np.ones((3, 28, 28, CLASSES), np.float32)
        boxes, class_ids, scores, full = unmold_detections(
            rows([*box, 2, 0.9], [*part, 1, 0.8]), masks, (96, 192, 3), (*FRAME, 3), WINDOW
        )
        assert (boxes.dtype, class_ids.dtype, scores.dtype) == (np.int32, np.int32, np.float32)
        np.testing.assert_array_equal(boxes[0], [0, 0, 96, 192])
        # As in matterport both corners lie inside: 12 of 47 is 24.3 of 95, 24 of 47 is 48.5.
        np.testing.assert_array_equal(boxes[1], [24, 48, 50, 97 + 1])
        np.testing.assert_array_equal(class_ids, [2, 1])
        np.testing.assert_allclose(scores, [0.9, 0.8])
        assert full.shape == (96, 192, 2) and full.dtype == bool
        assert full[24:50, 48:98, 1].mean() > 0.9
        full[24:50, 48:98, 1] = False
        assert not full[:, :, 1].any()

    def test_mask_of_the_own_class(self):
        masks = np.zeros((2, 28, 28, CLASSES), np.float32)
        masks[0, :, :, 3] = 1
        box = norm_boxes(np.array([10, 10, 40, 40]), FRAME)
        for class_id, found in ((3, True), (2, False)):
            *_, full = unmold_detections(
                rows([*box, class_id, 0.9]), masks, (64, 96, 3), (*FRAME, 3), (0, 0, 64, 96)
            )
            assert full.any() == found

    def test_masks_of_the_own_classes_alone(self):
        masks = np.random.default_rng(0).random((3, 28, 28, CLASSES), np.float32)
        boxes = norm_boxes(np.array([[10, 10, 40, 40], [20, 20, 20, 30], [8, 0, 30, 90]]), FRAME)
        found = rows(
            *([*box, class_id, 0.9] for box, class_id in zip(boxes, (2, 1, 3), strict=True))
        )
        own = np.stack([masks[0, :, :, 2], masks[1, :, :, 1], masks[2, :, :, 3]])
        shapes = (96, 192, 3), (*FRAME, 3), WINDOW
        results = zip(
            unmold_detections(found, masks, *shapes),
            unmold_detections(found, own, *shapes),
            strict=True,
        )
        for expected, result in results:
            np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize("box_scale", [1.0, 1.5])
    def test_boxes_beyond_the_image_are_cut(self, box_scale):
        """As of a network that takes all of its input for the image."""
        half = np.zeros((2, 28, 28), np.float32)
        half[:, :, 14:] = 1
        boxes = norm_boxes(np.array([[0, -10, 32, 30], [57, 10, 64, 30]]), FRAME)
        found = rows([*boxes[0], 2, 0.9], [*boxes[1], 1, 0.8])
        boxes, class_ids, _, masks = unmold_detections(
            found, half, (48, 96, 3), (*FRAME, 3), WINDOW, box_scale
        )
        np.testing.assert_array_equal(boxes, [[0, 0, 24, 30]])  # the second lies in the padding
        assert masks.shape == (48, 96, 1) and list(class_ids) == [2]
        # Half of the whole box, whose middle lies at the tenth column.
        assert masks[10, 10:30].all() and not masks[:, :10].any()

    def test_mask_fills_the_rounded_box(self):
        masks = np.random.default_rng(0).random((2, 28, 28, CLASSES), np.float32)
        box = norm_boxes(np.array([10, 11, 40, 47]), FRAME)
        boxes, _, _, full = unmold_detections(
            rows([*box, 2, 0.9]), masks, (100, 150, 3), (*FRAME, 3), (0, 0, *FRAME)
        )
        expected = paste_mask(masks[0, :, :, 2], boxes[0], (100, 150))
        np.testing.assert_array_equal(full[:, :, 0], expected)

    @pytest.mark.parametrize("box_scale", [1.0, 1.5])
    def test_no_detections(self, box_scale):
        boxes, class_ids, scores, full = unmold_detections(
            np.zeros((5, 6)),
            np.zeros((5, 28, 28, CLASSES)),
            (30, 40, 3),
            (*FRAME, 3),
            WINDOW,
            box_scale,
        )
        assert boxes.shape == (0, 4) and class_ids.shape == scores.shape == (0,)
        assert full.shape == (30, 40, 0) and full.dtype == bool
        *_, soft = unmold_detections(
            np.zeros((5, 6)), np.zeros((5, 9, 9, 2)), (30, 40), FRAME, WINDOW, box_scale, None
        )
        assert soft.shape == (30, 40, 0) and soft.dtype == np.float32
        assert (boxes.dtype, class_ids.dtype, scores.dtype) == (np.int32, np.int32, np.float32)

    @pytest.mark.parametrize("box_scale", [1.0, 1.5])
    def test_probabilities_without_a_threshold(self, box_scale):
        masks = np.random.default_rng(0).random((1, 28, 28, CLASSES), np.float32)
        found = rows([*norm_boxes(np.array([10, 10, 40, 40]), FRAME), 2, 0.9])
        shapes = (64, 96, 3), (*FRAME, 3), (0, 0, 64, 96), box_scale
        *_, soft = unmold_detections(found, masks, *shapes, threshold=None)
        *_, hard = unmold_detections(found, masks, *shapes)
        assert soft.dtype == np.float32 and hard.dtype == bool
        assert 0.3 < soft[15:35, 15:35].mean() < 0.7
        np.testing.assert_array_equal(soft >= 0.5, hard)

    @pytest.mark.parametrize("threshold", [0.5, None])
    @pytest.mark.parametrize("box_scale", [1.0, 1.5])
    def test_compact_masks_are_the_same(self, box_scale, threshold):
        masks = np.random.default_rng(0).random((3, 28, 28, CLASSES), np.float32)
        boxes = norm_boxes(np.array([[10, 10, 40, 40], [8, 0, 30, 90]]), FRAME)
        found = rows([*boxes[0], 2, 0.9], [*boxes[1], 1, 0.8])
        shapes = (96, 192, 3), (*FRAME, 3), WINDOW, box_scale, threshold
        *expected, full = unmold_detections(found, masks, *shapes)
        *rest, compact = unmold_detections(found, masks, *shapes, compact=True)
        for array, value in zip(rest, expected, strict=True):
            np.testing.assert_array_equal(array, value)
        np.testing.assert_array_equal(compact.full(), full)
        assert compact.full().dtype == full.dtype
        sizes = compact.boxes[:, 2:] - compact.boxes[:, :2]
        assert [part.shape for part in compact.parts] == [tuple(size) for size in sizes]
        assert sum(part.size for part in compact.parts) < 0.6 * full.size

    @pytest.mark.parametrize("box_scale", [1.0, 1.5])
    @pytest.mark.parametrize("flat", [0, 1])
    def test_window_of_one_pixel(self, box_scale, flat):
        """On that axis a detection has all of the image; on the other its part."""
        window, size = np.array([8, 0, 56, 96]), np.array([96, 192])
        window[flat + 2], size[flat] = window[flat] + 1, 2
        found = norm_boxes(window, FRAME)
        if flat:
            found[[0, 2]] = norm_boxes(np.array([20, 0, 33, 1]), FRAME)[[0, 2]]
        else:
            found[[1, 3]] = norm_boxes(np.array([0, 24, 1, 49]), FRAME)[[1, 3]]
        boxes, class_ids, _, full = unmold_detections(
            rows([*found, 1, 0.9]),
            np.ones((2, 28, 28, CLASSES)),
            (*size, 3),
            (*FRAME, 3),
            window,
            box_scale,
        )
        assert class_ids.tolist() == [1]
        np.testing.assert_array_equal(boxes, [[24, 0, 50, 2] if flat else [0, 48, 2, 98]])
        assert full.shape == (*size, 1) and full.any()

    @pytest.mark.parametrize("box_scale", [1.0, 1.5])
    def test_boxes_without_area_are_left_out(self, box_scale):
        detections = rows(
            [0.5, 0.5, 0.4, 0.4, 1, 0.9],
            # Halves are rounded to even pixels: both edges to the 32nd row, to the 48th column.
            [0.5, 0.2, 0.5, 0.6, 1, 0.9],
            [0.2, 0.5, 0.6, 0.5, 1, 0.9],
            [0.2, 0.2, 0.6, 0.6, 2, 0.8],
        )
        boxes, class_ids, scores, full = unmold_detections(
            detections,
            np.ones((5, 28, 28, CLASSES)),
            (64, 96, 3),
            (*FRAME, 3),
            (0, 0, 64, 96),
            box_scale,
        )
        np.testing.assert_array_equal(class_ids, [2])
        assert len(boxes) == len(scores) == full.shape[2] == 1

    @pytest.mark.parametrize("enlargement", [1, 2, 5])
    def test_enlarged_masks_lie_where_they_were_pooled(self, enlargement):
        """A disc in the network's pixels, seen through the mask's cells, is found again.

        The mask holds the disc's exact signed distance to its rim, so that the rim is sharp.
        """
        top, left, bottom, right = 8, 0, 56, 96
        centre, radius = np.array([30.0, 41.0]), 13.0
        box, scale, side = np.array([17, 28, 43, 54]), 1.4, 56
        normalised = norm_boxes(box, FRAME)
        # The branch enlarges normalised boxes, which are one pixel smaller than those in pixels.
        margin = 0.5 * (scale - 1) * 25
        y = 17 - margin + (np.arange(side) + 0.5) * (26 + 2 * margin) / side
        x = 28 - margin + (np.arange(side) + 0.5) * (26 + 2 * margin) / side
        distance = np.hypot(y[:, None] - centre[0], x[None] - centre[1])
        mask = np.clip(0.5 + (radius - distance) / 10, 0, 1)
        masks = np.tile(mask[None, :, :, None], (2, 1, 1, CLASSES))
        shape = (enlargement * (bottom - top), enlargement * (right - left), 3)
        *_, full = unmold_detections(
            rows([*normalised, 1, 0.9]), masks, shape, (*FRAME, 3), WINDOW, scale
        )
        grid_y, grid_x = np.mgrid[: shape[0], : shape[1]] + 0.5
        grid_y, grid_x = grid_y / enlargement + top, grid_x / enlargement + left
        distance = np.hypot(grid_y - centre[0], grid_x - centre[1])
        certain = abs(distance - radius) > 0.02
        np.testing.assert_array_equal(full[certain, 0], (distance < radius)[certain])


class TestAllClasses:
    def test_two_classes_of_one_region_by_hand(self):
        config = configuration(
            NUM_CLASSES=3, DETECTION_ALL_CLASSES=True, DETECTION_MIN_CONFIDENCE=0.2
        )
        rois = np.array([[[0.2, 0.2, 0.6, 0.6], [0.0, 0.0, 0.0, 0.0]]], np.float32)
        # The background is the most probable; both other classes pass the threshold. The second
        # row is padding and counts for nothing.
        probabilities = np.array([[[0.45, 0.25, 0.30], [0.1, 0.5, 0.4]]], np.float32)
        detections = detect(config, rois, probabilities, np.zeros((1, 2, 3, 4), np.float32))[0]
        found = detections[detections[:, 4] > 0]
        assert found[:, 4].tolist() == [2, 1]
        np.testing.assert_allclose(found[:, 5], [0.30, 0.25], atol=1e-6)

    def test_padding_counts_for_nothing_without_a_threshold(self):
        config = configuration(
            NUM_CLASSES=3, DETECTION_ALL_CLASSES=True, DETECTION_MIN_CONFIDENCE=0
        )
        rois = np.array([[[0.2, 0.2, 0.6, 0.6], [0, 0, 0, 0], [0, 0, 0, 0]]], np.float32)
        probabilities = np.full((1, 3, 3), [0.1, 0.5, 0.4], np.float32)
        detections = detect(config, rois, probabilities, np.zeros((1, 3, 3, 4), np.float32))[0]
        np.testing.assert_allclose(detections[:2, 4:], [[1, 0.5], [2, 0.4]], atol=1e-6)
        assert not detections[2:].any()

    def test_deltas_are_of_the_own_class(self):
        config = configuration(
            NUM_CLASSES=3, DETECTION_ALL_CLASSES=True, DETECTION_MIN_CONFIDENCE=0.2
        )
        rois = np.array([[[0.2, 0.2, 0.4, 0.4]]], np.float32)
        probabilities = np.array([[[0.1, 0.3, 0.6]]], np.float32)
        deltas = np.zeros((1, 1, 3, 4), np.float32)
        deltas[0, 0, 1, 0] = 5.0  # times 0.1 of the deviation and 0.2 of height: down by 0.1
        detections = detect(config, rois, probabilities, deltas)[0]
        of_first = detections[detections[:, 4] == 1][0]
        of_second = detections[detections[:, 4] == 2][0]
        np.testing.assert_allclose(of_first[:4] - of_second[:4], [0.1, 0, 0.1, 0], atol=1e-6)
