"""Checks a whole data set before a training meets what is wrong with it, hours later."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from mrcnn.config import Config
from mrcnn.data import SampleError, load_sample, problems_of, reference_of
from mrcnn.dataset import Dataset

_LISTED = 10
_DARK = 20  # of 255: no picture that was taken, or scaled, rightly


@dataclass(frozen=True)
class DatasetCheck:
    """What a data set holds, and what of it cannot be used. Its text says both.

    Attributes:
        images: number of images that were looked at.
        instances: number of instances by the name of their class, crowds and empty masks apart.
        crowds: number of regions that show a crowd.
        without_instances: ids of images that show nothing.
        crowded: ids of images with more instances than `MAX_GT_INSTANCES`, which a training takes
            a part of.
        problems: a sentence for each thing that stops a training, makes it pointless or is left
            out of it; it names the image.
        dark: what messages call the images that are almost black, all values being below 20 of
            255. Their numbers may have been of 12 bits, and taken for 16.
    """

    images: int
    instances: Mapping[str, int]
    crowds: int
    without_instances: Sequence[int]
    crowded: Sequence[int]
    problems: Sequence[str]
    dark: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [f"{self.images} images, {sum(self.instances.values())} instances"]
        lines += [f"  {name}: {count}" for name, count in self.instances.items()]
        for what, count in (
            ("crowds", self.crowds),
            ("images without an instance", len(self.without_instances)),
            ("images with more instances than MAX_GT_INSTANCES", len(self.crowded)),
        ):
            if count:
                lines.append(f"{count} {what}")
        if self.dark:
            lines.append(
                f"{len(self.dark)} images that are almost black: {', '.join(self.dark[:_LISTED])}"
                + (", ..." if len(self.dark) > _LISTED else "")
            )
        lines += [f"! {problem}" for problem in self.problems[:_LISTED]]
        if len(self.problems) > _LISTED:
            lines.append(f"! and {len(self.problems) - _LISTED} more")
        return "\n".join(lines)


def check_dataset(
    dataset: Dataset, config: Config | None = None, limit: int | None = None
) -> DatasetCheck:
    """Loads the images of a data set with their masks, and says what is wrong with them.

    Args:
        dataset: a prepared `Dataset`.
        config: of the network that is to learn from it; without one, images are taken as RGB, and
            numbers of classes and instances are not compared with it.
        limit: number of images, the first; None: all.
    """
    channels = config.IMAGE_CHANNEL_COUNT if config else 3
    problems = list(problems_of(dataset, config))
    if not len(dataset.image_ids):
        return DatasetCheck(0, {}, 0, [], [], problems)
    instances = Counter({name: 0 for name in dataset.class_names[1:]})
    crowds, empty, crowded, dark, images = 0, [], [], [], dataset.image_ids[:limit]
    for image_id in tqdm(images, "Checking", disable=None):
        try:
            image, masks, class_ids = load_sample(dataset, image_id, channels)
        except SampleError as error:
            problems.append(str(error))
            continue
        filled = np.asarray(masks.any(axis=(0, 1)))
        source = dataset.image_info[image_id]["source"]
        own = dataset.source_class_ids.get(source, np.abs(class_ids))
        named = f"Image {image_id} ({reference_of(dataset, image_id)})"
        for number, class_id in enumerate(np.abs(class_ids)):
            name = dataset.class_names[class_id]
            if not filled[number]:
                problems.append(f"{named}: the mask of instance {number} ({name}) is empty.")
            if class_id not in own:
                problems.append(
                    f"{named}: instance {number} is of class {class_id} ({name}), which is none of "
                    f"its source {source!r}. Is it that source's own number? "
                    f'map_source_class_id("{source}.{class_id}") gives the one that is used here.'
                )
        class_ids = class_ids[filled]
        if image.dtype == np.uint8 and image.max() < _DARK:
            dark.append(str(reference_of(dataset, image_id)))
        instances.update(dataset.class_names[class_id] for class_id in class_ids if class_id > 0)
        crowds += int((class_ids < 0).sum())
        if not len(class_ids):
            empty.append(int(image_id))
        if config and len(class_ids) > config.MAX_GT_INSTANCES:
            crowded.append(int(image_id))
    if not sum(instances.values()):
        problems.append("No image shows an instance: a network would learn that there is nothing.")
    return DatasetCheck(len(images), dict(instances), crowds, empty, crowded, problems, dark)
