"""matterport's way to several GPUs, which is a setting here."""

from typing import Any


class ParallelModel:
    """Stands where matterport's class stood, and says what to write instead.

    Raises:
        RuntimeError: always.
    """

    def __init__(self, keras_model: Any, gpu_count: int):
        raise RuntimeError(
            "Keras 3 cannot split a built model over GPUs, so there is no ParallelModel. Set "
            f"GPU_COUNT = {gpu_count} in your Config instead: MaskRCNN then trains on that many."
        )
