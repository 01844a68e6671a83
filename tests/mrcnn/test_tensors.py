import numpy as np
import pytest
from keras import ops

from mrcnn.tensors import own_class


@pytest.mark.parametrize("axis", [2, -1])
@pytest.mark.parametrize("rest", [(), (4,), (4, 6)])
def test_own_class_is_the_one_of_the_row(axis, rest):
    rng = np.random.default_rng(0)
    values, class_ids = rng.normal(size=(2, 3, 5, *rest)), rng.integers(5, size=(2, 3))
    expected = [[values[i, j, class_ids[i, j]] for j in range(3)] for i in range(2)]
    values = np.moveaxis(values, 2, axis).astype(np.float32)
    found = own_class(ops.convert_to_tensor(values), ops.convert_to_tensor(class_ids), axis)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-6)


def test_other_classes_may_hold_anything(value_and_gradients):
    values = np.float32([[1, np.inf], [np.nan, 3], [4, 5]])
    class_ids = np.int32([0, 1, -1])
    value, (gradient,) = value_and_gradients(
        lambda tensor: ops.sum(own_class(tensor, ops.convert_to_tensor(class_ids))), values
    )
    assert value == 4
    np.testing.assert_array_equal(gradient, [[1, 0], [0, 1], [0, 0]])
