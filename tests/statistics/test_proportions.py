"""Proportions against scipy and statsmodels' figures."""

from __future__ import annotations

import math
import statistics as standard_library

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics import proportion, share_difference
from tests.statistics.near import near


def test_the_standard_librarys_statistics_is_not_shadowed() -> None:
    assert standard_library.median([1, 2, 9]) == 2


# Figures of statsmodels 0.15.0: proportion_confint(successes, n, method="wilson").
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.27753279986288926),
        (4, 10, 0.16818032970623614, 0.6873262302663417),
        (10, 10, 0.7224672001371106, 1.0),
        (263, 1319, 0.1787179820375916, 0.22181486737358785),
    ],
)
def test_a_proportion_has_wilsons_interval(successes: int, n: int, low: float, high: float) -> None:
    e = proportion(successes, n)
    p = successes / n
    assert (e.value, e.n, e.method) == (p, n, "wilson")
    assert e.stderr == near(math.sqrt(p * (1 - p) / n))
    assert (e.low, e.high) == (near(low), near(high))
    of_scipy = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert (e.low, e.high) == (near(of_scipy.low), near(of_scipy.high))


def test_a_proportion_of_nothing_says_nothing() -> None:
    e = proportion(0, 0)
    assert math.isnan(e.value) and math.isnan(e.stderr)
    assert (e.n, e.low, e.high) == (0, 0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(2, 1), (-1, 3), (0, -1), (math.nan, 3)])
def test_an_impossible_proportion_is_refused(successes: float, n: int) -> None:
    with pytest.raises(ValueError, match="successes must lie between 0 and n"):
        proportion(successes, n)


@given(st.integers(0, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@example((0, 1))
@example((1, 1))
def test_wilsons_interval_holds_the_value_stays_in_range_and_mirrors(drawn: tuple[int, int]) -> None:
    successes, n = drawn
    e, mirrored = proportion(successes, n), proportion(n - successes, n)
    assert 0 <= e.low < e.high <= 1
    assert n == 0 or e.low <= e.value <= e.high
    assert e.low == near(1 - mirrored.high)


@pytest.mark.parametrize(("n", "p"), [(50, 0.3), (200, 0.8), (1000, 0.5)])
def test_wilsons_interval_holds_the_truth(n: int, p: float) -> None:
    counts = np.random.default_rng(0).binomial(n, p, size=20_000)
    holds = {int(k): proportion(int(k), n).low <= p <= proportion(int(k), n).high for k in np.unique(counts)}
    assert 0.93 <= np.mean([holds[int(k)] for k in counts]) <= 0.97


# R. G. Newcombe, Statistics in Medicine 17 (1998) 873-890, table II, method 10.
@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_a_difference_of_shares_is_newcombes(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    found = share_difference(first, second)
    assert found.value == near(first[0] / first[1] - second[0] / second[1])
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    mirrored = share_difference(second, first)
    assert (mirrored.low, mirrored.high) == (near(-found.high), near(-found.low))


def test_a_difference_to_nothing_is_not_known() -> None:
    assert math.isnan(share_difference((0, 0), (3, 4)).low)
