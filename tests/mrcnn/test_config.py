import copy
import json
import logging
import pickle

import numpy as np
import pytest

from mrcnn.config import Config, PaperConfig

# As documented of matterport/Mask_RCNN; what old code relies on when it overrides only a few.
MATTERPORT = {
    "NAME": None,
    "GPU_COUNT": 1,
    "IMAGES_PER_GPU": 2,
    "STEPS_PER_EPOCH": 1000,
    "VALIDATION_STEPS": 50,
    "BACKBONE": "resnet101",
    "COMPUTE_BACKBONE_SHAPE": None,
    "BACKBONE_STRIDES": [4, 8, 16, 32, 64],
    "FPN_CLASSIF_FC_LAYERS_SIZE": 1024,
    "TOP_DOWN_PYRAMID_SIZE": 256,
    "NUM_CLASSES": 1,
    "RPN_ANCHOR_SCALES": [32, 64, 128, 256, 512],
    "RPN_ANCHOR_RATIOS": [0.5, 1, 2],
    "RPN_ANCHOR_STRIDE": 1,
    "RPN_NMS_THRESHOLD": 0.7,
    "RPN_TRAIN_ANCHORS_PER_IMAGE": 256,
    "PRE_NMS_LIMIT": 6000,
    "POST_NMS_ROIS_TRAINING": 2000,
    "POST_NMS_ROIS_INFERENCE": 1000,
    "USE_MINI_MASK": True,
    "MINI_MASK_SHAPE": [56, 56],
    "IMAGE_RESIZE_MODE": "square",
    "IMAGE_MIN_DIM": 800,
    "IMAGE_MAX_DIM": 1024,
    "IMAGE_MIN_SCALE": 0,
    "IMAGE_CHANNEL_COUNT": 3,
    "MEAN_PIXEL": [123.7, 116.8, 103.9],
    "TRAIN_ROIS_PER_IMAGE": 200,
    "ROI_POSITIVE_RATIO": 0.33,
    "POOL_SIZE": 7,
    "MASK_POOL_SIZE": 14,
    "MASK_SHAPE": [28, 28],
    "MAX_GT_INSTANCES": 100,
    "RPN_BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    "BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    "DETECTION_MAX_INSTANCES": 100,
    "DETECTION_MIN_CONFIDENCE": 0.7,
    "DETECTION_NMS_THRESHOLD": 0.3,
    "LEARNING_RATE": 0.001,
    "LEARNING_MOMENTUM": 0.9,
    "WEIGHT_DECAY": 0.0001,
    "LOSS_WEIGHTS": {
        "rpn_class_loss": 1.0,
        "rpn_bbox_loss": 1.0,
        "mrcnn_class_loss": 1.0,
        "mrcnn_bbox_loss": 1.0,
        "mrcnn_mask_loss": 1.0,
    },
    "USE_RPN_ROIS": True,
    "TRAIN_BN": False,
    "GRADIENT_CLIP_NORM": 5.0,
    "BATCH_SIZE": 2,
    "IMAGE_SHAPE": [1024, 1024, 3],
    "IMAGE_META_SIZE": 13,
}


class CellConfig(Config):
    NAME = "cell"
    NUM_CLASSES = 1 + 3
    GPU_COUNT = 2
    IMAGES_PER_GPU = 3


def test_defaults_are_matterports():
    settings = Config().to_dict()
    assert {name: settings[name] for name in MATTERPORT} == MATTERPORT


def test_default_configuration_is_valid():
    Config().validate()


