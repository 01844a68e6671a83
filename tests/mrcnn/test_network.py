"""The whole network: matterport's numbers, its training, and what settings change in it."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest

from mrcnn.anchors import compute_backbone_shapes, normalised_anchors
from mrcnn.boxes import denorm_boxes, norm_boxes
from mrcnn.config import Config
from mrcnn.masks import compute_overlaps_masks
from mrcnn.model import MaskRCNN
from mrcnn.molding import compose_image_meta
from mrcnn.network import LOSS_NAMES, MaskRCNNNetwork
from mrcnn.resnet import BatchNorm
from mrcnn.targets import build_rpn_targets
from mrcnn.training import count_parameters, set_trainable
from mrcnn.weights import load_weights, named_weights

SIDE = 64


def small_backbone(image, stage5, train_bn):
    """Five convolutions, each with a stride of two."""
    stages, x = [], image
    for stage in range(1, 6):
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same", name=f"stage{stage}_conv")(x)
        x = BatchNorm(train_bn, name=f"stage{stage}_bn")(x)
        x = keras.layers.ReLU(name=f"stage{stage}_relu")(x)
        stages.append(x)
    return stages


def configuration(**settings):
    return Config(
        **{
            "NAME": "small",
            "BACKBONE": small_backbone,
            "NUM_CLASSES": 3,
            "IMAGE_MIN_DIM": SIDE,
            "IMAGE_MAX_DIM": SIDE,
            "RPN_ANCHOR_SCALES": (8, 16, 24, 32, 48),
            "TOP_DOWN_PYRAMID_SIZE": 16,
            "RPN_CONV_CHANNELS": 16,
            "FPN_CLASSIF_FC_LAYERS_SIZE": 32,
            "MASK_CONV_CHANNELS": 16,
            "POST_NMS_ROIS_TRAINING": 60,
            "POST_NMS_ROIS_INFERENCE": 30,
            "TRAIN_ROIS_PER_IMAGE": 12,
            "MAX_GT_INSTANCES": 3,
            "MINI_MASK_SHAPE": (14, 14),
            "DETECTION_MAX_INSTANCES": 6,
            "DETECTION_MIN_CONFIDENCE": 0.0,
            **settings,
        }
    )


def network(mode="training", seed=0, **settings):
    keras.utils.set_random_seed(seed)
    return MaskRCNNNetwork(mode, configuration(**settings))


def images(batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 60, (batch, SIDE, SIDE, 3)).astype(np.float32)


def metas(config, batch=2):
    shape = (SIDE, SIDE, 3)
    window, active = (0, 0, SIDE, SIDE), np.ones(config.NUM_CLASSES)
    return np.float32([compose_image_meta(0, shape, shape, window, 1, active)] * batch)


def training_batch(config, instances=2, batch=2, seed=0):
    """Inputs of the training network: random images with solid rectangles as instances."""
    rng = np.random.default_rng(seed)
    count = config.MAX_GT_INSTANCES
    ids, boxes = np.zeros((batch, count), np.int32), np.zeros((batch, count, 4), np.float32)
    corner = rng.integers(0, SIDE // 2, (batch, instances, 2))
    boxes[:, :instances] = np.concatenate([corner, corner + rng.integers(12, 30, (2,))], axis=-1)
    ids[:, :instances] = rng.integers(1, config.NUM_CLASSES, (batch, instances))
    masks = np.zeros((batch, *config.MINI_MASK_SHAPE, count), bool)
    masks[..., :instances] = True
    anchors = denorm_boxes(normalised_anchors(config, config.IMAGE_SHAPE), (SIDE, SIDE))
    targets = [
        build_rpn_targets(None, anchors, ids[i, :instances], boxes[i, :instances], config, rng)
        for i in range(batch)
    ]
    match, deltas = (np.stack(values) for values in zip(*targets, strict=True))
    return [images(batch, seed), metas(config, batch), match[..., None], deltas, ids, boxes, masks]


def to_numpy(tensors):
    return [keras.ops.convert_to_numpy(tensor) for tensor in tensors]


def loss_values(model, batch):
    return dict(zip(LOSS_NAMES, map(float, to_numpy(model(batch)[-5:])), strict=True))


def detect(model, batch=2):
    config = model.config
    anchors = normalised_anchors(config, config.IMAGE_SHAPE)
    anchors = np.broadcast_to(anchors, (batch, *anchors.shape))
    outputs = model.inference([images(batch), metas(config, batch), anchors])
    return to_numpy([keras.ops.cast(output, "float32") for output in outputs])


def train_step(model, batch, steps=1):
    """Losses of some steps; tracing a graph takes longer than these few steps."""
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9, global_clipnorm=5.0)
    model.compile(optimizer=optimizer, run_eagerly=True, jit_compile=False)
    return [model.train_on_batch(batch) for _ in range(steps)]


# ---- matterport's numbers ------------------------------------------------------------------------

GAINS = {
    "conv1": 1 / 64,
    "rpn_class_raw": 0.1,
    "rpn_bbox_pred": 0.01,
    "mrcnn_bbox_fc": 0.05,
    "mrcnn_class_logits": 0.15,
    "mrcnn_mask": 0.3,
}


def recipe(name, shape, seed):
    """One weight of the golden network."""
    layer, weight = name.split("/")
    rng = np.random.default_rng(zlib.crc32(f"{seed}:{name}".encode()))
    if weight == "kernel":
        fan_in = shape[-1] if layer == "mrcnn_mask_deconv" else np.prod(shape[:-1])
        return GAINS.get(layer, 1) * rng.standard_normal(shape) * np.sqrt(2 / fan_in)
    if weight in ("bias", "beta", "moving_mean"):
        return 0.05 * rng.standard_normal(shape)
    if weight == "gamma":
        return (0.3 if "branch2c" in layer else 1) * rng.uniform(0.8, 1.2, shape)
    return rng.uniform(0.8, 1.2, shape)


class TestParity:
    @pytest.fixture(scope="class")
    @staticmethod
    def golden(parity_network):
        return parity_network

    @pytest.fixture(scope="class")
    @staticmethod
    def model(golden, tmp_path_factory):
        meta = json.loads(str(golden["meta"]))
        model = MaskRCNN(
            "inference", Config.from_dict(meta["config"]), tmp_path_factory.mktemp("logs")
        )
        for name, weight in named_weights(model.keras_model).items():
            weight.variable.assign(recipe(name, weight.variable.shape, meta["seed"]))
        return model

    @pytest.fixture(scope="class", params=[0, 1])
    @staticmethod
    def case(request, golden, model):
        """Golden arrays of an image, and this network's outputs for it by the same names."""
        prefix = f"{request.param}/"
        expected = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
        molded, metas, windows = model.mold_inputs([expected["image"]])
        anchors = model.get_anchors(molded.shape[1:])
        names = ("detections", "mrcnn_class", "", "masks", "rpn_rois", "rpn_class", "rpn_bbox")
        outputs = model.keras_model.predict_on_batch([molded, np.float32(metas), anchors[None]])
        found = {name: output[0] for name, output in zip(names, outputs, strict=True)}
        return expected, found | {"meta": metas[0], "window": windows[0], "molded": molded[0]}

    def test_input(self, case):
        expected, found = case
        np.testing.assert_array_equal(found["window"], expected["window"])
        np.testing.assert_allclose(found["meta"], expected["image_meta"], atol=1e-6)
        assert found["molded"].sum(dtype=float) == pytest.approx(
            float(expected["molded_sum"]), rel=1e-5
        )

    @pytest.mark.parametrize("name", ["rpn_class", "rpn_bbox"])
    def test_rpn(self, case, name):
        expected, found = case
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)

    def test_proposals_as_sets(self, case):
        expected, found = case
        distance = abs(expected["rpn_rois"][:, None] - found["rpn_rois"][None]).max(axis=-1)
        assert distance.min(axis=0).max() < 1e-4 and distance.min(axis=1).max() < 1e-4

    def test_detections(self, case):
        expected, found = case
        np.testing.assert_allclose(found["detections"], expected["detections"], atol=1e-4)

    def test_first_mask(self, case):
        expected, found = case
        np.testing.assert_allclose(found["masks"][0], expected["mrcnn_mask_det0"], atol=1e-3)

    @pytest.mark.parametrize("image", [0, 1])
    def test_detect(self, golden, model, image):
        expected = {name: golden[f"{image}/{name}"] for name in ("rois", "class_ids", "scores")}
        shape = golden[f"{image}/masks_shape"]
        masks = np.unpackbits(golden[f"{image}/masks"], count=np.prod(shape)).reshape(shape) > 0
        (result,) = model.detect([golden[f"{image}/image"]])
        np.testing.assert_array_equal(result["rois"], expected["rois"])
        np.testing.assert_array_equal(result["class_ids"], expected["class_ids"])
        np.testing.assert_allclose(result["scores"], expected["scores"], atol=1e-4)
        union = (masks | result["masks"]).sum(axis=(0, 1))
        overlap = (masks & result["masks"]).sum(axis=(0, 1))
        assert (overlap >= 0.995 * union).all()

    @pytest.fixture(scope="class")
    @staticmethod
    def rough(golden, model, tmp_path_factory):
        """The same network in bfloat16."""
        meta = json.loads(str(golden["meta"]))
        config = Config.from_dict({**meta["config"], "PRECISION": "mixed_bfloat16"})
        rough = MaskRCNN("inference", config, tmp_path_factory.mktemp("logs"))
        rough.keras_model.set_weights(model.keras_model.get_weights())
        return rough

    def test_bfloat16_proposes_nearly_the_same(self, golden, model, rough):
        """On any processor; which of two like regions is taken may differ (docs/backends.md)."""
        molded, metas, _ = model.mold_inputs([golden["0/image"]])
        inputs = [molded, np.float32(metas), model.get_anchors(molded.shape[1:])[None]]
        exact, found = (each.keras_model.predict_on_batch(inputs) for each in (model, rough))
        for name, place in (("rpn_class", 5), ("rpn_bbox", 6)):
            difference = np.sqrt(np.mean((found[place] - exact[place]) ** 2))
            assert 0 < difference < 0.02 * exact[place].std(), name

    def test_bfloat16_finds_the_same(self, golden, model, rough):
        if keras.backend.backend() != "tensorflow":
            pytest.skip("bfloat16 of other backends finds some others (docs/backends.md)")
        processor = Path("/proc/cpuinfo")
        facts = processor.read_text() if processor.exists() else "bf16"
        if "bf16" not in facts:
            pytest.skip("a processor without bfloat16 rounds otherwise (docs/backends.md)")
        if "amx_bf16" in facts and "ONEDNN_MAX_CPU_ISA" not in os.environ:
            # AMX rounds otherwise, too; its vectors do as those of other processors.
            this = f"{__file__}::TestParity::test_bfloat16_finds_the_same"
            command = [sys.executable, "-m", "pytest", "-p", "no:xdist", this]
            environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
            subprocess.run(command, env=environment, check=True)
            return
        for image in (golden["0/image"], golden["1/image"]):
            exact, found = (network.detect([image])[0] for network in (model, rough))
            overlaps = compute_overlaps_masks(exact["masks"], found["masks"])
            nearest = overlaps.argmax(axis=1)
            assert overlaps.max(axis=1).mean() >= 0.98
            np.testing.assert_array_equal(found["class_ids"][nearest], exact["class_ids"])


