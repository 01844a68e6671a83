"""Why nothing was found; the rest of the module is tested as users reach it, in test_compat."""

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.inspection import why_nothing
from mrcnn.model import MaskRCNN
from mrcnn.weights import named_weights

ROIS = np.float32([[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0, 0, 0, 0]])


def reason(*probabilities, rois=ROIS, **settings):
    """What is said of two proposals with these probabilities; the third row is padding."""
    padding = [0.0, 0.0, 1.0]
    return why_nothing(rois, np.float32([*probabilities, padding]), Config(**settings))


class TestWhyNothing:
    def test_no_proposal(self):
        text = reason([0, 1, 0], [0, 1, 0], rois=np.zeros((3, 4)))
        assert "region proposal network gave no proposal" in text

    def test_all_background(self):
        text = reason([0.8, 0.2, 0], [0.7, 0, 0.3])
        assert "all 2 proposals are background" in text
        assert "best probability of anything else is 0.300" in text

    def test_below_the_threshold(self):
        text = reason([0.4, 0.6, 0], [0.35, 0, 0.65])
        assert "best score of 2 proposals is 0.650 (class 2), below" in text
        assert text.endswith("DETECTION_MIN_CONFIDENCE=0.7.")

    def test_every_class_counts(self):
        """A class below the background's probability is no background with this setting."""
        text = reason([0.8, 0.2, 0], [0.7, 0, 0.3], DETECTION_ALL_CLASSES=True)
        assert "0.300 (class 2), below" in text

    def test_no_area(self):
        assert "no refined box has an area" in reason([0.1, 0.9, 0], [1, 0, 0])

    def test_not_finite(self):
        assert "not finite" in reason([np.nan] * 3, [1, 0, 0])

    def test_one_class_is_the_background(self):
        text = why_nothing(ROIS, np.ones((3, 1)), Config())
        assert "all 2 proposals are background" in text


@pytest.mark.parametrize(
    ("bias", "expected"),
    [([1e4, 0.0, 0.0], "are background"), ([0.0, 0.1, 0.0], "below DETECTION_MIN_CONFIDENCE")],
)
def test_detect_says_it(eagerly, tiny_config, tmp_path, capsys, bias, expected):
    model = MaskRCNN("inference", tiny_config(DETECTION_MIN_CONFIDENCE=0.99), tmp_path)
    weights = named_weights(model.keras_model)
    weights["mrcnn_class_logits/kernel"].variable.assign(np.zeros((16, 3)))
    weights["mrcnn_class_logits/bias"].variable.assign(bias)
    image = np.full((48, 60, 3), 90, np.uint8)
    assert not len(model.detect([image])[0]["rois"])
    assert not capsys.readouterr().out
    model.detect([image], verbose=1)
    assert expected in capsys.readouterr().out
