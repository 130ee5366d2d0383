"""A ratio of two sums over clusters, such as the loss of a token over documents of many tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.statistics.arrays import finite, t_quantile
from harness.types import Estimate

if TYPE_CHECKING:
    import numpy.typing as npt


def clustered_ratio(totals: npt.ArrayLike, weights: npt.ArrayLike) -> Estimate:
    """Return Σ totals / Σ weights, one of each a cluster, with Student's interval of the linearised ratio.

    The clusters are the sample (Cochran, Sampling Techniques, 6.3); of a single one there is no interval.
    """
    x, w = finite(totals), finite(weights)
    n, whole = len(x), float(w.sum())
    value = float(x.sum()) / whole
    method = "ratio of sums over clusters, t"
    if n < 2:
        return Estimate(value, n, math.nan, math.nan, math.nan, method)
    off = x - value * w
    spread = math.sqrt(n / (n - 1) * float(off @ off)) / whole
    half = t_quantile(n - 1) * spread
    return Estimate(value, n, spread, value - half, value + half, method)
