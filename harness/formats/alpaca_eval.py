"""The format ``alpaca-eval``: model outputs as AlpacaEval takes and publishes them, one array of objects.

Each has ``instruction``, ``output`` and ``generator``, the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import msgspec

from harness.datasets import Row, Rows, read_rows
from harness.errors import DataError
from harness.formats.beginnings import first_record
from harness.hookspecs import hookimpl
from harness.interfaces import Format
from harness.types import RecordedOutput, Recording


class _Item(msgspec.Struct):
    """One output; the other fields of the file say nothing that is needed here."""

    instruction: str
    generator: str
    output: str | None = None


_NEEDED = _Item.__struct_fields__


@dataclass(frozen=True)
class AlpacaEvalFormat:
    """The format; it has no options."""

    name: ClassVar[str] = "alpaca-eval"

    def recognises(self, path: Path, start: bytes) -> bool:
        """Whether the first object has an instruction, an output, and who gave it."""
        return all(name in first_record(start) for name in _NEEDED)

    def read(self, path: Path) -> Recording:
        """Return the outputs of a file; DataError, naming the item, for one of another form or of several models."""
        rows = read_rows(path, required=("instruction", "generator"), check=_fault)
        model = _item(rows[0]).generator
        for index, row in enumerate(rows):
            if (other := _item(row).generator) != model:
                raise DataError(f"{rows.place(index)}: an output of {other!r}, and the first is {model!r}'s")
        return Recording("AlpacaEval", _Outputs(rows), model=model)


class _Outputs(Iterable[RecordedOutput]):
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[RecordedOutput]:
        for index, row in enumerate(self._rows):
            item = _item(row)
            yield RecordedOutput(self._rows.place(index), item.output, question=item.instruction)


def _item(row: Row) -> _Item:
    return msgspec.convert(row, _Item)


def _fault(row: Row) -> str | None:
    if wrong := next((name for name in _NEEDED if not isinstance(row.get(name), str | None)), None):
        return f"{wrong!r} must be text"
    try:
        _item(row)
    except ValueError as error:  # of msgspec, for a key that is no UTF-8 too
        return f"not as AlpacaEval writes it ({error})"
    return None


@hookimpl
def harness_formats() -> Iterable[Format]:
    """Provide ``alpaca-eval``."""
    return [AlpacaEvalFormat()]
