import numpy as np
import pytest

from mrcnn.evaluate import (
    compute_ap,
    compute_ap_range,
    compute_matches,
    compute_recall,
    reported_order,
    trim_zeros,
)

SIDE = 40
NOTHING = (np.zeros((0, 4), np.int32), np.zeros(0, np.int32), np.zeros((SIDE, SIDE, 0), bool))
NO_SCORES = np.zeros(0)


def instances(*boxes_and_classes):
    """Boxes, class ids and masks that fill their boxes."""
    boxes = np.array([box for box, _ in boxes_and_classes], np.int32)
    masks = np.zeros((SIDE, SIDE, len(boxes)), bool)
    for i, (y1, x1, y2, x2) in enumerate(boxes):
        masks[y1:y2, x1:x2, i] = True
    return boxes, np.array([class_id for _, class_id in boxes_and_classes]), masks


def predictions(*boxes_classes_scores):
    boxes, class_ids, masks = instances(*[(box, c) for box, c, _ in boxes_classes_scores])
    return boxes, class_ids, np.array([score for *_, score in boxes_classes_scores]), masks


LEFT, RIGHT = (0, 0, 10, 10), (0, 20, 10, 30)
LEFT_MOSTLY = (0, 0, 10, 8)  # IoU 0.8 with LEFT
BELOW = (30, 30, 40, 40)


@pytest.fixture
def golden(parity_units):
    """Arguments of the golden numbers."""
    return [
        parity_units["ap/gt_boxes"],
        np.array([1, 2]),
        parity_units["ap/gt_masks"],
        parity_units["ap/pred_boxes"],
        np.array([1, 2, 1]),
        np.array([0.9, 0.8, 0.95]),
        parity_units["ap/pred_masks"],
    ]


class TestParity:
    def test_ap(self, parity_units, golden):
        value, precisions, recalls, overlaps = compute_ap(*golden)
        assert value == pytest.approx(parity_units["ap/mAP"], abs=1e-5)
        np.testing.assert_allclose(precisions, parity_units["ap/precisions"], atol=1e-5)
        np.testing.assert_allclose(recalls, parity_units["ap/recalls"], atol=1e-5)
        np.testing.assert_allclose(overlaps, parity_units["ap/overlaps"], atol=1e-5)

    def test_ap_range(self, parity_units, golden):
        value = compute_ap_range(*golden, verbose=0)
        assert value == pytest.approx(parity_units["ap/range"], abs=1e-5)


class TestTrimZeros:
    def test_rows_of_zeros_go_wherever_they_are(self):
        rows = np.array([[1, 0], [0, 0], [0, 2], [0, 0]])
        np.testing.assert_array_equal(trim_zeros(rows), [[1, 0], [0, 2]])

    def test_nothing_left(self):
        assert trim_zeros(np.zeros((3, 4))).shape == (0, 4)


