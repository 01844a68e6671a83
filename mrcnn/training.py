"""Optimizer, schedule and state of a training that can be stopped and continued."""

import ctypes
import logging
import math
import os
import re
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.config import Config
from mrcnn.distribution import ReplicatedAdamW, ReplicatedSGD, replica_count
from mrcnn.tensors import Tensor
from mrcnn.weights import (
    WeightsError,
    assign_weights,
    load_arrays,
    named_weights,
    read_metadata,
    save_arrays,
)

logger = logging.getLogger(__name__)

STATE_FILE = "training_state.h5"

# Numbers of <malloc.h>: M_TRIM_THRESHOLD (no limit), M_TOP_PAD (256 MiB at a time) and M_MMAP_MAX
# (no block of its own mapping, which would be unmapped when freed).
GLIBC_OPTIONS = {-1: 2**31 - 1, -2: 2**28, -4: 0}

LAYER_SHORTCUTS = {"heads": r"(mrcnn_|rpn_|fpn_).*", "all": ".*"}
"""Expressions; "3+", "4+" and "5+" depend on the backbone (`MaskRCNNNetwork.layers_before`)."""


@keras.saving.register_keras_serializable("mrcnn")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then constant, or falling to zero as a half cosine.

    Loshchilov & Hutter 2017 (SGDR, equation 5) without restarts.

    Args:
        learning_rate: the highest.
        warmup_steps: steps over which the rate grows from zero.
        decay_steps: step at which the cosine reaches zero; None keeps the rate constant.
    """

    def __init__(self, learning_rate: float, warmup_steps: int = 0, decay_steps: int | None = None):
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, "float32")
        rate = ops.ones_like(step) * self.learning_rate
        if self.warmup_steps:
            rate = rate * ops.minimum(1.0, (step + 1.0) / self.warmup_steps)
        if self.decay_steps:
            span = max(1, self.decay_steps - self.warmup_steps)
            progress = ops.clip((step - self.warmup_steps) / span, 0.0, 1.0)
            rate = rate * 0.5 * (1.0 + ops.cos(math.pi * progress))
        return rate

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
        }


def set_trainable(network: keras.Model, layer_regex: str) -> list[str]:
    """Lets the layers learn whose names match the whole expression, and no others.

    `LAYER_SHORTCUTS` stand for expressions; "3+", "4+" and "5+" mean the heads and the backbone
    from this stage on. Layers frozen by `FREEZE_BACKBONE_STAGES` stay frozen.

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
    before = getattr(network, "layers_before", {})
    expression = re.compile(LAYER_SHORTCUTS.get(layer_regex, layer_regex))
    names = []
    for layer in layers:
        if id(layer) not in composite:
            if layer_regex in before:
                fits = layer.name not in before[layer_regex]
            else:
                fits = expression.fullmatch(layer.name) is not None
            layer.trainable = fits and layer.name not in getattr(network, "frozen_layers", ())
            if layer.trainable and layer.weights:
                names.append(layer.name)
    if not names:
        raise ValueError(
            f"No layer with weights matches {layer_regex!r}, so nothing would learn. Use one of "
            f"{', '.join([*LAYER_SHORTCUTS, *before])} or a regular expression of layer names."
        )
    return names


def build_optimizer(
    config: Config, learning_rate: float, steps: int | None = None, momentum: float | None = None
) -> keras.optimizers.Optimizer:
    """The optimizer of a configuration for a stage of `steps` steps.

    Gradients are clipped by their joint norm, as Keras 2's `clipnorm` did for matterport. Without
    warm-up and decay the rate is a plain number, which Keras's callbacks may change.

    Args:
        config: gives the optimizer and its settings.
        learning_rate: the highest.
        steps: of all epochs together, which a schedule needs.
        momentum: of SGD, instead of `LEARNING_MOMENTUM`.

    Raises:
        ValueError: if there is a schedule and no number of steps, or an `OPTIMIZER` that is a
            function returns no optimizer.
    """
    sgd, adamw = keras.optimizers.SGD, keras.optimizers.AdamW
    if replica_count() > 1:
        sgd, adamw = ReplicatedSGD, ReplicatedAdamW
    rate = _rate(config, float(learning_rate), steps)
    if callable(config.OPTIMIZER):
        optimizer = config.OPTIMIZER(rate)
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise ValueError(
                "OPTIMIZER must return a Keras optimizer of the learning rate it is called with, "
                f"such as keras.optimizers.Adam(learning_rate); {config.OPTIMIZER} returned "
                f"{optimizer!r}."
            )
        return optimizer
    if config.OPTIMIZER == "adamw":
        if momentum is not None:
            logger.warning("OPTIMIZER 'adamw' has no momentum; the %g given is unused.", momentum)
        optimizer = adamw(
            rate,
            weight_decay=config.WEIGHT_DECAY,
            global_clipnorm=config.GRADIENT_CLIP_NORM,
        )
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        return optimizer
    return sgd(
        rate,
        momentum=float(config.LEARNING_MOMENTUM if momentum is None else momentum),
        global_clipnorm=config.GRADIENT_CLIP_NORM,
    )


