"""What the client of TensorFlow Serving makes of answers; asking takes a server."""

import numpy as np
import pytest

from lesion.samples import ATTRIBUTES, DIAGNOSES
from mrcnn.images import read_mask


@pytest.fixture(scope="module")
def client(load_sample):
    return load_sample("serving_client.py")


def named(names):
    return np.array([[name.encode() for name in names]], object)


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (
            {"class_names": named(DIAGNOSES), "probabilities": np.full((1, 7), 1 / 7)},
            [f"{name} 0.143" for name in DIAGNOSES],
        ),
        (
            {"class_names": named(ATTRIBUTES), "presence": np.full((1, 5), 0.25)},
            [f"{name} present 0.250" for name in ATTRIBUTES],
        ),
        (
            {
                "class_names": named(["lesion", ""]),
                "scores": np.array([[0.9, 0.0]]),
                "boxes": np.array([[[1, 2, 3, 4], [0, 0, 0, 0]]]),
                "num_detections": np.array([1]),
            },
            ["lesion 0.900 box [1, 2, 3, 4]"],
        ),
        (
            {  # of a network with a semantic branch
                "class_names": named(["cell", ""]),
                "scores": np.array([[0.9, 0.0]]),
                "boxes": np.array([[[1, 2, 3, 4], [0, 0, 0, 0]]]),
                "num_detections": np.array([1]),
                "presence": np.full((1, 3), 0.5),
            },
            ["cell 0.900 box [1, 2, 3, 4]"],
        ),
    ],
    ids=["diagnosis", "attributes", "boundary", "semantic"],
)
def test_lines(client, found, lines):
    assert client.describe(found, 0) == lines


@pytest.mark.parametrize(("counts", "files"), [({"num_detections": np.array([1])}, 1), ({}, 2)])
def test_masks_are_cut_to_their_image(client, tmp_path, counts, files):
    masks = np.zeros((1, 2, 6, 8), np.uint8)
    masks[0, 0, 1:3, 2:5] = 1
    client.write_masks(
        {"image_size": np.array([[4, 7]]), "masks": masks, **counts}, 0, tmp_path, "a"
    )
    assert len(list(tmp_path.iterdir())) == files
    np.testing.assert_array_equal(read_mask(tmp_path / "a_0.png"), masks[0, 0, :4, :7] > 0)
