"""ROIAlign's gradient on a processor beside that of TensorFlow's kernel: time, and summands lost.

TensorFlow's `crop_and_resize` adds up its gradient in threads without a lock. A call counts as
wrong where a pixel's gradient differs from a sum in one thread by more than 1e-4 of the largest.
"""

import argparse
import time

import timing  # noqa: F401  (puts the repository on the path)

# isort: split
import numpy as np
import tensorflow as tf

from mrcnn.roi_align import crop_levels, crop_levels_ops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, default=200)
    parser.add_argument("--side", type=int, default=64, help="of the feature map")
    parser.add_argument("--pool", type=int, default=14)
    parser.add_argument("--calls", type=int, default=50)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    count, side, size = arguments.boxes, arguments.side, (arguments.pool, arguments.pool)
    features = tf.constant(rng.normal(size=(1, side, side, 256)), tf.float32)
    centre = rng.uniform(0, 1, (count, 2))
    extent = rng.uniform(0.05, 0.3, (count, 2))
    boxes = tf.constant(np.hstack([centre - extent / 2, centre + extent / 2]), tf.float32)
    indices, level = tf.zeros(count, tf.int32), tf.zeros(count, tf.int32)
    upstream = tf.constant(rng.normal(size=(count, *size, 256)), tf.float32)

    def gradient(crop):
        @tf.function
        def of():
            with tf.GradientTape() as tape:
                tape.watch(features)
                crops = crop()
            return tf.convert_to_tensor(tape.gradient(crops, features, upstream))

        return lambda: of().numpy()

    expected = gradient(lambda: crop_levels_ops([features], [boxes], level, indices, size))()
    functions = {
        "tf.image.crop_and_resize": lambda: tf.image.crop_and_resize(
            features, boxes, indices, size
        ),
        "mrcnn.roi_align": lambda: crop_levels([features], [boxes], level, indices, size),
    }
    for name, crop in functions.items():
        function = gradient(crop)
        function()
        start, errors = time.process_time(), []
        for _ in range(arguments.calls):
            errors.append(np.abs(function() - expected).max() / np.abs(expected).max())
        spent = 1000 * (time.process_time() - start) / arguments.calls
        wrong = sum(error > 1e-4 for error in errors)
        print(
            f"{name}: crops and gradient {spent:.0f} ms of processor time, {wrong} of "
            f"{len(errors)} calls wrong, by up to {max(errors):.3f} of the largest gradient"
        )


if __name__ == "__main__":
    main()