def test_size_of_the_released_network():
    """ResNet-101 with COCO's 81 classes, as in mask_rcnn_coco.h5."""
    model = MaskRCNNNetwork("inference", Config(NUM_CLASSES=81, IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=64))
    weights = named_weights(model)
    assert len({name.split("/")[0] for name in weights}) == 235
    assert len(weights) == 690
    assert model.count_params() == 64_158_584
    assert count_parameters(model.trainable_variables) == 64_047_096


@pytest.fixture(scope="module")
def no_resnet():
    config = Config(BACKBONE="efficientnetlite0", NUM_CLASSES=2, IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=64)
    return MaskRCNNNetwork("inference", config)


@pytest.mark.parametrize(
    ("layers", "fixed", "learns"),
    [
        ("3+", "block2b_", "block3a_"),
        ("4+", "block3c_", "block4a_"),
        ("5+", "block5c_", "block6a_"),
    ],
)
def test_stages_of_a_backbone_that_is_no_resnet(no_resnet, layers, fixed, learns):
    names = set_trainable(no_resnet, layers)
    assert any(name.startswith(learns) for name in names) and "rpn_conv_shared" in names
    assert not any(name.startswith((fixed, "stem")) for name in names)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_survives_kerass_own_file(mode, tmp_path):
    model = MaskRCNN(mode, configuration(BACKBONE="efficientnetlite0"), tmp_path)
    if mode == "training":
        model.compile(0.001)
    model.class_names = ["BG", "a", "b"]
    model.keras_model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert (type(again), again.mode) == (MaskRCNNNetwork, mode)
    assert not again.is_as_made()
    assert again.class_names == ("BG", "a", "b")
    before, after = (to_numpy(network.weights) for network in (model.keras_model, again))
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


