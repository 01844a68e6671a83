import contextlib
import csv
import gc
import inspect
import io
import logging
import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import mrcnn.model
from mrcnn import detection
from mrcnn.callbacks import NonFiniteLossError
from mrcnn.config import Config
from mrcnn.data import Batches, SampleError
from mrcnn.detecting import AT_TRACING
from mrcnn.model import MaskRCNN
from mrcnn.tiling import detect_tiles
from mrcnn.training import STATE_FILE, Stage, save_state
from mrcnn.weights import WeightsError, named_weights, read_metadata, save_arrays

LOSSES = {
    "rpn_class_loss",
    "rpn_bbox_loss",
    "mrcnn_class_loss",
    "mrcnn_bbox_loss",
    "mrcnn_mask_loss",
}
RECIPE = {"ADD_GT_TO_PROPOSALS": True, "SAMPLE_NEGATIVES_ALWAYS": True}


def values(model):
    return {name: weight.variable.numpy() for name, weight in named_weights(model).items()}


def changed(before, after):
    """Names of the layers whose weights differ."""
    names = {name for name in before if not np.array_equal(before[name], after[name])}
    return {name.split("/")[0] for name in names}


@pytest.fixture(scope="module")
def whole(tiny_config, rectangles, tmp_path_factory, one_by_one):
    """A training in two stages, with what it printed and its weights on the way."""
    keras.utils.set_random_seed(5)
    model = MaskRCNN("training", tiny_config(**RECIPE), tmp_path_factory.mktemp("whole"))
    stages = [values(model.keras_model)]
    histories = []
    with one_by_one(), contextlib.redirect_stdout(io.StringIO()) as printed:
        for layers, epochs, validation in (("heads", 1, None), ("all", 3, rectangles())):
            histories.append(
                model.train(
                    rectangles(),
                    validation,
                    learning_rate=0.01,
                    epochs=epochs,
                    layers=layers,
                    augmentation=keras.layers.RandomFlip(),
                )
            )
            stages.append(values(model.keras_model))
    return SimpleNamespace(
        model=model, stages=stages, histories=histories, printed=printed.getvalue()
    )


@pytest.fixture(scope="module")
def detector(tiny_config, tmp_path_factory):
    """An inference model that sees objects everywhere."""
    keras.utils.set_random_seed(1)
    model = MaskRCNN("inference", tiny_config(), tmp_path_factory.mktemp("detector"))
    named_weights(model.keras_model)["mrcnn_class_logits/bias"].variable.assign([-9.0, 1.0, 0.0])
    return model


@pytest.fixture(scope="module")
def inference(tiny_config, tmp_path_factory):
    """An inference model of the same configuration as the one that was trained."""
    return MaskRCNN("inference", tiny_config(**RECIPE), tmp_path_factory.mktemp("inference"))


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(sum(shape)).integers(np.iinfo(dtype).max, size=shape, dtype=dtype)


@pytest.fixture(scope="module")
def model(tiny_config, tmp_path_factory):
    """A network of its own, which no test trains."""
    return MaskRCNN("training", tiny_config(**RECIPE), tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("config", "folder", "message"),
    [(Config, "logs", r"give an instance of it: Config\(\)"), (Config(), None, "received None")],
)
def test_what_no_network_is_made_of(config, folder, message):
    with pytest.raises(TypeError, match=message):
        MaskRCNN("inference", config, folder)


