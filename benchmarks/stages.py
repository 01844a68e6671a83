"""Where the time of a detection goes: each stage's arithmetic, milliseconds and GFLOP/s.

Beside them stands what a single large convolution reaches in the same run, which is what this
machine can do: a stage near it has no waste left to remove.
"""

from collections.abc import Sequence
from typing import Any

from timing import detector, milliseconds, parser, resnet50_forward

# isort: split
import keras
import numpy as np


def gigaflops(model: keras.Model, count: int = 1) -> float:
    """Arithmetic of a model's convolutions and products for `count` inputs, in 1e9 operations."""
    total = 0
    for layer in model._flatten_layers(include_self=False, recursive=True):
        kernel = getattr(layer, "kernel", None)
        if kernel is not None:
            transposed = isinstance(layer, keras.layers.Conv2DTranspose)
            maps = layer.input if transposed else layer.output
            positions = np.prod([side or 1 for side in maps.shape[1:-1]])
            total += 2 * positions * np.prod(kernel.shape)
    return count * total / 1e9


def rpn_gigaflops(rpn: keras.Model, pyramid: Sequence[Any]) -> float:
    """The same for the head that runs on every level; its own shapes are open."""
    kernels = [layer.kernel.shape for layer in rpn.layers if hasattr(layer, "kernel")]
    positions = sum(np.prod(level.shape[1:3]) for level in pyramid)
    return 2 * positions * sum(map(np.prod, kernels)) / 1e9


def convolution_rate(precision: str, repeats: int) -> float:
    """GFLOP/s of a 3x3 convolution of 256 channels on 128x128 pixels."""
    dtype = "bfloat16" if precision == "mixed_bfloat16" else "float32"
    image = keras.ops.cast(keras.random.normal((1, 128, 128, 256)), dtype)
    kernel = keras.ops.cast(keras.random.normal((3, 3, 256, 256)), dtype)

    def run():
        keras.ops.convert_to_numpy(keras.ops.conv(image, kernel, padding="same"))

    return 2 * 128**2 * 9 * 256**2 / 1e6 / milliseconds(run, repeats=repeats)[0]


def main() -> None:
    arguments = parser(__doc__, size=512).parse_args()
    model, image = detector(arguments)
    network = model.keras_model
    molded, metas, _ = model.mold_inputs([image])
    inputs = [molded, np.float32(metas), model.get_anchors(molded.shape[1:])[None]]
    pyramid = [network.get_layer(f"fpn_p{level}").output for level in range(2, 7)]
    last = network.get_layer("fpn_c5p5").input
    boxes, masks = (network.get_layer(f"mrcnn_{name}_branch").head for name in ("box", "mask"))
    found = len(model.detect([image])[0]["scores"])

    backbone = gigaflops(keras.Model(network.inputs[0], last))
    stages = {
        "backbone": (last, backbone),
        "pyramid": (pyramid, gigaflops(keras.Model(network.inputs[0], pyramid)) - backbone),
        "proposal network": (
            [network.get_layer("rpn_class").output, network.get_layer("rpn_bbox").output],
            rpn_gigaflops(network.get_layer("rpn_model"), pyramid),
        ),
        "proposals": (network.get_layer("ROI").output, 0),
        "classes and boxes": (
            network.outputs[0],
            gigaflops(boxes, model.config.POST_NMS_ROIS_INFERENCE),
        ),
        f"masks of {found}": (network.outputs, gigaflops(masks, found)),
    }
    rate = convolution_rate(arguments.precision, arguments.repeats)
    print(f"{arguments.backbone}, {arguments.size}x{arguments.size}, {arguments.precision}")
    parts = [keras.Model(network.inputs, outputs) for outputs, _ in stages.values()]
    *until, whole, yardstick = milliseconds(
        *(lambda part=part: part.predict_on_batch(inputs) for part in parts),
        lambda: model.detect([image]),
        resnet50_forward(arguments.size),
        repeats=arguments.repeats,
    )
    for (name, (_, work)), spent in zip(stages.items(), np.diff([0, *until]), strict=True):
        speed = f"{1000 * work / spent:6.0f} GFLOP/s" if work else ""
        print(f"{name:20} {work:6.1f} GFLOP {spent:7.0f} ms {speed}")
    total = sum(work for _, work in stages.values())
    print(f"{'into the image':20} {'':12} {whole - until[-1]:7.0f} ms")
    print(f"{'all':20} {total:6.1f} GFLOP {whole:7.0f} ms {1000 * total / whole:6.0f} GFLOP/s")
    print(
        f"one convolution reaches {rate:.0f} GFLOP/s: this arithmetic alone takes "
        f"{1000 * total / rate:.0f} ms, {1000 * total / rate / yardstick:.2f} x a ResNet-50 "
        f"forward pass ({yardstick:.0f} ms)"
    )


if __name__ == "__main__":
    main()
