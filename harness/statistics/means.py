"""Means, plain, by groups, and of groups, each with the interval and the test that belong together.

A mean is described by what it weighs (examples alike, or groups alike: the macro average) and by what was drawn: the
examples, or whole groups of them, whose examples are then alike. All else follows: how many independent values the
sample is worth, and the quantile that its variance, itself an estimate, calls for. Values in a known range get the
score method (`harness.statistics.score`), others Student's t.

Checked by perf/coverage.py, whose figures stand in docs/statistics.md, and in tests/statistics against Wilson's and
Tango's closed forms, scipy and statsmodels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.statistics.arrays import codes, constant, finite, t_quantile, t_tails
from harness.statistics.score import Distribution, score_interval, score_statistic
from harness.types import Estimate

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.statistics.arrays import Floats, Ints, Labels

Bounds = tuple[float, float]

#: The least by which the variance can differ from that of as many independent examples at these weights. Groups that
#: were drawn and are alike beyond chance are so by chance, and must not let an interval of few groups collapse. Groups
#: that are the whole are not taken to make a figure surer than its examples do.
_LEAST_EFFECT_DRAWN, _LEAST_EFFECT_WHOLE = 0.1, 1.0


@dataclass(frozen=True)
class Inference:
    """A mean, ready to be asked for its interval and for the p-value of any supposed mean.

    `spread` is the mean's standard error, `freedom` the degrees of freedom of that estimate (infinite: taken as known).
    `found` and `effective` are the values in units of the range and how many independent ones they are worth; None
    where the range is not known.
    """

    value: float
    n: int
    spread: float
    freedom: float
    method: str
    bounds: Bounds | None
    found: Distribution | None = None
    effective: float = math.nan

    def estimate(self) -> Estimate:
        """Return value, standard error and 95% interval."""
        if self.found is not None and self.bounds is not None:
            low, width = self.bounds[0], self.bounds[1] - self.bounds[0]
            ends = score_interval(self.found, self.effective, t_quantile(self.freedom))
            return Estimate(self.value, self.n, self.spread, low + width * ends[0], low + width * ends[1], self.method)
        if not self.spread > 0:  # equal values of unknown range do not say how far another could lie
            return Estimate(self.value, self.n, self.spread, math.nan, math.nan, self.method)
        half = t_quantile(self.freedom) * self.spread
        return Estimate(self.value, self.n, self.spread, self.value - half, self.value + half, self.method)

    def p(self, supposed: float = 0.0) -> float:
        """Return the two-sided p-value of a `supposed` mean: below 0.05 exactly where the interval leaves it out."""
        if self.found is not None and self.bounds is not None:
            scaled = (supposed - self.bounds[0]) / (self.bounds[1] - self.bounds[0])
            return t_tails(math.sqrt(score_statistic(self.found, self.effective, scaled)), self.freedom)
        if math.isnan(self.spread):
            return math.nan
        if self.spread == 0:
            return 1.0 if self.value == supposed else math.nan
        return t_tails((self.value - supposed) / self.spread, self.freedom)


def mean(values: npt.ArrayLike, *, bounds: Bounds | None = None) -> Estimate:
    """Estimate a mean of independent values.

    `bounds` is the metric's own range. With it the interval is the score method's, stays inside and keeps a width
    whatever the values. Without, it is Student's t, which assumes that means are about normal and knows nothing (NaN)
    of one value or of equal ones. No values give NaN throughout. Raises ValueError for values outside `bounds`.

    >>> e = mean([1.0, 2.0, 3.0, 4.0])
    >>> e.value, round(e.stderr, 6), round(e.low, 4), round(e.high, 4)
    (2.5, 0.645497, 0.4457, 4.5543)
    >>> e = mean([0.5] * 12, bounds=(0, 1))
    >>> round(e.low, 3), round(e.high, 3)
    (0.379, 0.621)
    """
    return infer(values, bounds=bounds).estimate()


def clustered_mean(values: npt.ArrayLike, groups: Labels, *, bounds: Bounds | None = None) -> Estimate:
    """Estimate a mean over values whose groups were drawn from more such groups, alike within one.

    The variance is the groups' (sums of residuals squared, each over its leverage), its degrees of freedom are
    Satterthwaite's for groups of these sizes, so that few and uneven groups are allowed for. Fewer than two groups
    leave the uncertainty unknown: NaN.
    Source: R. M. Bell and D. F. McCaffrey, Survey Methodology 28 (2002) 169-181 (CR2, for a mean alone); E. Miller,
    arXiv:2411.00640, section 2.2.
    """
    return infer(values, bounds=bounds, groups=groups, sampled=True).estimate()


def macro_mean(
    values: npt.ArrayLike, groups: Labels, *, bounds: Bounds | None = None, sampled: bool = False
) -> Estimate:
    """Estimate the mean of the groups' means, each group counting the same (MMLU's macro average over subjects).

    `sampled` says that the groups were drawn from more such groups. Otherwise they are the whole, and only the values
    within each were drawn: with `bounds` the score method over all values at the weights they have; without, variances
    within groups and Satterthwaite's degrees of freedom, unknown (NaN) where a group has a single value. `n` counts
    values, not groups. Source: F. E. Satterthwaite, Biometrics Bulletin 2 (1946) 110-114.
    """
    return infer(values, bounds=bounds, groups=groups, sampled=sampled, macro=True).estimate()


def infer(
    values: npt.ArrayLike,
    *,
    bounds: Bounds | None = None,
    groups: Labels | None = None,
    sampled: bool = False,
    macro: bool = False,
) -> Inference:
    """Return the inference on a mean: of examples or, if `macro`, of groups' means; of drawn groups if `sampled`."""
    import numpy as np

    x = finite(values)
    kind = "t" if bounds is None else "score"
    if groups is None:
        groups, sampled, macro = (), False, False
    if len(x) == 0:
        return Inference(math.nan, 0, math.nan, math.nan, kind, None)
    if bounds is not None and not (bounds[0] <= x.min() and x.max() <= bounds[1]):
        raise ValueError(f"values lie between {x.min():g} and {x.max():g}, outside {bounds[0]:g} to {bounds[1]:g}")
    labels, count = codes(groups, len(x)) if sampled or macro else (np.zeros(0, dtype=np.int64), 0)
    weights = np.full(len(x), 1 / len(x))
    if macro:
        weights = 1 / (count * np.bincount(labels)[labels])
    value = float(x[0] if constant(x) else weights @ x if macro else x.mean())
    method = _method(kind, count, sampled=sampled, macro=macro)
    if sampled:
        spread, freedom = _between(x, labels, count, macro=macro)
    elif macro and bounds is None:
        spread, freedom = _within(x, labels, count)
    elif macro:
        spread, freedom = math.sqrt(float(weights**2 @ (x - value) ** 2)), math.inf
    else:
        spread, freedom = _independent(x, bounds)
    if bounds is None or math.isnan(freedom):
        return Inference(value, len(x), spread, freedom, method, None)
    variance = 0.0 if constant(x) else float(weights @ (x - value) ** 2)
    worth, effect = 1 / float(weights @ weights), 1.0
    if variance > 0 and (sampled or macro):
        least = _LEAST_EFFECT_DRAWN if sampled else _LEAST_EFFECT_WHOLE
        effect = max(least, spread**2 * worth / variance)
    if sampled or macro:
        spread = math.sqrt(effect * variance / worth)
    return Inference(value, len(x), spread, freedom, method, bounds, _distribution(x, weights, bounds), worth / effect)


