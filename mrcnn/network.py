"""The Mask R-CNN network: one `keras.Model` for training and one for inference.

    image -> backbone -> pyramid -> proposals -> regions -> classes and boxes -> masks

Both are built by the same functions from the same layers, so that the network in training can
also detect (`MaskRCNNNetwork.inference`).
"""

import functools
import os
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from mrcnn import __version__, losses
from mrcnn.anchors import normalised_anchors
from mrcnn.backbone import build_backbone, frozen_layers
from mrcnn.config import Config
from mrcnn.detection import DetectionLayer
from mrcnn.distribution import replica_count
from mrcnn.fpn import feature_pyramid
from mrcnn.heads import build_branches
from mrcnn.load_report import warn_of_gaps
from mrcnn.molding import META
from mrcnn.network_layers import Frame, LossLayer, Normalise, Output, PositiveBoxes
from mrcnn.rpn import ProposalLayer, build_rpn_model
from mrcnn.semantic import STRIDE, semantic_head
from mrcnn.targets import DetectionTargetLayer
from mrcnn.tensors import Tensor, leave_uncompiled, precision_policy
from mrcnn.validation import LOSS_NAMES, SEMANTIC_LOSS_NAMES
from mrcnn.weights import LoadReport, load_weights, read_metadata, save_weights

PYRAMID_STRIDES = (4, 8, 16, 32, 64)


class _Network(keras.Model):
    """A functional model whose inner layers are found by name, too."""

    def get_layer(self, name=None, index=None):
        """As in Keras; a name that no layer has is looked for in the models inside."""
        if index is None and name not in {layer.name for layer in self.layers}:
            for layer in self._flatten_layers(include_self=False, recursive=True):
                if layer.name == name:
                    return layer
        return super().get_layer(name, index)


