"""`MaskRCNN`: train, detect, load and save, with matterport's interface."""

import contextlib
import functools
import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras

from mrcnn import callbacks, compat, training
from mrcnn.backbone import imagenet_weights, is_imagenet_file, load_imagenet
from mrcnn.compat import *  # noqa: F403  # the names that old scripts import from here
from mrcnn.config import Config
from mrcnn.data import Batches, default_workers
from mrcnn.dataset import Dataset
from mrcnn.detecting import Detecting
from mrcnn.distribution import training_scope
from mrcnn.fitting import find_run_state, fit
from mrcnn.inspection import LookInside
from mrcnn.load_report import LoadReport, warn_of_gaps
from mrcnn.network import MaskRCNNNetwork
from mrcnn.old_imports import MODULES, finder
from mrcnn.runs import InRun, find_last, warn_of_lost_run
from mrcnn.start_weights import chosen_weights, is_coco, read_config
from mrcnn.tensors import leave_uncompiled, require_eager
from mrcnn.weights import CLASS_LAYERS, load_weights, read_metadata

__all__ = ["CLASS_LAYERS", "MaskRCNN", "MaskRCNNNetwork", *compat.__all__, *MODULES["model"]]
__getattr__ = finder(__name__)

logger = logging.getLogger(__name__)


