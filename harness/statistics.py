"""Estimates with honest uncertainty: intervals for one run, paired tests for two.

Every function takes plain sequences or arrays and gives an `Estimate` in the unit of what it was given (proportions in
0..1), with a 95% interval, or a p-value. Where the data cannot say how uncertain a figure is (no value, one value, one
cluster), standard error and interval are NaN, never zero; the interval of a proportion over nothing is [0, 1]. Where
all values are equal, standard error is 0 and the interval has no width: right for the formula, and a reason to use
`proportion`, whose interval never shrinks to nothing, for figures of right and wrong. NaN and infinite values are
refused with ValueError: whoever calls decides what a missing score means.

Nothing here draws on global random state: the same seed gives the same interval. numpy and scipy are imported by the
functions that need them; a proportion needs neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from harness.types import Estimate

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats: TypeAlias = npt.NDArray[np.float64]

#: Takes an array and ``axis``, and reduces that axis, as `numpy.median` does.
Statistic: TypeAlias = Callable[..., Any]

LEVEL = 0.95
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
_UNBOUNDED = (-math.inf, math.inf)
_BATCH = 4_000_000  # values resampled at a time, which bounds the memory


def proportion(successes: float, n: int) -> Estimate:
    """Estimate a proportion from `successes` out of `n`, with Wilson's score interval.

    The standard error is sqrt(p(1-p)/n). With n = 0 the value is NaN and the interval [0, 1]: nothing is known.
    Raises ValueError unless 0 <= successes <= n. Source: E. B. Wilson, JASA 22 (1927) 209-212.

    >>> e = proportion(8, 10)
    >>> e.value, round(e.low, 4), round(e.high, 4)
    (0.8, 0.4902, 0.9433)
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n = {n}, not {successes}")
    if n == 0:
        return Estimate(math.nan, 0, math.nan, 0.0, 1.0, "wilson")
    p = successes / n
    scale = 1 + _Z**2 / n
    centre = (p + _Z**2 / (2 * n)) / scale
    half = _Z / scale * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    # At the ends the bound is 0 or 1 exactly; rounding would leave it a hair off.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Estimate(p, n, math.sqrt(p * (1 - p) / n), low, high, "wilson")


def mean(values: npt.ArrayLike, *, bounds: tuple[float, float] = _UNBOUNDED) -> Estimate:
    """Estimate a mean with Student's t interval; the standard error uses the sample deviation (ddof = 1).

    `bounds` is the metric's own range, to which the interval is cut. With no value everything is NaN; with one, the
    standard error and the interval are.

    >>> e = mean([1.0, 2.0, 3.0, 4.0])
    >>> e.value, round(e.stderr, 6), round(e.low, 4), round(e.high, 4)
    (2.5, 0.645497, 0.4457, 4.5543)
    """
    x = _finite(values)
    if len(x) < 2:
        return _unknown(x, "t")
    return _t_interval(float(x.mean()), len(x), _deviation(x) / math.sqrt(len(x)), len(x) - 1, "t", bounds)


def clustered_mean(
    values: npt.ArrayLike, clusters: Sequence[Hashable], *, bounds: tuple[float, float] = _UNBOUNDED
) -> Estimate:
    """Estimate a mean over values that come in clusters and are alike within one, such as questions on one text.

    The variance is C/(C-1) * sum over clusters of (sum of residuals)^2 / n^2, the interval Student's t with C-1 degrees
    of freedom; clusters of one value each give `mean`. Clusters are taken as drawn from a larger population: for groups
    that are the whole population, see `macro_mean`. With fewer than two clusters, standard error and interval are NaN.
    Source: K.-Y. Liang and S. L. Zeger, Biometrika 73 (1986) 13-22; E. Miller, arXiv:2411.00640, section 2.2.
    """
    import numpy as np

    x = _finite(values)
    codes, count = _codes(clusters, len(x))
    if count < 2:
        return _unknown(x, "clustered-t")
    residuals = np.bincount(codes, weights=x - x.mean())
    variance = count / (count - 1) * float(residuals @ residuals) / len(x) ** 2
    spread = 0.0 if _deviation(x) == 0 else math.sqrt(variance)
    return _t_interval(float(x.mean()), len(x), spread, count - 1, "clustered-t", bounds)


