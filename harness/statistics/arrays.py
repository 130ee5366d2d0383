"""What the estimates share: checked arrays, numbered labels, quantiles."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

from harness.types import Estimate

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats: TypeAlias = npt.NDArray[np.float64]
    Ints: TypeAlias = npt.NDArray[np.int64]
    Labels: TypeAlias = Sequence[Hashable] | Ints

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


def finite(values: npt.ArrayLike) -> Floats:
    """Return `values` as a one-dimensional array; ValueError where they are not, or hold NaN or infinity."""
    import numpy as np

    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"values must be one-dimensional, not of shape {x.shape}")
    bad = np.flatnonzero(~np.isfinite(x))
    if len(bad):
        raise ValueError(f"values[{bad[0]}] is {x[bad[0]]}; {len(bad)} of {len(x)} values are not finite")
    return x


def codes(labels: Labels, n: int) -> tuple[Ints, int]:
    """Return each label's number and how many labels there are."""
    import numpy as np

    if len(labels) != n:
        raise ValueError(f"there must be one label a value, but there are {len(labels)} for {n}")
    if isinstance(labels, np.ndarray):
        kinds, places = np.unique(labels, return_inverse=True)
        return places.astype(np.int64), len(kinds)
    numbers: dict[Hashable, int] = {}
    found = np.fromiter((numbers.setdefault(label, len(numbers)) for label in labels), dtype=np.int64, count=n)
    return found, len(numbers)


def constant(x: Floats) -> bool:
    """Whether all values are equal, whatever rounding does to their mean."""
    return bool(x.min() == x.max())


def unknown(value: float, n: int, method: str) -> Estimate:
    """Return an estimate of which nothing but the value is known."""
    return Estimate(value, n, math.nan, math.nan, math.nan, method)


def t_quantile(freedom: float) -> float:
    """Return how many standard errors a two-sided interval reaches; infinite freedom is the normal distribution's."""
    if math.isinf(freedom):
        return Z
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + LEVEL / 2))


def t_tails(t: float, freedom: float) -> float:
    """Return the two-sided p-value of `t` standard errors."""
    if math.isinf(freedom):
        return math.erfc(abs(t) / math.sqrt(2))
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -abs(t)))
