"""A network and a data set small enough to train in a test; what differs between backends."""

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.config import Config
from mrcnn.dataset import Dataset

COLOURS = {1: (220, 40, 40), 2: (40, 220, 40)}


def tiny_backbone(input_image, stage5, train_bn):
    """Five strided convolutions; the names are ResNet's, so that its layer shortcuts work."""
    stages, features = [], input_image
    for stage in range(1, 6):
        features = keras.layers.Conv2D(
            8, 3, strides=2, padding="same", activation="relu", name=f"res{stage}_conv"
        )(features)
        stages.append(features)
    return stages


class TinyConfig(Config):
    NAME = "tiny"
    NUM_CLASSES = 1 + 2
    IMAGES_PER_GPU = 2
    STEPS_PER_EPOCH = 2
    VALIDATION_STEPS = 1
    BACKBONE = staticmethod(tiny_backbone)
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    TOP_DOWN_PYRAMID_SIZE = 8
    FPN_CLASSIF_FC_LAYERS_SIZE = 16
    BACKBONE_STRIDES = [16, 32]
    RPN_ANCHOR_SCALES = (16, 32)
    RPN_CONV_CHANNELS = 8
    MASK_CONV_CHANNELS = 8
    RPN_TRAIN_ANCHORS_PER_IMAGE = 16
    PRE_NMS_LIMIT = 40
    POST_NMS_ROIS_TRAINING = 20
    POST_NMS_ROIS_INFERENCE = 20
    TRAIN_ROIS_PER_IMAGE = 8
    MAX_GT_INSTANCES = 3
    MINI_MASK_SHAPE = (14, 14)
    DETECTION_MAX_INSTANCES = 4
    DETECTION_MIN_CONFIDENCE = 0.0


class Rectangles(Dataset):
    """Coloured rectangles on grey.

    Args:
        images: for each image a list of `(class id, (y1, x1, y2, x2))`; negative ids are crowds.
        size: `(height, width)` of the images.
        sources: name of each image's source; "toys" for all by default.
    """

    def __init__(self, images, size=(48, 60), sources=None):
        super().__init__()
        self.size = size
        sources = sources or ["toys"] * len(images)
        for class_id, name in enumerate(("red", "green"), start=1):
            self.add_class("toys", class_id, name)
        for number, (instances, source) in enumerate(zip(images, sources, strict=True)):
            path = f"image{number}.png"
            self.add_image(source, number, path, instances=instances)
        self.prepare()
        self.source_class_ids = dict.fromkeys([*self.source_class_ids, *sources], [0, 1, 2])

    def load_image(self, image_id):
        image = np.full((*self.size, 3), 90 + image_id, np.uint8)
        for class_id, (y1, x1, y2, x2) in self.image_info[image_id]["instances"]:
            image[y1:y2, x1:x2] = COLOURS[abs(class_id)]
        return image

    def load_mask(self, image_id):
        instances = self.image_info[image_id]["instances"]
        masks = np.zeros((*self.size, len(instances)), bool)
        for index, (_, (y1, x1, y2, x2)) in enumerate(instances):
            masks[y1:y2, x1:x2, index] = True
        return masks, np.array([class_id for class_id, _ in instances], np.int32)


ONE_OR_TWO_EACH = [
    [(1, (5, 6, 25, 30))],
    [(2, (20, 20, 44, 50)), (1, (2, 2, 16, 14))],
    [],
    [(2, (10, 30, 40, 58))],
    [(1, (8, 8, 40, 40))],
]


@pytest.fixture(scope="session")
def tiny_config():
    """Makes the smallest configuration of a network with all its parts."""
    return TinyConfig


@pytest.fixture(scope="session")
def rectangles():
    """Makes a prepared data set; by default of five images, one of them without an instance."""
    return lambda images=None, **settings: Rectangles(
        ONE_OR_TWO_EACH if images is None else images, **settings
    )


@pytest.fixture
def tensorflow():
    """TensorFlow, where it is the backend."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("holds for TensorFlow alone")
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="session")
def value_and_gradients():
    """Makes the value of a function of tensors, and its gradient by each array given for them."""

    def of(function, *arrays):
        backend = keras.backend.backend()
        tensors = [ops.convert_to_tensor(array) for array in arrays]
        if backend == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(tensors)
                value = function(*tensors)
            gradients = tape.gradient(value, tensors, unconnected_gradients="zero")
        elif backend == "jax":
            import jax

            places = tuple(range(len(tensors)))
            value, gradients = jax.value_and_grad(function, places)(*tensors)
        else:
            import torch

            tensors = [tensor.requires_grad_() for tensor in tensors]
            value = function(*tensors)
            gradients = torch.autograd.grad(value, tensors, materialize_grads=True)
        return float(ops.convert_to_numpy(value)), [ops.convert_to_numpy(g) for g in gradients]

    return of