def macro_mean(
    values: npt.ArrayLike, groups: Sequence[Hashable], *, bounds: tuple[float, float] = _UNBOUNDED
) -> Estimate:
    """Estimate the mean of the groups' means, each group counting the same (MMLU's macro average over subjects).

    The groups are fixed and the values within each are a sample: the variance is the sum of s_g^2 / n_g over the
    groups, divided by G^2, the interval Student's t with Welch-Satterthwaite's degrees of freedom. A group of one
    value has no deviation to measure, so standard error and interval are then NaN. `n` counts values, not groups.
    Source: F. E. Satterthwaite, Biometrics Bulletin 2 (1946) 110-114.
    """
    import numpy as np

    x = _finite(values)
    codes, count = _codes(groups, len(x))
    if count == 0:
        return _unknown(x, "stratified-t")
    sizes = np.bincount(codes)
    first = x[np.unique(codes, return_index=True)[1]]  # measured from here, equal values have a deviation of exactly 0
    means = first + np.bincount(codes, weights=x - first[codes]) / sizes
    value = float(means.mean())
    if sizes.min() < 2:
        return Estimate(value, len(x), math.nan, math.nan, math.nan, "stratified-t")
    squares = np.bincount(codes, weights=(x - means[codes]) ** 2)
    variances = squares / (sizes - 1) / sizes
    total = float(variances.sum())
    freedom = total**2 / float((variances**2 / (sizes - 1)).sum()) if total > 0 else math.nan
    return _t_interval(value, len(x), math.sqrt(total) / count, freedom, "stratified-t", bounds)


def bootstrap(
    values: npt.ArrayLike,
    statistic: Statistic,
    seed: int,
    *,
    clusters: Sequence[Hashable] | None = None,
    replicates: int = 2000,
    method: Literal["percentile", "bca"] = "percentile",
) -> Estimate:
    """Estimate any statistic of a sample by resampling it, or its clusters, with replacement.

    `statistic(sample, axis=-1)` reduces the last axis, like `numpy.median`; it is given many resamples at a time, or
    one at a time where there are clusters, whose resamples differ in length. The standard error is the replicates'
    deviation (ddof = 1). Fewer than two values or clusters give NaN. On small samples of long-tailed values both
    intervals are somewhat narrow; ``bca`` is undefined (NaN, with scipy's DegenerateDataWarning) where the replicates
    do not vary. Computed by `scipy.stats.bootstrap`.
    Source: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 14.
    """
    import numpy as np

    x = _finite(values)
    codes, count = (np.arange(len(x)), len(x)) if clusters is None else _codes(clusters, len(x))
    label = f"bootstrap-{method}"
    if len(x) == 0:
        return _unknown(x, label)
    value = float(statistic(x, axis=-1))
    if count < 2:
        return Estimate(value, len(x), math.nan, math.nan, math.nan, label)
    if _deviation(x) == 0:
        return Estimate(value, len(x), 0.0, value, value, label)
    from scipy.stats import bootstrap as resample

    sample: npt.NDArray[Any]
    of_sample: Statistic
    if clusters is None:
        sample, of_sample, vectorized = x, statistic, True
    else:
        members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
        sample, vectorized = np.arange(count), False

        def of_clusters(drawn: npt.NDArray[np.int64], axis: int = -1) -> Any:
            return statistic(x[np.concatenate([members[i] for i in drawn])], axis=axis)

        of_sample = of_clusters

    with np.errstate(invalid="ignore", divide="ignore"):  # scipy says what it means with a warning of its own
        result = resample(
            (sample,),
            of_sample,
            n_resamples=replicates,
            batch=max(1, _BATCH // len(x)),
            vectorized=vectorized,
            axis=-1,
            confidence_level=LEVEL,
            method={"percentile": "percentile", "bca": "BCa"}[method],
            rng=np.random.default_rng(seed),
        )
    low, high = result.confidence_interval
    return Estimate(value, len(x), float(result.standard_error), float(low), float(high), label)


def paired_bootstrap(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    seed: int,
    clusters: Sequence[Hashable] | None = None,
    *,
    replicates: int = 10_000,
) -> Estimate:
    """Estimate mean(b) - mean(a), what `b` gains over `a`, where a[i] and b[i] are two scores of the same example.

    Pairs, or whole clusters of pairs, are resampled with replacement. The interval is the expanded percentile interval
    of the difference: resamples of n pairs or clusters vary less than samples do, by (n-1)/n and by what Student's t
    has over the normal, so percentiles further out are taken (with n = 1000, the ordinary ones). The standard error is
    the replicates' deviation times sqrt(n/(n-1)). Neither the order of the pairs nor, but for the sign, which of the
    two comes first makes a difference. Equal scores give 0 with an interval of no width. Fewer than two pairs or
    clusters give NaN; with fewer than about ten clusters, or ten pairs that differ, it is too narrow.
    Raises ValueError when the lengths differ. Source: Efron and Tibshirani (1993), sections 8.3 and 13.3; T. C.
    Hesterberg, The American Statistician 69 (2015) 371-386, section 4.2.
    """
    import numpy as np

    first, second = _finite(a), _finite(b)
    if len(first) != len(second):
        raise ValueError(f"a and b must pair up, but hold {len(first)} and {len(second)} values")
    gains = second - first
    codes, count = (np.arange(len(gains)), len(gains)) if clusters is None else _codes(clusters, len(gains))
    if count < 2:
        return _unknown(gains, "paired-bootstrap")
    value = float(gains.mean())
    if _deviation(gains) == 0:
        return Estimate(value, len(gains), 0.0, value, value, "paired-bootstrap")
    sign = -1.0 if value < 0 else 1.0  # resampled the same whichever comes first
    units = np.stack([np.bincount(codes, weights=sign * gains), np.bincount(codes).astype(np.float64)], axis=1)
    means = _resampled_means(units, replicates, np.random.default_rng(seed))
    tail = _expanded_tail(count)
    low, high = sorted(sign * np.quantile(means, [tail, 1 - tail]))
    stderr = _deviation(means) * math.sqrt(count / (count - 1))
    return Estimate(value, len(gains), stderr, float(low), float(high), "paired-bootstrap")


def _expanded_tail(n: int) -> float:
    """Return the share of resamples of `n` units to leave out at either end."""
    from scipy.special import stdtrit

    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * float(stdtrit(n - 1, 0.5 + LEVEL / 2)))