def test_random_classes_are_known(tmp_path):
    model = network("inference")
    assert model.is_as_made()
    model.save_weights(tmp_path / "made.h5")
    again = network("inference", seed=1)
    again.load_weights(tmp_path / "made.h5")
    assert not again.is_as_made()
    assert not network("training").is_as_made()


def test_whole_model_of_kerass_legacy_format_can_be_loaded(tmp_path):
    model = network("inference")
    model.save(tmp_path / "model.h5")
    again = network("inference", seed=1)
    report = load_weights(again, tmp_path / "model.h5")
    assert not report.missing
    before, after = (to_numpy(each.weights) for each in (model, again))
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


def test_predictions_are_not_compiled_by_xla(trained, tensorflow):
    """Or the suppression of boxes fails on a GPU, where Keras compiles what it is not told of."""
    assert trained.inference.jit_compile is False
    assert MaskRCNNNetwork("inference", trained.config).jit_compile is False


# ---- training ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    """A training network for the tests that only ask it for its outputs."""
    return network()


class TestTrainingNetwork:
    def test_names_of_inputs(self, trained):
        assert [tensor.name for tensor in trained.inputs] == [
            *("input_image", "input_image_meta", "input_rpn_match", "input_rpn_bbox"),
            *("input_gt_class_ids", "input_gt_boxes", "input_gt_masks"),
        ]

    def test_all_outputs(self, trained):
        config = trained.config
        anchors = len(normalised_anchors(config, config.IMAGE_SHAPE))
        shapes = [tuple(output.shape) for output in trained(training_batch(config))]
        assert shapes == [
            *((2, anchors, 2), (2, anchors, 2), (2, anchors, 4)),
            *((2, 12, 3), (2, 12, 3), (2, 12, 3, 4)),
            *((2, 3, 28, 28, 3), (2, 60, 4), (2, 12, 4)),
            *[()] * 5,
        ]

    @pytest.mark.parametrize("instances", [0, 1, 3])
    def test_losses_are_finite(self, trained, instances):
        values = loss_values(trained, training_batch(trained.config, instances))
        assert all(np.isfinite(value) and value >= 0 for value in values.values())
        assert values["rpn_class_loss"] > 0
        assert (values["rpn_bbox_loss"] > 0) == (instances > 0)

    def test_nothing_to_find_and_nothing_found(self, trained):
        values = loss_values(trained, training_batch(trained.config, instances=0))
        assert values["mrcnn_bbox_loss"] == values["mrcnn_mask_loss"] == 0

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {
                "ROI_ALIGNED": True,
                "ADD_GT_TO_PROPOSALS": True,
                "SAMPLE_NEGATIVES_ALWAYS": True,
                "IGNORE_PADDED_ROIS": True,
                "CLAMP_DELTAS": True,
                "MASK_BOX_SCALE": 1.3,
                "MASK_LOSS": "crossentropy_dice",
                "TRAIN_BN": None,
            },
        ],
        ids=["matterport", "beyond"],
    )
    def test_steps_lower_the_loss_and_survive_empty_images(self, settings):
        model = network(**settings)
        batch = training_batch(model.config)
        history = train_step(model, batch, steps=4)
        history = [float(np.atleast_1d(values)[0]) for values in history]
        assert np.isfinite(history).all() and min(history[1:]) < history[0]
        model.train_on_batch(training_batch(model.config, instances=0))
        assert all(np.isfinite(w).all() for w in model.get_weights())

    def test_given_regions(self):
        model = network(USE_RPN_ROIS=False)
        batch = training_batch(model.config)
        assert model.inputs[-1].name == "input_roi"
        given = np.zeros((2, 60, 4), np.float32)
        given[:, :3] = batch[5]
        outputs = to_numpy(model([*batch, given]))
        expected = norm_boxes(batch[5], (SIDE, SIDE)) * batch[5].any(axis=-1, keepdims=True)
        np.testing.assert_allclose(outputs[7][:, :3], expected, atol=1e-6)
        assert not outputs[7][:, 3:].any()
        assert float(outputs[-1]) > 0  # the regions are the instances themselves

    def test_detects_too(self, trained):
        """The training network and one for inference with its weights find the same."""
        other = network("inference", seed=1)
        arrays = {name: w.variable.numpy() for name, w in named_weights(trained).items()}
        for name, weight in named_weights(other).items():
            weight.variable.assign(arrays[name])
        for mine, its in zip(detect(trained), detect(other), strict=True):
            np.testing.assert_allclose(mine, its, atol=1e-5)

    def test_outputs_of_inference(self, trained):
        detections, classes, deltas, masks, rois, scores, _ = detect(trained)
        assert detections.shape == (2, 6, 6) and masks.shape == (2, 6, 28, 28, 3)
        assert classes.shape == (2, 30, 3) and deltas.shape == (2, 30, 3, 4)
        assert rois.shape == (2, 30, 4)
        np.testing.assert_allclose(scores.sum(axis=-1), 1, atol=1e-5)


