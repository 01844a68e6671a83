"""A Mask R-CNN as a TensorFlow SavedModel: from files or pixels to full-size masks.

The graph does what `MaskRCNN.detect` does before and after the network. Weights are constants in
it, so that there is nothing to restore; with variables it would be as quick.
"""

import os
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mrcnn.anchors import generate_anchors, normalised_anchors
from mrcnn.boxes import denorm_boxes_graph, norm_boxes_graph, scale_boxes
from mrcnn.config import Config
from mrcnn.images_graph import decode
from mrcnn.molding import META
from mrcnn.molding_graph import mold_image, paste_mask, unmold_semantic
from mrcnn.saved_model import Signature, write_signatures
from mrcnn.tensors import for_converters, own_class

FILES, IMAGES = "serving_default", "images"
"""The signatures, of encoded files `image_bytes` and of `images` uint8 [batch, h, w, 3]."""

NETWORK = "serving_default"
"""The one signature of a network alone."""

_WARMUP_SIZE = (480, 640)
_ANY_SIZE = ("none", "pad64")  # the modes whose inputs are of many sizes

Read = Callable[[tf.Tensor], tf.Tensor]
"""From one element of a batch to its image uint8 [h, w, 3]."""
Answer = Callable[[tf.Tensor, Read], dict[str, tf.Tensor]]
"""From a batch, and how to read its elements, to outputs [batch, ...] by name."""


def export_saved_model(model: Any, path: str | os.PathLike, limit: int | None = None) -> None:
    """Writes a `MaskRCNN` as a SavedModel, which needs no Python; see `Detector` for its outputs.

    Args:
        model: with its weights.
        path: the folder to write, for TensorFlow Serving one named by a version number. A
            SavedModel that is there is replaced.
        limit: number of detections in an answer; see `Detector`.

    Raises:
        ValueError: if backend or configuration cannot be expressed in a graph.
        FileExistsError: if there is anything else at `path`.
    """
    write_saved_model(path, Detector(model, limit), model.metadata())


def write_saved_model(path: str | os.PathLike, answer: Answer, metadata: Mapping) -> None:
    """Writes a SavedModel with the two signatures, completely or not at all.

    Beside it, in `assets.extra`, lie its description `model.json` and a request for each signature,
    which TensorFlow Serving runs before it takes others.

    Args:
        path: as for `export_saved_model`.
        answer: what the signatures compute; may have `more_signatures` by name, `Signature`s of
            `image_bytes` and more, whose `example` leaves out the former.
        metadata: of the model, for `model.json`.

    Raises:
        ValueError, FileExistsError: as `export_saved_model`.
        OSError: if it cannot be written.
    """

    def of_files(image_bytes):
        return answer(some(image_bytes), decode)

    def of_images(images):
        return answer(some(images), tf.identity)

    grey = np.full((1, *_WARMUP_SIZE, 3), 127, np.uint8)
    example = {"image_bytes": [tf.io.encode_png(grey[0]).numpy()]}
    files = tf.TensorSpec([None], tf.string, "image_bytes")
    images = tf.TensorSpec([None, None, None, 3], tf.uint8, "images")
    signatures = {
        FILES: Signature(of_files, [files], example),
        IMAGES: Signature(of_images, [images], {"images": grey}),
    }
    for name, more in getattr(answer, "more_signatures", {}).items():
        signatures[name] = more._replace(example={**example, **more.example})
    write_signatures(path, signatures, metadata)


def some(batch: tf.Tensor) -> tf.Tensor:
    """A batch of files or images, which has to hold at least one, and each a pixel."""
    filled = tf.debugging.assert_positive(
        tf.shape(batch), "A batch must hold an image or more, of a pixel or more."
    )
    with tf.control_dependencies([filled]):
        return tf.identity(batch)