class TestOverriding:
    def test_by_subclass(self):
        config = CellConfig()
        assert (config.NUM_CLASSES, config.BATCH_SIZE, config.IMAGE_META_SIZE) == (4, 6, 16)

    def test_by_keyword(self):
        config = CellConfig(IMAGES_PER_GPU=1, IMAGE_MAX_DIM=512)
        assert config.BATCH_SIZE == 2
        np.testing.assert_array_equal(config.IMAGE_SHAPE, [512, 512, 3])
        assert CellConfig.IMAGES_PER_GPU == 3

    @pytest.mark.parametrize(
        ("mode", "shape"),
        [
            ("square", [448, 448, 3]),
            ("pad64", [448, 448, 3]),
            ("none", [448, 448, 3]),
            ("crop", [320, 320, 3]),
            ("stretch", [320, 448, 3]),
        ],
    )
    def test_input_shape_follows_the_resize_mode(self, mode, shape):
        config = Config(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=320, IMAGE_MAX_DIM=448)
        np.testing.assert_array_equal(config.IMAGE_SHAPE, shape)

    def test_misspelt_keyword_names_the_right_one(self):
        with pytest.raises(ValueError, match="NUM_CLASES. Did you mean NUM_CLASSES?"):
            Config(NUM_CLASES=3)

    @pytest.mark.parametrize(
        ("wrong", "right"),
        [
            ("DETECTION_MIN_CONFIDENSE", "DETECTION_MIN_CONFIDENCE"),
            ("IMAGE_PER_GPU", "IMAGES_PER_GPU"),
            ("NUM_CLASS", "NUM_CLASSES"),
            ("LEARN_RATE", "LEARNING_RATE"),
            ("num_classes", "NUM_CLASSES"),
            ("Backbone", "BACKBONE"),
        ],
    )
    @pytest.mark.parametrize("place", ["class", "base", "instance"])
    def test_misspelt_attribute_is_pointed_out(self, caplog, place, wrong, right):
        misspelt = type("Misspelt", (Config,), {} if place == "instance" else {wrong: 1})
        config_class = type("Derived", (misspelt,), {}) if place == "base" else misspelt
        with caplog.at_level(logging.WARNING, "mrcnn"):
            config = config_class()
            if place == "instance":
                setattr(config, wrong, 1)
        assert [record.getMessage() for record in caplog.records] == [
            f"Misspelt.{wrong} is not a setting of Config. Did you mean {right}?"
        ]

    def test_settings_assigned_later_are_taken_in_silence(self, caplog):
        with caplog.at_level(logging.WARNING, "mrcnn"):
            config = CellConfig()
            config.NUM_CLASSES, config.BATCH_SIZE = 3, 1
        assert (config.NUM_CLASSES, config.BATCH_SIZE) == (3, 1)
        assert not caplog.records

    def test_computed_settings_follow_what_is_assigned(self):
        config = CellConfig()
        config.NUM_CLASSES, config.IMAGES_PER_GPU, config.GPU_COUNT = 7, 5, 1
        config.IMAGE_MAX_DIM, config.IMAGE_MIN_DIM, config.IMAGE_RESIZE_MODE = 512, 384, "stretch"
        assert (config.BATCH_SIZE, config.IMAGE_META_SIZE) == (5, 19)
        assert config.IMAGE_SHAPE.tolist() == [384, 512, 3]
        assert config.to_dict()["BATCH_SIZE"] == 5

    @pytest.mark.parametrize("through", [copy.copy, lambda c: pickle.loads(pickle.dumps(c))])
    def test_computed_setting_that_was_assigned_stays(self, through):
        """As old scripts write it into the instance."""
        config = CellConfig()
        config.BATCH_SIZE, config.IMAGE_SHAPE = 4, np.array([64, 64, 3])
        config = through(config)
        config.IMAGES_PER_GPU, config.IMAGE_MAX_DIM, config.NUM_CLASSES = 1, 128, 2
        assert (config.BATCH_SIZE, config.IMAGE_META_SIZE) == (4, 14)
        assert config.IMAGE_SHAPE.tolist() == [64, 64, 3]

    def test_computed_setting_assigned_to_a_copy_leaves_the_first_alone(self):
        first = CellConfig()
        copy.copy(first).BATCH_SIZE = 1
        first.IMAGES_PER_GPU = 2
        assert first.BATCH_SIZE == 4

    def test_class_may_leave_a_setting_to_a_keyword(self):
        class Later(Config):
            NUM_CLASSES = None

        assert Later(IMAGES_PER_GPU=1, NUM_CLASSES=3).IMAGE_META_SIZE == 15

    def test_computed_setting_is_not_taken_from_a_class(self, caplog):
        class Given(Config):
            BATCH_SIZE = 16

        with caplog.at_level(logging.WARNING, "mrcnn"):
            assert Given().BATCH_SIZE == 2
        assert "Given.BATCH_SIZE is computed from other settings" in caplog.text

    @pytest.mark.parametrize("name", ["BATCH_SIZE", "IMAGE_SHAPE", "TRAIN_MASK_ROIS"])
    def test_computed_keyword_is_refused(self, name):
        with pytest.raises(ValueError, match=f"{name} is computed from other settings"):
            Config(**{name: 1})

    def test_own_attribute_of_a_user_is_left_alone(self, caplog):
        class Own(Config):
            FLUORESCENCE_FILTER = "green"
            folds = 5

            def describe(self):
                return self.NAME

        with caplog.at_level(logging.WARNING, "mrcnn"):
            config = Own(FLUORESCENCE_FILTER="red")
            config.SEED = 7
        assert config.FLUORESCENCE_FILTER == "red"
        assert not caplog.records

    @pytest.mark.parametrize(("rois", "slots"), [(200, 66), (512, 168), (1, 1)])
    def test_slots_for_positive_regions(self, rois, slots):
        assert Config(TRAIN_ROIS_PER_IMAGE=rois).TRAIN_MASK_ROIS == slots


