"""All forms of the suppression against the greedy one in NumPy."""

from functools import partial

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from mrcnn import nms
from mrcnn.boxes import non_max_suppression
from mrcnn.nms import suppress, suppress_ops
from mrcnn.tensors import for_converters

COUNT, LIMIT = 10, 6


def suppress_for_converters(*arguments, **settings):
    with for_converters():
        return suppress(*arguments, **settings)


FORMS = [suppress, suppress_ops]
if keras.backend.backend() == "tensorflow":  # whose graphs are converted
    FORMS.append(suppress_for_converters)
every_form = pytest.mark.parametrize("function", FORMS)


def greedy(boxes, scores, classes, threshold, limit):
    """Oracle for one image: suppression class by class, then the best of all classes."""
    kept = []
    for class_id in np.unique(classes):
        rows = np.flatnonzero((classes == class_id) & (scores >= 0))
        if rows.size:
            kept.extend(rows[non_max_suppression(boxes[rows], scores[rows], threshold)])
    kept = np.array(sorted(kept, key=lambda row: -scores[row])[:limit], int)
    outputs = np.zeros((limit, 4)), np.zeros(limit), np.zeros(limit, int)
    for output, values in zip(outputs, (boxes, scores, classes), strict=True):
        output[: len(kept)] = values[kept]
    return outputs


def run(function, boxes, scores, classes, class_count, threshold, limit):
    outputs = function(
        ops.convert_to_tensor(boxes, "float32"),
        ops.convert_to_tensor(scores, "float32"),
        ops.convert_to_tensor(classes, "int32"),
        class_count,
        threshold,
        limit,
    )
    return [ops.convert_to_numpy(output) for output in outputs]


@st.composite
def problems(draw):
    """Two images of boxes on a coarse grid; scores without ties, some of them negative."""
    corner = st.integers(0, 6)
    boxes, scores, classes = [], [], []
    for _ in range(2):
        rows = [draw(st.tuples(corner, corner, corner, corner)) for _ in range(COUNT)]
        rows = [(y, x, y + height // 2, x + width // 2) for y, x, height, width in rows]
        boxes.append(np.array(rows, np.float32) / 10)
        order = draw(st.permutations(range(COUNT)))
        part = draw(st.integers(0, COUNT))
        values = np.array(order, np.float32) / COUNT
        scores.append(np.where(np.arange(COUNT) < part, values, -1.0))
        classes.append(draw(st.lists(st.integers(0, 2), min_size=COUNT, max_size=COUNT)))
    return np.stack(boxes), np.stack(scores).astype(np.float32), np.array(classes)


@every_form
@settings(max_examples=60)
@given(problem=problems(), class_count=st.sampled_from([1, 3]))
def test_equals_greedy_suppression(function, problem, class_count):
    boxes, scores, classes = problem
    if class_count == 1:
        classes = np.zeros_like(classes)
    threshold = 0.3037  # no ratio of such small areas
    results = run(function, boxes, scores, classes, class_count, threshold, LIMIT)
    for image in range(2):
        expected = greedy(boxes[image], scores[image], classes[image], threshold, LIMIT)
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_allclose(result[image], wanted, atol=1e-6)


@settings(max_examples=15)
@given(problem=problems(), sizes=st.sampled_from([(10,), (4, 3, 3), (1, 9)]))
def test_classes_that_lie_together_are_compared_apart(problem, sizes):
    """With the same answer, ties and scores of zero included."""
    boxes, scores, _ = problem
    scores = np.where(scores < 0, scores, np.round(scores))
    classes = np.tile(np.repeat(np.arange(len(sizes)), sizes), (2, 1))
    arguments = boxes, scores, classes, len(sizes), 0.3037, LIMIT
    apart = run(partial(suppress_ops, sizes=sizes), *arguments)
    for own, expected in zip(apart, run(suppress_ops, *arguments), strict=True):
        np.testing.assert_array_equal(own, expected)


def test_comparisons_are_within_parts(monkeypatch):
    compared, own = [], nms.compute_overlaps
    monkeypatch.setattr(
        nms, "compute_overlaps", lambda a, b: compared.append((a.shape[1], b.shape[1])) or own(a, b)
    )
    classes = np.repeat([[0, 1]], [6, 4], axis=1)
    arguments = np.random.default_rng(0).random((1, 10, 4)), np.ones((1, 10)), classes, 2, 0.5, 5
    run(partial(suppress_ops, sizes=[6, 4]), *arguments)
    assert compared == [(6, 6), (4, 4)]


@every_form
@settings(max_examples=30)
@given(problem=problems())
def test_across_classes(function, problem):
    """As if all were of one class, whose names they keep."""
    boxes, scores, classes = problem
    found = run(partial(function, across=True), boxes, scores, classes, 3, 0.3037, LIMIT)
    alike = run(function, boxes, scores, np.zeros_like(classes), 1, 0.3037, LIMIT)
    np.testing.assert_array_equal(found[0], alike[0])
    np.testing.assert_array_equal(found[1], alike[1])
    for image in range(2):
        names = dict(zip(scores[image], classes[image], strict=True))
        count = np.count_nonzero(found[0][image].any(axis=-1))
        kept = found[1][image][:count], found[2][image][:count]
        assert [names[score] for score in kept[0]] == list(kept[1])


@every_form
def test_golden(function, parity_units):
    boxes, scores = parity_units["box/boxes"], parity_units["nms/scores"]
    kept = parity_units["nms/keep_0.3"]
    classes = np.zeros(len(boxes), int)
    result, *_ = run(function, boxes[None], scores[None], classes[None], 1, 0.3, len(kept))
    np.testing.assert_allclose(result[0], boxes[kept], rtol=1e-6)


@every_form
def test_chain_of_suppressions(function):
    """The second box is dropped by the first, and so spares the third, which overlaps it."""
    boxes = np.array([[[0, x, 4, x + 4] for x in (0, 1, 2, 3, 4)]], np.float32)
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]])
    result, *_ = run(function, boxes, scores, np.zeros((1, 5), int), 1, 0.5, 5)
    np.testing.assert_array_equal(result[0, :, 1], [0, 2, 4, 0, 0])


@every_form
def test_fewer_boxes_than_places_are_padded(function):
    boxes = np.array([[[0, 0, 1, 1], [2, 2, 3, 3]]], np.float32)
    results = run(function, boxes, [[0.5, 0.6]], [[1, 2]], 3, 0.5, 5)
    assert [result.shape for result in results] == [(1, 5, 4), (1, 5), (1, 5)]
    np.testing.assert_array_equal(results[2], [[2, 1, 0, 0, 0]])
    assert not results[0][0, 2:].any() and not results[1][0, 2:].any()


@every_form
def test_a_score_of_zero_takes_part(function):
    boxes = np.array([[[0, 0, 1, 1], [2, 2, 3, 3]]], np.float32)
    result, *_ = run(function, boxes, [[0.0, -0.001]], [[0, 0]], 1, 0.5, 2)
    np.testing.assert_array_equal(result[0], [[0, 0, 1, 1], [0, 0, 0, 0]])


@every_form
def test_nobody_takes_part(function):
    results = run(function, np.ones((2, 3, 4)), np.full((2, 3), -1.0), np.ones((2, 3)), 2, 0.5, 4)
    assert all(not result.any() for result in results)