def export_network(model: Any, path: str | os.PathLike, batch_size: int = 1) -> None:
    """Writes the network of a `MaskRCNN` alone as a SavedModel for converters.

    Its operations are those that TFLite, ONNX and others have, too, and all its shapes are fixed.
    One signature takes `images`, float32 [batch_size, *IMAGE_SHAPE]: pixels in 0..255, resized and
    padded as by `mrcnn.molding.resize_for`; MEAN_PIXEL is subtracted inside. It gives

        detections  float32 [batch_size, n, 6] as `DetectionLayer`, which takes all of the input
                    for the image
        masks       float32 [batch_size, n, m, m] in 0..1, each of its detection's class
        semantic    float32 [batch_size, h / 4, w / 4, classes], with `SEMANTIC_BRANCH`
        presence    float32 [batch_size, classes], with `SEMANTIC_BRANCH`

    of which `mrcnn.detection.unmold_detections` and `mrcnn.semantic.unmold_semantic` make what
    `detect` gives.

    Args:
        model: with its weights.
        path: the folder to write. A SavedModel that is there is replaced.
        batch_size: number of images that the network takes at once.

    Raises:
        ValueError: if backend, configuration or `batch_size` cannot be expressed in such a graph.
        FileExistsError: if there is anything else at `path`.
        OSError: if it cannot be written.
    """
    config, network = model.config, model.keras_model.inference
    _check_fixed(config, batch_size)
    shape = [int(side) for side in (batch_size, *config.IMAGE_SHAPE)]
    anchors = normalised_anchors(config, shape[1:3])[None].repeat(shape[0], axis=0)
    metas = np.zeros((shape[0], config.IMAGE_META_SIZE), np.float32)
    metas[:, META["window"]] = [0, 0, *shape[1:3]]
    mean = np.asarray(config.MEAN_PIXEL, np.float32)

    def run(images):
        inputs = [images - mean, tf.constant(metas), tf.constant(anchors)]
        with frozen(network), for_converters():
            detections, _, _, masks, *others = network(inputs)
        found = {"detections": detections, "masks": own_class(masks, detections[..., 4])}
        if config.SEMANTIC_BRANCH:
            found["semantic"], found["presence"] = others[-2:]
        return found

    spec, grey = tf.TensorSpec(shape, tf.float32, "images"), np.full(shape, 127, np.float32)
    signature = Signature(run, [spec], {"images": grey})
    write_signatures(path, {NETWORK: signature}, model.metadata())


def frozen(network: keras.Model) -> keras.StatelessScope:
    """A scope in which the weights of a network are constants of the graph that is being traced."""
    with tf.init_scope():  # outside the graph
        values = [(weight, weight.numpy()) for weight in network.variables]
    return keras.StatelessScope(values)