class TestValidation:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"IMAGE_MAX_DIM": 1000}, "divisible by 32"),
            ({"IMAGE_MAX_DIM": 0}, "divisible by 32"),
            ({"IMAGE_RESIZE_MODE": "stretch", "IMAGE_MIN_DIM": 150}, "divisible by 32"),
            ({"MASK_SHAPE": [56, 56]}, "MASK_POOL_SIZE=14"),
            ({"BACKBONE_STRIDES": [4, 8, 24]}, r"received \[4, 8, 24\]"),
            ({"BACKBONE_STRIDES": []}, "BACKBONE_STRIDES"),
            ({"RPN_ANCHOR_SCALES": (32, 64)}, "one scale per level"),
            ({"RPN_ANCHOR_SCALES": (8, 16, 0, 64, 128)}, "RPN_ANCHOR_SCALES are numbers above 0"),
            ({"RPN_ANCHOR_RATIOS": [0.5, np.inf]}, r"RATIOS are numbers .* received \[0.5, inf\]"),
            ({"RPN_ANCHOR_RATIOS": []}, "RPN_ANCHOR_RATIOS are numbers above 0"),
            ({"IMAGE_RESIZE_MODE": "squared"}, "IMAGE_RESIZE_MODE.*'squared'"),
            ({"ROI_LEVEL_ROUNDING": "ceil"}, "ROI_LEVEL_ROUNDING.*'ceil'"),
            ({"PRECISION": "float16"}, "PRECISION.*'float16'"),
            ({"IMAGE_RESIZE_MODE": "pad64"}, "divisible by 64, or 0; received 800"),
            ({"LOSS_WEIGHTS": {"mask_loss": 5.0}}, "the loss 'mask_loss', and there are rpn_class"),
            ({"MASK_LOSS": "dice"}, "MASK_LOSS.*'dice'"),
            ({"OPTIMIZER": "adam"}, "OPTIMIZER.*function of the learning rate; received 'adam'"),
            ({"LEARNING_RATE_DECAY": "step"}, "LEARNING_RATE_DECAY.*'step'"),
            ({"IMAGE_CHANNEL_COUNT": 4}, r"MEAN_PIXEL.*IMAGE_CHANNEL_COUNT=4 .*or one for all"),
            ({"MEAN_PIXEL": [1.0, 2.0]}, r"MEAN_PIXEL.*received \[1.0, 2.0\]"),
            ({"NUM_CLASSES": 0}, "NUM_CLASSES must be at least 1"),
            ({"IMAGES_PER_GPU": 0}, "IMAGES_PER_GPU must be at least 1"),
            ({"TRAIN_ROIS_PER_IMAGE": 0}, "TRAIN_ROIS_PER_IMAGE must be at least 1"),
            ({"MAX_GT_INSTANCES": 0}, "MAX_GT_INSTANCES must be at least 1"),
            ({"GPU_COUNT": 0}, "GPU_COUNT must be at least 1"),
            ({"DETECTION_MAX_INSTANCES": 0}, "DETECTION_MAX_INSTANCES must be at least 1"),
            ({"STEPS_PER_EPOCH": -1}, "STEPS_PER_EPOCH is a number of batches.*received -1"),
            ({"VALIDATION_STEPS": -0.5}, "VALIDATION_STEPS is a number.*received -0.5"),
            ({"DETECTION_NMS_THRESHOLD": 30}, "DETECTION_NMS_THRESHOLD .* received 30. Of a perc"),
            ({"RPN_NMS_THRESHOLD": -0.1}, "RPN_NMS_THRESHOLD .* between 0 and 1; received -0.1"),
            ({"RPN_NMS_THRESHOLD": None}, "RPN_NMS_THRESHOLD .* between 0 and 1; received None"),
            ({"DETECTION_MIN_CONFIDENCE": 70}, "DETECTION_MIN_CONFIDENCE .* received 70"),
            ({"DETECTION_MIN_CONFIDENCE": "0.7"}, "DETECTION_MIN_CONFIDENCE .* received '0.7'"),
            ({"ROI_POSITIVE_RATIO": 0}, "ROI_POSITIVE_RATIO .* above 0 and at most 1; received 0"),
        ],
    )
    def test_contradiction_is_named(self, settings, message):
        with pytest.raises(ValueError, match=message):
            Config(**settings).validate()

    @pytest.mark.parametrize("mean", [0, 127.5, [100.0], np.array([1.0, 2.0, 3.0, 4.0])])
    def test_mean_pixel_of_four_channels(self, mean):
        Config(IMAGE_CHANNEL_COUNT=4, MEAN_PIXEL=mean).validate()

    @pytest.mark.parametrize("threshold", [0, 1, np.float32(0.5)])
    def test_thresholds_of_any_kind_of_number(self, threshold):
        Config(DETECTION_MIN_CONFIDENCE=threshold, DETECTION_NMS_THRESHOLD=threshold).validate()

    def test_no_least_confidence(self):
        Config(DETECTION_MIN_CONFIDENCE=None).validate()

    def test_optimizer_may_be_a_function(self):
        Config(OPTIMIZER=lambda learning_rate: None).validate()

    def test_masks_finer_than_what_they_are_learned_from(self, caplog):
        fine = {"MASK_SHAPE": [112, 112], "MASK_POOL_SIZE": 56}
        Config(**fine, USE_MINI_MASK=False).validate()
        Config(**fine, MINI_MASK_SHAPE=(224, 224)).validate()
        Config(MINI_MASK_SHAPE=(28, 28)).validate()  # matterport's masks of small objects
        assert not caplog.records
        for side in (56, 112):
            Config(**fine, MINI_MASK_SHAPE=(side, side)).validate()
            assert f"112 cells are learned from mini-masks of {side}, which" in caplog.text

    def test_images_of_any_size_need_no_divisible_side(self):
        Config(IMAGE_RESIZE_MODE="none", IMAGE_MAX_DIM=1000).validate()


