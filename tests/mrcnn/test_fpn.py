"""The pyramid against its definition."""

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.fpn import feature_pyramid


@pytest.fixture(scope="module")
def pyramid():
    """Model from stages of 64 x 96 pixels to the pyramid, and the stages' values."""
    keras.utils.set_random_seed(0)
    stages = [keras.Input((64 // s, 96 // s, c)) for s, c in ((4, 2), (8, 3), (16, 4), (32, 5))]
    model = keras.Model(stages, feature_pyramid([None, *stages], 6))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.standard_normal(weight.shape))
    values = [rng.standard_normal((2, *s.shape[1:])).astype(np.float32) for s in stages]
    return model, values, [ops.convert_to_numpy(level) for level in model(values)]


def test_strides_and_channels(pyramid):
    _, _, levels = pyramid
    assert [level.shape for level in levels] == [
        (2, 16, 24, 6),
        (2, 8, 12, 6),
        (2, 4, 6, 6),
        (2, 2, 3, 6),
        (2, 1, 2, 6),
    ]


def test_each_level_adds_the_coarser_one_enlarged(pyramid):
    model, values, levels = pyramid
    merged = None
    for level in (5, 4, 3, 2):
        name = "fpn_c5p5" if level == 5 else f"fpn_c{level}p{level}"
        lateral = ops.convert_to_numpy(model.get_layer(name)(values[level - 2]))
        if merged is not None:
            lateral = lateral + merged.repeat(2, axis=1).repeat(2, axis=2)
        merged = lateral
        expected = ops.convert_to_numpy(model.get_layer(f"fpn_p{level}")(merged))
        np.testing.assert_allclose(levels[level - 2], expected, rtol=1e-4, atol=1e-4)


def test_the_coarsest_level_skips_every_other_feature(pyramid):
    _, _, levels = pyramid
    np.testing.assert_array_equal(levels[4], levels[3][:, ::2, ::2])


def test_layers_have_matterports_names(pyramid):
    model, *_ = pyramid
    names = {layer.name for layer in model.layers if layer.weights}
    assert names == {
        *("fpn_c5p5", "fpn_c4p4", "fpn_c3p3", "fpn_c2p2"),
        *("fpn_p2", "fpn_p3", "fpn_p4", "fpn_p5"),
    }