class MaskRCNN(InRun, Detecting, LookInside):
    """A Mask R-CNN with its configuration and its folder of checkpoints.

    Args:
        mode: "training" or "inference". A network in training detects, too.
        config: a `Config`.
        model_dir: folder of all runs' log folders.

    Attributes:
        keras_model: the `keras.Model`.
        epoch: number of epochs trained so far.
        log_dir: folder of this run, made when training starts.
        class_names: names by class id, from the data set or the weights file; or None.

    Raises:
        TypeError: for a configuration that is a class, or no `model_dir`.
        ValueError: for another mode or a configuration that contradicts itself.
        RuntimeError: if TensorFlow was told to run as its first version did.
    """

    def __init__(self, mode: str, config: Config, model_dir: str | os.PathLike):
        require_eager()
        if isinstance(config, type):
            raise TypeError(f"config is a class; give an instance of it: {config.__name__}().")
        if model_dir is None:
            raise TypeError("model_dir is the folder of the trainings' folders; received None.")
        if mode not in ("training", "inference"):
            raise ValueError(f"mode must be 'training' or 'inference'; received {mode!r}.")
        self.mode = mode
        self.config = config
        self.model_dir = str(model_dir)
        self.set_log_dir()
        with self._scope():
            self.keras_model: MaskRCNNNetwork = self.build(mode, config)
        if mode == "training":
            self.get_anchors(config.IMAGE_SHAPE)

    @functools.cached_property  # so that a subclass need not call `__init__`
    def _scope(self):
        training = self.mode == "training"
        return training_scope(self.config) if training else contextlib.nullcontext

    @property
    def run_name(self) -> str | None:
        """`Config.NAME`, by which the run's files are called."""
        return self.config.NAME

    def build(self, mode: str, config: Config) -> MaskRCNNNetwork:
        """The network of a configuration."""
        return MaskRCNNNetwork(mode, config)

    # ---- files -------------------------------------------------------------------------------

    @classmethod
    def from_weights(
        cls,
        filepath: str | os.PathLike,
        mode: str = "inference",
        model_dir: str | os.PathLike = "logs",
        **settings: Any,
    ) -> "MaskRCNN":
        """The network of a weights file of this project, with its weights.

        Args:
            filepath: path of the file, in which its configuration is stored; or "coco" for
                matterport's weights, their 81 classes and his settings.
            mode, model_dir: as above.
            settings: replace stored ones, such as `DETECTION_MIN_CONFIDENCE=0.5`; functions, a
                `BACKBONE` of one's own, must be given. By default images are detected one by one.

        Raises:
            mrcnn.weights.WeightsError: if the file is damaged, of another kind of network, or does
                not tell its configuration.
            FileNotFoundError: if there is none.
            ValueError: if a setting does not exist or a function is missing.
        """
        if mode == "inference":
            settings = {"GPU_COUNT": 1, "IMAGES_PER_GPU": 1, **settings}
        model = cls(mode, read_config(filepath, mode, **settings), model_dir)
        # A path, also where its name is one of the other words.
        model.load_weights("coco" if is_coco(filepath) else Path(filepath))
        return model

    def find_last(self) -> str:
        """Path of the latest checkpoint of the latest run that has one.

        Raises:
            FileNotFoundError: if no run of this `NAME` in `model_dir` has a checkpoint.
        """
        return find_last(self.model_dir, self.config.NAME)

    def load_weights(
        self,
        filepath: str | os.PathLike,
        by_name: bool = False,
        exclude: Iterable[str] | str | None = None,
        skip_mismatch: bool = False,
    ) -> LoadReport:
        """Loads a weights file by the names of layers and weights.

        Args:
            filepath: a file of this project, of matterport or of Keras; or a word: "coco" for
                matterport's weights, for another number of classes than their 81 without
                `CLASS_LAYERS`, "imagenet" for the backbone's, "last" for the file of `find_last`.
            by_name: accepted for compatibility; loading is always by name.
            exclude: names of layers to leave as they are.
            skip_mismatch: leave layers of other shapes as they are instead of raising.

        Returns:
            The `mrcnn.weights.LoadReport`.

        Raises:
            mrcnn.weights.WeightsError: if the file is damaged, foreign or does not fit.
            FileNotFoundError: if there is none.
            ValueError: for "coco" or "imagenet" with a backbone of which there are none.
        """
        filepath, exclude, names = chosen_weights(self, filepath, exclude)
        if is_imagenet_file(filepath, self.config):
            report = load_imagenet(self.keras_model, self.config, filepath, exclude)
        else:
            report = load_weights(
                self.keras_model, filepath, exclude=exclude, skip_mismatch=skip_mismatch
            )
        logger.log(logging.WARNING if report.mismatched else logging.INFO, report.summary())
        metadata = read_metadata(filepath)
        if names := metadata.get("class_names") or names:  # of this network, or of another
            self.class_names = names if len(names) == self.config.NUM_CLASSES else None
        learns, dropped = self.mode == "training", report.dropped_layers
        differences = self.config.differences(metadata.get("config", {}))
        warn_of_gaps(report, learns, exclude, differences)
        self.set_log_dir(None if dropped else filepath)
        if learns and not self.epoch and not dropped:
            warn_of_lost_run(filepath, metadata.get("epoch"), self.run_name)
        elif learns and self.epoch and not report.missing_layers:
            find_run_state(self)
        return report

    def get_imagenet_weights(self) -> str:
        """Path of the backbone's ImageNet weights, fetched if need be, for `load_weights`."""
        return str(imagenet_weights(self.config.BACKBONE))

    def metadata(self) -> dict:
        """What a weights file says of its network: config, class names, version."""
        return self.keras_model.metadata()

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes, the background first, where they are known; or None."""
        names = getattr(self.keras_model, "class_names", None)  # `build` may give any model
        return None if names is None else list(names)

    @class_names.setter
    def class_names(self, names: Sequence[str] | None) -> None:
        self.keras_model.class_names = None if names is None else tuple(names)

    # ---- training ----------------------------------------------------------------------------

    def set_trainable(
        self,
        layer_regex: str,
        keras_model: keras.Model | None = None,
        indent: int = 0,
        verbose: int = 1,
    ) -> None:
        """See `mrcnn.training.set_trainable`; `indent` is accepted for compatibility."""
        names = training.set_trainable(keras_model or self.keras_model, layer_regex)
        if verbose:
            logger.info("Layers that learn: %s.", ", ".join(names))

    def train(
        self,
        train_dataset: Dataset,
        val_dataset: Dataset | None,
        learning_rate: float,
        epochs: int,
        layers: str,
        augmentation: Callable | Literal[False] | None = None,
        custom_callbacks: Sequence[keras.callbacks.Callback]
        | keras.callbacks.Callback
        | None = None,
        no_augmentation_sources: str | Iterable[str] | None = None,
        seed: int = 0,
        workers: int | None = None,
        keep_checkpoints: int | None = None,
        metadata: Mapping | None = None,
    ) -> keras.callbacks.History | None:
        """Trains up to epoch `epochs`, counted from the first epoch of the run.

        After `load_weights(find_last())` it continues as if it had never stopped: weights,
        optimizer, schedule, order of images and augmentation.

        Args:
            train_dataset, val_dataset: prepared `Dataset`s; the second may be None.
            learning_rate: the highest of the schedule.
            epochs: number of the last epoch, not a number of further ones.
            layers: "heads", "3+", "4+", "5+", "all" or a regular expression of layer names.
            augmentation: see `mrcnn.augment.augment_instances`; None or False for none.
            custom_callbacks: further Keras callbacks, or one; the weights of an epoch are written
                before they see its end.
            no_augmentation_sources: names of sources whose images are not augmented.
            seed: of order, augmentation and sampling.
            workers: threads that prepare batches; by default one for each core, up to 8.
            keep_checkpoints: number of checkpoints to keep, the latest; None keeps all.
            metadata: by names of their own, stored with the weights besides the configuration.

        Returns:
            The Keras `History`, or None if the run had reached `epochs` before.

        Raises:
            mrcnn.callbacks.NonFiniteLossError: naming the images of the batch.
            mrcnn.data.SampleError: naming an image that cannot be used.
            RuntimeError: if the network was built for inference.
            ValueError: if no layer would learn, a callback is to change a rate that follows a
                schedule, or `metadata` has a name that is taken or what JSON has no form for.
        """
        if self.mode != "training":
            raise RuntimeError("Build the network with mode='training' to train it.")
        if not self.config.USE_RPN_ROIS:
            raise ValueError(
                "train has no regions for a network with USE_RPN_ROIS=False; data_generator with "
                "random_rois makes some, for keras_model.fit."
            )
        if isinstance(custom_callbacks, keras.callbacks.Callback):
            custom_callbacks = [custom_callbacks]
        workers = default_workers() if workers is None else workers
        if self.epoch >= epochs:
            logger.warning(
                "Nothing is trained: `epochs` is the number of the last, %d, and %s has reached "
                "epoch %d. Give a higher number.",
                *(epochs, self.log_dir, self.epoch),
            )
            return None
        if own := sorted({*self.metadata(), "epoch", "logs"}.intersection(metadata or {})):
            raise ValueError(
                f"`metadata` goes beside what is stored anyway; call {' and '.join(own)} otherwise."
            )
        callbacks.refuse_rate_callbacks(self.config, custom_callbacks or [])
        batches = Batches(
            train_dataset,
            self.config,
            steps=self.config.STEPS_PER_EPOCH,
            augmentation=None if augmentation is False else augmentation,
            no_augmentation_sources=no_augmentation_sources,
            seed=seed,
            epoch=self.epoch,
            workers=workers,
        )
        self.class_names = list(train_dataset.class_names)
        validation = None
        if val_dataset is not None:
            validation = Batches(
                val_dataset,
                self.config,
                steps=self.config.VALIDATION_STEPS,  # the same images, of all kinds, every time
                seed=seed,
                workers=workers,
            )
        self.set_trainable(layers)
        return fit(
            self,
            training.Stage(layers, float(learning_rate), self.epoch, epochs),
            batches,
            validation,
            lambda steps: self._compile(learning_rate, steps),
            callbacks.Checkpoint(self, {**self.metadata(), **(metadata or {})}, keep_checkpoints),
            custom_callbacks or (),
        )

    def compile(
        self, learning_rate: float, momentum: float | None = None, steps: int | None = None
    ) -> None:
        """Gives the network its optimizer for `steps` steps; `momentum` replaces the setting.

        Subclasses may have one of their own of `(learning_rate, momentum)`, as matterport's does.
        """
        with self._scope():
            optimizer = training.build_optimizer(self.config, learning_rate, steps, momentum)
            # Without it JAX would not even trace the step; TensorFlow is quicker as it is.
            jit_compile = keras.backend.backend() == "jax"
            self.keras_model.compile(optimizer=optimizer, jit_compile=jit_compile)
            # Slots exist from the start, so that a stopped training's can be put back.
            optimizer.build(self.keras_model.trainable_variables)

    def _compile(self, learning_rate, steps):
        """Calls `compile`, of this class or of a subclass that knows matterport's two arguments."""
        parameters = inspect.signature(self.compile).parameters
        if "steps" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            self.compile(learning_rate, steps=steps)
        else:
            self.compile(learning_rate, self.config.LEARNING_MOMENTUM)
        leave_uncompiled(self.keras_model)
        with self._scope():
            if not self.keras_model.optimizer.built:
                self.keras_model.optimizer.build(self.keras_model.trainable_variables)

    # ---- elsewhere ----------------------------------------------------------------------------

    def export(self, path: str | os.PathLike, limit: int | None = None) -> None:
        """See `mrcnn.export.export_saved_model`."""
        from mrcnn.export import export_saved_model  # which imports TensorFlow

        export_saved_model(self, path, limit)

    def export_network(self, path: str | os.PathLike, batch_size: int = 1) -> None:
        """See `mrcnn.export.export_network`."""
        from mrcnn.export import export_network

        export_network(self, path, batch_size)