def _method(kind: str, count: int, *, sampled: bool, macro: bool) -> str:
    name = f"macro-{kind}" if macro else kind
    return f"clustered-{name}, {count} groups" if sampled else name


def _independent(x: Floats, bounds: Bounds | None) -> tuple[float, float]:
    """Return standard error and degrees of freedom where each value was drawn by itself.

    The score method's variance is that of the supposed mean, and known with it: its freedom is infinite.
    """
    freedom = len(x) - 1 if bounds is None else math.inf
    if len(x) < 2:
        return math.nan, freedom
    return 0.0 if constant(x) else float(x.std(ddof=1)) / math.sqrt(len(x)), freedom


def _between(x: Floats, labels: Ints, count: int, *, macro: bool) -> tuple[float, float]:
    """Return standard error and degrees of freedom where whole groups were drawn; NaN for fewer than two."""
    import numpy as np

    if count < 2:
        return math.nan, math.nan
    sizes: Floats = np.bincount(labels).astype(np.float64)
    # Measured from one of the values, equal ones have a variance of exactly 0.
    sums = np.bincount(labels, weights=x - x[0]).astype(np.float64)
    inside, among = _components(x - x[0], labels, sums, sizes)
    if inside == among == 0:
        inside = 1.0
    parts = sums / sizes / count if macro else sums / len(x)
    share = np.full(count, 1 / count) if macro else sizes / len(x)
    return spread_between(parts - share * parts.sum(), share, share**2 * (inside / sizes + among))


