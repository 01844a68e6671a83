"""What bfloat16 changes in the curve of the training loss.

Two networks with the same first weights learn the same batches, one in float32 and one with
convolutions in bfloat16.
"""

from timing import parser

# isort: split
import keras
import numpy as np
from train_step import Rectangles

from mrcnn.config import Config
from mrcnn.data import Batches
from mrcnn.model import MaskRCNN


def train(config: Config, dataset: Rectangles, steps: int) -> np.ndarray:
    """The losses [steps] of a training."""
    keras.utils.set_random_seed(0)
    model = MaskRCNN("training", config, "logs")
    model.compile(config.LEARNING_RATE, steps=steps)
    batches = Batches(dataset, config, steps=steps)
    curve = []
    for step in range(steps):
        logs = model.keras_model.train_on_batch(batches[step][0], return_dict=True)
        curve.append(float(logs["loss"]))
        model.keras_model.reset_metrics()
    return np.array(curve)


def main() -> None:
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
        )

    dataset = Rectangles(images=20, size=(arguments.size, arguments.size), classes=3, instances=3)
    precisions = ("float32", "mixed_bfloat16")
    curves = {name: train(settings(name), dataset, arguments.steps) for name in precisions}
    fifth = max(1, arguments.steps // 5)
    for stop in range(fifth, arguments.steps + 1, fifth):
        part = slice(stop - fifth, stop)
        exact, rough = (curves[precision][part].mean() for precision in precisions)
        print(
            f"steps {part.start + 1:4d} to {stop:4d}: mean loss {exact:.4f} in float32, "
            f"{rough:.4f} in bfloat16 ({100 * (rough / exact - 1):+.1f} %)"
        )


if __name__ == "__main__":
    main()
