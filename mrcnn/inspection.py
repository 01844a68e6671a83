"""Looking into a network: its layers, the tensors between them, and why it found nothing."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.network import MaskRCNNNetwork
from mrcnn.printing import log


class LookInside:
    """A `MaskRCNN`'s ways to look inside, by matterport's names, as a base class."""

    keras_model: keras.Model
    mold_inputs: Callable[..., Any]  # this and the next as of `mrcnn.detecting.Detecting`
    _inputs: Callable[..., Any]

    def run_graph(
        self,
        images: Sequence[np.ndarray],
        outputs: Iterable[tuple[str, keras.KerasTensor]],
        image_metas: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Values of tensors inside the network, printed and returned in a dict by name.

        Args:
            images: as for `detect`; molded ones if `image_metas` are given.
            outputs: pairs of a name and a tensor, such as
                `("fpn_p2", model.keras_model.get_layer("fpn_p2").output)`.
            image_metas: of molded images.

        Raises:
            ValueError: if an output cannot be computed from images alone.
        """
        if image_metas is None:
            images, image_metas, _ = self.mold_inputs(images)
        arrays = self._inputs(np.asarray(images, np.float32), np.asarray(image_metas))
        values = run_graph(self.keras_model, arrays, outputs)
        for name, value in values.items():
            log(name, value)
        return values

    def ancestor(
        self, tensor: keras.KerasTensor, name: str | re.Pattern, checked: Any = None
    ) -> keras.KerasTensor | None:
        """See `mrcnn.inspection.ancestor`; `checked` is accepted for compatibility."""
        return ancestor(tensor, name)

    def get_trainable_layers(self) -> list[keras.layers.Layer]:
        """The layers that hold weights, in the models inside the network, too."""
        return weighted_layers(self.keras_model)

    def find_trainable_layer(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        """The layer that holds the weights, where others are wrapped around it."""
        return self.find_trainable_layer(layer.layer) if hasattr(layer, "layer") else layer


def weighted_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """The layers that hold weights themselves, however deep they lie, each once."""
    layers = network._flatten_layers(include_self=False, recursive=True)
    inner = {id(la): la for la in layers if not list(la._flatten_layers(include_self=False))}
    return [layer for layer in inner.values() if layer.weights]


def ancestor(tensor: keras.KerasTensor, name: str | re.Pattern) -> keras.KerasTensor | None:
    """The nearest tensor of a layer's name among those that a tensor was computed from.

    Args:
        tensor: a `keras.KerasTensor`, the output of a layer.
        name: of the layer, or a regular expression of it; a final ":0" is ignored.

    Returns:
        The tensor, or None.

    Raises:
        ValueError: for the name of an operation inside a layer.
    """
    expression, flags = (name, 0) if isinstance(name, str) else (name.pattern, name.flags)
    expression = expression.removesuffix(":0")
    layer, slash, _ = expression.partition("/")
    if slash:
        raise ValueError(
            f"{expression} names an operation inside a layer, which in Keras 3 is no tensor of the "
            f"network. Take what goes in and out, keras_model.get_layer({layer!r}).input and "
            ".output; docs/migration.md computes the steps of the proposals from it."
        )
    seen, waiting = set(), [tensor]
    while waiting:
        history = waiting.pop(0)._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        for parent in node.input_tensors:
            if id(parent) not in seen:
                if re.fullmatch(expression, parent._keras_history.operation.name, flags):
                    return parent
                seen.add(id(parent))
                waiting.append(parent)
    return None


def run_graph(
    network: MaskRCNNNetwork | keras.Model,
    arrays: Sequence[np.ndarray],
    outputs: Iterable[tuple[str, keras.KerasTensor]],
) -> dict[str, np.ndarray]:
    """Values of tensors between the layers of a network.

    Args:
        network: a `MaskRCNNNetwork`, or a model with the inputs of its inference model.
        arrays: inputs of its inference model: molded images, their metas, anchors.
        outputs: pairs of a name and a tensor, such as `network.get_layer("fpn_p2").output`.

    Returns:
        Dict of the arrays by name, in the same order.

    Raises:
        TypeError: if an output is no tensor of a Keras model.
        ValueError: if an output cannot be computed from these inputs.
    """
    detecting, wanted = getattr(network, "inference", None) or network, dict(outputs)
    for name, tensor in wanted.items():
        if not isinstance(tensor, keras.KerasTensor):
            raise TypeError(
                f"{name!r} must be a tensor of the network, such as "
                f"keras_model.get_layer('ROI').output; received {tensor!r}."
            )
        try:
            keras.Model(detecting.inputs, tensor)
        except ValueError as error:
            raise ValueError(
                f"{name!r} cannot be computed from images alone. In a network for training take "
                "keras_model.inference.get_layer(NAME).output; for what is inside a head, call "
                "the layer on its input as docs/migration.md shows."
            ) from error
    values = keras.Model(detecting.inputs, wanted)(arrays, training=False)
    return {name: keras.ops.convert_to_numpy(values[name]) for name in wanted}


def why_nothing(rois: np.ndarray, probabilities: np.ndarray, config: Config) -> str:
    """The stage at which nothing was left of an image, in a sentence.

    Args:
        rois: [n, 4], the proposals, zero-padded.
        probabilities: [n, classes].
        config: the network's `Config`.
    """
    probabilities = np.asarray(probabilities)[np.any(rois, axis=1)]
    if not len(probabilities):
        return "Nothing found: the region proposal network gave no proposal."
    if not np.isfinite(probabilities).all():
        return "Nothing found: probabilities are not finite, the weights are of a failed training."
    taken = probabilities if config.DETECTION_ALL_CLASSES else _where_best(probabilities)
    scores = taken[:, 1:].max(axis=1, initial=0)
    if not scores.any():
        best = probabilities[:, 1:].max(initial=0)
        return (
            f"Nothing found: all {len(probabilities)} proposals are background; the best "
            f"probability of anything else is {best:.3f}."
        )
    if scores.max() < (config.DETECTION_MIN_CONFIDENCE or 0):
        return (
            f"Nothing found: the best score of {len(probabilities)} proposals is "
            f"{scores.max():.3f} (class {taken[scores.argmax(), 1:].argmax() + 1}), below "
            f"DETECTION_MIN_CONFIDENCE={config.DETECTION_MIN_CONFIDENCE}."
        )
    return "Nothing found: no refined box has an area within the image."


def _where_best(probabilities):
    """The probabilities, zero but for each row's largest."""
    return probabilities * (probabilities == probabilities.max(axis=1, keepdims=True))
