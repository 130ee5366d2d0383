"""Rows of files that are read as a whole: JSON arrays, and Parquet, which stays in Arrow's own compact form."""

from __future__ import annotations

import codecs
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness import limits
from harness.datasets.faults import Faults, place
from harness.datasets.rows import Requirements, Row, Rows, unreadable
from harness.datasets.unpacked import TIMES, opened
from harness.errors import DataError, first_line
from harness.files import check_values, open_read

if TYPE_CHECKING:
    import pyarrow

#: A packed file that is read as a whole may unpack to so many bytes, or so many times its size.
_FREE, _TIMES = 256 << 20, 10

#: Bytes at the beginning of a large file that are looked at before the rest is read.
_START = 1 << 16

#: Parquet rows are turned into Python objects this many at a time: few enough for random access, enough for a scan.
_BATCH = 64

#: And read this many at a time.
_READ = 1024


class ItemRows(Rows):
    """The objects of a JSON array."""

    unit = "item"

    def __init__(self, path: Path, items: list[Row]) -> None:
        self.path = path
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def row(self, index: int) -> Row:
        return self._items[index]


class TableRows(Rows):
    """The rows of an Arrow table."""

    unit = "row"

    def __init__(self, path: Path, table: pyarrow.Table) -> None:
        self.path = path
        self._table = table
        self._batch: tuple[int, list[Row]] = (-1, [])

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def row(self, index: int) -> Row:
        number, offset = divmod(index, _BATCH)
        batch = self._batch
        if batch[0] != number:
            batch = self._batch = (number, self._read(number * _BATCH))
        return batch[1][offset]

    def _read(self, begin: int) -> list[Row]:
        """Return a batch of rows; DataError for a value that has no like in Python, such as text that is not UTF-8."""
        part = self._table.slice(begin, _BATCH)
        try:
            return list(part.to_pylist())
        except Exception:  # Arrow checks nothing as it reads, and its values fail in as many ways as there are kinds
            for name in part.column_names:
                for index, value in enumerate(part[name], begin):
                    try:
                        value.as_py()
                    except Exception as error:
                        fault = f"{name!r} cannot be read ({first_line(error)})"
                        raise DataError(f"{self.place(index)}: {fault}; save the column as UTF-8 text") from error
            raise


def read_json_file(path: Path) -> Any:
    """Return what a JSON file holds, an empty list where it is empty; DataError, naming the line, where it is none."""
    try:
        with opened(path) as stream:
            content = _whole(path, stream)
        check_values(content, path.stat().st_size)
        text = content.decode("utf-8-sig")
        del content
        return json.loads(text) if text.strip() else []
    except UnicodeDecodeError as error:
        where = place(path, error.object.count(b"\n", 0, error.start) + 1)
        raise DataError(f"{where}: not UTF-8 (byte {error.object[error.start]:#04x}); save it as UTF-8") from error
    except json.JSONDecodeError as error:
        hint = "; if it holds one object a line, name it .jsonl" if error.msg == "Extra data" else "; mend it"
        where = place(path, error.lineno)
        raise DataError(f"{where}: not JSON ({error.msg}, column {error.colno}){hint}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON that can be read ({error})") from error


def _whole(path: Path, stream: IO[bytes]) -> bytes:
    """Return the content of a file; DataError for one that is larger than what is read as a whole may be."""
    size, stored = stream.seek(0, os.SEEK_END), path.stat().st_size
    stream.seek(0)
    if size > limits.JSON.value:
        raise DataError(f"{path}: larger than {limits.JSON.told} ({limits.JSON}); a .jsonl is not read as a whole")
    if size > max(_FREE, _TIMES * stored):
        raise DataError(f"{path}: unpacks to more than {_TIMES} times its size; if it is yours, unpack it")
    start = stream.read(_START)
    if size > _START and start.strip() and not start.removeprefix(codecs.BOM_UTF8).lstrip().startswith((b"[", b"{")):
        raise DataError(f"{path}:1: not JSON; it begins with neither [ nor {{")
    return start + stream.read()


def open_json(path: Path, needs: Requirements) -> Rows:
    """Return the rows of a file with one JSON array of objects; see `read_rows`."""
    items = read_json_file(path)
    if not isinstance(items, list):
        raise DataError(f"{path}: not a JSON array of objects, which a .json file of rows must be")
    faults = Faults(path, "item")
    for number, item in enumerate(items, 1):
        if isinstance(item, dict):
            faults.add_any(number, needs.fault(item))
        else:
            faults.add(number, "not an object in braces")
    faults.check()
    return ItemRows(path, items)


def open_parquet(path: Path, needs: Requirements) -> Rows:
    """Return the rows of a Parquet file; see `read_rows`. Needs pyarrow (the extra ``hub``)."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{path}: pyarrow is needed to read it; pip install 'posttrain-harness[hub]'") from error
    try:
        with open_read(path, links=True) as stream:
            table = _with_texts(_table(path, parquet.ParquetFile(stream, pre_buffer=False)))
    except OSError as error:
        if error.errno is not None:
            raise unreadable(path, error) from error
        raise DataError(f"{path}: not a whole Parquet file ({error}); get it again") from error
    except (pyarrow.ArrowException, MemoryError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a whole Parquet file; get it again") from error
    missing = [name for name in needs.required if name not in table.column_names]
    if missing:
        known = ", ".join(map(repr, table.column_names))
        raise DataError(f"{path}: has no column {', '.join(map(repr, missing))}, only {known}")
    rows = TableRows(path, table)
    faults = Faults(path, "row")
    if needs.check or any(table[name].null_count for name in needs.required):
        for number, row in enumerate(rows, 1):
            faults.add_any(number, needs.fault(row))
    faults.check()
    return rows


def _table(path: Path, file: Any) -> Any:
    """Return the table in a Parquet file; DataError for one that unpacks to more than such files do."""
    import pyarrow

    count, stored = file.metadata.num_rows, path.stat().st_size
    if count > limits.ROWS.value:
        raise DataError(f"{path}: more than {limits.ROWS.told} rows ({limits.ROWS})")
    most, size, batches = max(limits.MEMORY.value, TIMES * stored), 0, []
    # By no thread but this one: one of Arrow's that still holds the stream as Python ends aborts the process.
    for batch in file.iter_batches(batch_size=_READ, use_threads=False):
        size += batch.nbytes
        if size > most:
            raise DataError(
                f"{path}: unpacks to more than {limits.MEMORY.told} ({limits.MEMORY}), {TIMES} times its size"
            )
        batches.append(batch)
    return pyarrow.Table.from_batches(batches, file.schema_arrow)


def _with_texts(table: Any) -> Any:
    """Return a table whose binary columns are texts, those in lists and structs too, where they hold UTF-8."""
    import pyarrow

    for number, field in enumerate(table.schema):
        wanted = _as_text(field.type)
        if wanted != field.type:
            with suppress(pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
                table = table.set_column(number, field.name, table.column(number).cast(wanted))
    return table


def _as_text(kind: Any) -> Any:
    """Return a type of Arrow's with text in the place of bytes."""
    import pyarrow

    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        return pyarrow.string() if pyarrow.types.is_binary(kind) else pyarrow.large_string()
    if pyarrow.types.is_list(kind):
        return pyarrow.list_(_as_text(kind.value_type))
    if pyarrow.types.is_struct(kind):
        return pyarrow.struct([field.with_type(_as_text(field.type)) for field in kind])
    return kind
