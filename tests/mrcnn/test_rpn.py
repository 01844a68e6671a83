"""The proposal network's head and its proposals against NumPy."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn import rpn
from mrcnn.boxes import non_max_suppression
from mrcnn.nms import suppress
from mrcnn.rpn import ProposalLayer, build_rpn_model

STD_DEV = np.array([0.1, 0.1, 0.2, 0.2])


class TestHead:
    @pytest.fixture(scope="class")
    @staticmethod
    def head():
        keras.utils.set_random_seed(1)
        return build_rpn_model(1, 3, depth=4, channels=8)

    def test_layers_have_matterports_names(self, head):
        shapes = {layer.name: layer.kernel.shape for layer in head.layers if layer.weights}
        assert head.name == "rpn_model"
        assert shapes == {
            "rpn_conv_shared": (3, 3, 4, 8),
            "rpn_class_raw": (1, 1, 8, 6),
            "rpn_bbox_pred": (1, 1, 8, 12),
        }

    def test_rows_run_by_position_then_by_anchor(self, head):
        maps = keras.Model(
            head.inputs,
            [head.get_layer("rpn_class_raw").output, head.get_layer("rpn_bbox_pred").output],
        )
        features = np.random.default_rng(2).standard_normal((2, 5, 7, 4)).astype(np.float32)
        logits, scores, deltas = map(ops.convert_to_numpy, head(features))
        logit_map, delta_map = map(ops.convert_to_numpy, maps([features]))
        assert logits.shape == (2, 105, 2) and deltas.shape == (2, 105, 4)
        row = (3 * 7 + 5) * 3 + 2  # y = 3, x = 5, third ratio
        np.testing.assert_allclose(logits[1, row], logit_map[1, 3, 5, 4:6], atol=1e-6)
        np.testing.assert_allclose(deltas[1, row], delta_map[1, 3, 5, 8:12], atol=1e-6)
        odds = np.exp(logits[..., 1] - logits[..., 0])
        np.testing.assert_allclose(scores[..., 1], odds / (1 + odds), atol=1e-6)
        np.testing.assert_allclose(scores.sum(axis=-1), 1, atol=1e-6)

    def test_stride_skips_positions(self):
        head = build_rpn_model(2, 3, depth=4, channels=8)
        assert head(np.zeros((1, 8, 6, 4), np.float32))[0].shape == (1, 4 * 3 * 3, 2)


def random_inputs(seed=0, batch=2, count=60):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-0.1, 0.8, (1, count, 2))
    anchors = np.concatenate([corner, corner + rng.uniform(0.05, 0.4, (1, count, 2))], axis=-1)
    score = rng.permuted(np.tile(np.linspace(0.01, 0.99, count), (batch, 1)), axis=1)
    scores = np.stack([1 - score, score], axis=-1)
    deltas = rng.normal(0, 1, (batch, count, 4))
    return scores.astype("float32"), deltas.astype("float32"), anchors.astype("float32")


def kept(scores, deltas, anchors, threshold, limit):
    """Proposals of one image and their scores, best first."""
    best = np.argsort(-scores[:, 1])[:limit]
    y1, x1, y2, x2 = anchors[best].T
    dy, dx, log_height, log_width = (deltas[best] * STD_DEV).T
    y, x = (y1 + y2) / 2 + dy * (y2 - y1), (x1 + x2) / 2 + dx * (x2 - x1)
    height, width = (y2 - y1) * np.exp(log_height), (x2 - x1) * np.exp(log_width)
    boxes = np.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], axis=1)
    boxes = np.clip(boxes, 0, 1)
    rows = non_max_suppression(boxes, scores[best, 1], threshold)
    return boxes[rows], scores[best, 1][rows]


def oracle(scores, deltas, anchors, count, threshold, limit):
    """The first `count` proposals of one image, zero-padded."""
    boxes = kept(scores, deltas, anchors, threshold, limit)[0][:count]
    return np.pad(boxes, ((0, count - len(boxes)), (0, 0)))


class TestProposals:
    @pytest.mark.parametrize(("count", "limit"), [(10, 6000), (10, 25), (80, 40)])
    def test_equal_numpy(self, count, limit):
        scores, deltas, anchors = random_inputs()
        proposals = ProposalLayer(count, 0.5, limit, STD_DEV)(scores, deltas, anchors)
        assert proposals.shape == (2, count, 4)
        for image in range(2):
            expected = oracle(scores[image], deltas[image], anchors[0], count, 0.5, limit)
            np.testing.assert_allclose(proposals[image], expected, atol=1e-6)

    @pytest.mark.parametrize("sizes", [(60,), (40, 15, 5), (3, 57)])
    def test_each_level_on_its_own(self, sizes):
        """The levels' own proposals, best first, are those of all levels."""
        scores, deltas, anchors = random_inputs(4)
        starts = np.cumsum([0, *sizes])
        parts = [slice(*bounds) for bounds in itertools.pairwise(starts)]
        layer = ProposalLayer(12, 0.5, 20, STD_DEV, per_level=True)
        levels = [scores[:, part] for part in parts]
        proposals = ops.convert_to_numpy(layer(scores, deltas, anchors, levels))
        for image in range(2):
            found = [
                kept(scores[image, part], deltas[image, part], anchors[0, part], 0.5, 20)
                for part in parts
            ]
            boxes, values = (np.concatenate(column) for column in zip(*found, strict=True))
            expected = boxes[np.argsort(-values)][:12]
            np.testing.assert_allclose(proposals[image, : len(expected)], expected, atol=1e-6)
            assert not proposals[image, len(expected) :].any()

    def test_levels_are_compared_apart(self, monkeypatch):
        sizes = []
        monkeypatch.setattr(
            rpn, "suppress", lambda *a, **k: sizes.extend(k["sizes"]) or suppress(*a, **k)
        )
        scores, deltas, anchors = random_inputs(4)
        levels = [scores[:, :45], scores[:, 45:]]
        ProposalLayer(12, 0.5, 20, STD_DEV, per_level=True)(scores, deltas, anchors, levels)
        assert sizes == [20, 15]

    def test_anchors_may_be_given_for_each_image(self):
        scores, deltas, anchors = random_inputs(1)
        layer = ProposalLayer(10, 0.5)
        repeated = layer(scores, deltas, np.repeat(anchors, 2, axis=0))
        np.testing.assert_array_equal(repeated, layer(scores, deltas, anchors))

    def test_fewer_anchors_than_the_limit_where_their_number_is_open(self, tensorflow):
        """As in a network for images of any size: the graph is traced once for all of them."""
        layer = ProposalLayer(10, 0.5)
        signature = [tensorflow.TensorSpec((None, None, n)) for n in (2, 4, 4)]
        graph = tensorflow.function(lambda *inputs: layer(*inputs), input_signature=signature)
        for count in (30, 40):
            inputs = random_inputs(2, count=count)
            np.testing.assert_allclose(graph(*inputs), layer(*inputs), atol=1e-6)

    def test_clamped_deltas_stay_finite(self):
        scores, deltas, anchors = random_inputs(3)
        deltas[:, ::2, 2:] = 1e4
        proposals = np.asarray(ProposalLayer(60, 1.0, clamp_deltas=True)(scores, deltas, anchors))
        assert np.isfinite(proposals).all()
        assert proposals.min() >= 0 and proposals.max() <= 1

    def test_growth_is_bounded_by_detectrons_factor(self):
        anchor = np.array([[[0.5, 0.5, 0.501, 0.502]]], np.float32)
        deltas = np.array([[[0, 0, 50, 50]]], np.float32)
        scores = np.array([[[0.1, 0.9]]], np.float32)
        y1, x1, y2, x2 = np.asarray(
            ProposalLayer(1, 0.5, clamp_deltas=True)(scores, deltas, anchor)
        )[0, 0]
        assert y2 - y1 == pytest.approx(0.001 * 1000 / 16, rel=1e-3)
        assert x2 - x1 == pytest.approx(0.002 * 1000 / 16, rel=1e-3)

    def test_survives_its_configuration(self):
        layer = ProposalLayer(7, 0.6, 50, STD_DEV, True, name="ROI")
        copy = ProposalLayer.from_config(layer.get_config())
        assert copy.get_config() == layer.get_config()
