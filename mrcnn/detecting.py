"""From images of any size to the instances in them, by the network of a `MaskRCNN`."""

import functools
import logging
import threading
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.anchors import AnchorCache
from mrcnn.config import Config
from mrcnn.detection import unmold_detections
from mrcnn.inspection import why_nothing
from mrcnn.masks import CompactMasks
from mrcnn.molding import mold_inputs, require_halvable, require_several
from mrcnn.printing import log
from mrcnn.semantic import unmold_semantic
from mrcnn.tensors import leave_uncompiled

logger = logging.getLogger(__name__)

AT_TRACING = (
    "DETECTION_MAX_INSTANCES",
    "DETECTION_MIN_CONFIDENCE",
    "DETECTION_NMS_THRESHOLD",
    "DETECTION_ALL_CLASSES",
    "DETECTION_NMS_ACROSS_CLASSES",
)
"""Settings that may change after a network was built, and that become constants of its graph."""


class Detecting:
    """What detects, as a base class.

    Attributes:
        config: the `Config`.
        keras_model: the network, a `MaskRCNNNetwork` or a model of the same inputs and outputs.
        anchors: [a, 4] in pixels, of the input that `get_anchors` was last asked for.
    """

    config: Config
    keras_model: keras.Model
    anchors: np.ndarray

    _said_why = False
    # The settings of `AT_TRACING` that the network's detections are computed with.
    _traced: list | None = None
    _tracing = threading.RLock()  # of all networks, so that there is none to copy

    @functools.cached_property  # so that a subclass need not call any `__init__`
    def _anchors(self):
        return AnchorCache(self.config)

    def detect(
        self,
        images: Sequence[np.ndarray],
        verbose: int = 0,
        mask_threshold: float | None = 0.5,
        compact: bool = False,
    ) -> list[dict[str, Any]]:
        """Finds the instances in images.

        Args:
            images: any number of arrays [height, width] or [height, width, channels] of any size;
                grey, RGB, RGBA, 8 or 16 bits.
            verbose: 1 prints what goes in and, where nothing is found, at which stage.
            mask_threshold: least probability of a mask's pixel; None gives the probabilities.
            compact: gives `masks` as `mrcnn.masks.CompactMasks`, which take the memory of the
                instances instead of as many whole images.

        Returns:
            One dict per image: `rois` int32 [n, 4] in pixels, `class_ids` int32 [n], `scores`
            float32 [n], `masks` bool (without a threshold float32) [height, width, n], or compact;
            best score first. With `SEMANTIC_BRANCH` also `semantic` float32 [height, width,
            classes] and `presence` float32 [classes], probabilities without the background's.

        Raises:
            ValueError: for one image instead of several, one that is no image, or a configuration
                that shows a part of it alone ("crop").
        """
        require_several(images)
        results: list[dict[str, Any]] = []
        size = self.config.BATCH_SIZE
        if verbose:
            log(f"Processing {len(images)} images")
        for start in range(0, len(images), size):
            chunk = images[start : start + size]
            inputs = [(*self.mold_inputs([image]), np.shape(image)) for image in chunk]
            # Some resize modes make inputs of many shapes; a batch is of one.
            places_of: dict[tuple[int, ...], list[int]] = {}
            for place, (molded, *_) in enumerate(inputs):
                places_of.setdefault(molded.shape, []).append(place)
            found: dict[int, dict[str, Any]] = {}
            for places in places_of.values():
                *arrays, shapes = zip(*(inputs[place] for place in places), strict=True)
                molded, metas, windows = map(np.concatenate, arrays)
                options = verbose, mask_threshold, compact
                parts = self._detect(molded, metas, windows, shapes, *options)
                found.update(zip(places, parts, strict=True))
            results += [found[place] for place in range(len(chunk))]
        return results

    def detect_molded(
        self,
        molded_images: Sequence[np.ndarray] | np.ndarray,
        image_metas: np.ndarray,
        verbose: int = 0,
    ) -> list[dict[str, Any]]:
        """As `detect` for images that are molded already; results are in their pixels.

        Raises:
            ValueError: if they are of several shapes.
        """
        shapes = [np.shape(image) for image in molded_images]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"Molded images of several shapes make no batch: {sorted(set(shapes))}. Give those "
                "of one shape at a time, or the images themselves to detect."
            )
        if not shapes:
            return []
        windows = [(0, 0, *shape[:2]) for shape in shapes]
        return self._detect(molded_images, image_metas, windows, shapes, verbose)

    def _detect(self, molded, metas, windows, shapes, verbose, threshold=0.5, compact=False):
        if verbose:
            log("molded_images", molded)
            log("image_metas", metas)
        config, outputs = self.config, self._predict(np.float32(molded), np.asarray(metas))
        detections, probabilities, _, masks, proposals, *_ = outputs
        results = []
        # Subclasses may know matterport's five arguments alone.
        more = {"threshold": threshold} if threshold != 0.5 else {}
        more |= {"compact": True} if compact else {}
        for row, (window, shape) in enumerate(zip(windows, shapes, strict=True)):
            rois, class_ids, scores, mask = self.unmold_detections(
                detections[row], masks[row], shape, molded[row].shape, window, **more
            )
            results.append({"rois": rois, "class_ids": class_ids, "scores": scores, "masks": mask})
            if config.SEMANTIC_BRANCH:
                cells, presence = (output[row] for output in outputs[-2:])
                cells = unmold_semantic(cells, shape, molded[row].shape, window)
                results[-1] |= {"semantic": cells, "presence": presence}
            if not len(rois) and (verbose or not self._said_why):
                why, self._said_why = why_nothing(proposals[row], probabilities[row], config), True
                (log if verbose else logger.warning)(why)
        return results

    def _predict(self, molded, metas):
        """Outputs for a batch.

        JAX compiles for every number of images anew, so that a short batch is filled up, unless
        its statistics count, which are to be of images alone.
        """
        count, config = len(molded), self.config
        spare = max(0, config.BATCH_SIZE - count)
        if spare and keras.backend.backend() == "jax" and config.TRAIN_BN is not True:
            molded = np.pad(molded, ((0, spare), (0, 0), (0, 0), (0, 0)))
            metas = np.pad(metas, ((0, spare), (0, 0)))
        # `build` may give any model of these inputs and outputs.
        network = getattr(self.keras_model, "inference", self.keras_model)
        inputs = self._inputs(molded, metas)
        settings = [getattr(config, name) for name in AT_TRACING]
        outputs = None
        if settings != self._traced:
            with self._tracing:  # threads that call meanwhile wait for the function of theirs
                if settings != self._traced:
                    self._warn_if_random()
                    leave_uncompiled(network)
                    network.make_predict_function(force=True)  # in one go, for threads at work
                    outputs = network.predict_on_batch(inputs)
                    self._traced = settings
        if outputs is None:
            outputs = network.predict_on_batch(inputs)
        return [output[:count] for output in outputs]

    def _warn_if_random(self):
        is_as_made = getattr(self.keras_model, "is_as_made", None)
        if self._traced is None and is_as_made and is_as_made():
            logger.warning(
                "The network's class layer still has the random weights it was made with; "
                "detections mean nothing. Call load_weights(path) before detect."
            )

    def _inputs(self, molded, metas):
        """Inputs of the inference network, with the anchors for images of their shape."""
        require_halvable(molded.shape[1:])
        anchors = self.get_anchors(molded.shape[1:])
        anchors = np.broadcast_to(anchors, (len(molded), *anchors.shape))
        return [molded, metas.astype(np.float32), anchors]

    def mold_inputs(
        self, images: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `mrcnn.molding.mold_inputs`."""
        return mold_inputs(images, self.config)

    def unmold_detections(
        self,
        detections: np.ndarray,
        mrcnn_mask: np.ndarray,
        original_image_shape: Sequence[int] | np.ndarray,
        image_shape: Sequence[int] | np.ndarray,
        window: Sequence[int] | np.ndarray,
        threshold: float | None = 0.5,
        compact: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | CompactMasks]:
        """See `mrcnn.detection.unmold_detections`."""
        shapes = original_image_shape, image_shape, window
        scale = self.config.MASK_BOX_SCALE
        return unmold_detections(detections, mrcnn_mask, *shapes, scale, threshold, compact)

    def get_anchors(self, image_shape: Sequence[int] | np.ndarray) -> np.ndarray:
        """Normalised anchors float32 [a, 4] of an input of `image_shape`; `anchors` has pixels."""
        normalised, self.anchors = self._anchors(image_shape)
        return normalised