class TestComputeLoss:
    def outputs(self):
        return [None] * 9 + [np.float32(value) for value in (1, 2, 3, 4, 5)]

    def loss(self, model):
        return float(keras.ops.convert_to_numpy(model.compute_loss(y_pred=self.outputs())))

    def test_weights(self):
        weights = dict(zip(LOSS_NAMES, (1, 10, 100, 1000, 0), strict=True))
        model = network(LOSS_WEIGHTS=weights, WEIGHT_DECAY=0.0)
        assert self.loss(model) == pytest.approx(4321)
        results = {tracker.name: float(tracker.result()) for tracker in model.loss_trackers}
        assert results == {
            **{"rpn_class_loss": 1, "rpn_bbox_loss": 20, "mrcnn_class_loss": 300},
            **{"mrcnn_bbox_loss": 4000, "mrcnn_mask_loss": 0},
        }

    def test_weight_decay(self, trained):
        """The mean square of every kernel and bias that learns; gamma and beta are free."""
        decay = sum(
            np.mean(np.square(weight.variable.numpy()))
            for name, weight in named_weights(trained).items()
            if name.endswith(("/kernel", "/bias"))
        )
        assert self.loss(trained) == pytest.approx(
            15 + trained.config.WEIGHT_DECAY * decay, rel=1e-5
        )

    def test_weight_decay_of_the_paper(self, trained):
        """Half the sum of the squares of every kernel that learns."""
        model = network(DIVIDE_WEIGHT_DECAY=False)
        squares = [
            np.sum(np.square(weight.variable.numpy()))
            for name, weight in named_weights(model).items()
            if name.endswith("/kernel")
        ]
        expected = 15 + model.config.WEIGHT_DECAY * 0.5 * sum(squares)
        assert self.loss(model) == pytest.approx(expected, rel=1e-5)

    def test_adamw_decays_by_itself(self):
        model = network(OPTIMIZER="adamw", WEIGHT_DECAY=10.0)
        assert float(model.compute_loss(y_pred=self.outputs())) == 15

    @pytest.mark.parametrize("own", [True, False])
    def test_optimizer_of_ones_own_may_decay_by_itself(self, own):
        model = network(OPTIMIZER=keras.optimizers.Adam, WEIGHT_DECAY=10.0)
        model.compile(keras.optimizers.Adam(weight_decay=0.1 if own else None))
        assert (float(model.compute_loss(y_pred=self.outputs())) == 15) == own

    def test_losses_are_metrics(self):
        model = network()
        (values,) = train_step(model, training_batch(model.config))
        assert len(values) == 1 + len(LOSS_NAMES)
        assert {*LOSS_NAMES} <= set(model.metrics_names) | {m.name for m in model.metrics}


