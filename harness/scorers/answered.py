"""For questions without gold answers: whether a parser finds an answer at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isnan
from typing import ClassVar

from harness.hookspecs import hookimpl
from harness.interfaces import BaseScorer, Scorer
from harness.statistics import proportion
from harness.types import Columns, Estimate, Example, Scores


@dataclass(frozen=True)
class Answered(BaseScorer):
    """The proportion of outputs that hold an answer, right or wrong."""

    name: ClassVar[str] = "answered"

    def score(self, example: Example, answer: str | None) -> Scores:
        """Return ``{"answered": 1.0}`` where there is an answer, else 0.0."""
        return {"answered": float(answer is not None)}

    def summarise(self, columns: Columns) -> Mapping[str, Estimate]:
        """Return the proportion answered with its Wilson interval."""
        known = [value for value in columns.get("answered", ()) if not isnan(value)]
        return {"answered": proportion(int(sum(known)), len(known))}


@hookimpl
def harness_scorers() -> Iterable[Scorer]:
    """Provide `answered`."""
    return [Answered()]
