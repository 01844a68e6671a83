"""The heads on pooled regions."""

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.boxes import scale_boxes
from mrcnn.config import Config
from mrcnn.detection import DetectionLayer
from mrcnn.heads import BoxBranch, MaskBranch, WholeConv2D, build_branches, mask_head
from mrcnn.roi_align import PyramidROIAlign
from mrcnn.targets import DetectionTargetLayer

CLASSES = 3


@pytest.fixture(scope="module")
def pyramid():
    rng = np.random.default_rng(0)
    return [rng.standard_normal((2, 64 // s, 64 // s, 4)).astype("float32") for s in (4, 8, 16, 32)]


@pytest.fixture(scope="module")
def branches():
    keras.utils.set_random_seed(0)
    config = Config(
        NUM_CLASSES=CLASSES,
        POOL_SIZE=3,
        MASK_POOL_SIZE=4,
        MASK_SHAPE=[8, 8],
        FPN_CLASSIF_FC_LAYERS_SIZE=16,
        MASK_CONV_CHANNELS=8,
    )
    return build_branches(config, depth=4, train_bn=False)


def arrays(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


def random_boxes(count=6, seed=1):
    corner = np.random.default_rng(seed).uniform(0, 0.5, (2, count, 2))
    return np.concatenate([corner, corner + 0.3], axis=-1).astype(np.float32)


class TestWholeConv2D:
    def test_equals_a_convolution(self):
        rng = np.random.default_rng(0)
        inputs = rng.standard_normal((5, 7, 7, 3)).astype(np.float32)
        convolution, whole = keras.layers.Conv2D(6, 7), WholeConv2D(6, 7)
        convolution.build(inputs.shape)
        whole.build(inputs.shape)
        whole.set_weights([rng.standard_normal(w.shape) for w in whole.get_weights()])
        convolution.set_weights(whole.get_weights())
        expected, found = arrays((convolution(inputs), whole(inputs)))
        assert found.shape == (5, 1, 1, 6)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("settings", [{"use_bias": False}, {"activation": "relu"}], ids=str)
    def test_bias_and_activation_are_those_of_a_convolution(self, settings):
        inputs = np.random.default_rng(0).standard_normal((5, 3, 3, 2)).astype(np.float32)
        whole = WholeConv2D(4, 3, **settings)
        again = WholeConv2D.from_config(whole.get_config())
        convolution = keras.layers.Conv2D(4, 3, **settings)
        for layer in (whole, again, convolution):
            layer.build(inputs.shape)
            layer.set_weights(whole.get_weights())
        expected, *found = arrays([layer(inputs) for layer in (convolution, whole, again)])
        for outputs in found:
            np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        "settings",
        [
            {"padding": "same"},
            {"groups": 2},
            {"dilation_rate": 2},
            {"data_format": "channels_first"},
        ],
        ids=str,
    )
    def test_what_it_cannot_do_is_refused(self, settings):
        with pytest.raises(ValueError, match=f"{next(iter(settings))} of a WholeConv2D must be"):
            WholeConv2D(4, 3, **settings)

    def test_smaller_kernel_is_refused(self):
        with pytest.raises(ValueError, match=r"kernel_size=\(3, 3\) for an input of .*6, 6, 2"):
            WholeConv2D(4, 3)(np.zeros((1, 6, 6, 2), np.float32))

    def test_accepts_no_regions_at_all(self):
        assert WholeConv2D(6, 7)(np.zeros((0, 7, 7, 3), np.float32)).shape == (0, 1, 1, 6)


class TestBoxBranch:
    def test_shapes_and_probabilities(self, branches, pyramid):
        logits, probabilities, deltas = arrays(branches[0](random_boxes(), pyramid))
        assert logits.shape == probabilities.shape == (2, 6, CLASSES)
        assert deltas.shape == (2, 6, CLASSES, 4)
        np.testing.assert_allclose(np.sum(probabilities, axis=-1), 1, atol=1e-6)
        np.testing.assert_allclose(probabilities, arrays(ops.softmax(logits)), atol=1e-6)

    def test_rows_belong_to_their_boxes(self, branches, pyramid):
        boxes = random_boxes()
        outputs = arrays(branches[0](boxes, pyramid))
        reversed_outputs = arrays(branches[0](boxes[:, ::-1].copy(), pyramid))
        for output, other in zip(outputs, reversed_outputs, strict=True):
            np.testing.assert_allclose(output, other[:, ::-1], atol=1e-5)

    def test_padding_is_finite(self, branches, pyramid):
        for output in arrays(branches[0](np.zeros((2, 3, 4), np.float32), pyramid)):
            assert np.isfinite(output).all()

    def test_layers_have_matterports_names(self, branches):
        names = [layer.name for layer in branches[0].head.layers if layer.weights]
        assert sorted(names) == sorted(
            [
                *("mrcnn_class_conv1", "mrcnn_class_bn1", "mrcnn_class_conv2", "mrcnn_class_bn2"),
                *("mrcnn_class_logits", "mrcnn_bbox_fc"),
            ]
        )


class TestMaskBranch:
    def test_masks_are_probabilities(self, branches, pyramid):
        masks = arrays(branches[1](random_boxes(), pyramid))
        assert masks.shape == (2, 6, 8, 8, CLASSES)
        assert masks.min() >= 0 and masks.max() <= 1 and masks.std() > 0

    def test_padded_boxes_have_zero_masks_and_change_no_other(self, branches, pyramid):
        boxes = random_boxes()
        masks = arrays(branches[1](boxes, pyramid))
        padded = boxes.copy()
        padded[0, 2:] = 0
        padded[1, 0] = 0
        sparse = arrays(branches[1](padded, pyramid))
        assert not sparse[0, 2:].any() and not sparse[1, 0].any()
        np.testing.assert_allclose(sparse[0, :2], masks[0, :2], atol=1e-6)
        np.testing.assert_allclose(sparse[1, 1:], masks[1, 1:], atol=1e-6)

    def test_nothing_but_padding(self, branches, pyramid):
        masks = arrays(branches[1](np.zeros((2, 4, 4), np.float32), pyramid))
        assert masks.shape == (2, 4, 8, 8, CLASSES) and not masks.any()

    def test_box_scale_enlarges_the_boxes(self, branches, pyramid):
        plain = branches[1]
        enlarged = MaskBranch(plain.align, plain.head, box_scale=1.5)
        boxes = random_boxes()
        np.testing.assert_allclose(
            arrays(enlarged(boxes, pyramid)),
            arrays(plain(scale_boxes(boxes, 1.5), pyramid)),
            atol=1e-5,
        )

    def test_batch_statistics_survive_nothing_but_padding(self, pyramid):
        head = mask_head(4, 4, 8, CLASSES, train_bn=True)
        branch = MaskBranch(PyramidROIAlign((4, 4)), head)
        assert not arrays(branch(np.zeros((2, 4, 4), np.float32), pyramid)).any()
        assert all(np.isfinite(weight).all() for weight in head.get_weights())

    def test_gradient_is_finite_without_any_box(self, branches, pyramid, tensorflow):
        variables = branches[1].head.trainable_variables
        with tensorflow.GradientTape() as tape:
            masks = branches[1](np.zeros((2, 4, 4), np.float32), pyramid)
            loss = ops.sum(masks)
        for gradient in tape.gradient(loss, [variable.value for variable in variables]):
            assert gradient is None or np.isfinite(gradient).all()


@pytest.mark.parametrize("kind", [BoxBranch, MaskBranch, DetectionLayer, DetectionTargetLayer])
def test_layers_that_no_file_brings_back_are_not_registered(kind):
    """A network's file holds its configuration, from which these are built anew."""
    assert keras.saving.get_registered_name(kind) == kind.__name__


def test_mask_head_doubles_its_input():
    head = mask_head(5, 4, 8, CLASSES, train_bn=False)
    assert head.output_shape == (None, 10, 10, CLASSES)
    names = {layer.name for layer in head.layers if layer.weights}
    assert names == {
        *(f"mrcnn_mask_conv{i}" for i in (1, 2, 3, 4)),
        *(f"mrcnn_mask_bn{i}" for i in (1, 2, 3, 4)),
        *("mrcnn_mask_deconv", "mrcnn_mask"),
    }


def test_branches_follow_the_configuration():
    config = Config(
        ROI_ALIGNED=True,
        ROI_LEVEL_ROUNDING="floor",
        ROI_CANONICAL_SIZE=100,
        MASK_CANONICAL_SIZE=50,
        MASK_BOX_SCALE=1.2,
        FPN_CLASSIF_FC_LAYERS_SIZE=8,
        MASK_CONV_CHANNELS=8,
    )
    boxes, masks = build_branches(config, depth=4, train_bn=False)
    assert isinstance(boxes.align, PyramidROIAlign)
    assert (boxes.align.pool_shape, boxes.align.canonical_size) == ((7, 7), 100)
    assert (masks.align.pool_shape, masks.align.canonical_size) == ((14, 14), 50)
    assert boxes.align.aligned and masks.align.aligned and masks.align.rounding == "floor"
    assert masks.box_scale == 1.2
