from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lesion.cache import ImageCache
from lesion.diagnosis_data import (
    UNLABELLED,
    DiagnosisBatches,
    DiagnosisDataset,
    sampling_shares,
)
from lesion.patient import patient_vector
from lesion.samples import DIAGNOSES, Sample
from mrcnn.data import SampleError

# 16 MEL, 4 NV, 1 BCC and none of the others.
LABELS = np.repeat([0, 1, 2], [16, 4, 1])


def batches(labels=LABELS, size=7, **settings):
    """Batches of images that hold the position of their sample; `prepare` adds what it drew."""
    names = (*DIAGNOSES, None)
    samples = [
        Sample("a", f"{i}", f"{i}.png", diagnosis=names[label], metadata={"age": f"{i}"})
        for i, label in enumerate(labels)
    ]
    cache = SimpleNamespace(image=lambda path: np.full((1, 1, 3), int(path[:-4]), np.float32))

    def prepare(image, rng):
        return image + rng.random() / 2

    return DiagnosisBatches(DiagnosisDataset(samples, cache), size, prepare, **settings)


@pytest.mark.parametrize(("power", "shares"), [(1, [16, 4, 1]), (0.5, [4, 2, 1]), (0, [1, 1, 1])])
def test_shares_of_the_categories(power, shares):
    expected = np.array([*shares, 0, 0, 0, 0]) / sum(shares)
    np.testing.assert_allclose(sampling_shares(LABELS, power), expected)


def test_epoch_has_its_share_of_each_category():
    drawn = batches(steps=3, power=0.5)
    for epoch in range(4):
        assert Counter(LABELS[drawn.order(epoch)]) == {0: 12, 1: 6, 2: 3}


def test_all_images_of_a_category_are_drawn_equally_often():
    drawn = batches(steps=4, power=0.5)
    times = Counter(i for epoch in range(4) for i in drawn.order(epoch))
    assert {times[i] for i in range(16)} == {4}  # 16 places in each of 4 epochs for 16 images
    assert {times[i] for i in range(16, 20)} == {8}
    assert times[20] == 16


def test_order_differs_by_epoch_and_seed():
    orders = [batches(power=1, seed=seed).order(epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_batch_depends_on_seed_epoch_and_index_alone():
    one, other = batches(power=0.5, seed=3, epoch=2), batches(power=0.5, seed=3)
    one[0]
    other.epoch = 2
    for index in (1, 0):
        for first, second in zip(one[index], other[index], strict=True):
            np.testing.assert_array_equal(first, second)
    other.epoch = 1
    assert not np.array_equal(one[0][0], other[0][0])


def test_truth_is_that_of_the_image():
    drawn = batches(power=0.5)
    for index in range(len(drawn)):
        images, truth = drawn[index]
        positions = images[:, 0, 0, 0].astype(int)
        np.testing.assert_array_equal(truth.argmax(axis=1), LABELS[positions])
        assert drawn.references(index) == [f"{i}.png" for i in positions]


def test_without_a_power_all_images_come_once_in_order():
    drawn = batches(size=8)
    positions = [int(image[0, 0, 0]) for i in range(len(drawn)) for image in drawn[i][0]]
    assert positions == list(range(21))
    assert [len(drawn[i][0]) for i in range(3)] == [8, 8, 5]


@pytest.mark.parametrize(("dropout", "withheld"), [(0.0, 0), (1.0, 7)])
def test_patient_data(dropout, withheld):
    (images, patients), _ = batches(power=1, patient_dropout=dropout)[0]
    positions = images[:, 0, 0, 0].astype(int)
    assert (patients.sum(axis=1) == 0).sum() == withheld
    if not withheld:
        expected = [patient_vector({"age": f"{i}"}) for i in positions]
        np.testing.assert_array_equal(patients, expected)


def test_blends_of_neighbours():
    settings = {"power": 0.5, "patient_dropout": 0.5, "seed": 4}
    (images, patients), truth = batches(**settings)[1]
    mixed = batches(**settings, mixing=0.4)[1]
    (images_mixed, patients_mixed), truth_mixed = mixed
    after = np.roll(np.arange(len(images)), -1)
    share = ((images_mixed - images[after]) / (images - images[after]))[:, 0, 0, 0]
    assert ((share >= 0) & (share <= 1)).all() and len(set(share)) == len(share)
    for one, blend in ((patients, patients_mixed), (truth, truth_mixed)):
        expected = share[:, None] * one + (1 - share[:, None]) * one[after]
        np.testing.assert_allclose(blend, expected, atol=1e-5)
    again = batches(**settings, mixing=0.4)[1]
    np.testing.assert_array_equal(again[0][0], images_mixed)


def test_blends_of_whole_numbers_are_rounded():
    drawn = batches(mixing=0.4)
    drawn.prepare = lambda image, rng: (10 * image).astype(np.uint8)
    blends, _ = drawn[0]
    drawn.mixing = 0
    images, _ = drawn[0]
    assert blends.dtype == np.uint8
    low, high = (
        np.minimum(images, np.roll(images, -1, 0)),
        np.maximum(images, np.roll(images, -1, 0)),
    )
    assert ((blends >= low) & (blends <= high)).all() and (blends != images).any()


@pytest.fixture
def answered():
    """Batches of 21 images with a diagnosis and 10 without, all of them answered by a teacher."""

    def make(**settings):
        labels = np.concatenate([LABELS, np.full(10, UNLABELLED)])
        drawn = batches(labels, power=0.5, steps=6, **settings)
        answers = np.random.default_rng(0).dirichlet(np.ones(7), len(labels)).astype(np.float32)
        drawn.dataset = replace(drawn.dataset, answers=answers)
        return drawn

    return make


@pytest.mark.parametrize("share", [0, 0.7, 1])
def test_truth_is_in_part_the_teachers(answered, share):
    drawn = answered(teacher_share=share, unlabelled_share=0.25)
    labels = drawn.labels
    for index in range(len(drawn)):
        images, truth = drawn[index]
        positions = images[:, 0, 0, 0].astype(int)
        expected = drawn.dataset.answers[positions].copy()
        known = labels[positions] != UNLABELLED
        expected[known] *= share
        expected[known, labels[positions[known]]] += 1 - share
        np.testing.assert_allclose(truth, expected, rtol=1e-5, atol=1e-7)


def test_share_without_a_diagnosis(answered):
    drawn = answered(teacher_share=0.7, unlabelled_share=0.25)
    for epoch in range(3):
        labels = drawn.labels[drawn.order(epoch)]
        counts = Counter(labels)
        assert counts[UNLABELLED] in (10, 11)  # a fourth of 42
        assert counts[0] == pytest.approx(2 * counts[1], abs=1)  # as the roots of 16 and 4


def test_nothing_without_a_diagnosis_is_drawn_without_a_share(answered):
    drawn = answered(teacher_share=0.7)
    assert UNLABELLED not in drawn.labels[drawn.order(0)]


def test_unreadable_image_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    samples = [Sample("a", "a", tmp_path / "a.png", diagnosis="NV")]
    dataset = DiagnosisDataset(samples, ImageCache(tmp_path / "cache", 64))
    drawn = DiagnosisBatches(dataset, 2, lambda image, rng: image)
    with pytest.raises(SampleError, match="a.png"):
        drawn[0]
    assert isinstance(drawn.failure, SampleError)
