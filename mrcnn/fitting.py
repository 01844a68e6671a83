"""One stage of a training in its run, of whatever network: Keras's `fit` and what belongs to it."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import keras

from mrcnn import callbacks
from mrcnn.data import FailuresRaised
from mrcnn.distribution import device_names
from mrcnn.runs import InRun
from mrcnn.training import (
    Stage,
    count_parameters,
    find_state,
    fingerprint,
    keep_freed_memory,
    restore_state,
    stopped_stage,
)

logger = logging.getLogger(__name__)


def find_run_state(run: InRun) -> None:
    """Finds the state beside the weights just loaded into a run, for `fit` to go on with."""
    reached = run.epoch
    run.state_path, run.epoch = find_state(run.log_dir, reached)
    run.behind = run.epoch < reached
    run.loaded = fingerprint(run.keras_model) if run.state_path else None


def fit(
    run: InRun,
    stage: Stage,
    batches: keras.utils.PyDataset,
    validation: keras.utils.PyDataset | None,
    compile_network: Callable[[int], None],
    checkpoint: callbacks.Checkpoint,
    custom_callbacks: Iterable[keras.callbacks.Callback] = (),
) -> keras.callbacks.History:
    """Trains the network of a run up to the last epoch of a stage, as if it had never stopped.

    The weights of an epoch are written before `custom_callbacks` see its end, which may read them;
    what these change, such as a learning rate, is part of the state, which is written after them.

    Args:
        run: a `mrcnn.runs.InRun` with its `keras_model`.
        stage: the `mrcnn.training.Stage` that begins, or goes on where it was stopped.
        batches: a `keras.utils.PyDataset` that counts its `epoch`, and keeps its `failure`.
        validation: another, or None.
        compile_network: compiles the network for so many steps in all.
        checkpoint: the `mrcnn.callbacks.Checkpoint`.
        custom_callbacks: further Keras callbacks.

    Returns:
        The Keras `History`.

    Raises:
        BlockingIOError: if another process trains this run at the moment.
        Exception: what ended the preparation of a batch.
    """
    stopped = stopped_stage(run.state_path, stage)
    stage = stopped or stage
    compile_network((stage.last_epoch - stage.first_epoch) * len(batches))
    if run.state_path:
        logger.info("Continuing at epoch %d of %s.", run.epoch, run.log_dir)
        as_loaded = fingerprint(run.keras_model) == run.loaded
        # A stage that begins takes the weights as they are, an average that the file has, too;
        # unless they are of an epoch that is trained again.
        weights = as_loaded and (stopped is not None or run.behind)
        restore_state(run.keras_model, run.state_path, stopped, weights)
        if not as_loaded:
            logger.warning(
                "The weights are not those of %s any more: the training goes on from what they are "
                "now.",
                Path(run.state_path).parent,
            )
    run.state_path = None
    logger.info(
        "Epochs %d to %d on %s, %d of %d parameters learn.",
        run.epoch + 1,
        stage.last_epoch,
        ", ".join(device_names(run.keras_model)),
        count_parameters(run.keras_model.trainable_variables),
        run.keras_model.count_params(),
    )
    run.make_log_dir()
    keep_freed_memory()
    # Keras' BackupAndRestore leaves there the epoch that it restored, for all calls to come.
    run.keras_model._initial_epoch = None
    with run.alone(), FailuresRaised(*filter(None, (batches, validation))):
        return run.keras_model.fit(
            batches,
            initial_epoch=run.epoch,
            epochs=stage.last_epoch,
            validation_data=validation,
            shuffle=False,  # Keras would shuffle the batches, with no seed
            callbacks=[
                callbacks.EpochOfBatches(batches),
                callbacks.StopOnNonFiniteLoss(batches),
                callbacks.Pace(batches),
                checkpoint,
                *custom_callbacks,
                *callbacks.log_callbacks(run.log_dir, run.epoch),
                callbacks.State(run.log_dir, stage),
                callbacks.EpochOfModel(run),
            ],
        )
