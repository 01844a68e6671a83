import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isic_challenge_scoring import ClassificationMetric, ClassificationScore
from sklearn.metrics import average_precision_score, roc_auc_score

from lesion.diagnosis_metrics import (
    UNDECIDED,
    RankedScores,
    ScoredPredictions,
    confusion_matrix,
    decide,
    sensitivity_at,
    subgroups,
)
from lesion.samples import DIAGNOSES, Sample

MEL, NV, BCC = range(3)


def predictions(labels, seed=0, ties=0):
    """Probabilities that favour the label, the first `ties` rows with two equal maxima."""
    random = np.random.default_rng(seed)
    values = random.dirichlet(np.ones(7), len(labels)) + 0.3 * np.eye(7)[labels]
    values /= values.sum(axis=1, keepdims=True)
    for row in values[:ties]:
        row[(row.argmax() + 1) % 7] = row.max()
    return values


def official(labels, probabilities, weights):
    names = [f"ISIC_{number:07d}" for number in range(len(labels))]
    truth = pd.DataFrame(np.eye(7)[labels], names, list(DIAGNOSES))
    given = pd.DataFrame(probabilities, names, list(DIAGNOSES))
    table = pd.DataFrame({"score_weight": weights, "validation_weight": weights}, names)
    return ClassificationScore(truth, given, table, ClassificationMetric.BALANCED_ACCURACY)


class TestChallenge:
    """The figures of the challenge's own scorer."""

    @pytest.fixture(params=[0, 9])
    def scored(self, request):
        labels = np.random.default_rng(3).integers(0, 7, 90)
        weights = np.random.default_rng(4).integers(0, 3, 90).astype(float)
        values = predictions(labels, ties=request.param)
        return labels, values, weights, official(labels, values, weights)

    def test_balanced_accuracy(self, scored):
        labels, values, weights, score = scored
        own = ScoredPredictions(labels, values, range(90)).scores(weights)["balanced_accuracy"]
        assert own == pytest.approx(score.overall)

    def test_areas(self, scored):
        labels, values, weights, score = scored
        areas = ScoredPredictions(labels, values, range(90)).scores(weights)["auc"]
        np.testing.assert_allclose(areas, score.per_category["auc"])

    def test_average_precision(self, scored):
        labels, values, _, _ = scored
        score = official(labels, values, np.ones(90))
        ours = ScoredPredictions(labels, values, range(90)).summary(intervals=False)[
            "average_precision"
        ]
        np.testing.assert_allclose(list(ours.values()), score.per_category["ap"])

    def test_missing_category_is_left_out_of_the_mean(self):
        labels = np.array([MEL, MEL, NV])
        values = np.eye(7)[[MEL, NV, NV]]
        assert ScoredPredictions(labels, values, range(3)).scores()["balanced_accuracy"] == 0.75


def test_tie_is_undecided_and_wrong():
    values = np.array([[0.4, 0.4, 0.2, 0, 0, 0, 0], [0.3, 0.35, 0.35, 0, 0, 0, 0]])
    assert decide(values).tolist() == [UNDECIDED, UNDECIDED]
    assert (
        ScoredPredictions(np.array([MEL, NV]), values, range(2)).scores()["balanced_accuracy"] == 0
    )
    assert confusion_matrix(np.array([MEL, NV]), decide(values)).sum() == 0


def test_confusion_by_hand():
    matrix = confusion_matrix(np.array([MEL, MEL, NV]), np.array([MEL, BCC, NV]))
    assert matrix[MEL].tolist() == [1, 0, 1, 0, 0, 0, 0]
    assert matrix[NV, NV] == 1 and matrix.sum() == 3


class TestArea:
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(1, 3)), min_size=2))
    def test_is_that_of_scikit_learn(self, rows):
        positive, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
        area = RankedScores(positive, scores).auc(weights)
        if positive.all() or not positive.any():
            assert np.isnan(area)
        else:
            assert area == pytest.approx(roc_auc_score(positive, scores, sample_weight=weights))

    def test_weight_zero_removes_an_image(self):
        ranked = RankedScores(np.array([True, False, False]), np.array([0.5, 0.9, 0.1]))
        assert ranked.auc(np.array([1, 0, 1])) == 1.0


class TestSensitivity:
    # Of ten negatives one scores above 0.5 and one more above 0.3.
    positive = np.array([True] * 4 + [False] * 10)
    scores = np.array([0.9, 0.6, 0.4, 0.1, 0.5, 0.3] + [0.05] * 8)

    @pytest.mark.parametrize(
        ("specificity", "sensitivity"), [(0.8, 1.0), (0.9, 0.75), (0.95, 0.5), (0.0, 1.0)]
    )
    def test_by_hand(self, specificity, sensitivity):
        assert sensitivity_at(self.positive, self.scores, specificity) == sensitivity

    def test_needs_both_kinds(self):
        assert sensitivity_at(np.array([True, True]), np.array([0.1, 0.2]), 0.9) is None


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr("lesion.diagnosis_metrics.RESAMPLES", 100)


