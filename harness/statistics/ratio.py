"""A ratio of two sums over clusters, such as the loss of a token over documents of many tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.statistics.arrays import finite, t_quantile
from harness.statistics.means import spread_between
from harness.types import Estimate

if TYPE_CHECKING:
    import numpy.typing as npt


def clustered_ratio(totals: npt.ArrayLike, weights: npt.ArrayLike) -> Estimate:
    """Return Σ totals / Σ weights, one of each a cluster, with Student's interval of the linearised ratio.

    The clusters are the sample (W. G. Cochran, Sampling Techniques, 1977, section 6.3). Their ratios are taken to vary
    alike whatever their weights: residuals are scaled, and degrees of freedom counted, as in `clustered_mean`, so that
    few clusters of uneven weights have the wide interval that they deserve. Of a single one, and of equal ratios, which
    do not say how far another could lie, there is no interval.
    """
    x, w = finite(totals), finite(weights)
    n, whole = len(x), float(w.sum())
    value = float(x.sum()) / whole
    method = "ratio of sums over clusters, t"
    if n < 2:
        return Estimate(value, n, math.nan, math.nan, math.nan, method)
    share = w / whole
    spread, freedom = spread_between(x / whole - value * share, share, share**2)
    if spread <= 1e-12 * abs(value):
        return Estimate(value, n, 0.0, math.nan, math.nan, method)
    half = t_quantile(freedom) * spread
    return Estimate(value, n, spread, value - half, value + half, method)
