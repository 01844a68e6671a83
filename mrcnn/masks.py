"""Instance masks: their boxes, their small stored form, and how they go back into an image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import DTypeLike

from mrcnn.molding import resize_bilinear, scaled_size

# Pixels counted at a time: float32 multiplies quickly, and is exact up to 2**24.
_COUNTED = 2**16


def extract_bboxes(mask: np.ndarray) -> np.ndarray:
    """Tightest boxes around instance masks.

    Args:
        mask: [height, width, instances], bool or non-zero inside.

    Returns:
        int32 [instances, (y1, x1, y2, x2)], half-open; zeros for an instance without pixels.
    """
    mask = np.asarray(mask, bool)
    if not mask.size:
        return np.zeros((mask.shape[-1], 4), np.int32)
    y1, y2 = _extent(np.any(mask, axis=1))
    x1, x2 = _extent(np.any(mask, axis=0))
    return np.stack([y1, x1, y2, x2], axis=1).astype(np.int32)


def mask_extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tightest box (y1, x1, y2, x2) around one mask [height, width]; as `extract_bboxes`."""
    y1, x1, y2, x2 = extract_bboxes(mask[:, :, np.newaxis])[0].tolist()
    return y1, x1, y2, x2


def minimize_mask(bbox: np.ndarray, mask: np.ndarray, mini_shape: Sequence[int]) -> np.ndarray:
    """Masks cropped to their boxes and resized, to save memory; fine detail is lost.

    Args:
        bbox: int [instances, (y1, x1, y2, x2)] within the image.
        mask: bool [height, width, instances].
        mini_shape: (height, width) of the result.

    Returns:
        bool [*mini_shape, instances]; empty for a box without area.
    """
    height, width = mini_shape
    mini_mask = np.zeros((height, width, mask.shape[-1]), bool)
    for i, (y1, x1, y2, x2) in enumerate(np.asarray(bbox)[:, :4]):
        inside = mask[y1:y2, x1:x2, i]
        if inside.size:
            mini_mask[:, :, i] = resize_bilinear(inside.astype(bool), (height, width)) > 0.5
    return mini_mask


def expand_mask(
    bbox: np.ndarray, mini_mask: np.ndarray, image_shape: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Inverse of `minimize_mask`, up to the detail it lost.

    Args:
        bbox: int [instances, (y1, x1, y2, x2)].
        mini_mask: bool [height, width, instances], or probabilities, of which those above one half
            are inside.
        image_shape: (height, width, ...) of the image.

    Returns:
        bool [image height, image width, instances].
    """
    mask = np.zeros((*image_shape[:2], mini_mask.shape[-1]), bool)
    for i, box in enumerate(np.asarray(bbox)[:, :4]):
        mini = mini_mask[:, :, i]
        mini = mini if mini.dtype.kind == "f" else mini.astype(bool)
        (rows, columns), values = _inside_box(mini, box, image_shape)
        mask[rows, columns, i] = values > 0.5
    return mask


@dataclass(frozen=True, eq=False)
class CompactMasks:
    """Masks of one image that keep the part around each instance alone; outside is nothing.

    NumPy takes them as `full()`, the functions of `visualize` one by one where that is enough.

    Attributes:
        parts: a mask [height, width] for each instance, bool or float32 probabilities.
        boxes: int32 [instances, (y1, x1, y2, x2)], half-open: where the parts lie in the image.
        image_shape: (height, width) of the image.
        dtype: of the parts.
    """

    parts: list[np.ndarray]
    boxes: np.ndarray
    image_shape: tuple[int, int]
    dtype: DTypeLike = bool

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of `full()`: (height, width, instances)."""
        return (*self.image_shape, len(self))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.full(), dtype)

    def one(self, index: int) -> np.ndarray:
        """A single one in the whole image: [height, width]."""
        mask = np.zeros(self.image_shape, self.dtype)
        y1, x1, y2, x2 = self.boxes[index]
        mask[y1:y2, x1:x2] = self.parts[index]
        return mask

    def full(self) -> np.ndarray:
        """All of them in the whole image: [height, width, instances]."""
        # One instance after the other in memory: writing, and looking at one, is much quicker.
        masks = np.zeros((len(self.parts), *self.image_shape), self.dtype)
        for mask, part, (y1, x1, y2, x2) in zip(masks, self.parts, self.boxes, strict=True):
            mask[y1:y2, x1:x2] = part
        return np.moveaxis(masks, 0, -1)


def one_mask(masks: np.ndarray | CompactMasks, index: int) -> np.ndarray:
    """One [height, width] of masks [height, width, instances]."""
    return masks.one(index) if isinstance(masks, CompactMasks) else np.asarray(masks[:, :, index])


def some_masks(
    masks: np.ndarray | CompactMasks, indices: Sequence[int] | np.ndarray
) -> np.ndarray | CompactMasks:
    """Those of int indices [n], in their order; compact ones stay so."""
    if isinstance(masks, CompactMasks):
        parts = [masks.parts[index] for index in indices]
        return replace(masks, parts=parts, boxes=masks.boxes[indices])
    return np.asarray(masks)[..., indices]


