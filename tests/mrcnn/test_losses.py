"""The five losses: golden numbers, sums by hand, and what must never become infinite."""

import math

import numpy as np
import pytest
from keras import ops

from mrcnn import losses

ANCHORS, ROIS, CLASSES, SIDE = 20, 6, 3, 4


def value(function, *arrays, **options):
    """A loss of arrays."""
    return float(ops.convert_to_numpy(function(*map(tensor, arrays), **options)))


def tensor(array):
    if array is None:
        return None
    return ops.convert_to_tensor(np.float32(array) if array.dtype == float else array)


class TestParity:
    def test_rpn_class(self, parity_units):
        loss = value(
            losses.rpn_class_loss_graph,
            parity_units["rpn_loss/match"],
            parity_units["rpn_loss/logits"],
        )
        assert loss == pytest.approx(float(parity_units["rpn_loss/class"]), abs=1e-5)

    def test_rpn_bbox(self, parity_units):
        loss = value(
            losses.rpn_bbox_loss_graph,
            None,
            parity_units["rpn_loss/target_bbox"],
            parity_units["rpn_loss/match"],
            parity_units["rpn_loss/pred_bbox"],
        )
        assert loss == pytest.approx(float(parity_units["rpn_loss/bbox"]), abs=1e-5)

    def test_head_class(self, parity_units):
        loss = value(
            losses.mrcnn_class_loss_graph,
            parity_units["head_loss/class_ids"],
            parity_units["head_loss/class_logits"],
            parity_units["head_loss/active"],
        )
        assert loss == pytest.approx(float(parity_units["head_loss/class"]), abs=1e-5)

    def test_head_bbox(self, parity_units):
        loss = value(
            losses.mrcnn_bbox_loss_graph,
            parity_units["head_loss/target_bbox"],
            parity_units["head_loss/class_ids"],
            parity_units["head_loss/pred_bbox"],
        )
        assert loss == pytest.approx(float(parity_units["head_loss/bbox"]), abs=1e-5)

    def test_head_mask(self, parity_units):
        loss = value(
            losses.mrcnn_mask_loss_graph,
            parity_units["head_loss/target_mask"],
            parity_units["head_loss/class_ids"],
            parity_units["head_loss/pred_mask"],
        )
        assert loss == pytest.approx(float(parity_units["head_loss/mask"]), abs=1e-5)


def test_smooth_l1_by_hand():
    loss = losses.smooth_l1_loss(ops.zeros(5), tensor(np.float32([0, 0.5, -1, 2, -3])))
    np.testing.assert_allclose(loss, [0, 0.125, 0.5, 1.5, 2.5])


class TestRpnLosses:
    def test_class_by_hand(self):
        """One object with even odds, one background with 3 to 1 for it, one ignored anchor."""
        match = np.array([[[1], [-1], [0]]], np.int32)
        logits = np.array([[[0, 0], [math.log(3), 0], [-50, 50]]], np.float32)
        expected = (math.log(2) + math.log(4 / 3)) / 2
        assert value(losses.rpn_class_loss_graph, match, logits) == pytest.approx(expected)

    def test_bbox_rows_follow_the_objects(self):
        match = np.array([[[0], [1], [-1], [1]], [[1], [0], [0], [0]]], np.int32)
        target = np.zeros((2, 3, 4), np.float32)
        target[0, 0], target[0, 1], target[1, 0] = 1, 2, 3
        deltas = np.zeros((2, 4, 4), np.float32)
        deltas[0, 1], deltas[0, 3], deltas[1, 0] = 1, 2, 3
        assert value(losses.rpn_bbox_loss_graph, None, target, match, deltas) == 0
        deltas[1, 0] = 5  # off by two in one of three objects
        loss = value(losses.rpn_bbox_loss_graph, None, target, match, deltas)
        assert loss == pytest.approx(1.5 / 3)


class TestClassLoss:
    ids = np.array([[1, 0]], np.int32)
    logits = np.array([[[0, math.log(3), -60], [0, 0, -60]]], np.float32)

    def test_by_hand(self):
        loss = value(losses.mrcnn_class_loss_graph, self.ids, self.logits, np.ones((1, 3)))
        assert loss == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)

    def test_regions_predicted_as_a_class_the_data_set_lacks_do_not_count(self):
        loss = value(losses.mrcnn_class_loss_graph, self.ids, self.logits, np.array([[1, 0, 1]]))
        assert loss == pytest.approx(math.log(2))

    def test_each_image_has_its_own_classes(self):
        ids, logits = np.repeat(self.ids, 2, axis=0), np.repeat(self.logits, 2, axis=0)
        loss = value(losses.mrcnn_class_loss_graph, ids, logits, np.array([[1, 0, 1], [1, 1, 1]]))
        assert loss == pytest.approx((math.log(4 / 3) + 2 * math.log(2)) / 3)

    def test_weight_leaves_padding_out(self):
        loss = value(
            losses.mrcnn_class_loss_graph,
            self.ids,
            self.logits,
            np.ones((1, 3)),
            np.float32([[1, 0]]),
        )
        assert loss == pytest.approx(math.log(4 / 3))


