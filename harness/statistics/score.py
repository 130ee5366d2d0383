"""The score method for the mean of values in a known range: one statistic for the interval and the p-value.

For a supposed mean m the values are reweighted as little as the likelihood allows so that their mean is m; the ends of
the range count as values that could have come. T(m) = n (mean - m)² / (variance under these weights) is compared with
a squared quantile: m is in the interval exactly where T(m) is no larger, so p < 0.05 exactly where 0 is outside. Values
0 and 1 make this Wilson's interval for a proportion; gains of -1, 0 and 1 make it Tango's for the difference of two
paired proportions, whose test of no difference is McNemar's (without a continuity correction). At the ends of the range
and for equal values the variance under m is not 0, so no interval has lost its width.

`n` is how many independent values the sample is worth: the count, or fewer where values are alike within groups.

A score interval ends too early on the side of a near end of the range: where one value of n is wrong, Wilson's holds a
rate of 1 - 0.1/n only in 90 of 100 samples. So where no more than three values' worth lie off the nearer end, a mean
between the values' own and that end is held against the likelihood ratio of the same weights too, and the smaller
statistic counts. Of 20 and more values of right and wrong the interval then covers 91.8% at the least.

Sources: E. B. Wilson, JASA 22 (1927) 209-212; T. Tango, Statistics in Medicine 17 (1998) 891-908; A. B. Owen,
Biometrika 75 (1988) 237-249, for the weights and their likelihood ratio; N. Dean and M. Pagano, Journal of Survey
Statistics and Methodology 3 (2015) 484-503, for the effective n in Wilson's interval; L. D. Brown, T. T. Cai and A.
DasGupta, Statistical Science 16 (2001) 101-133, section 4.1.1, who mend Wilson's interval for one to three such values,
by Poisson's distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.statistics.arrays import Floats

#: Values' worth off the nearer end of the range, up to which the likelihood ratio counts on that side.
NEAR = 3.0

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
    low, high = 1 - _Above(found.mirrored(), n).highest(critical**2), _Above(found, n).highest(critical**2)
    return max(0.0, low), min(1.0, high)


def score_statistic(found: Distribution, n: float, mean: float) -> float:
    """Return the score statistic T of a supposed `mean` in [0, 1]: a chi-squared variable of one degree of freedom."""
    at = found.mean
    if math.isclose(mean, at, rel_tol=0, abs_tol=_ROUNDING):
        return 0.0
    return _Above(found, n).statistic(mean) if mean > at else _Above(found.mirrored(), n).statistic(1 - mean)


@dataclass(frozen=True)
class _Reweighted:
    """Mean and variance under other weights, and what these cost: the mean log of the old over the new ones."""

    mean: float
    variance: float
    cost: float

    def with_end(self, share: float) -> _Reweighted:
        """Return the same where `share` of the weight moves to 1."""
        if share >= 1:
            return _Reweighted(1.0, 0.0, math.inf)
        mean = self.mean + share * (1 - self.mean)
        variance = (1 - share) * (self.variance + share * (1 - self.mean) ** 2)
        return _Reweighted(mean, variance, self.cost - math.log1p(-share))


class _Above:
    """The statistic of `n` values' worth of a distribution for means above its own."""

    def __init__(self, found: Distribution, n: float) -> None:
        self._found, self._n, self._at = found, n, found.mean
        self._near = self._at > 0.5 + _ROUNDING and n * (1 - self._at) <= NEAR + _ROUNDING

    def statistic(self, mean: float) -> float:
        """Return the statistic of a supposed mean."""
        return self._of(self._under(mean), mean)

    def highest(self, bar: float) -> float:
        """Return the highest mean whose statistic is at most `bar`."""
        if self._found.values[0] == 1.0:
            return 1.0
        if self._found.values[-1] < 1.0:
            most = _tilted(self._found, 1.0)
            if self._of(most) <= bar:
                return most.with_end(_last(lambda share: self._of(most.with_end(share)) <= bar, 0.0, 1.0)).mean
        # The tilt grows as s falls from afar to the range's end, and the statistic with it.
        return self._by(_last(lambda power: self._of(self._by(power)) <= bar, -1.0, 1.5)).mean

    def _of(self, new: _Reweighted, mean: float | None = None) -> float:
        off = (new.mean if mean is None else mean) - self._at
        if abs(off) < _ROUNDING:
            return 0.0
        score = self._n * off**2 / new.variance if new.variance > 0 else math.inf
        return min(score, 2 * self._n * max(0.0, new.cost)) if self._near else score

    def _under(self, mean: float) -> _Reweighted:
        """Return the likeliest weights that have `mean`."""
        if self._found.values[-1] < 1.0:
            most = _tilted(self._found, 1.0)
            if mean >= most.mean:
                return most.with_end((mean - most.mean) / (1 - most.mean))
        elif mean >= 1.0:
            return _Reweighted(1.0, 0.0, math.inf)
        return self._by(_last(lambda power: self._by(power).mean <= mean, -1.0, 1.5))

    def _by(self, power: float) -> _Reweighted:
        return _tilted(self._found, 1 + _WIDEST**-power)


def _tilted(found: Distribution, s: float) -> _Reweighted:
    """Return what becomes of the weights where each is divided by s - value."""
    if len(found.values) > _FEW:
        import numpy as np

        values, weights = found.arrays
        tilted = weights / (s - values)
        whole = float(tilted.sum())
        tilted /= whole
        centre = float(tilted @ values)
        logs = float(weights @ np.log(s - values))
        return _Reweighted(centre, float(tilted @ (values - centre) ** 2), logs + math.log(whole))
    total = first = cost = 0.0
    parts = []
    for value, weight in zip(found.values, found.weights, strict=True):
        away = s - value
        parts.append(weight / away)
        cost += weight * math.log(away)
        total += parts[-1]
        first += parts[-1] * value
    mean = first / total
    second = sum(part * (value - mean) ** 2 for value, part in zip(found.values, parts, strict=True))
    return _Reweighted(mean, second / total, cost + math.log(total))


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return the last place at which `holds` does, which it does at `low` and from some place on does not."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
