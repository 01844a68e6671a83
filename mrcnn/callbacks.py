"""What a training does between batches and epochs: checks, checkpoints, logs."""

import csv
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras

from mrcnn.arrays import metadata_text
from mrcnn.config import Config
from mrcnn.distribution import process_share
from mrcnn.files import atomic_path
from mrcnn.runs import HISTORY_FILE, InRun
from mrcnn.training import STATE_FILE, Stage, save_state
from mrcnn.weights import save_weights

logger = logging.getLogger(__name__)


class NonFiniteLossError(FloatingPointError):
    """The loss of a batch was not a finite number; the message names the batch's images."""


def refuse_rate_callbacks(config: Config, callbacks: Iterable[keras.callbacks.Callback]) -> None:
    """Raises ValueError where callbacks would change a rate that follows a schedule.

    Keras finds out when they first do, which may be hours later.
    """
    settings = ((n, getattr(config, n)) for n in ("WARMUP_STEPS", "LEARNING_RATE_DECAY"))
    given = " and ".join(f"{name}={value!r}" for name, value in settings if value)
    kinds = (keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler)
    for callback in callbacks:
        if given and isinstance(callback, kinds):
            raise ValueError(
                f"{type(callback).__name__} cannot change the learning rate, which follows the "
                f"schedule of {given}. Leave the callback out, or set WARMUP_STEPS = 0 and "
                "LEARNING_RATE_DECAY = None."
            )


class OfBatches(keras.callbacks.Callback):
    """What looks at the `Batches` of a training, as a base class.

    Args:
        batches: the attribute of this name.
    """

    def __init__(self, batches: keras.utils.PyDataset):
        super().__init__()
        self.batches = batches


class EpochOfBatches(OfBatches):
    """Tells the `Batches` of a training which epoch begins.

    Keras calls `on_epoch_end` of a data set once before the first epoch, too, and before the last
    batch of an epoch has been learned from: counting there would go wrong.
    """

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.batches.epoch = epoch


class EpochOfModel(keras.callbacks.Callback):
    """Tells a model the epoch it has reached, so that one that is stopped knows it, too.

    Args:
        owner: has the attribute `epoch`.
    """

    def __init__(self, owner: Any):
        super().__init__()
        self.owner = owner

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.owner.epoch = epoch + 1