class TestMatches:
    def test_best_score_goes_first(self):
        found = predictions((LEFT_MOSTLY, 1, 0.6), (RIGHT, 1, 0.7), (LEFT, 1, 0.9))
        gt_match, pred_match, overlaps = compute_matches(*instances((LEFT, 1), (RIGHT, 1)), *found)
        # By score: LEFT, RIGHT, LEFT_MOSTLY, which comes too late.
        np.testing.assert_array_equal(gt_match, [0, 1])
        np.testing.assert_array_equal(pred_match, [0, 1, -1])
        np.testing.assert_allclose(overlaps, [[1, 0], [0, 1], [0.8, 0]])

    def test_taken_instance_leaves_the_next_best(self):
        truth = instances((LEFT, 1), (LEFT_MOSTLY, 1))
        found = predictions((LEFT, 1, 0.9), (LEFT, 1, 0.8))
        _, pred_match, _ = compute_matches(*truth, *found)
        np.testing.assert_array_equal(pred_match, [0, 1])

    def test_other_class_does_not_match_nor_block(self):
        truth = instances((LEFT, 2), (LEFT_MOSTLY, 1))
        _, pred_match, _ = compute_matches(*truth, *predictions((LEFT, 1, 0.9)))
        np.testing.assert_array_equal(pred_match, [1])

    @pytest.mark.parametrize("threshold, match", [(0.79, 0), (0.81, -1)])
    def test_overlap_threshold(self, threshold, match):
        found = predictions((LEFT_MOSTLY, 1, 0.9))
        _, pred_match, _ = compute_matches(*instances((LEFT, 1)), *found, iou_threshold=threshold)
        assert pred_match[0] == match

    def test_score_threshold(self):
        found = predictions((LEFT, 1, 0.4), (RIGHT, 1, 0.9))
        gt_match, pred_match, _ = compute_matches(
            *instances((LEFT, 1), (RIGHT, 1)), *found, score_threshold=0.5
        )
        np.testing.assert_array_equal(gt_match, [-1, 0])
        np.testing.assert_array_equal(pred_match, [1, -1])

    def test_masks_count_and_not_boxes(self):
        boxes, class_ids, masks = instances((LEFT, 1))
        masks[5:10] = False
        _, pred_match, overlaps = compute_matches(
            boxes, class_ids, masks, *predictions((LEFT, 1, 0.9)), iou_threshold=0.6
        )
        assert pred_match[0] == -1 and overlaps[0, 0] == pytest.approx(0.5)

    def test_padding_is_left_out_wherever_it_is(self):
        truth = instances(((0, 0, 0, 0), 1), (LEFT, 1), ((0, 0, 0, 0), 0))
        found = predictions(((0, 0, 0, 0), 1, 0.99), (LEFT, 1, 0.9), ((0, 0, 0, 0), 0, 0.0))
        gt_match, pred_match, overlaps = compute_matches(*truth, *found)
        assert gt_match.tolist() == [0] and pred_match.tolist() == [0] and overlaps.shape == (1, 1)

    def test_equal_scores_keep_their_order(self):
        found = predictions((RIGHT, 1, 0.9), (LEFT, 1, 0.9))
        _, pred_match, _ = compute_matches(*instances((LEFT, 1), (RIGHT, 1)), *found)
        np.testing.assert_array_equal(pred_match, [1, 0])

    def test_arguments_are_not_written_to(self):
        truth, found = instances((LEFT, 1)), predictions((RIGHT, 2, 0.1), (LEFT, 1, 0.9))
        copies = [array.copy() for array in (*truth, *found)]
        compute_matches(*truth, *found)
        for array, copy in zip((*truth, *found), copies, strict=True):
            np.testing.assert_array_equal(array, copy)


def test_lists_do_as_arrays_do():
    boxes, masks = [[0, 0, 2, 2], [4, 4, 8, 8]], np.zeros((8, 8, 2), bool)
    masks[:2, :2, 0] = masks[4:, 4:, 1] = True
    assert compute_ap(boxes, [1, 2], masks, boxes, [1, 2], [0.9, 0.8], masks)[0] == 1
    nothing = [], [], np.zeros((8, 8, 0), bool)
    assert compute_ap(boxes, [1, 2], masks, nothing[0], nothing[1], [], nothing[2])[0] == 0
    assert compute_ap(*nothing, boxes, [1, 2], [0.9, 0.8], masks)[0] == 0


def test_order_of_what_is_reported():
    boxes = np.int32([[0, 0, 9, 9], [0, 0, 0, 0], [1, 1, 5, 5], [2, 2, 6, 6], [3, 3, 7, 7]])
    scores = [0.4, 0.9, 0.6, 0.4, 0.8]
    assert reported_order(boxes, scores).tolist() == [4, 2, 0, 3]
    assert reported_order(np.zeros((0, 4)), []).tolist() == []


