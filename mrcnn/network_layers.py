"""Small layers that join the parts of the network."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from mrcnn.boxes import norm_boxes_graph
from mrcnn.tensors import Tensor


class Frame(keras.layers.Layer):
    """The `(height, width)` of the network's input, int32 [2]."""

    def call(self, image: Tensor) -> Tensor:
        return ops.stack([ops.convert_to_tensor(s, "int32") for s in ops.shape(image)[1:3]])

    def compute_output_spec(self, image: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor((2,), dtype="int32")


class Normalise(keras.layers.Layer):
    """Pixel boxes to normalised ones; rows of zeros, the padding, stay zero."""

    def call(self, boxes: Tensor, frame: Tensor) -> Tensor:
        there = ops.cast(ops.any(boxes != 0, axis=-1, keepdims=True), "float32")
        return norm_boxes_graph(boxes, frame) * there


class PositiveBoxes(keras.layers.Layer):
    """The first `count` regions; those that are not positive are zeroed."""

    def __init__(self, count: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.count = count

    def call(self, rois: Tensor, class_ids: Tensor) -> Tensor:
        positive = ops.cast(class_ids[:, : self.count] > 0, rois.dtype)
        return rois[:, : self.count] * positive[..., None]


class Output(keras.layers.Wrapper):
    """Hands on what a branch computed under the name, and with the weights, of its last layer."""

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        super().__init__(layer, dtype="float32", **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        return inputs


class LossLayer(keras.layers.Layer):
    """A loss as a layer, so that it is an output of its name; always float32."""

    def __init__(self, function: Callable[..., Tensor], **kwargs: Any):
        super().__init__(dtype="float32", **kwargs)
        self.function = function

    def call(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)

    def compute_output_spec(self, *tensors: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor((), dtype="float32")
