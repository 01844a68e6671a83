"""Milliseconds to detect in one image, and the ratio to a bare ResNet-50 forward pass.

The weights are random and every detection is kept, up to `--instances`: 100 is as much as the mask
head can have to do; pictures of COCO show seven things on average.
"""

import resource

from timing import detector, milliseconds, parser, report, resnet50_forward


def main() -> None:
    arguments = parser(__doc__, size=512).parse_args()
    size = arguments.size
    model, image = detector(arguments)
    found = len(model.detect([image])[0]["scores"])
    model.detect([image])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    own, yardstick = milliseconds(
        lambda: model.detect([image]), resnet50_forward(size), repeats=arguments.repeats
    )
    name = f"detect, {arguments.backbone}, {size}x{size}, {arguments.precision}, {found} instances"
    report(name, own, yardstick)
    print(f"peak memory of detection {peak:.1f} GiB, TensorFlow included")


if __name__ == "__main__":
    main()
