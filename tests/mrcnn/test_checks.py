import numpy as np
import pytest

from mrcnn.checks import check_dataset
from mrcnn.dataset import Dataset

BOX = (4, 6, 20, 30)


def test_sound_data_set(rectangles, tiny_config):
    dataset = rectangles([[(1, BOX), (2, BOX), (1, BOX)], [], [(-2, BOX), (2, BOX)]])
    found = check_dataset(dataset, tiny_config(MAX_GT_INSTANCES=2))
    assert (found.images, found.instances, found.crowds) == (3, {"red": 2, "green": 2}, 1)
    assert (found.without_instances, found.crowded, found.problems) == ([1], [0], [])
    assert str(found).splitlines() == [
        "3 images, 4 instances",
        "  red: 2",
        "  green: 2",
        "1 crowds",
        "1 images without an instance",
        "1 images with more instances than MAX_GT_INSTANCES",
    ]


def test_data_set_that_is_not_prepared(rectangles, tiny_config):
    dataset = Dataset()
    dataset.add_class("toys", 1, "red")
    dataset.add_image("toys", 1, "a.png")
    found = check_dataset(dataset, tiny_config())
    assert "call prepare()" in found.problems[0]
    assert str(found).startswith("0 images, 0 instances")


def test_every_image_that_cannot_be_used_is_named(rectangles):
    dataset = rectangles([[(1, BOX)]] * 14)
    load_mask = dataset.load_mask

    def broken(image_id):
        masks, class_ids = load_mask(image_id)
        if image_id == 1:
            raise KeyError("mole")
        if image_id == 2:
            masks[:] = False
        return (masks[:10], class_ids) if image_id > 2 else (masks, class_ids)

    dataset.load_mask = broken
    found = check_dataset(dataset)
    assert len(found.problems) == 13
    assert "Image 1 (image1.png) cannot be loaded: KeyError" in found.problems[0]
    assert "the mask of instance 0 (red) is empty" in found.problems[1]
    assert "load_mask returned masks of shape" in found.problems[2]
    assert str(found).endswith("! and 3 more")


def test_images_that_are_almost_black_are_named(rectangles):
    dataset = rectangles([[(1, BOX)]] * 14)
    load_image = dataset.load_image
    dataset.load_image = lambda i: load_image(i) // 12 if i != 3 else load_image(i)  # 220 to 18
    found = check_dataset(dataset)
    assert len(found.dark) == 13
    assert found.problems == []
    assert "13 images that are almost black: image0.png, image1.png, image2.png" in str(found)
    assert "image3.png" not in str(found)
    assert str(found).endswith("image10.png, ...")


def test_limit(rectangles):
    assert check_dataset(rectangles([[(1, BOX)]] * 5), limit=2).images == 2


def test_nothing_to_learn(rectangles, tiny_config):
    found = check_dataset(rectangles([[], []]), tiny_config(NUM_CLASSES=2))
    assert "has 3 classes with the background (BG, red, green)" in found.problems[0]
    assert "No image shows an instance" in found.problems[1]


def test_load_mask_of_another_name():
    class Misspelt(Dataset):
        def load_image(self, image_id):
            return np.zeros((8, 8, 3), np.uint8)

        def load_masks(self, image_id):
            """Of a name that nobody asks for."""

    dataset = Misspelt()
    dataset.add_class("toys", 1, "red")
    dataset.add_image("toys", 0, "a.png")
    dataset.prepare()
    assert "Misspelt has no load_mask() of its own" in check_dataset(dataset).problems[0]


def test_class_of_another_source(tiny_config):
    """Its own number, given without map_source_class_id, which is the most usual mistake."""

    class Two(Dataset):
        def load_image(self, image_id):
            return np.full((48, 60, 3), 90, np.uint8)

        def load_mask(self, image_id):
            return np.ones((48, 60, 1), bool), np.array([1])

    dataset = Two()
    for source, name in (("a", "cat"), ("b", "dog")):
        dataset.add_class(source, 1, name)
        dataset.add_image(source, 0, None)
    dataset.prepare()
    (problem,) = check_dataset(dataset, tiny_config()).problems
    assert problem.startswith("Image 1 (b.0): instance 0 is of class 1 (cat), which is none of its")
    assert 'map_source_class_id("b.1") gives' in problem


@pytest.mark.parametrize("more", ["class", "image"])
def test_what_is_added_after_it_was_prepared(rectangles, tiny_config, more):
    dataset = rectangles([[(1, BOX)]])
    if more == "class":
        dataset.add_class("toys", 3, "blue")
    else:
        dataset.add_image("toys", 1, "late.png")
    (problem,) = check_dataset(dataset, tiny_config()).problems
    assert "had 1 and 3 when prepare() numbered them. Call it again" in problem


def test_class_that_was_added_after_it_was_prepared_is_not_known(rectangles):
    dataset = rectangles([[(3, BOX)]])
    dataset.add_class("toys", 3, "blue")
    dataset.load_image = lambda image_id: np.full((48, 60, 3), 90, np.uint8)
    assert "has class ids [3]; the data set knows 1..2" in check_dataset(dataset).problems[1]


def test_empty_masks_are_no_instances(rectangles):
    dataset = rectangles([[(1, BOX)], [(2, BOX)]])
    dataset.load_mask = lambda image_id: (np.zeros((48, 60, 1), bool), np.array([1]))
    found = check_dataset(dataset)
    assert (found.instances, found.without_instances) == ({"red": 0, "green": 0}, [0, 1])
    assert "No image shows an instance" in found.problems[-1]
