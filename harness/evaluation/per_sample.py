"""Metrics sample by sample: what each sample adds to a figure that is a mean over samples."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness.evaluation.recorded import Recorded
from harness.interfaces import Scorer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: The end of a metric's name that makes it the mean of the groups' means.
MACRO = "_macro"

_TOLERANCE = 1e-9


def per_sample(run: Recorded, reader: str, scorer: Scorer) -> Mapping[str, Floats]:
    """Return metric → a score a sample, NaN where the metric leaves the sample out, for one parser or judge.

    A score is what the scorer makes of the sample alone. A metric whose value in the run's results is not the mean of
    these (a length-controlled win rate, say) is no mean over samples, and is left out.
    """
    columns = {name: column for (of, name), column in run.columns.items() if of == reader}
    figures = (run.results or {}).get("metrics", {}).get(reader, {})
    if not columns:
        return {}
    if reader in run.verdicts:
        asked = np.array([verdict not in (None, "judge_error") for verdict in run.verdicts[reader]], dtype=np.bool_)
    else:
        asked = ~run.failed
    found: dict[str, Floats] = {}
    for rows, values in _alone(columns, asked, scorer):
        for name, value in values.items():
            found.setdefault(name, np.full(len(run), np.nan))[rows] = value
    return {
        name: scores
        for name, scores in found.items()
        if name in figures and _is_mean(scores, figures[name]["value"], figures[name]["n"])
    }


def _alone(
    columns: Mapping[str, Floats], asked: NDArray[np.bool_], scorer: Scorer
) -> list[tuple[NDArray[np.int64], Mapping[str, float]]]:
    """Return for each kind of row which rows are of it, and the metrics of such a sample alone."""
    alike: dict[bytes, list[int]] = {}
    table = np.stack(list(columns.values()), axis=1)
    for row in np.flatnonzero(asked).tolist():
        alike.setdefault(table[row].tobytes(), []).append(row)
    found: list[tuple[NDArray[np.int64], Mapping[str, float]]] = []
    for key, rows in alike.items():
        one = {name: array("d", [value]) for name, value in zip(columns, np.frombuffer(key), strict=True)}
        estimates = scorer.summarise(one)
        found.append((np.array(rows, dtype=np.int64), {name: each.value for name, each in estimates.items()}))
    return found


def _is_mean(scores: Floats, value: float | None, n: int) -> bool:
    known = scores[~np.isnan(scores)]
    if value is None or not len(known):
        return value is None and not len(known)
    return len(known) == n and math.isclose(float(known.mean()), value, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
