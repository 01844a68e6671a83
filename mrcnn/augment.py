"""Augmentation of an image together with its instance masks.

Boxes are always computed anew from the masks, so that an augmentation need not know them.
Importing this module (or `mrcnn.model`) makes `import imgaug` work on NumPy 2.
"""

import functools
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

logger = logging.getLogger(__name__)

_NORMALISES = "Leave out what normalises: the network subtracts MEAN_PIXEL itself."

# The random state of a Keras layer or an Albumentations transform is part of it, which all threads
# share.
_LOCK = threading.Lock()

# Layers of Keras that blend several images, or several versions of one, which no mask follows.
_BLENDING = ("AugMix", "CutMix", "MixUp")


def augment_instances(
    augmentation: Callable, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Applies one random augmentation to an image and all its masks.

    Args:
        augmentation: one of
            a Keras preprocessing layer (also a `keras.layers.Pipeline`), called with
            `{"images": ..., "segmentation_masks": ...}`;
            an imgaug augmenter;
            a transform of Albumentations, called with `image=` and `masks=`;
            a callable `(image, masks, rng) -> (image, masks)`.
        image: uint8 [height, width, 3].
        masks: bool [height, width, instances].
        rng: `numpy.random.Generator`; decides all that happens.

    Returns:
        The image (uint8) and the masks (bool), of the shapes they had.

    Raises:
        TypeError: if `augmentation` is none of these, or blends images.
        ValueError: if it changes the shape of the image or of the masks, or its range of values.
    """
    require_augmentation(augmentation)
    if isinstance(augmentation, keras.layers.Layer):
        new_image, new_masks = _by_keras(augmentation, image, masks, rng)
    elif _is_of("albumentations", augmentation):
        new_image, new_masks = _by_albumentations(augmentation, image, masks, rng)
    elif _is_of("imgaug", augmentation):
        new_image, new_masks = _by_imgaug(augmentation, image, masks, rng)
    else:
        new_image, new_masks = augmentation(image, masks, rng)
    new_image, new_masks = np.asarray(new_image), np.asarray(new_masks)
    if new_image.shape != image.shape or new_masks.shape != masks.shape:
        raise ValueError(
            f"The augmentation {augmentation!r} turned an image of shape {image.shape} with masks "
            f"of shape {masks.shape} into {new_image.shape} and {new_masks.shape}; it must keep "
            "them. Pad or crop to the old size as its last step."
        )
    if new_image.dtype != np.uint8 and new_image.size:
        low, high = new_image.min(), new_image.max()
        if not (0 <= low and high <= 255):
            raise ValueError(
                f"The augmentation {augmentation!r} made values from {low:g} to {high:g} of an "
                f"image of 0 to 255, which it must keep. {_NORMALISES}"
            )
        whole = np.rint(new_image)
        if high <= 1 < image.max() and (whole != new_image).any():  # or it turned a dark image
            _warn_once(f"The augmentation {augmentation!r} made fractions up to 1. {_NORMALISES}")
        new_image = whole
    return new_image.astype(np.uint8, copy=False), new_masks.astype(bool, copy=False)


@functools.cache
def _warn_once(message):
    logger.warning("%s", message)


def require_augmentation(augmentation: Any) -> None:
    """Raises TypeError for what `augment_instances` does not take."""
    if not callable(augmentation):
        raise TypeError(
            "augmentation must be a Keras preprocessing layer, an augmenter of imgaug or "
            "Albumentations, or a callable (image, masks, rng) -> (image, masks); received "
            f"{augmentation!r}."
        )
    if _is_of("albumentations", augmentation) and not hasattr(augmentation, "set_random_seed"):
        raise TypeError(
            "This version of Albumentations has no set_random_seed(), without which batches would "
            "not depend on the seed alone. Install 2.0 or newer, or give a function of image, "
            "masks and rng that calls it."
        )
    if isinstance(augmentation, keras.layers.Layer):
        for part in augmentation._flatten_layers():
            if _is_of("keras", part) and type(part).__name__ in _BLENDING:
                raise TypeError(
                    f"{type(part).__name__} blends several images, or several versions of one, "
                    "which no mask of an instance can follow. Leave it out of the augmentation."
                )


def _by_keras(layer, image, masks, rng):
    data = {
        "images": image.astype(np.float32)[None],
        "segmentation_masks": masks.astype(np.float32)[None],
    }
    if not masks.shape[-1]:  # a resize of no channels is refused by the backends
        del data["segmentation_masks"]
    with _LOCK:
        for part in layer._flatten_layers():
            if isinstance(getattr(part, "generator", None), keras.random.SeedGenerator):
                state = part.generator.state
                state.assign(rng.integers(2**32, size=state.shape, dtype=np.uint32))
            if isinstance(part, keras.layers.RandomElasticTransform):
                _mend_random_elastic_transform(type(part))
        with keras.device("cpu:0"):  # a GPU is busy with the training
            try:
                data = layer(data, training=True)
            except (AttributeError, TypeError, ValueError) as error:
                raise TypeError(
                    f"Keras's {type(layer).__name__} cannot change an image together with its "
                    "masks. Leave it out, or call it from a function of your own, (image, masks, "
                    "rng) -> (image, masks)."
                ) from error
    image = np.clip(keras.ops.convert_to_numpy(data["images"])[0], 0, 255)
    if "segmentation_masks" in data:
        masks = keras.ops.convert_to_numpy(data["segmentation_masks"])[0] >= 0.5
    return image, masks


def _is_of(package, augmentation):
    """Whether its class is one of a package's, or one that a user derived from these."""
    classes = type(augmentation).__mro__
    return any(kind.__module__.partition(".")[0] == package for kind in classes)


def _by_albumentations(transform, image, masks, rng):
    with _LOCK:
        transform.set_random_seed(int(rng.integers(2**32)))
        planes = [np.ascontiguousarray(masks[:, :, i], np.uint8) for i in range(masks.shape[2])]
        # Of no masks some versions make an error.
        changed = transform(image=image, **({"masks": planes} if planes else {}))
    if not planes:
        return changed["image"], np.zeros((*changed["image"].shape[:2], 0), bool)
    return changed["image"], np.stack(changed["masks"], axis=2) > 0


def _by_imgaug(augmenter, image, masks, rng):
    from imgaug.augmentables.segmaps import SegmentationMapsOnImage

    mend_elastic_transformation()
    fixed = augmenter.to_deterministic()
    fixed.seed_(int(rng.integers(2**31)), deterministic_too=True)
    for part in [fixed, *fixed.get_all_children(flat=True)]:  # copies, as `fixed` is
        for mode in ("_mode_segmentation_maps", "_pad_mode_segmentation_maps"):
            if hasattr(part, mode):
                setattr(part, mode, None)  # the image's: what is mirrored there has its mask
    augmented = fixed.augment_image(image)
    if not masks.shape[-1]:
        return augmented, masks
    # A map of several channels moves all instances by the same transformation, and every
    # augmenter of imgaug that moves pixels knows how to move it.
    maps = SegmentationMapsOnImage(masks.astype(np.int32), shape=image.shape)
    return augmented, fixed.augment_segmentation_maps([maps])[0].arr > 0


def restore_numpy_names() -> None:
    """Gives NumPy 2 the names that imgaug 0.4.0 reads; done when this module is imported."""
    sctypes = {
        "int": [np.int8, np.int16, np.int32, np.int64],
        "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
        "float": [np.float16, np.float32, np.float64, np.longdouble],
    }
    vars(np).setdefault("sctypes", sctypes)
    vars(np).setdefault("complex", complex)


def _mend_random_elastic_transform(layer_class):
    """Lets masks move with the image: Keras's layer draws the displacements anew for them."""
    original = layer_class.get_random_transformation
    if original.__module__ == __name__:
        return

    def get_random_transformation(self, data, training=True, seed=None):
        transformation = original(self, data, training, seed)
        if transformation is not None:
            drawn = keras.ops.convert_to_numpy(self.generator.next())
            transformation["seed"] = int(drawn[0])  # a number, instead of what counts on
        return transformation

    layer_class.get_random_transformation = get_random_transformation


def mend_elastic_transformation() -> None:
    """Lets imgaug's `ElasticTransformation` take an integer `alpha` with OpenCV.

    Its displacements are then float64, which `cv2.convertMaps` refuses.
    """
    elastic = sys.modules["imgaug.augmenters.geometric"].ElasticTransformation
    original = elastic._map_coordinates.__func__
    if original.__module__ == __name__:
        return

    def map_coordinates(cls, image, dx, dy, *args, **kwargs):
        dx, dy = np.asarray(dx, np.float32), np.asarray(dy, np.float32)
        return original(cls, image, dx, dy, *args, **kwargs)

    elastic._map_coordinates = classmethod(map_coordinates)


restore_numpy_names()
