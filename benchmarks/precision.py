"""What bfloat16 changes: the curve of the training loss, and the masks that are found.

Two networks with the same first weights learn the same batches, one in float32 and one with
convolutions in bfloat16. Then the float32 one's weights detect in both precisions.
"""

from timing import parser

# isort: split
import keras
import numpy as np
from train_step import Rectangles

from mrcnn.config import Config
from mrcnn.data import Batches
from mrcnn.masks import compute_overlaps_masks
from mrcnn.model import MaskRCNN


def train(config, dataset, steps):
    """Trains for `steps` steps; returns the `MaskRCNN` and the loss of each step."""
    keras.utils.set_random_seed(0)
    model = MaskRCNN("training", config, "logs")
    model.compile(config.LEARNING_RATE, steps=steps)
    batches = Batches(dataset, config, steps=steps)
    curve = []
    for step in range(steps):
        logs = model.keras_model.train_on_batch(batches[step][0], return_dict=True)
        curve.append(float(logs["loss"]))
        model.keras_model.reset_metrics()
    return model, np.array(curve)


def main():
    arguments = parser(__doc__, size=192)
    arguments.add_argument("--steps", type=int, default=200)
    arguments = arguments.parse_args()

    def settings(precision):
        return Config(
            NAME="benchmark",
            NUM_CLASSES=4,
            BACKBONE=arguments.backbone,
            IMAGES_PER_GPU=1,
            IMAGE_MIN_DIM=arguments.size,
            IMAGE_MAX_DIM=arguments.size,
            LEARNING_RATE=0.002,
            WARMUP_STEPS=20,
            TRAIN_BN=True,  # the backbone begins at random: frozen statistics would mean nothing
            PRECISION=precision,
            DETECTION_MIN_CONFIDENCE=0.3,
        )

    dataset = Rectangles(images=20, size=(arguments.size, arguments.size), classes=3, instances=3)
    precisions = ("float32", "mixed_bfloat16")
    trained, curves = {}, {}
    for precision in precisions:
        trained[precision], curves[precision] = train(settings(precision), dataset, arguments.steps)
    for stop in range(arguments.steps // 5, arguments.steps + 1, arguments.steps // 5):
        part = slice(stop - arguments.steps // 5, stop)
        exact, rough = (curves[precision][part].mean() for precision in precisions)
        print(
            f"steps {part.start + 1:4d} to {stop:4d}: mean loss {exact:.4f} in float32, "
            f"{rough:.4f} in bfloat16 ({100 * (rough / exact - 1):+.1f} %)"
        )
    weights = trained["float32"].keras_model.get_weights()
    trained["mixed_bfloat16"].keras_model.set_weights(weights)
    overlaps, classes, counts = [], [], []
    for image_id in dataset.image_ids:
        image = dataset.load_image(image_id)
        exact, rough = (trained[precision].detect([image])[0] for precision in precisions)
        counts.append((len(exact["scores"]), len(rough["scores"])))
        if not all(counts[-1]):
            continue
        pairs = compute_overlaps_masks(exact["masks"], rough["masks"])
        overlaps.extend(pairs.max(axis=1))
        classes.extend(exact["class_ids"] == rough["class_ids"][pairs.argmax(axis=1)])
    exact, rough = np.sum(counts, axis=0)
    print(
        f"{exact} instances found in float32, {rough} in bfloat16; mask IoU of each with its "
        f"nearest: mean {np.mean(overlaps):.4f}, lowest {np.min(overlaps):.4f}; same class "
        f"{100 * np.mean(classes):.1f} %"
    )


if __name__ == "__main__":
    main()