def sign_flip(gains: npt.ArrayLike, seed: int, *, replicates: int = 10_000) -> float:
    """Return the two-sided p-value of the hypothesis that each of `gains` is as likely as its negative.

    That is what holds for paired differences where it makes no odds which of the two is which. `replicates` random
    choices of signs are drawn; p is the share of them, the given one included, whose sum is as far from 0 as the given
    one's. For gains of -1, 0 and 1 it approaches `mcnemar`. No gain but 0 gives 1.
    Source: R. A. Fisher, The Design of Experiments (1935), section 21; B. Phipson and G. K. Smyth, Statistical
    Applications in Genetics and Molecular Biology 9 (2010), article 39.
    """
    import numpy as np

    x = _finite(gains)
    sizes, counts = np.unique(np.abs(x[x != 0]), return_counts=True)
    if len(sizes) == 0:
        return 1.0
    bar = abs(float(x.sum())) * (1 - 1e-12)  # so that rounding does not part equal sums
    rng = np.random.default_rng(seed)
    batch = max(1, _BATCH // len(sizes))
    beyond = 0
    for start in range(0, replicates, batch):
        positive = rng.binomial(counts, 0.5, size=(min(batch, replicates - start), len(sizes)))
        beyond += int((np.abs((2 * positive - counts) @ sizes) >= bar).sum())
    return (beyond + 1) / (replicates + 1)


def mcnemar(b: int, c: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    `b` and `c` count the pairs in which only the first, and only the second, was right; under the null hypothesis each
    such pair falls either way like a fair coin. No such pair gives 1. Source: Q. McNemar, Psychometrika 12 (1947)
    153-157.

    >>> mcnemar(1, 6)
    0.125
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts must not be negative: b = {b}, c = {c}")
    if b == c:
        return 1.0
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for testing several hypotheses at once, in the order given (Holm's step-down).

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection at most alpha, whatever
    the tests' dependence. Raises ValueError for a value outside [0, 1] or NaN.
    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"a p-value must lie in [0, 1], not {p}")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def cohen_kappa(a: Sequence[Hashable], b: Sequence[Hashable]) -> Estimate:
    """Estimate how far two raters agree beyond chance: 1 is perfect agreement, 0 what chance alone gives.

    a[i] and b[i] are the two labels of one item; any hashable values. The standard error and the normal interval (cut
    to [-1, 1]) are asymptotic. No items, or a single label used throughout by both, leave kappa undefined: NaN.
    Source: J. Cohen, Educational and Psychological Measurement 20 (1960) 37-46; J. L. Fleiss, J. Cohen and B. S.
    Everitt, Psychological Bulletin 72 (1969) 323-327.
    """
    import numpy as np

    if len(a) != len(b):
        raise ValueError(f"a and b must pair up, but hold {len(a)} and {len(b)} labels")
    n = len(a)
    codes, count = _codes([*a, *b], 2 * n)
    if count < 2:
        return Estimate(math.nan, n, math.nan, math.nan, math.nan, "asymptotic")
    table = np.zeros((count, count))
    np.add.at(table, (codes[:n], codes[n:]), 1 / n)
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    agreed, by_chance = float(np.trace(table)), float(rows @ columns)
    kappa = (agreed - by_chance) / (1 - by_chance)
    off_diagonal = table - np.diag(np.diag(table))
    on = float(np.diag(table) @ (1 - (rows + columns) * (1 - kappa)) ** 2)
    off = (1 - kappa) ** 2 * float((off_diagonal * (columns[:, None] + rows[None, :]) ** 2).sum())
    variance = (on + off - (kappa - by_chance * (1 - kappa)) ** 2) / (1 - by_chance) ** 2 / n
    stderr = math.sqrt(max(0.0, variance))
    return Estimate(kappa, n, stderr, max(-1.0, kappa - _Z * stderr), min(1.0, kappa + _Z * stderr), "asymptotic")


def _finite(values: npt.ArrayLike) -> Floats:
    import numpy as np

    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"values must be one-dimensional, not of shape {x.shape}")
    bad = np.flatnonzero(~np.isfinite(x))
    if len(bad):
        raise ValueError(f"values[{bad[0]}] is {x[bad[0]]}; {len(bad)} of {len(x)} values are not finite")
    return x


def _codes(labels: Sequence[Hashable], n: int) -> tuple[npt.NDArray[np.int64], int]:
    """Return each label's number, in order of first appearance, and how many labels there are."""
    import numpy as np

    if len(labels) != n:
        raise ValueError(f"there must be one label a value, but there are {len(labels)} for {n}")
    numbers: dict[Hashable, int] = {}
    codes = np.fromiter((numbers.setdefault(label, len(numbers)) for label in labels), dtype=np.int64, count=n)
    return codes, len(numbers)


def _deviation(x: Floats) -> float:
    """Return the sample deviation, exactly 0 where all values are equal, whatever rounding does to their mean."""
    return 0.0 if x.min() == x.max() else float(x.std(ddof=1))


def _unknown(x: Floats, method: str) -> Estimate:
    value = float(x.mean()) if len(x) else math.nan
    return Estimate(value, len(x), math.nan, math.nan, math.nan, method)


def _t_interval(
    value: float, n: int, stderr: float, freedom: float, method: str, bounds: tuple[float, float]
) -> Estimate:
    if stderr == 0:
        return Estimate(value, n, 0.0, value, value, method)
    from scipy.special import stdtrit

    half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * stderr
    return Estimate(value, n, stderr, max(bounds[0], value - half), min(bounds[1], value + half), method)


def _resampled_means(units: Floats, replicates: int, rng: np.random.Generator) -> Floats:
    """Return the means of resamples of `units`, rows of (sum, size), drawn with replacement.

    How often each kind of unit turns up in a resample is multinomial. Scores of right and wrong have three kinds of
    difference, so drawing kinds gives ten thousand resamples of any number of pairs in no time.
    """
    import numpy as np

    kinds, counts = np.unique(units, axis=0, return_counts=True)
    units = np.repeat(kinds, counts, axis=0)  # in an order of their own, whatever the one given
    few = 8 * len(kinds) <= len(units)
    batch = max(1, _BATCH // (len(kinds) if few else len(units)))
    means = np.empty(replicates)
    for start in range(0, replicates, batch):
        size = min(batch, replicates - start)
        if few:
            draws = rng.multinomial(len(units), counts / len(units), size=size).astype(np.float64)
            sums, sizes = (draws @ kinds).T
        else:
            picks = rng.integers(len(units), size=(size, len(units)))
            sums, sizes = units[:, 0][picks].sum(axis=1), units[:, 1][picks].sum(axis=1)
        means[start : start + size] = sums / sizes
    return means
