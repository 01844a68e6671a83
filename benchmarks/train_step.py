"""Milliseconds of one training step of one image, and the ratio to a bare ResNet-50 forward."""

import numpy as np
from timing import milliseconds, parser, report, resnet50_forward

from mrcnn.config import Config
from mrcnn.data import Batches, Dataset
from mrcnn.model import MaskRCNN


class Rectangles(Dataset):
    """Noise with ten rectangular instances."""

    def load_image(self, image_id):
        rng = np.random.default_rng(image_id)
        return rng.integers(0, 256, (*self.image_info[image_id]["size"], 3), dtype=np.uint8)

    def load_mask(self, image_id):
        height, width = self.image_info[image_id]["size"]
        rng = np.random.default_rng(image_id)
        masks = np.zeros((height, width, 10), bool)
        for index in range(10):
            y, x = rng.integers(0, height // 2), rng.integers(0, width // 2)
            masks[y : y + height // 4, x : x + width // 3, index] = True
        return masks, np.ones(10, np.int32)


def main():
    arguments = parser(__doc__, size=512).parse_args()
    size = arguments.size
    config = Config(
        NAME="benchmark",
        NUM_CLASSES=81,
        BACKBONE=arguments.backbone,
        IMAGES_PER_GPU=1,
        IMAGE_MIN_DIM=size,
        IMAGE_MAX_DIM=size,
        PRECISION=arguments.precision,
    )
    dataset = Rectangles()
    for class_id in range(1, 81):
        dataset.add_class("benchmark", class_id, str(class_id))
    dataset.add_image("benchmark", 0, path="noise", size=(size, size))
    dataset.prepare()
    batch = Batches(dataset, config)[0][0]
    model = MaskRCNN("training", config, "logs")
    model.compile(config.LEARNING_RATE, steps=1000)
    own = milliseconds(lambda: model.keras_model.train_on_batch(batch), arguments.repeats)
    yardstick = resnet50_forward(size, arguments.repeats)
    report(
        f"training step, {arguments.backbone}, {size}x{size}, {arguments.precision}",
        own,
        yardstick,
    )


if __name__ == "__main__":
    main()
