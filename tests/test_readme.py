"""Every command and every example of the README runs, on phantoms and with tiny settings."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder in which /isic of the README exists under another name."""
    folder = tmp_path_factory.mktemp("readme")
    write_phantoms(folder / "isic", 16, height=48, width=64)
    return folder


# Runs a command with its networks step by step, which takes less time than compiling them.
STEP_BY_STEP = """
import runpy, sys
from mrcnn.tensors import step_by_step
del sys.argv[0]
with step_by_step():
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(command, folder):
    finished = subprocess.run(
        [sys.executable, "-c", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1800,  # on a busy machine
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
    return finished.stdout


def test_commands_run_one_after_another(workplace):
    commands = lesion_commands()
    assert [shlex.split(line)[1] for line in commands] == [
        "lesion/phantom.py",
        "lesion/analyze.py",
        "lesion/train.py",
        "lesion/evaluate.py",
    ]
    for line in commands:
        _, script, *options = shlex.split(line.replace("/isic", str(workplace / "isic")))
        run([STEP_BY_STEP, str(ROOT / script), *options, *TINY.get(script, [])], workplace)
    names = {path.name for path in (workplace / "results").iterdir()}
    assert "report.html" in names
    assert "ISIC_9000000_segmentation.png" in names
    record = json.loads((workplace / "results" / "ISIC_9000000.json").read_text(encoding="utf-8"))
    assert record["models"].keys() == set(TASKS)  # by the weights that come with the project
    assert record["attributes"].keys() == set(ATTRIBUTES)
    for name, found in record["attributes"].items():
        assert 0 <= found["presence"] <= 1
        assert f"ISIC_9000000_attribute_{name}.png" in names


def test_demo_command(tmp_path):
    assert "make demo" in README
    options = ["--images=12", "--shown=2", "--epochs=1", "--image-size=64", f"--out={tmp_path}"]
    # Without the shipped weights, which take long to load: those just trained are shown instead.
    code = (
        "import lesion.demo, lesion.weights, mrcnn.tensors",
        "lesion.weights._FOLDERS = ()",
        "with mrcnn.tensors.step_by_step(): lesion.demo.main()",
    )
    printed = run(["\n".join(code), *options], tmp_path)
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
