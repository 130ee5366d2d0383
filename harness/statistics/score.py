"""The score method for the mean of values in a known range: one statistic for the interval and the p-value.

For a supposed mean m the values are reweighted as little as the likelihood allows so that their mean is m; the ends of
the range count as values that could have come. T(m) = n (mean - m)² / (variance under these weights) is compared with
a squared quantile: m is in the interval exactly where T(m) is no larger, so p < 0.05 exactly where 0 is outside. Values
0 and 1 make this Wilson's interval for a proportion; gains of -1, 0 and 1 make it Tango's for the difference of two
paired proportions, whose test of no difference is McNemar's (without a continuity correction). At the ends of the range
and for equal values the variance under m is not 0, so no interval has lost its width.

`n` is how many independent values the sample is worth: the count, or fewer where values are alike within groups.

Sources: E. B. Wilson, JASA 22 (1927) 209-212; T. Tango, Statistics in Medicine 17 (1998) 891-908; A. B. Owen,
Biometrika 75 (1988) 237-249, for the weights; N. Dean and M. Pagano, Journal of Survey Statistics and Methodology 3
(2015) 484-503, for the effective n in Wilson's interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.statistics.arrays import Floats

_HALVINGS = 44
_ROUNDING = 1e-12  # means this near are the same: that of equal values, which have no variance, may be a rounding off
_FEW = 50  # values that a loop is through before numpy has begun
_WIDEST = 1e9  # how far beyond the range's end the tilt is looked for, in ranges: further away it is no tilt


@dataclass(frozen=True)
class Distribution:
    """Values in [0, 1], ascending, with weights above 0 that sum to 1."""

    values: Sequence[float]
    weights: Sequence[float]

    @cached_property
    def arrays(self) -> tuple[Floats, Floats]:
        """Values and weights, for many of them."""
        import numpy as np

        return np.array(self.values), np.array(self.weights)

    @cached_property
    def mean(self) -> float:
        """The weighted mean."""
        return sum(value * weight for value, weight in zip(self.values, self.weights, strict=True))

    def mirrored(self) -> Distribution:
        """Return the distribution of 1 - value."""
        return Distribution([1 - value for value in reversed(self.values)], self.weights[::-1])


def score_interval(found: Distribution, n: float, critical: float) -> tuple[float, float]:
    """Return the lowest and the highest mean for which the score statistic is at most `critical` squared."""
    low, high = 1 - _highest(found.mirrored(), n, critical**2), _highest(found, n, critical**2)
    return max(0.0, low), min(1.0, high)


def score_statistic(found: Distribution, n: float, mean: float) -> float:
    """Return the score statistic T of a supposed `mean` in [0, 1]: a chi-squared variable of one degree of freedom."""
    at = found.mean
    if math.isclose(mean, at, rel_tol=0, abs_tol=_ROUNDING):
        return 0.0
    if mean < at:
        found, mean, at = found.mirrored(), 1 - mean, 1 - at
    variance = _variance_under(found, mean)
    return n * (mean - at) ** 2 / variance if variance > 0 else math.inf


def _highest(found: Distribution, n: float, bar: float) -> float:
    """Return the highest mean whose statistic is at most `bar`."""
    at = found.mean
    if found.values[0] == 1.0:
        return 1.0

    def within(moments: tuple[float, float]) -> bool:
        mean, variance = moments
        return abs(mean - at) < _ROUNDING or n * (mean - at) ** 2 <= bar * variance

    end_is_seen = found.values[-1] == 1.0
    if not end_is_seen:
        mean, variance = _tilted(found, 1.0)
        if within((mean, variance)):
            share = _last(lambda share: within(_with_end(mean, variance, share)), 0.0, 1.0)
            return _with_end(mean, variance, share)[0]
    # The tilt grows as s falls from afar to the range's end, and the statistic with it.
    power = _last(lambda power: within(_tilted(found, 1 + _WIDEST**-power)), -1.0, 1.5)
    return _tilted(found, 1 + _WIDEST**-power)[0]


def _variance_under(found: Distribution, mean: float) -> float:
    """Return the variance under the weights that have `mean`, which is above the values' own."""
    if found.values[-1] < 1.0:
        at_end, variance = _tilted(found, 1.0)
        if mean >= at_end:
            return _with_end(at_end, variance, (mean - at_end) / (1 - at_end))[1]
    elif mean >= 1.0:
        return 0.0
    power = _last(lambda power: _tilted(found, 1 + _WIDEST**-power)[0] <= mean, -1.0, 1.5)
    return _tilted(found, 1 + _WIDEST**-power)[1]


def _tilted(found: Distribution, s: float) -> tuple[float, float]:
    """Return mean and variance under weights that are the old ones divided by s - value."""
    if len(found.values) > _FEW:
        values, weights = found.arrays
        weights = weights / (s - values)
        weights /= weights.sum()
        centre = float(weights @ values)
        return centre, float(weights @ (values - centre) ** 2)
    total = first = 0.0
    tilted = [weight / (s - value) for value, weight in zip(found.values, found.weights, strict=True)]
    for value, weight in zip(found.values, tilted, strict=True):
        total += weight
        first += weight * value
    mean = first / total
    second = sum(weight * (value - mean) ** 2 for value, weight in zip(found.values, tilted, strict=True))
    return mean, second / total


def _with_end(mean: float, variance: float, share: float) -> tuple[float, float]:
    """Return mean and variance where `share` of the weight moves to 1."""
    return mean + share * (1 - mean), (1 - share) * (variance + share * (1 - mean) ** 2)


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return the last place at which `holds` does, which it does at `low` and from some place on does not."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
