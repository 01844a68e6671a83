"""The diagnosis task through the command line, on made-up moles."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from lesion import NOTICE, diagnosis_training
from lesion.cache import ImageCache
from lesion.diagnosis import load_classifier
from lesion.diagnosis_data import DiagnosisDataset
from lesion.diagnosis_model import BalancedAccuracy, DiagnosisModel, adjusted_crossentropy
from lesion.diagnosis_network import DiagnosisConfig
from lesion.layouts import find_samples
from lesion.samples import DIAGNOSES
from lesion.splits import Split
from lesion.train import main, parse
from mrcnn import callbacks
from mrcnn.images import read_image
from mrcnn.weights import WeightsError, load_arrays, read_arrays, read_metadata, save_arrays

SETTINGS = [
    "--task=diagnosis",
    "--weights=none",
    "--backbone=mobilenet",  # which `small_backbone` replaces
    "--image-size=32",
    "--epochs=3",
    "--head-epochs=1",
    "--steps=4",
    "--batch=7",
    "--learning-rate=0.02",
    "--precision=float32",
]


def command(moles, logs, *more):
    return [f"--dataset={moles.data}", f"--logs={logs}", f"--split={moles.split}", *more]


def run_of(logs):
    (folder,) = Path(logs).glob("diagnosis*")
    return folder


def history(logs):
    with open(run_of(logs) / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="class")
def whole(moles, small_backbone, tmp_path_factory):
    """Logs of a training of three epochs."""
    logs = tmp_path_factory.mktemp("whole")
    assert main(command(moles, logs, *SETTINGS)) == 0
    return logs


class TestRun:
    def test_continued_ends_as_the_one_that_never_stopped(
        self, moles, whole, tmp_path, monkeypatch
    ):
        on_epoch_end = callbacks.State.on_epoch_end

        def stop_after_the_heads(callback, epoch, logs=None):
            on_epoch_end(callback, epoch, logs)
            if epoch == 0:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(callbacks.State, "on_epoch_end", stop_after_the_heads)
            assert main(command(moles, tmp_path / "cut", *SETTINGS)) == 130
        # The run knows its settings and its split.
        again = ["--task=diagnosis", "--weights=last", f"--dataset={moles.data}"]
        assert main([*again, f"--logs={tmp_path / 'cut'}"]) == 0
        expected, weights = (
            read_arrays(run_of(logs) / "diagnosis_0003.h5") for logs in (whole, tmp_path / "cut")
        )
        assert weights.keys() == expected.keys()
        for name, value in weights.items():
            np.testing.assert_allclose(value, expected[name], 1e-3, 1e-4, err_msg=name)
        for row, other in zip(history(tmp_path / "cut"), history(whole), strict=True):
            assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-3)

    def test_weights_tell_all(self, whole, moles):
        path = run_of(whole) / "diagnosis_0003.h5"
        metadata = read_metadata(path)
        assert (metadata["task"], metadata["notice"]) == ("diagnosis", NOTICE)
        assert metadata["class_names"] == list(DIAGNOSES)
        assert metadata["config"]["image_size"] == 32
        assert set(metadata["calibration"]) == {"1", "8"}
        predictor = load_classifier(path, risk=0.2)
        image = read_image(next(moles.data.glob("*/*.png")))
        assert predictor.predict([image])[0].probabilities.sum() == pytest.approx(1)

    def test_files(self, whole, moles):
        names = {path.name for path in run_of(whole).iterdir()}
        assert {"run.json", "split.json", "history.csv", "training_state.h5"} <= names
        assert Split.load(run_of(whole) / "split.json").parts == Split.load(moles.split).parts
        assert "val_balanced_accuracy" in history(whole)[0]
        run = json.loads((run_of(whole) / "run.json").read_text())
        assert run["task"] == "diagnosis" and run["sampling_power"] == 0.5

    def test_checkpoints_hold_the_average_and_the_state_does_not(self, whole):
        averaged = read_arrays(run_of(whole) / "diagnosis_0003.h5")
        state = read_arrays(run_of(whole) / "training_state.h5")
        kernel = "diagnosis_logits/kernel"
        assert np.abs(averaged[kernel] - state[f"weights/{kernel}"]).max() > 1e-5

    def test_a_further_stage_begins_from_what_was_loaded(self, whole, moles, tmp_path):
        """Which is the average, as in the process that has just trained it."""
        shutil.copytree(run_of(whole), tmp_path / run_of(whole).name)
        path = tmp_path / run_of(whole).name / "diagnosis_0003.h5"
        config = DiagnosisConfig(**read_metadata(path)["config"])
        model = DiagnosisModel(config, tmp_path)
        model.load_weights(path)
        model.keras_model.fit = lambda *arguments, **settings: None
        samples = find_samples(moles.data, task="diagnosis").samples
        data = DiagnosisDataset(samples, ImageCache(tmp_path / "cache", 64))
        model.train(data, data, 0.02, 4, "all")
        layer = model.keras_model.get_layer("diagnosis_logits")
        np.testing.assert_array_equal(layer.kernel, read_arrays(path)["diagnosis_logits/kernel"])

    def test_uncalibrated_weights_refer_nobody(self, eagerly, whole, tmp_path, caplog):
        path = run_of(whole) / "diagnosis_0003.h5"
        arrays, metadata = load_arrays(path)
        del metadata["calibration"]
        bare = tmp_path / "bare.h5"
        save_arrays(bare, arrays, metadata)
        predictor = load_classifier(bare, risk=0.1)
        (diagnosis,) = predictor.predict([np.zeros((32, 32, 3), np.uint8)])
        assert diagnosis.refer is None and "not calibrated" in caplog.text
        save_arrays(bare, arrays, {**metadata, "calibration": {"1": {"heat": 2}}})
        with pytest.raises(WeightsError, match="install a newer one"):
            load_classifier(bare)

    def test_another_prevalence_needs_no_training(self, whole, moles, tmp_path):
        logs = shutil.copytree(whole, tmp_path / "logs")
        path = run_of(logs) / "diagnosis_0003.h5"
        before = read_arrays(path)
        assert read_metadata(path)["prevalence_power"] == 0.25
        again = ("--task=diagnosis", "--weights=last", "--prevalence-power=0")
        assert main(command(moles, logs, *again)) == 0
        assert read_metadata(path)["calibration"]["1"]["offset"] == [0.0] * 7
        for name, value in read_arrays(path).items():
            np.testing.assert_array_equal(value, before[name])
        # Whoever asks for none in particular keeps what the run has.
        assert main(command(moles, logs, "--task=diagnosis", "--weights=last")) == 0
        assert read_metadata(path)["prevalence_power"] == 0.0

    def test_another_split_is_refused(self, whole, moles, tmp_path, capsys):
        split = Split.load(moles.split)
        parts = {**split.parts, "train": split.parts["test"], "test": split.parts["train"]}
        Split(parts, 0, split.fractions).save(tmp_path / "other.json")
        before = (run_of(whole) / "split.json").read_bytes()
        again = ("--task=diagnosis", "--weights=last", f"--split={tmp_path / 'other.json'}")
        assert main(command(moles, whole, *again)) == 2
        assert "another split" in capsys.readouterr().err
        assert (run_of(whole) / "split.json").read_bytes() == before

    @pytest.fixture
    def start_with(self, whole, moles, tmp_path):
        """Starts a training from the weights, with a split of these parts; its code and split."""

        def run(**parts):
            path = tmp_path / "other.json"
            Split({"train": [], "validation": [], **parts}, 0, {}).save(path)
            start = run_of(whole) / "diagnosis_0003.h5"
            options = (f"--split={path}", f"--weights={start}", "--epochs=1", "--steps=1")
            code = main(command(moles, tmp_path / "logs", *SETTINGS, *options))
            return code, None if code else run_of(tmp_path / "logs") / "split.json"

        return run

    def test_split_that_is_given_also_has_what_the_start_learned_from(
        self, moles, tmp_path, start_with
    ):
        split = Split.load(moles.split)
        code, kept = start_with(train=split.parts["train"][:14], test=split.parts["test"])
        assert code == 0
        parts = Split.load(kept).parts
        assert parts["train"] == sorted(split.parts["train"] + split.parts["validation"])
        assert parts["test"] == split.parts["test"]
        # The run goes on with the split it was begun with, as it was given.
        again = ("--task=diagnosis", "--weights=last", f"--split={tmp_path / 'other.json'}")
        assert main(command(moles, tmp_path / "logs", *again)) == 0
        assert Split.load(kept).parts == parts

    @pytest.mark.parametrize(
        ("part", "seen", "count"),
        [("test", "train", 28), ("test", "validation", 14), ("validation", "train", 28)],
    )
    def test_split_that_scores_the_start_on_what_it_has_seen_is_refused(
        self, moles, start_with, capsys, part, seen, count
    ):
        split = Split.load(moles.split)
        code, _ = start_with(**{"train": split.parts["test"], part: split.parts[seen]})
        assert code == 2
        message = capsys.readouterr().err
        assert f"has learned from {count} of the {count} images that the part '{part}'" in message

    def test_other_image_of_a_lesion_that_the_start_has_learned_from(
        self, whole, moles, tmp_path, capsys
    ):
        start = shutil.copytree(run_of(whole), tmp_path / "start") / "diagnosis_0003.h5"
        parts = Split.load(moles.split).parts
        # Two images of a lesion follow one another.
        Split({"train": parts["train"][::2]}, 0, {}).save(start.with_name("split.json"))
        given = tmp_path / "other.json"
        Split({"train": parts["test"], "validation": [], "test": parts["train"][1::2]}, 0, {}).save(
            given
        )
        options = (f"--split={given}", f"--weights={start}", "--epochs=1", "--steps=1")
        assert main(command(moles, tmp_path / "logs", *SETTINGS, *options)) == 2
        assert "has learned from 14 of the 14 images" in capsys.readouterr().err

    def test_going_on_without_some_of_the_images_is_refused(self, whole, moles, tmp_path, capsys):
        logs = shutil.copytree(whole, tmp_path / "logs")
        data = shutil.copytree(moles.data, tmp_path / "data")
        for path in sorted(data.glob("*/*.png"))[:3]:
            path.unlink()
        again = ["--task=diagnosis", "--weights=last", f"--dataset={data}", f"--logs={logs}"]
        assert main(again) == 2
        message = capsys.readouterr().err
        assert "has learned from 28 images with a truth and 0 without" in message
        assert "here are 25, 0 and 14" in message

    def test_start_may_be_chosen_by_the_same_images_again(self, moles, start_with):
        split = Split.load(moles.split)
        code, kept = start_with(**split.parts)
        assert code == 0 and Split.load(kept).parts == split.parts


def test_patient_data_that_are_told_and_that_mean_nothing_are_said(
    eagerly, moles, small_backbone, tmp_path, caplog
):
    data = shutil.copytree(moles.data, tmp_path / "data")
    table = data / "HAM10000_metadata.csv"
    table.write_text(table.read_text().replace(",male,", ",x,"))
    options = ("--patient-data", "--epochs=1", "--steps=1", "--weights=none")
    caplog.set_level("INFO")
    arguments = [f"--dataset={data}", f"--split={moles.split}", f"--logs={tmp_path / 'logs'}"]
    assert main([*arguments, *SETTINGS, *options]) == 0
    assert "Known of the patients of 56 images: age of 28, sex of 28, site of 28." in caplog.text
    assert "sex x (28 x) is not known, and not used." in caplog.text


def test_prevalence_of_one_is_that_of_the_data_however_they_were_drawn(
    eagerly, moles, small_backbone, tmp_path, caplog
):
    split = Split.load(moles.split)
    parts = {**split.parts, "train": split.parts["train"][3:]}  # a category is rarer than others
    Split(parts, 0, split.fractions).save(tmp_path / "split.json")
    options = ("--sampling-power=1", "--logit-adjustment=0", "--prevalence-power=1", "--steps=1")
    options += (f"--split={tmp_path / 'split.json'}", "--epochs=1", "--head-epochs=0")
    assert main(command(moles, tmp_path / "logs", *SETTINGS, *options)) == 0
    metadata = read_metadata(run_of(tmp_path / "logs") / "diagnosis_0001.h5")
    # The network was shown the data as they are: nothing is left to be made up for.
    np.testing.assert_allclose(metadata["calibration"]["8"]["offset"], 0, atol=1e-12)
    assert "The validation part has 14 images" in caplog.text


def test_learns_what_colours_mean(moles, small_backbone, tmp_path):
    more = ["--epochs=4", "--steps=30", "--patient-data"]
    assert main(command(moles, tmp_path, *SETTINGS, *more)) == 0
    assert float(history(tmp_path)[-1]["val_balanced_accuracy"]) > 0.6


class TestSettings:
    OPTIONS = {
        "--colour-constancy": True,
        "--usual-light=0.5": 0.5,
        "--patient-data": True,
        "--no-batch-statistics": False,
        "--frozen-stages=2": 2,
        "--dropout=0.3": 0.3,
        "--weight-decay=0.1": 0.1,
        "--label-smoothing=0.2": 0.2,
        "--mixing=0.4": 0.4,
        "--sampling-power=0.25": 0.25,
        "--logit-adjustment=0.75": 0.75,
        "--image-size=64": 64,
        "--batch=4": 4,
        "--steps=9": 9,
        "--precision=mixed_bfloat16": "mixed_bfloat16",
    }

    @pytest.mark.parametrize("option", OPTIONS)
    def test_options_reach_the_configuration(self, monkeypatch, tmp_path, option):
        monkeypatch.setattr(
            "lesion.diagnosis_model.DiagnosisModel",
            lambda config, folder: SimpleNamespace(config=config),
        )
        name = option.strip("-").partition("=")[0].removeprefix("no-").replace("-", "_")
        given = ["--task=diagnosis", "--dataset=x", f"--logs={tmp_path}"]
        usual, config = (
            diagnosis_training.build_model(parse([*given, *more]), [None] * 8).config
            for more in ([], [option])
        )
        assert getattr(config, name) == self.OPTIONS[option] != getattr(usual, name)
        changed = {name: self.OPTIONS[option]}
        if name == "batch":
            changed["steps"] = 2
        assert dataclasses.replace(usual, **changed) == config

    def test_strong_changes(self):
        usual, strong = (
            diagnosis_training.augmentation(parse(["--task=diagnosis", "--dataset=x", *more]))
            for more in ([], ["--strong-changes"])
        )
        image = np.random.default_rng(0).integers(90, 160, (64, 64, 3)).astype(np.uint8)
        spread = [
            np.std([augment(image, np.random.default_rng(i)).mean() for i in range(60)])
            for augment in (usual, strong)
        ]
        assert spread[1] > 1.1 * spread[0]


class TestRefused:
    @pytest.mark.parametrize(
        "argument",
        [
            "--sampling-power=2",
            "--logit-adjustment=-1",
            "--prevalence-power=nan",
            "--label-smoothing=much",
            "--frozen-stages=-1",
            "--mask-size=56",
        ],
    )
    def test_value(self, argument, capsys):
        with pytest.raises(SystemExit) as stopped:
            main(["--task=diagnosis", "--dataset=x", argument])
        assert stopped.value.code == 2
        assert argument.partition("=")[0] in capsys.readouterr().err.splitlines()[-1]

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("--weights=coco", "for the boundary task"),
            ("--frozen-stages=5", "leaves nothing"),
            ("--backbone=resnet49", "resnet49"),
        ],
    )
    def test_before_long_work(self, moles, tmp_path, capsys, argument, message):
        arguments = ["--task=diagnosis", "--weights=none", argument]
        assert main(command(moles, tmp_path, *arguments)) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("lesion train: ") and message in error

    def test_data_without_diagnoses(self, tmp_path, capsys):
        from lesion import phantom

        phantom.write_phantoms(tmp_path / "data", 2, height=48, width=64)
        arguments = ["--task=diagnosis", f"--dataset={tmp_path / 'data'}", f"--logs={tmp_path}"]
        assert main(arguments) == 2
        assert "No sound image with a diagnosis" in capsys.readouterr().err


def test_options_differ_by_task():
    diagnosis = parse(["--task=diagnosis", "--dataset=x"])
    boundary = parse(["--dataset=x"])
    assert (diagnosis.image_size, diagnosis.batch) == (224, 32)
    assert (boundary.image_size, boundary.batch, boundary.mask_size) == (224, 8, 56)
    assert not hasattr(diagnosis, "mask_size") and not hasattr(boundary, "dropout")


def test_adjusted_loss_by_hand():
    """Of two categories drawn 3 to 1, with equal logits, the loss is that of the frequencies."""
    config = DiagnosisConfig(sampling_power=1, label_smoothing=0)
    loss = adjusted_crossentropy(config, np.array([0, 0, 0, 1]))
    logits = np.full((2, 7), -50.0, np.float32)
    logits[:, :2] = 0
    values = loss(np.eye(7, dtype=np.float32)[[0, 1]], keras.ops.convert_to_tensor(logits))
    np.testing.assert_allclose(values, [-np.log(0.75), -np.log(0.25)], rtol=1e-5)


def test_balanced_accuracy_is_over_the_categories_that_occur():
    metric = BalancedAccuracy()
    truth = np.eye(7, dtype=np.float32)
    metric.update_state(truth[[0, 0, 1]], truth[[0, 2, 1]])
    metric.update_state(truth[[1]], truth[[0]])
    assert float(metric.result()) == pytest.approx(0.5)
