"""How small a difference can be shown, and how many examples show one of a wanted size."""

from __future__ import annotations

import math
from statistics import NormalDist

from harness.statistics.arrays import Z, t_quantile
from harness.types import Estimate

POWER = 0.8


def smallest_detectable(estimate: Estimate, freedom: float = math.inf, *, power: float = POWER) -> float:
    """Return the smallest true difference that a test at 5% finds with `power`, given an estimated difference.

    The standard error is read off the interval, which has one even where all examples agree. NaN where there is none.
    Source: E. Miller, arXiv:2411.00640, section 5.
    """
    quantile = t_quantile(freedom) if not math.isnan(freedom) else math.nan
    return (estimate.high - estimate.low) / 2 / quantile * (quantile + NormalDist().inv_cdf(power))


def plan_size(detect: float, between: float, *, within: float = 0.0, samples: int = 1, power: float = POWER) -> int:
    """Return how many examples a paired comparison needs to find a true difference of `detect` with `power` at 5%.

    `between` is the variance over examples of the expected gain, `within` that of one sample's gain about it, which
    `samples` an example average out; for one sample an example only the sum of both counts. ValueError unless `detect`
    is above 0. Assumes independent examples. Source: as above.

    >>> plan_size(0.02, 0.1)  # of ten examples one turns right or wrong
    1963
    """
    return math.ceil((between + within / samples) / _variance_of_mean(detect, power))


def plan_samples(detect: float, n: int, between: float, within: float, *, power: float = POWER) -> int | None:
    """Return how many samples of each of `n` examples find `detect`, as in `plan_size`; None where no number does.

    >>> plan_samples(0.02, 1319, between=0.05, within=0.1), plan_samples(0.02, 1319, between=0.1, within=0.1)
    (6, None)
    """
    left = n * _variance_of_mean(detect, power) - between
    return max(1, math.ceil(within / left)) if left > 0 else None


def variance_shown(detectable: float, n: int, *, power: float = POWER) -> float:
    """Return the variance of an example's gain with which `n` examples find a difference of `detectable`."""
    return n * _variance_of_mean(detectable, power)


def _variance_of_mean(detect: float, power: float) -> float:
    """Return the variance of a mean gain that is found where the true one is `detect`."""
    if not detect > 0:
        raise ValueError(f"the difference to detect must be above 0, not {detect}")
    return (detect / (Z + NormalDist().inv_cdf(power))) ** 2
