"""Means, by groups too, against scipy, statsmodels' figures and arithmetic by hand."""

from __future__ import annotations

import math
import statistics as standard_library
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics import GroupsAre, clustered_mean, groups_are_sampled, macro_mean, mean
from harness.statistics.means import infer
from harness.types import Estimate
from tests.statistics.near import near

VALUES = [1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0.5, 0.25]
GROUPS = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4]


def test_a_mean_of_unknown_range_has_students_interval() -> None:
    e = mean(VALUES)
    low, high = stats.t.interval(0.95, len(VALUES) - 1, loc=np.mean(VALUES), scale=stats.sem(VALUES))
    assert e.value == near(standard_library.mean(VALUES))
    assert e.stderr == near(standard_library.stdev(VALUES) / math.sqrt(14))
    assert (e.low, e.high) == (near(low), near(high))
    assert (e.n, e.method) == (14, "t")
    assert infer(VALUES).p(0.2) == near(stats.ttest_1samp(VALUES, 0.2).pvalue)


@pytest.mark.parametrize(
    "estimate",
    [mean, lambda x: clustered_mean(x, list(range(len(x)))), lambda x: macro_mean(x, ["one"] * len(x))],
)
def test_nothing_one_value_and_equal_values_of_unknown_range(estimate: Callable[[Sequence[float]], Estimate]) -> None:
    nothing, one, equal = estimate([]), estimate([0.3]), estimate([0.1] * 7)
    assert nothing.n == 0
    assert all(math.isnan(x) for x in (nothing.value, nothing.stderr, nothing.low, nothing.high))
    assert (one.value, one.n) == (0.3, 1)
    assert all(math.isnan(x) for x in (one.stderr, one.low, one.high))
    assert (equal.value, equal.stderr) == (0.1, 0.0)
    assert math.isnan(equal.low) and math.isnan(equal.high)


def test_the_standard_error_is_that_of_the_sample_whatever_the_range() -> None:
    assert mean(VALUES, bounds=(0, 1)).stderr == near(mean(VALUES).stderr)
    one = mean([0.3], bounds=(0, 1))
    assert math.isnan(one.stderr) and 0 < one.low < 0.3 < one.high < 1


@pytest.mark.parametrize(
    ("value", "low", "high"), [(0.0, 0.0, 0.2425), (1.0, 0.7575, 1.0), (0.5, 0.3788, 0.6212)]
)  # twelve losses, wins, ties
def test_equal_scores_keep_a_width(value: float, low: float, high: float) -> None:
    e = mean([value] * 12, bounds=(0, 1))
    assert (e.value, e.low, e.high) == (value, near(low, abs=1e-4), near(high, abs=1e-4))


def test_two_scores_stay_in_their_range() -> None:
    e = mean([0.0, 1.0], bounds=(0, 1))
    assert 0 < e.low < e.value < e.high < 1


@pytest.mark.parametrize(
    ("count", "choice", "sampled"),
    [
        (57, "auto", True),
        (10, "auto", True),
        (9, "auto", False),
        (57, "whole", False),
        (2, "sample", True),
        (1, "sample", False),
    ],
)
def test_groups_are_a_sample_where_that_is_said_or_there_are_enough(
    count: int, choice: GroupsAre, sampled: bool
) -> None:
    assert groups_are_sampled(count, choice) == sampled


def test_one_group_leaves_the_uncertainty_unknown() -> None:
    for bounds in (None, (0.0, 1.0)):
        e = clustered_mean([1, 0, 1], ["a"] * 3, bounds=bounds)
        assert e.value == near(2 / 3)
        assert all(math.isnan(x) for x in (e.stderr, e.low, e.high))


@pytest.mark.parametrize("bad", [[0.0, math.nan, math.inf], [[1.0, 2.0]]])
def test_missing_and_misshapen_values_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"values\[1\] is nan; 2 of 3|one-dimensional"):
        mean(bad)


def test_values_outside_the_range_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 7, outside 0 to 1"):
        mean([0, 7], bounds=(0, 1))


@pytest.mark.parametrize("labels", [["a"], np.array([1])])
def test_labels_must_be_as_many_as_values(labels: list[str]) -> None:
    with pytest.raises(ValueError, match="one label a value, but there are 1 for 2"):
        clustered_mean([1, 0], labels)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40))