class Detector:
    """`MaskRCNN.detect` on tensors, with the weights as constants.

    Called as an `Answer`, it gives for each image `limit` detections, best first, zero-padded:

        num_detections  int32 [batch]
        boxes           int32 [batch, limit, 4], in the image's pixels
        class_ids       int32 [batch, limit]
        class_names     string [batch, limit], empty where there is no detection
        scores          float32 [batch, limit]
        masks           uint8 [batch, limit, H, W], 1 inside; without a threshold float32
        image_size      int32 [batch, 2], height and width
        semantic        float32 [batch, H, W, classes], with `SEMANTIC_BRANCH`
        presence        float32 [batch, classes], with `SEMANTIC_BRANCH`

    H and W are the largest height and width in the batch: a smaller image lies at the top left.

    Args:
        model: a `MaskRCNN` with its weights.
        limit: `DETECTION_MAX_INSTANCES` by default.
        mask_threshold: least probability of a mask's pixel; None gives the probabilities.

    Raises:
        ValueError: if the configuration cannot be expressed in a graph.
    """

    def __init__(self, model: Any, limit: int | None = None, mask_threshold: float | None = 0.5):
        self.config = model.config
        _check(self.config)
        self.network = model.keras_model.inference
        if limit is not None and (not isinstance(limit, Integral) or limit < 1):
            raise ValueError(f"`limit` is a number of detections, at least 1; received {limit!r}.")
        self.limit = int(limit or self.config.DETECTION_MAX_INSTANCES)
        self.mask_threshold = mask_threshold
        names = model.class_names or map(str, range(self.config.NUM_CLASSES))
        self.class_names = ["", *list(names)[1:]]
        # Of the network's input, where it is the same for all images.
        self.frame: list[int | None] = [None, None]
        if self.config.IMAGE_RESIZE_MODE not in _ANY_SIZE:
            self.frame = [int(side) for side in self.config.IMAGE_SHAPE[:2]]
        # One function, so that the signatures share one copy of the weights.
        self._run = tf.function(
            self._detect,
            [tf.TensorSpec([None, *self.frame, 3]), tf.TensorSpec([None, 4], tf.int32)],
            autograph=False,
        )

    def __call__(self, elements: tf.Tensor, read: Read) -> dict[str, tf.Tensor]:
        outputs = self._run.get_concrete_function().structured_outputs
        found = {name: tf.TensorSpec(x.shape[1:], x.dtype) for name, x in outputs.items()}
        places = {
            name: tf.TensorSpec([count], tf.int32)
            for name, count in (("window", 4), ("frame", 2), ("size", 2))
        }

        def mold(element):
            image = read(element)
            molded, window = mold_image(image, self.config)
            molded = tf.ensure_shape(molded, [*self.frame, 3])
            sizes = {"frame": tf.shape(molded)[:2], "size": tf.shape(image)[:2]}
            return molded, {"window": window, **sizes}

        def detect_one(element):
            molded, place = mold(element)
            outputs = self._run(molded[None], place["window"][None])
            return {name: rows[0] for name, rows in outputs.items()}, place

        if None in self.frame:  # inputs of different sizes make no batch
            found, places = tf.map_fn(detect_one, elements, fn_output_signature=(found, places))
        else:
            molded = tf.TensorSpec([*self.frame, 3])
            molded, places = tf.map_fn(mold, elements, fn_output_signature=(molded, places))
            found = self._run(molded, places["window"])
        canvas = tf.reduce_max(places["size"], axis=0)
        answer = tf.map_fn(
            lambda parts: self._unmold(canvas, **parts),
            {**found, **places},
            fn_output_signature=self._output_specs(),
        )
        return {**answer, "image_size": places["size"]}

    @property
    def _mask_dtype(self):
        return tf.float32 if self.mask_threshold is None else tf.uint8

    def _output_specs(self):
        limit, classes = self.limit, self.config.NUM_CLASSES - 1
        specs = {
            "num_detections": tf.TensorSpec([], tf.int32),
            "boxes": tf.TensorSpec([limit, 4], tf.int32),
            "class_ids": tf.TensorSpec([limit], tf.int32),
            "class_names": tf.TensorSpec([limit], tf.string),
            "scores": tf.TensorSpec([limit]),
            "masks": tf.TensorSpec([limit, None, None], self._mask_dtype),
        }
        if self.config.SEMANTIC_BRANCH:
            specs["semantic"] = tf.TensorSpec([None, None, classes])
            specs["presence"] = tf.TensorSpec([classes])
        return specs

    def _detect(self, molded, windows):
        """The network's `detections` [b, n, 6], each one's mask of its class [b, n, m, m], …"""
        batch, frame = tf.shape(molded)[0], tf.shape(molded)[1:3]
        if None in self.frame:
            reason = "The pyramid halves images five times: both sides must be divisible by 32."
            with tf.control_dependencies([tf.debugging.assert_equal(frame % 32, 0, reason)]):
                molded = tf.identity(molded)
            anchors = _anchors(self.config, frame)
        else:
            anchors = tf.constant(normalised_anchors(self.config, self.frame))
        anchors = tf.tile(anchors[None], [batch, 1, 1])
        rest = self.config.IMAGE_META_SIZE - META["window"].stop
        metas = tf.cast(tf.pad(windows, [[0, 0], [META["window"].start, rest]]), tf.float32)
        with frozen(self.network):
            detections, _, _, masks, *others = self.network([molded, metas, anchors])
        class_ids = tf.cast(detections[..., 4], tf.int32)
        masks = tf.gather(masks, class_ids, axis=4, batch_dims=2)
        found = {"detections": detections, "masks": masks}
        if self.config.SEMANTIC_BRANCH:
            found["semantic"], found["presence"] = others[-2:]
        return found

    def _unmold(self, canvas, detections, masks, window, frame, size, **semantic):
        """One image's detections in its own pixels, as `detection.unmold_detections`."""
        normalised = norm_boxes_graph(window, frame)
        origin = tf.tile(normalised[:2], [2])
        extent = tf.tile(normalised[2:] - normalised[:2], [2])
        # A window of one pixel has no extent.
        relative = tf.where(extent > 0, (detections[:, :4] - origin) / extent, [0.0, 0, 1, 1])
        boxes = denorm_boxes_graph(relative, size)
        solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & (detections[:, 4] > 0)
        kept = tf.where(solid)[: self.limit, 0]
        count = tf.size(kept)
        boxes, detections, masks = (
            _filled_up(tf.gather(rows, kept), self.limit) for rows in (boxes, detections, masks)
        )
        edges = tf.cast(boxes, tf.float64)
        if enlarged := self.config.MASK_BOX_SCALE != 1.0:
            edges = self._reach(detections, window, frame, size)

        def paste(mask, box):
            placed = paste_mask(mask, box, size, canvas, fade=not enlarged)
            if self.mask_threshold is None:
                return placed
            return tf.cast(placed >= self.mask_threshold, tf.uint8)

        masks = tf.map_fn(
            lambda parts: tf.cond(
                parts[2] < count,
                lambda: paste(parts[0], parts[1]),
                lambda: tf.zeros(canvas, self._mask_dtype),
            ),
            (masks, edges, tf.range(self.limit)),
            fn_output_signature=tf.TensorSpec([None, None], self._mask_dtype),
        )
        class_ids = tf.cast(detections[:, 4], tf.int32)
        if semantic:
            cells = unmold_semantic(semantic["semantic"], size, frame, window, canvas)
            semantic = {"semantic": cells, "presence": semantic["presence"]}
        return {
            "num_detections": count,
            "boxes": boxes,
            "class_ids": class_ids,
            "class_names": tf.gather(self.class_names, class_ids),
            "scores": detections[:, 5],
            "masks": masks,
            **semantic,
        }

    def _reach(self, detections, window, frame, size):
        """The enlarged boxes of the masks in the image's pixels, float64 [n, 4]."""
        window, frame, size = (tf.cast(x, tf.float64) for x in (window, frame, size))
        reach = tf.cast(scale_boxes(detections[:, :4], self.config.MASK_BOX_SCALE), tf.float64)
        reach = reach * tf.tile(frame - 1, [2]) + [0, 0, 1, 1]
        factors = size / (window[2:] - window[:2])
        return (reach - tf.tile(window[:2], [2])) * tf.tile(factors, [2])


