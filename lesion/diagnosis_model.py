"""Training the classifier: head first, then all layers, judged by the average of its weights."""

import functools
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from lesion.diagnosis_data import DiagnosisBatches, DiagnosisDataset, log_shares
from lesion.diagnosis_network import (
    NAME,
    DiagnosisConfig,
    DiagnosisNetwork,
    describe_network,
    prepare_square,
)
from lesion.samples import DIAGNOSES
from mrcnn.callbacks import Checkpoint
from mrcnn.fitting import find_run_state, fit
from mrcnn.runs import InRun
from mrcnn.training import Stage, build_optimizer, set_trainable
from mrcnn.weights import LoadReport, load_weights

logger = logging.getLogger(__name__)

# The weights' moving average reaches back over about this part of the steps, one in so many.
AVERAGES = 16
LAYERS = {"heads": "diagnosis_.*", "all": ".*"}


class DiagnosisModel(InRun):
    """A classifier in training, with its configuration and its folder of checkpoints.

    Args:
        config: a `DiagnosisConfig`.
        model_dir: folder of all runs' log folders.

    Attributes:
        keras_model: the `DiagnosisNetwork`.
        epoch: number of epochs trained so far.
        log_dir: folder of this run, made when training starts.
    """

    run_name, run_prefix = NAME, ""

    def __init__(self, config: DiagnosisConfig, model_dir: str | Path):
        self.config = config
        self.model_dir = str(model_dir)
        self.set_log_dir()
        self.keras_model = DiagnosisNetwork(config)

    def load_weights(self, path: str | Path, skip_mismatch: bool = False) -> LoadReport:
        """Loads weights by name and goes on in their run, if they are a checkpoint of one."""
        report = load_weights(self.keras_model, path, skip_mismatch=skip_mismatch)
        self.set_log_dir(path)
        if self.epoch and not report.missing_layers:
            find_run_state(self)
        return report

    def train(
        self,
        training: DiagnosisDataset,
        validation: DiagnosisDataset,
        learning_rate: float,
        epochs: int,
        layers: str,
        augmentation: Callable | None = None,
        seed: int = 0,
        workers: int = 2,
        keep_checkpoints: int | None = None,
        metadata: Mapping | None = None,
    ) -> keras.callbacks.History | None:
        """Trains up to epoch `epochs`, counted from the first epoch of the run.

        After `load_weights` of the run's last checkpoint it continues as if it had never stopped.

        Args:
            training: what is learned from.
            validation: what is scored after every epoch; may be empty.
            learning_rate: the highest of the schedule.
            epochs: number of the last epoch.
            layers: "heads" or "all".
            augmentation: `(image, rng) -> image` of the network's size; by default the middle.
            seed: of order and augmentation.
            workers: threads that prepare batches.
            keep_checkpoints: number of checkpoints to keep, the latest; None keeps all.
            metadata: stored with the weights besides the configuration.

        Returns:
            The Keras `History`, or None if the run had reached `epochs` before.
        """
        if self.epoch >= epochs:
            logger.info("Epoch %d of %d is reached.", self.epoch, epochs)
            return None
        stage = Stage(LAYERS[layers], float(learning_rate), self.epoch, epochs)
        batches = self._batches(
            training,
            augmentation or self._middle,
            steps=self.config.steps,
            power=self.config.sampling_power,
            withheld=self.config.patient_dropout,
            mixing=self.config.mixing,
            teacher_share=self.config.teacher_share,
            unlabelled_share=self.config.unlabelled_share,
            seed=seed,
            epoch=self.epoch,
            workers=workers,
        )
        held_out = None
        if len(validation.samples):
            held_out = self._batches(validation, self._middle, workers=workers)
        set_trainable(self.keras_model, stage.layers)
        averaged = layers == "all"
        metadata = {**describe_network(self.config), **(metadata or {})}
        average = [keras.callbacks.SwapEMAWeights()] if averaged else []
        return fit(
            self,
            stage,
            batches,
            held_out,
            lambda steps: self._compile(learning_rate, steps, training.labels, averaged),
            AveragedCheckpoint(self, metadata, keep_checkpoints, *average),
            average,
        )

    def _middle(self, image, rng):
        return np.rint(prepare_square(image, self.config.image_size)).astype(np.uint8)

    def _batches(self, dataset, prepare, steps=None, power=None, withheld=0.0, **settings):
        return DiagnosisBatches(
            dataset,
            self.config.batch,
            prepare,
            steps=steps,
            power=power,
            patient_dropout=withheld if self.config.patient_data else None,
            **settings,
        )

    def _compile(self, learning_rate, steps, labels, averaged):
        optimizer = build_optimizer(self.config.to_mrcnn(), learning_rate, steps)
        if averaged:
            optimizer.use_ema = True
            optimizer.ema_momentum = steps / (steps + AVERAGES)
        self.keras_model.compile(
            optimizer=optimizer,
            loss=adjusted_crossentropy(self.config, labels),
            metrics=[BalancedAccuracy()],
            jit_compile=False,
        )
        # Slots exist from the start, so that a stopped training's can be put back.
        self.keras_model.optimizer.build(self.keras_model.trainable_variables)


def adjusted_crossentropy(config: DiagnosisConfig, labels: np.ndarray) -> Callable:
    """Cross-entropy of logits that are offset by how often each category is drawn.

    Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021, equation 10: what remains
    for the network to learn is the likeness of a category, not its frequency.

    Args:
        config: with `sampling_power`, `logit_adjustment`, `label_smoothing`.
        labels: int [samples] of the training part.
    """
    offset = config.logit_adjustment * log_shares(labels, config.sampling_power)
    crossentropy = functools.partial(
        keras.losses.categorical_crossentropy,
        from_logits=True,
        label_smoothing=config.label_smoothing,
    )

    def loss(truth, logits):
        return crossentropy(truth, logits + ops.convert_to_tensor(offset, logits.dtype))

    return loss


@keras.saving.register_keras_serializable("lesion")
class BalancedAccuracy(keras.metrics.Metric):
    """Mean recall of the categories that occur, from one-hot truth and logits."""

    def __init__(self, name: str = "balanced_accuracy", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        size = (len(DIAGNOSES),)
        self.right = self.add_weight(shape=size, initializer="zeros", name="right")
        self.count = self.add_weight(shape=size, initializer="zeros", name="count")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        truth = ops.cast(y_true, "float32")
        hit = ops.cast(ops.argmax(y_pred, axis=-1) == ops.argmax(truth, axis=-1), "float32")
        self.right.assign_add(ops.sum(truth * hit[:, None], axis=0))
        self.count.assign_add(ops.sum(truth, axis=0))

    def result(self) -> Any:
        occurs = ops.cast(self.count > 0, "float32")
        recall = self.right / ops.maximum(self.count, 1.0)
        return ops.sum(recall) / ops.maximum(ops.sum(occurs), 1.0)


class AveragedCheckpoint(Checkpoint):
    """A `Checkpoint` whose weights are the moving average, while the state keeps the others.

    Args:
        swap: the `SwapEMAWeights` of the training, where there is one.
    """

    def __init__(
        self,
        run: InRun,
        metadata: Mapping,
        keep: int | None = None,
        swap: keras.callbacks.SwapEMAWeights | None = None,
    ):
        super().__init__(run, metadata, keep)
        self.swap = swap

    def save_weights(self, path: str | os.PathLike, metadata: Mapping) -> None:
        if self.swap is None:
            return super().save_weights(path, metadata)
        self.swap.on_test_begin()
        try:
            return super().save_weights(path, metadata)
        finally:
            self.swap.on_test_end()
