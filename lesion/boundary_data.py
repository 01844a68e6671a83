"""Training data of the boundary task: each image with its lesion, or with none."""

from collections.abc import Iterable

import numpy as np

from lesion.cache import ImageCache
from lesion.samples import DatasetError, Sample
from mrcnn.dataset import Dataset
from mrcnn.images import image_size, read_image, read_mask


class LesionDataset(Dataset):
    """The boundary task: at most one instance of the class `lesion` in each image.

    Args:
        samples: sound samples, as `check_samples` returns them; every one has a mask.
        cache: where decoded and reduced images are kept; without it each call decodes the
            original at full size.
    """

    def __init__(self, samples: Iterable[Sample], cache: ImageCache | None = None):
        super().__init__()
        self.cache = cache
        self.add_class("lesion", 1, "lesion")
        for sample in samples:
            if sample.mask is None:
                raise DatasetError(
                    f"The image {sample.image} has no mask to train on; "
                    "leave it out, as `check_samples` does."
                )
            self.add_image("lesion", image_id=sample.key, path=str(sample.image), sample=sample)

    def load_image(self, image_id: int) -> np.ndarray:
        """The image, uint8 [height, width, 3], as large as the cache keeps it."""
        info = self.image_info[image_id]
        path = info["sample"].image
        image = read_image(path) if self.cache is None else self.cache.image(path)
        info["shape"] = image.shape[:2]
        return image

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """bool masks [height, width, N] of the loaded image's size and int32 class ids [N].

        N is 1, or 0 where the mask is empty.
        """
        info = self.image_info[image_id]
        sample = info["sample"]
        if self.cache is None:
            mask = read_mask(sample.mask)
            size = image_size(sample.image)
            if mask.shape != tuple(size):
                raise DatasetError(
                    f"The mask {sample.mask} is {mask.shape[1]} x {mask.shape[0]} pixels, its "
                    f"image {sample.image} {size[1]} x {size[0]}; leave the sample out."
                )
        else:
            shape = info.get("shape") or self.cache.image(sample.image).shape[:2]
            mask = self.cache.mask(sample.mask, shape)
        instances = 1 if mask.any() else 0
        return mask[:, :, np.newaxis][:, :, :instances], np.ones(instances, np.int32)
