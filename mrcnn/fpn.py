"""The feature pyramid (Lin et al. 2017, section 3), with matterport's layer names."""

from collections.abc import Sequence

import keras

from mrcnn.tensors import Tensor


def feature_pyramid(stages: Sequence[Tensor | None], channels: int) -> list[Tensor]:
    """Pyramid levels [P2, P3, P4, P5, P6] of strides 4 to 64 from backbone stages [C1, ..., C5].

    Args:
        stages: tensors [batch, height / s, width / s, c] of strides 2 (or 4), 4, 8, 16 and 32.
        channels: of every level.
    """
    _, *stages = stages
    merged = keras.layers.Conv2D(channels, 1, name="fpn_c5p5")(stages[3])
    levels = {5: merged}
    for level in (4, 3, 2):
        upsampled = keras.layers.UpSampling2D(2, name=f"fpn_p{level + 1}upsampled")(merged)
        lateral = keras.layers.Conv2D(channels, 1, name=f"fpn_c{level}p{level}")(stages[level - 2])
        merged = keras.layers.Add(name=f"fpn_p{level}add")([upsampled, lateral])
        levels[level] = merged
    pyramid = [
        keras.layers.Conv2D(channels, 3, padding="same", name=f"fpn_p{level}")(levels[level])
        for level in (2, 3, 4, 5)
    ]
    # The coarsest level serves large anchors only; it subsamples P5.
    p6 = keras.layers.MaxPooling2D(1, strides=2, name="fpn_p6")(pyramid[-1])
    return [*pyramid, p6]
