"""Optimizer, schedule and callbacks of a training that can be stopped and continued."""

import csv
import ctypes
import logging
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import ops

from mrcnn.distribution import ReplicatedAdamW, ReplicatedSGD, process_share, replica_count
from mrcnn.files import atomic_path
from mrcnn.weights import (
    assign_weights,
    load_arrays,
    named_weights,
    read_metadata,
    save_arrays,
    save_weights,
)

logger = logging.getLogger(__name__)

STATE_FILE = "training_state.h5"
HISTORY_FILE = "history.csv"

# Numbers of <malloc.h>: M_TRIM_THRESHOLD (no limit), M_TOP_PAD (256 MiB at a time) and M_MMAP_MAX
# (no block of its own mapping, which would be unmapped when freed).
GLIBC_OPTIONS = {-1: 2**31 - 1, -2: 2**28, -4: 0}

LAYER_SHORTCUTS = {
    "heads": r"(mrcnn_|rpn_|fpn_).*",
    "3+": r"(res[345]|bn[345]|mrcnn_|rpn_|fpn_).*",
    "4+": r"(res[45]|bn[45]|mrcnn_|rpn_|fpn_).*",
    "5+": r"(res5|bn5|mrcnn_|rpn_|fpn_).*",
    "all": ".*",
}


class NonFiniteLossError(FloatingPointError):
    """The loss of a batch was not a finite number; the message names the batch's images."""


@keras.saving.register_keras_serializable("mrcnn")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then constant, or falling to zero as a half cosine.

    Loshchilov & Hutter 2017 (SGDR, equation 5) without restarts.

    Args:
        learning_rate: the highest.
        warmup_steps: steps over which the rate grows from zero.
        decay_steps: step at which the cosine reaches zero; None keeps the rate constant.
    """

    def __init__(self, learning_rate, warmup_steps=0, decay_steps=None):
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rate = ops.ones_like(step) * self.learning_rate
        if self.warmup_steps:
            rate = rate * ops.minimum(1.0, (step + 1.0) / self.warmup_steps)
        if self.decay_steps:
            span = max(1, self.decay_steps - self.warmup_steps)
            progress = ops.clip((step - self.warmup_steps) / span, 0.0, 1.0)
            rate = rate * 0.5 * (1.0 + ops.cos(math.pi * progress))
        return rate

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
        }


def set_trainable(network, layer_regex):
    """Lets the layers learn whose names match the whole expression, and no others.

    Layers frozen by `FREEZE_BACKBONE_STAGES` stay frozen.

    Returns:
        Names of the layers with weights that learn.

    Raises:
        ValueError: if none does, which names the shortcuts.
    """
    layers = list(network._flatten_layers(include_self=False, recursive=True))
    composite = {id(la) for la in layers if list(la._flatten_layers(include_self=False))}
    for layer in layers:
        if id(layer) in composite:
            layer.trainable = True  # the layers inside decide
    names = []
    for layer in layers:
        if id(layer) not in composite:
            fits = re.fullmatch(layer_regex, layer.name) is not None
            layer.trainable = fits and layer.name not in getattr(network, "frozen_layers", ())
            if layer.trainable and layer.weights:
                names.append(layer.name)
    if not names:
        raise ValueError(
            f"No layer with weights matches {layer_regex!r}, so nothing would learn. Use one of "
            f"{', '.join(LAYER_SHORTCUTS)} or a regular expression of layer names."
        )
    return names


def build_optimizer(config, learning_rate, steps):
    """The optimizer of a configuration for a stage of `steps` steps.

    Gradients are clipped by their joint norm, as Keras 2's `clipnorm` did for matterport.
    """
    schedule = WarmupSchedule(
        learning_rate,
        min(config.WARMUP_STEPS, steps // 2),
        steps if config.LEARNING_RATE_DECAY == "cosine" else None,
    )
    sgd, adamw = keras.optimizers.SGD, keras.optimizers.AdamW
    if replica_count() > 1:
        sgd, adamw = ReplicatedSGD, ReplicatedAdamW
    if config.OPTIMIZER == "adamw":
        optimizer = adamw(
            schedule,
            weight_decay=config.WEIGHT_DECAY,
            global_clipnorm=config.GRADIENT_CLIP_NORM,
        )
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        return optimizer
    return sgd(
        schedule,
        momentum=config.LEARNING_MOMENTUM,
        global_clipnorm=config.GRADIENT_CLIP_NORM,
    )


@dataclass
class Stage:
    """One call of `MaskRCNN.train`: what must agree for a stopped training to continue in it."""

    layers: str
    learning_rate: float
    first_epoch: int
    last_epoch: int

    def to_dict(self):
        return dict(vars(self))


class EpochOfBatches(keras.callbacks.Callback):
    """Tells the `Batches` of a training which epoch begins.

    Keras calls `on_epoch_end` of a data set once before the first epoch, too, and before the last
    batch of an epoch has been learned from: counting there would go wrong.
    """

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.epoch = epoch


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Ends the training with an error that names the images of the batch.

    Args:
        batches: the `Batches` of the training.
    """

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if math.isfinite(loss):
            return
        raise NonFiniteLossError(
            f"The loss became {loss} in batch {batch + 1} of epoch {self.batches.epoch + 1}, whose "
            f"images are: {', '.join(self.batches.references(batch))}. Look at these images and "
            "masks; if they are sound, lower the learning rate or GRADIENT_CLIP_NORM. The last "
            "epoch's checkpoint is intact."
        )