def compact_masks(
    masks: Sequence[np.ndarray],
    boxes: Iterable[Sequence[float] | np.ndarray],
    image_shape: Sequence[int] | np.ndarray,
    threshold: float | None = 0.5,
    exact: bool = False,
) -> CompactMasks:
    """Predicted masks resized into their boxes.

    Args:
        masks: float [height, width] each, probabilities.
        boxes: (y1, x1, y2, x2) each; what of them lies outside the image is cut off.
        image_shape: (height, width, ...) of the image.
        threshold: pixels of at least this probability belong to the instance; None keeps the
            probabilities.
        exact: a box's edges may lie between pixels, as of `place_mask`; else as of `paste_mask`.
    """
    height, width = (int(side) for side in image_shape[:2])
    resize = _around_centres if exact else _inside_box
    kind = np.float32 if threshold is None else bool
    parts, places = [], np.zeros((len(masks), 4), np.int32)
    for place, mask, box in zip(places, masks, boxes, strict=True):
        (rows, columns), values = resize(mask, box, (height, width))
        place[:] = rows.start, columns.start, rows.stop, columns.stop
        parts.append(values.astype(kind) if threshold is None else values >= threshold)
    return CompactMasks(parts, places, (height, width), kind)


def paste_mask(
    mask: np.ndarray,
    box: Sequence[int] | np.ndarray,
    image_shape: Sequence[int] | np.ndarray,
    threshold: float | None = 0.5,
) -> np.ndarray:
    """A predicted mask, resized into its box in an image of which only the box is touched.

    Args:
        mask: float [height, width], probabilities.
        box: (y1, x1, y2, x2) in whole pixels; what of it lies outside the image is cut off.
        image_shape: (height, width, ...) of the image.
        threshold: as for `compact_masks`.

    Returns:
        bool [image height, image width], or float32 without a threshold; empty for a box without
        area.
    """
    return compact_masks([mask], [box], image_shape, threshold).full()[:, :, 0]


def place_mask(
    mask: np.ndarray,
    box: Sequence[float] | np.ndarray,
    image_shape: Sequence[int] | np.ndarray,
    threshold: float | None = 0.5,
) -> np.ndarray:
    """A predicted mask in a box whose edges lie between pixels; else as `paste_mask`.

    A pixel takes the bilinear value of the mask at its centre. Unlike there, values do not fade
    at the mask's border.
    """
    return compact_masks([mask], [box], image_shape, threshold, exact=True).full()[:, :, 0]


def _around_centres(
    mask: np.ndarray,
    box: Sequence[float] | np.ndarray,
    image_shape: Sequence[int] | np.ndarray,
) -> tuple[tuple[slice, slice], np.ndarray]:
    """The pixels of the image whose centres lie in a box, and the mask's values there."""
    y1, x1, y2, x2 = (float(side) for side in box)
    if y2 <= y1 or x2 <= x1:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32)
    rows, row_samples = _centres(y1, y2, image_shape[0], mask.shape[0])
    columns, column_samples = _centres(x1, x2, image_shape[1], mask.shape[1])
    return (rows, columns), sample_axis(sample_axis(mask, row_samples).T, column_samples).T


def _centres(start: float, stop: float, size: int, cells: int) -> tuple[slice, np.ndarray]:
    """The pixels whose centres lie in an interval, and these centres in a mask's cells."""
    first = min(max(int(np.ceil(start - 0.5)), 0), size)
    last = max(min(int(np.ceil(stop - 0.5)), size), first)
    centres = (np.arange(first, last) + 0.5 - start) * (cells / (stop - start)) - 0.5
    return slice(first, last), np.clip(centres, 0, cells - 1)


