"""What tests of the lesion commands share."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

import lesion.diagnosis_network
import mrcnn.network
from lesion.samples import DIAGNOSES
from lesion.splits import Split
from mrcnn.images import write_image


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


HAM_HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"


@pytest.fixture(scope="session")
def moles(tmp_path_factory):
    """A made-up HAM10000 of 7 categories, each of a colour: 4 lesions of 2 images, 40 x 52 pixels.

    Attributes: `data`, its folder; `split`, a file with 2 lesions of each to train on, 1 for
    validation and 1 to test.
    """
    folder = tmp_path_factory.mktemp("moles")
    random = np.random.default_rng(0)
    rows, parts = [HAM_HEADER], {"train": [], "validation": [], "test": []}
    for number in range(7 * 4 * 2):
        category, lesion = number // 8, number // 2
        colour = np.array([40 + 30 * category, 220 - 30 * category, 60 + 60 * (category % 3)])
        image = np.full((40, 52, 3), (220, 190, 170)) + random.normal(0, 8, (40, 52, 3))
        image[8:32, 14:38] = colour + random.normal(0, 8, (24, 24, 3))
        name = f"ISIC_{number:07d}"
        path = folder / "data" / "HAM10000_images_part_1" / f"{name}.png"
        write_image(path, np.clip(image, 0, 255).astype(np.uint8))
        patient = ("histo,55.0,male,back", "follow_up,,female,unknown")[lesion % 2]
        diagnosis = DIAGNOSES[category].lower()
        rows.append(f"HAM_{lesion:07d},{name},{diagnosis},{patient}")
        part = ("train", "train", "validation", "test")[lesion % 4]
        parts[part].append(f"data/{name}")
    (folder / "data" / "HAM10000_metadata.csv").write_text("\n".join(rows) + "\n")
    split = Split(parts, 0, {"train": 0.5, "validation": 0.25, "test": 0.25})
    split.save(folder / "split.json")
    return SimpleNamespace(data=folder / "data", split=folder / "split.json")


@pytest.fixture(autouse=True)
def weights_folder(monkeypatch, tmp_path_factory):
    """An empty folder in the place of the shipped weights': what they find is no test's matter."""
    folder = tmp_path_factory.mktemp("weights")
    monkeypatch.setattr("lesion.weights._FOLDERS", (folder,))
    return folder


def build_five_convolutions(image, config):
    """A backbone of five convolutions, so that training takes no time: `build_backbone`'s like."""
    # To -1..1: a Mask R-CNN has subtracted the mean already.
    offset = float(np.mean(config.MEAN_PIXEL)) / 127.5 - 1
    stages, x = [], keras.layers.Rescaling(1 / 127.5, offset, name="stem_scale")(image)
    for stage in range(1, 6):
        x = keras.layers.Conv2D(
            12, 3, strides=2, padding="same", activation="relu", name=f"block{stage}"
        )(x)
        stages.append(x)
    return stages


@pytest.fixture(scope="session")
def five_convolutions():
    """See `build_five_convolutions`."""
    return build_five_convolutions


@pytest.fixture(scope="module")
def small_network(five_convolutions):
    """Puts it in the place of every backbone of a Mask R-CNN."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mrcnn.network, "build_backbone", five_convolutions)
        yield


@pytest.fixture(scope="class")
def small_backbone(five_convolutions):
    """Puts it in the place of every backbone of the diagnosis network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesion.diagnosis_network, "build_backbone", five_convolutions)
        yield
