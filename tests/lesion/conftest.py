"""What tests of the lesion commands share."""

from types import SimpleNamespace

import numpy as np
import pytest


class DarknessPredictor:
    """Takes dark pixels for the lesion; stands in for a trained network."""

    def __init__(self):
        self.batches = []

    def predict(self, images):
        self.batches.append(len(images))
        return [self._boundary(image) for image in images]

    def describe(self):
        return {
            "model": "darkness",
            "weights": "darkness.weights.h5",
            "sha256": "0123456789abcdef" * 4,
            "image_size": 64,
        }

    @staticmethod
    def _boundary(image):
        mask = image.mean(axis=2) < 100
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) if len(rows) else None
        return SimpleNamespace(mask=mask, score=0.75 if len(rows) else 0.0, box=box)


@pytest.fixture
def darkness():
    return DarknessPredictor()


@pytest.fixture
def lesion_image():
    """Makes a pale image with a dark disc, and the disc's mask."""

    def make(height=48, width=64, centre=(24, 32), radius=10):
        y, x = np.mgrid[:height, :width]
        mask = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        image = np.where(mask[:, :, np.newaxis], [90, 60, 50], [220, 180, 160]).astype(np.uint8)
        return image, mask

    return make
