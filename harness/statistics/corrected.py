"""A judge's figure put right by people's labels of some of what it judged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.statistics.arrays import finite
from harness.statistics.means import infer, mean
from harness.types import Estimate

if TYPE_CHECKING:
    import numpy.typing as npt

_METHOD = "prediction-powered"


def corrected_mean(judged: npt.ArrayLike, by_judge: npt.ArrayLike, by_people: npt.ArrayLike) -> Estimate:
    """Estimate the mean that people would give: the judge's on what is not labelled, plus what labels show it to miss.

    `judged` are the judge's scores (0..1) of examples without a label, by_judge[i] and by_people[i] the judge's score
    and the label's of a labelled one. Assumes that the labelled examples were drawn at random, and nothing of the
    judge: one that is often wrong costs width, not truth. The interval adds what both parts' score intervals leave open
    (as squares of their distances), so that labels which all agree do not count as proof. Without labels all is NaN;
    without other examples, it is the labels' own mean.

    Source: A. N. Angelopoulos et al., Science 382 (2023) 669-674, for the estimate; G. Y. Zou and A. Donner, Statistics
    in Medicine 27 (2008) 1693-1702, for the interval. Checked by perf/coverage.py.
    """
    others, first, second = finite(judged), finite(by_judge), finite(by_people)
    if len(first) != len(second):
        raise ValueError(f"by_judge and by_people must pair up, but hold {len(first)} and {len(second)} values")
    n = len(others) + len(first)
    if not len(first):
        return Estimate(math.nan, n, math.nan, math.nan, math.nan, _METHOD)
    if not len(others):
        return mean(second, bounds=(0, 1))
    rest = mean(others, bounds=(0, 1))
    missed = infer(second - first, bounds=(-1, 1)).estimate()
    raw = rest.value + missed.value
    value = min(1.0, max(0.0, raw))
    down = math.hypot(rest.value - rest.low, missed.value - missed.low)
    up = math.hypot(rest.high - rest.value, missed.high - missed.value)
    low, high = min(value, max(0.0, raw - down)), max(value, min(1.0, raw + up))
    return Estimate(value, n, math.hypot(rest.stderr, missed.stderr), low, high, _METHOD)
