import numpy as np
import pytest

from mrcnn import pixels
from mrcnn.images import as_rgb8
from mrcnn.pixels import as_uint8


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(pixels, "_said_dark", False)


@pytest.mark.parametrize("high, white", [(4095, 4095), (300, 4095), (255, 255), (1, 255)])
def test_sixteen_bits_of_which_few_are_used_are_warned_of_once(high, white, caplog):
    values = np.array([[0, high]], np.uint16)
    for _ in range(2):
        assert as_uint8(values).tolist() == [[0, (high + 128) // 257]]
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert f"An image has 16 bits and no value above {high}." in message
    assert f"image.astype(int) * 255 // {white})" in message


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, 4096], np.uint16),
        np.zeros(2, np.uint16),  # black as it is meant
        np.array([0, 9], np.uint8),
        np.array([0, 200], np.int32),
    ],
)
def test_others_are_not(values, caplog):
    as_uint8(values)
    assert not caplog.records


def test_arrays_given_as_images_too(caplog):
    as_rgb8(np.full((2, 2, 3), 900, np.uint16))
    assert "no value above 900" in caplog.text
