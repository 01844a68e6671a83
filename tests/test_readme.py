"""Every command and every example of the README runs, on phantoms and with tiny settings."""

import json
import re
import shlex
from pathlib import Path

import numpy as np

from lesion.phantom import write_phantoms
from lesion.samples import ATTRIBUTES, TASKS
from mrcnn.model import MaskRCNN
from mrcnn.tensors import step_by_step

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = {"lesion/train.py": ["--epochs=1", "--steps=2", "--batch=2", "--image-size=64"]}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def lesion_commands():
    """The README's `python lesion/…` commands that read a data set or images."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("python lesion/")]


def test_commands_run_one_after_another(as_typed, tmp_path):
    write_phantoms(tmp_path / "isic", 16, height=48, width=64)  # /isic of the README
    commands = lesion_commands()
    assert [shlex.split(line)[1] for line in commands] == [
        "lesion/phantom.py",
        "lesion/analyze.py",
        "lesion/train.py",
        "lesion/evaluate.py",
    ]
    for line in commands:
        _, script, *options = shlex.split(line.replace("/isic", "isic"))
        as_typed(ROOT / script, *options, *TINY.get(script, []))
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert "report.html" in names
    assert "ISIC_9000000_segmentation.png" in names
    record = json.loads((tmp_path / "results" / "ISIC_9000000.json").read_text(encoding="utf-8"))
    assert record["models"].keys() == set(TASKS)  # by the weights that come with the project
    assert record["attributes"].keys() == set(ATTRIBUTES)
    for name, found in record["attributes"].items():
        assert 0 <= found["presence"] <= 1
        assert f"ISIC_9000000_attribute_{name}.png" in names


def test_demo_command(as_typed, tmp_path, monkeypatch):
    assert "make demo" in README
    # Without the shipped weights, which take long to load: those just trained are shown instead.
    monkeypatch.setattr("lesion.weights._FOLDERS", ())
    options = ["--images=12", "--shown=2", "--epochs=1", "--image-size=64", f"--out={tmp_path}"]
    printed = as_typed(ROOT / "lesion" / "demo.py", *options)
    assert "Analysing them by the weights just trained" in printed
    assert (tmp_path / "report" / "report.html").is_file()
    assert "not a medical device" in printed


def test_python_example(monkeypatch):
    (example,) = (block for block in blocks("python") if "mrcnn" in block)
    names, loaded = {}, []
    monkeypatch.setattr("mrcnn.images.read_image", lambda path: np.zeros((40, 50, 3), np.uint8))
    monkeypatch.setattr(MaskRCNN, "load_weights", lambda model, weights: loaded.append(weights))
    # The example's network has 64 million parameters; its code is what counts here.
    small = example.replace("NUM_CLASSES = 1 + 1", 'NUM_CLASSES = 2; BACKBONE = "resnet50"')
    with step_by_step():
        exec(small.replace("=512", "=128"), names)
    assert loaded == ["last"]
    assert set(names["result"]) == {"rois", "class_ids", "scores", "masks"}
