"""Instances of attributes, and how often an image is seen."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion.attributes_data import AttributesDataset, find_instances, repeats
from lesion.cache import ImageCache
from lesion.checks import check_samples
from lesion.layouts import find_samples
from lesion.samples import ATTRIBUTES, DatasetError, Sample
from mrcnn.images import read_mask, write_image


def squares(*places, shape=(200, 200)):
    mask = np.zeros(shape, bool)
    for top, left, side in places:
        mask[top : top + side, left : left + side] = True
    return mask


class TestInstances:
    def test_are_the_connected_parts_the_largest_first(self):
        mask = squares((10, 10, 20), (100, 100, 40))
        instances = find_instances(mask)
        assert instances.sum(axis=(0, 1)).tolist() == [1600, 400]
        np.testing.assert_array_equal(instances.any(axis=2), mask)

    @pytest.mark.parametrize(("gap", "count"), [(2, 1), (3, 1), (4, 2), (20, 2)])
    def test_near_parts_are_one(self, gap, count):
        instances = find_instances(squares((10, 10, 20), (10, 30 + gap, 20)))
        assert instances.shape[2] == count
        assert instances.sum() == 800  # the gap itself belongs to none

    def test_specks_are_dropped(self):
        instances = find_instances(squares((10, 10, 20), (100, 100, 3)))
        assert instances.sum(axis=(0, 1)).tolist() == [400]

    def test_of_specks_alone_the_largest_remains(self):
        instances = find_instances(squares((10, 10, 2), (100, 100, 3)))
        assert instances.sum(axis=(0, 1)).tolist() == [9]

    def test_a_blank_mask_has_none(self):
        assert find_instances(np.zeros((30, 40), bool)).shape == (30, 40, 0)

    @settings(max_examples=40)
    @given(st.integers(0, 2**16))
    def test_never_overlap_and_lie_in_the_mask(self, seed):
        rng = np.random.default_rng(seed)
        mask = squares(*rng.integers(0, 60, (6, 3)), shape=(120, 90))
        instances = find_instances(mask)
        assert instances.sum(axis=2).max(initial=0) <= 1
        assert not (instances.any(axis=2) & ~mask).any()


class TestRepeats:
    def test_follow_the_rarest_attribute(self):
        present = [{"streaks"}] + [{"globules"}] * 4 + [set()] * 11
        times = repeats([None] * 16, present, threshold=0.25)
        assert times.tolist() == [2] + [1] * 15  # sqrt(0.25 * 16 / 1) is 2

    def test_fractions_are_made_up_for(self):
        present = [{"streaks"}] * 100 + [set()] * 900
        times = repeats([None] * 1000, present, threshold=0.25)
        assert times[:100].sum() == pytest.approx(100 * np.sqrt(2.5), abs=1)
        assert set(times[:100]) == {1, 2}
        assert (times[100:] == 1).all()


@pytest.fixture
def dataset(tmp_path):
    """A folder of two images: one with two globules and a network, one with nothing."""
    root = tmp_path / "data"
    masks = {
        "ISIC_0000000": {
            "globules": squares((10, 10, 20), (100, 100, 40)),
            "pigment_network": squares((50, 50, 90)),
        },
        "ISIC_0000001": {},
    }
    for image_id, own in masks.items():
        image = np.full((200, 200, 3), 180, np.uint8)
        write_image(root / "ISIC2018_Task1-2_Training_Input" / f"{image_id}.png", image)
        boundary = root / "ISIC2018_Task1_Training_GroundTruth" / f"{image_id}_segmentation.png"
        write_image(boundary, squares((40, 40, 120)))
        for name in ATTRIBUTES:
            path = root / "ISIC2018_Task2_Training_GroundTruth_v3"
            mask = own.get(name, np.zeros((200, 200), bool))
            write_image(path / f"{image_id}_attribute_{name}.png", mask)
    return root


class TestDataset:
    @pytest.mark.parametrize("cached", [False, True])
    def test_gives_the_instances_of_each_attribute(self, dataset, tmp_path, cached):
        cache = ImageCache(tmp_path / "cache", 100) if cached else None
        data = AttributesDataset(find_samples(dataset).samples, cache)
        data.prepare()
        assert data.class_names == ["BG", *ATTRIBUTES]
        masks, class_ids = data.load_mask(0)
        assert class_ids.tolist() == [1, 5, 5]
        assert class_ids.dtype == np.int32
        assert (
            masks.shape[:2]
            == data.load_image(0).shape[:2]
            == ((100,) * 2 if cached else (200,) * 2)
        )
        masks, class_ids = data.load_mask(1)
        assert masks.shape[2] == len(class_ids) == 0

    def test_masks_are_given_without_another_look_at_the_image(self, dataset, tmp_path):
        cache = ImageCache(tmp_path / "cache", 100)
        data = AttributesDataset(find_samples(dataset).samples, cache, with_boundary=True)
        cache.image = None
        assert data.load_mask(0)[1].tolist() == [1, 5, 5, 6]

    def test_may_learn_the_boundary_too(self, dataset):
        data = AttributesDataset(find_samples(dataset).samples, with_boundary=True)
        data.prepare()
        assert data.class_names[-1] == "lesion"
        masks, class_ids = data.load_mask(1)
        assert class_ids.tolist() == [6]
        assert masks.sum() == 120**2

    def test_masks_of_lesions_are_checked_where_they_are_learned(self, dataset):
        folder = dataset / "ISIC2018_Task1_Training_GroundTruth"
        first, second = sorted(folder.iterdir())
        first.unlink()
        write_image(second, squares((10, 10, 20), shape=(100, 100)))
        found = find_samples(dataset)
        write_image(found.samples[1].image, np.full((200, 200, 3), 9, np.uint8))  # no copy
        assert len(check_samples(found, "attributes").samples) == 2
        checked = check_samples(found, "attributes", with_boundary=True)
        assert checked.samples == []
        reasons = sorted(problem.reason for problem in checked.problems)
        assert reasons[0] == "image without a mask of the lesion"
        assert reasons[1].startswith("mask of another size: 100 x 100 pixels")

    def test_repeats_images_of_rare_attributes(self, dataset):
        data = AttributesDataset(find_samples(dataset).samples, threshold=1.0)
        data.prepare()
        references = [data.image_reference(i) for i in data.image_ids]
        assert len(references) == 2  # sqrt(1 / 0.5) is 1.41, rounded down for a single image

    def test_rare_images_are_repeated_under_names_of_their_own(self, dataset):
        samples = find_samples(dataset).samples
        rare = next(s for s in samples if any(read_mask(p).any() for p in s.attributes.values()))
        (blank,) = (sample for sample in samples if sample is not rare)
        many = [dataclasses.replace(blank, image_id=f"{blank.image_id}{i}") for i in range(15)]
        data = AttributesDataset([rare, *many], threshold=1.0)
        keys = [info["id"] for info in data.image_info]
        # The rarest is in 1 of 16 images: sqrt(1 / (1 / 16)) = 4.
        assert len(set(keys)) == len(keys) == 4 + 15
        assert {rare.key, *(f"{rare.key}#{number}" for number in (1, 2, 3))} <= set(keys)
        plain = AttributesDataset([rare, *many])
        assert len(plain.image_info) == 16

    @pytest.mark.parametrize("cached", [False, True])
    def test_long_images_are_learned_as_squares(self, tmp_path, cached):
        mask = squares(
            (20, 20, 30), (120, 250, 40), shape=(200, 300)
        )  # in the left and in the right square
        image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
        folder = tmp_path / "ISIC2018_Task2_Training_GroundTruth_v3"
        write_image(tmp_path / "ISIC2018_Task1-2_Training_Input" / "ISIC_0000001.png", image)
        for name in ATTRIBUTES:
            shown = mask & (name == ATTRIBUTES[1])
            write_image(folder / f"ISIC_0000001_attribute_{name}.png", shown)
        cache = ImageCache(tmp_path / "cache", 300) if cached else None
        data = AttributesDataset(find_samples(tmp_path).samples, cache, threshold=0.5)
        data.prepare()
        assert data.num_images == 2
        for number, columns in enumerate((slice(0, 200), slice(100, 300))):
            np.testing.assert_array_equal(data.load_image(number), image[:, columns])
            masks, class_ids = data.load_mask(number)
            assert class_ids.tolist() == [2]
            np.testing.assert_array_equal(masks[..., 0], mask[:, columns])

    def test_an_image_without_all_masks_is_refused(self, tmp_path):
        sample = Sample("a", "i", tmp_path / "i.png", attributes={"streaks": tmp_path / "s.png"})
        with pytest.raises(DatasetError, match=r"i\.png has no mask of pigment_network"):
            AttributesDataset([sample])
