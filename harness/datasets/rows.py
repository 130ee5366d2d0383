"""What every file of rows offers, whatever its format."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, overload

from harness.datasets.faults import place
from harness.errors import DataError
from harness.files import open_read

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Requirements:
    """What every row of a file must meet.

    `required` fields must be there with a value other than null. `check` is then given the row, and returns what else
    is wrong with it, or None.
    """

    required: tuple[str, ...] = ()
    check: Callable[[Row], str | None] | None = None

    def fault(self, row: Row) -> str | None:
        """Return what is wrong with a row, or None."""
        wanting = [field for field in self.required if row.get(field) is None]
        if wanting:
            known = ", ".join(repr(field) for field in row if row[field] is not None)
            return f"no {', '.join(map(repr, wanting))} there" + (f", only {known}" if known else "")
        return self.check(row) if self.check else None


class Rows(Sequence[Row]):
    """The rows of one data file, validated when it was opened. Rows are not to be written to.

    `path` is the file. `unit` is what its rows are counted in: lines of a .jsonl or .csv file, items of a .json array,
    rows of a .parquet file.
    """

    path: Path
    unit: str = "line"

    @abstractmethod
    def row(self, index: int) -> Row:
        """Return the row at `index`, which lies in ``range(len(self))``."""

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self.row(position) for position in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"row {index} of {len(self)} in {self.path}")
        return self.row(position)

    def line(self, index: int) -> int:
        """Return the number, from 1, of the line at which a row starts; of the item or row where `unit` says so."""
        return index + 1

    def place(self, index: int) -> str:
        """Return where a row stands, for an error message: ``gsm8k/test.jsonl:17``."""
        return place(self.path, self.line(index), self.unit)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes as they lie on the disk, in hexadecimal."""
        return file_sha256(self.path)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal. Raises DataError where it cannot be read."""
    try:
        with open_read(path, links=True) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> DataError:
    """Return the DataError for a file that the operating system does not let us read."""
    return DataError(f"{path}: cannot be read: {error.strerror or error}")
