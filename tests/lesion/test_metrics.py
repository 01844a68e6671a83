"""The challenge's metrics: hand-made values, and equality with the challenge's own scorer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesion.metrics import (
    METRICS,
    Confusion,
    aggregate,
    bootstrap_interval,
    bootstrap_weights,
    boundary_metrics,
    percentile_interval,
)


def row(text):
    """A mask of one row: `#` is inside."""
    return np.array([[letter == "#" for letter in text]])


@st.composite
def mask_pairs(draw):
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    masks = st.one_of(
        arrays(bool, shape), st.just(np.zeros(shape, bool)), st.just(np.ones(shape, bool))
    )
    return draw(masks), draw(masks)


def test_each_metric_of_a_half_overlap():
    scores = boundary_metrics(prediction=row("##.."), truth=row("#.#."))
    assert scores == {
        "jaccard": pytest.approx(1 / 3),
        "threshold_jaccard": 0.0,
        "dice": 0.5,
        "sensitivity": 0.5,
        "specificity": 0.5,
        "accuracy": 0.5,
    }


def test_confusion_counts_pixels():
    counts = Confusion.of(prediction=row("###..."), truth=row(".##.#."))
    assert counts == Confusion(true_positive=2, true_negative=2, false_positive=1, false_negative=1)


def test_total_adds_up_each_count():
    assert Confusion.total([Confusion(1, 2, 3, 4), Confusion(0.5, 0, 0, 1)]) == Confusion(
        1.5, 2, 3, 5
    )
    assert Confusion.total([]) == Confusion(0, 0, 0, 0)


def test_jaccard_of_exactly_the_threshold_counts():
    truth = row("#" * 20)
    assert boundary_metrics(row("#" * 13 + "." * 7), truth)["threshold_jaccard"] == 0.65


def test_jaccard_just_below_the_threshold_counts_as_zero():
    truth = row("#" * 100)
    assert boundary_metrics(row("#" * 64 + "." * 36), truth)["threshold_jaccard"] == 0.0


def test_empty_prediction_of_an_empty_truth_is_perfect():
    assert set(boundary_metrics(row("...."), row("....")).values()) == {1.0}


def test_full_prediction_of_a_full_truth_is_perfect():
    assert set(boundary_metrics(row("####"), row("####")).values()) == {1.0}


def test_missed_lesion():
    scores = boundary_metrics(prediction=row("...."), truth=row("#..."))
    assert (scores["jaccard"], scores["dice"], scores["sensitivity"]) == (0, 0, 0)
    assert (scores["specificity"], scores["accuracy"]) == (1, 0.75)


def test_lesion_found_where_there_is_none():
    scores = boundary_metrics(prediction=row("#..."), truth=row("...."))
    assert (scores["jaccard"], scores["dice"], scores["sensitivity"]) == (0, 0, 1)
    assert (scores["specificity"], scores["accuracy"]) == (0.75, 0.75)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2), bool), "`prediction` must be a bool array"),
        (np.zeros((2, 2), bool), [[True]], "`truth` must be a bool array, received list"),
        (np.zeros((2, 2), bool), np.zeros((2, 3), bool), "one shape"),
        (np.zeros((0, 2), bool), np.zeros((0, 2), bool), "at least one pixel"),
    ],
)
def test_unusable_masks_are_refused(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        boundary_metrics(prediction, truth)


@given(mask_pairs())
def test_exchanging_the_masks_keeps_jaccard_dice_and_accuracy(pair):
    forward, backward = boundary_metrics(*pair), boundary_metrics(*pair[::-1])
    for name in ("jaccard", "dice", "accuracy"):
        assert forward[name] == backward[name]


@given(mask_pairs())
def test_dice_follows_from_jaccard(pair):
    scores = boundary_metrics(*pair)
    assert scores["dice"] == pytest.approx(2 * scores["jaccard"] / (1 + scores["jaccard"]))


@settings(max_examples=60)
@given(st.lists(mask_pairs(), min_size=1, max_size=4))
def test_equals_the_challenges_scorer(pairs):
    scorer = pytest.importorskip(
        "isic_challenge_scoring", reason="isic-challenge-scoring is absent"
    )

    class Pair:
        def __init__(self, number, prediction, truth):
            self.image_id = f"ISIC_{number:07d}"
            self.prediction_image = prediction * np.uint8(255)
            self.truth_image = truth * np.uint8(255)

    official = scorer.SegmentationScore(
        Pair(number, *pair) for number, pair in enumerate(pairs)
    ).macro_average
    ours = aggregate(boundary_metrics(*pair) for pair in pairs)
    for name in METRICS:
        assert ours[name] == pytest.approx(official[name], abs=1e-12), name


def test_aggregate_is_the_mean_over_images():
    found, missed = boundary_metrics(row("#."), row("#.")), boundary_metrics(row(".."), row("#."))
    means = aggregate([found, missed])
    assert list(means) == ["images", *METRICS]
    assert means["images"] == 2
    assert means["jaccard"] == 0.5
    assert means["accuracy"] == 0.75


def test_aggregate_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no image"):
        aggregate([])


def test_interval_of_a_mean_is_near_the_normal_one():
    values = np.random.default_rng(1).normal(0.8, 0.1, size=400)
    lower, upper = bootstrap_interval(values, resamples=2000)
    error = values.std() / np.sqrt(400)
    assert lower == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert upper == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_interval_widens_where_groups_repeat_one_another():
    values = np.random.default_rng(2).random(50)
    alone = np.subtract(*bootstrap_interval(values)[::-1])
    repeated = np.repeat(values, 4)
    counted_as_new = np.subtract(*bootstrap_interval(repeated)[::-1])
    grouped = np.subtract(*bootstrap_interval(repeated, groups=np.repeat(np.arange(50), 4))[::-1])
    assert counted_as_new < 0.6 * alone
    assert grouped == pytest.approx(alone)


def test_interval_does_not_depend_on_the_names_of_groups():
    values = [0.1, 0.5, 0.9, 0.7]
    assert bootstrap_interval(values, groups=["b", "a", "b", None]) == bootstrap_interval(
        values, groups=[1, 2, 1, 3]
    )


def test_interval_is_repeatable_and_follows_the_seed():
    values = np.random.default_rng(0).random(50)
    first, again, other = (bootstrap_interval(values, seed=seed) for seed in (3, 3, 4))
    assert first == again != other
    assert len(list(bootstrap_weights(range(5), resamples=7))) == 7


def test_interval_of_a_lower_level_is_narrower():
    values = np.random.default_rng(0).random(50)
    lower, upper = bootstrap_interval(values, level=0.5)
    low, high = bootstrap_interval(values)
    assert low < lower < upper < high


def test_percentiles_by_hand():
    values = np.arange(1001)
    assert percentile_interval(values) == pytest.approx((25, 975))
    assert percentile_interval(values, 0.8) == pytest.approx((100, 900))


def test_interval_of_one_group_is_its_mean():
    assert bootstrap_interval([0.2, 0.4], groups=["a", "a"]) == pytest.approx((0.3, 0.3))


def test_weights_count_whole_groups():
    for weights in bootstrap_weights(["a", "b", "a", "c"], resamples=20):
        assert weights[0] == weights[2]
        assert weights[0] + weights[1] + weights[3] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": []}, "at least one number"),
        ({"values": [0.5, np.nan]}, "finite"),
        ({"values": [0.5, 0.6], "groups": ["a"]}, "1 groups for 2 values"),
        ({"values": [0.5], "level": 95}, "between 0 and 1, received 95"),
        ({"values": [0.5], "level": 0}, "between 0 and 1, received 0"),
        ({"values": [0.5], "level": 1}, "between 0 and 1, received 1"),
        ({"values": [0.5], "resamples": 0}, "at least 1, received 0"),
    ],
)
def test_unusable_arguments_of_the_interval(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(**arguments)
