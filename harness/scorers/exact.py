"""Right or wrong: the parsed answer against the gold answer, as text and as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from math import isnan
from typing import ClassVar

from harness.hookspecs import hookimpl
from harness.interfaces import BaseScorer, Scorer
from harness.statistics import proportion
from harness.types import Columns, Estimate, Example, Scores


@dataclass(frozen=True)
class Exact(BaseScorer):
    """Accuracy. No answer is a wrong one; numbers are compared as decimals: 18.0 is 18, and 123460 is not 123456."""

    name: ClassVar[str] = "exact"

    def score(self, example: Example, answer: str | None) -> Scores:
        """Return ``{"accuracy": 1.0}`` if `answer` equals the gold answer, else 0.0."""
        if example.gold is None:
            raise ValueError(f"example {example.id!r} has no gold answer to compare with")
        return {"accuracy": float(answer is not None and _equal(answer, example.gold))}

    def summarise(self, columns: Columns) -> Mapping[str, Estimate]:
        """Return the accuracy with its Wilson interval."""
        column = columns.get("accuracy", ())
        right = sum(value for value in column if not isnan(value))
        return {"accuracy": proportion(int(right), sum(not isnan(value) for value in column))}


def _equal(answer: str, gold: str) -> bool:
    if answer == gold:
        return True
    try:
        return Decimal(answer) == Decimal(gold)
    except InvalidOperation:
        return False


@hookimpl
def harness_scorers() -> Iterable[Scorer]:
    """Provide `exact`."""
    return [Exact()]
