"""What tests of every folder share."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data beside the repository, which not every machine has."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no reference data: {folder} does not exist")
    return folder


@pytest.fixture(scope="session")
def parity_units(shared: Path) -> dict[str, np.ndarray]:
    """Inputs and outputs of matterport's single functions, by "group/array"."""
    path = shared / "parity" / "matterport_units.npz"
    if not path.is_file():
        pytest.skip(f"no golden numbers: {path} does not exist")
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}
