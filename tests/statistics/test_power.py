"""Detectable differences and sizes, against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.statistics import paired_difference, plan_size
from tests.statistics.near import near


def test_a_planned_size_finds_what_it_was_planned_for_four_times_of_five() -> None:
    gain, differing = 0.05, 0.2
    n = plan_size(gain, differing - gain**2)
    rng = np.random.default_rng(0)
    chances = [(differing - gain) / 2, 1 - differing, (differing + gain) / 2]
    found = [paired_difference(np.zeros(n), rng.choice([-1.0, 0.0, 1.0], n, p=chances), bounds=(-1, 1)).p < 0.05
             for _ in range(600)]  # fmt: skip
    assert np.mean(found) == near(0.8, abs=0.04)


def test_what_a_comparison_can_detect_is_what_its_size_was_planned_for() -> None:
    n = plan_size(0.05, 0.2)
    ups = round(0.1 * n)
    a, b = np.zeros(n), np.zeros(n)
    a[:ups], b[ups : 2 * ups] = 1, 1
    assert paired_difference(a, b).detectable == near(0.05, rel=0.03)


def test_equal_runs_still_say_what_they_could_show() -> None:
    few, many = (paired_difference([1.0] * n, [1.0] * n).detectable for n in (20, 1000))
    assert 0 < many < 0.01 < few < 0.4
    assert math.isnan(paired_difference([1.0], [1.0], bounds=None).detectable)


def test_samples_average_out_what_lies_within() -> None:
    assert plan_size(0.02, 0.05, within=0.1) == pytest.approx(plan_size(0.02, 0.15), abs=1)
    assert plan_size(0.02, 0.05, within=0.1, samples=10) == pytest.approx(plan_size(0.02, 0.06), abs=1)


def test_nothing_cannot_be_detected() -> None:
    with pytest.raises(ValueError, match="must be above 0, not 0"):
        plan_size(0.0, 0.1)
