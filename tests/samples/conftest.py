"""What the samples' tests share."""

import importlib.util
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


@pytest.fixture(scope="session")
def load_sample():
    """Imports a script of the samples, which are no package, by its path below their folder."""

    def load(path):
        spec = importlib.util.spec_from_file_location(Path(path).stem + "_sample", SAMPLES / path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
