"""Several samples of each example: what one, some or all of k would have done, and where the variance lies.

Each function takes one example's samples and gives that example's figure, an unbiased estimate in 0..1. A benchmark's
figure is its mean over examples (`harness.statistics.mean` with bounds (0, 1)): the example is the unit, and samples
of one example are never counted as independent. Checked against enumeration of all subsets.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy.typing as npt


def pass_at_k(n: int, right: int, k: int) -> float:
    """Return the chance that at least one of `k` samples is right, given that `right` of `n` were.

    It is the share of the subsets of k of the n samples that hold a right one. Raises ValueError unless 1 <= k <= n and
    0 <= right <= n. Source: M. Chen et al., arXiv:2107.03374, section 2.1.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    _check(n, right, k)
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def pass_hat_k(n: int, right: int, k: int) -> float:
    """Return the chance that all of `k` samples are right (pass^k), given that `right` of `n` were.

    Raises ValueError as `pass_at_k` does. Source: S. Yao et al., arXiv:2406.12045, section 4.

    >>> pass_hat_k(4, 2, 2) == 1 / 6
    True
    """
    _check(n, right, k)
    return math.comb(right, k) / math.comb(n, k)


def _check(n: int, right: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and the {n} samples, not {k}")
    if not 0 <= right <= n:
        raise ValueError(f"right must lie between 0 and the {n} samples, not {right}")


def maj_at_k(answers: Sequence[Hashable | None], right: Hashable, k: int) -> float:
    """Return the chance that the commonest answer of `k` samples is `right`, over all subsets of k of `answers`.

    None is no answer: it is drawn like any other, but is nobody's vote. Of answers that are equally common one is drawn
    by lot. Equal answers must be equal objects: normalise them first. Raises ValueError unless 1 <= k <= their number.
    Source: X. Wang et al., arXiv:2203.11171 (self-consistency).

    >>> maj_at_k(["7", "7", "8", None], "7", 4), maj_at_k(["7", "8"], "7", 2)
    (1.0, 0.5)
    """
    n = len(answers)
    _check(n, 0, k)
    counts = Counter(answer for answer in answers if answer is not None)
    own = counts.pop(right, 0) if right is not None else 0
    silent = n - own - counts.total()
    chances = 0.0
    for votes in range(1, min(own, k) + 1):
        ways = _others(list(counts.values()), silent, votes, k - votes)
        wins = sum(number / (ties + 1) for ties, number in ways.items())
        chances += math.comb(own, votes) * wins
    return chances / math.comb(n, k)


def _others(counts: Sequence[int], silent: int, most: int, picks: int) -> dict[int, int]:
    """Return ties → in how many ways `picks` others can be drawn, none of an answer more than `most` times.

    `ties` is how many answers are drawn `most` times. `silent` samples hold no answer and are drawn without limit.
    """
    ways: dict[tuple[int, int], int] = {(0, 0): 1}
    for count in counts:
        more: dict[tuple[int, int], int] = {}
        for (drawn, ties), number in ways.items():
            for votes in range(min(count, most, picks - drawn) + 1):
                key = drawn + votes, ties + (votes == most)
                more[key] = more.get(key, 0) + number * math.comb(count, votes)
        ways = more
    found: dict[int, int] = {}
    for (drawn, ties), number in ways.items():
        if picks - drawn <= silent:
            found[ties] = found.get(ties, 0) + number * math.comb(silent, picks - drawn)
    return found


@dataclass(frozen=True)
class Variance:
    """Where the variance of a sample's score lies: `between` examples, and `within` one, from sample to sample."""

    between: float
    within: float

    @property
    def share_between(self) -> float:
        """The share that lies between examples; NaN where scores do not vary."""
        total = self.between + self.within
        return self.between / total if total > 0 else math.nan


def variance_components(scores: npt.ArrayLike) -> Variance:
    """Split the variance of `scores` (examples, samples), at least two of each, into between and within examples.

    Within is the mean of the examples' variances (ddof = 1); between is the variance of their means less what within
    adds to it, and not below 0. Assumes independent examples. ValueError for any other shape.
    Source: E. Miller, arXiv:2411.00640, section 3.
    """
    import numpy as np

    x = np.asarray(scores, dtype=np.float64)
    if x.ndim != 2 or min(x.shape) < 2:
        raise ValueError(f"scores must be of at least two examples with two samples each, not of shape {x.shape}")
    within = float(x.var(axis=1, ddof=1).mean())
    return Variance(max(0.0, float(x.mean(axis=1).var(ddof=1)) - within / x.shape[1]), within)
