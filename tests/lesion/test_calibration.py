import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion.calibration import (
    Calibration,
    brier_score,
    coverage_curve,
    expected_calibration_error,
    reliability,
)

# Confidences 0.9, 0.9, 0.6, 0.6; right, right, right, wrong.
PROBABILITIES = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.6, 0.4]])
LABELS = np.array([0, 1, 0, 1])


def probabilities(size, classes=3, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(classes), size)


def test_error_by_hand():
    # Two bins: |1 - 0.9| for half the images, |0.5 - 0.6| for the others.
    assert expected_calibration_error(PROBABILITIES, LABELS, bins=10) == pytest.approx(0.1)


def test_bins_of_equal_width_hold_their_upper_edge():
    table = reliability(np.array([[0.5, 0.5], [0.51, 0.49], [1.0, 0.0]]), np.array([0, 0, 0]), 2)
    np.testing.assert_array_equal(table.edges, [0, 0.5, 1])
    np.testing.assert_array_equal(table.count, [1, 2])
    np.testing.assert_allclose(table.confidence, [0.5, 0.755])


def test_empty_bin_is_no_number():
    table = reliability(PROBABILITIES, LABELS, 10)
    assert np.isnan(table.accuracy[0]) and table.count[0] == 0
    np.testing.assert_allclose(table.accuracy[[5, 8]], [0.5, 1.0])


def test_weights_are_repetitions():
    values, labels = probabilities(20), np.arange(20) % 3
    weights = np.random.default_rng(1).integers(0, 4, 20)
    for metric in (expected_calibration_error, brier_score):
        repeated = metric(np.repeat(values, weights, axis=0), np.repeat(labels, weights))
        assert metric(values, labels, weights=weights) == pytest.approx(repeated)


def test_brier_by_hand():
    # 2 (0.1)^2 twice, 2 (0.4)^2, 2 (0.6)^2
    expected = (0.02 + 0.02 + 0.32 + 0.72) / 4
    assert brier_score(PROBABILITIES, LABELS) == pytest.approx(expected)


def test_brier_bounds():
    right = np.eye(3)[[0, 1, 2]]
    assert brier_score(right, np.array([0, 1, 2])) == 0
    assert brier_score(right, np.array([1, 2, 0])) == 2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_found_again(temperature):
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20000, 4))
    truth = Calibration(1.0).probabilities(logits)
    labels = (truth.cumsum(axis=1) > random.random((20000, 1))).argmax(axis=1)
    fitted = Calibration.fit(logits * temperature, labels)
    assert fitted.temperature == pytest.approx(temperature, rel=0.05)
    assert expected_calibration_error(fitted.probabilities(logits * temperature), labels) < 0.015


def test_temperature_of_answers_that_are_all_right_is_bounded(caplog):
    fitted = Calibration.fit(np.eye(3)[[0, 1, 2] * 20], np.array([0, 1, 2] * 20))
    assert fitted.temperature > 0.3
    assert "60 images do not tell how sure the answers may be" in caplog.text


def test_temperature_of_answers_that_are_all_wrong_is_bounded(caplog):
    fitted = Calibration.fit(np.eye(3)[[0, 1, 2] * 20], np.array([1, 2, 0] * 20))
    assert fitted.temperature == pytest.approx(np.exp(3), rel=0.01)
    assert "60 images do not tell how sure the answers may be" in caplog.text


def test_temperature_within_its_bounds_is_not_warned_of(caplog):
    fitted = Calibration.fit(np.eye(3)[[0, 1, 2, 0] * 20], np.array([0, 1, 2, 1] * 20))
    # Three of four are right: e^(1/T) / (e^(1/T) + 2) is to be 3/4.
    assert fitted.temperature == pytest.approx(1 / np.log(6), rel=0.001)
    assert not caplog.text


def test_answers_that_were_fitted_are_kept():
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    fitted = Calibration.fit(logits, np.array([0, 1, 1]))
    assert fitted.correct == [True, True, False]
    expected = 1 / (1 + np.exp(-np.array([2, 1, 3]) / fitted.temperature))
    np.testing.assert_allclose(fitted.confidence, expected, atol=2e-6)


def test_temperature_changes_no_decision():
    logits = np.random.default_rng(0).normal(size=(50, 7))
    fitted = Calibration.fit(logits, np.arange(50) % 7)
    np.testing.assert_array_equal(
        fitted.probabilities(logits).argmax(axis=1), logits.argmax(axis=1)
    )


def test_offset_comes_before_the_temperature():
    calibration = Calibration(2.0, [0.0, np.log(4)])
    np.testing.assert_allclose(calibration.probabilities(np.zeros((1, 2))), [[1 / 3, 2 / 3]])


