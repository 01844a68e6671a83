"""matterport's endless generator of batches, with its random regions and their targets.

`MaskRCNN.train` uses `mrcnn.data.Batches`, which this draws from.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from mrcnn.boxes import denorm_boxes, norm_boxes
from mrcnn.config import Config
from mrcnn.data import Batches
from mrcnn.dataset import Dataset
from mrcnn.targets import PixelDetectionTargetLayer


def generate_random_rois(
    image_shape: Sequence[int], count: int, gt_class_ids: ArrayLike, gt_boxes: ArrayLike
) -> np.ndarray:
    """Random boxes int32 [count, 4] in pixels, nine in ten of them about an instance.

    Args:
        image_shape: (height, width, ...).
        count: number of boxes.
        gt_class_ids: accepted for compatibility.
        gt_boxes: int [n, 4]; equally many boxes lie within three times the extent of each.
    """
    size = np.array(image_shape[:2])
    boxes = np.reshape(gt_boxes, (-1, 2, 2)).astype(int)
    extent = boxes[:, 1] - boxes[:, 0]
    near = np.stack([boxes[:, 0] - extent, boxes[:, 1] + extent], axis=1)
    near = np.repeat(np.clip(near, 0, size), int(0.9 * count / max(1, len(boxes))), axis=0)
    whole = np.broadcast_to([np.zeros(2, int), size], (count - len(near), 2, 2))
    low, high = np.concatenate([near, whole]).transpose(1, 0, 2)
    # Two different lines out of the lines between pixels, on each axis.
    first = np.random.randint(low, high + 1)
    second = np.random.randint(low, high)
    second += second >= first
    return np.hstack([np.minimum(first, second), np.maximum(first, second)]).astype(np.int32)


def build_detection_targets(
    rpn_rois: ArrayLike,
    gt_class_ids: ArrayLike,
    gt_boxes: ArrayLike,
    gt_masks: np.ndarray,
    config: Config,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Targets of given regions of one image, by `mrcnn.targets.PixelDetectionTargetLayer`.

    Args:
        rpn_rois: int [n, 4] in pixels.
        gt_class_ids: int [g].
        gt_boxes: int [g, 4] in pixels.
        gt_masks: bool [h, w, g], mini-masks with `USE_MINI_MASK`.
        config: a `Config`.

    Returns:
        rois int32 [t, 4] in pixels, class_ids int32 [t], deltas float32 [t, classes, 4] and masks
        float32 [t, *MASK_SHAPE, classes]; the last two at the index of the region's class.
        Negatives fill up all t = `TRAIN_ROIS_PER_IMAGE` rows, more than once if need be; without
        any the rest is zero.
    """
    config = copy.copy(config)
    config.SAMPLE_NEGATIVES_ALWAYS = True
    size, padding = config.IMAGE_SHAPE[:2], (0, 1)  # a row of padding, where there is no instance
    layer = PixelDetectionTargetLayer(config, size, seed=np.random.randint(2**31))
    outputs = layer(
        norm_boxes(rpn_rois, size)[None],
        np.pad(gt_class_ids, padding)[None],
        np.pad(norm_boxes(np.reshape(gt_boxes, (-1, 4)), size), (padding, (0, 0)))[None],
        np.pad(gt_masks, ((0, 0), (0, 0), padding))[None],
        size,
    )
    rois, class_ids, deltas, masks = (ops.convert_to_numpy(output)[0] for output in outputs)
    there = rois.any(axis=1)
    negatives = np.flatnonzero(there & (class_ids == 0))
    rois, spare = denorm_boxes(rois, size), np.count_nonzero(~there)
    rois[~there] = rois[np.random.choice(negatives, spare)] if len(negatives) else 0
    rows = np.arange(len(rois))
    of_class = np.zeros((len(rois), config.NUM_CLASSES, 4), np.float32)
    of_class[rows, class_ids] = deltas
    # Rows without a mask are negatives, whose masks are zero.
    masks_of_class = np.zeros((len(rois), *masks.shape[1:], config.NUM_CLASSES), np.float32)
    masks_of_class[rows[: len(masks)], :, :, class_ids[: len(masks)]] = masks
    return rois, class_ids, of_class, masks_of_class


def data_generator(
    dataset: Dataset,
    config: Config,
    shuffle: bool = True,
    augment: bool = False,
    augmentation: Callable | Literal[False] | None = None,
    random_rois: int = 0,
    batch_size: int = 1,
    detection_targets: bool = False,
    no_augmentation_sources: str | Iterable[str] | None = None,
) -> Iterator[tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]]:
    """Endless training batches `(inputs, outputs)` of a data set, from `mrcnn.data.Batches`.

    Args:
        dataset, config, shuffle, augment, augmentation, no_augmentation_sources: see there.
        random_rois: number of random regions added to the inputs, int32 [batch, n, 4] in pixels.
        batch_size: images per batch.
        detection_targets: adds the regions' targets (`build_detection_targets`): the sampled
            regions to the inputs; class ids [batch, t, 1], deltas and masks to the outputs.

    Yields:
        Tuples of inputs in the order of the training network, and of outputs, empty without
        `detection_targets`. What is random follows NumPy's global random state.

    Raises:
        mrcnn.data.SampleError: naming the image that cannot be used.
        ValueError: for `detection_targets` without `random_rois`, and as `Batches`.
    """
    if detection_targets and not random_rois:
        raise ValueError("detection_targets needs random_rois, the number of regions per image.")
    sized = copy.copy(config)
    sized.BATCH_SIZE = batch_size
    batches = Batches(
        dataset,
        sized,
        shuffle=shuffle,
        augment=augment,
        augmentation=augmentation,
        no_augmentation_sources=no_augmentation_sources,
        seed=np.random.randint(2**31),
    )
    while True:
        for index in range(len(batches)):
            yield _with_regions(*batches[index], config, random_rois, detection_targets)
        batches.epoch += 1


def _with_regions(inputs, config, count, with_targets):
    """Inputs and outputs of `data_generator` from one batch of `Batches`."""
    inputs = list(inputs)
    inputs[5] = boxes = inputs[5].astype(np.int32)
    if not count:
        return tuple(inputs), ()
    images, class_ids, masks = inputs[0], inputs[4], inputs[6]
    regions, targets_of_images = [], []
    for row, ids in enumerate(class_ids):
        there = ids != 0
        instances = ids[there], boxes[row][there]
        regions.append(generate_random_rois(images[row].shape, count, *instances))
        if with_targets:
            targets_of_images.append(
                build_detection_targets(regions[-1], *instances, masks[row][..., there], config)
            )
    inputs.insert(7, np.stack(regions))  # before what a semantic branch takes
    if not with_targets:
        return tuple(inputs), ()
    rois, ids, deltas, masks = (np.stack(parts) for parts in zip(*targets_of_images, strict=True))
    return (*inputs, rois), (ids[..., None], deltas, masks)
