"""Differences between paired scores: what they say of one another, against sign flips, and where nothing differs."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics import paired_difference
from tests.statistics.near import near


def test_a_paired_difference_is_what_the_second_gains() -> None:
    e = paired_difference([0, 0, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0]).estimate
    assert (e.value, e.n) == (near(1 / 3), 6)
    assert e.low < e.value < e.high


def test_twenty_gains_of_twenty_keep_a_width() -> None:
    found = paired_difference([0] * 20, [1] * 20)
    assert (found.estimate.value, found.estimate.high) == (1.0, 1.0)
    assert 0.6 < found.estimate.low < 0.8
    half = paired_difference([0] * 12, [0.5] * 12).estimate  # all pairs differ alike
    assert half.value == 0.5 and half.low < 0.45 and half.high > 0.55


def test_equal_runs_differ_by_nothing_that_many_examples_would_show() -> None:
    found = paired_difference([1, 0, 1, 1] * 300, [1, 0, 1, 1] * 300)
    assert (found.estimate.value, found.p) == (0.0, 1.0)
    assert 0 < found.estimate.high < 0.004
    assert found.estimate.low == near(-found.estimate.high)


def test_lengths_must_be_equal() -> None:
    with pytest.raises(ValueError, match="must pair up, but hold 1 and 2 values"):
        paired_difference([1], [1, 0])


scores = st.sampled_from([0.0, 0.25, 1.0])
pairs = st.lists(st.tuples(scores, scores, st.integers(0, 5)), min_size=2, max_size=40)


@given(pairs, st.booleans(), st.booleans(), st.booleans())
def test_a_verdict_is_never_given_where_the_interval_holds_nothing(
    drawn: list[tuple[float, float, int]], sampled: bool, macro: bool, bounded: bool
) -> None:
    a, b, groups = zip(*drawn, strict=True)
    found = paired_difference(a, b, bounds=(0, 1) if bounded else None, groups=groups, sampled=sampled, macro=macro)
    e = found.estimate
    if not math.isnan(e.low) and min(abs(e.low), abs(e.high)) > 1e-7:
        assert (found.p < 0.05) == (e.low > 0 or e.high < 0)
    assert math.isnan(found.p) or 0 <= found.p <= 1


@given(pairs, st.randoms(), st.booleans())
def test_a_paired_difference_knows_no_order(drawn: list[tuple[float, float, int]], chance: Any, sampled: bool) -> None:
    a, b, groups = zip(*drawn, strict=True)
    found, back = (paired_difference(x, y, groups=groups, sampled=sampled) for x, y in ((a, b), (b, a)))
    assert (back.estimate.value, back.p) == (near(-found.estimate.value), near(found.p, abs=1e-7, nan_ok=True))
    assert (back.estimate.low, back.estimate.high) == (
        near(-found.estimate.high, abs=1e-7, nan_ok=True),
        near(-found.estimate.low, abs=1e-7, nan_ok=True),
    )
    chance.shuffle(drawn)
    a, b, groups = zip(*drawn, strict=True)
    again = paired_difference(a, b, groups=groups, sampled=sampled)
    assert again.p == near(found.p, abs=1e-7, nan_ok=True)


def sign_flips(sums: np.ndarray[Any, Any]) -> float:
    """Return the exact two-sided p-value of flipping the signs of groups' sums (Fisher 1935, section 21)."""
    flipped = np.abs(np.array(list(product((-1, 1), repeat=len(sums)))) @ sums)
    return float((flipped >= abs(sums.sum()) * (1 - 1e-12)).mean())


@pytest.mark.parametrize("seed", range(6))
def test_the_test_by_groups_is_about_that_of_flipping_their_signs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(14), 2000)
    shift = rng.normal(0.01 * seed, 0.05, 14)[groups]
    chance = rng.random(len(groups))
    a, b = (chance < 0.5).astype(float), (chance < 0.5 + shift).astype(float)
    sums = np.bincount(groups, weights=b - a)
    assert paired_difference(a, b, groups=groups, sampled=True).p == near(sign_flips(sums), abs=0.05)


def test_groups_that_pull_apart_take_a_verdict_away() -> None:
    # Twelve subjects of a hundred, half of which gain thirty and half lose twenty: 60 more gained than lost.
    a, b, groups = [], [], []
    for subject in range(12):
        up, down = (30, 0) if subject % 2 else (0, 20)
        a += [0] * up + [1] * down + [0] * (100 - up - down)
        b += [1] * up + [0] * down + [0] * (100 - up - down)
        groups += [subject] * 100
    by_example = paired_difference(a, b, groups=groups)
    by_group = paired_difference(a, b, groups=groups, sampled=True)
    assert by_example.p < 0.001 and by_example.estimate.low > 0
    assert by_group.p > 0.3 and by_group.estimate.low < 0 < by_group.estimate.high


def test_differences_of_unknown_range_have_students_interval_and_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=30), rng.normal(0.5, 1, 30)
    found = paired_difference(a, b, bounds=None)
    known = stats.ttest_rel(b, a)
    assert found.p == near(known.pvalue)
    interval = known.confidence_interval()
    assert (found.estimate.low, found.estimate.high) == (near(interval.low), near(interval.high))