def _check(config: Config) -> None:
    mode = config.IMAGE_RESIZE_MODE
    if mode == "crop":
        raise ValueError(
            "IMAGE_RESIZE_MODE 'crop' looks at a random part of an image, which no server can "
            "answer for; export with 'square', 'stretch', 'pad64' or 'none'."
        )
    if config.IMAGE_CHANNEL_COUNT != 3:
        raise ValueError(
            "A SavedModel takes RGB, so IMAGE_CHANNEL_COUNT must be 3; it is "
            f"{config.IMAGE_CHANNEL_COUNT}."
        )
    if config.SEMANTIC_BRANCH and mode in _ANY_SIZE:
        raise ValueError(
            "The maps of a SEMANTIC_BRANCH are put together to a batch, for which all inputs must "
            f"be of one size; IMAGE_RESIZE_MODE is {mode!r}, use 'square' or 'stretch'."
        )
    if config.COMPUTE_BACKBONE_SHAPE is not None and mode in _ANY_SIZE:
        raise ValueError(
            f"IMAGE_RESIZE_MODE {mode!r} needs anchors for inputs of any size, which a "
            "COMPUTE_BACKBONE_SHAPE in Python cannot give in a graph; use 'square' or 'stretch'."
        )


def _check_fixed(config: Config, batch_size: int) -> None:
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(
            "batch_size is the number of images that the network takes at once, a whole number of "
            f"at least 1; received {batch_size!r}."
        )
    if config.IMAGE_RESIZE_MODE in _ANY_SIZE:
        raise ValueError(
            "The network is written for inputs of one size, which IMAGE_RESIZE_MODE "
            f"{config.IMAGE_RESIZE_MODE!r} does not give; use 'square' or 'stretch', as in "
            "MaskRCNN.from_weights(path, IMAGE_RESIZE_MODE='square', IMAGE_MAX_DIM=1024)."
        )
    if config.PRECISION != "float32":
        raise ValueError(
            f"Converters take a network of float32; PRECISION is {config.PRECISION!r}. Load it "
            "with MaskRCNN.from_weights(path, PRECISION='float32'), which takes the same weights."
        )
    if config.TRAIN_BN is True:
        raise ValueError(
            "TRAIN_BN=True normalises by the statistics of the images at hand, which converters "
            "do not know; load it with MaskRCNN.from_weights(path, TRAIN_BN=False)."
        )


def _anchors(config, frame):
    """`normalised_anchors` of an input of any size: float32 [a, 4]."""
    levels = []
    for scale, stride in zip(config.RPN_ANCHOR_SCALES, config.BACKBONE_STRIDES, strict=True):
        at_origin = generate_anchors(scale, config.RPN_ANCHOR_RATIOS, (1, 1), stride, 1)
        rows, columns = (
            tf.range(0, frame[axis], stride * config.RPN_ANCHOR_STRIDE) for axis in (0, 1)
        )
        centres = tf.reshape(tf.stack(tf.meshgrid(rows, columns, indexing="ij"), -1), [-1, 1, 2])
        centres = tf.cast(tf.tile(centres, [1, 1, 2]), tf.float32)
        levels.append(tf.reshape(at_origin.astype(np.float32) + centres, [-1, 4]))
    return norm_boxes_graph(tf.concat(levels, 0), frame)


def _filled_up(rows, count):
    """Rows [n, ...] with zeros below up to [count, ...]."""
    spare = [[0, count - tf.shape(rows)[0]]] + [[0, 0]] * (rows.shape.rank - 1)
    return tf.ensure_shape(tf.pad(rows, spare), [count, *rows.shape[1:]])