@keras.saving.register_keras_serializable("mrcnn")
class MaskRCNNNetwork(_Network):
    """The network as a functional Keras model with matterport's inputs and outputs.

    Args:
        mode: "training": from images and their targets to the five losses; "inference": from
            images and anchors to detections and their masks. With `SEMANTIC_BRANCH` the two
            losses of the semantic branch, or its probabilities and presences, come last.
        config: a `Config`.

    Attributes:
        inference: the inference model; shares all layers with the training model.
        frozen_layers: names of the layers that never learn (`FREEZE_BACKBONE_STAGES`).
        layers_before: names of the layers that "3+", "4+" and "5+" leave out: the backbone's up to
            the stage before.
    """

    def __init__(self, mode: str, config: Config, **kwargs):
        config.validate()
        with precision_policy(config.PRECISION):
            shared = _Layers(config)
            detecting = shared.inference_graph()
            inputs, outputs = detecting if mode == "inference" else shared.training_graph()
            super().__init__(inputs=inputs, outputs=outputs, name="mask_rcnn", **kwargs)
            self.mode = mode
            self.config = config
            self.class_names: tuple[str, ...] | None = None
            classes = ops.convert_to_numpy(self._class_kernel) if mode == "inference" else None
            self._made_with = classes
            self.frozen_layers = shared.frozen_layers
            self.layers_before = shared.layers_before
            leave_uncompiled(self)
            for layer in self._flatten_layers(include_self=False, recursive=True):
                if layer.name in self.frozen_layers:  # also for who does not call `set_trainable`
                    layer.trainable = False
            self._detecting = detecting
            names = LOSS_NAMES + SEMANTIC_LOSS_NAMES * bool(config.SEMANTIC_BRANCH)
            self.loss_trackers = [keras.metrics.Mean(name=name) for name in names]

    @functools.cached_property  # which Keras does not track as a layer of this model
    def inference(self) -> keras.Model:
        if self.mode == "inference":
            return self
        inputs, outputs = map(list, self._detecting)  # plain ones, as JAX's jit wants to see them
        network = _Network(inputs, outputs, name="mask_rcnn_inference")
        leave_uncompiled(network)
        return network

    def __dir__(self) -> list[str]:  # where Keras looks for what to save, which `inference` is not
        return [name for name in super().__dir__() if name != "inference"]

    def get_config(self) -> dict[str, Any]:
        names = self.class_names and list(self.class_names)
        return {"mode": self.mode, "config": self.config.to_dict(), "class_names": names}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Self:
        known = {name: value for name, value in config["config"].items() if hasattr(Config, name)}
        network, names = cls(config["mode"], Config.from_dict(known)), config.get("class_names")
        network.class_names = names and tuple(names)
        return network

    def metadata(self) -> dict[str, Any]:
        """What a weights file says of its network: version, config, class names."""
        return {
            "network": "mask_rcnn",
            "version": __version__,
            "config": self.config.to_dict(),
            "class_names": self.class_names and list(self.class_names),
        }

    def save_weights(self, filepath: str | os.PathLike, overwrite: bool = True) -> None:
        """`mrcnn.weights.save_weights`, to a file of any name.

        Raises:
            FileExistsError: if there is one and `overwrite` is false.
        """
        if not overwrite and os.path.exists(filepath):
            raise FileExistsError(f"{filepath} exists already.")
        save_weights(self, filepath, self.metadata())

    def load_weights(
        self, filepath: str | os.PathLike, by_name: bool = False, skip_mismatch: bool = False
    ) -> LoadReport:
        """`mrcnn.weights.load_weights`; unless `by_name`, the file must hold every weight."""
        report = load_weights(self, filepath, by_name=by_name, skip_mismatch=skip_mismatch)
        differences = self.config.differences(read_metadata(filepath).get("config", {}))
        warn_of_gaps(report, self.mode == "training", differences=differences)
        return report

    def is_as_made(self) -> bool:
        """Whether the class layer has the random values it was made with; for "inference" alone.

        Whatever loads, sets or learns weights leaves it other ones.
        """
        made = self._made_with
        return made is not None and np.array_equal(made, ops.convert_to_numpy(self._class_kernel))

    @property
    def _class_kernel(self):
        return self.get_layer("mrcnn_class_logits").layer.kernel

    def fit(self, x: Any = None, *data: Any, callbacks: Any = None, **settings: Any) -> Any:
        """Keras's `fit`, which tells the batches of `mrcnn.data` what epoch begins."""
        from mrcnn.callbacks import EpochOfBatches
        from mrcnn.data import Batches

        given = keras.tree.flatten(callbacks or [])
        if isinstance(x, Batches) and not any(isinstance(c, EpochOfBatches) for c in given):
            callbacks = [EpochOfBatches(x), *given]
        return super().fit(x, *data, callbacks=callbacks, **settings)

    def fit_generator(
        self, generator: Any, steps_per_epoch: int | None = None, epochs: int = 1, **settings: Any
    ) -> keras.callbacks.History:
        """`fit`, which takes generators; what said how batches are prepared is not needed."""
        for unused in ("max_queue_size", "workers", "use_multiprocessing"):
            settings.pop(unused, None)
        return self.fit(generator, steps_per_epoch=steps_per_epoch, epochs=epochs, **settings)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Sequence[Tensor] = (),
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The weighted sum of the losses and matterport's weight decay.

        On several replicas it is this one's share (`mrcnn.distribution`).
        """
        total, replicas = 0.0, replica_count()
        values = y_pred[-len(self.loss_trackers) :]
        for tracker, value in zip(self.loss_trackers, values, strict=True):
            value = value * self.config.LOSS_WEIGHTS.get(tracker.name, 1.0)
            tracker.update_state(value * replicas)  # of which Keras shows the mean
            total = total + value
        decays = getattr(getattr(self, "optimizer", None), "weight_decay", None)
        if self.config.OPTIMIZER != "adamw" and not decays:  # which decays by itself
            total = total + self.weight_decay_loss() / replicas
        return total

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Of TensorFlow's trainer. Keras 3.15 takes the mean of a batch over the replicas to learn
        # its shapes, which masks of bool do not have; here only an optimizer can be unbuilt.
        if self._distribute_strategy is not None:
            with self._distribute_strategy.scope():
                self._symbolic_build()

    def weight_decay_loss(self) -> Tensor:
        """L2: over kernels and biases, each divided by its size, as matterport does.

        Without `DIVIDE_WEIGHT_DECAY` it is half the sum of the squares of the kernels.
        """
        divide, decay = self.config.DIVIDE_WEIGHT_DECAY, 0.0
        for weight in self.trainable_variables:
            if divide and weight.name not in ("gamma", "beta"):
                decay = decay + ops.mean(ops.square(weight))
            elif not divide and len(weight.shape) > 1:
                decay = decay + 0.5 * ops.sum(ops.square(weight))
        return self.config.WEIGHT_DECAY * decay


class _Layers:
    """All layers of one network, and the two graphs through them."""

    def __init__(self, config):
        self.config = config
        rows, columns, channels = (int(side) for side in config.IMAGE_SHAPE)
        if config.IMAGE_RESIZE_MODE in ("none", "pad64"):
            rows = columns = None
        self.image = keras.Input((rows, columns, channels), name="input_image")
        self.meta = keras.Input((config.IMAGE_META_SIZE,), name="input_image_meta")
        stages = build_backbone(self.image, config)
        frozen = config.FREEZE_BACKBONE_STAGES
        self.frozen_layers = frozen_layers(self.image, stages, frozen, str(config.BACKBONE))
        self.layers_before = {
            f"{stage}+": frozenset(la.name for la in keras.Model(self.image, features).layers)
            for stage, features in zip((3, 4, 5), stages[1:4], strict=True)
        }
        *self.pyramid, coarsest = feature_pyramid(stages, config.TOP_DOWN_PYRAMID_SIZE)
        rpn = build_rpn_model(
            config.RPN_ANCHOR_STRIDE,
            len(config.RPN_ANCHOR_RATIOS),
            config.TOP_DOWN_PYRAMID_SIZE,
            config.RPN_CONV_CHANNELS,
        )
        levels = dict(zip(PYRAMID_STRIDES, [*self.pyramid, coarsest], strict=True))
        levels = [rpn(levels[stride]) for stride in config.BACKBONE_STRIDES]
        self.level_scores = [scores for _, scores, _ in levels]
        self.rpn_logits, self.rpn_scores, self.rpn_deltas = (
            keras.layers.Concatenate(axis=1, dtype="float32", name=name)(list(parts))
            for name, parts in zip(
                ("rpn_class_logits", "rpn_class", "rpn_bbox"),
                zip(*levels, strict=True),
                strict=True,
            )
        )
        self.box_branch, self.mask_branch = build_branches(
            config, config.TOP_DOWN_PYRAMID_SIZE, config.TRAIN_BN
        )
        self.frame = Frame(autocast=False, name="input_frame")(self.image)
        self.semantic = None
        if config.SEMANTIC_BRANCH:
            self.semantic = semantic_head(
                self.pyramid, config.SEMANTIC_CHANNELS, config.NUM_CLASSES - 1
            )

    def proposals(self, anchors, count):
        config = self.config
        levels = self.level_scores if config.RPN_NMS_PER_LEVEL else None
        return ProposalLayer(
            count,
            config.RPN_NMS_THRESHOLD,
            config.PRE_NMS_LIMIT,
            config.RPN_BBOX_STD_DEV,
            config.CLAMP_DELTAS,
            config.RPN_NMS_PER_LEVEL,
            name="ROI",
        )(self.rpn_scores, self.rpn_deltas, anchors, levels)

    def regions(self, rois):
        """Class logits, probabilities and deltas of regions, each from a layer of its name."""
        logits, _, deltas = self.box_branch(rois, self.pyramid)
        last = self.box_branch.head.get_layer("mrcnn_class_logits")
        logits = Output(last, name=last.name)(logits)
        classes = keras.layers.Softmax(dtype="float32", name="mrcnn_class")(logits)
        deltas = keras.layers.Identity(dtype="float32", name="mrcnn_bbox")(deltas)
        return logits, classes, deltas

    def masks(self, boxes):
        """Masks of boxes, from a layer of that name."""
        last = self.mask_branch.head.get_layer("mrcnn_mask")
        return Output(last, name=last.name)(self.mask_branch(boxes, self.pyramid))

    def inference_graph(self):
        config = self.config
        anchors = keras.Input((None, 4), name="input_anchors")
        rpn_rois = self.proposals(anchors, config.POST_NMS_ROIS_INFERENCE)
        _, classes, deltas = self.regions(rpn_rois)
        detections = DetectionLayer(config, name="mrcnn_detection")(
            rpn_rois, classes, deltas, self.meta[:, META["window"]], self.frame
        )
        masks = self.masks(detections[..., :4])
        outputs = [
            detections,
            classes,
            deltas,
            masks,
            rpn_rois,
            self.rpn_scores,
            self.rpn_deltas,
        ]
        for name, logits in zip(("semantic", "presence"), self.semantic or (), strict=False):
            sigmoid = keras.layers.Activation("sigmoid", dtype="float32", name=name)
            outputs.append(sigmoid(logits))
        return [self.image, self.meta, anchors], outputs

    def training_graph(self):
        config = self.config
        instances = config.MAX_GT_INSTANCES
        mask_shape = config.MINI_MASK_SHAPE if config.USE_MINI_MASK else config.IMAGE_SHAPE[:2]
        rpn_match = keras.Input((None, 1), dtype="int32", name="input_rpn_match")
        rpn_target = keras.Input((config.RPN_TRAIN_ANCHORS_PER_IMAGE, 4), name="input_rpn_bbox")
        gt_class_ids = keras.Input((instances,), dtype="int32", name="input_gt_class_ids")
        gt_boxes = keras.Input((instances, 4), name="input_gt_boxes")
        gt_masks = keras.Input((*mask_shape, instances), dtype="bool", name="input_gt_masks")
        inputs = [self.image, self.meta, rpn_match, rpn_target, gt_class_ids, gt_boxes, gt_masks]

        normalised = Normalise(dtype="float32", name="gt_boxes_normalised")(gt_boxes, self.frame)
        if config.USE_RPN_ROIS:
            anchors = normalised_anchors(config, config.IMAGE_SHAPE)[None]
            rpn_rois = self.proposals(anchors, config.POST_NMS_ROIS_TRAINING)
        else:
            given = keras.Input((config.POST_NMS_ROIS_TRAINING, 4), name="input_roi")
            inputs.append(given)
            rpn_rois = Normalise(dtype="float32", name="ROI")(given, self.frame)
        rois, class_ids, box_targets, mask_targets = DetectionTargetLayer(
            config, name="proposal_targets"
        )(rpn_rois, gt_class_ids, normalised, gt_masks, self.frame)
        rois = keras.layers.Identity(dtype="float32", name="output_rois")(rois)
        logits, classes, deltas = self.regions(rois)

        count = config.TRAIN_MASK_ROIS
        masks = self.masks(
            PositiveBoxes(count, dtype="float32", name="positive_rois")(rois, class_ids)
        )

        def loss(name, function, *tensors):
            return LossLayer(function, name=name)(*tensors)

        dice = config.MASK_LOSS == "crossentropy_dice"
        outputs = [
            self.rpn_logits,
            self.rpn_scores,
            self.rpn_deltas,
            logits,
            classes,
            deltas,
            masks,
            rpn_rois,
            rois,
            loss("rpn_class_loss", losses.rpn_class_loss_graph, rpn_match, self.rpn_logits),
            loss(
                "rpn_bbox_loss",
                lambda *tensors: losses.rpn_bbox_loss_graph(config, *tensors),
                rpn_target,
                rpn_match,
                self.rpn_deltas,
            ),
            loss("mrcnn_class_loss", self._class_loss, class_ids, logits, self.meta, rois),
            loss("mrcnn_bbox_loss", losses.mrcnn_bbox_loss_graph, box_targets, class_ids, deltas),
            loss(
                "mrcnn_mask_loss",
                lambda target, ids, mask: losses.mrcnn_mask_loss_graph(
                    target, ids[:, :count], mask, dice
                ),
                mask_targets,
                class_ids,
                masks,
            ),
        ]
        if self.semantic:
            cells, presence = self.semantic
            sides = [side and side // STRIDE for side in self.image.shape[1:3]]
            target = keras.Input((*sides, cells.shape[-1]), name="input_semantic")
            inputs.append(target)
            dice = config.SEMANTIC_LOSS == "crossentropy_dice"
            outputs += [
                loss(
                    "semantic_loss",
                    lambda *tensors: losses.semantic_loss_graph(*tensors, dice),
                    target,
                    cells,
                ),
                loss("presence_loss", losses.presence_loss_graph, target, presence),
            ]
        return inputs, outputs

    def _class_loss(self, class_ids, logits, meta, rois):
        weight = None
        if self.config.IGNORE_PADDED_ROIS:
            weight = ops.cast(ops.any(rois != 0, axis=-1), "float32")
        return losses.mrcnn_class_loss_graph(
            class_ids, logits, meta[:, META["active_class_ids"]], weight
        )
