"""Differences between paired scores: against resampling one by one, scipy, and simulated truth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics import mcnemar, paired_bootstrap, sign_flip
from harness.types import Estimate
from tests.test_statistics import covered, near


@pytest.mark.parametrize("clustered", [False, True])
def test_a_paired_interval_is_that_of_resampling_one_by_one(clustered: bool) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(60), rng.random(60)
    labels = np.repeat(np.arange(15), 4) if clustered else np.arange(60)
    count = len(np.unique(labels))
    members = [np.flatnonzero(labels == unit) for unit in range(count)]
    means = []
    for _ in range(10_000):
        drawn = np.concatenate([members[unit] for unit in rng.integers(count, size=count)])
        means.append((b - a)[drawn].mean())
    tail = stats.norm.cdf(-math.sqrt(count / (count - 1)) * stats.t.ppf(0.975, count - 1))
    e = paired_bootstrap(a, b, 0, labels.tolist() if clustered else None, replicates=20_000)
    assert (e.low, e.high) == pytest.approx(np.quantile(means, [tail, 1 - tail]), abs=0.006)
    assert e.stderr == near(float(np.std(means)) * math.sqrt(count / (count - 1)), rel=0.03)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=20), st.randoms())
def test_a_paired_difference_knows_no_order(pairs: list[tuple[float, float]], chance: Any) -> None:
    a, b = np.array(pairs).T
    e, back = paired_bootstrap(a, b, 0, replicates=50), paired_bootstrap(b, a, 0, replicates=50)
    if e.value:
        assert (back.value, back.low, back.high, back.stderr) == (-e.value, -e.high, -e.low, e.stderr)
    chance.shuffle(pairs)
    a, b = np.array(pairs).T
    shuffled = paired_bootstrap(a, b, 0, replicates=50)
    assert (shuffled.low, shuffled.high) == (near(e.low), near(e.high))


@pytest.mark.parametrize("decimals", [1, 12])  # some gains of the same size, and none
def test_flipping_signs_equals_scipys_permutation_test(decimals: int) -> None:
    gains = np.round(np.random.default_rng(2).normal(0.3, 1, 14), decimals)
    exact = stats.permutation_test((gains,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(gains, 0, replicates=100_000) == near(exact.pvalue, abs=0.005)
    assert sign_flip(-gains, 0) == sign_flip(gains, 0)


def test_flipping_signs_of_right_and_wrong_is_mcnemars_test() -> None:
    assert sign_flip([1] * 6 + [-1] + [0] * 50, 0, replicates=100_000) == near(mcnemar(1, 6), abs=0.004)
    assert sign_flip([0.0, 0.0], 0) == sign_flip([], 0) == 1.0
    assert sign_flip([1.0] * 40, 0) == near(1 / 10_001)


@pytest.mark.parametrize("count", [10, 57])
def test_the_paired_interval_holds_the_truth_over_few_and_uneven_groups(count: int) -> None:
    # Ten groups are the fewest that a comparison resamples; MMLU's 57 subjects are as uneven as these.
    groups = np.repeat(np.arange(count), [8 + 60 * (i % 9 == 0) + 5 * (i % 3) for i in range(count)])
    labels = groups.tolist()

    def draw(rng: np.random.Generator) -> Estimate:
        shift = rng.normal(0, 0.03, count)[groups]
        drawn = rng.random(len(groups))
        gains = (drawn < 0.12 + shift).astype(float) - (drawn > 1 - (0.10 - shift))
        return paired_bootstrap(np.zeros(len(gains)), gains, int(rng.integers(2**32)), labels, replicates=500)

    assert 0.93 <= covered(draw, 0.02, 1000) <= 0.97


@pytest.mark.parametrize(("n", "gained", "lost"), [(1319, 7, 3), (500, 10, 10), (60, 15, 6)])
def test_the_paired_interval_holds_the_truth_where_few_examples_differ(n: int, gained: float, lost: float) -> None:
    # About ten that differ are the fewest for which a comparison gives an interval without a caveat.
    def draw(rng: np.random.Generator) -> Estimate:
        up, down, _ = rng.multinomial(n, [gained / n, lost / n, 1 - (gained + lost) / n])
        gains = np.repeat([1.0, -1.0, 0.0], [up, down, n - up - down])
        return paired_bootstrap(np.zeros(n), gains, int(rng.integers(2**32)), replicates=500)

    assert 0.93 <= covered(draw, (gained - lost) / n, 1000) <= 0.97


def test_the_interval_of_a_macro_difference_by_groups_holds_the_truth() -> None:
    sizes = np.array([8 + 60 * (i % 9 == 0) + 5 * (i % 3) for i in range(20)])

    def draw(rng: np.random.Generator) -> Estimate:
        rates = np.clip(0.2 + rng.normal(0.05, 0.1, (2, 20)), 0, 1)
        a, b = rng.binomial(sizes, rates) / sizes
        return paired_bootstrap(a, b, int(rng.integers(2**32)), replicates=500)

    assert 0.93 <= covered(draw, 0.0, 1000) <= 0.97
