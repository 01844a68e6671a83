"""A user's script as one wrote it for matterport's library, from imports to average precision.

Only the sizes are smaller than anyone's would be.
"""

import os
import random
from types import SimpleNamespace

import keras
import keras.layers as KL
import numpy as np
import pytest

import mrcnn.model as modellib
from mrcnn import utils
from mrcnn.config import Config
from mrcnn.model import log


def backbone(input_image, stage5, train_bn):
    """A user's own backbone."""
    stages, x = [], input_image
    for stage in range(1, 6):
        x = KL.Conv2D(16, (3, 3), strides=2, padding="same", name=f"res{stage}_conv")(x)
        x = modellib.BatchNorm(name=f"bn{stage}_conv")(x, training=train_bn)
        x = KL.Activation("relu", name=f"res{stage}_out")(x)
        stages.append(x)
    return stages


class ShapesConfig(Config):
    NAME = "shapes"
    GPU_COUNT = 1
    IMAGES_PER_GPU = 4
    NUM_CLASSES = 1 + 2
    BACKBONE = staticmethod(backbone)
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 24, 32, 48)
    TRAIN_ROIS_PER_IMAGE = 16
    POST_NMS_ROIS_TRAINING = 100
    POST_NMS_ROIS_INFERENCE = 50
    DETECTION_MAX_INSTANCES = 10
    DETECTION_MIN_CONFIDENCE = 0.3
    TOP_DOWN_PYRAMID_SIZE = 32
    FPN_CLASSIF_FC_LAYERS_SIZE = 64
    RPN_CONV_CHANNELS = 32
    MASK_CONV_CHANNELS = 32
    MAX_GT_INSTANCES = 4
    USE_MINI_MASK = False
    STEPS_PER_EPOCH = 80
    VALIDATION_STEPS = 1
    LEARNING_RATE = 0.005


class InferenceConfig(ShapesConfig):
    GPU_COUNT = 1
    IMAGES_PER_GPU = 1


class ShapesDataset(utils.Dataset):
    """Squares and bars on a plain ground, drawn when asked for."""

    def load_shapes(self, count, height, width):
        self.add_class("shapes", 1, "square")
        self.add_class("shapes", 2, "bar")
        for i in range(count):
            shapes = []
            for left in random.sample(range(2, width - 20, 20), random.randint(1, 2)):
                kind = random.choice(["square", "bar"])
                top = random.randint(2, height - 30)
                shapes.append((kind, top, left, 16 if kind == "square" else 28))
            self.add_image(
                "shapes", image_id=i, path=None, width=width, height=height, shapes=shapes
            )

    def load_image(self, image_id):
        info = self.image_info[image_id]
        image = np.full([info["height"], info["width"], 3], 200, dtype=np.uint8)
        for kind, top, left, size in info["shapes"]:
            image[top : top + size, left : left + 16] = (200, 0, 0) if kind == "square" else 0
        return image

    def image_reference(self, image_id):
        info = self.image_info[image_id]
        if info["source"] == "shapes":
            return info["shapes"]
        return super(self.__class__).image_reference(self, image_id)

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        mask = np.zeros([info["height"], info["width"], len(info["shapes"])], dtype=np.uint8)
        for i, (_, top, left, size) in enumerate(info["shapes"]):
            mask[top : top + size, left : left + 16, i] = 1
        class_ids = np.array([self.class_names.index(s[0]) for s in info["shapes"]])
        return mask.astype(bool), class_ids.astype(np.int32)


