"""The examples of docs/mrcnn.md run one after another, on small images and with a tiny network."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

from mrcnn.images import write_image

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "mrcnn.md"
# What would take minutes or a download, and what takes its place.
SMALLER = {
    "from mrcnn.config import Config": "from tests.mrcnn.conftest import TinyConfig as Config",
    "IMAGE_MIN_DIM = IMAGE_MAX_DIM = 512": "IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64",
    'model.load_weights("coco")\n': "",
    "from_weights(path, DETECTION_MIN_CONFIDENCE=0)": "from_weights(path, **OWN)",
    "from_weights(path)": "from_weights(path, **OWN)",
    "from_weights(path, DETECTION_MIN_CONFIDENCE=0.5)": "from_weights(path, **OWN)",
    "config = CellConfig()": "config = CellConfig()\nOWN = {'BACKBONE': config.BACKBONE}",
    "tile=512": "tile=48",
    "epochs=5": "epochs=1",
    "epochs=20": "epochs=2",
}


@pytest.fixture
def cells(tmp_path, monkeypatch):
    for part in ("train", "val"):
        for name in ("a", "b", "c"):
            mask = np.zeros((64, 64), bool)
            mask[10:40, 12:44] = True
            write_image(tmp_path / "cells" / part / "images" / f"{name}.png", mask * np.uint8(200))
            write_image(tmp_path / "cells" / part / "masks" / name / "1.png", mask)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("cells", "eagerly")
def test_examples_run(capsys):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("one backend is enough")
    pytest.importorskip("faster_coco_eval")
    code = "".join(re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL))
    for text, other in SMALLER.items():
        assert code.count(text) == 1, text
        code = code.replace(text, other)
    names = {"__name__": "guide"}
    exec(compile(code, str(GUIDE), "exec"), names)
    assert "3 images, 3 instances" in capsys.readouterr().out
    assert names["counts"].shape == (2, 2)
    assert Path(names["model"].find_last()).name == "mask_rcnn_cell_0002.h5"
    assert set(names["model"].class_names) == {"BG", "cell"}
    assert names["found"]["masks"].image_shape == (64, 64)
    assert Path("a.png").is_file() and Path("a_instances.png").is_file()