class TestPlainForm:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (np.datetime64("2020-01-01"), "datetime.date(2020, 1, 1)"),
            (np.array([1 + 2j]), ["(1+2j)"]),
            (np.array([b"a", None]), ["b'a'", None]),
            (np.array([1, 2], np.longdouble), [1.0, 2.0]),
            (np.clongdouble(1), repr(np.clongdouble(1))),
        ],
    )
    def test_of_numpys_values_that_json_does_not_know(self, value, expected):
        class Own(CellConfig):
            COLLECTED = value

        assert json.loads(json.dumps(Own().to_dict()))["COLLECTED"] == expected

    def test_survives_json(self):
        config = CellConfig(IMAGE_MAX_DIM=512, MEAN_PIXEL=np.array([1.0, 2.0, 3.0]))
        settings = json.loads(json.dumps(config.to_dict()))
        assert CellConfig.from_dict(settings).to_dict() == config.to_dict()

    def test_computed_settings_are_computed_anew(self):
        settings = {**CellConfig().to_dict(), "IMAGES_PER_GPU": 1, "GPU_COUNT": 1}
        assert CellConfig.from_dict(settings).BATCH_SIZE == 1

    def test_users_own_attributes_survive(self):
        class Own(Config):
            FLUORESCENCE_FILTER = "green"

        again = Own.from_dict(Own(FLUORESCENCE_FILTER="red").to_dict())
        assert again.FLUORESCENCE_FILTER == "red"

    def test_users_own_attributes_may_be_anything(self):
        class Own(Config):
            FILTERS = {"green"}
            PLACES = {(1, 2): {3}}

        settings = Own().to_dict()
        assert json.loads(json.dumps(settings)) == settings
        assert (settings["FILTERS"], settings["PLACES"]) == ("{'green'}", {"(1, 2)": "{3}"})

    def test_unknown_setting_is_refused(self):
        with pytest.raises(ValueError, match="no setting named POOLS_SIZE. Did you mean POOL_SIZE"):
            Config.from_dict({"POOLS_SIZE": 7})

    def test_callable_backbone_is_no_known_name(self):
        def resnet50(input_image, stage5, train_bn):
            raise NotImplementedError

        name = Config(BACKBONE=resnet50).to_dict()["BACKBONE"]
        assert name.startswith("function ") and name.endswith("resnet50")

    def test_optimizer_that_was_a_function_is_the_default_one_again(self):
        settings = Config(OPTIMIZER=lambda learning_rate: None).to_dict()
        assert settings["OPTIMIZER"].startswith("function ")
        assert Config.from_dict(settings).OPTIMIZER == "sgd"