def sample_axis(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rows [n, m] of `values` [cells, m] at fractional positions [n]."""
    before = np.floor(positions).astype(np.intp)
    after = np.minimum(before + 1, len(values) - 1)
    fraction = (positions - before)[:, np.newaxis]
    return values[before] * (1 - fraction) + values[after] * fraction


def unmold_mask(
    mask: np.ndarray, bbox: Sequence[int] | np.ndarray, image_shape: Sequence[int] | np.ndarray
) -> np.ndarray:
    """A predicted mask as a mask of the whole image: `paste_mask` under matterport's name."""
    return paste_mask(mask, bbox, image_shape)


def resize_mask(
    mask: np.ndarray,
    scale: float,
    padding: Sequence[tuple[int, int]],
    crop: tuple[int, int, int, int] | None = None,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Masks resized, padded and cropped as `resize_image` has done with their image.

    Each pixel takes the value of the source pixel its centre falls into, which is the grid that
    the image is resized on.

    Args:
        mask: [height, width, instances].
        scale: the factor, as `resize_image` returned it.
        padding: [(top, bottom), (left, right), (0, 0)], as returned.
        crop: (y, x, height, width) in the resized mask, or None, as returned.
        size: (height, width) before padding; needed where the axes were resized by different
            factors (mode "stretch"), else it follows from the scale.

    Returns:
        [height, width, instances] of the same type, of the size of the resized image.
    """
    height, width = mask.shape[:2]
    new_height, new_width = scaled_size((height, width), scale) if size is None else size
    if (new_height, new_width) != (height, width):
        rows = (2 * np.arange(new_height) + 1) * height // (2 * new_height)
        columns = (2 * np.arange(new_width) + 1) * width // (2 * new_width)
        mask = mask[rows[:, np.newaxis], columns]
    if crop is not None:
        y, x, crop_height, crop_width = crop
        return mask[y : y + crop_height, x : x + crop_width]
    return np.pad(mask, padding)


def compute_overlaps_masks(
    masks1: np.ndarray | CompactMasks, masks2: np.ndarray | CompactMasks
) -> np.ndarray:
    """Intersection over union of every mask of one set with every mask of another.

    Args:
        masks1, masks2: [height, width, n1] and [height, width, n2]; above 0.5 is inside. Compact
            ones in the first place are never held at full size.

    Returns:
        float32 [n1, n2]; zero where both masks are empty.
    """
    n1, n2 = masks1.shape[-1], masks2.shape[-1]
    if n1 == 0 or n2 == 0:
        return np.zeros((n1, n2), np.float32)
    if masks1.shape[:2] != masks2.shape[:2]:
        raise ValueError(
            "Masks can be compared only on the same image size; received shapes "
            f"{masks1.shape} and {masks2.shape}."
        )
    inside2 = np.asarray(masks2) > 0.5
    if isinstance(masks1, CompactMasks):
        intersections, areas1 = _compact_counts(masks1, inside2)
    else:
        intersections, areas1 = _counts(masks1, inside2)
    unions = areas1[:, np.newaxis] + np.count_nonzero(inside2, axis=(0, 1)) - intersections
    return (intersections / np.maximum(unions, 1)).astype(np.float32)


def _counts(masks1: np.ndarray, inside2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that each mask of one set shares with each of another, and those of the first."""
    flat1 = masks1.reshape(-1, masks1.shape[-1]) > 0.5
    flat2 = inside2.reshape(-1, inside2.shape[-1])
    shared = np.zeros((flat1.shape[1], flat2.shape[1]))
    for start in range(0, len(flat1), _COUNTED):
        part = slice(start, start + _COUNTED)
        shared += flat1[part].T.astype(np.float32) @ flat2[part].astype(np.float32)
    return shared, np.count_nonzero(flat1, axis=0)


def _compact_counts(masks1: CompactMasks, inside2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `_counts`, looking at the part around each instance alone."""
    shared, areas = np.zeros((len(masks1), inside2.shape[-1])), np.zeros(len(masks1))
    for place, (part, (y1, x1, y2, x2)) in enumerate(zip(masks1.parts, masks1.boxes, strict=True)):
        inside1 = part > 0.5
        areas[place] = np.count_nonzero(inside1)
        for other in range(inside2.shape[-1]):
            both = inside1 & inside2[y1:y2, x1:x2, other]
            shared[place, other] = np.count_nonzero(both)
    return shared, areas


def label_map(masks: np.ndarray | CompactMasks) -> np.ndarray:
    """Masks that may overlap as one map, in which every pixel is of one instance.

    Args:
        masks: bool or probabilities [height, width, instances] or `CompactMasks`, the best first,
            as `MaskRCNN.detect` gives them; what is 0.5 or more is inside.

    Returns:
        int32 [height, width]: the number of the first instance that covers a pixel, counted from 1;
        0 where none does.
    """
    if isinstance(masks, CompactMasks):
        labels = np.zeros(masks.image_shape, np.int32)
        for index in reversed(range(len(masks))):
            y1, x1, y2, x2 = masks.boxes[index]
            labels[y1:y2, x1:x2][masks.parts[index] >= 0.5] = index + 1
        return labels
    masks = np.asarray(masks) >= 0.5
    if not masks.shape[2]:
        return np.zeros(masks.shape[:2], np.int32)
    return np.where(masks.any(axis=2), masks.argmax(axis=2) + 1, 0).astype(np.int32)


def _extent(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last true row of each column [length, n]; 0, 0 where there is none."""
    present = inside.any(axis=0)
    return inside.argmax(axis=0) * present, (len(inside) - inside[::-1].argmax(axis=0)) * present


def _inside_box(
    mask: np.ndarray,
    box: Sequence[float] | np.ndarray,
    image_shape: Sequence[int] | np.ndarray,
) -> tuple[tuple[slice, slice], np.ndarray]:
    """The pixels that box and image share, and the mask resized to the box there."""
    y1, x1, y2, x2 = (int(side) for side in box)
    height, width = (int(side) for side in image_shape[:2])
    top, left = min(max(y1, 0), height), min(max(x1, 0), width)
    bottom, right = max(min(y2, height), top), max(min(x2, width), left)
    window = slice(top, bottom), slice(left, right)
    if top == bottom or left == right:
        return window, np.zeros((bottom - top, right - left), np.float32)
    part = (top - y1, left - x1, bottom - y1, right - x1)
    return window, resize_bilinear(mask, (y2 - y1, x2 - x1), part)