class TestAveragePrecision:
    def test_all_found(self):
        truth = instances((LEFT, 1), (RIGHT, 2))
        value, _, _, _ = compute_ap(*truth, *predictions((LEFT, 1, 0.9), (RIGHT, 2, 0.8)))
        assert value == 1

    def test_false_alarm_after_the_finds_costs_nothing(self):
        found = predictions((LEFT, 1, 0.9), (BELOW, 1, 0.8))
        assert compute_ap(*instances((LEFT, 1)), *found)[0] == 1

    def test_false_alarm_between_the_finds(self):
        found = predictions((LEFT, 1, 0.9), (BELOW, 1, 0.8), (RIGHT, 1, 0.7))
        value, precisions, recalls, _ = compute_ap(*instances((LEFT, 1), (RIGHT, 1)), *found)
        # Recall 1/2 at precision 1, then recall 1 at precision 2/3.
        assert value == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
        np.testing.assert_allclose(precisions, [1, 1, 2 / 3, 2 / 3, 0])
        np.testing.assert_allclose(recalls, [0, 0.5, 0.5, 1, 1])

    def test_half_found(self):
        truth = instances((LEFT, 1), (RIGHT, 1))
        assert compute_ap(*truth, *predictions((LEFT, 1, 0.9)))[0] == 0.5

    def test_nothing_there_and_nothing_predicted(self):
        value, precisions, recalls, overlaps = compute_ap(
            *NOTHING, *NOTHING[:2], NO_SCORES, NOTHING[2]
        )
        assert value == 1 and overlaps.shape == (0, 0)
        assert precisions.tolist() == [1, 1] and recalls.tolist() == [0, 1]

    def test_nothing_predicted(self):
        value, precisions, recalls, overlaps = compute_ap(
            *instances((LEFT, 1)), *NOTHING[:2], NO_SCORES, NOTHING[2]
        )
        assert value == 0 and overlaps.shape == (0, 1)
        assert precisions.tolist() == [0, 0] and recalls.tolist() == [0, 1]

    def test_nothing_there(self):
        value, precisions, recalls, overlaps = compute_ap(*NOTHING, *predictions((LEFT, 1, 0.9)))
        assert value == 0 and overlaps.shape == (1, 0)
        assert precisions.tolist() == [0, 0, 0] and recalls.tolist() == [0, 0, 1]


class TestRange:
    def test_mean_over_thresholds(self):
        # IoU 0.8 reaches 0.5 to 0.75 and, but for float rounding, 0.8.
        found = predictions((LEFT_MOSTLY, 1, 0.9))
        value = compute_ap_range(*instances((LEFT, 1)), *found, [0.5, 0.6, 0.7, 0.9], verbose=0)
        assert value == 0.75

    @pytest.mark.parametrize("thresholds", [None, [], np.array([])], ids=["None", "list", "array"])
    def test_default_thresholds(self, thresholds):
        found = predictions(((0, 0, 10, 6), 1, 0.9))  # IoU 0.6: 0.5, 0.55 and perhaps 0.6
        value = compute_ap_range(*instances((LEFT, 1)), *found, thresholds, verbose=0)
        assert value in (pytest.approx(0.2), pytest.approx(0.3))

    def test_equals_compute_ap_at_each_threshold(self, golden):
        thresholds = [0.5, 0.7, 0.85]
        expected = np.mean([compute_ap(*golden, threshold)[0] for threshold in thresholds])
        assert compute_ap_range(*golden, thresholds, verbose=0) == pytest.approx(expected)

    @pytest.mark.parametrize("verbose, lines", [(0, 0), (1, 3)])
    def test_verbose_prints(self, capsys, verbose, lines):
        truth, found = instances((LEFT, 1)), predictions((LEFT, 1, 0.9))
        compute_ap_range(*truth, *found, [0.5, 0.75], verbose=verbose)
        printed = capsys.readouterr().out.splitlines()
        assert len(printed) == lines
        assert lines == 0 or printed[-1] == "AP @0.50-0.75: 1.000"

    def test_empties(self):
        nothing_predicted = (*NOTHING[:2], NO_SCORES, NOTHING[2])
        assert compute_ap_range(*NOTHING, *nothing_predicted, verbose=0) == 1
        assert compute_ap_range(*instances((LEFT, 1)), *nothing_predicted, verbose=0) == 0


class TestRecall:
    def test_by_hand(self):
        found = np.array([LEFT_MOSTLY, BELOW, LEFT])
        recall, positive_ids = compute_recall(found, np.array([LEFT, RIGHT]), 0.5)
        assert recall == 0.5
        np.testing.assert_array_equal(positive_ids, [0, 2])

    def test_threshold(self):
        assert compute_recall(np.array([LEFT_MOSTLY]), np.array([LEFT]), 0.9)[0] == 0

    @pytest.mark.parametrize("found, there, recall", [(0, 2, 0), (2, 0, 1), (0, 0, 1)])
    def test_empties(self, found, there, recall):
        boxes = np.array([LEFT, RIGHT])
        value, positive_ids = compute_recall(boxes[:found], boxes[:there], 0.5)
        assert value == recall and positive_ids.shape == (0,)
