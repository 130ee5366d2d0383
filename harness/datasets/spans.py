"""Rows that lie in a file as spans of bytes, parsed when they are asked for: JSON lines and CSV."""

from __future__ import annotations

import csv
import io
import json
import os
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness import limits
from harness.datasets.faults import Faults, place
from harness.datasets.rows import Requirements, Row, Rows
from harness.datasets.unpacked import opened
from harness.errors import DataError
from harness.files import check_values

if TYPE_CHECKING:
    import jsonlines

_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_CHUNK = 1 << 20


class SpanRows(Rows):
    """Rows found at byte offsets of an open file.

    `offsets` holds where each row starts and, last, where the last one ends; a row's span runs to the start of the
    next and may carry blank lines. `parse` turns a span into a row. The file stays open, so that a file replaced under
    this name later changes nothing here; reads share no file position, so threads and forked workers may read at once.
    """

    def __init__(self, path: Path, file: int, offsets: array[int], parse: Callable[[bytes], Row]) -> None:
        self.path = path
        self._file = file
        self._offsets = offsets
        self._parse = parse
        weakref.finalize(self, os.close, file)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def row(self, index: int) -> Row:
        start, end = self._offsets[index], self._offsets[index + 1]
        try:
            return self._parse(os.pread(self._file, end - start, start))
        except (ValueError, csv.Error, StopIteration) as error:
            raise DataError(f"{self.path}: has been changed while it was in use; start again") from error

    def line(self, index: int) -> int:
        return self._lines[index]

    @cached_property
    def _lines(self) -> array[int]:
        """The number of the line at which each row starts, counted once when the first is asked for."""
        lines, line, counted = array("q"), 1, 0
        for start in self._offsets[:-1]:
            while counted < start:
                chunk = os.pread(self._file, min(start - counted, _CHUNK), counted)
                if not chunk:
                    break
                line, counted = line + chunk.count(b"\n"), counted + len(chunk)
            lines.append(line)
        return lines


class _Lines:
    """The lines of a binary stream, with the number of the last one and the offsets at which it starts and ends."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        head = stream.read(len(_BOM))
        if head.startswith(_UTF16_BOMS):
            raise DataError(f"{path}: UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 {path.name}")
        self.start = self.end = len(_BOM) if head == _BOM else 0
        self.number = 0
        stream.seek(self.start)
        self._stream, self._path, self._most = stream, path, limits.LINE.value

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self._stream.readline(self._most + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > self._most:
            where = place(self._path, self.number)
            raise DataError(f"{where}: a line of more than {limits.LINE.told}, no row ({limits.LINE})")
        self.start, self.end = self.end, self.end + len(line)
        return line


def open_jsonl(path: Path, needs: Requirements) -> Rows:
    """Return the rows of a file with one JSON object a line; see `read_rows`."""
    offsets = array("q")
    faults = Faults(path)
    import jsonlines

    with opened(path) as stream:
        lines = _Lines(stream, path)
        reader = jsonlines.Reader(lines, loads=_loads)
        while True:
            try:
                row = reader.read(type=dict, skip_empty=True)
            except EOFError:
                break
            except jsonlines.InvalidLineError as error:
                faults.add(lines.number, _why_not_json(error))
            except RecursionError:
                faults.add(lines.number, "JSON nested too deeply")
            else:
                offsets.append(lines.start)
                faults.add_any(lines.number, needs.fault(row))
        faults.check()
        offsets.append(lines.end)
        return SpanRows(path, os.dup(stream.fileno()), offsets, _parse_json)


def _loads(line: str | bytes) -> Any:
    if len(line) > _CHUNK // 4:
        check_values(line.encode() if isinstance(line, str) else line)
    return json.loads(line)


def _parse_json(span: bytes) -> Row:
    row = json.loads(span.partition(b"\n")[0].decode("utf-8"))
    if not isinstance(row, dict):
        raise ValueError("not an object")
    return row


def _why_not_json(error: jsonlines.InvalidLineError) -> str:
    cause = error.__cause__
    if isinstance(cause, UnicodeDecodeError):
        return _why_not_utf8(cause)
    if isinstance(cause, json.JSONDecodeError):
        hint = "; a file with one JSON array is named .json" if str(error.line).startswith("[") else ""
        return f"not JSON ({cause.msg}, column {cause.colno}){hint}"
    return "JSON, but not an object in braces" if cause is None else f"not JSON ({cause})"


def _why_not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 (byte {error.object[error.start]:#04x} at offset {error.start} of the line)"


def open_csv(path: Path, needs: Requirements, columns: Sequence[str] | None, delimiter: str = ",") -> Rows:
    """Return the rows of a comma-separated file after RFC 4180, or one separated otherwise; see `read_rows`."""
    # The module's own limit, 128 KiB a field, would refuse long texts; it is one number for the whole process.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    offsets = array("q")
    faults = Faults(path)
    with opened(path) as stream:
        lines = _Lines(stream, path)
        for start, number, record in _records(lines, faults, delimiter):
            if columns is None:
                columns = _header(path, number, record, needs.required)
            elif len(record) == len(columns):
                offsets.append(start)
                faults.add_any(number, needs.fault(dict(zip(columns, record, strict=True))))
            else:
                faults.add(number, f"{len(record)} fields, expected {len(columns)} ({', '.join(columns)})")
        faults.check()
        offsets.append(lines.end)
        names = tuple(columns or ())

        def parse(span: bytes) -> Row:
            record = next(csv.reader(_Text(io.BytesIO(span)), strict=True, delimiter=delimiter))
            return dict(zip(names, record, strict=True))

        return SpanRows(path, os.dup(stream.fileno()), offsets, parse)


def _records(lines: _Lines, faults: Faults, delimiter: str) -> Iterator[tuple[int, int, list[str]]]:
    """Yield offset, line number and fields of each record that is not blank; note the faults of the others."""
    reader = csv.reader(_Text(lines), strict=True, delimiter=delimiter)
    while True:
        start, number = lines.end, lines.number + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            faults.add(lines.number, _why_not_utf8(error))
        except csv.Error as error:
            faults.add(number, f"not CSV ({error})")
        else:
            if record:
                yield start, number, record


class _Text:
    """Lines decoded one by one. Unlike a generator it goes on after a line that is not UTF-8."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._lines).decode("utf-8")


def _header(path: Path, number: int, names: Sequence[str], required: Sequence[str]) -> Sequence[str]:
    """Return the names in a header after checking that they can name columns and that the required ones are there."""
    where = place(path, number)
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    missing = [name for name in required if name not in names]
    if twice:
        raise DataError(f"{where}: the header names {', '.join(map(repr, twice))} more than once; rename the columns")
    if missing:
        known = ", ".join(map(repr, names))
        raise DataError(f"{where}: the header has no column {', '.join(map(repr, missing))}, only {known}")
    return names
