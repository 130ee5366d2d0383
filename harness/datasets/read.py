"""The rows of a data file, by the suffix of its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from harness.datasets.rows import Requirements, Row, Rows
from harness.datasets.spans import open_csv, open_jsonl
from harness.datasets.tables import open_json, open_parquet
from harness.datasets.unpacked import PACKED
from harness.errors import DataError

#: Kinds of data files, by suffix.
KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def read_rows(
    path: Path | str,
    *,
    required: Iterable[str] = (),
    columns: Sequence[str] | None = None,
    check: Callable[[Row], str | None] | None = None,
) -> Rows:
    """Open a data file, check all of it, and return its rows in the file's order.

    A .jsonl (.ndjson), .csv or .tsv file is read once for validation and for the offsets of its rows (8 bytes a row); a
    row is parsed when it is asked for, so a million rows stay small in memory. Blank lines are skipped, a byte order
    mark at the start and CRLF line ends are read as if they were not there. CSV fields are strings; quoted ones may
    contain commas, quotes and line ends; a .tsv file is a CSV with tabs for commas. A .gz or .zst file is unpacked into
    an unnamed temporary file. Binary columns of Parquet that hold UTF-8 are texts.

    `required` names the fields that every row must have, with a value other than null. `check` is called with each row
    that has them, and returns what else is wrong with it (``'answer' has no number``), or None. `columns` names the
    columns of a .csv or .tsv file that has no header; without it the first record is the header. Other kinds name their
    own.

    Raises DataError, one line that names file, line, reason and remedy, where the file is missing, empty, not UTF-8,
    malformed or of an unknown kind, or where a row lacks a required field or fails the check.
    """
    path = Path(path)
    needs = Requirements(tuple(required), check)
    kind = path.suffix.lower()
    if kind in PACKED and not path.stem.lower().endswith(".parquet"):
        kind = Path(path.stem).suffix.lower()
    rows: Rows
    match kind:
        case ".jsonl" | ".ndjson":
            rows = open_jsonl(path, needs)
        case ".csv":
            rows = open_csv(path, needs, columns)
        case ".tsv":
            rows = open_csv(path, needs, columns, "\t")
        case ".json":
            rows = open_json(path, needs)
        case ".parquet":
            rows = open_parquet(path, needs)
        case _:
            known = f"{', '.join(KINDS)}, all but the last also {' or '.join(PACKED)}"
            raise DataError(f"{path}: unknown kind of data file; known: {known}")
    if not rows:
        raise DataError(f"{path}: empty, no rows in it; was it downloaded or copied completely?")
    return rows
