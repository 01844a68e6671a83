"""What a user writes, for `mypy` and editors alone: nothing runs it, nothing in it may be at fault.

Where a hint is too narrow, what is right here becomes an error; where one says nothing at all,
`assert_type` does.
"""

from pathlib import Path
from typing import Any, assert_type

import keras
import numpy as np
from matplotlib.axes import Axes

import mrcnn.model as modellib
from lesion import Analyzer
from lesion.analysis import Analysis
from lesion.measurements import Measurements
from mrcnn import utils, visualize
from mrcnn.coco_metrics import AveragePrecision, evaluate_dataset
from mrcnn.config import Config, PaperConfig
from mrcnn.dataset import Dataset
from mrcnn.images import read_image
from mrcnn.model import MaskRCNN
from mrcnn.network import MaskRCNNNetwork


class CellConfig(Config):
    NAME = "cell"
    BACKBONE = "resnet50"
    TRAIN_BN = None
    GPU_COUNT = 1
    IMAGES_PER_GPU = 8
    STEPS_PER_EPOCH = (657 - 65) / IMAGES_PER_GPU
    VALIDATION_STEPS = None
    NUM_CLASSES = 1 + 1
    BACKBONE_STRIDES = (8, 16, 32, 64)
    RPN_ANCHOR_SCALES = (8, 16, 32, 64)
    RPN_ANCHOR_RATIOS = (0.5, 1, 2)
    RPN_BBOX_STD_DEV = [0.1, 0.1, 0.2, 0.2]
    IMAGE_RESIZE_MODE = "crop"
    IMAGE_MIN_DIM = 512
    IMAGE_MAX_DIM = 512
    IMAGE_MIN_SCALE = 2.0
    MEAN_PIXEL = np.array([43.53, 39.56, 48.22])
    USE_MINI_MASK = True
    MINI_MASK_SHAPE = [56, 56]
    MASK_SHAPE = (28, 28)
    DETECTION_MIN_CONFIDENCE = 0
    LEARNING_RATE_DECAY = "cosine"
    WEIGHT_DECAY = 0
    GRADIENT_CLIP_NORM = None
    LOSS_WEIGHTS = {"rpn_class_loss": 1, "rpn_bbox_loss": 1.5}
    OPTIMIZER = "adamw"
    COLOUR = "red"  # one of their own


class GreyConfig(Config):
    IMAGE_CHANNEL_COUNT = 1
    MEAN_PIXEL = 127.5
    BACKBONE = keras.applications.ResNet50V2
    OPTIMIZER = keras.optimizers.Adam


class LargeConfig(PaperConfig):
    LEARNING_RATE = 0.01
    GRADIENT_CLIP_NORM = 5.0


class InferenceConfig(CellConfig):
    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"

    def __init__(self, scale: float):
        super().__init__(DETECTION_MAX_INSTANCES=400)
        self.IMAGE_MIN_SCALE = scale
        self.ROI_ALIGNED = True
        self.BATCH_SIZE = 2


class CellDataset(Dataset):
    def load_cells(self, folder: Path) -> None:
        self.add_class("cell", 1, "nucleus")
        for number, path in enumerate(sorted(folder.iterdir())):
            self.add_image("cell", image_id=number, path=path, height=64, polygons=[[0, 1]])

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        info = self.image_info[image_id]
        if info["source"] != "cell":
            return super().load_mask(image_id)
        masks = np.zeros([info["height"], 64, len(info["polygons"])], np.uint8)
        number = self.class_names.index("nucleus")
        return masks.astype(bool), np.full([masks.shape[-1]], number, dtype=np.int32)

    def image_reference(self, image_id: int) -> str:
        info = self.image_info[image_id]
        return info["path"] if info["source"] == "cell" else super().image_reference(image_id)


def settings() -> None:
    config = CellConfig(IMAGE_MAX_DIM=1024)
    config.display()
    config.IMAGES_PER_GPU = 1
    assert_type(config.BATCH_SIZE, int)
    assert_type(config.IMAGE_SHAPE, np.ndarray)
    assert_type(config.IMAGE_META_SIZE, int)
    assert_type(config.LEARNING_RATE / 10, float)
    print(config.COLOUR.upper())
    height, width = config.IMAGE_SHAPE[:2]
    print(height * width, LargeConfig().LEARNING_RATE * 2, GreyConfig().NUM_CLASSES + 1)


