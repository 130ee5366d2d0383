"""Win rates of judgements that were recorded elsewhere, in AlpacaEval's own format."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from harness.datasets import Row, read_rows
from harness.errors import DataError
from harness.scorers.alpaca_order import digest, instruction_order
from harness.scorers.winrate import WinRateScorer, length_controlled_win_rate, win_rate
from harness.scorers.winrate_fit import LengthControlledWinRate, WinRate


@dataclass(frozen=True)
class AnnotatedWinRate:
    """The win rate of a file of annotations, and the length-controlled one where it was asked for.

    `without` counts AlpacaEval's own instructions that have no judgement in the file; None where it is about others.
    `repeated` counts judgements whose instruction, outputs and annotator stand further up already: each is in the
    figures once more, as AlpacaEval has them.
    """

    raw: WinRate
    without: int | None = None
    repeated: int = 0
    length_controlled: LengthControlledWinRate | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the figures by the names that AlpacaEval gives them; what is not known is null."""
        figures: dict[str, Any] = {
            **dataclasses.asdict(self.raw),
            "without_judgement": self.without,
            "repeated": self.repeated,
        }
        fit = self.length_controlled
        if fit is not None:
            figures |= {
                "length_controlled_winrate": fit.length_controlled_winrate,
                "lc_standard_error": fit.lc_standard_error,
                "lc_bootstrap_standard_error": fit.bootstrap_standard_error,
                "lc_low": fit.low,
                "lc_high": fit.high,
                "missing": fit.missing,
            }
        return {name: None if isinstance(value, float) and isnan(value) else value for name, value in figures.items()}


def score_annotations(path: Path, scorer: WinRateScorer) -> AnnotatedWinRate:
    """Return the win rate of a file of annotations, with the scorer's `length_control` the length-controlled one too.

    Raises DataError for records that are no annotations, and for those of several models.
    """
    rows = read_rows(path)
    for key in ("generator_1", "generator_2"):
        names = sorted({str(row[key]) for row in rows if row.get(key) is not None})
        if len(names) > 1:
            raise DataError(
                f"{path}: judgements of {len(names)} models ({key}: {', '.join(names[:3])}…); give one's alone"
            )
    try:
        raw = win_rate(rows)
        without, repeated = _without(rows), _repeated(rows)
        if scorer.length_control is None:
            return AnnotatedWinRate(raw, without, repeated)
        return AnnotatedWinRate(raw, without, repeated, length_controlled_win_rate(rows, scorer.length_control_data))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _repeated(rows: Iterable[Row]) -> int:
    """Return how many rows judge what another above has judged, by the same annotator."""
    seen, count = set[bytes](), 0
    for row in rows:
        judged = [row.get(name) for name in ("instruction", "output_1", "output_2", "annotator")]
        if judged[0] is None:
            continue
        key = hashlib.sha256(json.dumps(judged, default=str).encode("utf-8", "surrogatepass")).digest()
        count += key in seen
        seen.add(key)
    return count


def _without(rows: Iterable[Row]) -> int | None:
    """Return how many of AlpacaEval's instructions are in no row; None where a row has another, or none at all."""
    asked = instruction_order()
    found = {digest(text) if isinstance(text := row.get("instruction"), str) else "" for row in rows}
    return len(asked) - len(found) if found <= asked.keys() else None
