"""Milliseconds of one training step of one image, and the ratio to a bare ResNet-50 forward."""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from timing import configuration, milliseconds, parser, report, resnet50_forward

from mrcnn.data import Batches
from mrcnn.dataset import Dataset
from mrcnn.model import MaskRCNN
from mrcnn.training import keep_freed_memory


class Rectangles(Dataset):
    """Noise with rectangles of another brightness, which is their class."""

    def __init__(self, images: int, size: tuple[int, int], classes: int, instances: int):
        super().__init__()
        self.size, self.classes, self.instances = size, classes, instances
        for class_id in range(1, classes + 1):
            self.add_class("benchmark", class_id, str(class_id))
        for number in range(images):
            self.add_image("benchmark", number, path="noise")
        self.prepare()

    def load_image(self, image_id: int) -> np.ndarray:
        masks, class_ids = self.load_mask(image_id)
        rng = np.random.default_rng(image_id)
        image = rng.integers(0, 64, (*self.size, 3), dtype=np.uint8)
        for index, class_id in enumerate(class_ids):
            image[masks[:, :, index]] += np.uint8(64 + 120 * class_id // self.classes)
        return image

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.size
        rng = np.random.default_rng(image_id)
        masks = np.zeros((height, width, self.instances), bool)
        taken = np.zeros(self.size, bool)
        for index in range(self.instances):
            y, x = rng.integers(0, height // 2), rng.integers(0, width // 2)
            masks[y : y + height // 4, x : x + width // 3, index] = True
            masks[taken, index] = False
            taken |= masks[:, :, index]
        there = masks.any(axis=(0, 1))
        return masks[:, :, there], rng.integers(1, self.classes + 1, there.sum(), dtype=np.int32)


def training_step(arguments: argparse.Namespace) -> Callable[[], Any]:
    """A function that takes one training step with one image."""
    size = arguments.size
    config = configuration(arguments)
    dataset = Rectangles(images=1, size=(size, size), classes=80, instances=10)
    batch = Batches(dataset, config)[0][0]
    model = MaskRCNN("training", config, "logs")
    model.compile(config.LEARNING_RATE, steps=1000)
    keep_freed_memory()  # as `MaskRCNN.train` does
    return lambda: model.keras_model.train_on_batch(batch)


def main() -> None:
    arguments = parser(__doc__, size=512).parse_args()
    own, yardstick = milliseconds(
        training_step(arguments), resnet50_forward(arguments.size), repeats=arguments.repeats
    )
    size = arguments.size
    report(
        f"training step, {arguments.backbone}, {size}x{size}, {arguments.precision}",
        own,
        yardstick,
    )


if __name__ == "__main__":
    main()