class TestBboxAndMaskLoss:
    def test_only_the_own_class_counts(self):
        deltas = np.full((1, 2, CLASSES, 4), 100, np.float32)
        deltas[0, 0, 2] = 1
        ids = np.array([[2, 0]], np.int32)
        assert value(losses.mrcnn_bbox_loss_graph, np.ones((1, 2, 4)), ids, deltas) == 0

    def test_mask_by_hand(self):
        """The own class says 0.8 where the mask is and 0.1 where it is not."""
        target = np.zeros((1, 2, 2, 2), np.float32)
        target[0, 0, 0] = 1
        masks = np.full((1, 2, 2, 2, CLASSES), 0.5, np.float32)
        masks[0, 0, :, :, 1] = [[0.8, 0.8], [0.1, 0.1]]
        ids = np.array([[1, 0]], np.int32)
        entropy = -(math.log(0.8) + math.log(0.9)) / 2
        assert value(losses.mrcnn_mask_loss_graph, target, ids, masks) == pytest.approx(entropy)
        dice = 1 - (2 * 1.6 + 1) / (2 + 2 * 0.64 + 2 * 0.01 + 1)
        both = value(losses.mrcnn_mask_loss_graph, target, ids, masks, dice=True)
        assert both == pytest.approx(entropy + dice)


def all_losses(match, ids, scale, active):
    """Each loss as a function of its prediction, and random predictions times `scale`."""
    rng = np.random.default_rng(0)
    match, ids = np.asarray(match, np.int32), np.asarray(ids, np.int32)

    def draw(*shape):
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    masks = draw(2, ROIS, SIDE, SIDE, CLASSES)
    if scale:
        masks = (masks > 0).astype(np.float32)  # saturated
    else:
        masks = masks + 0.5
    rpn_target, box_target = tensor(draw(2, 8, 4)), tensor(draw(2, ROIS, 4))
    mask_target = tensor(np.float32(rng.random((2, ROIS, SIDE, SIDE)) > 0.5))
    match, ids, active = tensor(match), tensor(ids), tensor(active)
    return {
        "rpn_class": (lambda p: losses.rpn_class_loss_graph(match, p), draw(2, ANCHORS, 2)),
        "rpn_bbox": (
            lambda p: losses.rpn_bbox_loss_graph(None, rpn_target, match, p),
            draw(2, ANCHORS, 4),
        ),
        "class": (
            lambda p: losses.mrcnn_class_loss_graph(ids, p, active),
            draw(2, ROIS, CLASSES),
        ),
        "bbox": (
            lambda p: losses.mrcnn_bbox_loss_graph(box_target, ids, p),
            draw(2, ROIS, CLASSES, 4),
        ),
        "mask": (lambda p: losses.mrcnn_mask_loss_graph(mask_target, ids, p), masks),
        "dice": (lambda p: losses.mrcnn_mask_loss_graph(mask_target, ids, p, True), masks),
    }


names = pytest.mark.parametrize("name", ["rpn_class", "rpn_bbox", "class", "bbox", "mask", "dice"])


@names
def test_zero_when_nothing_counts(name, value_and_gradients):
    cases = all_losses(np.zeros((2, ANCHORS, 1)), np.zeros((2, ROIS)), 1.0, np.zeros((2, CLASSES)))
    loss, (gradient,) = value_and_gradients(*cases[name])
    assert loss == 0
    assert not gradient.any() and np.isfinite(gradient).all()


@names
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4, 1e15])
def test_finite_however_extreme(name, scale, value_and_gradients):
    rng = np.random.default_rng(1)
    match, ids = rng.integers(-1, 2, (2, ANCHORS, 1)), rng.integers(0, CLASSES, (2, ROIS))
    case = all_losses(match, ids, scale, np.ones((2, CLASSES)))[name]
    loss, (gradient,) = value_and_gradients(*case)
    assert math.isfinite(loss) and loss >= 0
    assert np.isfinite(gradient).all()


def test_what_does_not_count_may_be_infinite():
    match = np.array([[[1], [0]]], np.int32)
    logits = np.array([[[0, 0], [np.inf, -np.inf]]], np.float32)
    assert value(losses.rpn_class_loss_graph, match, logits) == pytest.approx(math.log(2))