class Checkpoint(keras.callbacks.Callback):
    """Writes the weights after every epoch, and one file from which training continues.

    Both are written aside and then renamed together: a training killed at any moment continues
    from the last epoch that has both. Of several processes the first writes.

    Args:
        template: path of the weights with `{epoch:04d}` in it.
        metadata: stored with the weights.
        stage: the `Stage` in progress.
        keep: number of weights files to keep, the latest; None keeps all.
    """

    def __init__(self, template, metadata, stage, keep=None):
        super().__init__()
        self.template = str(template)
        self.metadata = metadata
        self.stage = stage
        self.keep = keep

    def on_epoch_end(self, epoch, logs=None):
        if process_share()[0]:
            return
        path = Path(self.template.format(epoch=epoch + 1))
        logs = {name: float(value) for name, value in (logs or {}).items()}
        metadata = {**self.metadata, "epoch": epoch + 1, "logs": logs}
        with atomic_path(path.parent / STATE_FILE) as state, atomic_path(path) as weights:
            self.save_weights(weights, metadata)
            save_state(self.model, state, self.stage, epoch + 1)
        old = path.parent / Path(self.template.format(epoch=epoch + 1 - (self.keep or 0))).name
        if self.keep and old != path:
            old.unlink(missing_ok=True)

    def save_weights(self, path, metadata):
        """Writes the weights by which the network is to be judged."""
        save_weights(self.model, path, metadata)


class HistoryFile(keras.callbacks.Callback):
    """Adds a row of all logged values to `history.csv` after every epoch.

    Unlike Keras's `CSVLogger` it takes in values that come later than the first epoch, from a
    stage with other callbacks or from one that does not measure every time.
    """

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)

    def on_epoch_end(self, epoch, logs=None):
        rows = [{"epoch": epoch, **(logs or {})}]
        if self.path.exists():
            with open(self.path, newline="") as file:
                rows = [*csv.DictReader(file), *rows]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with atomic_path(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)


def log_callbacks(folder, epoch):
    """TensorBoard's logs and `history.csv`, which a training continued at `epoch` goes on with.

    Of several processes the first writes them.
    """
    if process_share()[0]:
        return []
    history = Path(folder) / HISTORY_FILE
    _cut_history(history, epoch)
    return [
        keras.callbacks.TensorBoard(folder, write_graph=False),
        HistoryFile(history),
    ]


