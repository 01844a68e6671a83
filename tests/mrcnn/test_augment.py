import contextlib
import logging
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras.layers import Pipeline, RandomFlip, RandomRotation, RandomTranslation

from mrcnn.augment import _warn_once, augment_instances, require_augmentation

HEIGHT, WIDTH = 60, 80


@pytest.fixture
def rectangles():
    """Three rectangles of colours of their own on black, and their masks."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    masks = np.zeros((HEIGHT, WIDTH, 3), bool)
    for index, (y1, x1, y2, x2) in enumerate([(4, 5, 30, 35), (32, 40, 56, 76), (6, 50, 24, 70)]):
        masks[y1:y2, x1:x2, index] = True
        image[y1:y2, x1:x2, index] = 240
    return image, masks


def agreement(image, masks):
    """Jaccard index of each mask with the pixels of its colour; 1 where both are gone."""
    colours = image > 120
    common = (colours & masks).sum(axis=(0, 1))
    either = (colours | masks).sum(axis=(0, 1))
    return np.where(either > 0, common / np.maximum(either, 1), 1.0)


def outcomes(augmentation, image, masks, seeds=range(6)):
    return [
        augment_instances(augmentation, image, masks, np.random.default_rng(seed)) for seed in seeds
    ]


class Common:
    """What holds for every kind of augmentation that a fixture `augmentation` gives."""

    def test_masks_move_with_the_image(self, augmentation, rectangles):
        for image, masks in outcomes(augmentation, *rectangles):
            assert agreement(image, masks).min() > 0.85

    def test_something_moves(self, augmentation, rectangles):
        results = outcomes(augmentation, *rectangles)
        assert len({masks.tobytes() for _, masks in results}) > 1

    def test_shapes_and_types_stay(self, augmentation, rectangles):
        for image, masks in outcomes(augmentation, *rectangles, seeds=[0]):
            assert (image.shape, image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
            assert (masks.shape, masks.dtype) == ((HEIGHT, WIDTH, 3), bool)

    def test_the_generator_alone_decides(self, augmentation, rectangles):
        first, _, second = outcomes(augmentation, *rectangles, seeds=[1, 2, 1])
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])

    def test_image_without_instances(self, augmentation, rectangles):
        image, masks = rectangles
        for changed, none in outcomes(augmentation, image, masks[..., :0], seeds=[0]):
            assert changed.shape == image.shape
            assert none.shape == (HEIGHT, WIDTH, 0)

    def test_the_originals_are_left_alone(self, augmentation, rectangles):
        image, masks = (array.copy() for array in rectangles)
        outcomes(augmentation, *rectangles, seeds=[0, 1])
        np.testing.assert_array_equal(rectangles[0], image)
        np.testing.assert_array_equal(rectangles[1], masks)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.astype(int) - 120,
        lambda image: image.astype(float) * 2,
        lambda image: image * np.nan,
    ],
    ids=["negative", "too large", "not finite"],
)
def test_another_range_is_refused(rectangles, change):
    image, masks = rectangles
    image = np.clip(image, 10, 240)
    image[0, 0] = 200

    def normalise(image, masks, rng):
        return change(image), masks

    with pytest.raises(ValueError, match="made values from .* Leave out what normalises"):
        augment_instances(normalise, image, masks, np.random.default_rng(0))


@pytest.mark.parametrize(("scale", "warned"), [(1 / 255, True), (0.5, False)])
def test_what_normalises_is_warned_of_once(rectangles, caplog, scale, warned):
    _warn_once.cache_clear()
    image, masks = rectangles

    def scaled(image, masks, rng):
        return image * scale, masks

    with caplog.at_level(logging.WARNING, "mrcnn"):
        for _ in range(2):
            augment_instances(scaled, image, masks, np.random.default_rng(0))
    assert caplog.text.count("Leave out what normalises") == warned


def test_dark_images_may_get_darker(rectangles):
    """An object that leaves the image leaves a background of zeros and ones."""
    image, masks = rectangles

    def without_objects(image, masks, rng):
        return np.minimum(image, 1).astype(np.float32), masks

    changed, _ = augment_instances(without_objects, image, masks, np.random.default_rng(0))
    assert changed.max() == 1


def test_floats_are_rounded(rectangles):
    image, masks = rectangles
    given = np.clip(image, 1, 254)

    def lighter(image, masks, rng):
        return image + 0.6, masks

    changed, _ = augment_instances(lighter, given, masks, np.random.default_rng(0))
    np.testing.assert_array_equal(changed, given + 1)


class TestKerasLayer(Common):
    @pytest.fixture(
        params=[
            lambda: RandomFlip("horizontal"),
            lambda: RandomTranslation(0.2, 0.2, fill_mode="constant"),
            lambda: Pipeline([RandomFlip(), RandomRotation(0.2, fill_mode="constant")]),
            lambda: keras.layers.RandomElasticTransform((1.0, 1.0), (1.0, 1.0)),
        ],
        ids=["RandomFlip", "RandomTranslation", "Pipeline", "RandomElasticTransform"],
    )
    def augmentation(self, request):
        layer = request.param()
        if keras.backend.backend() == "torch" and isinstance(layer, Pipeline):
            pytest.skip("Keras's RandomRotation loses the masks under PyTorch (docs/backends.md)")
        return layer

    def test_runs_on_the_processor(self, rectangles, monkeypatch):
        device, seen, own = keras.device, [], RandomFlip.__call__

        @contextlib.contextmanager
        def scope(name):
            seen.append(name)
            with device(name):
                yield
            seen.append("left")

        monkeypatch.setattr(keras, "device", scope)
        layer = RandomFlip()
        monkeypatch.setattr(
            RandomFlip, "__call__", lambda *a, **k: seen.append("called") or own(*a, **k)
        )
        augment_instances(layer, *rectangles, np.random.default_rng(0))
        assert seen == ["cpu:0", "called", "left"]

    def test_colours_change_in_the_image_alone(self, rectangles):
        image, masks = rectangles
        layer = keras.layers.RandomBrightness(0.5, value_range=(0, 255))
        changed, same = augment_instances(layer, image, masks, np.random.default_rng(0))
        assert not np.array_equal(changed, image)
        np.testing.assert_array_equal(same, masks)


class TestImgaug(Common):
    @pytest.fixture(
        params=[
            lambda iaa: iaa.Fliplr(0.5),
            lambda iaa: iaa.Affine(rotate=(-45, 45), scale=(0.8, 1.2)),
            lambda iaa: iaa.Rot90([0, 2]),
            lambda iaa: iaa.ElasticTransformation(alpha=40, sigma=5),
            lambda iaa: iaa.ElasticTransformation(alpha=(10.0, 40.0), sigma=5.0),
            lambda iaa: iaa.Sequential(
                [
                    iaa.Sometimes(0.5, iaa.Flipud(1.0)),
                    iaa.SomeOf(1, [iaa.Affine(translate_px=(-8, 8)), iaa.Affine(rotate=30)]),
                    iaa.OneOf([iaa.Multiply((0.8, 1.0)), iaa.GaussianBlur(1.0)]),
                ]
            ),
        ],
        ids=["Fliplr", "Affine", "Rot90", "Elastic", "Elastic of float alpha", "Sequential"],
    )
    def augmentation(self, request):
        return request.param(pytest.importorskip("imgaug.augmenters"))

    @pytest.mark.parametrize(
        "make",
        [
            lambda iaa: iaa.Affine(translate_px={"x": 25, "y": 15}, mode="reflect"),
            lambda iaa: iaa.Sequential([iaa.Sometimes(1.0, iaa.Affine(scale=0.7, mode="edge"))]),
            lambda iaa: iaa.Pad(px=(20, 20, 20, 20), pad_mode="reflect"),
            lambda iaa: iaa.PerspectiveTransform((0.1, 0.1), fit_output=True, mode="replicate"),
            lambda iaa: iaa.ElasticTransformation(alpha=60, sigma=6, mode="nearest"),
        ],
        ids=["Affine", "inside", "Pad", "PerspectiveTransform", "ElasticTransformation"],
    )
    def test_what_fills_the_image_fills_the_masks(self, make):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        image[:, :30, 0], image[:20, 40:, 1], image[40:, 40:, 2] = 240, 240, 240
        masks = image > 0
        augmenter = make(pytest.importorskip("imgaug.augmenters"))
        for changed, moved in outcomes(augmenter, image, masks, range(2)):
            assert agreement(changed, moved).min() > 0.9
        part = augmenter
        while isinstance(part, list) or hasattr(part, "then_list"):
            part = part[0] if isinstance(part, list) else part.then_list
        modes = [value for name, value in vars(part).items() if "mode_segmentation" in name]
        assert modes and None not in modes  # the augmenter given stays as it was

    def test_many_instances(self, rectangles):
        iaa = pytest.importorskip("imgaug.augmenters")
        image, masks = rectangles
        many = np.repeat(masks, 4, axis=2)
        changed, moved = augment_instances(
            iaa.Affine(rotate=20), image, many, np.random.default_rng(0)
        )
        assert agreement(changed, moved[..., ::4]).min() > 0.85
        np.testing.assert_array_equal(moved[..., ::4], moved[..., 3::4])

    def test_augmenter_that_a_user_derived(self, rectangles):
        iaa = pytest.importorskip("imgaug.augmenters")

        class Mirror(iaa.Fliplr):
            pass

        image, masks = rectangles
        changed, moved = augment_instances(Mirror(1.0), image, masks, np.random.default_rng(0))
        np.testing.assert_array_equal(changed, image[:, ::-1])
        np.testing.assert_array_equal(moved, masks[:, ::-1])

    def test_is_not_imported_without_need_and_can_be(self):
        pytest.importorskip("imgaug")
        lines = (
            "import sys, mrcnn.augment",
            "assert 'imgaug' not in sys.modules",
            "import imgaug.augmenters as iaa",
            "iaa.Fliplr(0.5)",
        )
        finished = subprocess.run(
            [sys.executable, "-c", "; ".join(lines)], capture_output=True, text=True
        )
        assert finished.returncode == 0, finished.stderr


class Roll:
    """Stands for a transform of Albumentations, by whose module it is told."""

    __module__ = "albumentations.augmentations.stand_in"

    def set_random_seed(self, seed):
        self.rng = np.random.default_rng(seed)

    def __call__(self, *, image, masks=None):
        shift = tuple(self.rng.integers(-20, 20, 2))
        changed = {"image": np.roll(image, shift, (0, 1))}
        if masks is not None:
            assert masks, "masks cannot be empty"
            changed["masks"] = [np.roll(mask, shift, (0, 1)) for mask in masks]
        return changed


class TestAlbumentations(Common):
    @pytest.fixture
    def augmentation(self):
        return Roll()

    def test_version_without_seeds(self):
        class Older:
            __module__ = "albumentations.core"
            __call__ = None

        older = type("Older", (Older,), {"__call__": lambda self, **arrays: arrays})()
        with pytest.raises(TypeError, match="no set_random_seed"):
            require_augmentation(older)


class TestCallable(Common):
    @pytest.fixture
    def augmentation(self):
        def roll(image, masks, rng):
            shift = tuple(rng.integers(-20, 20, 2))
            return np.roll(image, shift, (0, 1)), np.roll(masks, shift, (0, 1))

        return roll

    def test_lists_and_other_types_become_arrays(self, rectangles):
        image, masks = rectangles
        changed, same = augment_instances(
            lambda image, masks, rng: (image.tolist(), masks.astype(int)), image, masks, None
        )
        assert (changed.dtype, same.dtype) == (np.uint8, bool)
        np.testing.assert_array_equal(same, masks)


class TestRefused:
    @pytest.mark.parametrize(
        "crop",
        [
            lambda image, masks, rng: (image[:-4], masks[:-4]),
            lambda image, masks, rng: (image, masks[:, :-4]),
            lambda image, masks, rng: (image, masks[..., :1]),
            lambda image, masks, rng: (image[..., 0], masks),
        ],
        ids=["both", "masks", "instances", "channels"],
    )
    def test_change_of_shape(self, rectangles, crop):
        with pytest.raises(ValueError, match=r"\(60, 80, 3\).*must keep them"):
            augment_instances(crop, *rectangles, np.random.default_rng(0))

    def test_change_of_shape_by_imgaug(self, rectangles):
        iaa = pytest.importorskip("imgaug.augmenters")
        with pytest.raises(ValueError, match="must keep them"):
            augment_instances(iaa.Rot90(1, keep_size=False), *rectangles, np.random.default_rng(0))

    @pytest.mark.parametrize("name", ["AugMix", "CutMix", "MixUp"])
    def test_what_blends_images(self, name):
        layer = getattr(keras.layers, name)()
        for augmentation in (layer, Pipeline([RandomFlip(), layer])):
            with pytest.raises(TypeError, match=f"{name} blends several images"):
                require_augmentation(augmentation)

    @pytest.mark.parametrize(
        "layer", [keras.layers.RandomGrayscale(), keras.layers.Rescaling(1 / 255)], ids=type
    )
    def test_what_takes_no_masks(self, rectangles, layer):
        with pytest.raises(TypeError, match="cannot change an image together with its masks"):
            augment_instances(layer, *rectangles, np.random.default_rng(0))

    @pytest.mark.parametrize("thing", ["fliplr", 0.5, [RandomFlip], {"flip": True}])
    def test_anything_else(self, rectangles, thing):
        with pytest.raises(
            TypeError, match="Keras preprocessing layer, an augmenter of imgaug or Albumentations"
        ):
            augment_instances(thing, *rectangles, np.random.default_rng(0))
