"""Agreement beyond chance against statsmodels' figures, and an interval that does not collapse."""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np
import pytest

from harness.statistics import cohen_kappa, corrected_mean, mean, paired_difference
from tests.statistics.near import near


# Figures of statsmodels 0.15.0: cohens_kappa(table), kappa and std_kappa, kappa_low, kappa_upp.
@pytest.mark.parametrize(
    ("table", "kappa", "stderr", "low", "high"),
    [
        ([[20, 5], [10, 15]], 0.4, 0.12699606293110033, 0.151092290476661, 0.6489077095233389),
        ([[45, 15], [25, 15]], 0.13043478260869554, 0.0986615376234396, -0.06293827779258965, 0.3238078430099807),
        (
            [[22, 2, 2], [5, 7, 14], [0, 2, 26]],
            0.5278564683663833,
            0.07187336885658112,
            0.3869872539599215,
            0.668725682772845,
        ),
    ],
)
def test_kappa_equals_statsmodels(table: list[list[int]], kappa: float, stderr: float, low: float, high: float) -> None:
    pairs = [(f"label {i}", f"label {j}") for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    e = cohen_kappa([a for a, _ in pairs], [b for _, b in pairs])
    assert (e.value, e.stderr) == (near(kappa), near(stderr))
    assert (e.low, e.high) == (near(low, abs=0.05), near(high, abs=0.05))  # theirs is the normal approximation
    assert e.n == sum(map(sum, table))


def test_kappa_at_its_ends() -> None:
    same = cohen_kappa(["safe", "unsafe", None], ["safe", "unsafe", None])
    assert same.value == near(1.0) and same.high == near(1.0) and same.low < 0.6
    assert cohen_kappa([0, 1] * 10, [1, 0] * 10).value == near(-1.0)
    for undefined in (cohen_kappa([], []), cohen_kappa(["safe"] * 3, ["safe"] * 3)):
        assert math.isnan(undefined.value) and math.isnan(undefined.low)


def test_four_labels_do_not_make_agreement_certain() -> None:
    e = cohen_kappa(["safe", "safe", "unsafe", "unsafe"], ["safe", "safe", "unsafe", "unsafe"])
    assert (e.value, e.high) == (near(1.0), near(1.0))
    assert 0 < e.low < 0.3


def test_neither_the_order_of_items_nor_global_random_state_matters() -> None:
    a: list[Hashable] = ["x", "y", None, "x", "y", "y"]
    b: list[Hashable] = ["x", "y", "x", "y", "y", None]
    np.random.seed(1)
    first = cohen_kappa(a, b)
    np.random.seed(2)
    assert cohen_kappa(a[::-1], b[::-1]) == first


def test_the_interval_is_the_posteriors() -> None:
    # With two labels the prior is 1/2 for each way to agree and 3/8 for each way not to: Dirichlet draws by numpy.
    a, b = [0] * 9 + [1] * 8 + [0, 1, 1], [0] * 9 + [1] * 8 + [1, 0, 0]
    tables = np.random.default_rng(5).dirichlet([9.5, 1.375, 2.375, 8.5], size=200_000)
    agreed = tables[:, 0] + tables[:, 3]
    first, second = tables[:, 0] + tables[:, 1], tables[:, 0] + tables[:, 2]
    chance = first * second + (1 - first) * (1 - second)
    low, high = np.quantile((agreed - chance) / (1 - chance), [0.025, 0.975])
    e = cohen_kappa(a, b)
    assert (e.low, e.high) == (near(low, abs=0.015), near(high, abs=0.01))


def test_labels_must_pair_up() -> None:
    with pytest.raises(ValueError, match="must pair up"):
        cohen_kappa(["x"], [])


def test_labels_put_a_judges_rate_right() -> None:
    # By hand: the judge has 80 of 100 others right; of 20 labelled it calls four right that people do not.
    e = corrected_mean([1] * 80 + [0] * 20, [1] * 14 + [0] * 6, [1] * 10 + [0] * 10)
    assert (e.value, e.n) == (near(0.8 - 0.2), 120)
    rest, missed = mean([1] * 80 + [0] * 20, bounds=(0, 1)), paired_difference([1] * 4 + [0] * 16, [0] * 20).estimate
    assert e.low == near(0.6 - math.hypot(0.8 - rest.low, -0.2 - missed.low))
    assert e.high == near(0.6 + math.hypot(rest.high - 0.8, missed.high + 0.2))
    assert e.stderr == near(math.hypot(rest.stderr, missed.stderr))


def test_labels_that_all_agree_are_no_proof_that_a_judge_is_never_wrong() -> None:
    alone, e = mean([1] * 500 + [0] * 500, bounds=(0, 1)), corrected_mean([1] * 500 + [0] * 500, [1, 0], [1, 0])
    assert e.value == alone.value and e.low < alone.low - 0.2 and e.high > alone.high + 0.2


def test_a_corrected_rate_stays_in_its_range_and_without_others_is_the_labels_own() -> None:
    e = corrected_mean([1] * 50, [0, 0, 1], [1, 1, 1])
    assert (e.value, e.high) == (1.0, 1.0) and 0 <= e.low < 1
    assert corrected_mean([], [0, 1], [1, 1]) == mean([1, 1], bounds=(0, 1))
    assert math.isnan(corrected_mean([1, 0], [], []).value)
    with pytest.raises(ValueError, match="must pair up"):
        corrected_mean([], [1], [])


def test_samples_of_one_example_count_as_one_item() -> None:
    a, b = ["x", "x", "y", "y", "x", "y"], ["x", "y", "y", "x", "x", "y"]
    once = cohen_kappa(a, b)
    often = cohen_kappa([label for label in a for _ in range(8)], [label for label in b for _ in range(8)],
                        groups=[place for place in range(6) for _ in range(8)])  # fmt: skip
    assert often == once
    # Two samples of one example that say different things are half an item each.
    assert cohen_kappa(["x", "x", "y"], ["x", "y", "y"], groups=["one", "one", "two"]).value == near((0.75 - 0.5) / 0.5)