def spread_between(residuals: Floats, share: Floats, variances: Floats) -> tuple[float, float]:
    """Return standard error and degrees of freedom of a sum over groups, given each one's residual and share of it.

    `variances`, up to a factor, are those that the groups' parts of the sum are taken to have: the squared residuals
    are scaled so that their sum is unbiased where they do, and the degrees of freedom are Satterthwaite's there.
    """
    total = float(variances.sum())
    variances = variances / total if total > 0 else share  # of values so small that their squares are 0
    scale = variances / (variances * (1 - 2 * share) + share**2)
    return math.sqrt(float((scale * residuals**2).sum())), _freedom(share, variances, scale)


def _components(x: Floats, labels: Ints, sums: Floats, sizes: Floats) -> tuple[float, float]:
    """Return the variance within groups and that among their means beside it, by the analysis of variance."""
    n, count = len(x), len(sizes)
    means = sums / sizes
    between = float(sizes @ (means - sums.sum() / n) ** 2) / (count - 1)
    if n == count:
        return between, 0.0
    inside = float(((x - means[labels]) ** 2).sum()) / (n - count)
    usual = (n - float((sizes**2).sum()) / n) / (count - 1)
    return inside, max(0.0, (between - inside) / usual)


def _freedom(share: Floats, variances: Floats, scale: Floats) -> float:
    """Return Satterthwaite's degrees of freedom of the sum of squared residuals, each times its scale.

    The covariance of two residuals is that of parts with these variances, less each one's share of their sum, 1.
    """
    own = variances * (1 - 2 * share) + share**2
    mixed = -2 * share * variances + share**2
    a, b, c = (float(scale @ part) for part in (share**2, variances**2, share * variances))
    squares = 2 * a * b + 2 * c**2 + a**2 - 4 * a * c  # of all covariances, own ones as if mixed
    squares += float(scale**2 @ (own**2 - mixed**2))
    return float(scale @ own) ** 2 / squares


def _within(x: Floats, labels: Ints, count: int) -> tuple[float, float]:
    """Return standard error and degrees of freedom of the mean of means where values were drawn within each group."""
    import numpy as np

    sizes = np.bincount(labels).astype(np.float64)
    if sizes.min() < 2:
        return math.nan, math.nan
    first = x[np.unique(labels, return_index=True)[1]]
    means = first + np.bincount(labels, weights=x - first[labels]) / sizes
    variances = np.bincount(labels, weights=(x - means[labels]) ** 2) / (sizes - 1) / sizes
    total = float(variances.sum())
    if total == 0:
        return 0.0, math.nan
    return math.sqrt(total) / count, total**2 / float((variances**2 / (sizes - 1)).sum())


def _distribution(x: Floats, weights: Floats, bounds: Bounds) -> Distribution:
    import numpy as np

    scaled = np.clip((x - bounds[0]) / (bounds[1] - bounds[0]), 0.0, 1.0)
    kinds, places = np.unique(scaled, return_inverse=True)
    shares = np.bincount(places, weights=weights).astype(np.float64)
    shares /= shares.sum()
    return Distribution(kinds.tolist(), shares.tolist())
