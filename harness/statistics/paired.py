"""What one of two gains over the other, where both have a score for the same examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.statistics.arrays import finite
from harness.statistics.means import Bounds, infer
from harness.statistics.power import smallest_detectable
from harness.types import Estimate

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.statistics.arrays import Labels


@dataclass(frozen=True)
class PairedDifference:
    """A mean gain with its 95% interval, and the two-sided p-value of no gain: below 0.05 exactly where 0 is outside.

    `detectable` is the smallest true gain that as many examples, as different as these, would show with 80% power.
    """

    estimate: Estimate
    p: float
    detectable: float


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    bounds: Bounds | None = (0.0, 1.0),
    groups: Labels | None = None,
    sampled: bool = False,
    macro: bool = False,
) -> PairedDifference:
    """Estimate mean(b) - mean(a), what `b` gains over `a`, where a[i] and b[i] are two scores of the same example.

    It is the mean of the gains b[i] - a[i], inferred on as any other (`harness.statistics.means`): `bounds` is the
    range of the scores, None where there is none; `groups`, whether they were `sampled` and `macro` are as there. For
    scores of right and wrong the test is McNemar's and the interval Tango's; with groups that were drawn both are the
    same with the groups' variance. Neither the order of the pairs nor, but for the sign, which of the two comes first
    makes a difference. Raises ValueError when the lengths differ.

    Source: T. Tango, Statistics in Medicine 17 (1998) 891-908; recommended by M. W. Fagerland, S. Lydersen and P.
    Laake, Statistics in Medicine 33 (2014) 2850-2875.

    >>> found = paired_difference([0] * 12, [1] * 12)
    >>> found.estimate.value, round(found.estimate.low, 3), found.estimate.high, round(found.p, 4)
    (1.0, 0.515, 1.0, 0.0005)
    """
    first, second = finite(a), finite(b)
    if len(first) != len(second):
        raise ValueError(f"a and b must pair up, but hold {len(first)} and {len(second)} values")
    width = None if bounds is None else bounds[1] - bounds[0]
    found = infer(
        second - first, bounds=None if width is None else (-width, width), groups=groups, sampled=sampled, macro=macro
    )
    estimate = found.estimate()
    return PairedDifference(estimate, found.p(), smallest_detectable(estimate, found.freedom))
