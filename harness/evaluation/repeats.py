"""From several samples of each example to one figure an example, which is the unit of every interval.

Samples are rows, and `examples` numbers the example of each from 0 on, rows of one example together. A value that is
not known is NaN.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.runs.columns import NO_ANSWER
from harness.statistics import maj_at_k, pass_at_k, pass_hat_k, variance_components
from harness.types import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.statistics import Variance

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

#: The names of figures of several samples an example.
OF_SEVERAL = re.compile(r"(pass|maj)[@^]\d+$")

#: What every right answer counts as; other answers are numbered from 0 on.
_RIGHT = -2


def example_means(values: Floats, examples: Ints) -> Floats:
    """Return the mean of each example's known values, NaN where it has none.

    >>> example_means(np.array([1, 0, np.nan, 1]), np.array([0, 0, 1, 2])).tolist()
    [0.5, nan, 1.0]
    """
    known, count = ~np.isnan(values), _count(examples)
    sums, drawn = np.bincount(examples[known], values[known], count), np.bincount(examples[known], minlength=count)
    means: Floats = np.where(drawn > 0, sums / np.maximum(drawn, 1), np.nan)
    return means


def ladder(samples: int) -> list[int]:
    """Return the numbers of samples that figures are given for: 1, 2, 4 … and all.

    >>> ladder(1), ladder(4), ladder(6)
    ([1], [1, 2, 4], [1, 2, 4, 6])
    """
    return sorted({*(1 << power for power in range(samples.bit_length())), samples})


def of_right_and_wrong(scores: Mapping[str, Floats]) -> Floats | None:
    """Return the first of `scores` that says of all samples right (1) or wrong (0), None where none does."""
    for values in scores.values():
        known = values[~np.isnan(values)]
        if len(known) and np.isin(known, (0, 1)).all():
            return values
    return None


def right_among(values: Floats, examples: Ints, samples: int, votes: Ints | None = None) -> dict[str, Floats]:
    """Return ``pass@k``, ``pass^K`` and, where there are `votes`, ``maj@K``: a value an example, K being `samples`.

    `values` are 1 for right, 0 for wrong. An example of which fewer samples are known than a figure takes has no value.
    A right answer is the same vote as any other right one, however it is written.
    """
    known, count = ~np.isnan(values), _count(examples)
    drawn = np.bincount(examples[known], minlength=count)
    right = np.bincount(examples[known], values[known], count).astype(np.int64)
    found = {f"pass@{k}": _looked_up(pass_at_k, drawn, right, k) for k in ladder(samples)}
    found[f"pass^{samples}"] = _looked_up(pass_hat_k, drawn, right, samples)
    if votes is not None:
        cast = np.where(values == 1, _RIGHT, votes)[known]
        found[f"maj@{samples}"] = _majority(np.split(cast, np.cumsum(drawn)[:-1]), samples)
    return found


def _count(examples: Ints) -> int:
    return int(examples[-1]) + 1 if len(examples) else 0


def _looked_up(figure: Callable[[int, int, int], float], drawn: Ints, right: Ints, k: int) -> Floats:
    """Return a figure of each example, made once for each pair of counts."""
    pairs, places = np.unique(np.stack([drawn, right]), axis=1, return_inverse=True)
    figures = [figure(n, hits, k) if n >= k else math.nan for n, hits in pairs.T.tolist()]
    return np.array(figures, dtype=np.float64)[places.ravel()]


def _majority(votes: Sequence[Ints], samples: int) -> Floats:
    @cache  # as many examples have the same votes
    def figure(of_one: tuple[int, ...]) -> float:
        if len(of_one) < samples:
            return math.nan
        return maj_at_k([None if vote == NO_ANSWER else vote for vote in of_one], _RIGHT, samples)

    return np.array([figure(tuple(sorted(of_one.tolist()))) for of_one in votes], dtype=np.float64)


def variance_of(values: Floats, examples: Ints, samples: int) -> Variance | None:
    """Return where the variance of `values` lies, over the examples that all samples are known of; None below two."""
    known = ~np.isnan(values)
    whole = np.bincount(examples[known], minlength=_count(examples)) == samples
    if samples < 2 or whole.sum() < 2:
        return None
    return variance_components(values[whole[examples]].reshape(-1, samples))


def averaged(estimates: Sequence[Mapping[str, Estimate]]) -> dict[str, Estimate]:
    """Return the mean over repeats of figures that are no means over samples, each of the estimates being one repeat's.

    Standard errors and ends of intervals are averaged too. A mean of figures is never less certain than they are on
    average, so that this interval is wide enough whatever the repeats have in common. One repeat's stay as they are.
    """
    if len(estimates) == 1:
        return dict(estimates[0])
    names = dict.fromkeys(name for each in estimates for name in each)
    found = {}
    for name in names:
        same = [each[name] for each in estimates if name in each and not math.isnan(each[name].value)]
        if same:
            parts = ((one.value, one.stderr, one.low, one.high) for one in same)
            value, stderr, low, high = (float(np.mean(part)) for part in zip(*parts, strict=True))
            n = max(one.n for one in same)
            found[name] = Estimate(value, n, stderr, low, high, f"mean of {len(same)} repeats, {same[0].method}")
        else:
            found[name] = next(each[name] for each in estimates if name in each)
    return found


def averaged_details(details: Sequence[Any]) -> Any:
    """Return the mean over repeats of JSON data of one shape, number by number; None counts as not known."""
    known = [each for each in details if each is not None]
    if not known:
        return None
    if isinstance(known[0], Mapping):
        names = dict.fromkeys(name for each in known for name in each)
        return {name: averaged_details([each.get(name) for each in known]) for name in names}
    if isinstance(known[0], list | tuple):
        return [averaged_details(part) for part in zip(*known, strict=True)]
    return sum(known) / len(known)