class TestScoredPredictions:
    @pytest.fixture
    def scored(self):
        labels = np.random.default_rng(0).integers(0, 6, 60)  # without VASC
        return ScoredPredictions(
            labels, predictions(labels), [f"L{number // 2}" for number in range(60)]
        )

    def test_summary_is_plain_json(self, scored):
        summary = json.loads(json.dumps(scored.summary(intervals=False), allow_nan=False))
        assert (summary["images"], summary["lesions"]) == (60, 30)
        assert list(summary["recall"]) == list(DIAGNOSES)

    def test_missing_category_has_no_figures(self, scored):
        summary = scored.summary(intervals=False)
        assert summary["recall"]["VASC"] is None
        assert summary["auc"]["VASC"] is None
        assert summary["average_precision"]["VASC"] is None
        assert summary["images_of"]["VASC"] == 0

    def test_means_are_of_the_others(self, scored):
        summary = scored.summary(intervals=False)
        recall = [value for value in summary["recall"].values() if value is not None]
        assert summary["balanced_accuracy"] == pytest.approx(np.mean(recall))
        assert summary["mean_auc"] == pytest.approx(np.mean(list(summary["auc"].values())[:6]))

    def test_precision_is_of_the_decisions(self, scored):
        matrix = np.array(scored.summary(intervals=False)["confusion"])
        precision = scored.summary(intervals=False)["precision"]["MEL"]
        assert precision == pytest.approx(matrix[0, 0] / matrix[:, 0].sum())

    def test_precision_of_a_category_decided_once_or_never(self):
        decided = np.eye(7)[[MEL, NV, NV]]
        summary = ScoredPredictions(np.array([MEL, MEL, NV]), decided, range(3)).summary(
            intervals=False
        )
        assert list(summary["precision"].values()) == [1.0, 0.5, *[None] * 5]

    def test_average_precision_is_that_of_scikit_learn(self, scored):
        expected = average_precision_score(scored.labels == BCC, scored.probabilities[:, BCC])
        summary = scored.summary(intervals=False)
        assert summary["average_precision"]["BCC"] == pytest.approx(expected)

    def test_intervals_hold_the_figures(self, scored):
        summary = scored.summary()
        for name in ("balanced_accuracy", "melanoma_auc", "mean_auc", "brier", "accuracy"):
            low, high = summary["confidence"][name]
            assert low < summary[name] < high
        assert summary["confidence"]["recall"]["VASC"] is None

    def test_intervals_are_by_lesion(self):
        labels, values = np.array([MEL, MEL]), np.eye(7)[[MEL, NV]]
        one = ScoredPredictions(labels, values, ["L", "L"]).intervals()
        two = ScoredPredictions(labels, values, ["L", "M"]).intervals()
        assert one["accuracy"] is None  # every draw has both
        assert two["accuracy"] == [0.0, 1.0]

    def test_draws_that_lack_a_category_are_no_mean_over_all(self):
        # One melanoma, which is missed: a third of the draws has none, and may be right throughout.
        labels = np.array([MEL, *[NV] * 9, *[BCC] * 9])
        decided = np.eye(7)[[NV, *[NV] * 8, BCC, *[BCC] * 8, NV]]
        intervals = ScoredPredictions(labels, decided, range(19)).intervals()
        assert intervals["balanced_accuracy"][1] == pytest.approx(2 / 3)
        # One each of seven: next to no draw has all.
        alone = ScoredPredictions(np.arange(7), np.eye(7), range(7)).intervals()
        assert alone["balanced_accuracy"] is None

    def test_few_lesions_answered_alike_have_no_interval(self):
        labels = np.array([*[MEL] * 3, *[BCC] * 4, *[NV] * 9])
        decided = np.eye(7)[[*[NV] * 3, *[BCC] * 4, *[NV] * 8, MEL]]
        scored = ScoredPredictions(labels, decided, range(16))
        intervals = scored.intervals()
        assert intervals["recall"]["MEL"] is intervals["recall"]["BCC"] is None
        assert intervals["recall"]["NV"][0] < intervals["recall"]["NV"][1]
        # Two of three categories do not vary: nevi alone would seem to make it sure.
        assert intervals["balanced_accuracy"] is None
        assert intervals["accuracy"] is not None

    def test_some_images_keep_their_groups_and_lesions(self):
        scored = ScoredPredictions([MEL, NV, NV], np.eye(7)[[MEL, NV, MEL]], "PPQ", "abc")
        some = scored.select([0, 2])
        assert (some.groups, some.lesions) == (["P", "Q"], ["a", "c"])
        assert (some.labels.tolist(), some.decisions.tolist()) == ([MEL, NV], [MEL, MEL])

    def test_one_category_alone(self):
        summary = ScoredPredictions([NV, NV], np.eye(7)[[NV, NV]], "ab").summary(intervals=False)
        assert summary["balanced_accuracy"] == 1.0
        assert summary["melanoma_auc"] is None
        assert summary["mean_auc"] is None
        assert summary["melanoma_sensitivity"] == {"0.80": None, "0.90": None, "0.95": None}


def test_subgroups(tmp_path):
    known = [
        {"age": "15.0", "sex": "male", "site": "back", "confirmation": "histo"},
        {"age": "75", "sex": "female", "site": "back"},
        {"age": "old", "sex": ""},
        {},
    ]
    samples = [Sample("a", str(i), tmp_path, metadata=data) for i, data in enumerate(known)]
    assert subgroups(samples) == {
        "age": {"0-29": [0], "75+": [1], "unknown": [2, 3]},
        "sex": {"female": [1], "male": [0], "unknown": [2, 3]},
        "site": {"back": [0, 1], "unknown": [2, 3]},
        "confirmation": {"histo": [0], "unknown": [1, 2, 3]},
    }


def test_subgroups_of_every_age(tmp_path):
    ages = (0, 29, 30, 44, 45, 59, 60, 74, 75, 85)
    samples = [Sample("a", str(age), tmp_path, metadata={"age": str(age)}) for age in ages]
    expected = {"0-29": [0, 1], "30-44": [2, 3], "45-59": [4, 5], "60-74": [6, 7], "75+": [8, 9]}
    assert subgroups(samples)["age"] == expected


def test_unknown_is_the_last_of_the_subgroups(tmp_path):
    sites = ("", "upper extremity", "back")
    samples = [Sample("a", site, tmp_path, metadata={"site": site}) for site in sites]
    assert list(subgroups(samples)["site"]) == ["back", "upper extremity", "unknown"]