class TestBatchNorm:
    def changed(self, train_bn):
        """Kinds of batch normalization weights that one step changes."""
        model = network(TRAIN_BN=train_bn)
        before = {name: w.variable.numpy() for name, w in named_weights(model).items()}
        train_step(model, training_batch(model.config))
        return {
            name.split("/")[1]
            for name, weight in named_weights(model).items()
            if "bn" in name and (weight.variable.numpy() != before[name]).any()
        }

    def test_frozen_statistics(self):
        assert self.changed(False) == {"gamma", "beta"}

    def test_ordinary(self):
        assert self.changed(None) == {"gamma", "beta", "moving_mean", "moving_variance"}


# ---- settings ------------------------------------------------------------------------------------


class TestPrecision:
    def test_bfloat16_agrees_roughly(self, trained):
        model = network(PRECISION="mixed_bfloat16")
        assert keras.config.dtype_policy().name == "float32"
        model.set_weights(trained.get_weights())
        assert {weight.dtype for weight in model.trainable_variables} == {"float32"}
        anchors = normalised_anchors(model.config, model.config.IMAGE_SHAPE)[None]
        inputs = [images(1), metas(model.config, 1), anchors]
        outputs = model.inference(inputs)
        assert {keras.backend.standardize_dtype(output.dtype) for output in outputs} == {"float32"}
        expected = trained.inference(inputs)
        assert model.get_layer("fpn_c5p5").compute_dtype == "bfloat16"
        for found, wanted in zip(to_numpy(outputs[5:7]), to_numpy(expected[5:7]), strict=True):
            difference = abs(found - wanted)
            assert difference.max() > 0  # it is another precision
            assert difference.mean() < 0.05 * np.std(wanted)

    def test_boxes_keep_float32(self):
        """Neighbouring pixels of a large image differ by less than bfloat16 can tell."""
        model = network("inference", PRECISION="mixed_bfloat16", POST_NMS_ROIS_INFERENCE=400)
        rois = detect(model)[4]
        inside = rois[(rois > 0.5) & (rois < 1)]
        assert len(np.unique(inside)) > 128  # all that bfloat16 has between these

    def test_bfloat16_trains(self):
        model = network(PRECISION="mixed_bfloat16")
        values = train_step(model, training_batch(model.config), steps=2)
        assert np.isfinite(np.float64(values)).all()


