"""A ratio of sums over clusters: of equal weights a mean's, of uneven ones wider, of equal ratios unknown."""

from __future__ import annotations

import math

import numpy as np

from harness.statistics import mean
from harness.statistics.ratio import clustered_ratio
from tests.statistics.near import near


def test_of_equal_weights_it_is_the_mean_of_the_ratios() -> None:
    x = [1.0, 2.5, 2.0, 4.0]
    found, plain = clustered_ratio([3 * value for value in x], [3.0] * 4), mean(x)
    assert (found.value, found.stderr, found.n) == (near(plain.value), near(plain.stderr), 4)
    assert (found.low, found.high) == (near(plain.low), near(plain.high))


def test_few_clusters_of_uneven_weights_are_allowed_for() -> None:
    # Twelve documents, one as long as three others together; by simulation.
    rng, weights = np.random.default_rng(0), np.array([3.0] + [1.0] * 11)
    found = [clustered_ratio(weights * rng.normal(2.0, 0.5, 12), weights) for _ in range(2000)]
    assert 0.94 <= np.mean([e.low <= 2.0 <= e.high for e in found]) <= 0.98


def test_equal_ratios_and_one_cluster_do_not_say_how_far_another_could_lie() -> None:
    for totals, weights in (([0.1 * 3, 0.1 * 7, 0.1 * 9], [3.0, 7.0, 9.0]), ([0.0, 0.0], [1.0, 2.0]), ([4.0], [2.0])):
        e = clustered_ratio(totals, weights)
        assert e.value == near(totals[0] / weights[0]) and math.isnan(e.low) and math.isnan(e.high)