def data(dataset: CellDataset, config: CellConfig) -> None:
    dataset.load_cells(Path("train"))
    dataset.prepare()
    assert_type(dataset.num_images, int)
    for image_id in np.random.choice(dataset.image_ids, 4):
        image = dataset.load_image(image_id)
        mask, class_ids = dataset.load_mask(image_id)
        image, window, scale, padding, crop = utils.resize_image(
            image,
            min_dim=config.IMAGE_MIN_DIM,
            max_dim=config.IMAGE_MAX_DIM,
            min_scale=config.IMAGE_MIN_SCALE,
            mode=config.IMAGE_RESIZE_MODE,
        )
        mask = utils.resize_mask(mask, scale, padding, crop)
        boxes = utils.extract_bboxes(mask)
        visualize.display_top_masks(image, mask, class_ids, dataset.class_names)
        visualize.display_instances(image, boxes, mask, class_ids, dataset.class_names)
        small = utils.minimize_mask(boxes, mask, config.MINI_MASK_SHAPE)
        utils.expand_mask(boxes, small, image.shape)
        utils.expand_mask(boxes, small, config.IMAGE_SHAPE)
        visualize.draw_box(image, boxes[0], [255, 0, 0])
    anchors = utils.generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        modellib.compute_backbone_shapes(config, config.IMAGE_SHAPE),
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
    )
    modellib.build_rpn_targets(config.IMAGE_SHAPE, anchors, class_ids, boxes, config)


def training(train: CellDataset, val: CellDataset) -> None:
    config = CellConfig()
    model = MaskRCNN(mode="training", config=config, model_dir=Path("logs"))
    assert_type(model.keras_model, MaskRCNNNetwork)
    model.load_weights("coco", by_name=True, exclude=["mrcnn_mask"])
    model.train(train, val, learning_rate=config.LEARNING_RATE, epochs=2, layers="heads")
    history = model.train(
        train,
        None,
        config.LEARNING_RATE / 10,
        epochs=4,
        layers="all",
        augmentation=keras.layers.RandomFlip("horizontal"),
        custom_callbacks=[AveragePrecision(model, val), keras.callbacks.CSVLogger("a.csv")],
        no_augmentation_sources=["cell"],
    )
    if history is not None:
        print(history.history["loss"])
    assert_type(model.epoch, int)
    assert_type(model.log_dir, str)
    assert_type(model.class_names, list[str] | None)
    model.class_names = ["BG", "nucleus"]
    model.keras_model.save_weights(Path(model.log_dir) / "last.weights.h5")


def detection(dataset: CellDataset) -> None:
    config = InferenceConfig(2)
    model = MaskRCNN("inference", config, "logs")
    model.load_weights(model.find_last(), by_name=True)
    result = model.detect([read_image("a.png")], verbose=1)[0]
    assert_type(result, dict[str, Any])
    print(result["rois"].shape, result["scores"].max())
    image, meta, class_ids, boxes, masks = modellib.load_image_gt(
        dataset, config, dataset.image_ids[0], use_mini_mask=False
    )
    axes = visualize.display_instances(
        image,
        result["rois"],
        result["masks"],
        result["class_ids"],
        dataset.class_names,
        result["scores"],
        colors=visualize.random_colors(len(result["rois"])),
        save_to="found.png",
    )
    assert_type(axes, Axes)
    molded = np.expand_dims(modellib.mold_image(image, config), 0)
    model.detect_molded(molded, np.expand_dims(meta, 0))
    model.run_graph([image], [("p2", model.keras_model.get_layer("fpn_p2").output)])
    assert_type(model.get_anchors(config.IMAGE_SHAPE), np.ndarray)
    average, _, _, overlaps = utils.compute_ap(
        boxes, class_ids, masks, result["rois"], result["class_ids"], result["scores"], masks
    )
    assert_type(average, float)
    modellib.log("overlaps", overlaps)
    print(evaluate_dataset(model, dataset, dataset.image_ids[:100])["segm"]["AP"])
    MaskRCNN.from_weights("coco", DETECTION_MIN_CONFIDENCE=0.5).export("served/1")


def analysis() -> None:
    analyzer = Analyzer(views=1)
    result = analyzer.analyze("mole.jpg", patient={"age": 50, "sex": "female"})
    assert_type(result, Analysis)
    assert_type(result.mask, np.ndarray | None)
    assert_type(result.probabilities, dict[str, float] | None)
    assert_type(result.measurements, Measurements | None)
    print([warning.message for warning in result.warnings], result.to_dict()["boundary"])
    pixels = np.zeros([64, 64, 3], np.uint8)
    for each in analyzer.analyze_many([Path("a.dcm"), pixels], patients=[{"age": "50"}, None]):
        print(each.mask if isinstance(each, Analysis) else each.reason)