class TestEverySettingCounts:
    """Same weights and images, one setting changed: what it is for comes out otherwise."""

    @pytest.mark.parametrize(
        ("settings", "loss"),
        [
            ({"MASK_LOSS": "crossentropy_dice"}, "mrcnn_mask_loss"),
            ({"MASK_SOFT_TARGETS": True}, "mrcnn_mask_loss"),
            ({"MASK_BOX_SCALE": 1.3}, "mrcnn_mask_loss"),
            ({"ROI_ALIGNED": True}, "mrcnn_mask_loss"),
            ({"IGNORE_PADDED_ROIS": True}, "mrcnn_class_loss"),
        ],
        ids=lambda value: value if isinstance(value, str) else next(iter(value)),
    )
    def test_losses(self, usual, settings, loss):
        found = self.losses(**settings)[loss]
        assert np.isfinite(found) and found != pytest.approx(usual[loss], rel=1e-4)

    @staticmethod
    def losses(**settings):
        # The instances themselves are proposals, so that some are positive.
        model = network(ADD_GT_TO_PROPOSALS=True, POST_NMS_ROIS_TRAINING=4, **settings)
        # Boxes at odd places of a grid of 28 cells, whose edges cut cells.
        batch = training_batch(model.config, seed=3)
        batch[6][:, :7] = False
        return loss_values(model, batch)

    @pytest.fixture(scope="class")
    def usual(self):
        return self.losses()

    def test_semantic_loss(self):
        losses = []
        for kind in ("crossentropy", "crossentropy_dice"):
            model = network(SEMANTIC_BRANCH=True, SEMANTIC_LOSS=kind)
            batch = training_batch(model.config)
            shape = [2, *model.inputs[-1].shape[1:]]
            batch.append(np.ones(shape, np.float32))
            losses.append(float(to_numpy(model(batch)[-2:])[0]))
        assert losses[1] > 1.01 * losses[0]

    @pytest.mark.parametrize("name", ["RPN_NMS_PER_LEVEL", "CLAMP_DELTAS"])
    def test_proposals(self, name):
        rois = []
        for value in (False, True):
            model = network("inference", **{name: value})
            kernel = named_weights(model)["rpn_bbox_pred/kernel"].variable
            kernel.assign(300 * kernel)  # deltas that ask for a limit
            rois.append(detect(model)[4])
        assert np.abs(rois[0] - rois[1]).max() > 1e-3


