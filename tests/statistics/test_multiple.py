"""Several tests at once, against statsmodels' figures."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.statistics import holm
from tests.statistics.near import near


def test_holm_equals_statsmodels() -> None:
    # statsmodels 0.15.0: multipletests(p, method="holm")
    adjusted = holm([0.01, 0.04, 0.03, 0.005, 0.2, 0.04])
    assert adjusted == near([0.05, 0.12, 0.12, 0.03, 0.2, 0.12])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_lowers_keeps_the_order_and_adjusts_the_least_fully(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= x and a <= 1 for a, x in zip(adjusted, p, strict=True))
    by_p = [a for _, a in sorted(zip(p, adjusted, strict=True))]
    assert by_p == sorted(by_p)
    assert by_p[0] == min(1.0, min(p) * len(p))


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_probability(bad: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        holm([0.5, bad])
