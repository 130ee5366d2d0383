"""A run's samples as a table of pandas, polars or pyarrow, a row for each in the benchmark's order."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from math import nan
from typing import TYPE_CHECKING, Any, TypeAlias

from harness.errors import ConfigError
from harness.types import Sample

if TYPE_CHECKING:
    from harness.runs.judgements import Verdict

_TEXTS = ("id", "group", "category", "prompt", "output", "response", "gold", "finish_reason", "status", "error")
_NUMBERS = ("index", "repeat", "prompt_tokens", "completion_tokens")


#: By judge, in the order of the results.
Verdicts: TypeAlias = "Mapping[str, Iterable[Verdict]]"


class _Columns:
    """Columns by name, each with its kind (``text``, ``integer`` or ``number``), filled row by row."""

    def __init__(self, parsers: Sequence[str], samples: Iterable[Sample], verdicts: Verdicts) -> None:
        self.kinds = {"index": "integer", "id": "text", "repeat": "integer"}
        self.kinds |= dict.fromkeys(("group", "category", "fields"), "text")
        self.kinds |= dict.fromkeys(_TEXTS, "text") | dict.fromkeys(_NUMBERS, "integer") | {"seconds": "number"}
        self.kinds |= {f"{parser}.answer": "text" for parser in parsers}
        self._rows: dict[str, dict[int, Any]] = defaultdict(dict)
        positions: dict[str, int] = {}
        for sample in samples:
            row = positions[sample.key] = len(positions)
            for name in (*_TEXTS, *_NUMBERS, "seconds"):
                self._rows[name][row] = getattr(sample, name)
            self._rows["fields"][row] = json.dumps(sample.fields, ensure_ascii=False)
            for parser, answer in sample.answers.items():
                self._rows[f"{parser}.answer"][row] = answer
                self._scores(parser, sample.scores.get(parser, {}), row)
        self._count = len(positions)
        for judge, given in verdicts.items():
            self.kinds[f"{judge}.verdict"] = "text"
            for said in given:
                if said.key in positions:
                    self._rows[f"{judge}.verdict"][positions[said.key]] = said.verdict
                    self._scores(judge, said.scores, positions[said.key])

    def _scores(self, reader: str, scores: Any, row: int) -> None:
        for name, value in scores.items():
            self.kinds[f"{reader}.{name}"] = "number"
            self._rows[f"{reader}.{name}"][row] = nan if value is None else float(value)

    def lists(self) -> dict[str, list[Any]]:
        """Return each column's values, None where there is none."""
        return {name: [self._rows[name].get(row) for row in range(self._count)] for name in self.kinds}


def to_arrow(parsers: Sequence[str], samples: Iterable[Sample], verdicts: Verdicts) -> Any:
    """Return a `pyarrow.Table`; ConfigError where pyarrow is not installed."""
    pyarrow = _library("pyarrow")
    types = {"text": pyarrow.string(), "integer": pyarrow.int64(), "number": pyarrow.float64()}
    columns = _Columns(parsers, samples, verdicts)
    arrays = {name: pyarrow.array(each, types[columns.kinds[name]]) for name, each in columns.lists().items()}
    return pyarrow.table(arrays)


def to_pandas(parsers: Sequence[str], samples: Iterable[Sample], verdicts: Verdicts) -> Any:
    """Return a `pandas.DataFrame`; ConfigError where pandas is not installed."""
    pandas = _library("pandas")
    types = {"text": "object", "integer": "Int64", "number": "float64"}
    columns = _Columns(parsers, samples, verdicts)
    series = {name: pandas.Series(each, dtype=types[columns.kinds[name]]) for name, each in columns.lists().items()}
    return pandas.DataFrame(series)


def to_polars(parsers: Sequence[str], samples: Iterable[Sample], verdicts: Verdicts) -> Any:
    """Return a `polars.DataFrame`; ConfigError where polars is not installed."""
    polars = _library("polars")
    types = {"text": polars.String, "integer": polars.Int64, "number": polars.Float64}
    columns = _Columns(parsers, samples, verdicts)
    return polars.DataFrame(columns.lists(), schema={name: types[kind] for name, kind in columns.kinds.items()})


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"{name} is not installed: pip install {name}") from error
