"""From a `Dataset` to batches for the network."""

import contextlib
import functools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeGuard

import keras
import numpy as np

from mrcnn.anchors import anchors_of
from mrcnn.augment import augment_instances, require_augmentation
from mrcnn.config import Config
from mrcnn.dataset import Dataset
from mrcnn.distribution import process_share
from mrcnn.images import as_channels
from mrcnn.masks import extract_bboxes, minimize_mask, resize_mask
from mrcnn.molding import compose_image_meta, mold_image, require_halvable, resize_for
from mrcnn.semantic import semantic_targets
from mrcnn.targets import build_rpn_targets

__all__ = [
    "Batches",
    "Dataset",
    "FailureKept",
    "FailuresRaised",
    "SampleError",
    "load_image_gt",
    "load_sample",
]


class SampleError(ValueError):
    """An image or its masks cannot be used for training; the message names it."""


def load_image_gt(
    dataset: Dataset,
    config: Config,
    image_id: int,
    augment: bool = False,
    augmentation: Callable | Literal[False] | None = None,
    use_mini_mask: bool = False,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One image with its instances, resized for the network and augmented.

    Args:
        dataset: a prepared `Dataset`.
        config: a `Config`.
        image_id: number of the image in the data set.
        augment: flips left and right at random (kept for compatibility).
        augmentation: see `mrcnn.augment.augment_instances`; None or False for none.
        use_mini_mask: masks are cut to their boxes and resized to `MINI_MASK_SHAPE`.
        rng: `numpy.random.Generator`; a new unseeded one by default.

    Returns:
        image [h, w, c], uint8 where c is 1 or 3, image_meta [12 + classes], class_ids int32 [n],
        bbox int32 [n, 4] in pixels, mask bool [h, w, n] or [*MINI_MASK_SHAPE, n].

    Raises:
        SampleError: naming the image, if it or its masks cannot be used.
    """
    rng = np.random.default_rng() if rng is None else rng
    image, mask, class_ids = load_sample(dataset, image_id, config.IMAGE_CHANNEL_COUNT)
    loaded, original_shape = image, image.shape
    image, window, scale, padding, crop = resize_for(image, config, rng)
    size = None if crop else (window[2] - window[0], window[3] - window[1])
    mask = resize_mask(mask, scale, padding, crop, size)
    if augment and rng.random() < 0.5:
        image, mask = np.fliplr(image), np.fliplr(mask)
    if _is_given(augmentation):
        if image.dtype != np.uint8:
            raise SampleError(
                f"Image {image_id} ({reference_of(dataset, image_id)}) is {image.dtype}; only "
                "uint8 images can be augmented. Train without augmentation, or let load_image "
                "return uint8."
            )
        if np.may_share_memory(image, loaded):  # which a data set may keep for the next time
            image = image.copy()
        with NamedInFailure(dataset, image_id, "augmented"):
            image, mask = augment_instances(augmentation, image, mask, rng)
    # Cropping and augmentation may have moved an instance out of the image.
    bbox = extract_bboxes(mask)
    visible = bbox[:, 2] > bbox[:, 0]
    if not visible.all():
        mask, class_ids, bbox = mask[:, :, visible], class_ids[visible], bbox[visible]
    if use_mini_mask:
        mask = minimize_mask(bbox, mask, config.MINI_MASK_SHAPE)
    active = np.zeros(dataset.num_classes, np.int32)
    if (source := dataset.image_info[image_id]["source"]) not in dataset.source_class_ids:
        raise SampleError(next(problems_of(dataset)))
    active[dataset.source_class_ids[source]] = 1
    meta = compose_image_meta(image_id, original_shape, image.shape, window, scale, active)
    return image, meta, class_ids, bbox, mask


def _is_given(augmentation: Callable | Literal[False] | None) -> TypeGuard[Callable]:
    # By identity, since an empty imgaug.Sequential is a list and as such false.
    return augmentation is not None and augmentation is not False


def load_sample(
    dataset: Dataset, image_id: int, channels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image [h, w, channels], masks bool [h, w, n] and class ids int32 [n], checked.

    Raises:
        SampleError: naming the image, if it or its masks cannot be used.
    """
    reference = reference_of(dataset, image_id)
    if not hasattr(dataset, "num_classes"):
        raise SampleError(f"Image {image_id} ({reference}) cannot be loaded: call prepare() first.")
    with NamedInFailure(dataset, image_id, "loaded"):
        image = as_channels(dataset.load_image(image_id), channels)
        mask, class_ids = dataset.load_mask(image_id)
        mask, class_ids = np.asarray(mask), np.asarray(class_ids, np.int32).reshape(-1)
    if not mask.size and not len(class_ids):
        return image, np.zeros((*image.shape[:2], 0), bool), np.zeros(0, np.int32)
    if mask.shape != (*image.shape[:2], len(class_ids)):
        turned = mask.shape == (*image.shape[1::-1], len(class_ids)) and (
            " If the file says that it lies on its side (EXIF), it was turned upright, and its "
            "annotations were drawn on it as it is stored."
        )
        raise SampleError(
            f"Image {image_id} ({reference}) is {image.shape[0]}x{image.shape[1]} with "
            f"{len(class_ids)} class ids, but load_mask returned masks of shape {mask.shape}; "
            f"they must be [height, width, instances].{turned or ''}"
        )
    if not class_ids.all():  # a blank mask of the background says that an image shows nothing
        something = (class_ids != 0) | mask.any(axis=(0, 1))
        mask, class_ids = mask[:, :, something], class_ids[something]
    highest = dataset.num_classes - 1
    if np.abs(class_ids).max(initial=0) > highest or not class_ids.all():
        raise SampleError(
            f"Image {image_id} ({reference}) has class ids {class_ids.tolist()}; the data set "
            f"knows 1..{highest}, 0 is the background, and negative ones are crowds."
        )
    return image, mask.astype(bool), class_ids


def reference_of(dataset: Dataset, image_id: int) -> str | os.PathLike:
    """What messages call an image: its path, or source and id, where it has no other name.

    Many an `image_reference` copied from matterport's samples fails for its own images, which
    nobody noticed, since trainings did not ask for it.
    """
    try:
        reference = dataset.image_reference(image_id)
    except (LookupError, AttributeError, TypeError, ValueError, RecursionError):
        reference = None
    info = dataset.image_info[image_id]
    return reference or info["path"] or f"{info['source']}.{info['id']}"


class NamedInFailure(contextlib.AbstractContextManager):
    """Makes whatever a user's own code raises a `SampleError` that names the image."""

    def __init__(self, dataset: Dataset, image_id: int, deed: str):
        self.dataset, self.image_id, self.deed = dataset, image_id, deed

    def __exit__(self, kind, error, traceback):
        if not isinstance(error, Exception):
            return
        name = "" if isinstance(error, OSError | ValueError) else f"{kind.__name__}: "
        raise SampleError(
            f"Image {self.image_id} ({reference_of(self.dataset, self.image_id)}) cannot be "
            f"{self.deed}: {name}{error}"
        ) from error


def problems_of(dataset: Dataset, config: Config | None = None) -> Iterator[str]:
    """Sentences about what keeps a training from a data set, whatever its images show.

    Args:
        dataset: a `Dataset`.
        config: of the network; without one, the number of classes is not looked at.
    """
    if not len(dataset.image_ids):
        yield "The data set holds no image. Add images with add_image() and call prepare()."
        return
    now = len(dataset.image_info), len(dataset.class_info)
    if now != (dataset.num_images, dataset.num_classes):
        yield (
            f"The data set has {now[0]} images and {now[1]} classes with the background, and had "
            f"{dataset.num_images} and {dataset.num_classes} when prepare() numbered them. Call it "
            "again, after the last add_class() and add_image()."
        )
    if getattr(dataset.load_mask, "__func__", None) is Dataset.load_mask:
        yield (
            f"{type(dataset).__name__} has no load_mask() of its own, so that no image would show "
            "anything. Override it; the name is load_mask, without an s."
        )
    if config and dataset.num_classes != config.NUM_CLASSES:
        yield (
            f"The data set has {dataset.num_classes} classes with the background "
            f"({', '.join(dataset.class_names)}), but NUM_CLASSES is {config.NUM_CLASSES}."
        )
    if bare := {info["source"] for info in dataset.image_info} - set(dataset.source_class_ids):
        yield (
            f"The data set has images of the source {min(bare)!r}, of which it knows no class. "
            "Give add_class() the source that add_image() has."
        )


def default_workers() -> int:
    """Number of threads that prepare batches: one for each core, up to 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, cores or 1)


class Batches(keras.utils.PyDataset):
    """Training batches of a data set, the same for the same seed, whatever the threads.

    Every epoch has `steps` batches; images come in the order of seeded permutations that run on
    across epochs, so that all are seen equally often. What batch `i` of epoch `e` holds depends
    on the seed, `e` and `i` alone: an interrupted training continues as if never stopped.

    Args:
        dataset: a prepared `Dataset`.
        config: a `Config`.
        steps: batches per epoch; by default one pass over the images.
        shuffle: whether the order is permuted.
        augment: flips left and right at random (kept for compatibility).
        augmentation: see `mrcnn.augment.augment_instances`; None or False for none.
        no_augmentation_sources: names of sources whose images are not augmented.
        seed: of order, augmentation and anchor sampling.
        epoch: number of the epoch.
        workers: threads that prepare batches.

    Attributes:
        epoch: to be set before an epoch begins (`mrcnn.callbacks.EpochOfBatches`).
        failure: the exception that ended the preparation of a batch, or None.
        preparing: seconds that each of the last batches took a thread.
        share: `mrcnn.distribution.process_share` of the process that made it.

    Raises:
        ValueError: if the data set has no image, no `load_mask` or other classes than
            `NUM_CLASSES`, or the pyramid cannot halve images of `IMAGE_SHAPE`.
        TypeError: if `augmentation` is nothing that `augment_instances` takes.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: Config,
        steps: float | None = None,
        shuffle: bool = True,
        augment: bool = False,
        augmentation: Callable | Literal[False] | None = None,
        no_augmentation_sources: str | Iterable[str] | None = None,
        seed: int = 0,
        epoch: int = 0,
        workers: int = 2,
    ):
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=8)
        if problem := next(problems_of(dataset, config), None):
            raise ValueError(problem)
        if _is_given(augmentation):
            require_augmentation(augmentation)
        if config.IMAGE_RESIZE_MODE == "none":  # the configuration looks at the other modes
            require_halvable(config.IMAGE_SHAPE)
        self.dataset = dataset
        self.config = config
        # Settings may be quotients, as in `STEPS_PER_EPOCH = 131 / 2`.
        self.steps = math.ceil(steps or len(dataset.image_ids) / config.BATCH_SIZE)
        self.shuffle = shuffle
        self.augment = augment
        self.augmentation = augmentation
        given = no_augmentation_sources or ()
        self.no_augmentation_sources = (given,) if isinstance(given, str) else tuple(given)
        self.seed = seed
        self.epoch = epoch
        self.failure: Exception | None = None
        self.preparing: deque[float] = deque(maxlen=1_000_000)
        self.anchors = anchors_of(config, config.IMAGE_SHAPE)
        self.share = process_share()  # of which the threads that prepare batches know nothing

    def __len__(self) -> int:
        return self.steps

    def image_ids(self, index: int) -> list[int]:
        """The images of batch `index` of the current epoch."""
        count, size = len(self.dataset.image_ids), self.config.BATCH_SIZE
        first = (self.epoch * self.steps + index) * size
        ids = []
        for position in range(first, first + size):
            turn, place = divmod(position, count)
            if self.shuffle:
                place = _order(self.seed, turn, count)[place]
            ids.append(self.dataset.image_ids[place])
        return ids

    def references(self, index: int) -> list[str]:
        """Names of the images of batch `index`, for messages."""
        return [str(reference_of(self.dataset, i)) for i in self.image_ids(index)]

    def __getitem__(self, index: int) -> tuple[tuple[np.ndarray, ...]]:
        begun = time.perf_counter()
        with FailureKept(self):
            ids = self.image_ids(index)
            process, count = self.share
            part = len(ids) // count
            samples = [
                self._sample(
                    ids[place], np.random.default_rng((self.seed, self.epoch, index, place))
                )
                for place in range(process * part, (process + 1) * part)
            ]
            batch = (tuple(np.stack(arrays) for arrays in zip(*samples, strict=True)),)
        self.preparing.append(time.perf_counter() - begun)
        return batch

    def _sample(self, image_id, rng):
        """One image's arrays, in the order of the network's inputs."""
        config, dataset = self.config, self.dataset
        source = dataset.image_info[image_id]["source"]
        plain = source in self.no_augmentation_sources
        image, meta, class_ids, boxes, masks = load_image_gt(
            dataset,
            config,
            image_id,
            augment=self.augment and not plain,
            augmentation=None if plain else self.augmentation,
            rng=rng,
        )
        if image.shape[:2] != tuple(config.IMAGE_SHAPE[:2]):
            height, width = config.IMAGE_SHAPE[:2]
            raise SampleError(
                f"Image {image_id} ({reference_of(dataset, image_id)}) is {image.shape[0]}x"
                f"{image.shape[1]} after IMAGE_RESIZE_MODE={config.IMAGE_RESIZE_MODE!r}, and "
                f"training needs all images to be {height}x{width} (IMAGE_MAX_DIM). Train with "
                "'square' or 'crop'; detection takes images of any size."
            )
        semantic = ()
        if config.SEMANTIC_BRANCH:
            semantic = (semantic_targets(masks, class_ids, config.NUM_CLASSES - 1),)
        match, deltas = build_rpn_targets(image.shape, self.anchors, class_ids, boxes, config, rng)
        limit = config.MAX_GT_INSTANCES
        if len(class_ids) > limit:
            chosen = rng.choice(len(class_ids), limit, replace=False)
            class_ids, boxes, masks = class_ids[chosen], boxes[chosen], masks[:, :, chosen]
        spare = limit - len(class_ids)
        shape = image.shape[:2]
        if config.USE_MINI_MASK:
            shape = config.MINI_MASK_SHAPE
            masks = minimize_mask(boxes, masks, shape)
        return (
            mold_image(image.astype(np.float32), config),
            meta.astype(np.float32),
            match[:, None],
            deltas,
            np.pad(class_ids, (0, spare)).astype(np.int32),
            np.pad(boxes.reshape(-1, 4), ((0, spare), (0, 0))).astype(np.float32),
            np.pad(masks.reshape(*shape, -1), ((0, 0), (0, 0), (0, spare))),
            *semantic,
        )


@functools.lru_cache(maxsize=8)  # each is asked for by every batch of a pass
def _order(seed, turn, count):
    """The order of `count` images in one pass over them."""
    return np.random.default_rng((seed, turn)).permutation(count)


class FailureKept(contextlib.AbstractContextManager):
    """Keeps as `failure` of batches what ends the preparation of one, which it leaves to go on.

    TensorFlow hands on no more of it than its text; `FailuresRaised` gives back the rest.
    """

    def __init__(self, batches: keras.utils.PyDataset):
        self.batches = batches

    def __exit__(self, kind, error, traceback):
        if isinstance(error, Exception):
            self.batches.failure = error


class FailuresRaised(contextlib.AbstractContextManager):
    """Raises what ended the preparation of a batch, instead of TensorFlow's account of it.

    What a callback raises meanwhile is not hidden by it.
    """

    def __init__(self, *batches: keras.utils.PyDataset):
        self.batches = batches

    def __exit__(self, kind, error, traceback):
        kept = [part.failure for part in self.batches if part.failure is not None]
        accounts = kind is not None and kind.__module__.partition(".")[0] == "tensorflow"
        if accounts and kept:
            raise kept[0] from kept[0].__cause__
