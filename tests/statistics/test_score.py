"""The score method against Wilson's and Tango's closed forms, McNemar's test, and a likelihood maximised by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from harness.statistics import mean, paired_difference, proportion
from harness.statistics.means import infer
from harness.statistics.score import Distribution, score_interval, score_statistic
from tests.statistics.near import near

Z = stats.norm.ppf(0.975)


def tango(lost: int, gained: int, n: int, supposed: float) -> float:
    """Return Tango's statistic (1998, equation 2), whose restricted estimate is the root of a quadratic."""
    linear = -lost - gained + (2 * n - gained + lost) * supposed
    constant = -lost * supposed * (1 - supposed)
    only_lost = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * only_lost + supposed * (1 - supposed))
    return (gained - lost - n * supposed) / math.sqrt(variance)


@given(st.integers(0, 60), st.integers(1, 60))
def test_of_right_and_wrong_it_is_wilsons(right: int, more: int) -> None:
    n = right + more
    e, known = mean([1.0] * right + [0.0] * more, bounds=(0, 1)), proportion(right, n)
    assert (e.value, e.low, e.high) == (near(known.value), near(known.low), near(known.high))
    if n > 1:
        assert e.stderr == near(known.stderr * math.sqrt(n / (n - 1)))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 400))
def test_of_pairs_it_is_tangos(lost: int, gained: int, same: int) -> None:
    n = lost + gained + same
    if not n or min(n + gained - lost, n + lost - gained) <= 6:
        return
    found = paired_difference([1] * lost + [0] * (gained + same), [0] * lost + [1] * gained + [0] * same)
    for bound in (found.estimate.low, found.estimate.high):
        if abs(bound) < 1:
            assert abs(tango(lost, gained, n, bound)) == near(Z, abs=1e-5)
    assert found.estimate.low == -1 or found.estimate.low < found.estimate.value
    expected = stats.chi2.sf((gained - lost) ** 2 / (gained + lost), 1) if gained + lost else 1.0
    assert found.p == near(expected, rel=1e-6)  # McNemar's


@pytest.mark.parametrize("n", [20, 100, 1000])
@pytest.mark.parametrize("wrong", [1, 2, 3])
def test_where_few_are_wrong_the_bound_on_their_side_is_the_likelihood_ratios(wrong: int, n: int) -> None:
    e = proportion(n - wrong, n)
    ratio = 2 * (wrong * math.log(wrong / n / (1 - e.high)) + (n - wrong) * math.log(e.value / e.high))
    assert ratio == near(Z**2, rel=1e-6)
    wilson = stats.binomtest(n - wrong, n).proportion_ci(method="wilson")
    assert e.low == near(wilson.low) and e.high > wilson.high


@pytest.mark.parametrize(("n", "least"), [(20, 0.92), (39, 0.918), (100, 0.92)])
def test_no_rate_is_held_by_fewer_than_92_of_100_samples(n: int, least: float) -> None:
    intervals = [proportion(right, n) for right in range(n + 1)]
    lows, highs = np.array([(e.low, e.high) for e in intervals]).T
    bounds = np.unique([*lows, *highs])
    for rate in [*(bounds[bounds > 0] - 1e-9), *(bounds[bounds < 1] + 1e-9)]:  # coverage is lowest beside a bound
        covered = stats.binom.pmf(np.arange(n + 1), n, rate)[(lows <= rate) & (rate <= highs)].sum()
        assert covered >= least


def test_the_published_example() -> None:
    # Fagerland, Lydersen and Laake (2014), airway hyper-responsiveness before and after: 1, 1, 7, 12 of 21 children.
    found = paired_difference([1] + [1] + [0] * 7 + [0] * 12, [1] + [0] + [1] * 7 + [0] * 12)
    assert (found.estimate.low, found.estimate.high) == (near(0.026, abs=5e-4), near(0.517, abs=5e-4))
    assert found.p == near(0.034, abs=5e-4)


@pytest.mark.parametrize("supposed", [0.2, 0.31, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("values", [[0.1, 0.5, 0.5, 0.9], [0.5, 0.5], [0.25, 0.75, 1.0], [0.0, 0.3]])
def test_the_weights_are_the_most_likely_ones(values: list[float], supposed: float) -> None:
    seen, counts = np.unique(values, return_counts=True)
    support = np.unique([0.0, *values, 1.0])
    weights = np.array([dict(zip(seen, counts, strict=True)).get(v, 0) for v in support], dtype=float)
    found = optimize.minimize(
        lambda w: -float(weights[weights > 0] @ np.log(np.maximum(w[weights > 0], 1e-12))),
        np.full(len(support), 1 / len(support)),
        bounds=[(0, 1)] * len(support),
        constraints=[
            {"type": "eq", "fun": lambda w: w.sum() - 1},
            {"type": "eq", "fun": lambda w: w @ support - supposed},
        ],
        options={"maxiter": 500, "ftol": 1e-13},
    )
    variance = float(found.x @ (support - supposed) ** 2)
    expected = float(len(values) * (np.mean(values) - supposed) ** 2 / variance)
    nearer = np.sign(np.mean(values) - 0.5)
    if np.sign(supposed - np.mean(values)) == nearer:  # and no more than three values' worth away, as all of these are
        ratio = 2 * float(weights[weights > 0] @ np.log(weights[weights > 0] / len(values) / found.x[weights > 0]))
        expected = min(expected, ratio)
    of = Distribution(seen.tolist(), (counts / counts.sum()).tolist())
    assert score_statistic(of, len(values), supposed) == near(expected, rel=2e-3, abs=1e-6)


values_and_bounds = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=30)


@settings(max_examples=300)
@given(values_and_bounds)
def test_an_interval_stays_inside_holds_the_value_and_never_collapses(values: list[float]) -> None:
    e = mean(values, bounds=(0, 1))
    assert 0 <= e.low <= e.value + 1e-9 and e.value - 1e-9 <= e.high <= 1
    assert e.high - e.low > 1 / (len(values) + 4)


@settings(max_examples=300)
@given(values_and_bounds, st.floats(0, 1))
def test_a_mean_is_inside_exactly_where_its_p_value_is_not_below_a_twentieth(
    values: list[float], supposed: float
) -> None:
    found = infer(values, bounds=(0, 1))
    e, p = found.estimate(), found.p(supposed)
    if min(abs(supposed - e.low), abs(supposed - e.high)) > 1e-7:
        assert (p >= 0.05) == (e.low <= supposed <= e.high)


@given(values_and_bounds)
@example([0.23959393677784174] * 4)  # the mean under other weights is a rounding away from theirs
def test_mirrored_values_have_the_mirrored_interval(values: list[float]) -> None:
    e, back = mean(values, bounds=(0, 1)), mean([1 - v for v in values], bounds=(0, 1))
    assert (back.low, back.high) == (near(1 - e.high, abs=1e-7), near(1 - e.low, abs=1e-7))


def test_the_range_is_the_unit() -> None:
    values = [0.1, 0.4, 0.9, 0.2]
    e, scaled = mean(values, bounds=(0, 1)), mean([10 * v - 5 for v in values], bounds=(-5, 5))
    assert (scaled.low, scaled.high) == (near(10 * e.low - 5), near(10 * e.high - 5))
    assert scaled.stderr == near(10 * e.stderr)


def test_more_values_are_worth_more() -> None:
    of = Distribution([0.0, 1.0], [0.5, 0.5])
    narrow, wide = score_interval(of, 400, Z), score_interval(of, 40, Z)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
