"""The notebooks run from top to bottom, in a Jupyter kernel, and are stored without results."""

import asyncio
import re
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
# The training comes first: the others take the weights it leaves behind.
NOTEBOOKS = sorted(
    (path for path in SAMPLES.rglob("*.ipynb") if path.parent.name != ".ipynb_checkpoints"),
    key=lambda path: (path.stem != "train_shapes", path),
)


# Jupyter runs a notebook where it lies, with no names of another's. A few steps of a network take
# less time than compiling it.
BEFORE = """%reset -f
%cd -q {folder}
import tensorflow as tf
tf.config.run_functions_eagerly(True)"""


def relative(path):
    return path.relative_to(SAMPLES).as_posix()


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Folder of runs that the notebooks share."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def kernel(logs):
    """One for all, which loads TensorFlow once, with settings by which they need seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRCNN_SAMPLE_SMALL", "1")
        patch.setenv("MRCNN_SAMPLE_LOGS", str(logs))
        patch.delenv("MRCNN_SAMPLE_WEIGHTS", raising=False)
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
        kernel = AsyncKernelManager(kernel_name="python3")
        yield kernel
        if kernel.has_kernel:
            asyncio.run(kernel.shutdown_kernel(now=True))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_notebook_runs(path, kernel):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(BEFORE.format(folder=path.parent)))
    patience = {"timeout": 1800, "startup_timeout": 600}  # on a busy machine
    NotebookClient(notebook, kernel, **patience).execute()


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
