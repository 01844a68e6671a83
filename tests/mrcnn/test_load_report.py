"""What is told of a weights file that was loaded; the loading itself is in test_weights."""

import pytest

from mrcnn.load_report import LoadReport, warn_of_gaps

HEADS = ["rpn_conv_shared/kernel", "mrcnn_mask/kernel"]


def told(caplog, training=True, exclude=(), differences=(), **report):
    warn_of_gaps(LoadReport("w.h5", **report), training, exclude, differences)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("training", [True, False])
def test_whole_file_is_loaded_in_silence(caplog, training):
    assert told(caplog, training, loaded=HEADS, zeroed=["conv1/bias"]) == []


@pytest.mark.parametrize("prefix", ["mrcnn_", "rpn_", "fpn_"])
def test_file_of_a_backbone(caplog, prefix):
    backbone = {"loaded": ["conv1/kernel"], "missing": HEADS, "unused": ["predictions/kernel"]}
    assert told(caplog, **backbone) == []
    assert told(caplog, **{**backbone, "loaded": ["conv1/kernel", f"{prefix}x/kernel"]}) == [
        "w.h5 has 1 layers that this network lacks: predictions. It is of another network, for "
        "example of another BACKBONE; the training begins without them.",
        "2 layers are not in w.h5 and stay as they are, random in a new network: rpn_conv_shared, "
        "mrcnn_mask.",
    ]


def test_layers_of_which_a_vector_alone_is_unused_do_not_count(caplog):
    """Such as a bias, or the numbers that a random state was saved with."""
    assert told(caplog, loaded=HEADS, unused=["conv1/bias", "seed_generator/0"]) == []


def test_file_with_a_map_that_the_network_lacks(caplog):
    layers = ["mrcnn_semantic/kernel", "mrcnn_semantic_p2_1/kernel", "mrcnn_presence/kernel"]
    (text,) = told(caplog, loaded=HEADS, unused=layers)
    assert "for example of another SEMANTIC_BRANCH; the training begins without them." in text


def test_excluded_layers_do_not_count_in_training(caplog):
    report = {"loaded": HEADS, "unused": ["mrcnn_semantic/kernel"], "excluded": ["mrcnn_x/kernel"]}
    assert told(caplog, exclude=["mrcnn_semantic", "mrcnn_x"], **report) == []


def test_random_layers_detect_nothing(caplog):
    (text,) = told(caplog, training=False, loaded=HEADS, excluded=["mrcnn_x/kernel"])
    assert text == "These layers are not in w.h5 and stay random; detections mean nothing: mrcnn_x."


def test_many_layers_are_counted(caplog):
    (text,) = told(caplog, loaded=HEADS, unused=[f"res{n}/kernel" for n in range(9)])
    assert "has 9 layers" in text and "res0, res1, res2, res3, res4, res5 and 3 more. It" in text


@pytest.mark.parametrize(
    ("training", "end"),
    [(True, "the training goes on with the latter"), (False, "detections suffer")],
)
def test_settings_of_another_meaning(caplog, training, end):
    (text,) = told(caplog, training, loaded=HEADS, differences=["ROI_ALIGNED=True and not False"])
    assert text == f"w.h5 was trained with ROI_ALIGNED=True and not False; {end}."
