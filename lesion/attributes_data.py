"""Training data of the attributes task: instances are the connected parts of a mask."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import ndimage

from lesion.cache import ImageCache
from lesion.samples import ATTRIBUTES, DatasetError, Sample
from lesion.squares import squares
from mrcnn.dataset import Dataset
from mrcnn.images import read_image, read_mask

NAME = "attributes"
# Of an image's longer side: parts no further apart are one instance.
_GAP = 0.015
# Of an image's area: smaller parts are no instance, unless the mask has no larger one.
_SPECK = 0.0004


def find_instances(mask: np.ndarray) -> np.ndarray:
    """The parts of an attribute's mask that count as things.

    Annotators chose superpixels, so that what is one structure often falls into parts. Parts whose
    gap, along rows and columns, is at most 1.5 % of the image's longer side are merged; of what
    remains, parts below 0.04 % of the image's area are dropped, but for the largest if all are.

    Args:
        mask: bool [height, width].

    Returns:
        bool [height, width, n], the largest first; n is 0 for a blank mask.
    """
    if not mask.any():
        return np.zeros((*mask.shape, 0), bool)
    grown = mask.astype(np.uint8)
    for axis in (0, 1):  # by so much that parts touch whose gap is no wider
        grown = ndimage.maximum_filter1d(grown, int(_GAP * max(mask.shape)) + 1, axis)
    regions, _ = ndimage.label(grown, np.ones((3, 3)))
    regions[~mask] = 0
    areas = np.bincount(regions.ravel())
    areas[0] = 0
    order = np.argsort(-areas, kind="stable")
    kept = [label for label in order if areas[label] >= _SPECK * mask.size] or [order[0]]
    return np.stack([regions == label for label in kept], axis=-1)


def repeats(samples: Sequence, present: Sequence[set[str]], threshold: float) -> np.ndarray:
    """How often each image is to be seen in a pass, so that rare attributes are learned.

    Gupta et al. 2019 (LVIS, section 5.2): an attribute in a share f of the images asks for
    sqrt(threshold / f), an image takes the most that one of its attributes asks for, at least 1.
    The fraction of a repeat is made up for by every so many images.

    Args:
        samples: the images.
        present: the attributes that each shows.
        threshold: share below which an attribute is rare; 0 repeats nothing.

    Returns:
        int [samples], 1 or more.
    """
    count = Counter(name for names in present for name in names)
    factor = {n: max(1.0, np.sqrt(threshold * len(samples) / count[n])) for n in count}
    wanted = np.array([max((factor[name] for name in names), default=1.0) for names in present])
    steps = np.floor(np.cumsum(wanted - np.floor(wanted)) + 1e-9)
    return (np.floor(wanted) + np.diff(steps, prepend=0.0)).astype(int)


class AttributesDataset(Dataset):
    """Images with the instances of their attributes; of long images their `squares`.

    Args:
        samples: sound samples with all five masks, as `check_samples` returns them.
        cache: of decoded and reduced images.
        threshold: see `repeats`.
        with_boundary: adds a sixth class, the lesion itself, from its mask.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        cache: ImageCache | None = None,
        threshold: float = 0.0,
        with_boundary: bool = False,
    ):
        super().__init__()
        self.cache = cache
        self.with_boundary = with_boundary
        for class_id, name in enumerate(ATTRIBUTES + ("lesion",) * with_boundary, start=1):
            self.add_class(NAME, class_id, name)
        samples = list(samples)
        for sample in samples:
            missing = [name for name in ATTRIBUTES if name not in sample.attributes]
            if missing or (with_boundary and sample.mask is None):
                raise DatasetError(
                    f"The image {sample.image} has no mask of {', '.join(missing) or 'the lesion'} "
                    "to train on; leave it out."
                )
        shapes = [self._whole_image(sample).shape[:2] for sample in samples]
        shown = [
            (sample, shape, part)
            for sample, shape in zip(samples, shapes, strict=True)
            for part in squares(shape)
        ]
        times = np.ones(len(shown), int)
        if threshold:
            present = [
                {n for n in ATTRIBUTES if self._mask(s.attributes[n], shape)[part].any()}
                for s, shape, part in shown
            ]
            times = repeats(shown, present, threshold)
        seen: Counter[str] = Counter()
        for (sample, shape, part), number in zip(shown, times, strict=True):
            kept = {"path": str(sample.image), "sample": sample, "shape": shape, "part": part}
            for _ in range(number):
                key = f"{sample.key}#{seen[sample.key]}" if seen[sample.key] else sample.key
                seen[sample.key] += 1
                self.add_image(NAME, image_id=key, **kept)

    def load_image(self, image_id: int) -> np.ndarray:
        """The image or a square of it, uint8 [height, width, 3], as large as the cache keeps it."""
        info = self.image_info[image_id]
        return self._whole_image(info["sample"])[info["part"]]

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """bool masks [height, width, n] of the loaded image's size and int32 class ids [n]."""
        info = self.image_info[image_id]
        sample, shape, part = (info[name] for name in ("sample", "shape", "part"))
        paths = [sample.attributes[name] for name in ATTRIBUTES]
        things = [find_instances(self._mask(path, shape)[part]) for path in paths]
        if self.with_boundary:
            lesion = self._mask(sample.mask, shape)[part]
            things.append(lesion[:, :, np.newaxis][..., : int(lesion.any())])
        class_ids = [np.full(each.shape[2], number) for number, each in enumerate(things, start=1)]
        return np.concatenate(things, axis=2), np.concatenate(class_ids).astype(np.int32)

    def _whole_image(self, sample):
        return read_image(sample.image) if self.cache is None else self.cache.image(sample.image)

    def _mask(self, path, shape):
        return read_mask(path) if self.cache is None else self.cache.mask(path, shape)
