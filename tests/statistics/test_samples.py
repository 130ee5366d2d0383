"""Several samples an example against enumeration of all subsets."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.statistics import maj_at_k, pass_at_k, pass_hat_k, variance_components
from tests.statistics.near import near


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_and_pass_hat_k_equal_enumeration(n: int) -> None:
    for right in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(combinations([True] * right + [False] * (n - right), k))
            some, all_of_them = (sum(map(of, subsets)) / len(subsets) for of in (any, all))
            assert pass_at_k(n, right, k) == near(some, abs=1e-12)
            assert pass_hat_k(n, right, k) == near(all_of_them, abs=1e-12)


@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=8), st.data())
def test_maj_at_k_equals_enumeration(answers: list[str | None], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(answers)))
    chances = []
    for subset in combinations(answers, k):
        votes = Counter(answer for answer in subset if answer is not None)
        first = [answer for answer, count in votes.items() if count == max(votes.values())]
        chances.append(("1" in first) / len(first) if first else 0.0)
    assert maj_at_k(answers, "1", k) == near(sum(chances) / len(chances), abs=1e-12)


def test_maj_at_one_is_the_mean_and_no_answer_is_never_right() -> None:
    answers = ["7", "8", None, "7"]
    assert maj_at_k(answers, "7", 1) == near(0.5) == near(pass_at_k(4, 2, 1))
    assert maj_at_k([None, None], "7", 2) == 0.0
    assert maj_at_k([None, None], None, 2) == 0.0


@pytest.mark.parametrize(("n", "right", "k"), [(3, 1, 0), (3, 1, 4), (3, 4, 1), (3, -1, 1)])
def test_impossible_counts_are_refused(n: int, right: int, k: int) -> None:
    for estimate in (pass_at_k, pass_hat_k):
        with pytest.raises(ValueError, match="must lie between"):
            estimate(n, right, k)


def test_where_the_variance_lies() -> None:
    rng = np.random.default_rng(0)
    rates = rng.beta(1, 1, 4000)  # of variance 1/12 between; within, the mean of p(1-p) is 1/6
    found = variance_components(rng.random((4000, 6)) < rates[:, None])
    assert (found.between, found.within) == (near(1 / 12, abs=0.004), near(1 / 6, abs=0.004))
    assert found.share_between == near(1 / 3, abs=0.015)
    same = variance_components([[1, 1], [0, 0], [1, 1]])
    assert (same.within, same.share_between) == (0.0, 1.0)
    assert np.isnan(variance_components([[1, 1], [1, 1]]).share_between)


@pytest.mark.parametrize("scores", [[1.0, 0.0], [[1.0], [0.0]], [[1.0, 0.0]]])
def test_a_single_sample_or_example_has_no_components(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="at least two examples with two samples"):
        variance_components(scores)
