import csv
import logging
import math
from collections import deque
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from mrcnn.callbacks import (
    HISTORY_FILE,
    Checkpoint,
    HistoryFile,
    NonFiniteLossError,
    NothingMatched,
    Pace,
    State,
    StopOnNonFiniteLoss,
    log_callbacks,
    refuse_rate_callbacks,
)
from mrcnn.config import Config
from mrcnn.training import (
    STATE_FILE,
    Stage,
    WarmupSchedule,
    build_optimizer,
    count_parameters,
    find_state,
    restore_state,
    save_state,
    set_trainable,
    stopped_stage,
)
from mrcnn.weights import load_weights, read_metadata


@pytest.fixture
def network():
    """Dense layers with the names of every part, one of them in a model of its own."""

    def make():
        inputs = keras.Input((4,))
        hidden = keras.layers.Dense(3, name="conv1")(inputs)
        hidden = keras.layers.Dropout(0.5, name="dropout", seed=0)(hidden)
        for name in ("res2a", "res3a", "res4a", "res5a", "fpn_c5p5"):
            hidden = keras.layers.Dense(3, name=name)(hidden)
        inner = keras.Input((3,))
        proposals = keras.Model(inner, keras.layers.Dense(2, name="rpn_class_raw")(inner))
        proposals.name = "rpn_model"
        model = keras.Model(inputs, keras.layers.Dense(1, name="mrcnn_mask")(proposals(hidden)))
        model.frozen_layers = ()
        names = ("input", "conv1", "dropout", "res2a", "res3a", "res4a")
        model.layers_before = {f"{n}+": set(names[: n + 1]) for n in (3, 4, 5)}
        return model

    return make


def compiled(model, learning_rate=0.01, steps=100):
    model.compile(build_optimizer(Config(OPTIMIZER="adamw"), learning_rate, steps), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def train(model, steps):
    rng = np.random.default_rng(steps)
    for _ in range(steps):
        model.train_on_batch(rng.normal(size=(8, 4)), rng.normal(size=(8, 1)))


def values(model):
    return [weight.numpy() for weight in model.weights]


class TestSchedule:
    def test_constant_by_default(self):
        schedule = WarmupSchedule(0.5)
        assert [float(schedule(step)) for step in (0, 7, 1000)] == [0.5] * 3

    def test_warm_up_is_linear(self):
        schedule = WarmupSchedule(1.0, warmup_steps=4)
        rates = [float(schedule(step)) for step in range(6)]
        assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])

    def test_cosine_falls_to_zero(self):
        schedule = WarmupSchedule(2.0, decay_steps=8)
        expected = [1 + math.cos(math.pi * step / 8) for step in range(9)]
        assert [float(schedule(step)) for step in range(9)] == pytest.approx(expected, abs=1e-6)
        assert float(schedule(20)) == pytest.approx(0, abs=1e-6)

    def test_cosine_begins_after_the_warm_up(self):
        schedule = WarmupSchedule(1.0, warmup_steps=5, decay_steps=25)
        assert float(schedule(4)) == pytest.approx(1)
        assert float(schedule(15)) == pytest.approx(0.5)

    def test_can_be_saved(self):
        schedule = WarmupSchedule(0.1, warmup_steps=3, decay_steps=9)
        again = keras.optimizers.schedules.deserialize(
            keras.optimizers.schedules.serialize(schedule)
        )
        assert [float(again(step)) for step in range(9)] == [
            float(schedule(step)) for step in range(9)
        ]