def _cut_history(path, epoch):
    """Drops the rows that a killed training wrote for epochs it has no checkpoint of."""
    if not path.exists():
        return
    # A row cut short by the kill has no end.
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    kept = lines[:1] + [row for row in lines[1:] if int(next(csv.reader([row]))[0]) < epoch]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(kept))


def save_state(model, path, stage, epoch):
    """Writes weights, optimizer and random states to one file."""
    arrays = {
        f"weights/{name}": weight.variable.numpy() for name, weight in named_weights(model).items()
    }
    for index, variable in enumerate(model.optimizer.variables):
        arrays[f"optimizer/{index:05d}"] = variable.numpy()
    for index, variable in enumerate(_random_states(model)):
        arrays[f"random/{index:05d}"] = variable.numpy()
    save_arrays(path, arrays, {"epoch": epoch, "stage": stage.to_dict()})


def find_state(folder, epoch):
    """Where the training of a run stopped, for one who loaded its weights of `epoch`.

    Returns:
        path of the state file and the epoch to continue from; None and `epoch` where the file is
        missing or of another epoch, as after the weights of an earlier one were loaded.
    """
    path = Path(folder) / STATE_FILE
    reached = read_metadata(path).get("epoch") if path.exists() else None
    # One epoch behind: killed between the renaming of the weights and of the state.
    if reached in (epoch, epoch - 1):
        logger.info("Continuing at epoch %d of %s.", reached, folder)
        return path, reached
    logger.warning("No state of epoch %d in %s: the optimizer starts anew.", epoch, path)
    return None, epoch


def stopped_stage(path, stage):
    """The stage whose state `path` holds, if it is `stage` and was stopped half-way; else None.

    Args:
        path: of a state file, or None.
        stage: that is about to begin at the file's epoch.
    """
    if path is None:
        return None
    stored = Stage(**read_metadata(path)["stage"])
    same = (stored.layers, stored.last_epoch) == (stage.layers, stage.last_epoch)
    return stored if same and stored.first_epoch < stage.first_epoch else None


def restore_state(model, path, optimizer=True):
    """Inverse of `save_state` for a compiled model.

    Args:
        model: the network.
        path: of the state file.
        optimizer: whether the optimizer goes on; a stage that begins has one of its own.

    Raises:
        ValueError: if the file holds the state of another training.
    """
    arrays, _ = load_arrays(path)
    groups = {"weights": {}, "optimizer": {}, "random": {}}
    for name, value in arrays.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = value
    _assign(_random_states(model), groups["random"], path)
    if optimizer:
        _assign(model.optimizer.variables, groups["optimizer"], path)
    assign_weights(model, groups["weights"], str(path))


def _assign(variables, arrays, path):
    stored = [arrays[key] for key in sorted(arrays)]
    if [value.shape for value in stored] != [tuple(v.shape) for v in variables]:
        raise ValueError(
            f"{path} holds the state of another training ({len(stored)} arrays for "
            f"{len(variables)} variables, or other shapes). Continue with the settings it was "
            "started with, or start anew from the weights alone."
        )
    for variable, value in zip(variables, stored, strict=True):
        variable.assign(value)


def _random_states(model):
    layers = model._flatten_layers(include_self=False, recursive=True)
    return [
        variable
        for layer in layers
        for variable in layer.variables
        if variable.name == "seed_generator_state"
    ]


def keep_freed_memory():
    """Lets glibc keep what a step has freed for the next step, instead of giving it back.

    Every step asks for the same large blocks. glibc returns them to the system, which clears their
    pages each time: without this, a fifth of the time of a training on a processor goes there.
    Elsewhere than under Linux's glibc it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in GLIBC_OPTIONS.items():
            mallopt(option, value)


def count_parameters(variables):
    """Number of values in a list of variables."""
    return int(sum(np.prod(variable.shape) for variable in variables))
