"""The search for thresholds, against one that tries every combination on the masks themselves."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion import attribute_thresholds
from lesion.attribute_thresholds import DEFAULTS, METHODS, NEVER, Threshold, ThresholdSearch
from lesion.attributes import Evidence
from lesion.metrics import Confusion
from lesion.samples import ATTRIBUTES

SHAPE = (6, 7)


def random_case(rng):
    """Evidence of one image, of values between those of the grid, and its truth."""
    evidence = Evidence(
        rng.choice([0.01, 0.26, 0.51, 0.76, 0.99], (*SHAPE, 5)).astype(np.float32),
        rng.choice([0.0, 0.33, 0.72], (*SHAPE, 5)).astype(np.float32),
        rng.choice([0.01, 0.35, 0.95], 5).astype(np.float32),
    )
    likely = evidence.semantic * (rng.random((*SHAPE, 5)) < 0.7)
    return evidence, {
        name: likely[:, :, i] + rng.normal(0, 0.2, SHAPE) > 0.6 for i, name in enumerate(ATTRIBUTES)
    }


def global_jaccard(cases, thresholds):
    return Confusion.total(
        Confusion.of(evidence.masks(thresholds)[name], truth[name]).normalized
        for evidence, truth in cases
        for name in ATTRIBUTES
    ).jaccard


def search_in(cases):
    search = ThresholdSearch()
    for case in cases:
        search.add(*case)
    return search


class TestSearch:
    @settings(max_examples=20)
    @given(seed=st.integers(0, 2**16), method=st.sampled_from(METHODS))
    def test_reaches_what_it_says(self, seed, method):
        rng = np.random.default_rng(seed)
        cases = [random_case(rng) for _ in range(3)]
        thresholds, jaccard = search_in(cases).best(method)
        assert global_jaccard(cases, thresholds) == pytest.approx(jaccard, abs=1e-6)

    def test_finds_the_best_of_all_combinations(self):
        rng = np.random.default_rng(1)
        # Two attributes occur, so that all pairs of their thresholds can be tried.
        cases = []
        for _ in range(3):
            evidence, truth = random_case(rng)
            blank = np.zeros(SHAPE, bool)
            truth |= dict.fromkeys(ATTRIBUTES[2:], blank)
            zeros = np.zeros_like(evidence.semantic)
            zeros[:, :, :2] = 1
            cases.append(
                (
                    Evidence(
                        evidence.semantic * zeros, evidence.instances * zeros, evidence.presence
                    ),
                    truth,
                )
            )
        grid = [
            Threshold(*values)
            for values in itertools.product(
                (0.0, 0.2, 0.8), (0.005, 0.2, 0.4, 0.6, 0.9, NEVER), (0.2, 0.5, NEVER)
            )
        ]
        none = dict.fromkeys(ATTRIBUTES, Threshold(0.0, NEVER, NEVER))
        best = max(
            global_jaccard(cases, none | dict(zip(ATTRIBUTES, pair, strict=False)))
            for pair in itertools.product(grid, grid)
        )
        _, jaccard = search_in(cases).best("combined")
        assert jaccard == pytest.approx(best, abs=1e-6)

    def test_values_of_the_grid_reach_their_threshold(self):
        rng = np.random.default_rng(5)
        maps = rng.choice([0.25, 0.5, 0.75], (2, *SHAPE, 5)).astype(np.float32)
        evidence = Evidence(*maps, np.ones(5, np.float32))
        truth = {name: (maps[..., i] > 0.5).any(axis=0) for i, name in enumerate(ATTRIBUTES)}
        thresholds, jaccard = search_in([(evidence, truth)]).best("combined")
        assert jaccard == pytest.approx(1)
        assert global_jaccard([(evidence, truth)], thresholds) == 1

    def test_no_method_beats_both_together(self):
        rng = np.random.default_rng(2)
        search = search_in([random_case(rng) for _ in range(4)])
        reached = {method: search.best(method)[1] for method in METHODS}
        assert reached["combined"] >= max(reached.values()) - 1e-9

    @pytest.mark.parametrize(
        ("method", "field"), [("semantic", "instance"), ("instances", "semantic")]
    )
    def test_a_method_leaves_the_other_source_out(self, method, field):
        rng = np.random.default_rng(3)
        thresholds, _ = search_in([random_case(rng)]).best(method)
        assert {getattr(threshold, field) for threshold in thresholds.values()} == {NEVER}

    def test_where_nothing_is_true_nothing_is_predicted(self):
        evidence, _ = random_case(np.random.default_rng(4))
        blank = dict.fromkeys(ATTRIBUTES, np.zeros(SHAPE, bool))
        thresholds, jaccard = search_in([(evidence, blank)]).best("combined")
        assert not any(mask.any() for mask in evidence.masks(thresholds).values())
        assert jaccard == 1.0

    def test_its_memory_does_not_depend_on_the_size_of_images(self):
        search = ThresholdSearch()
        big = np.zeros((300, 400, 5), np.float32)
        truth = dict.fromkeys(ATTRIBUTES, np.zeros((300, 400), bool))
        search.add(Evidence(big, big, np.zeros(5)), truth)
        steps = len(attribute_thresholds._SEMANTIC) + 1, len(attribute_thresholds._INSTANCES) + 1
        assert search._inside[0].shape == (5, *steps)


class TestThreshold:
    def test_takes_either_source_where_the_image_shows_the_attribute(self):
        semantic = np.array([[0.4, 0.6, 0.1, 0.5, 0.1]])
        instances = np.array([[0.8, 0.0, 0.2, 0.0, 0.7]])
        threshold = Threshold(presence=0.3, semantic=0.5, instance=0.7)
        assert threshold.mask(semantic, instances, 0.3).tolist() == [
            [True, True, False, True, True]
        ]
        assert not threshold.mask(semantic, instances, 0.29).any()

    def test_of_every_method_and_attribute_there_is_a_default(self):
        assert set(DEFAULTS) == set(METHODS)
        assert all(set(chosen) == set(ATTRIBUTES) for chosen in DEFAULTS.values())