def test_groups_of_one_give_the_plain_mean(values: list[float]) -> None:
    e, plain = clustered_mean(values, list(range(len(values)))), mean(values)
    assert (e.value, e.n) == (plain.value, plain.n)
    assert e.stderr == near(plain.stderr, rel=1e-6, abs=1e-9)
    if plain.stderr > 1e-6:
        assert (e.low, e.high) == (near(plain.low, rel=1e-6, abs=1e-6), near(plain.high, rel=1e-6, abs=1e-6))


def test_groups_of_one_size_have_the_t_interval_of_their_means() -> None:
    x = np.random.default_rng(1).normal(size=(12, 5))
    e, of_means = clustered_mean(x.ravel(), [i for i in range(12) for _ in range(5)]), mean(x.mean(axis=1))
    assert (e.value, e.stderr) == (near(of_means.value), near(of_means.stderr))
    assert (e.low, e.high) == (near(of_means.low), near(of_means.high))


def bell_mccaffrey(x: list[float], groups: list[int], among: float) -> tuple[float, float]:
    """Return standard error and degrees of freedom by the matrices of Bell and McCaffrey (2002) for a mean alone.

    Their working covariance has a variance of 1 of each value and of `among` of each group.
    """
    n, labels = len(x), np.array(groups)
    covariance = np.eye(n) + among * (labels[:, None] == labels)
    residual = np.eye(n) - np.ones((n, n)) / n
    contrasts = []
    for label in np.unique(labels):
        rows = labels == label
        part = residual[rows].sum(axis=0) / n  # of a mean, only the sum of a group's residuals counts
        wanted = covariance[np.ix_(rows, rows)].sum() / n**2
        contrasts.append(part * math.sqrt(wanted / (part @ covariance @ part)))
    gram = np.array(contrasts) @ covariance @ np.array(contrasts).T
    variance = sum(float(contrast @ np.array(x)) ** 2 for contrast in contrasts)
    return math.sqrt(variance), float(np.trace(gram) ** 2 / np.trace(gram @ gram))


def ratio_of_variances(x: list[float], groups: list[int]) -> float:
    """Return the variance among groups' means, beside chance, over that within, by the table of scipy's F test."""
    labels = np.array(groups)
    of_each = [np.array(x)[labels == label] for label in np.unique(labels)]
    sizes = np.array([len(one) for one in of_each])
    usual = (len(x) - (sizes**2).sum() / len(x)) / (len(sizes) - 1)
    return max(0.0, float((stats.f_oneway(*of_each).statistic - 1) / usual))


@pytest.mark.parametrize("apart", [0.0, 0.7])  # groups that are alike, and groups that are not
def test_a_clustered_mean_is_bells_and_mccaffreys(apart: float) -> None:
    values = [value + apart * (group % 3) for value, group in zip(VALUES, GROUPS, strict=True)]
    among = ratio_of_variances(values, GROUPS)
    assert (among > 0) == (apart > 0)
    found = infer(values, groups=GROUPS, sampled=True)
    spread, freedom = bell_mccaffrey(values, GROUPS, among)
    assert (found.spread, found.freedom) == (near(spread), near(freedom))
    e = clustered_mean(values, GROUPS)
    half = stats.t.ppf(0.975, freedom) * spread
    assert (e.low, e.high) == (near(np.mean(values) - half), near(np.mean(values) + half))
    assert (e.n, e.method) == (14, "clustered-t, 5 groups")


@pytest.mark.parametrize("macro", [False, True])
def test_the_variance_between_uneven_groups_is_right_on_average(macro: bool) -> None:
    # One group holds half of the values, and groups differ more than values do: leverages alone give 0.7 of it.
    rng, sizes = np.random.default_rng(0), np.array([50, 20, 10, 10, 5, 5])
    labels = np.repeat(np.arange(6), sizes)
    weights = np.full(6, 1 / 6) if macro else sizes / 100
    found = [
        infer(rng.normal(size=100) + rng.normal(size=6)[labels], groups=labels, sampled=True, macro=macro).spread ** 2
        for _ in range(4000)
    ]
    assert np.mean(found) == near(float(weights**2 @ (1 + 1 / sizes)), rel=0.05)


