"""Shares among independent examples, and their difference. Needs nothing but the standard library."""

from __future__ import annotations

import math
from dataclasses import replace

from harness.statistics.arrays import Z
from harness.statistics.score import NEAR, Distribution, score_interval
from harness.types import Estimate


def proportion(successes: float, n: int) -> Estimate:
    """Estimate a proportion from `successes` out of `n`, with Wilson's score interval.

    Where no more than three succeeded, or failed, the bound on that side is the likelihood ratio's, as Wilson's ends
    too early there (`harness.statistics.score`); it is what `mean` gives of zeros and ones. Assumes that examples are
    independent; for those of drawn groups see `clustered_mean`. The standard error is sqrt(p(1-p)/n). With n = 0 the
    value is NaN and the interval [0, 1]: nothing is known. Raises ValueError unless 0 <= successes <= n.
    Source: E. B. Wilson, JASA 22 (1927) 209-212. Checked against scipy and statsmodels.

    >>> e = proportion(60, 80)
    >>> e.value, round(e.low, 4), round(e.high, 4)
    (0.75, 0.6452, 0.8319)
    >>> round(proportion(78, 80).high, 4), round(_wilson(78, 80).high, 4)
    (0.9958, 0.9931)
    """
    found = _wilson(successes, n)
    if not n or min(successes, n - successes) > NEAR or successes in (0, n):
        return found
    values = Distribution([0.0, 1.0], [1 - found.value, found.value])
    low, high = score_interval(values, n, Z)
    return replace(found, low=low, high=high)


def _wilson(successes: float, n: int) -> Estimate:
    """Return the proportion with Wilson's own interval."""
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n = {n}, not {successes}")
    if n == 0:
        return Estimate(math.nan, 0, math.nan, 0.0, 1.0, "wilson")
    p = successes / n
    scale = 1 + Z**2 / n
    centre = (p + Z**2 / (2 * n)) / scale
    half = Z / scale * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    # At the ends the bound is 0 or 1 exactly; rounding would leave it a hair off.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Estimate(p, n, math.sqrt(p * (1 - p) / n), low, high, "wilson")


def share_difference(first: tuple[float, int], second: tuple[float, int]) -> Estimate:
    """Estimate how much larger the `first` share is than the `second`, each given as (successes, n) of other examples.

    Assumes that all examples are independent. The interval adds what Wilson's intervals of both leave open, as squares
    of their distances (method 10): it lies in [-1, 1] and keeps a width at shares of 0 and 1. It is NaN without
    examples on either side. Source: R. G. Newcombe, Statistics in Medicine 17 (1998) 873-890; checked against it.

    >>> e = share_difference((56, 70), (48, 80))
    >>> round(e.value, 4), round(e.low, 4), round(e.high, 4)
    (0.2, 0.0524, 0.3339)
    """
    one, other = _wilson(*first), _wilson(*second)
    value, n = one.value - other.value, one.n + other.n
    if math.isnan(value):
        return Estimate(math.nan, n, math.nan, math.nan, math.nan, "newcombe")
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, n, math.hypot(one.stderr, other.stderr), low, high, "newcombe")