def test_display_lists_every_setting(capsys):
    CellConfig().display()
    printed = capsys.readouterr().out
    assert printed.startswith("\nConfigurations:\n")
    assert f"{'NUM_CLASSES':30} 4\n" in printed
    assert len(printed.strip().splitlines()) == 1 + len(CellConfig().to_dict())


def test_display_shows_a_users_own_attributes(capsys):
    class Own(CellConfig):
        data_dir = "cells"

    Own().display()
    assert f"{'data_dir':30} cells\n" in capsys.readouterr().out


@pytest.mark.parametrize("wrap", [lambda function: function, staticmethod])
def test_functions_of_a_class_are_no_methods(wrap):
    def net(input_image, stage5, train_bn):
        return input_image, stage5, train_bn

    class Own(Config):
        BACKBONE = wrap(net)
        COMPUTE_BACKBONE_SHAPE = wrap(lambda image_shape: image_shape)
        OPTIMIZER = wrap(lambda learning_rate: learning_rate)

    assert Own().BACKBONE(1, stage5=2, train_bn=3) == (1, 2, 3)
    assert Own().COMPUTE_BACKBONE_SHAPE(4) == 4
    assert Own().OPTIMIZER(0.1) == 0.1


def test_what_weights_mean_depends_on_how_images_are_reduced():
    stored = Config(IMAGE_ANTIALIAS=True, IMAGE_MAX_DIM=512).to_dict()
    assert Config().differences(stored) == ["IMAGE_ANTIALIAS=True and not False"]


def test_what_weights_mean_depends_on_backbone_and_mask_head():
    stored = Config(MASK_POOL_SIZE=28, MASK_SHAPE=(56, 56)).to_dict()
    assert Config(BACKBONE="resnet50").differences(stored) == [
        "BACKBONE=resnet101 and not resnet50",
        "MASK_POOL_SIZE=28 and not 14",
        "MASK_SHAPE=[56, 56] and not [28, 28]",
    ]


def test_functions_are_not_compared_by_their_names():
    """A notebook's function has another name in the script that was made of it."""
    stored = Config(BACKBONE=lambda *_: None).to_dict()
    assert Config(BACKBONE=test_default_configuration_is_valid).differences(stored) == []
    assert Config().differences(stored)


def test_methods_of_a_class_remain_methods():
    class Own(Config):
        def BACKBONE(self, input_image, stage5, train_bn):
            return self.NAME

    assert Own(NAME="cell").BACKBONE(1, 2, 3) == "cell"


def test_methods_of_something_else_remain_bound():
    class Maker:
        name = "maker"

        def net(this, input_image, stage5, train_bn):  # noqa: N805
            return this.name

    assert Config(BACKBONE=Maker().net).BACKBONE(1, 2, 3) == "maker"


class TestPaperConfig:
    def test_is_valid_and_survives_json(self):
        config = PaperConfig(NUM_CLASSES=81)
        config.validate()
        settings = json.loads(json.dumps(config.to_dict()))
        assert PaperConfig.from_dict(settings).to_dict() == config.to_dict()

    def test_no_setting_is_misspelt(self, caplog):
        with caplog.at_level(logging.WARNING, "mrcnn"):
            PaperConfig()
        assert not caplog.records
        assert set(PaperConfig().to_dict()) == set(Config().to_dict())

    def test_papers_numbers(self):
        config = PaperConfig()
        assert (config.TRAIN_ROIS_PER_IMAGE, config.TRAIN_MASK_ROIS) == (512, 128)
        assert (config.LEARNING_MOMENTUM, config.WEIGHT_DECAY) == (0.9, 1e-4)
        assert (config.POST_NMS_ROIS_INFERENCE, config.DETECTION_MAX_INSTANCES) == (1000, 100)

    @pytest.mark.parametrize(
        ("settings", "rate"),
        [
            ({"GPU_COUNT": 8}, 0.02),
            ({}, 0.0025),
            ({"IMAGES_PER_GPU": 1}, 0.00125),
            ({"LEARNING_RATE": 0.1}, 0.1),
        ],
    )
    def test_learning_rate_is_for_the_batch(self, settings, rate):
        assert PaperConfig(**settings).LEARNING_RATE == pytest.approx(rate)