def _rate(config, learning_rate, steps):
    """The rate as a number, or its schedule over `steps` steps."""
    warmup, decay = config.WARMUP_STEPS, config.LEARNING_RATE_DECAY
    if not warmup and not decay:
        return learning_rate
    if steps is None:
        raise ValueError(
            f"WARMUP_STEPS={warmup} and LEARNING_RATE_DECAY={decay!r} make a schedule, which needs "
            "the number of steps of all epochs; received steps=None. Call compile(learning_rate, "
            "steps=epochs * steps_per_epoch), or set WARMUP_STEPS = 0 and LEARNING_RATE_DECAY = "
            "None. `MaskRCNN.train` compiles by itself."
        )
    if warmup > steps // 2:
        logger.info(
            "The warm-up takes %d steps instead of WARMUP_STEPS=%d: half of the stage's %d.",
            *(steps // 2, warmup, steps),
        )
        warmup = steps // 2
    return WarmupSchedule(learning_rate, warmup, steps if decay == "cosine" else None)


@dataclass
class Stage:
    """One call of `MaskRCNN.train`: what must agree for a stopped training to continue in it."""

    layers: str
    learning_rate: float
    first_epoch: int
    last_epoch: int

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def save_state(model: keras.Model, path: str | os.PathLike, stage: Stage, epoch: int) -> None:
    """Writes weights, optimizer and random states to one file."""
    arrays = {
        f"weights/{name}": weight.variable.numpy() for name, weight in named_weights(model).items()
    }
    for index, variable in enumerate(model.optimizer.variables):
        arrays[f"optimizer/{index:05d}"] = variable.numpy()
    for index, variable in enumerate(_random_states(model)):
        arrays[f"random/{index:05d}"] = variable.numpy()
    save_arrays(path, arrays, {"epoch": epoch, "stage": stage.to_dict()})


def find_state(folder: str | os.PathLike, epoch: int) -> tuple[Path | None, int]:
    """Where the training of a run stopped, for one who loaded its weights of `epoch`.

    Returns:
        path of the state file and the epoch to continue from; None and `epoch` where the file is
        missing, damaged or of another epoch, as after the weights of an earlier one were loaded.
    """
    path = Path(folder) / STATE_FILE
    reached = None
    try:
        # All of it: damage may lie anywhere.
        reached = load_arrays(path)[1].get("epoch") if path.exists() else None
    except WeightsError as error:
        logger.warning("The state of the training is damaged: %s", error)
    # One epoch behind: killed between the renaming of the weights and of the state.
    if reached in (epoch, epoch - 1):
        return path, reached
    logger.warning("No state of epoch %d in %s: the optimizer starts anew.", epoch, path)
    return None, epoch


def stopped_stage(path: str | os.PathLike | None, stage: Stage) -> Stage | None:
    """The stage whose state `path` holds, if it is `stage` and was stopped half-way; else None.

    Args:
        path: of a state file, or None.
        stage: that is about to begin at the file's epoch.
    """
    if path is None:
        return None
    stored = Stage(**read_metadata(path)["stage"])
    same = (stored.layers, stored.last_epoch) == (stage.layers, stage.last_epoch)
    if not same and stage.first_epoch < stored.last_epoch:
        logger.warning(
            "The stage of layers %r up to epoch %d was stopped at epoch %d; another one begins, of "
            "layers %r up to epoch %d, with an optimizer and a schedule of its own.",
            *(stored.layers, stored.last_epoch, stage.first_epoch, stage.layers, stage.last_epoch),
        )
    if not same or stored.first_epoch >= stage.first_epoch:
        return None
    return replace(stage, first_epoch=stored.first_epoch)


def fingerprint(model: keras.Model) -> int:
    """A number that changes with any value of a network's weights."""
    number = 0
    for weight in model.weights:
        number = zlib.crc32(np.ascontiguousarray(ops.convert_to_numpy(weight)).tobytes(), number)
    return number


def restore_state(
    model: keras.Model, path: str | os.PathLike, stage: Stage | None, weights: bool = True
) -> None:
    """Inverse of `save_state` for a compiled model.

    Where another learning rate is asked for than before, it is the one that counts; without a
    schedule a callback may have lowered the rate, which otherwise stays.

    Args:
        model: the network.
        path: of the state file.
        stage: the `Stage` that goes on (`stopped_stage`); None for one that begins, with an
            optimizer of its own.
        weights: whether the network's weights are restored, too.

    Raises:
        ValueError: if the file holds the state of another training.
    """
    arrays, metadata = load_arrays(path)
    groups: dict[str, dict[str, np.ndarray]] = {"weights": {}, "optimizer": {}, "random": {}}
    for name, value in arrays.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = value
    _assign(_random_states(model), groups["random"], path)
    if stage is not None:
        _assign(model.optimizer.variables, groups["optimizer"], path)
        _change_rate(model.optimizer, metadata["stage"]["learning_rate"], stage.learning_rate)
    if weights:
        assign_weights(model, groups["weights"], str(path))


def _change_rate(optimizer, before, rate):
    if rate == before:
        return
    logger.warning("The training goes on with a learning rate of %g instead of %g.", rate, before)
    try:
        optimizer.learning_rate = rate
    except TypeError:  # it follows a schedule, which has been made with this rate
        pass


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


def keep_freed_memory() -> None:
    """Lets glibc keep what a step has freed for the next step, instead of giving it back.

    Every step asks for the same large blocks. glibc returns them to the system, which clears their
    pages each time: without this, a fifth of the time of a training on a processor goes there.
    Elsewhere than under Linux's glibc it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in GLIBC_OPTIONS.items():
            mallopt(option, value)


def count_parameters(variables: Iterable[keras.Variable]) -> int:
    """Number of values in a list of variables."""
    return int(sum(np.prod(variable.shape) for variable in variables))
