"""What tests of every folder share."""

import contextlib
import os
import runpy
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from skimage.color import rgb2lab

# The same examples in every run, and as much time for them as a busy machine takes. For others:
# HYPOTHESIS_PROFILE=search make test
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", settings.get_profile("suite"), derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

# Machado, Oliveira and Fernandes 2009 (IEEE TVCG 15:1291), severity 1, on linear RGB.
_VISIONS = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


GOLDEN = Path(__file__).parent / "golden"

# Files of a few long tests. They are begun first, so that at the end no process has one of them
# before it while the others wait.
_LONG = {
    *("test_readme.py", "test_members.py", "test_notebooks.py", "test_distribution.py"),
    *("test_old_script.py", "test_repository.py", "test_coco.py"),
}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data beside the repository, which not every machine has."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no reference data: {folder} does not exist")
    return folder


@pytest.fixture(scope="session")
def parity_units() -> dict[str, np.ndarray]:
    """Inputs and outputs of matterport's single functions, by "group/array" (golden/README.md)."""
    with np.load(GOLDEN / "matterport_units.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def parity_network() -> dict[str, np.ndarray]:
    """What matterport's ResNet-50 gives for two images, "0/…" and "1/…"; `meta` is JSON."""
    with np.load(GOLDEN / "matterport_resnet50_256.npz") as arrays:
        return dict(arrays)


@contextlib.contextmanager
def _one_by_one():
    from mrcnn.tensors import step_by_step

    with step_by_step(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not apply to tf.data functions")
        yield


@pytest.fixture
def eagerly():
    """Runs the few steps of a test one by one: compiling them takes longer."""
    with _one_by_one():
        yield


@pytest.fixture(scope="session")
def one_by_one():
    """The same for a part of a test, or for a fixture: `with one_by_one(): ...`."""
    return _one_by_one


@pytest.fixture
def as_typed(monkeypatch, tmp_path, capsys):
    """Runs a script as `python script words...` in the folder `tmp_path`; gives what it printed.

    In this process, where TensorFlow is there already, and step by step, which is quicker than
    compiling. Processes of their own start in test_repository.py, test_train.py and others.
    """
    monkeypatch.chdir(tmp_path)

    def run(script, *words):
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
        status = None
        with _one_by_one():
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
            except SystemExit as stop:
                status = stop.code
        printed = capsys.readouterr()
        assert not status, f"{status}\n{printed.err}"
        return printed.out

    return run


@pytest.fixture(scope="session")
def as_seen():
    """Makes CIELAB [colours, 3] of sRGB colours in 0..1 as a kind of vision sees them."""

    def of(colors, vision):
        values = np.asarray(colors, float)
        light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        light = np.clip(light @ np.transpose(_VISIONS[vision]), 1e-9, 1)
        return rgb2lab(
            np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
        )

    return of