class StopOnNonFiniteLoss(OfBatches):
    """Ends the training with an error that names the images of the batch."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if math.isfinite(loss):
            return
        raise NonFiniteLossError(
            f"The loss became {loss} in batch {batch + 1} of epoch {self.batches.epoch + 1}, whose "
            f"images are: {', '.join(self.batches.references(batch))}. Look at these images and "
            "masks; if they are sound, lower the learning rate or GRADIENT_CLIP_NORM."
            + (" The last epoch's checkpoint is intact." if self.batches.epoch else "")
        )


class Pace(OfBatches):
    """Says after every epoch how long steps took, and how busy the threads were that feed them.

    That the network waits for them is warned of once. The batches have `preparing` and `workers`.
    """

    BUSY = 0.9  # share of their time from which the network may wait for the threads

    _warned = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._begun, self._steps = time.perf_counter(), 0
        self.batches.preparing.clear()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._steps += 1
        self._taken = time.perf_counter() - self._begun

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if not self._steps:
            return
        preparing, workers = list(self.batches.preparing), max(1, self.batches.workers)
        busy = sum(preparing) / (self._taken * workers)
        logger.info(
            "%.2f s per step; the threads that prepare batches (workers=%d) were busy %.0f %% of "
            "the time.",
            *(self._taken / self._steps, workers, 100 * min(1, busy)),
        )
        if busy > self.BUSY and not self._warned:
            self._warned = True
            logger.warning(
                "The network waits for its batches: the threads that prepare them (workers=%d) "
                "were busy %.0f %% of epoch %d. More of them, smaller images on the disk or less "
                "augmentation may be quicker.",
                *(workers, 100 * min(1, busy), epoch + 1),
            )


class NothingMatched(keras.callbacks.Callback):
    """Warns once of an epoch in which the box and mask heads had nothing to learn from."""

    _warned = False

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        weights = getattr(getattr(self.model, "config", None), "LOSS_WEIGHTS", {})
        weighted = [n for n in ("mrcnn_bbox_loss", "mrcnn_mask_loss") if weights.get(n, 1)]
        if self._warned or not weighted or any((logs or {}).get(name) != 0 for name in weighted):
            return
        self._warned = True
        logger.warning(
            "mrcnn_bbox_loss and mrcnn_mask_loss were 0 through all of epoch %d: no region "
            "overlapped an object by an IoU of 0.5, so that the heads learned nothing. Where that "
            "goes on, look whether the images show objects (mrcnn.checks.check_dataset) and "
            "whether RPN_ANCHOR_SCALES fit their sizes (mrcnn.anchor_fit.suggest_anchors); "
            "ADD_GT_TO_PROPOSALS = True makes regions of the objects themselves, and "
            "SAMPLE_NEGATIVES_ALWAYS = True learns from the background meanwhile.",
            epoch + 1,
        )


class Checkpoint(keras.callbacks.Callback):
    """Writes the weights after every epoch. Of several processes the first writes.

    Args:
        run: the `mrcnn.runs.InRun`, whose `checkpoint_path` has `{epoch:04d}` in it.
        metadata: stored with the weights; WeightsError if JSON has no form for it.
        keep: number of weights files to keep, the latest; None keeps all.
    """

    def __init__(self, run: InRun, metadata: Mapping, keep: int | None = None):
        super().__init__()
        if keep is not None and keep < 1:
            raise ValueError(f"`keep_checkpoints` must be at least 1, or None; received {keep}.")
        metadata_text(metadata)  # rather now than when the first epoch is over
        self.run = run
        self.metadata = metadata
        self.keep = keep

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if process_share()[0]:
            return
        template = str(self.run.checkpoint_path)
        logs = {name: float(value) for name, value in (logs or {}).items()}
        metadata = {**self.metadata, "epoch": epoch + 1, "logs": logs}
        # Durable also where a subclass writes the weights.
        with atomic_path(template.format(epoch=epoch + 1), durable=True) as weights:
            self.save_weights(weights, metadata)
        for old in range(1, epoch + 2 - (self.keep or epoch + 1)):
            Path(template.format(epoch=old)).unlink(missing_ok=True)

    def save_weights(self, path: str | os.PathLike, metadata: Mapping) -> None:
        """Writes the weights by which the network is to be judged."""
        save_weights(self.model, path, metadata)


class State(keras.callbacks.Callback):
    """Writes after every epoch the one file from which training continues.

    It comes after the weights of its epoch: a training killed between the two goes on from the
    epoch before (`mrcnn.training.find_state`). Of several processes the first writes.

    Args:
        folder: of the run.
        stage: the `Stage` in progress.
    """

    def __init__(self, folder: str | os.PathLike, stage: Stage):
        super().__init__()
        self.path = Path(folder) / STATE_FILE
        self.stage = stage

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if not self.path.exists():  # so that there is an epoch before the first one, too
            self._write(self.stage.first_epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._write(epoch + 1)

    def _write(self, epoch):
        if process_share()[0]:
            return
        save_state(self.model, self.path, self.stage, epoch)


class HistoryFile(keras.callbacks.Callback):
    """Adds a row of all logged values to `history.csv` after every epoch.

    Unlike Keras's `CSVLogger` it takes in values that come later than the first epoch, from a
    stage with other callbacks or from one that does not measure every time.
    """

    def __init__(self, path: str | os.PathLike):
        super().__init__()
        self.path = Path(path)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        rows: list[dict] = [{"epoch": epoch, **(logs or {})}]
        if self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as file:
                rows = [*csv.DictReader(file), *rows]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with (
            atomic_path(self.path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)


def log_callbacks(folder: str | os.PathLike, epoch: int) -> list[keras.callbacks.Callback]:
    """TensorBoard's logs and `history.csv`, which a training continued at `epoch` goes on with.

    Also what warns where the losses say that nothing was learned from. Of several processes the
    first writes them.
    """
    if process_share()[0]:
        return []
    history = Path(folder) / HISTORY_FILE
    _cut_history(history, epoch)
    return [
        NothingMatched(),
        keras.callbacks.TensorBoard(folder, write_graph=False),
        HistoryFile(history),
    ]


def _cut_history(path, epoch):
    """Drops the rows that a killed training wrote for epochs it has no checkpoint of."""
    if not path.exists():
        return
    try:
        # A row cut short by the kill has no end.
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        lines = [line for line in lines if line.endswith("\n") and line.strip()]
        kept = lines[:1] + [row for row in lines[1:] if int(next(csv.reader([row]))[0]) < epoch]
    except ValueError as error:
        raise ValueError(
            f"{path} is not as it was written, with an epoch at the start of each row "
            f"({error}). Restore it, or move it away to begin a new one."
        ) from error
    with atomic_path(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