def test_pyramid_levels_with_anchors(trained):
    """P3 to P5 alone; the heads still pool from P2."""
    model = network(BACKBONE_STRIDES=np.array([8, 16, 32]), RPN_ANCHOR_SCALES=(16, 24, 32))
    config = model.config
    shapes = compute_backbone_shapes(config, config.IMAGE_SHAPE)
    np.testing.assert_array_equal(shapes, [[8, 8], [4, 4], [2, 2]])
    outputs = model(training_batch(config))
    assert outputs[0].shape == (2, 3 * (64 + 16 + 4), 2)
    assert named_weights(model).keys() == named_weights(trained).keys()


@pytest.mark.parametrize("stages", [1, 3])
def test_frozen_stages(stages):
    model = network(FREEZE_BACKBONE_STAGES=stages)
    for stage in range(1, 6):  # for who compiles it and calls fit
        assert model.get_layer(f"stage{stage}_conv").trainable == (stage > stages)
    learning = set_trainable(model, ".*")
    before = {name: w.variable.numpy() for name, w in named_weights(model).items()}
    train_step(model, training_batch(model.config))
    changed = {
        name.split("/")[0]
        for name, weight in named_weights(model).items()
        if (weight.variable.numpy() != before[name]).any()
    }
    assert changed <= set(learning)
    for stage in range(1, 6):
        assert (f"stage{stage}_conv" in changed) == (stage > stages)
        assert (f"stage{stage}_bn" in changed) == (stage > stages)


def test_nothing_is_frozen_unasked(trained):
    assert not trained.frozen_layers


def test_images_of_any_size():
    """One network; the smallest image has fewer anchors than PRE_NMS_LIMIT."""
    model = network("inference", IMAGE_RESIZE_MODE="none")
    config = model.config
    for height, width in ((64, 64), (96, 64), (64, 128), (128, 96)):
        anchors = normalised_anchors(config, (height, width))[None]
        image = np.random.default_rng(0).normal(0, 60, (1, height, width, 3)).astype(np.float32)
        shape = (height, width, 3)
        meta = compose_image_meta(0, shape, shape, (0, 0, height, width), 1, np.ones(3))
        outputs = model.predict_on_batch([image, np.float32(meta)[None], anchors])
        assert outputs[0].shape == (1, 6, 6) and np.isfinite(outputs[0]).all()
        assert outputs[5].shape == (1, anchors.shape[1], 2)
    if keras.backend.backend() == "tensorflow":  # the first shape, any width, and then any at all
        assert model.predict_function.experimental_get_tracing_count() <= 3


def test_settings_that_contradict_one_another():
    with pytest.raises(ValueError, match="divisible by 32"):
        network(IMAGE_MAX_DIM=100)


def test_efficientnet_lite_with_the_settings_for_one_large_object():
    model = network(
        BACKBONE="efficientnetlite0",
        BACKBONE_STRIDES=[16, 32],
        RPN_ANCHOR_SCALES=(24, 40),
        MASK_POOL_SIZE=28,
        MASK_SHAPE=[56, 56],
        ROI_ALIGNED=True,
        ADD_GT_TO_PROPOSALS=True,
        SAMPLE_NEGATIVES_ALWAYS=True,
    )
    values = loss_values(model, training_batch(model.config))
    assert all(np.isfinite(value) and value > 0 for value in values.values())