def test_a_bounded_clustered_mean_is_wilsons_of_fewer_values() -> None:
    x, groups = (
        [1, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1] * 2 + [0] * 8,
        [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3] * 2 + [0, 1, 2, 3] * 2,
    )
    e = clustered_mean(x, groups, bounds=(0, 1))
    p, quantile = 1 / 2, stats.t.ppf(0.975, 3)
    worth = p * (1 - p) / clustered_mean(x, groups).stderr ** 2
    for bound in (e.low, e.high):
        assert worth * (p - bound) ** 2 / (bound * (1 - bound)) == near(quantile**2, rel=1e-6)
    assert e.method == "clustered-score, 4 groups"


def test_groups_that_are_alike_by_chance_do_not_let_an_interval_collapse() -> None:
    e = clustered_mean([1, 0] * 6, [i for i in range(6) for _ in range(2)], bounds=(0, 1))
    assert e.value == 0.5
    assert e.high - e.low > 0.2


def test_a_macro_mean_of_unknown_range_counts_each_group_once() -> None:
    # By hand: groups (1, 0), (1, 1, 0, 0): means 0.5 and 0.5; s^2 = 1/2 and 1/3; s^2/n = 1/4 and 1/12.
    e = macro_mean([1, 0, 1, 1, 0, 0], ["a", "a", "b", "b", "b", "b"])
    variance = (1 / 4 + 1 / 12) / 4
    freedom = (1 / 3) ** 2 / ((1 / 4) ** 2 / 1 + (1 / 12) ** 2 / 3)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    assert (e.value, e.n) == (near(0.5), 6)
    assert e.stderr == near(math.sqrt(variance))
    assert (e.low, e.high) == (near(0.5 - half), near(0.5 + half))
    assert macro_mean([1, 1, 1, 0, 1], ["a", "a", "a", "b", "b"]).value == near(0.75)


def test_the_macro_mean_of_two_groups_has_welchs_interval() -> None:
    a, b = [0.2, 0.9, 0.4, 0.7], [3.0, 1.0, 2.5]
    e = macro_mean([*a, *(-x for x in b)], ["a"] * 4 + ["b"] * 3)
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (2 * e.low, 2 * e.high) == (near(welch.low), near(welch.high))


def test_the_macro_mean_of_drawn_groups_is_the_mean_of_their_means() -> None:
    x, groups = [1.0, 0, 1, 1, 0, 0.5], ["a", "a", "b", "b", "c", "c"]
    e, of_means = macro_mean(x, groups, sampled=True), mean([0.5, 1.0, 0.25])
    assert (e.value, e.stderr) == (near(of_means.value), near(of_means.stderr))
    assert (e.low, e.high, e.n) == (near(of_means.low), near(of_means.high), 6)
    uneven = macro_mean([1.0, 0, 0, 1, 1, 0, 0.5], ["a", "a", "a", "b", "b", "c", "c"], sampled=True)
    assert uneven.value == near((1 / 3 + 1.0 + 0.25) / 3)


@pytest.mark.parametrize("sampled", [False, True])
def test_a_bounded_macro_mean_stays_inside_and_keeps_a_width(sampled: bool) -> None:
    groups = ["a"] * 5 + ["b"]
    for x in ([1] * 6, [0] * 6, [1, 1, 1, 1, 1, 0]):
        e = macro_mean(x, groups, bounds=(0, 1), sampled=sampled)
        assert 0 <= e.low <= e.value <= e.high <= 1
        assert e.high - e.low > 0.3
    assert macro_mean([1, 1, 1, 1, 1, 0], groups, bounds=(0, 1)).value == near(0.5)


def test_the_macro_mean_of_groups_of_one_size_is_the_mean() -> None:
    x, groups = [1, 0, 0, 1, 1, 1], ["a", "a", "b", "b", "c", "c"]
    e, plain = macro_mean(x, groups, bounds=(0, 1)), mean(x, bounds=(0, 1))
    assert (e.value, e.low, e.high) == (near(plain.value), near(plain.low), near(plain.high))


def test_a_group_of_one_leaves_the_macro_means_uncertainty_unknown_where_the_range_is() -> None:
    e = macro_mean([1, 0, 1], ["a", "a", "b"])
    assert e.value == 0.75
    assert all(math.isnan(x) for x in (e.stderr, e.low, e.high))
