"""Rows of .jsonl and .csv files, and of packed ones: what is read, and what is said of files that cannot be."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import threading
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.datasets import Mapped, Row, Rows, read_rows
from harness.errors import DataError

BOM = b"\xef\xbb\xbf"
GOOD = b'{"question": "How many?", "answer": "#### 4"}\n'


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refusal(path: Path, **options: Any) -> str:
    """Return the one line with which a file is refused, without the folder it lies in."""
    with pytest.raises(DataError) as caught:
        read_rows(path, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(path))
    return message.removeprefix(f"{path.parent}{os.sep}")


# JSON lines


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
records = st.lists(st.dictionaries(st.text(), json_values, max_size=4), min_size=1, max_size=8)
blanks = st.lists(st.sampled_from(["", " ", "\t", "\x0b", "\x0c", " \t "]), max_size=2)


@given(
    rows=records,
    ascii_only=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
    last_end=st.booleans(),
    data=st.data(),
)
@example(rows=[{"a": "\u2028\u2029\x85\ufeff"}], ascii_only=False, line_end="\n", bom=True, last_end=False, data=None)
def test_any_records_come_back_with_their_lines(
    rows: list[dict[str, Any]],
    ascii_only: bool,
    line_end: str,
    bom: bool,
    last_end: bool,
    data: st.DataObject | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    lines: list[str] = []
    numbers: list[int] = []
    for row in rows:
        lines += data.draw(blanks) if data else []
        numbers.append(len(lines) + 1)
        # Lone surrogates have no UTF-8; writers escape them, as here.
        text = json.dumps(row, ensure_ascii=False)
        lines.append(json.dumps(row) if ascii_only or not _encodable(text) else text)
    content = line_end.join(lines) + (line_end if last_end else "")
    path = written(tmp_path_factory.mktemp("rows"), "x.jsonl", (BOM if bom else b"") + content.encode())
    read = read_rows(path)
    assert list(read) == rows
    assert [read.line(index) for index in range(len(read))] == numbers
    assert read[-1] == rows[-1]
    assert list(read[1:]) == rows[1:]
    assert [read[index] for index in reversed(range(len(read)))] == rows[::-1]


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            GOOD + b'{"a" 1}\n' + GOOD,
            "x.jsonl:2: not JSON (Expecting ':' delimiter, column 6); 1 bad line in all; mend or delete it",
        ),
        (
            GOOD + b"\r\n\n{'a': 1}\nnull\n" + GOOD + b"[1]\n",
            "x.jsonl:4: not JSON (Expecting property name enclosed in double quotes, column 2); "
            "3 bad lines in all; mend or delete them",
        ),
        (b'{"a": 1}{"a": 2}\n', "x.jsonl:1: not JSON (Extra data, column 9); 1 bad line in all; mend or delete it"),
        (b"17\n", "x.jsonl:1: JSON, but not an object in braces; 1 bad line in all; mend or delete it"),
        (b"null\n", "x.jsonl:1: JSON, but not an object in braces; 1 bad line in all; mend or delete it"),
        (
            b'[\n  {"a": 1}\n]\n',
            "x.jsonl:1: not JSON (Expecting value, column 1); a file with one JSON array is named .json; "
            "2 bad lines in all; mend or delete them",
        ),
        (
            GOOD + b'{"a": "caf\xe9"}\n',
            "x.jsonl:2: not UTF-8 (byte 0xe9 at offset 10 of the line); 1 bad line in all; mend or delete it",
        ),
        (
            b'{"a": "\xed\xa0\x80"}',
            "x.jsonl:1: not UTF-8 (byte 0xed at offset 7 of the line); 1 bad line in all; mend or delete it",
        ),
        (b'{"a": ' + b"[" * 100_000, "x.jsonl:1: JSON nested too deeply; 1 bad line in all; mend or delete it"),
        (b"\xff\xfe{\x00}\x00", "x.jsonl: UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 x.jsonl"),
        (b"", "x.jsonl: empty, no rows in it; was it downloaded or copied completely?"),
        (BOM + b"\r\n \n", "x.jsonl: empty, no rows in it; was it downloaded or copied completely?"),
    ],
)
def test_json_lines_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    assert refusal(written(tmp_path, "x.jsonl", content)) == message


def test_a_number_too_long_for_python_is_a_bad_line(tmp_path: Path) -> None:
    path = written(tmp_path, "x.jsonl", GOOD + b'{"a": ' + b"9" * 5000 + b"}\n")
    assert refusal(path).startswith("x.jsonl:2: not JSON (Exceeds the limit")


def test_required_fields_are_checked_in_every_line(tmp_path: Path) -> None:
    path = written(tmp_path, "x.jsonl", GOOD + b'\n{"question": "?", "answer": null}\n{}\n{"answer": ""}\n')
    assert refusal(path, required=("question", "answer")) == (
        "x.jsonl:3: no 'answer' there, only 'question'; 3 bad lines in all; mend or delete them"
    )
    assert refusal(path, required=("answer",)).startswith("x.jsonl:3: no 'answer' there, only 'question'; 2 bad lines")
    assert refusal(path, required=("gold", "id")).startswith(
        "x.jsonl:1: no 'gold', 'id' there, only 'question', 'answer'; 4 bad lines"
    )
    assert len(read_rows(path)) == 4


@pytest.mark.parametrize("kind", ["jsonl", "csv", "json", "parquet"])
def test_a_check_sees_every_row_that_has_the_required_fields(tmp_path: Path, kind: str) -> None:
    records = [{"question": f"{number}?", "answer": answer} for number, answer in enumerate(["4", "x", None, "y"])]
    path = tmp_path / f"x.{kind}"
    match kind:
        case "jsonl":
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
        case "json":
            path.write_text(json.dumps(records))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(records), path)
        case "csv":
            path.write_text("question,answer\n" + "".join(f"{r['question']},{r['answer'] or ''}\n" for r in records))

    def fault(row: Row) -> str | None:
        return None if row["answer"].isdigit() else f"{row['answer']!r} is no number"

    where = {"jsonl": ":2", "csv": ":3", "json": ", item 2", "parquet": ", row 2"}[kind]
    unit = {"json": "items", "parquet": "rows"}.get(kind, "lines")
    assert refusal(path, required=("answer",), check=fault) == (
        f"x.{kind}{where}: 'x' is no number; 3 bad {unit} in all; mend or delete them"
    )
    assert len(read_rows(path, check=lambda row: None)) == 4


def test_mapped_makes_items_when_they_are_asked_for() -> None:
    made: list[int] = []

    def make(index: int, letter: str) -> str:
        made.append(index)
        return f"{index}{letter}"

    items = Mapped("abcd", make)
    assert (len(items), made) == (4, [])
    assert (items[1], items[-1], items[::-2], list(items)) == ("1b", "3d", ["3d", "1b"], ["0a", "1b", "2c", "3d"])
    assert made == [1, 3, 3, 1, 0, 1, 2, 3]
    for index in (4, -5):
        with pytest.raises(IndexError):
            items[index]


def test_a_long_reason_is_cut(tmp_path: Path) -> None:
    row = {f"field\n{number}": 1 for number in range(1000)}
    assert len(refusal(written(tmp_path, "x.jsonl", json.dumps(row).encode()), required=("answer",))) < 300


def test_rows_are_a_sequence(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path, "x.jsonl", b'{"n": 0}\n{"n": 1}\n\n{"n": 2}\n'))
    assert [row["n"] for row in rows] == [0, 1, 2]
    assert [row["n"] for row in rows[::-2]] == [2, 0]
    assert {"n": 1} in rows
    assert rows.place(2) == f"{rows.path}:4"
    assert (rows.line(-1), rows.line(0)) == (4, 1)
    for index in (3, -4):
        with pytest.raises(IndexError):
            rows[index]
        with pytest.raises(IndexError):
            rows.line(index)


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path, "x.jsonl", GOOD))
    assert rows.sha256 == hashlib.sha256(GOOD).hexdigest()


def test_a_file_replaced_while_in_use_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "x.jsonl", GOOD)
    rows = read_rows(path)
    written(tmp_path, "new", b"{}").replace(path)
    assert rows[0]["answer"] == "#### 4"


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_a_file_overwritten_while_in_use_is_noticed(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, GOOD * 2)
    rows = read_rows(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="has been changed while it was in use"):
        rows[0]


def test_threads_read_at_once(tmp_path: Path) -> None:
    content = "".join(json.dumps({"n": number}) + "\n" for number in range(500))
    rows = read_rows(written(tmp_path, "x.jsonl", content.encode()))
    wrong: list[int] = []

    def read(indices: Iterable[int]) -> None:
        wrong.extend(index for index in indices if rows[index]["n"] != index)

    threads = [threading.Thread(target=read, args=(range(start, 500, 3),)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_memory_stays_at_eight_bytes_a_row(tmp_path: Path) -> None:
    count = 20_000
    path = written(tmp_path, "x.jsonl", GOOD * count)
    read_rows(written(tmp_path, "warm.jsonl", GOOD))
    tracemalloc.start()
    rows = read_rows(path, required=("question",))
    for row in rows:
        assert row
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == count
    assert peak < 8 * count * 2.2 + 500_000  # an array that grows is copied; the rest is one line and buffers


# CSV


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@given(
    table=st.integers(2, 4).flatmap(
        lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=6)
    ),
    header=st.booleans(),
    # Ending records with LF, Python's writer leaves a lone CR in a field unquoted, which no reader can undo.
    style=st.sampled_from([("\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_MINIMAL)]),
    bom=st.booleans(),
)
def test_any_table_comes_back(
    table: list[list[str]],
    header: bool,
    style: tuple[str, Any],
    bom: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    names = [f"column {number}" for number in range(len(table[0]))]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator=style[0], quoting=style[1])
    writer.writerows([names, *table] if header else table)
    path = written(tmp_path_factory.mktemp("rows"), "x.csv", (BOM if bom else b"") + stream.getvalue().encode())
    rows = read_rows(path, columns=None if header else names)
    assert list(rows) == [dict(zip(names, record, strict=True)) for record in table]
    assert [rows[index] for index in reversed(range(len(rows)))] == list(rows)[::-1]


def test_csv_with_quotes_commas_line_ends_and_blank_lines(tmp_path: Path) -> None:
    content = b'question,A,answer\r\n"Which, if any,\r\nof ""these""?",4,B\r\n\r\n  spaced ,"",C\r\n'
    rows = read_rows(written(tmp_path, "x.csv", content), required=("question", "A"))
    assert list(rows) == [
        {"question": 'Which, if any,\r\nof "these"?', "A": "4", "answer": "B"},
        {"question": "  spaced ", "A": "", "answer": "C"},
    ]
    assert [rows.line(0), rows.line(1)] == [2, 5]


def test_a_csv_field_of_a_million_characters(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path, "x.csv", b"text\n" + b"x" * 1_000_000 + b"\n"))
    assert len(rows[0]["text"]) == 1_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n1\n1,2,3\n", "x.csv:3: 1 fields, expected 2 (a, b); 2 bad lines in all; mend or delete them"),
        (b'a,b\n1,2\n\n"1"2,3\n', "x.csv:4: not CSV (',' expected after '\"'); 1 bad line in all; mend or delete it"),
        (b'a,b\n1,2\n"1,2\n3,4\n', "x.csv:3: not CSV (unexpected end of data); 1 bad line in all; mend or delete it"),
        (
            b'a,b\n1,2\n"x\n\xe9",2\n1,2\n\xff,2\n',
            "x.csv:4: not UTF-8 (byte 0xe9 at offset 0 of the line); 2 bad lines in all; mend or delete them",
        ),
        (b"a,a,b,b\n1,2,3,4\n", "x.csv:1: the header names 'a', 'b' more than once; rename the columns"),
        (b"a,b\n", "x.csv: empty, no rows in it; was it downloaded or copied completely?"),
        (b"", "x.csv: empty, no rows in it; was it downloaded or copied completely?"),
        (b"\xfe\xff\x00a", "x.csv: UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 x.csv"),
    ],
)
def test_csv_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    assert refusal(written(tmp_path, "x.csv", content)) == message


def test_csv_columns_that_are_required(tmp_path: Path) -> None:
    path = written(tmp_path, "x.csv", b"id,prompt\n1,?\n")
    message = "x.csv:1: the header has no column 'prompts_final', only 'id', 'prompt'"
    assert refusal(path, required=("id", "prompts_final")) == message


# Files as such


PACKED = [("x.jsonl", GOOD * 2), ("x.ndjson", GOOD * 2), ("x.csv", b"a\n1\n2\n"), ("X.JSON", b'[{"a": 1}, {"a": 2}]')]


@pytest.mark.parametrize(("name", "content"), [(f"{name}.gz", content) for name, content in PACKED])
def test_gzipped_files(tmp_path: Path, name: str, content: bytes) -> None:
    packed = gzip.compress(content)
    rows = read_rows(written(tmp_path, name, packed))
    assert (len(rows), len(list(rows))) == (2, 2)
    assert rows.sha256 == hashlib.sha256(packed).hexdigest()
    for broken in (packed[:-12], content, packed[:12] + b"\xff\xff" + packed[14:]):
        assert refusal(written(tmp_path, name, broken)).startswith(f"{name}: not a whole gzip file (")


@pytest.mark.parametrize(("name", "content"), [(f"{name}.ZST", content) for name, content in PACKED])
def test_zstandard_files(tmp_path: Path, name: str, content: bytes) -> None:
    packed = pa.compress(content, codec="zstd", asbytes=True)
    rows = read_rows(written(tmp_path, name, packed))
    assert (len(rows), len(list(rows))) == (2, 2)
    assert rows.sha256 == hashlib.sha256(packed).hexdigest()
    for broken in (packed[:-5], content, packed + b"more behind it"):
        assert refusal(written(tmp_path, name, broken)).startswith(f"{name}: not a whole Zstandard file (")


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    for name in ("x.jsonl", "x.csv", "x.json", "x.parquet", "x.jsonl.gz", "x.json.zst"):
        assert refusal(tmp_path / name) == f"{name}: cannot be read: No such file or directory"
    (tmp_path / "folder.jsonl").mkdir()
    assert refusal(tmp_path / "folder.jsonl") == "folder.jsonl: cannot be read: a folder"
    for name in ("x.txt", "x", "x.gz", "x.parquet.gz"):
        assert refusal(written(tmp_path, name, b"")) == (
            f"{name}: unknown kind of data file; "
            "known: .jsonl, .ndjson, .json, .csv, .tsv, .parquet, all but the last also .gz or .zst"
        )


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst"])
def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HARNESS_LIMIT_UNPACKED", "1MiB")
    content = b'{"a": "' + bytes([97]) * (4 << 20) + b'"}\n'
    packed = gzip.compress(content) if name.endswith("gz") else pa.compress(content, "zstd", asbytes=True)
    assert refusal(written(tmp_path, name, packed)) == (
        f"{name}: unpacks to more than 1 MiB, 200 times its size and more; if it is yours, unpack it "
        "(HARNESS_LIMIT_UNPACKED)"
    )


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LIMIT_LINE", "1MiB")
    path = written(tmp_path, "x.jsonl", GOOD + b'{"a": "' + b"a" * (2 << 20))
    assert refusal(path) == "x.jsonl:2: a line of more than 1 MiB, no row (HARNESS_LIMIT_LINE)"


def test_a_pipe_is_no_data_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    try:
        assert refusal(path) == "x.jsonl: cannot be read: no regular file; write its content to one first"
    finally:
        os.close(writer)


# The real files


def test_the_real_files_are_read_whole(shared_data: Path) -> None:
    def read(name: str, *required: str, columns: tuple[str, ...] | None = None) -> Rows:
        return read_rows(shared_data / name, required=required, columns=columns)

    assert len(read("gsm8k/train.jsonl", "question", "answer")) == 7473
    assert len(read("gsm8k/test.jsonl", "question", "answer")) == 1319
    assert len(read("alpaca_eval/alpaca_eval.jsonl", "instruction", "output", "dataset")) == 805
    assert len(read("alpaca_eval/gpt4_1106_preview.json", "instruction", "output", "generator")) == 805
    assert len(read("alpaca_eval/leaderboard.csv", "win_rate", "length_controlled_winrate")) > 100
    assert len(read("simple_safety_tests/simple_safety_tests.csv", "harm_area", "prompts_final")) == 100
    assert len(read("hh/harmless-base.jsonl.gz", "chosen", "rejected")) == 2312
    assert len(read("sft/safety_only.json", "instruction", "output")) == 2483
    columns = ("question", "A", "B", "C", "D", "answer")
    subjects = sorted((shared_data / "mmlu" / "test").glob("*.csv"))
    questions = [row for subject in subjects for row in read_rows(subject, columns=columns)]
    assert (len(subjects), len(questions)) == (57, 14042)
    assert {row["answer"] for row in questions} == set("ABCD")
