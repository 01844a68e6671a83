"""The region proposal network (Ren et al. 2015, section 3) and its proposals."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from mrcnn.boxes import MAX_LOG_SCALE, apply_box_deltas, clip_boxes
from mrcnn.nms import suppress
from mrcnn.tensors import Tensor, gather_rows


def build_rpn_model(
    anchor_stride: int, anchors_per_location: int, depth: int, channels: int = 512
) -> keras.Model:
    """The head shared by all pyramid levels.

    Args:
        anchor_stride: 1 for anchors at every position of the map, 2 for every other.
        anchors_per_location: number of anchors per position.
        depth: channels of the pyramid.
        channels: of the shared convolution.

    Returns:
        A model from [batch, height, width, depth] to class logits [batch, anchors, 2]
        (background, object), their softmax, and deltas [batch, anchors, 4]; float32.
    """
    features = keras.Input((None, None, depth), name="input_rpn_feature_map")
    shared = keras.layers.Conv2D(
        channels,
        3,
        padding="same",
        activation="relu",
        strides=anchor_stride,
        name="rpn_conv_shared",
    )(features)
    logits = keras.layers.Conv2D(2 * anchors_per_location, 1, name="rpn_class_raw")(shared)
    logits = keras.layers.Reshape((-1, 2), dtype="float32", name="rpn_class_rows")(logits)
    scores = keras.layers.Softmax(dtype="float32", name="rpn_class_xxx")(logits)
    deltas = keras.layers.Conv2D(4 * anchors_per_location, 1, name="rpn_bbox_pred")(shared)
    deltas = keras.layers.Reshape((-1, 4), dtype="float32", name="rpn_bbox_rows")(deltas)
    return keras.Model(features, [logits, scores, deltas], name="rpn_model")


@keras.saving.register_keras_serializable("mrcnn")
class ProposalLayer(keras.layers.Layer):
    """Turns the network's scores and deltas into proposals.

    Args:
        proposal_count: number of proposals per image, zero-padded.
        nms_threshold: IoU above which the lower score is dropped.
        pre_nms_limit: anchors of the best scores that take part.
        bbox_std_dev: [4] by which the deltas are multiplied.
        clamp_deltas: whether growth is bounded.
        per_level: whether the limit and the suppression hold for each pyramid level on its own,
            as in the FPN paper's code; else for all levels together.
    """

    def __init__(
        self,
        proposal_count: int,
        nms_threshold: float,
        pre_nms_limit: int = 6000,
        bbox_std_dev: Iterable[float] = (0.1, 0.1, 0.2, 0.2),
        clamp_deltas: bool = False,
        per_level: bool = False,
        **kwargs,
    ):
        super().__init__(dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.proposal_count = proposal_count
        self.nms_threshold = nms_threshold
        self.pre_nms_limit = pre_nms_limit
        self.bbox_std_dev = [float(value) for value in bbox_std_dev]
        self.clamp_deltas = clamp_deltas
        self.per_level = per_level

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "proposal_count": self.proposal_count,
            "nms_threshold": self.nms_threshold,
            "pre_nms_limit": self.pre_nms_limit,
            "bbox_std_dev": self.bbox_std_dev,
            "clamp_deltas": self.clamp_deltas,
            "per_level": self.per_level,
        }

    def compute_output_spec(
        self,
        scores: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        levels: Sequence[Tensor] | None = None,
    ) -> keras.KerasTensor:
        return keras.KerasTensor((scores.shape[0], self.proposal_count, 4), dtype="float32")

    def call(
        self,
        scores: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        levels: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Normalised proposals [batch, proposal_count, 4].

        Args:
            scores: [batch, anchors, 2] of background and object.
            deltas: [batch, anchors, 4].
            anchors: [1 or batch, anchors, 4], normalised.
            levels: list of [batch, anchors of the level, 2] in the order of the anchors, of which
                only the sizes count; needed with `per_level`.
        """
        anchors = ops.broadcast_to(anchors, ops.shape(deltas))
        parts = [scores] if not self.per_level else levels
        objectness, best, level, sizes = self._best_anchors(scores[:, :, 1], parts)
        deltas = gather_rows(deltas, best) * ops.convert_to_tensor(self.bbox_std_dev)
        boxes = apply_box_deltas(
            gather_rows(anchors, best), deltas, MAX_LOG_SCALE if self.clamp_deltas else None
        )
        boxes = clip_boxes(boxes, ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0]))
        proposals, _, _ = suppress(
            boxes,
            objectness,
            level,
            len(sizes),
            self.nms_threshold,
            self.proposal_count,
            sizes=sizes,
        )
        return proposals

    def _best_anchors(self, objectness, parts):
        """Of every part's best anchors scores, indices, number of the part [batch, n]; how many."""
        chosen, sizes, start = [], [], 0
        for number, part in enumerate(parts):
            count = part.shape[1]
            if count is None:  # in a graph for images of any size
                count = ops.shape(part)[1]
                limit = ops.minimum(self.pre_nms_limit, count)
            else:
                limit = min(self.pre_nms_limit, count)
            values, indices = ops.top_k(objectness[:, start : start + count], limit)
            chosen.append((values, indices + start, ops.full_like(indices, number)))
            sizes.append(limit)
            start = start + count
        columns = (ops.concatenate(list(parts), axis=1) for parts in zip(*chosen, strict=True))
        return *columns, sizes
