"""What each sample adds to a metric that is a mean over samples: what the scorer makes of the sample alone."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness.calls import estimates_of
from harness.interfaces import Scorer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_TOLERANCE = 1e-9


def by_sample(columns: Mapping[str, Floats], rows: Ints, scorer: Scorer) -> Mapping[str, Floats]:
    """Return metric → a value for each row of `columns` that is in `rows`, NaN for others and where it has none."""
    if not columns:
        return {}
    table = np.stack(list(columns.values()), axis=1)
    alike: dict[bytes, list[int]] = {}
    for row in rows.tolist():
        alike.setdefault(table[row].tobytes(), []).append(row)
    found: dict[str, Floats] = {}
    for key, places in alike.items():
        one = {name: array("d", [value]) for name, value in zip(columns, np.frombuffer(key), strict=True)}
        for name, estimate in estimates_of(scorer, one).items():
            found.setdefault(name, np.full(len(table), np.nan))[places] = estimate.value
    return found


def is_mean(values: Floats, value: float | None, n: int) -> bool:
    """Whether a metric with this `value` over `n` samples is the mean of what each of them alone gives."""
    known = values[~np.isnan(values)]
    if value is None or math.isnan(value) or not len(known):
        return (value is None or math.isnan(value)) and not len(known)
    return len(known) == n and math.isclose(float(known.mean()), value, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def range_of(values: Floats) -> tuple[float, float] | None:
    """Return the range of scores: 0 to 1 where all lie in it, else None, as nothing says what it is."""
    return (0.0, 1.0) if len(values) and values.min() >= 0 and values.max() <= 1 else None
