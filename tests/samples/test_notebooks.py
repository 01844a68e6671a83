"""The notebooks run from top to bottom, in a Jupyter kernel, and are stored without results."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
# The training comes first: the others take the weights it leaves behind.
NOTEBOOKS = sorted(
    (path for path in SAMPLES.rglob("*.ipynb") if path.parent.name != ".ipynb_checkpoints"),
    key=lambda path: (path.stem != "train_shapes", path),
)


# A few steps of a network take less time than compiling it.
STEP_BY_STEP = "import tensorflow as tf\n\ntf.config.run_functions_eagerly(True)"


def relative(path):
    return path.relative_to(SAMPLES).as_posix()


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Folder of runs that the notebooks share."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture
def small(logs, monkeypatch):
    """Environment in which the notebooks need seconds."""
    monkeypatch.setenv("MRCNN_SAMPLE_SMALL", "1")
    monkeypatch.setenv("MRCNN_SAMPLE_LOGS", str(logs))
    monkeypatch.delenv("MRCNN_SAMPLE_WEIGHTS", raising=False)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_notebook_runs(path, small):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STEP_BY_STEP))
    folder = {"metadata": {"path": str(path.parent)}}  # Jupyter runs a notebook where it lies
    patience = {"timeout": 1800, "startup_timeout": 600}  # on a busy machine
    NotebookClient(notebook, **patience, resources=folder).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_notebook_is_stored_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
        assert not re.search(r"""["'(](/|~|[A-Z]:)\w*[/\\]""", cell.source), "a machine's path"
