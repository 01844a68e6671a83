"""The configuration in a weights file; words for files are tested with `MaskRCNN`."""

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.start_weights import read_config
from mrcnn.weights import WeightsError, save_arrays


def write(path, **metadata):
    save_arrays(path, {"dense/kernel": np.zeros((2, 2), np.float32)}, metadata)
    return path


def test_is_that_of_the_file(tmp_path, caplog):
    stored = Config(NAME="cell", IMAGES_PER_GPU=3, BACKBONE="mobilenet").to_dict()
    path = write(tmp_path / "own.h5", config={**stored, "FILTER": "red"})
    config = read_config(path, IMAGES_PER_GPU=5)
    expected = Config(NAME="cell", IMAGES_PER_GPU=5, BACKBONE="mobilenet")
    assert config.to_dict() == expected.to_dict()
    assert "not known here: FILTER." in caplog.text


@pytest.mark.parametrize("setting", ["IMAGE_PER_GPU", "BATCH_SIZE"])
def test_settings_are_checked(tmp_path, setting):
    path = write(tmp_path / "own.h5", config=Config().to_dict())
    with pytest.raises(ValueError, match=setting):
        read_config(path, **{setting: 5})


def resnet50(*_):
    """Stands for a user's backbone, which may have any name."""


@pytest.mark.parametrize("name", ["BACKBONE", "COMPUTE_BACKBONE_SHAPE"])
def test_functions_have_to_be_given(tmp_path, name):
    path = write(tmp_path / "own.h5", config=Config(**{name: resnet50}).to_dict())
    with pytest.raises(ValueError, match=f"trained with function resnet50, .*{name}="):
        read_config(path)
    assert getattr(read_config(path, **{name: resnet50}), name) is resnet50


def test_optimizer_that_was_a_function_matters_in_training_alone(tmp_path):
    path = write(tmp_path / "own.h5", config=Config(OPTIMIZER=resnet50).to_dict())
    assert read_config(path).OPTIMIZER == "sgd"
    with pytest.raises(ValueError, match="trained with function resnet50, .*OPTIMIZER="):
        read_config(path, "training")
    assert read_config(path, "training", OPTIMIZER="adamw").OPTIMIZER == "adamw"


def test_of_coco():
    config = read_config("coco", DETECTION_MIN_CONFIDENCE=0.5)
    expected = Config(NAME="coco", NUM_CLASSES=81, DETECTION_MIN_CONFIDENCE=0.5)
    assert config.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "does not tell the configuration"),
        ({"network": "classifier", "config": {}}, "another kind of network.*classifier"),
    ],
)
def test_other_files_are_refused(tmp_path, metadata, message):
    with pytest.raises(WeightsError, match=f"foreign.h5.*{message}"):
        read_config(write(tmp_path / "foreign.h5", **metadata))