class TestTrain:
    def test_backbone_is_fixed_while_the_heads_learn(self, whole):
        layers = changed(whole.stages[0], whole.stages[1])
        assert {"fpn_c5p5", "rpn_conv_shared", "mrcnn_mask", "mrcnn_class_logits"} <= layers
        assert not [name for name in layers if name.startswith("res")]

    def test_all_layers_learn_afterwards(self, whole):
        layers = changed(whole.stages[1], whole.stages[2])
        assert {f"res{stage}_conv" for stage in range(1, 6)} <= layers

    def test_epochs_are_counted_over_all_stages(self, whole):
        assert [history.epoch for history in whole.histories] == [[0], [1, 2]]
        assert whole.model.epoch == 3

    def test_five_losses_are_shown_and_recorded(self, whole):
        for history in whole.histories:
            assert LOSSES | {"loss"} <= set(history.history)
        assert {f"val_{name}" for name in LOSSES | {"loss"}} <= set(history.history)
        assert all(f"{name}: " in whole.printed for name in LOSSES)
        assert "2/2" in whole.printed

    def test_losses_are_finite(self, whole):
        recorded = [value for history in whole.histories for value in history.history.values()]
        assert np.isfinite(np.concatenate(recorded)).all()

    def test_csv_log(self, whole):
        with open(Path(whole.model.log_dir) / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["0", "1", "2"]
        losses = [value for history in whole.histories for value in history.history["loss"]]
        assert [float(row["loss"]) for row in rows] == pytest.approx(losses)

    def test_tensorboard_log(self, whole):
        folder = Path(whole.model.log_dir)
        assert list(folder.glob("train/events.out.tfevents.*"))
        assert list(folder.glob("validation/events.out.tfevents.*"))

    def test_checkpoint_of_every_epoch(self, whole):
        names = sorted(path.name for path in Path(whole.model.log_dir).glob("mask_rcnn_*"))
        assert names == [f"mask_rcnn_tiny_000{epoch}.h5" for epoch in (1, 2, 3)]
        assert Path(whole.model.find_last()).name == names[-1]

    def test_checkpoint_describes_its_network(self, whole):
        metadata = read_metadata(whole.model.find_last())
        assert metadata["class_names"] == ["BG", "red", "green"]
        assert metadata["config"] == {
            **whole.model.config.to_dict(),
            "LOSS_WEIGHTS": dict.fromkeys(LOSSES, 1.0),
        }
        assert metadata["epoch"] == 3
        assert metadata["logs"]["loss"] == whole.histories[1].history["loss"][-1]

    def test_own_callbacks_see_the_weights_of_their_epoch(
        self, eagerly, tiny_config, rectangles, tmp_path
    ):
        """The widely copied callback that loads `find_last()` into a network for inference."""
        model = MaskRCNN("training", tiny_config(), tmp_path)
        seen = []

        class Look(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                seen.append(Path(model.find_last()).name)
                if epoch == 1:
                    raise OSError("the network drive is gone")

        with pytest.raises(OSError, match="network drive"):
            model.train(rectangles(), None, 1e-4, 3, "heads", custom_callbacks=[Look()])
        assert seen == ["mask_rcnn_tiny_0001.h5", "mask_rcnn_tiny_0002.h5"]

    @pytest.mark.parametrize("name", ["config", "class_names", "epoch", "logs"])
    def test_metadata_of_a_name_that_is_taken(self, model, rectangles, name):
        with pytest.raises(ValueError, match=f"`metadata`.*call {name} otherwise"):
            model.train(rectangles(), None, 0.1, 9, "all", metadata={name: "mine", "my_own": 1})

    def test_metadata_that_cannot_be_stored(self, model, rectangles):
        with pytest.raises(WeightsError, match="metadata cannot be written as JSON"):
            model.train(rectangles(), None, 0.1, 9, "all", metadata={"thing": object()})

    def test_epochs_reached_need_no_training(self, whole, rectangles, caplog):
        assert whole.model.train(rectangles(), None, 0.01, epochs=3, layers="all") is None
        assert "Nothing is trained: `epochs` is the number of the last, 3" in caplog.text

    def test_images_without_any_instance(self, eagerly, tiny_config, rectangles, tmp_path):
        keras.utils.set_random_seed(0)
        model = MaskRCNN("training", tiny_config(STEPS_PER_EPOCH=2), tmp_path)
        before = values(model.keras_model)
        empty = rectangles([[]] * 4)
        history = model.train(empty, None, learning_rate=0.02, epochs=3, layers="all").history
        assert np.isfinite(list(history.values())).all()
        for name in ("mrcnn_mask_loss", "mrcnn_bbox_loss", "rpn_bbox_loss"):
            assert history[name] == [0, 0, 0]
        # What is left to learn is that everything is background.
        assert history["rpn_class_loss"][2] < history["rpn_class_loss"][0]
        after = values(model.keras_model)
        assert "rpn_class_raw" in changed(before, after)
        assert all(np.isfinite(value).all() for value in after.values())

    def test_non_finite_loss_names_the_images(self, eagerly, tiny_config, rectangles, tmp_path):
        class Poison(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if (batch, int(self.model.optimizer.iterations)) == (2, 5):
                    # Not before a ReLU: fused with its convolution it may turn NaN to zero.
                    weight = self.model.get_layer("rpn_class_raw").kernel
                    weight.assign(weight + np.nan)

        config = tiny_config(STEPS_PER_EPOCH=3)
        model = MaskRCNN("training", config, tmp_path)
        with pytest.raises(NonFiniteLossError, match="loss became nan") as raised:
            model.train(
                rectangles(), None, 0.001, 4, "mrcnn_mask", custom_callbacks=[Poison()], seed=1
            )
        images = Batches(rectangles(), config, steps=3, seed=1, epoch=1).references(2)
        assert f"batch 3 of epoch 2, whose images are: {', '.join(images)}." in str(raised.value)
        assert model.find_last().endswith("_0001.h5")
        assert model.epoch == 1  # from which another call goes on

    def test_optimizer_of_ones_own(self, eagerly, tiny_config, rectangles, tmp_path):
        rates = []

        def adam(learning_rate):
            rates.append(learning_rate)
            return keras.optimizers.Adam(learning_rate)

        model = MaskRCNN("training", tiny_config(STEPS_PER_EPOCH=1, OPTIMIZER=adam), tmp_path)
        model.train(rectangles(), None, 0.002, 1, "mrcnn_mask")
        assert (type(model.keras_model.optimizer), rates) == (keras.optimizers.Adam, [0.002])
        stored = read_metadata(model.find_last())["config"]["OPTIMIZER"]
        assert stored.startswith("function ") and stored.endswith("adam")
        path, backbone = model.find_last(), tiny_config.BACKBONE
        assert MaskRCNN.from_weights(path, BACKBONE=backbone).config.OPTIMIZER == "sgd"
        with pytest.raises(ValueError, match="trained with function .*adam, .* OPTIMIZER=…"):
            MaskRCNN.from_weights(path, "training", tmp_path, BACKBONE=backbone)

    def test_optimizer_of_ones_own_follows_the_schedule(self, model, monkeypatch):
        monkeypatch.setattr(model.config, "OPTIMIZER", keras.optimizers.Adam)
        monkeypatch.setattr(model.config, "WARMUP_STEPS", 5)
        model.compile(0.1, steps=10)
        assert float(model.keras_model.optimizer.learning_rate) == pytest.approx(0.02)

    def test_optimizer_has_to_be_one(self, model, monkeypatch):
        monkeypatch.setattr(model.config, "OPTIMIZER", lambda learning_rate: "adam")
        with pytest.raises(ValueError, match="OPTIMIZER must return a Keras opt.*returned 'adam'"):
            model.compile(0.1)

    def test_validation_sees_the_same_images_of_all_kinds(
        self, eagerly, tiny_config, rectangles, tmp_path
    ):
        held_out, seen = rectangles([[(1, (5, 6, 25, 30))]] * 20), []
        load_image = held_out.load_image
        held_out.load_image = lambda image_id: seen.append(image_id) or load_image(image_id)
        model = MaskRCNN("training", tiny_config(STEPS_PER_EPOCH=1, VALIDATION_STEPS=3), tmp_path)
        model.train(rectangles(), held_out, 0.001, 2, "mrcnn_mask")
        assert len(set(seen)) == 6 and set(seen) != set(range(6))

    def test_unusable_image_met_on_the_way_is_named(
        self, eagerly, tiny_config, rectangles, tmp_path
    ):
        dataset = rectangles([[(1, (5, 6, 25, 30))]] * 20)
        sound = dataset.load_mask

        def load_mask(image_id):
            if image_id == last:
                raise OSError("the file is truncated")
            return sound(image_id)

        dataset.load_mask = load_mask
        config = tiny_config(STEPS_PER_EPOCH=4)
        last = Batches(dataset, config, steps=4).image_ids(3)[1]
        model = MaskRCNN("training", config, tmp_path)
        with pytest.raises(SampleError, match=rf"image{last}.png.*truncated"):
            model.train(dataset, None, 0.001, 1, "mrcnn_mask")

    def test_unusable_augmentation_is_reported(self, tiny_config, rectangles, tmp_path):
        model = MaskRCNN("training", tiny_config(), tmp_path)
        with pytest.raises(TypeError, match="Keras preprocessing layer"):
            model.train(rectangles(), None, 0.001, 1, "all", augmentation="flip")

    def test_augmentation_may_be_false(self, model, rectangles, monkeypatch):
        def batches(*_, augmentation, **settings):
            raise KeyboardInterrupt(augmentation)

        monkeypatch.setattr(mrcnn.model, "Batches", batches)
        with pytest.raises(KeyboardInterrupt, match="None"):
            model.train(rectangles(), None, 0.001, 1, "all", augmentation=False)

    def test_one_callback_may_stand_alone(self, model, rectangles, monkeypatch):
        given = []
        monkeypatch.setattr("mrcnn.model.fit", lambda *arguments: given.append(arguments[-1]))
        callback = keras.callbacks.TerminateOnNaN()
        model.train(rectangles(), None, 0.001, 1, "all", custom_callbacks=callback)
        assert given == [[callback]]

    def test_other_number_of_classes(self, tiny_config, rectangles, tmp_path):
        model = MaskRCNN("training", tiny_config(NUM_CLASSES=2), tmp_path)
        with pytest.raises(ValueError, match="3 classes"):
            model.train(rectangles(), None, 0.001, 1, "all")

    def test_validation_set_that_was_not_prepared(self, model, rectangles):
        validation = type(rectangles()).__base__()
        validation.add_image("toys", 0, "image0.png")
        with pytest.raises(ValueError, match="prepare"):
            model.train(rectangles(), validation, 0.001, 1, "all")

    def test_validation_set_without_images(self, model, rectangles):
        with pytest.raises(ValueError, match="holds no image"):
            model.train(rectangles(), rectangles([]), 0.001, 1, "all")

    def test_regions_of_its_own_are_needed(self, tiny_config, rectangles, tmp_path):
        model = MaskRCNN("training", tiny_config(USE_RPN_ROIS=False), tmp_path)
        with pytest.raises(ValueError, match="USE_RPN_ROIS=False; data_generator"):
            model.train(rectangles(), None, 0.001, 1, "all")

    def test_inference_model_cannot_learn(self, detector, rectangles):
        with pytest.raises(RuntimeError, match="mode='training'"):
            detector.train(rectangles(), None, 0.001, 1, "all")


class TestFiles:
    def test_checkpoint_gives_folder_and_epoch(self, whole, model, tmp_path):
        model.load_weights(whole.model.find_last())
        assert (model.epoch, model.log_dir) == (3, whole.model.log_dir)
        assert model.class_names == ["BG", "red", "green"]
        model.keras_model.save_weights(tmp_path / "best.weights.h5")  # as Keras's callbacks do
        assert read_metadata(tmp_path / "best.weights.h5")["class_names"] == model.class_names
        assert not changed(whole.stages[-1], values(model.keras_model))

    @pytest.mark.parametrize(
        ("names", "left"), [(None, ["BG", "red", "green"]), (["BG", "a", "b", "c"], None)]
    )
    def test_names_of_other_classes_are_forgotten(self, model, tmp_path, names, left):
        model.class_names = names
        model.keras_model.save_weights(tmp_path / "other.h5")
        model.class_names = ["BG", "red", "green"]
        model.load_weights(tmp_path / "other.h5")
        assert model.class_names == left

    def test_set_log_dir(self, whole, model):
        model.set_log_dir(whole.model.find_last())
        assert (model.epoch, model.log_dir) == (3, whole.model.log_dir)
        assert Path(model.checkpoint_path.format(epoch=4)).name == "mask_rcnn_tiny_0004.h5"
        model.set_log_dir()
        assert model.epoch == 0
        assert Path(model.log_dir).parent == Path(model.model_dir)

    def test_other_file_starts_a_run(self, whole, model, tmp_path):
        path = tmp_path / "best.h5"
        path.write_bytes(Path(whole.model.find_last()).read_bytes())
        model.load_weights(path)
        assert (model.epoch, Path(model.log_dir).parent) == (0, Path(model.model_dir))

    def test_earlier_checkpoint_begins_its_optimizer_anew(self, whole, model, caplog):
        with caplog.at_level(logging.WARNING, "mrcnn"):
            model.load_weights(whole.model.checkpoint_path.format(epoch=1))
        assert model.epoch == 1
        assert "optimizer starts anew" in caplog.text

    def test_excluded_layers_stay_as_they_are(self, whole, model):
        exclude = ["mrcnn_class_logits", "mrcnn_mask"]
        before = values(model.keras_model)
        model.load_weights(whole.model.checkpoint_path.format(epoch=2), exclude=exclude)
        model.load_weights(whole.model.find_last(), by_name=True, exclude=exclude)
        after = values(model.keras_model)
        assert not {"mrcnn_class_logits", "mrcnn_mask"} & changed(before, after)
        assert changed(whole.stages[-1], after) <= {"mrcnn_class_logits", "mrcnn_mask"}

    def test_a_model_inside_is_excluded_with_its_layers(self, whole, model):
        """By its name, as scripts with other anchors leave matterport's RPN out."""
        before = values(model.keras_model)
        report = model.load_weights(
            whole.model.checkpoint_path.format(epoch=2), exclude=["rpn_model"]
        )
        rpn = {"rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred"}
        assert {name.partition("/")[0] for name in report.excluded} == rpn
        assert not rpn & changed(before, values(model.keras_model))

    @pytest.mark.parametrize("outer", [[], ["rpn_model"]])
    def test_layers_inside_of_a_model_are_warned_of(self, whole, model, caplog, outer):
        """matterport knew the model around them alone, and loaded them all the same."""
        exclude = ["mrcnn_mask", "rpn_class_raw", *outer]
        model.load_weights(whole.model.find_last(), exclude=exclude)
        assert ("exclude leaves rpn_class_raw as they are" in caplog.text) == (not outer)

    def test_without_some_layers_a_run_begins(self, whole, model):
        """It is no more the network of that run, whose epochs it has not been through."""
        model.load_weights(whole.model.find_last(), exclude=["mrcnn_mask"])
        assert (model.epoch, Path(model.log_dir).parent) == (0, Path(model.model_dir))

    def test_network_of_a_file(self, whole, tiny_config):
        """Backbone and other functions are no data; all else is in the file."""
        path = whole.model.find_last()
        settings = {"BACKBONE": tiny_config.BACKBONE, "DETECTION_MIN_CONFIDENCE": 0.4}
        again = MaskRCNN.from_weights(path, **settings)
        stored = whole.model.config.to_dict()
        assert {
            name: value for name, value in again.config.to_dict().items() if value != stored[name]
        } == {"BATCH_SIZE": 1, "IMAGES_PER_GPU": 1, "DETECTION_MIN_CONFIDENCE": 0.4}
        assert again.class_names == ["BG", "red", "green"]
        assert not changed(whole.stages[-1], values(again.keras_model))

    def test_network_of_a_file_goes_on_learning(self, whole, tiny_config, tmp_path):
        path, backbone = whole.model.find_last(), tiny_config.BACKBONE
        again = MaskRCNN.from_weights(path, "training", tmp_path, BACKBONE=backbone)
        assert (again.mode, again.epoch, again.config.IMAGES_PER_GPU) == ("training", 3, 2)

    @pytest.mark.parametrize("other", [False, True])
    def test_weights_set_after_loading_are_what_goes_on(
        self, eagerly, whole, model, rectangles, tmp_path, caplog, other
    ):
        """Of a run that goes on with its state."""
        folder = Path(shutil.copytree(whole.model.log_dir, tmp_path / "tiny20260101T0000"))
        model.load_weights(folder / Path(whole.model.find_last()).name)
        bias = named_weights(model.keras_model)["mrcnn_class_logits/bias"].variable
        loaded = keras.ops.convert_to_numpy(bias)
        if other:
            bias.assign(loaded + 5)

        class Stop(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                self.found = keras.ops.convert_to_numpy(bias)
                raise KeyboardInterrupt

        stop = Stop()
        with pytest.raises(KeyboardInterrupt):
            model.train(rectangles(), None, 0.01, 4, "all", custom_callbacks=[stop])
        np.testing.assert_array_equal(stop.found, loaded + 5 * other)
        assert ("goes on from what they are now" in caplog.text) == other
        model.set_log_dir()

    def test_epochs_that_keras_restored_are_not_those_of_later_stages(
        self, eagerly, whole, model, rectangles, tmp_path
    ):
        folder = Path(shutil.copytree(whole.model.log_dir, tmp_path / "tiny20260101T0000"))
        model.load_weights(folder / Path(whole.model.find_last()).name)
        model.keras_model._initial_epoch = 1  # as its BackupAndRestore leaves it

        class Stop(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.epoch = epoch
                raise KeyboardInterrupt

        stop = Stop()
        with pytest.raises(KeyboardInterrupt):
            model.train(rectangles(), None, 0.01, 4, "all", custom_callbacks=[stop])
        assert stop.epoch == model.epoch == 3
        model.set_log_dir()

    def test_stage_killed_between_weights_and_state_of_its_first_epoch(
        self, eagerly, whole, model, rectangles, tmp_path
    ):
        folder = Path(shutil.copytree(whole.model.log_dir, tmp_path / "tiny20260101T0000"))
        first, second, third = (folder / f"mask_rcnn_tiny_{epoch:04d}.h5" for epoch in (1, 2, 3))
        third.unlink()
        model.load_weights(first)
        model.compile(0.01)
        save_state(model.keras_model, folder / STATE_FILE, Stage("heads", 0.01, 0, 1), 1)
        expected = values(model.keras_model)
        model.load_weights(second)

        class Stop(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                self.found = values(model.keras_model)
                raise KeyboardInterrupt

        stop = Stop()
        with pytest.raises(KeyboardInterrupt):
            model.train(rectangles(), None, 0.01, 3, "all", custom_callbacks=[stop])
        assert model.epoch == 1
        assert not changed(expected, stop.found)
        model.set_log_dir()

    def test_last(self, whole, tiny_config):
        model = MaskRCNN("inference", tiny_config(**RECIPE), whole.model.model_dir)
        report = model.load_weights("last")
        assert report.source == whole.model.find_last()

    @pytest.mark.parametrize("exclude", [None, "rpn_conv_shared", ["rpn_conv_shared"]])
    def test_coco_for_other_classes(self, whole, tiny_config, tmp_path, monkeypatch, exclude):
        path = whole.model.find_last()
        monkeypatch.setattr("mrcnn.start_weights.coco_weights", lambda: path)
        monkeypatch.setattr("mrcnn.start_weights.COCO_BACKBONE", tiny_config.BACKBONE)
        model = MaskRCNN("training", tiny_config(NUM_CLASSES=7), tmp_path)
        report = model.load_weights("coco", exclude=exclude)
        more = {"rpn_conv_shared"} if exclude else set()
        heads = {"mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask"}
        assert set(report.missing_layers) == heads | more

    def test_coco_for_its_own_classes(self, tiny_config, tmp_path, monkeypatch):
        config = tiny_config(NUM_CLASSES=81)
        before = MaskRCNN("inference", config, tmp_path)
        before.keras_model.save_weights(tmp_path / "coco.weights.h5")
        monkeypatch.setattr(
            "mrcnn.start_weights.coco_weights", lambda: tmp_path / "coco.weights.h5"
        )
        monkeypatch.setattr("mrcnn.start_weights.COCO_BACKBONE", tiny_config.BACKBONE)
        model = MaskRCNN("inference", config, tmp_path)
        assert not model.load_weights("coco").missing_layers
        assert (model.class_names[1], model.class_names[80]) == ("person", "toothbrush")

    def test_network_of_coco(self, tiny_config, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "coco").mkdir()  # with the data set
        path = tmp_path / "mask_rcnn_coco.h5"
        settings = {name: getattr(tiny_config, name) for name in vars(tiny_config)}
        settings = {
            name: value
            for name, value in settings.items()
            if name.isupper() and name not in ("NAME", "NUM_CLASSES")
        }
        made = MaskRCNN("inference", tiny_config(NUM_CLASSES=81), tmp_path).keras_model
        save_arrays(path, values(made))
        monkeypatch.setattr("mrcnn.start_weights.coco_weights", lambda: path)
        monkeypatch.setattr("mrcnn.start_weights.COCO_BACKBONE", tiny_config.BACKBONE)
        model = MaskRCNN.from_weights("coco", **settings)
        assert (model.config.NAME, model.config.NUM_CLASSES) == ("coco", 81)
        assert (model.class_names[0], model.class_names[80]) == ("BG", "toothbrush")
        assert not changed(values(made), values(model.keras_model))

    def test_coco_for_another_backbone(self, model):
        with pytest.raises(ValueError, match="of BACKBONE='resnet101'; this is <function tiny"):
            model.load_weights("coco")

    def test_files_may_have_the_names_of_words(self, whole, tiny_config, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("last").write_bytes(Path(whole.model.checkpoint_path.format(epoch=1)).read_bytes())
        again = MaskRCNN.from_weights("last", BACKBONE=tiny_config.BACKBONE)
        assert not changed(whole.stages[1], values(again.keras_model))

    def test_another_network_is_refused(self, model, tmp_path):
        save_arrays(tmp_path / "other.h5", {"dense/kernel": np.zeros((2, 2))})
        with pytest.raises(WeightsError, match="another kind of network"):
            model.load_weights(tmp_path / "other.h5")

    def test_missing_file(self, model, tmp_path):
        with pytest.raises(FileNotFoundError, match="none.h5"):
            model.load_weights(tmp_path / "none.h5")

    def test_no_run_yet(self, model):
        with pytest.raises(FileNotFoundError, match="'tiny'"):
            model.find_last()

    def test_folder_is_made_by_training_alone(self, model):
        assert not list(Path(model.model_dir).iterdir())

    def test_other_number_of_classes_names_the_layers(self, whole, tiny_config, tmp_path):
        model = MaskRCNN("inference", tiny_config(NUM_CLASSES=7), tmp_path)
        with pytest.raises(WeightsError, match="exclude=.*mrcnn_class_logits"):
            model.load_weights(whole.model.find_last())

    def test_inference_with_random_layers_is_warned_of(self, whole, inference, caplog):
        with caplog.at_level(logging.WARNING, "mrcnn"):
            inference.load_weights(whole.model.find_last(), exclude="mrcnn_mask")
        assert "stay random; detections mean nothing: mrcnn_mask." in caplog.text

    @pytest.mark.parametrize(
        ("mode", "told"),
        [("inference", "detections suffer"), ("training", "the training goes on with the latter")],
    )
    def test_settings_of_another_meaning_are_warned_of(
        self, whole, tiny_config, tmp_path, caplog, mode, told
    ):
        path = whole.model.find_last()
        model = MaskRCNN(mode, tiny_config(**RECIPE, BBOX_STD_DEV=np.ones(4)), tmp_path)
        model.load_weights(path)
        assert f"BBOX_STD_DEV=[0.1, 0.1, 0.2, 0.2] and not [1.0, 1.0, 1.0, 1.0]; {told}" in (
            caplog.text
        )
        caplog.clear()
        model.keras_model.load_weights(path)
        assert told in caplog.text

    def test_own_checkpoint_is_loaded_in_silence(self, whole, model, inference, caplog):
        for each in (model, inference):
            each.load_weights(whole.model.find_last())
            each.keras_model.load_weights(whole.model.find_last())
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        model.set_log_dir()

    def test_start_from_a_backbone_is_silent_in_training(self, whole, model, tmp_path, caplog):
        kept = {name: v for name, v in values(whole.model.keras_model).items() if "res" in name}
        save_arrays(tmp_path / "backbone.h5", {**kept, "predictions/kernel": np.zeros((2, 2))})
        model.load_weights(tmp_path / "backbone.h5")
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    @pytest.mark.parametrize(
        ("mode", "told"),
        [("inference", "detections suffer"), ("training", "the training begins without them")],
    )
    def test_layers_that_a_network_lacks_are_warned_of(
        self, whole, model, inference, tmp_path, caplog, mode, told
    ):
        """As of a ResNet-101 in a ResNet-50, all of whose layers it has."""
        more = {f"res4{block}_branch2a/kernel": np.zeros((1, 1)) for block in "ghijklmnop"}
        save_arrays(tmp_path / "deep.h5", {**values(whole.model.keras_model), **more})
        used = model if mode == "training" else inference
        for each in (used, used.keras_model):
            caplog.clear()
            each.load_weights(tmp_path / "deep.h5")
            assert "has 10 layers that this network lacks: res4g_branch2a, " in caplog.text
            assert "res4l_branch2a and 4 more. It is of another network" in caplog.text
            assert told in caplog.text
        caplog.clear()
        used.load_weights(tmp_path / "deep.h5", exclude=[name.split("/")[0] for name in more])
        assert "this network lacks" not in caplog.text

    def test_layers_that_a_file_lacks_are_warned_of_in_training(
        self, whole, model, tmp_path, caplog
    ):
        kept = values(whole.model.keras_model)
        kept = {name: value for name, value in kept.items() if not name.startswith("rpn_c")}
        save_arrays(tmp_path / "part.h5", kept)
        model.load_weights(tmp_path / "part.h5", exclude=["mrcnn_mask"])
        assert "2 layers are not in" in caplog.text
        assert "random in a new network: rpn_conv_shared, rpn_class_raw." in caplog.text
        caplog.clear()
        model.load_weights(tmp_path / "part.h5", exclude=["rpn_model"])
        assert "random in a new network" not in caplog.text

    def test_checkpoint_outside_of_its_run_is_warned_of(self, whole, model, tmp_path, caplog):
        shutil.copy(whole.model.find_last(), tmp_path / "mask_rcnn_tiny_0003.h5")
        model.load_weights(tmp_path / "mask_rcnn_tiny_0003.h5")
        assert model.epoch == 0
        assert "is of epoch 3, but lies in no folder of a run of NAME 'tiny'" in caplog.text
        caplog.clear()
        shutil.copy(whole.model.find_last(), tmp_path / "best.weights.h5")
        model.load_weights(tmp_path / "best.weights.h5")  # a file to begin with
        model.load_weights(tmp_path / "mask_rcnn_tiny_0003.h5", exclude="mrcnn_mask")
        assert "lies in no folder" not in caplog.text

    @pytest.mark.parametrize("mode", ["train", None])
    def test_other_mode(self, tiny_config, tmp_path, mode):
        with pytest.raises(ValueError, match=f"'training' or 'inference'; received {mode!r}"):
            MaskRCNN(mode, tiny_config(), tmp_path)

    def test_contradiction_in_the_configuration(self, tiny_config, tmp_path):
        with pytest.raises(ValueError, match="divisible by 32"):
            MaskRCNN("training", tiny_config(IMAGE_MAX_DIM=70), tmp_path)


class Own(MaskRCNN):
    """As somebody derives one whose network is made in another way."""

    def __init__(self, mode, config, model_dir):
        self.mode = mode
        self.config = config
        self.model_dir = model_dir
        self.set_log_dir()
        self.keras_model = self.build(mode=mode, config=config)


class TestSubclasses:
    def test_without_the_constructor_of_their_base(
        self, eagerly, tiny_config, rectangles, tmp_path
    ):
        model = Own("training", tiny_config(STEPS_PER_EPOCH=1), str(tmp_path))
        model.train(rectangles(), None, 0.001, 1, "all")
        assert model.find_last().endswith("_0001.h5")
        assert len(model.detect([noise(40, 50, 3)])) == 1

    def test_optimizer_by_matterports_hook(self, eagerly, tiny_config, rectangles, tmp_path):
        class Adam(MaskRCNN):
            def compile(self, learning_rate, momentum):
                self.given = learning_rate, momentum
                self.keras_model.compile(optimizer=keras.optimizers.Adam(learning_rate))

        model = Adam("training", tiny_config(STEPS_PER_EPOCH=1), str(tmp_path))
        built = []

        class Look(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                built.append(self.model.optimizer.built)

        model.train(rectangles(), None, 0.002, 1, "mrcnn_mask", custom_callbacks=[Look()])
        assert (model.given, built) == ((0.002, 0.9), [True])
        again = Adam("training", tiny_config(STEPS_PER_EPOCH=1), str(tmp_path))
        again.load_weights("last")
        again.train(rectangles(), None, 0.002, 2, "mrcnn_mask")  # with the state of the first
        assert again.epoch == 2

    def test_a_plain_model_detects(self, eagerly, detector, tmp_path):
        class Plain(Own):
            def build(self, mode, config):
                return keras.Model(detector.keras_model.inputs, detector.keras_model.outputs)

        model, images = Plain("inference", detector.config, str(tmp_path)), [noise(40, 50, 3)]
        (expected,), (found,) = detector.detect(images), model.detect(images)
        np.testing.assert_array_equal(found["rois"], expected["rois"])
        assert model.class_names is None
        roi = model.keras_model.get_layer("ROI").output
        assert model.run_graph(images, [("ROI", roi)])["ROI"].shape[0] == 1

    def test_sessions_of_tensorflow_1_are_refused(self, tiny_config, tmp_path, tensorflow):
        with tensorflow.Graph().as_default():
            with pytest.raises(RuntimeError, match=r"Drop tf.compat.v1.disable_eager_execution"):
                MaskRCNN("training", tiny_config(), tmp_path)


class TestDetect:
    @pytest.mark.parametrize(
        "image",
        [
            noise(40, 50, 3),
            noise(40, 50),
            noise(40, 50, 1),
            noise(40, 50, 4),
            noise(40, 50, dtype=np.uint16),
            noise(40, 50, 3, dtype=np.uint16),
            noise(40, 50, 3) / 255.0,
            noise(40, 50) > 99,
            noise(7, 200, 3),
        ],
        ids=["rgb", "grey", "1", "rgba", "grey16", "rgb16", "float", "bool", "long"],
    )
    def test_any_image(self, detector, image):
        (result,) = detector.detect([image])
        count = len(result["scores"])
        height, width = image.shape[:2]
        assert 0 < count <= 4
        assert (result["rois"].shape, result["rois"].dtype) == ((count, 4), np.int32)
        assert (result["class_ids"].shape, result["class_ids"].dtype) == ((count,), np.int32)
        assert set(result["class_ids"]) <= {1, 2}
        assert result["scores"].dtype == np.float32
        assert (np.diff(result["scores"]) <= 0).all()
        assert (result["masks"].shape, result["masks"].dtype) == ((height, width, count), bool)
        assert (result["rois"][:, :2] >= 0).all()
        assert (result["rois"][:, 2:] <= [height, width]).all()

    def test_any_number_of_images_of_any_sizes(self, detector):
        images = [noise(30 + 9 * index, 70 - 5 * index, 3) for index in range(5)]
        together = detector.detect(images)
        assert [result["masks"].shape[:2] for result in together] == [
            image.shape[:2] for image in images
        ]
        for image, result in zip(images, together, strict=True):
            (alone,) = detector.detect([image])
            np.testing.assert_array_equal(alone["rois"], result["rois"])
            np.testing.assert_allclose(alone["scores"], result["scores"], rtol=1e-5)

    def test_no_image(self, detector):
        assert detector.detect([]) == []

    def test_array_of_images(self, detector):
        assert len(detector.detect(noise(3, 40, 50, 3))) == 3
        assert len(detector.detect(noise(2, 40, 50))) == 2  # grey ones
        several = np.empty(2, object)
        several[:] = [noise(40, 50, 3), noise(50, 40, 3)]
        assert len(detector.detect(several)) == 2
        assert detector.detect(np.array([])) == []

    @pytest.mark.parametrize("shape", [(40, 50, 3), (40, 50), (40, 50, 1)])
    def test_one_image_is_no_list(self, detector, shape):
        with pytest.raises(ValueError, match=r"`images` is one array .* give a list"):
            detector.detect(noise(*shape))

    def test_an_image_thinner_than_a_pixel_of_the_input(self, detector):
        (result,) = detector.detect([noise(2, 200, 3)])
        assert len(result["rois"]) > 0
        np.testing.assert_array_equal(result["rois"][:, ::2], [[0, 2]] * len(result["rois"]))
        assert result["masks"].shape == (2, 200, len(result["rois"]))

    def test_threshold_of_the_masks(self, detector):
        def masks(**settings):
            (result,) = detector.detect([noise(40, 50, 3)], **settings)
            return result["masks"]

        soft = masks(mask_threshold=None)
        assert soft.dtype == np.float32
        np.testing.assert_array_equal(soft >= 0.5, masks())
        few, many = masks(mask_threshold=0.9), masks(mask_threshold=0.1)
        assert few.dtype == many.dtype == bool
        assert few.sum() < many.sum() and not (few & ~many).any()

    def test_subclasses_may_unmold_as_matterports_do(self, detector, monkeypatch):
        class Old(MaskRCNN):
            def unmold_detections(self, detections, mrcnn_mask, original_shape, shape, window):
                return super().unmold_detections(
                    detections, mrcnn_mask, original_shape, shape, window
                )

        (expected,) = detector.detect([noise(40, 50, 3)])
        monkeypatch.setattr(detector, "__class__", Old)
        (result,) = detector.detect([noise(40, 50, 3)])
        np.testing.assert_array_equal(result["masks"], expected["masks"])

    def test_subclasses_may_know_the_threshold_alone(self, detector, monkeypatch):
        class Older(MaskRCNN):
            def unmold_detections(self, *five, threshold=0.5):
                return super().unmold_detections(*five, threshold)

        (expected,) = detector.detect([noise(40, 50, 3)], mask_threshold=0.3)
        monkeypatch.setattr(detector, "__class__", Older)
        (result,) = detector.detect([noise(40, 50, 3)], mask_threshold=0.3)
        np.testing.assert_array_equal(result["masks"], expected["masks"])

    def test_tiles(self, detector):
        """Side by side they are images of their own."""
        image = noise(64, 128, 3)
        found = detect_tiles(detector, image, overlap=0.0, whole=False)
        masks, number = found["masks"].full(), 0
        halves = detector.detect([image[:, :64], image[:, 64:]])
        for left, result in zip((0, 64), halves, strict=True):
            for index in np.flatnonzero(result["masks"].any(axis=(0, 1))):
                mask = np.zeros((64, 128), bool)
                mask[:, left : left + 64] = result["masks"][..., index]
                assert (masks == mask[..., np.newaxis]).all(axis=(0, 1)).any()
                number += 1
        assert number == len(found["scores"]) > 0

    def test_compact_masks_are_the_same(self, detector):
        images = [noise(40, 50, 3), noise(90, 31, 3)]
        for threshold in (0.5, None):
            expected = detector.detect(images, mask_threshold=threshold)
            found = detector.detect(images, mask_threshold=threshold, compact=True)
            for result, whole in zip(found, expected, strict=True):
                np.testing.assert_array_equal(result["masks"].full(), whole["masks"])
                np.testing.assert_array_equal(result["rois"], whole["rois"])

    def test_masks_lie_within_their_boxes(self, detector):
        for result in detector.detect([noise(40, 50, 3), noise(90, 31, 3)]):
            for index, (y1, x1, y2, x2) in enumerate(result["rois"]):
                outside = result["masks"][..., index].copy()
                outside[y1:y2, x1:x2] = False
                assert not outside.any()

    def test_nothing_found(self, detector):
        bias = named_weights(detector.keras_model)["mrcnn_class_logits/bias"].variable
        before = bias.numpy()
        bias.assign([1e4, 0.0, 0.0])
        try:
            (result,) = detector.detect([noise(40, 50, 3)])
        finally:
            bias.assign(before)
        assert {name: array.shape for name, array in result.items()} == {
            "rois": (0, 4),
            "class_ids": (0,),
            "scores": (0,),
            "masks": (40, 50, 0),
        }

    @pytest.mark.parametrize(
        ("name", "value", "count"),
        [
            ("DETECTION_MIN_CONFIDENCE", 1.1, 0),
            ("DETECTION_MAX_INSTANCES", 2, 2),
            ("DETECTION_MAX_INSTANCES", 7, 7),
        ],
    )
    def test_settings_changed_between_calls(self, detector, monkeypatch, name, value, count):
        images = [noise(40, 50, 3)]
        (before,) = detector.detect(images)
        with monkeypatch.context() as patch:
            patch.setattr(detector.config, name, value)
            (changed,) = detector.detect(images)
        (after,) = detector.detect(images)
        assert len(changed["rois"]) == count != len(before["rois"])
        np.testing.assert_array_equal(after["rois"], before["rois"])

    def test_every_setting_of_detection_may_change(self):
        read = re.findall(r"config\.(DETECTION_\w+)", inspect.getsource(detection))
        assert set(read) == set(AT_TRACING)

    def test_random_network_is_warned_of_once(self, eagerly, whole, tiny_config, tmp_path, caplog):
        images = [noise(40, 50, 3)]
        model = MaskRCNN("inference", tiny_config(**RECIPE), tmp_path)
        for _ in range(2):
            model.detect(images)
        assert caplog.text.count("random weights it was made with") == 1
        weights = [value + 1 for value in model.keras_model.get_weights()]
        for load in (
            lambda model: model.load_weights(whole.model.find_last()),
            lambda model: model.keras_model.load_weights(whole.model.find_last()),
            lambda model: model.keras_model.set_weights(weights),
        ):
            caplog.clear()
            model = MaskRCNN("inference", tiny_config(**RECIPE), tmp_path)
            load(model)
            model.detect(images)
            assert "random weights" not in caplog.text

    def test_threads_that_detect_at_once_wait_for_the_function(self, tiny_config):
        calls, second = [], threading.Event()

        def predict(inputs):
            calls.append("in")
            if len(calls) > 1:
                second.set()
            second.wait(0.3 if len(calls) == 1 else 0)
            calls.append("out")
            return [np.zeros((1, 3))]

        model = object.__new__(MaskRCNN)
        model.config = tiny_config(IMAGES_PER_GPU=1)
        model._inputs = lambda molded, metas: [molded]
        inference = SimpleNamespace(
            predict_on_batch=predict, make_predict_function=lambda force: calls.append("made")
        )
        model.keras_model = SimpleNamespace(inference=inference)
        batch = np.zeros((1, 64, 64, 3)), np.zeros((1, 15))
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(model._predict, *batch) for _ in range(2)]:
                done.result()
        assert calls[:3] == ["made", "in", "out"] and calls.count("made") == 1

    def test_threads_may_detect_at_once(self, tiny_config, detector, tmp_path):
        model = MaskRCNN("inference", tiny_config(), tmp_path)
        model.keras_model.set_weights(detector.keras_model.get_weights())
        images = [noise(40, 50, 3)]
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(model.detect, [images, images])
        np.testing.assert_array_equal(first[0]["rois"], second[0]["rois"])

    @pytest.mark.parametrize("mode", ["none", "pad64"])
    def test_inputs_of_several_shapes(self, eagerly, tiny_config, tmp_path, mode):
        keras.utils.set_random_seed(0)
        config = tiny_config(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=64, IMAGES_PER_GPU=3)
        model = MaskRCNN("inference", config, tmp_path)
        images = [noise(64, 64, 3), noise(128, 64, 3), np.zeros((64, 64, 3), np.uint8)]
        predict, counts = model.keras_model.inference.predict_on_batch, []

        def counted(inputs):
            counts.append(len(inputs[0]))
            return predict(inputs)

        model.keras_model.inference.predict_on_batch = counted
        results = model.detect(images)
        assert [result["masks"].shape[:2] for result in results] == [
            image.shape[:2] for image in images
        ]
        for image, result in zip(images, results, strict=True):
            (alone,) = model.detect([image])
            np.testing.assert_allclose(result["scores"], alone["scores"], atol=1e-4)
        assert not np.array_equal(results[0]["rois"], results[2]["rois"])
        if keras.backend.backend() != "jax":  # images of one shape together, and nothing else
            assert counts[:2] == [2, 1]

    @pytest.mark.parametrize(
        ("backend", "train_bn", "count"),
        [("jax", False, 2), ("jax", None, 2), ("jax", True, 1), ("tensorflow", False, 1)],
    )
    def test_short_batches(self, tiny_config, monkeypatch, backend, train_bn, count):
        """They are filled up for JAX, unless their statistics are to be of images alone."""
        monkeypatch.setattr(keras.backend, "backend", lambda: backend)
        seen = []
        model = object.__new__(MaskRCNN)
        model.config = tiny_config(TRAIN_BN=train_bn, IMAGES_PER_GPU=2)
        model._inputs = lambda molded, metas: seen.append(len(molded))
        inference = SimpleNamespace(
            make_predict_function=lambda force: None,
            predict_on_batch=lambda inputs: [np.zeros((count, 3))],
        )
        model.keras_model = SimpleNamespace(inference=inference)
        (output,) = model._predict(np.zeros((1, 64, 64, 3)), np.zeros((1, 15)))
        assert (seen, len(output)) == ([count], 1)

    def test_input_that_cannot_be_halved(self, tiny_config, tmp_path):
        model = MaskRCNN("inference", tiny_config(IMAGE_RESIZE_MODE="none"), tmp_path)
        with pytest.raises(ValueError, match="64x100 pixels cannot go through the pyramid"):
            model.detect([noise(64, 100, 3)])

    def test_a_network_in_training_detects_the_same(self, eagerly, whole, inference):
        inference.load_weights(whole.model.find_last())
        images = [noise(40, 50, 3)]
        (first,), (second,) = inference.detect(images), whole.model.detect(images)
        np.testing.assert_array_equal(first["class_ids"], second["class_ids"])
        np.testing.assert_allclose(first["scores"], second["scores"], rtol=1e-4)

    def test_molded_images_are_taken_as_they_are(self, detector):
        image = noise(64, 64, 3)
        molded, metas, windows = detector.mold_inputs([image])
        assert (molded.shape, metas.shape) == ((1, 64, 64, 3), (1, 12 + 3))
        assert windows.tolist() == [[0, 0, 64, 64]]
        (result,) = detector.detect_molded(molded, metas)
        (expected,) = detector.detect([image])
        np.testing.assert_array_equal(result["rois"], expected["rois"])
        np.testing.assert_array_equal(result["masks"], expected["masks"])

    def test_no_molded_images(self, detector):
        assert detector.detect_molded(np.zeros((0, 64, 64, 3)), np.zeros((0, 15))) == []

    def test_molded_images_of_several_shapes(self, detector):
        images = [noise(64, 64, 3), noise(64, 96, 3)]
        with pytest.raises(ValueError, match="of several shapes make no batch"):
            detector.detect_molded(images, np.zeros((2, 15)))

    @pytest.mark.parametrize(("channels", "image"), [(1, noise(40, 50)), (5, noise(40, 50, 5))])
    def test_images_of_other_than_three_channels(
        self, eagerly, whole, rectangles, tiny_config, tmp_path, channels, image
    ):
        """Weights from RGB are taken over; losses and detections are computed."""
        config = tiny_config(**RECIPE, IMAGE_CHANNEL_COUNT=channels, MEAN_PIXEL=100)
        model = MaskRCNN("training", config, tmp_path)
        report = model.load_weights(whole.model.find_last(), by_name=True)
        assert report.adapted == ["res1_conv/kernel"]
        dataset = rectangles()
        sound = dataset.load_image
        dataset.load_image = lambda i: sound(i)[..., np.arange(channels) % 3]
        (inputs,) = Batches(dataset, config)[0]
        losses = map(keras.ops.convert_to_numpy, model.keras_model(inputs)[-5:])
        assert np.isfinite(list(losses)).all()
        (result,) = model.detect([image])
        assert result["masks"].shape[:2] == (40, 50)

    def test_image_of_other_channels_is_refused(self, detector):
        with pytest.raises(ValueError, match="received shape .40, 50, 5."):
            detector.detect([noise(40, 50, 5)])

    @pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
    def test_two_hundred_calls_are_one_function_and_take_no_memory(self, detector, tensorflow):
        def resident():
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")

        images = [noise(24 + size, 60 - size, 3) for size in range(20)]

        def detect(calls):
            for call in calls:
                detector.detect(images[call % 20 : call % 20 + 1 + call % 3])

        detect(range(60))  # until caches and memory pools are filled
        before = resident()
        detect(range(60, 200))
        assert resident() - before < 16 * 2**20
        traced = detector.keras_model.predict_function.experimental_get_tracing_count()
        assert traced <= 2  # for one image, and for any number


class TestAnchors:
    def test_pixels_are_kept_beside_the_normalised_ones(self, detector):
        anchors = detector.get_anchors((64, 64, 3))
        assert anchors.shape == (3 * (4**2 + 2**2), 4)
        np.testing.assert_allclose(detector.anchors, anchors * 63 + [0, 0, 1, 1], atol=0.51)

    def test_only_a_few_shapes_are_remembered(self, detector):
        for side in range(64, 64 * 30, 64):
            detector.get_anchors((side, 64, 3))
        assert len(detector._anchors._known) < 10


@pytest.mark.parametrize(
    "name",
    [
        "MaskRCNN",
        "ProposalLayer",
        "PyramidROIAlign",
        "DetectionTargetLayer",
        "build_rpn_model",
        "build_rpn_targets",
        "compose_image_meta",
        "compute_backbone_shapes",
        "denorm_boxes",
        "load_image_gt",
        "mold_image",
        "norm_boxes",
        "parse_image_meta",
        "resnet_graph",
        "smooth_l1_loss",
        "unmold_image",
    ],
)
def test_what_old_code_imports_from_here(name):
    assert name in mrcnn.model.__all__
    assert callable(getattr(mrcnn.model, name))
