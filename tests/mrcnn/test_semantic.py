"""The semantic branch: targets, losses, the way back into the image, and the whole network."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from mrcnn import losses
from mrcnn.data import Batches
from mrcnn.model import MaskRCNN
from mrcnn.network import LOSS_NAMES, SEMANTIC_LOSS_NAMES, MaskRCNNNetwork
from mrcnn.semantic import STRIDE, semantic_head, semantic_targets, unmold_semantic


class TestTargets:
    def test_are_the_share_of_each_cell_that_a_class_covers(self):
        masks = np.zeros((8, 12, 3), bool)
        masks[0:4, 0:2, 0] = True  # half a cell
        masks[2:4, 0:4, 1] = True  # of the same class: half of it overlaps
        masks[4:8, 8:12, 2] = True
        targets = semantic_targets(masks, np.array([1, 1, 2]), 3)
        expected = np.zeros((2, 3, 3), np.float32)
        expected[0, 0, 0] = 0.75
        expected[1, 2, 1] = 1
        np.testing.assert_array_equal(targets, expected)

    def test_crowds_count(self):
        targets = semantic_targets(np.ones((4, 4, 1), bool), np.array([-2]), 2)
        np.testing.assert_array_equal(targets[0, 0], [0, 1])

    def test_of_an_image_without_instances_are_zero(self):
        targets = semantic_targets(np.zeros((8, 8, 0), bool), np.zeros(0, int), 2)
        assert targets.shape == (2, 2, 2)
        assert not targets.any()


def semantic_loss_by_hand(target, logits, dice):
    probability = 1 / (1 + np.exp(-logits))
    entropy = -(target * np.log(probability) + (1 - target) * np.log(1 - probability))
    loss = entropy.mean()
    if dice:
        missed = []
        for one, other in zip(
            np.moveaxis(target, -1, 0), np.moveaxis(probability, -1, 0), strict=True
        ):
            if one.any():
                both = (one**2).sum() + (other**2).sum()
                missed.append(1 - (2 * (one * other).sum() + 1) / (both + 1))
        loss += np.mean(missed) if missed else 0
    return loss


class TestLosses:
    @pytest.mark.parametrize("dice", [False, True])
    @given(seed=st.integers(0, 2**16), classes=st.integers(1, 3))
    def test_semantic_is_that_computed_by_hand(self, dice, seed, classes):
        rng = np.random.default_rng(seed)
        target = rng.random((2, 3, 4, classes)) * (rng.random(classes) < 0.6)
        logits = rng.normal(0, 3, target.shape)
        loss = losses.semantic_loss_graph(
            ops.convert_to_tensor(target, "float32"), ops.convert_to_tensor(logits, "float32"), dice
        )
        assert float(loss) == pytest.approx(semantic_loss_by_hand(target, logits, dice), rel=1e-4)

    def test_presence_asks_whether_a_class_is_anywhere(self):
        target = np.zeros((2, 2, 2, 2), np.float32)
        target[0, 1, 1, 0] = 0.25
        logits = np.array([[3.0, -2.0], [1.0, 0.0]], np.float32)
        loss = losses.presence_loss_graph(
            ops.convert_to_tensor(target), ops.convert_to_tensor(logits)
        )
        terms = [-logits[0, 0], logits[0, 1], logits[1, 0], logits[1, 1]]
        assert float(loss) == pytest.approx(np.mean(np.log1p(np.exp(terms))), rel=1e-5)

    def test_stay_finite_for_logits_of_any_size(self):
        target = ops.ones((1, 1, 1, 2))
        loss = losses.semantic_loss_graph(target, ops.convert_to_tensor([[[[-1e4, 1e4]]]]), True)
        assert np.isfinite(float(loss))


class TestUnmolding:
    def test_gives_back_a_map_that_was_reduced(self):
        rows, columns = np.mgrid[0:32, 0:48]
        smooth = np.stack([rows / 32, columns / 48], axis=-1)
        cells = smooth.reshape(8, STRIDE, 12, STRIDE, 2).mean(axis=(1, 3))
        found = unmold_semantic(cells, (32, 48, 3), (32, 48, 3), (0, 0, 32, 48))
        inside = (slice(2, -2), slice(2, -2))
        np.testing.assert_allclose(found[inside], smooth[inside], atol=1e-6)

    def test_leaves_the_padding_out(self):
        cells = np.zeros((8, 8, 1), np.float32)
        cells[2:6] = 1  # the window; what lies around it is padding
        found = unmold_semantic(cells, (20, 40, 3), (32, 32, 3), (8, 0, 24, 32))
        assert found.shape == (20, 40, 1)
        np.testing.assert_allclose(found[3:-3], 1)

    @given(
        height=st.integers(1, 40),
        width=st.integers(1, 40),
        seed=st.integers(0, 2**16),
    )
    def test_stays_between_the_smallest_and_the_largest(self, height, width, seed):
        cells = np.random.default_rng(seed).random((4, 4, 2)).astype(np.float32)
        found = unmold_semantic(cells, (height, width, 3), (16, 16, 3), (0, 0, 16, 16))
        assert found.shape == (height, width, 2)
        assert found.dtype == np.float32
        assert cells.min() - 1e-6 <= found.min() <= found.max() <= cells.max() + 1e-6


class TestHead:
    def test_brings_all_levels_to_stride_4(self):
        sides = (16, 8, 4, 2)
        levels = [keras.Input((side, 2 * side, 8)) for side in sides]
        model = keras.Model(levels, semantic_head(levels, 8, 3))
        cells, presence = model([np.ones((2, side, 2 * side, 8), np.float32) for side in sides])
        assert tuple(cells.shape) == (2, 16, 32, 3)
        assert tuple(presence.shape) == (2, 3)


def semantic(config):
    return config(SEMANTIC_BRANCH=True, SEMANTIC_CHANNELS=8, SEMANTIC_LOSS="crossentropy_dice")


class TestNetwork:
    def test_is_off_by_default(self, tiny_config):
        model = MaskRCNNNetwork("training", tiny_config())
        assert [tracker.name for tracker in model.loss_trackers] == list(LOSS_NAMES)
        assert not any("semantic" in layer.name for layer in model.layers)
        assert len(model.inference.outputs) == 7

    def test_all_losses_count_by_their_weights(self, tiny_config, rectangles):
        config = semantic(tiny_config)
        model = MaskRCNNNetwork("training", config)
        (batch,) = Batches(rectangles(), config)[0]
        names = (*LOSS_NAMES, *SEMANTIC_LOSS_NAMES)
        config.WEIGHT_DECAY = 0.0
        config.LOSS_WEIGHTS = dict.fromkeys(names, 0.0) | {"semantic_loss": 2, "presence_loss": 3}
        outputs = model(batch)
        total = model.compute_loss(y_pred=outputs)
        assert float(total) == pytest.approx(2 * float(outputs[-2]) + 3 * float(outputs[-1]))

    def test_learns_where_the_classes_are_and_says_so(self, tiny_config, rectangles, tmp_path):
        config = semantic(tiny_config)
        config.STEPS_PER_EPOCH = 80
        config.LOSS_WEIGHTS = dict.fromkeys(LOSS_NAMES, 0.01)
        config.OPTIMIZER = "adamw"
        keras.utils.set_random_seed(0)
        model = MaskRCNN("training", config, tmp_path)
        data = rectangles()
        history = model.train(data, None, 0.01, epochs=1, layers="all")
        assert set(SEMANTIC_LOSS_NAMES) <= set(history.history)
        for image_id in (0, 1):
            image = data.load_image(image_id)
            masks, class_ids = data.load_mask(image_id)
            (result,) = model.detect([image])
            assert result["semantic"].shape == (*image.shape[:2], 2)
            assert result["presence"].shape == (2,)
            for place, class_id in enumerate(class_ids):
                found = result["semantic"][:, :, class_id - 1] > 0.5
                both = found & masks[:, :, place]
                assert both.sum() / (found | masks[:, :, place]).sum() > 0.5
                assert result["presence"][class_id - 1] > 0.5

    def test_weights_without_the_branch_begin_one_with_it(self, tiny_config, tmp_path):
        plain = MaskRCNN("inference", tiny_config(), tmp_path)
        path = tmp_path / "plain.h5"
        plain.keras_model.save_weights(path)
        model = MaskRCNN("training", semantic(tiny_config), tmp_path)
        report = model.load_weights(path)
        assert all(
            name.startswith(("mrcnn_semantic", "mrcnn_presence")) for name in report.missing_layers
        )
        assert report.missing_layers