def test_offset_is_kept_by_the_fit():
    logits = np.random.default_rng(0).normal(size=(50, 2))
    fitted = Calibration.fit(logits, np.arange(50) % 2, np.array([0.0, 1.0]))
    assert fitted.offset == [0.0, 1.0]
    shifted = Calibration.fit(logits + [0.0, 1.0], np.arange(50) % 2)
    assert fitted.temperature == pytest.approx(shifted.temperature)


def test_coverage_by_hand():
    curve = coverage_curve([0.9, 0.5, 0.8, 0.5], [True, False, False, True])
    np.testing.assert_allclose(curve.threshold, [0.9, 0.8, 0.5])
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 1.0])
    np.testing.assert_allclose(curve.accuracy, [1.0, 0.5, 0.5])


class TestThreshold:
    calibration = Calibration(
        confidence=[0.9, 0.8, 0.7, 0.6, 0.5], correct=[True, True, False, True, False]
    )

    @pytest.mark.parametrize(
        ("risk", "threshold"), [(0.0, 0.8), (0.2, 0.8), (0.25, 0.6), (0.4, 0.5), (1.0, 0.5)]
    )
    def test_is_the_lowest_that_keeps_the_risk(self, risk, threshold):
        assert self.calibration.threshold(risk) == threshold

    def test_is_one_where_nothing_is_sure_enough(self):
        assert Calibration(confidence=[0.9, 0.4], correct=[False, True]).threshold(0.1) == 1.0

    def test_is_unknown_where_nothing_was_fitted(self):
        assert Calibration().threshold(0.1) is None

    @given(
        st.lists(st.tuples(st.sampled_from([0.3, 0.5, 0.7, 0.9]), st.booleans()), min_size=1),
        st.floats(0, 1),
    )
    def test_risk_is_kept(self, images, risk):
        confidence, correct = zip(*images, strict=True)
        threshold = Calibration(confidence=confidence, correct=correct).threshold(risk)
        kept = [right for value, right in images if value >= threshold]
        assert not kept or 1 - np.mean(kept) <= risk + 1e-6


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="at least one image"):
        expected_calibration_error(np.zeros((0, 7)), np.zeros(0, int))


class TestMelanoma:
    calibration = Calibration(
        confidence=[0.9, 0.6], correct=[True, False], melanoma=[0.7, 0.1, 0.4, 0.2, 0.9]
    )

    @pytest.mark.parametrize(
        ("sensitivity", "threshold"),
        [(0.0, 0.9), (0.2, 0.9), (0.21, 0.7), (0.6, 0.4), (0.8, 0.2), (0.81, 0.1), (1.0, 0.1)],
    )
    def test_is_the_highest_that_finds_the_share(self, sensitivity, threshold):
        assert self.calibration.melanoma_threshold(sensitivity) == threshold

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0, 1))
    def test_finds_at_least_the_share(self, melanoma, sensitivity):
        threshold = Calibration(melanoma=melanoma).melanoma_threshold(sensitivity)
        assert np.mean(np.array(melanoma) >= threshold) >= sensitivity - 1e-9

    @pytest.mark.parametrize(
        ("risk", "sensitivity", "expected"),
        [
            (None, None, [None, None, None]),
            (0.0, None, [True, False, False]),
            (None, 0.6, [False, False, True]),
            (0.0, 0.6, [True, False, True]),
        ],
    )
    def test_refers_what_is_unsure_or_near_to_melanoma(self, risk, sensitivity, expected):
        answers = np.array([[0.3, 0.7], [0.05, 0.95], [0.95, 0.05]])
        referral = self.calibration.referral(risk, sensitivity)
        assert [referral(answer) for answer in answers] == expected

    def test_of_fitted_images(self):
        logits = np.random.default_rng(0).normal(size=(60, 7)) * 3
        labels = np.arange(60) % 7
        fitted = Calibration.fit(logits, labels)
        referral = fitted.referral(melanoma_sensitivity=1.0)
        found = [referral(row) for row in fitted.probabilities(logits[labels == 0])]
        assert len(fitted.melanoma) == len(found) and all(found)

    def test_no_share(self):
        with pytest.raises(
            ValueError, match="is a share of images of melanoma, from 0 to 1; received 1.5"
        ):
            self.calibration.melanoma_threshold(1.5)

    def test_of_an_earlier_version(self):
        with pytest.raises(ValueError, match="join the members of an ensemble anew"):
            Calibration(confidence=[0.9], correct=[True]).referral(0.1, 0.9)
