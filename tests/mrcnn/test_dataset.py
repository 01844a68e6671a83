import numpy as np
import pytest

from mrcnn.dataset import Dataset, every_nth
from mrcnn.images import write_image


@pytest.fixture
def dataset():
    """Two sources with classes of their own ids, three images."""
    dataset = Dataset()
    dataset.add_class("coco", 17, "cat")
    dataset.add_class("coco", 44, "bottle, glass")
    dataset.add_class("cells", 1, "nucleus")
    dataset.add_image("cells", "a", "a.png", stain="HE")
    dataset.add_image("coco", 397133, "b.jpg")
    dataset.add_image("cells", "c", "c.png")
    dataset.prepare()
    return dataset


class TestNumbers:
    def test_background_comes_first(self, dataset):
        assert dataset.num_classes == 4
        np.testing.assert_array_equal(dataset.class_ids, [0, 1, 2, 3])
        assert dataset.class_names == ["BG", "cat", "bottle", "nucleus"]

    def test_images_are_numbered_in_their_order(self, dataset):
        np.testing.assert_array_equal(dataset.image_ids, [0, 1, 2])
        assert dataset.num_images == 3
        assert dataset.image_from_source_map == {"cells.a": 0, "coco.397133": 1, "cells.c": 2}

    def test_every_source_has_the_background(self, dataset):
        assert dataset.sources == ["", "coco", "cells"]
        assert dataset.source_class_ids == {"": [0], "coco": [0, 1, 2], "cells": [0, 3]}

    def test_class_ids_from_a_source_and_back(self, dataset):
        assert dataset.map_source_class_id("coco.44") == 2
        assert dataset.get_source_class_id(2, "coco") == 44

    def test_class_of_another_source_is_refused(self, dataset):
        with pytest.raises(ValueError, match=r"Class 3 \(nucleus\) belongs to source 'cells'"):
            dataset.get_source_class_id(3, "coco")

    def test_class_is_added_once(self):
        dataset = Dataset()
        dataset.add_class("coco", 17, "cat")
        dataset.add_class("coco", 17, "tomcat")
        dataset.prepare()
        assert dataset.class_names == ["BG", "cat"]

    def test_dot_in_a_source_is_refused(self):
        with pytest.raises(ValueError, match="dot; received 'v1.0'"):
            Dataset().add_class("v1.0", 1, "cat")

    def test_nothing_is_there_before_prepare(self):
        dataset = Dataset()
        dataset.add_image("cells", "a", "a.png")
        assert len(dataset.image_ids) == 0


class TestImages:
    def test_information_is_kept(self, dataset):
        assert dataset.image_info[0] == {
            "id": "a",
            "source": "cells",
            "path": "a.png",
            "stain": "HE",
        }
        assert dataset.image_reference(1) == "b.jpg"
        assert dataset.source_image_link(2) == "c.png"

    @pytest.mark.parametrize("channels", [0, 3, 4])
    def test_any_file_becomes_rgb(self, tmp_path, channels):
        shape = (5, 7, channels) if channels else (5, 7)
        pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
        path = tmp_path / "image.png"
        write_image(path, pixels)
        dataset = Dataset()
        dataset.add_image("files", "image", path)
        dataset.prepare()
        image = dataset.load_image(0)
        assert (image.shape, image.dtype) == ((5, 7, 3), np.uint8)
        expected = pixels[..., :3] if channels else np.repeat(pixels[..., None], 3, axis=2)
        np.testing.assert_array_equal(image, expected)

    def test_masks_are_the_subclass_business(self, dataset, caplog):
        """Those of matterport ask it for nothing of images that show nothing."""
        masks, class_ids = dataset.load_mask(0)
        assert masks.shape == (0, 0, 0)
        assert class_ids.shape == (0,)
        assert not caplog.text


@pytest.mark.parametrize(
    ("limit", "ids"), [(None, range(7)), (7, range(7)), (4, [0, 2, 4, 6]), (3, [0, 3, 6]), (1, [0])]
)
def test_images_from_all_over_a_data_set(limit, ids):
    assert every_nth(np.arange(7), limit).tolist() == list(ids)
    assert not len(every_nth([], limit))