class LossHistory(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.losses = []

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append((epoch, logs["loss"], logs["val_mrcnn_mask_loss"]))


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Everything the script leaves behind."""
    MODEL_DIR = str(tmp_path_factory.mktemp("logs"))
    random.seed(3)
    keras.utils.set_random_seed(3)

    config = ShapesConfig()
    config.display()

    dataset_train = ShapesDataset()
    dataset_train.load_shapes(40, config.IMAGE_SHAPE[0], config.IMAGE_SHAPE[1])
    dataset_train.prepare()
    dataset_val = ShapesDataset()
    dataset_val.load_shapes(6, config.IMAGE_SHAPE[0], config.IMAGE_SHAPE[1])
    dataset_val.prepare()

    # A network for other classes, in the place of the one trained on COCO.
    PRETRAINED = os.path.join(MODEL_DIR, "mask_rcnn_other.h5")
    other = modellib.MaskRCNN("training", ShapesConfig(NUM_CLASSES=5), MODEL_DIR)
    other.keras_model.save_weights(PRETRAINED)

    model = modellib.MaskRCNN(mode="training", config=config, model_dir=MODEL_DIR)
    model.load_weights(
        PRETRAINED,
        by_name=True,
        exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"],
    )
    history = LossHistory()
    model.train(
        dataset_train,
        dataset_val,
        learning_rate=config.LEARNING_RATE,
        epochs=1,
        layers="heads",
        custom_callbacks=[history],
    )
    model.train(
        dataset_train,
        dataset_val,
        learning_rate=config.LEARNING_RATE,
        epochs=3,
        layers="all",
        custom_callbacks=[history],
        no_augmentation_sources=["other"],
    )
    model.keras_model.save_weights(os.path.join(MODEL_DIR, "mask_rcnn_shapes.h5"))

    inference_config = InferenceConfig()
    trained = model
    model = modellib.MaskRCNN(mode="inference", config=inference_config, model_dir=MODEL_DIR)
    model_path = model.find_last()
    model.load_weights(model_path, by_name=True)

    APs, results = [], []
    for image_id in dataset_val.image_ids:
        image, image_meta, gt_class_id, gt_bbox, gt_mask = modellib.load_image_gt(
            dataset_val, inference_config, image_id, use_mini_mask=False
        )
        r = model.detect([image], verbose=0)[0]
        AP, precisions, recalls, overlaps = utils.compute_ap(
            gt_bbox, gt_class_id, gt_mask, r["rois"], r["class_ids"], r["scores"], r["masks"]
        )
        APs.append(AP)
        results.append(r)

    # As in the notebooks that look into data and model.
    log("image", image)
    log("gt_mask", gt_mask)
    layers = {name: model.keras_model.get_layer(name) for name in INSPECTED}
    inspected = model.run_graph([image], [(name, layers[name].output) for name in INSPECTED])
    shapes = modellib.compute_backbone_shapes(config, config.IMAGE_SHAPE)
    anchors = utils.generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        shapes,
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
    )
    target_rpn_match, target_rpn_bbox = modellib.build_rpn_targets(
        image.shape, anchors, gt_class_id, gt_bbox, model.config
    )
    positive_anchor_ix = np.where(target_rpn_match[:] == 1)[0]
    refined_anchors = utils.apply_box_deltas(
        anchors[positive_anchor_ix],
        target_rpn_bbox[: positive_anchor_ix.shape[0]] * config.RPN_BBOX_STD_DEV,
    )
    g = modellib.data_generator(
        dataset_train,
        config,
        shuffle=True,
        random_rois=50,
        batch_size=config.IMAGES_PER_GPU,
        detection_targets=True,
    )
    inputs, outputs = next(g)
    losses = trained.keras_model(inputs[:7])[-5:]
    return SimpleNamespace(**locals())


INSPECTED = [
    *("res3_out", "fpn_p2", "fpn_p6", "rpn_class", "rpn_bbox", "ROI"),
    *("mrcnn_class", "mrcnn_bbox", "mrcnn_detection", "mrcnn_mask"),
]


def test_losses_fall_over_both_stages(script):
    epochs, losses, mask_losses = zip(*script.history.losses, strict=True)
    assert epochs == (0, 1, 2)
    assert losses[-1] < 0.5 * losses[0]
    assert np.isfinite(mask_losses).all()


def test_heads_of_other_classes_are_left_out(script):
    assert script.trained.keras_model.get_layer("mrcnn_mask").layer.kernel.shape[-1] == 3


def test_checkpoints_carry_name_and_epoch(script):
    folder = os.path.dirname(script.model_path)
    assert os.path.basename(script.model_path) == "mask_rcnn_shapes_0003.h5"
    assert os.path.dirname(folder) == script.MODEL_DIR
    assert os.path.basename(folder).startswith("shapes2")
    assert (script.model.epoch, script.model.log_dir) == (3, folder)


def test_detections_are_in_the_images_pixels(script):
    assert len(script.results) == 6
    assert any(len(r["rois"]) for r in script.results)
    for r in script.results:
        assert r["masks"].shape == (64, 64, len(r["class_ids"]))
        assert set(r["class_ids"]) <= {1, 2}


def test_average_precision(script):
    assert all(0 <= AP <= 1 for AP in script.APs)
    assert np.mean(script.APs) > 0.3


def test_run_graph_gives_what_detect_uses(script):
    assert list(script.inspected) == INSPECTED
    shapes = {name: value.shape for name, value in script.inspected.items()}
    assert shapes["fpn_p2"] == (1, 16, 16, 32)
    assert shapes["rpn_class"] == (1, len(script.anchors), 2)
    assert shapes["ROI"] == (1, 50, 4)
    assert shapes["mrcnn_mask"] == (1, 10, 28, 28, 3)
    found = script.inspected["mrcnn_detection"][0, :, 5]
    np.testing.assert_allclose(found[: len(script.r["scores"])], script.r["scores"], rtol=1e-4)


def test_positive_anchors_are_refined_to_the_instances(script):
    assert len(script.refined_anchors)
    for box in script.refined_anchors:
        assert utils.compute_overlaps(box[None], script.gt_bbox).max() > 0.98


def test_generator(script):
    inputs, outputs = script.inputs, script.outputs
    assert [array.shape[1:] for array in inputs] == [
        *((64, 64, 3), (15,), (len(script.anchors), 1), (256, 4)),
        *((4,), (4, 4), (64, 64, 4), (50, 4), (16, 4)),
    ]
    assert [array.shape[1:] for array in outputs] == [(16, 1), (16, 3, 4), (16, 28, 28, 3)]
    assert all(np.isfinite(float(loss)) for loss in script.losses)