class TestOptimizer:
    def test_sgd_is_matterports(self):
        optimizer = build_optimizer(Config(), 0.02, steps=10)
        assert isinstance(optimizer, keras.optimizers.SGD)
        assert (optimizer.momentum, optimizer.global_clipnorm) == (0.9, 5.0)
        assert float(optimizer.learning_rate) == pytest.approx(0.02)

    def test_rate_that_callbacks_may_change(self, network):
        model = network()
        model.compile(build_optimizer(Config(), 0.02, steps=10), "mse")
        halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        data = np.zeros((8, 4)), np.zeros((8, 1))
        model.fit(*data, epochs=2, callbacks=[halve], verbose=0)
        assert float(model.optimizer.learning_rate) == pytest.approx(0.005)

    @pytest.mark.parametrize(
        "setting", [{"WARMUP_STEPS": 5}, {"LEARNING_RATE_DECAY": "cosine"}], ids=str
    )
    def test_rate_that_they_may_not(self, setting):
        plateau = keras.callbacks.ReduceLROnPlateau()
        with pytest.raises(ValueError, match=f"ReduceLROnPlateau cannot.*{next(iter(setting))}"):
            refuse_rate_callbacks(Config(**setting), [plateau])
        refuse_rate_callbacks(Config(**setting), [keras.callbacks.EarlyStopping()])
        refuse_rate_callbacks(Config(), [plateau])

    def test_adamw_decays_kernels_alone(self, network):
        optimizer = build_optimizer(Config(OPTIMIZER="adamw", WEIGHT_DECAY=0.03), 0.02, steps=10)
        assert optimizer.weight_decay == 0.03
        model = network()
        optimizer.build(model.trainable_variables)
        decayed = {
            weight.name for weight in model.weights if optimizer._use_weight_decay(weight)
        } - {"seed_generator_state"}
        assert decayed == {"kernel"}

    def test_cosine_ends_with_the_stage(self):
        config = Config(LEARNING_RATE_DECAY="cosine", WARMUP_STEPS=1000)
        schedule = build_optimizer(config, 0.1, steps=20)._learning_rate
        assert (schedule.warmup_steps, schedule.decay_steps) == (10, 20)

    @pytest.mark.parametrize(("steps", "said"), [(20, True), (22, False)])
    def test_warm_up_takes_half_of_a_short_stage_at_most(self, caplog, steps, said):
        with caplog.at_level(logging.INFO, "mrcnn"):
            schedule = build_optimizer(Config(WARMUP_STEPS=11), 0.1, steps)._learning_rate
        assert schedule.warmup_steps == min(11, steps // 2)
        assert ("takes 10 steps instead of WARMUP_STEPS=11" in caplog.text) == said

    @pytest.mark.parametrize(
        "setting", [{"WARMUP_STEPS": 5}, {"LEARNING_RATE_DECAY": "cosine"}], ids=str
    )
    def test_schedule_of_unknown_length_is_refused(self, setting):
        with pytest.raises(ValueError, match=r"received steps=None. Call compile\(.*steps="):
            build_optimizer(Config(**setting), 0.1)

    def test_without_a_schedule_the_length_does_not_count(self):
        assert float(build_optimizer(Config(), 0.1).learning_rate) == pytest.approx(0.1)

    @pytest.mark.parametrize(("setting", "given"), [(0, None), (0.9, 0)])
    def test_momentum_may_be_a_whole_number(self, setting, given):
        optimizer = build_optimizer(Config(LEARNING_MOMENTUM=setting), 0.1, momentum=given)
        assert optimizer.momentum == 0

    @pytest.mark.parametrize(("momentum", "said"), [(0.5, True), (None, False)])
    def test_adamw_says_that_it_has_no_momentum(self, caplog, momentum, said):
        build_optimizer(Config(OPTIMIZER="adamw"), 0.1, momentum=momentum)
        assert ("has no momentum; the 0.5 given is unused" in caplog.text) == said


class TestSetTrainable:
    @pytest.mark.parametrize(
        ("layers", "left_out"),
        [
            ("heads", {"conv1", "res2a", "res3a", "res4a", "res5a"}),
            ("5+", {"conv1", "res2a", "res3a", "res4a"}),
            ("4+", {"conv1", "res2a", "res3a"}),
            ("3+", {"conv1", "res2a"}),
            ("all", set()),
        ],
    )
    def test_shortcuts(self, network, layers, left_out):
        model = network()
        everything = {"conv1", "res2a", "res3a", "res4a", "res5a", "fpn_c5p5", "mrcnn_mask"}
        names = set_trainable(model, layers)
        assert set(names) == (everything | {"rpn_class_raw"}) - left_out
        assert len(model.trainable_variables) == 2 * len(names)

    def test_later_stage_brings_layers_back(self, network):
        model = network()
        set_trainable(model, "heads")
        set_trainable(model, ".*")
        assert len(model.trainable_variables) == 16

    def test_whole_name_must_match(self, network):
        with pytest.raises(ValueError, match="No layer with weights matches 'res'.*heads, all, 3"):
            set_trainable(network(), "res")

    def test_frozen_layers_stay_frozen(self, network):
        model = network()
        model.frozen_layers = ("conv1", "res2a")
        assert not {"conv1", "res2a"} & set(set_trainable(model, ".*"))

    def test_parameters_are_counted(self, network):
        model = network()
        set_trainable(model, "conv1|mrcnn_mask")
        assert count_parameters(model.trainable_variables) == (4 * 3 + 3) + (2 + 1)


class TestState:
    def test_training_goes_on_as_if_never_stopped(self, network, tmp_path):
        whole = compiled(network())
        train(whole, 3)
        save_state(whole, tmp_path / "state.h5", Stage(".*", 0.01, 0, 2), 1)
        continued = compiled(network())
        restore_state(continued, tmp_path / "state.h5", Stage(".*", 0.01, 0, 2))
        for model in (whole, continued):
            train(model, 4)
        for first, second in zip(values(whole), values(continued), strict=True):
            np.testing.assert_array_equal(first, second)
        assert int(continued.optimizer.iterations) == 7

    def test_new_stage_has_an_optimizer_of_its_own(self, network, tmp_path):
        model = compiled(network())
        train(model, 3)
        save_state(model, tmp_path / "state.h5", Stage(".*", 0.01, 0, 2), 1)
        other = compiled(network())
        restore_state(other, tmp_path / "state.h5", None)
        assert int(other.optimizer.iterations) == 0
        for first, second in zip(values(model), values(other), strict=True):
            np.testing.assert_array_equal(first, second)

    @pytest.mark.parametrize("asked, found", [(0.01, 0.005), (0.002, 0.002)])
    def test_another_rate_that_is_asked_for_counts(self, network, tmp_path, asked, found):
        model = compiled(network())
        model.optimizer.learning_rate = 0.005  # as a callback does
        save_state(model, tmp_path / "state.h5", Stage(".*", 0.01, 0, 2), 1)
        other = compiled(network(), learning_rate=asked)
        restore_state(other, tmp_path / "state.h5", Stage(".*", asked, 0, 2))
        assert float(other.optimizer.learning_rate) == pytest.approx(found)

    def test_another_rate_of_a_schedule(self, network, tmp_path):
        config = Config(OPTIMIZER="adamw", LEARNING_RATE_DECAY="cosine")
        models = []
        for rate in (0.01, 0.002):
            models.append(network())
            models[-1].compile(build_optimizer(config, rate, 100), "mse")
            models[-1].optimizer.build(models[-1].trainable_variables)
        save_state(models[0], tmp_path / "state.h5", Stage(".*", 0.01, 0, 2), 1)
        restore_state(models[1], tmp_path / "state.h5", Stage(".*", 0.002, 0, 2))
        assert float(models[1].optimizer.learning_rate) == pytest.approx(0.002, rel=1e-3)

    def test_state_of_another_training_is_refused(self, network, tmp_path):
        model = network()
        set_trainable(model, "mrcnn_mask")
        save_state(compiled(model), tmp_path / "state.h5", Stage("mrcnn_mask", 0.01, 0, 2), 1)
        with pytest.raises(ValueError, match="state of another training"):
            restore_state(
                compiled(network()), tmp_path / "state.h5", Stage("mrcnn_mask", 0.01, 0, 2)
            )

    def test_stage_that_was_stopped(self, network, tmp_path):
        path = tmp_path / "state.h5"
        save_state(compiled(network()), path, Stage(".*", 0.01, 3, 9), 5)
        assert stopped_stage(path, Stage(".*", 0.01, 5, 9)) == Stage(".*", 0.01, 3, 9)
        assert stopped_stage(path, Stage(".*", 0.02, 5, 9)) == Stage(".*", 0.02, 3, 9)

    @pytest.mark.parametrize(
        "stage",
        [Stage("heads", 0.01, 5, 9), Stage(".*", 0.01, 5, 12), Stage(".*", 0.01, 3, 9)],
        ids=["other layers", "other end", "from its beginning"],
    )
    def test_other_stages_begin(self, network, tmp_path, stage):
        path = tmp_path / "state.h5"
        save_state(compiled(network()), path, Stage(".*", 0.01, 3, 9), 5)
        assert stopped_stage(path, stage) is None

    def test_without_a_file_the_stage_begins(self):
        assert stopped_stage(None, Stage(".*", 0.01, 0, 9)) is None


class TestFindState:
    @pytest.fixture
    def folder(self, network, tmp_path):
        save_state(compiled(network()), tmp_path / STATE_FILE, Stage(".*", 0.01, 0, 9), 5)
        return tmp_path

    def test_of_the_epoch(self, folder):
        assert find_state(folder, 5) == (folder / STATE_FILE, 5)

    def test_killed_before_the_state_was_renamed(self, folder):
        assert find_state(folder, 6) == (folder / STATE_FILE, 5)

    def test_weights_of_an_earlier_epoch_start_anew(self, folder):
        assert find_state(folder, 3) == (None, 3)

    def test_no_file(self, tmp_path):
        assert find_state(tmp_path, 3) == (None, 3)

    def test_damaged_file(self, folder, caplog):
        content = (folder / STATE_FILE).read_bytes()
        (folder / STATE_FILE).write_bytes(content[: len(content) // 2])
        assert find_state(folder, 5) == (None, 5)  # the weights may be whole
        assert f"damaged: {folder / STATE_FILE}" in caplog.text
        assert "the optimizer starts anew" in caplog.text

    def test_file_damaged_inside(self, folder, caplog):
        """Its description may be whole."""
        content = bytearray((folder / STATE_FILE).read_bytes())
        place = content.rfind(b"OHDR")  # what is said of the last array
        content[place : place + 40] = bytes(40)
        (folder / STATE_FILE).write_bytes(content)
        assert read_metadata(folder / STATE_FILE)["epoch"] == 5
        assert find_state(folder, 5) == (None, 5)
        assert "damaged" in caplog.text


class TestNonFiniteLoss:
    @pytest.fixture
    def callback(self):
        return StopOnNonFiniteLoss(
            SimpleNamespace(epoch=2, references=lambda index: [f"a{index}.png", f"b{index}.png"])
        )

    @pytest.mark.parametrize("loss", [math.nan, math.inf, np.float32("nan")])
    def test_images_are_named(self, callback, loss):
        with pytest.raises(NonFiniteLossError, match="batch 5 of epoch 3.* a4.png, b4.png"):
            callback.on_train_batch_end(4, {"loss": loss})

    def test_finite_losses_pass(self, callback):
        callback.on_train_batch_end(4, {"loss": 1e30})


class TestCheckpoint:
    @pytest.fixture
    def callback(self, network, tmp_path):
        def make(**settings):
            folder = tmp_path / "run"
            run = SimpleNamespace(checkpoint_path=folder / "mask_rcnn_cell_{epoch:04d}.h5")
            callbacks = keras.callbacks.CallbackList(
                [
                    Checkpoint(run, {"task": "x"}, **settings),
                    State(folder, Stage(".*", 0.01, 0, 9)),
                ],
                model=compiled(network()),
            )
            return callbacks

        return make

    def test_weights_and_state_are_written(self, callback, network, tmp_path):
        callback = callback()
        callback.on_epoch_end(0, {"loss": np.float32(0.5)})
        weights = tmp_path / "run" / "mask_rcnn_cell_0001.h5"
        assert read_metadata(weights) == {"task": "x", "epoch": 1, "logs": {"loss": 0.5}}
        assert find_state(tmp_path / "run", 1) == (tmp_path / "run" / STATE_FILE, 1)
        other = network()
        load_weights(other, weights)
        for first, second in zip(values(callback.model), values(other), strict=True):
            np.testing.assert_array_equal(first, second)

    def test_none_cannot_be_kept(self, callback):
        with pytest.raises(ValueError, match="`keep_checkpoints` must be at least 1.*received 0"):
            callback(keep=0)

    def test_first_epoch_has_a_state_before_it(self, callback, tmp_path, monkeypatch):
        callback = callback()
        callback.on_train_begin()
        assert find_state(tmp_path / "run", 1)[1] == 0
        callback.on_epoch_end(0)
        callback.on_train_begin()  # of the next stage
        assert find_state(tmp_path / "run", 1)[1] == 1

    def test_all_are_kept_by_default(self, callback, tmp_path):
        callback = callback()
        for epoch in range(3):
            callback.on_epoch_end(epoch)
        assert len(list((tmp_path / "run").iterdir())) == 3 + 1

    def test_old_ones_are_removed(self, callback, tmp_path):
        callback = callback(keep=2)
        for epoch in range(5):
            callback.on_epoch_end(epoch)
        names = sorted(path.name for path in (tmp_path / "run").iterdir())
        assert names == ["mask_rcnn_cell_0004.h5", "mask_rcnn_cell_0005.h5", STATE_FILE]

    def test_old_ones_of_a_run_that_kept_all(self, callback, tmp_path):
        for keep, epochs in ((None, range(4)), (2, range(4, 5))):
            kept = callback(keep=keep)
            for epoch in epochs:
                kept.on_epoch_end(epoch)
        names = sorted(path.name for path in (tmp_path / "run").iterdir())
        assert names == ["mask_rcnn_cell_0004.h5", "mask_rcnn_cell_0005.h5", STATE_FILE]

    @pytest.mark.parametrize("written", ["weights", "state"])
    def test_full_disk_leaves_what_a_training_goes_on_from(
        self, callback, tmp_path, monkeypatch, written
    ):
        """Weights whose state is missing go on from the epoch before."""
        callback = callback()
        callback.on_epoch_end(0)

        def full(*arguments):
            raise OSError("No space left on device")

        monkeypatch.setattr(f"mrcnn.callbacks.save_{written}", full)
        with pytest.raises(OSError, match="space"):
            callback.on_epoch_end(1)
        epochs = 1 if written == "weights" else 2
        names = sorted(path.name for path in (tmp_path / "run").iterdir())
        assert names == [*(f"mask_rcnn_cell_000{n + 1}.h5" for n in range(epochs)), STATE_FILE]
        assert find_state(tmp_path / "run", epochs)[1] == 1


class TestPace:
    @pytest.mark.parametrize(("seconds", "hint"), [(0.1, False), (100.0, True)])
    def test_says_how_busy_the_threads_were(self, seconds, hint, caplog):
        batches = SimpleNamespace(preparing=deque([7.0]), workers=2)
        callback = Pace(batches)
        callback.on_epoch_begin(0)
        assert not batches.preparing  # what was prepared for the epoch before does not count
        for batch in range(3):
            callback.on_train_batch_end(batch)
        callback._taken = 3.0
        batches.preparing.extend([seconds] * 3)
        with caplog.at_level(logging.INFO, "mrcnn"):
            callback.on_epoch_end(0)
        busy = 100 if hint else 5
        assert (
            f"1.00 s per step; the threads that prepare batches (workers=2) were busy {busy} %"
            in (caplog.text)
        )
        assert ("waits for its batches" in caplog.text) == hint

    def test_an_epoch_without_steps(self):
        callback = Pace(SimpleNamespace(preparing=deque(), workers=2))
        callback.on_epoch_begin(0)
        callback.on_epoch_end(0)


class TestHistory:
    def rows(self, folder):
        with open(folder / HISTORY_FILE, newline="") as file:
            return [(row["epoch"], row["loss"]) for row in csv.DictReader(file)]

    def log(self, folder, first, *losses):
        logger = log_callbacks(folder, first)[-1]
        logger.on_train_begin()
        for epoch, loss in enumerate(losses, start=first):
            logger.on_epoch_end(epoch, {"loss": loss})
        logger.on_train_end()

    def test_continued_training_appends(self, tmp_path):
        self.log(tmp_path, 0, 3.0, 2.0)
        self.log(tmp_path, 2, 1.0)
        assert self.rows(tmp_path) == [("0", "3.0"), ("1", "2.0"), ("2", "1.0")]

    def test_epoch_without_checkpoint_is_not_logged_twice(self, tmp_path):
        self.log(tmp_path, 0, 3.0, 2.0, 9.0)
        self.log(tmp_path, 2, 1.0)
        assert self.rows(tmp_path) == [("0", "3.0"), ("1", "2.0"), ("2", "1.0")]

    def test_row_cut_short_is_dropped(self, tmp_path):
        self.log(tmp_path, 0, 3.0, 2.0)
        with open(tmp_path / HISTORY_FILE, "a") as file:
            file.write("1")
        self.log(tmp_path, 2, 1.0)
        assert self.rows(tmp_path) == [("0", "3.0"), ("1", "2.0"), ("2", "1.0")]

    def test_values_that_come_later_get_columns(self, tmp_path):
        for epoch, logs in enumerate([{"loss": 3.0}, {"loss": 2.0, "acc": 0.5}, {"loss": 1.0}]):
            HistoryFile(tmp_path / HISTORY_FILE).on_epoch_end(epoch, logs)
        with open(tmp_path / HISTORY_FILE, newline="") as file:
            assert list(csv.reader(file)) == [
                ["epoch", "loss", "acc"],
                ["0", "3.0", ""],
                ["1", "2.0", "0.5"],
                ["2", "1.0", ""],
            ]

    def test_blank_rows_are_dropped(self, tmp_path):
        self.log(tmp_path, 0, 3.0)
        with open(tmp_path / HISTORY_FILE, "a") as file:
            file.write("\n")
        self.log(tmp_path, 1, 1.0)
        assert self.rows(tmp_path) == [("0", "3.0"), ("1", "1.0")]

    @pytest.mark.parametrize("content", [b"epoch;loss\n0;3,0\n", b"\xff\xfee\0"])
    def test_file_saved_by_a_spreadsheet_is_named(self, tmp_path, content):
        (tmp_path / HISTORY_FILE).write_bytes(content)
        with pytest.raises(ValueError, match=r"history\.csv is not as it was written.*Restore it"):
            self.log(tmp_path, 1, 1.0)
        assert (tmp_path / HISTORY_FILE).read_bytes() == content

    def test_killed_before_the_first_row(self, tmp_path):
        (tmp_path / HISTORY_FILE).touch()
        self.log(tmp_path, 0, 3.0)
        assert self.rows(tmp_path) == [("0", "3.0")]


class TestWarnings:
    """What is said once of a training, and as a warning."""

    def test_network_that_waits_for_its_batches(self, caplog):
        callback = Pace(SimpleNamespace(preparing=deque(), workers=2))
        for epoch in range(3):
            callback.on_epoch_begin(epoch)
            callback.on_train_batch_end(0)
            callback._taken = 3.0
            callback.batches.preparing.extend([0.1 if epoch == 0 else 6.0])
            callback.on_epoch_end(epoch)
        (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert "waits for its batches" in warning
        assert "(workers=2) were busy 100 % of epoch 2" in warning

    def test_nothing_matched(self, caplog, tmp_path):
        callback = log_callbacks(tmp_path, 0)[0]
        assert isinstance(callback, NothingMatched)
        for epoch, value in enumerate([0.1, 0.0, 0.0]):
            callback.on_epoch_end(epoch, {"mrcnn_bbox_loss": 0.0, "mrcnn_mask_loss": value})
        assert len(caplog.records) == 1
        assert "were 0 through all of epoch 2: no region overlapped an object" in caplog.text
        for name in ("RPN_ANCHOR_SCALES", "ADD_GT_TO_PROPOSALS", "SAMPLE_NEGATIVES_ALWAYS"):
            assert name in caplog.text
            assert hasattr(Config, name)

    def test_losses_of_no_weight_say_nothing(self, caplog):
        callback, weights = NothingMatched(), {"mrcnn_bbox_loss": 0.0, "mrcnn_mask_loss": 0.0}
        callback.set_model(SimpleNamespace(config=Config(LOSS_WEIGHTS=weights)))
        callback.on_epoch_end(0, {"mrcnn_bbox_loss": 0.0, "mrcnn_mask_loss": 0.0})
        assert not caplog.records

    @pytest.mark.parametrize("logs", [None, {}, {"loss": 0.0}])
    def test_other_networks_have_no_such_losses(self, logs, caplog):
        NothingMatched().on_epoch_end(0, logs)
        assert not caplog.records
