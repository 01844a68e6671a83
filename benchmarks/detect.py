"""Milliseconds to detect in one image, and the ratio to a bare ResNet-50 forward pass.

The weights are random and every detection is kept, so that the mask head has as much to do as it
can have (the number of detections is printed).
"""

import resource

import numpy as np
from timing import milliseconds, parser, report, resnet50_forward

from mrcnn.config import Config
from mrcnn.model import MaskRCNN


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
        DETECTION_MIN_CONFIDENCE=0.0,
    )
    model = MaskRCNN("inference", config, "logs")
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    found = len(model.detect([image])[0]["scores"])
    own = milliseconds(lambda: model.detect([image]), arguments.repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    yardstick = resnet50_forward(size, arguments.repeats)
    name = f"detect, {arguments.backbone}, {size}x{size}, {arguments.precision}, {found} instances"
    report(name, own, yardstick)
    print(f"peak memory of detection {peak:.1f} GiB, TensorFlow included")


if __name__ == "__main__":
    main()
