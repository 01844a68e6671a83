"""A Mask R-CNN as a TensorFlow SavedModel: from files or pixels to full-size masks.

The graph does what `MaskRCNN.detect` does before and after the network. Weights are constants in
it, so that there is nothing to restore; with variables it would be as quick.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from mrcnn.anchors import generate_anchors, normalised_anchors
from mrcnn.boxes import denorm_boxes_graph, norm_boxes_graph, scale_boxes
from mrcnn.config import Config
from mrcnn.files import atomic_path
from mrcnn.images_graph import decode
from mrcnn.molding import META
from mrcnn.molding_graph import mold_image, paste_mask, unmold_semantic

FILES, IMAGES = "serving_default", "images"
"""The signatures, of encoded files `image_bytes` and of `images` uint8 [batch, h, w, 3]."""

EXTRA = "assets.extra"
WARMUP = "tf_serving_warmup_requests"
DESCRIPTION = "model.json"

_WARMUP_SIZE = (480, 640)
_ANY_SIZE = ("none", "pad64")  # the modes whose inputs are of many sizes

Read = Callable[[tf.Tensor], tf.Tensor]
"""From one element of a batch to its image uint8 [h, w, 3]."""
Answer = Callable[[tf.Tensor, Read], dict[str, tf.Tensor]]
"""From a batch, and how to read its elements, to outputs [batch, ...] by name."""


class Signature(NamedTuple):
    """A signature besides the two: `function` of tensors of `specs`, the first `image_bytes`.

    `example` has values of the others for one image, with which a server warms up.
    """

    function: Callable[..., dict[str, tf.Tensor]]
    specs: Sequence[tf.TensorSpec]
    example: Mapping[str, Any]


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
        answer: what the signatures compute; may have `more_signatures`, `Signature`s by name.
        metadata: of the model, for `model.json`.

    Raises:
        ValueError, FileExistsError: as `export_saved_model`.
        OSError: if it cannot be written.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"A SavedModel is TensorFlow's; the backend is {keras.backend.backend()}. Start again "
            "with KERAS_BACKEND=tensorflow: weights files are the same for all backends."
        )
    path = Path(path)
    if path.exists() and not (path / "saved_model.pb").is_file():
        if not path.is_dir() or any(path.iterdir()):
            raise FileExistsError(
                f"{path} holds something else than a SavedModel and is not replaced; give the "
                "path of a new folder."
            )
    more = getattr(answer, "more_signatures", {})
    signatures = {**_signatures(answer), **{name: _traced(*of) for name, of in more.items()}}
    with _aside(path) as former, atomic_path(path) as temporary:
        extra = temporary / EXTRA
        try:
            tf.saved_model.save(tf.Module(), str(temporary), signatures)
            extra.mkdir()
            _write_warmup(extra / WARMUP, more)
        except tf.errors.OpError as error:  # TensorFlow's, of a full disk for example
            raise OSError(f"{path}: {error.message}") from error
        text = json.dumps(metadata, indent=2, allow_nan=False, ensure_ascii=False)
        (extra / DESCRIPTION).write_text(text, encoding="utf-8")
        if path.exists():  # a folder takes the name of an empty one only
            path.rename(former)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Where a former model is moved to make room; it goes back if the block fails, else away."""
    former = path.with_name(f".{uuid.uuid4().hex}.former")
    try:
        yield former
    except BaseException:
        if former.exists() and not path.exists():
            former.rename(path)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _signatures(answer: Answer) -> dict[str, Any]:
    def of_files(image_bytes):
        return answer(image_bytes, decode)

    def of_images(images):
        return answer(images, tf.identity)

    files = tf.TensorSpec([None], tf.string, "image_bytes")
    images = tf.TensorSpec([None, None, None, 3], tf.uint8, "images")
    return {FILES: _traced(of_files, [files]), IMAGES: _traced(of_images, [images])}


def _traced(function, specs, *_):
    return tf.function(function, specs, autograph=False).get_concrete_function()


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
        self.limit = limit or self.config.DETECTION_MAX_INSTANCES
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


# ---- requests that warm a server up ----------------------------------------------------------


def _write_warmup(path: Path, more: Mapping[str, Signature]) -> None:
    """A record of one request for each signature, as TensorFlow Serving looks for it.

    https://www.tensorflow.org/tfx/serving/saved_model_warmup
    """
    image = np.full((1, *_WARMUP_SIZE, 3), 127, np.uint8)
    files = {"image_bytes": [tf.io.encode_png(image[0]).numpy()]}
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(_prediction_log(FILES, files))
        writer.write(_prediction_log(IMAGES, {"images": image}))
        for name, signature in more.items():
            writer.write(_prediction_log(name, {**files, **signature.example}))


def _prediction_log(signature: str, inputs: Mapping[str, Any]) -> bytes:
    """A serialised `tensorflow.serving.PredictionLog`, whose classes are in no core package."""
    request = _field(1, _field(3, signature.encode()))  # model_spec
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))  # predict_log, its request


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    rest, last = divmod(value, 128)
    return bytes([last]) if not rest else bytes([last | 128]) + _varint(rest)
