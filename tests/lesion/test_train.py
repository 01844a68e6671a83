import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lesion import NOTICE, boundary_training, diagnosis_training, phantom
from lesion import train as train_module
from lesion.boundary import BoundaryConfig
from lesion.options import choose_precision
from lesion.samples import TASKS, DatasetError
from lesion.splits import Split, SplitError
from lesion.train import load_samples, main
from lesion.train_options import RUN_SETTINGS, build_parser, parse, training_of
from lesion.training_split import choose_split
from mrcnn.config import Config
from mrcnn.model import CLASS_LAYERS, MaskRCNN
from mrcnn.network import MaskRCNNNetwork
from mrcnn.weights import (
    WeightsError,
    load_weights,
    read_arrays,
    read_metadata,
    save_arrays,
    save_weights,
)

# The command with a small backbone, step by step, which takes less time than compiling a few of
# them; a real backbone is trained by the README's test.
SMALL = """
import sys
import mrcnn.network
from mrcnn.tensors import step_by_step
eager = step_by_step()
eager.__enter__()
from tests.lesion.conftest import build_five_convolutions
mrcnn.network.build_backbone = build_five_convolutions
from lesion.train import main
sys.exit(main())
"""
SETTINGS = [
    "--image-size=64",
    "--backbone=mobilenet",  # which `SMALL` replaces
    "--weights=none",
    "--epochs=4",
    "--head-epochs=0",
    "--steps=3",
    "--batch=2",
    "--seed=7",
]
# Seconds that a training of a few steps may take on a busy machine.
PATIENCE = 1800


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Twelve phantoms and a split of them, with something in every part."""
    folder = tmp_path_factory.mktemp("phantoms")
    names = phantom.write_phantoms(folder / "data", 12, height=72, width=96)
    keys = [f"data/{name}" for name in names]
    split = Split(
        {"train": keys[:8], "validation": keys[8:10], "test": keys[10:]},
        seed=0,
        fractions={"train": 0.7, "validation": 0.15, "test": 0.15},
    )
    split.save(folder / "split.json")
    return SimpleNamespace(data=folder / "data", split=folder / "split.json", names=names)


def arguments(phantoms, *more, logs="logs"):
    return [f"--dataset={phantoms.data}", f"--logs={logs}", *more]


def run_of(logs):
    (folder,) = Path(logs).glob("boundary*")
    return folder


def checkpoint(logs, epoch):
    return run_of(logs) / f"mask_rcnn_boundary_{epoch:04d}.h5"


def history(logs):
    with open(run_of(logs) / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(phantoms, tmp_path_factory):
    """Logs of two like trainings: "whole", never stopped, and "cut", killed on the way."""
    folder = tmp_path_factory.mktemp("runs")
    started = []

    def start(name, *more):
        with open(folder / f"{name}.txt", "a") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-c", SMALL),
                    *arguments(phantoms, *more, logs=folder / name),
                    f"--cache={folder / name}-cache",
                ],
                env={**os.environ, "TF_DETERMINISTIC_OPS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"},
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).resolve().parents[2],
            )
        started.append(process)
        return process

    def finish(process, name):
        code = process.wait(PATIENCE)
        assert code == 0, (folder / f"{name}.txt").read_text()

    def reached(name, epoch):
        weights = list((folder / name).glob(f"boundary*/mask_rcnn_*_{epoch:04d}.h5"))
        states = list((folder / name).glob("boundary*/training_state.h5"))
        return weights and states and read_metadata(states[0])["epoch"] >= epoch

    def kill_after(process, name, epoch):
        end = time.monotonic() + PATIENCE
        while not reached(name, epoch):
            running = process.poll() is None and time.monotonic() < end
            assert running, (folder / f"{name}.txt").read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL

    try:
        whole = start("whole", *SETTINGS, f"--split={phantoms.split}")
        cut = start("cut", *SETTINGS, f"--split={phantoms.split}")
        kill_after(cut, "cut", 2)
        # Nothing but data and folder are given again: the run knows its settings and split.
        finish(start("cut", "--weights=last"), "cut")
        finish(whole, "whole")
    finally:
        for process in started:
            process.kill()
    return folder


class TestContinue:
    """Killed within its stage, a training ends as the other."""

    def test_weights_are_the_same(self, runs):
        expected, weights = (read_arrays(checkpoint(runs / n, 4)) for n in ("whole", "cut"))
        assert weights.keys() == expected.keys()
        for name, value in weights.items():
            np.testing.assert_allclose(value, expected[name], 1e-4, 1e-5, err_msg=name)

    def test_the_last_epochs_did_change_them(self, runs):
        before, after = (read_arrays(checkpoint(runs / "cut", epoch)) for epoch in (2, 4))
        assert np.abs(after["block1/kernel"] - before["block1/kernel"]).max() > 1e-4

    def test_every_epoch_is_in_the_history_once(self, runs):
        rows, expected = history(runs / "cut"), history(runs / "whole")
        assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
        for row, other in zip(rows, expected, strict=True):
            assert [float(v) for v in row.values()] == pytest.approx(
                [float(v) for v in other.values()], rel=1e-3
            )

    def test_one_folder_holds_the_run(self, runs):
        names = {path.name for path in run_of(runs / "cut").iterdir()}
        assert {"run.json", "split.json", "history.csv", "training_state.h5"} <= names
        assert {name for name in names if name.startswith("mask_rcnn")} == {
            f"mask_rcnn_boundary_{epoch:04d}.h5" for epoch in (2, 3, 4)
        }

    def test_it_says_where_it_goes_on(self, runs):
        said = [(runs / f"{name}.txt").read_text() for name in ("whole", "cut")]
        assert ["Continuing at epoch" in text for text in said] == [False, True]

    def test_split_is_the_one_given(self, runs, phantoms):
        for name in ("whole", "cut"):
            split = Split.load(run_of(runs / name) / "split.json")
            assert split.parts == Split.load(phantoms.split).parts

    def test_weights_say_what_they_are(self, runs):
        metadata = read_metadata(checkpoint(runs / "whole", 4))
        assert (metadata["task"], metadata["notice"]) == ("boundary", NOTICE)
        assert metadata["class_names"] == ["BG", "lesion"]

    def test_finished_run_is_left_as_it_is(
        self, runs, phantoms, five_convolutions, monkeypatch, capsys, caplog
    ):
        monkeypatch.setattr("mrcnn.network.build_backbone", five_convolutions)
        caplog.set_level("INFO")
        before = checkpoint(runs / "whole", 4).stat().st_mtime_ns
        assert main(arguments(phantoms, "--weights=last", logs=runs / "whole")) == 0
        assert checkpoint(runs / "whole", 4).stat().st_mtime_ns == before
        assert f"start one from its weights: --weights={checkpoint(runs / 'whole', 4)}" in (
            caplog.text
        )
        assert NOTICE in capsys.readouterr().out


def test_goes_on_from_weights_in_a_run_of_its_own(
    eagerly, five_convolutions, phantoms, tmp_path, monkeypatch, caplog
):
    """As `make train-boundary` does, with a map that the start has not learned."""
    monkeypatch.setattr("mrcnn.network.build_backbone", five_convolutions)
    caplog.set_level("INFO")
    usual = ["--backbone=mobilenet", "--epochs=1", "--head-epochs=0", "--steps=1", "--batch=2"]
    usual += ["--image-size=64", f"--split={phantoms.split}"]
    usual += [f"--cache={tmp_path / 'cache'}"]
    assert main([*arguments(phantoms, *usual, "--weights=none", logs=tmp_path / "first")]) == 0
    more = ["--semantic", f"--weights={checkpoint(tmp_path / 'first', 1)}"]
    assert main([*arguments(phantoms, *usual, *more, logs=tmp_path / "second")]) == 0
    assert "learned with semantic_branch False, and goes on with True here (--semantic)" in (
        caplog.text
    )
    assert caplog.text.count("goes on with") == 1
    assert "Epochs 1 to 1 on" in caplog.text
    assert "Continuing at epoch" not in caplog.text
    first, second = (read_arrays(checkpoint(tmp_path / n, 1)) for n in ("first", "second"))
    assert {name for name in second if name not in first} >= {"mrcnn_semantic/kernel"}
    step = np.abs(second["block1/kernel"] - first["block1/kernel"]).max()
    assert 0 < step < 0.01  # of AdamW's first step from there
    assert read_metadata(checkpoint(tmp_path / "second", 1))["epoch"] == 1


class TestRefused:
    """Code 2 and one clear line, before any long work."""

    def check(self, capsys, command, message):
        assert main(command) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lesion")]
        assert len(lines) == 1
        assert lines[0].startswith("lesion train: ")
        assert message in lines[0]

    @pytest.mark.parametrize(
        "argument",
        [
            "--epochs=0",
            "--epochs=few",
            "--head-epochs=-1",
            "--steps=0",
            "--batch=0",
            "--image-size=-64",
            "--mask-size=50",
            "--learning-rate=0",
            "--learning-rate=nan",
            "--learning-rate=inf",
            "--seed=-1",
            "--workers=0",
            "--precision=half",
            "--task=triage",
            "--colour=red",
        ],
    )
    def test_value(self, argument, capsys):
        with pytest.raises(SystemExit) as stopped:
            main(["--dataset=x", argument])
        assert stopped.value.code == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("lesion train: error: ")
        assert argument.partition("=")[0] in last

    def test_no_data_set(self, capsys):
        with pytest.raises(SystemExit) as stopped:
            main([])
        assert stopped.value.code == 2
        assert "--dataset" in capsys.readouterr().err

    def test_missing_data_set(self, tmp_path, capsys):
        command = [f"--dataset={tmp_path / 'none'}", f"--logs={tmp_path}", "--weights=none"]
        self.check(capsys, command, f"{tmp_path / 'none'} does not exist")

    def test_folder_that_is_no_data_set(self, tmp_path, capsys):
        command = [f"--dataset={tmp_path}", f"--logs={tmp_path}", "--weights=none"]
        self.check(capsys, command, "is no data set that is known here")

    def test_no_sound_image(self, tmp_path, capsys):
        for folder in ("images", "masks"):
            (tmp_path / "data" / folder).mkdir(parents=True)
            (tmp_path / "data" / folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
        command = [f"--dataset={tmp_path / 'data'}", f"--logs={tmp_path}", "--weights=none"]
        self.check(capsys, command, "No sound image with a mask in")

    def test_missing_weights(self, phantoms, tmp_path, capsys):
        command = arguments(phantoms, f"--weights={tmp_path / 'none.h5'}", logs=tmp_path)
        self.check(capsys, command, f"no weights file at {tmp_path / 'none.h5'}")

    @pytest.mark.parametrize("content", [b"", b"<html>", b"\x89HDF\r\n\x1a\n" + bytes(99)])
    def test_corrupt_weights(self, phantoms, tmp_path, capsys, content):
        path = tmp_path / "broken.h5"
        path.write_bytes(content)
        command = arguments(phantoms, f"--weights={path}", logs=tmp_path)
        self.check(capsys, command, f"{path} is ")

    def test_weights_of_another_network(self, phantoms, tmp_path, capsys):
        path = tmp_path / "other.h5"
        save_arrays(path, {"dense/kernel": np.zeros((2, 2))})
        command = arguments(phantoms, f"--weights={path}", "--image-size=64", logs=tmp_path)
        self.check(capsys, command, "another kind of network")

    def test_no_run_to_continue(self, phantoms, tmp_path, capsys):
        command = arguments(phantoms, "--weights=last", logs=tmp_path)
        self.check(capsys, command, "No checkpoint of 'boundary'")

    def test_more_epochs_for_the_heads_than_in_all(self, phantoms, tmp_path, capsys):
        more = ("--weights=none", "--epochs=2", "--head-epochs=3")
        self.check(capsys, arguments(phantoms, *more, logs=tmp_path), "--head-epochs=3 is more")

    def test_size_of_the_input(self, phantoms, tmp_path, capsys):
        command = arguments(phantoms, "--weights=none", "--image-size=100", logs=tmp_path)
        self.check(capsys, command, "divisible by 32")

    def test_unknown_backbone(self, phantoms, tmp_path, capsys):
        command = arguments(phantoms, "--weights=none", "--backbone=resnet49", logs=tmp_path)
        self.check(capsys, command, "resnet49")

    @pytest.mark.parametrize("content", [None, "{", '{"parts": 3}'])
    def test_split_file(self, phantoms, tmp_path, capsys, content):
        path = tmp_path / "split.json"
        if content is not None:
            path.write_text(content)
        command = arguments(phantoms, "--weights=none", f"--split={path}", logs=tmp_path)
        self.check(capsys, command, str(path))

    def test_file_that_is_missing_is_found_before_images_are_read(
        self, phantoms, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(train_module, "load_samples", lambda _: pytest.fail("it reads images"))
        options = ["--weights=none", f"--split={tmp_path / 'gone.json'}"]
        assert main(arguments(phantoms, *options, logs=tmp_path)) == 2

    def test_released_weights_have_a_backbone_of_their_own(self, phantoms, tmp_path, capsys):
        command = arguments(phantoms, "--weights=coco", "--backbone=resnet50", logs=tmp_path)
        self.check(capsys, command, "has the backbone resnet101")

    def test_split_of_other_data(self, phantoms, tmp_path, capsys):
        keys = {"train": ["other/ISIC_1"], "validation": [], "test": []}
        Split(keys, 0, {"train": 1.0, "validation": 0.0, "test": 0.0}).save(tmp_path / "s.json")
        command = arguments(phantoms, "--weights=none", f"--split={tmp_path / 's.json'}")
        self.check(capsys, [*command, f"--logs={tmp_path}"], "None of the samples is in the split")

    def test_nothing_is_written_to_the_logs(self, phantoms, tmp_path, capsys):
        main(arguments(phantoms, "--weights=none", "--image-size=100", logs=tmp_path))
        assert not list(tmp_path.glob("boundary*"))


def test_masks_of_lesions_are_looked_at_where_they_are_learned(phantoms, tmp_path, monkeypatch):
    asked = []

    def check(collection, task, **options):
        asked.append((task, options["with_boundary"]))
        raise DatasetError("enough")

    monkeypatch.setattr(train_module, "check_samples", check)
    for task, more in (("attributes", ["--with-boundary"]), ("attributes", []), ("boundary", [])):
        command = [f"--task={task}", f"--dataset={phantoms.data}", f"--logs={tmp_path}", *more]
        with pytest.raises(DatasetError):
            load_samples(parse(command))
    assert asked == [("attributes", True), ("attributes", False), ("boundary", False)]


class TestSplit:
    @pytest.mark.parametrize("share", [0.0, 0.25])
    def test_test_share_is_set_aside(self, phantoms, tmp_path, share):
        given = arguments(phantoms, f"--test-share={share}", logs=tmp_path)
        given = parse(given)
        split = choose_split(given, load_samples(given), boundary_training)
        assert len(split.parts["test"]) == share * 12
        assert sum(map(len, split.parts.values())) == 12

    def test_another_seed_learns_from_the_same_images(self, phantoms, tmp_path):
        """Or networks of several seeds could not be compared, nor answer together."""

        def parts(*options):
            given = arguments(phantoms, "--test-share=0.25", *options, logs=tmp_path)
            given = parse(given)
            return choose_split(given, load_samples(given), boundary_training).parts

        assert parts("--seed=1") == parts("--seed=2") == parts()
        assert parts("--split-seed=1") != parts()

    def test_what_start_weights_set_aside_is_learned_from_only_where_asked(
        self, phantoms, tmp_path
    ):
        start = tmp_path / "start.weights.h5"
        given = parse(arguments(phantoms, "--test-share=0.25", logs=tmp_path))
        samples = load_samples(given)
        earlier = choose_split(given, samples, boundary_training)
        earlier.save(tmp_path / "start.split.json")

        def goes_on(*options):
            command = arguments(phantoms, *options, logs=tmp_path)
            command = [each for each in command if not each.startswith("--weights")]
            given = parse([*command, f"--weights={start}"])
            return choose_split(given, samples, boundary_training).parts

        assert goes_on() == goes_on("--test-share=0.5") == earlier.parts
        every = goes_on("--test-share=0")
        assert every["validation"] == earlier.parts["validation"]
        assert every["train"] == sorted(earlier.parts["train"] + earlier.parts["test"])
        assert every["test"] == []

    def test_one_that_an_earlier_version_wrote_is_kept(self, phantoms, tmp_path):
        """Which left a copy of what is learned from in the test part."""
        keys = {"train": ["ham/ISIC_0000001"], "test": ["isic/ISIC_0000001"]}
        Split(keys, 0, {}).save(tmp_path / "split.json")
        given = parse(arguments(phantoms, f"--split={tmp_path / 'split.json'}", logs=tmp_path))
        split = choose_split(given, [], boundary_training, str(tmp_path / "last.h5"))
        assert split.parts == keys

    def test_one_that_is_missing_is_not_drawn_anew(self, phantoms, tmp_path):
        given = parse(arguments(phantoms, logs=tmp_path))
        with pytest.raises(SplitError, match=r"split\.json is missing, which says what this run"):
            choose_split(given, [], boundary_training, str(tmp_path / "last.h5"))

    def test_too_large_a_test_share(self, phantoms, tmp_path, capsys):
        code = main(arguments(phantoms, "--test-share=0.8", logs=tmp_path))
        assert code == 2
        assert "--test-share=0.8 leaves too little" in capsys.readouterr().err


class TestDiverged:
    def test_message_and_code(self, monkeypatch, capsys):
        def diverge(arguments):
            raise FloatingPointError("The loss became nan in batch 2.")

        monkeypatch.setattr(train_module, "train", diverge)
        assert main(["--dataset=x"]) == 1
        assert "lesion train: The loss became nan in batch 2." in capsys.readouterr().err

    def test_interrupt_says_how_to_go_on(self, monkeypatch, capsys):
        def interrupt(arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(train_module, "train", interrupt)
        assert main(["--dataset=x", "--weights=last"]) == 130
        assert "--weights=last" in capsys.readouterr().err
        assert main(["--dataset=x"]) == 130  # before the first checkpoint
        assert "No epoch was completed: the same command begins" in capsys.readouterr().err
        monkeypatch.setattr(train_module, "_train_several", interrupt)
        assert main(["--dataset=x", "--task=diagnosis", "--members=2"]) == 130
        assert "The same command goes on" in capsys.readouterr().err

    def test_place_of_the_runs_is_looked_at_first(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(train_module, "train", pytest.fail)
        (tmp_path / "logs").write_text("a file")
        assert main(["--dataset=x", f"--logs={tmp_path / 'logs'}"]) == 2
        assert f"{tmp_path / 'logs'} is no folder" in capsys.readouterr().err


class TestSamples:
    @pytest.fixture
    def flawed(self, phantoms, tmp_path):
        """Two sound phantoms and a broken one."""
        phantom.write_phantoms(tmp_path / "data", 3, height=72, width=96)
        broken = next((tmp_path / "data").glob("*/ISIC_9000001.jpg"))
        broken.write_bytes(broken.read_bytes()[:300])
        return build_parser().parse_args(
            [f"--dataset={tmp_path / 'data'}", f"--logs={tmp_path / 'logs'}"]
        )

    def test_unsound_images_are_named_and_left_out(self, flawed, caplog):
        assert [sample.image_id for sample in load_samples(flawed)] == [
            "ISIC_9000000",
            "ISIC_9000002",
        ]
        assert "ISIC_9000001.jpg" in caplog.text

    def test_strict_stops_at_them(self, flawed, caplog):
        flawed.strict = True
        with pytest.raises(DatasetError, match="1 problems .*--strict"):
            load_samples(flawed)
        assert "ISIC_9000001.jpg" in caplog.text

    def test_strict_passes_sound_data(self, phantoms, tmp_path):
        command = arguments(phantoms, "--strict", logs=tmp_path)
        assert len(load_samples(build_parser().parse_args(command))) == 12


class TestDefaults:
    @pytest.fixture
    def configuration(self):
        def make(*more, images=100):
            parsed = build_parser().parse_args(["--dataset=x", *more])
            return boundary_training.configure(BoundaryConfig, parsed, images)

        return make

    def test_are_those_of_the_task(self, configuration):
        config = configuration()
        computed = ("STEPS_PER_EPOCH", "VALIDATION_STEPS", "PRECISION")
        given, default = config.to_dict(), BoundaryConfig().to_dict()
        assert {name for name in given if given[name] != default[name]} <= set(computed)
        config.validate()

    def test_an_epoch_is_all_images_once(self, configuration):
        assert configuration("--batch=8", images=100).STEPS_PER_EPOCH == 13
        assert configuration("--steps=5").STEPS_PER_EPOCH == 5

    @pytest.mark.parametrize("size", [64, 96, 128, 160, 224, 320, 384, 512])
    def test_any_input_size(self, configuration, size):
        config = configuration(f"--image-size={size}")
        config.validate()
        assert config.IMAGE_SHAPE[1] == size
        assert config.IMAGE_SHAPE[0] == pytest.approx(0.75 * size, abs=16.1)

    @pytest.mark.parametrize("size", [28, 56, 112])
    def test_any_mask_size(self, configuration, size):
        config = configuration(f"--mask-size={size}")
        config.validate()
        assert config.MASK_SHAPE == [size, size]

    def test_resnets_have_the_mean_of_their_weights(self, configuration):
        assert configuration("--backbone=resnet50").MEAN_PIXEL == [123.7, 116.8, 103.9]

    def test_precision_given_is_taken(self):
        assert choose_precision("mixed_bfloat16", "efficientnetlite0") == "mixed_bfloat16"
        assert choose_precision("float32", "resnet50") == "float32"

    @pytest.mark.parametrize(
        "details, precision",
        [
            ({"compute_capability": (7, 5)}, "float32"),
            ({"compute_capability": (9, 0)}, "mixed_bfloat16"),
            ({}, "float32"),
        ],
    )
    def test_bfloat16_where_a_gpu_has_it(self, monkeypatch, details, precision):
        tensorflow = pytest.importorskip("tensorflow")
        monkeypatch.setattr(tensorflow.config, "list_physical_devices", lambda kind: ["a card"])
        monkeypatch.setattr(
            tensorflow.config.experimental, "get_device_details", lambda device: details
        )
        assert choose_precision("auto", "resnet50") == precision

    @pytest.mark.parametrize("task", TASKS)
    def test_a_run_knows_what_it_was_trained_with(self, task):
        parsed = vars(parse([f"--task={task}", "--dataset=x"]))
        settings = (*RUN_SETTINGS, *training_of(task).RUN_SETTINGS)
        assert set(settings) <= set(parsed)
        json.dumps({name: parsed[name] for name in settings})
        # What the weights do not depend on, or what says it otherwise.
        others = {"usual", "dataset", "weights", "logs", "cache", "workers", "keep_checkpoints"}
        others |= {
            "strict",
            "split",
            "test_share",
            "split_seed",
            "folds",
            "members",
            "jobs",
            "teacher_share",
        }
        assert set(parsed) - set(settings) <= others

    @pytest.mark.parametrize("semantic", [True, False])
    def test_semantic(self, semantic, monkeypatch):
        monkeypatch.setattr("mrcnn.model.MaskRCNN", lambda mode, config, folder: config)
        parsed = parse(["--dataset=x", *["--semantic"] * semantic])
        assert boundary_training.build_model(parsed, [None]).SEMANTIC_BRANCH == semantic

    @pytest.mark.parametrize(
        ("cpu", "backbone", "precision"),
        [
            ("flags: avx512f amx_bf16", "resnet50", "mixed_bfloat16"),
            ("flags: avx512f amx_bf16", "efficientnetlite0", "float32"),  # depthwise is slower
            ("flags: avx512f", "resnet50", "float32"),
        ],
    )
    def test_bfloat16_where_a_processor_multiplies_matrices(
        self, monkeypatch, cpu, backbone, precision
    ):
        tensorflow = pytest.importorskip("tensorflow")
        monkeypatch.setattr(tensorflow.config, "list_physical_devices", lambda kind: [])
        monkeypatch.setattr(Path, "exists", lambda path: True)
        monkeypatch.setattr(Path, "read_bytes", lambda path: cpu.encode())
        assert choose_precision("auto", backbone) == precision


def test_released_weights_fit_all_but_the_classes(five_convolutions, tmp_path, monkeypatch):
    monkeypatch.setattr("mrcnn.network.build_backbone", five_convolutions)
    released = Config(NUM_CLASSES=81, IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=64)
    path = tmp_path / "mask_rcnn_coco.h5"
    save_weights(MaskRCNNNetwork("inference", released), path)
    monkeypatch.setattr("mrcnn.start_weights.coco_weights", lambda: path)
    parsed = build_parser().parse_args(["--dataset=x", "--weights=coco", "--image-size=64"])
    parsed.released_heads, parsed.backbone = True, "resnet101"
    model = MaskRCNN("training", boundary_training.configure(BoundaryConfig, parsed, 8), tmp_path)
    before = model.keras_model.get_layer("fpn_p2").kernel.numpy()
    boundary_training.load_start_weights(model, parsed, None)
    assert np.abs(model.keras_model.get_layer("fpn_p2").kernel.numpy() - before).max() > 0
    report = load_weights(model.keras_model, path, exclude=CLASS_LAYERS)
    assert {name.partition("/")[0] for name in report.excluded} == {
        "mrcnn_class_logits",
        "mrcnn_bbox_fc",
        "mrcnn_mask",
    }
    assert not report.missing and not report.mismatched


def test_run_older_than_learned_statistics_goes_on_without_them(tmp_path):
    run = tmp_path / "diagnosis20260101T0000"
    run.mkdir()
    (run / "diagnosis_0001.h5").touch()
    (run / "run.json").write_text('{"seed": 3, "prevalence_power": 0.4}')
    given = parse(["--task=diagnosis", "--dataset=x", "--weights=last", f"--logs={tmp_path}"])
    with pytest.raises(WeightsError):  # the file, which is looked at last, is empty
        train_module._last_run(given, diagnosis_training)
    assert (given.seed, given.batch_statistics) == (3, False)


def test_images_without_a_diagnosis_are_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = parse(["--task=diagnosis", "--dataset=x", "--unlabelled=photos", "--teacher=t.h5"])
    (tmp_path / "t.h5").write_bytes(b"")
    with pytest.raises((OSError, ValueError), match="t.h5"):
        diagnosis_training.check_arguments(given)
    assert given.unlabelled == [str(tmp_path.resolve() / "photos")]
