"""Rows of JSON arrays and of Parquet files."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.datasets import read_rows
from harness.errors import DataError
from tests.datasets.test_rows import BOM, refusal, written

# JSON arrays and Parquet


def test_a_json_array(tmp_path: Path) -> None:
    items = [{"instruction": "Sing.", "output": "La\u2028"}, {"instruction": "Dance.", "output": ""}]
    path = written(tmp_path, "x.json", BOM + json.dumps(items, indent=1, ensure_ascii=False).encode())
    rows = read_rows(path, required=("instruction", "output"))
    assert list(rows) == items
    assert rows.place(1) == f"{path}, item 2"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[\n{"a": 1},\n{"a" 2}]', "x.json:3: not JSON (Expecting ':' delimiter, column 6); mend it"),
        (
            b'{"a": 1}\n{"a": 2}\n',
            "x.json:2: not JSON (Extra data, column 1); if it holds one object a line, name it .jsonl",
        ),
        (b'{"a": []}', "x.json: not a JSON array of objects, which a .json file of rows must be"),
        (
            b'[{"a": 1}, 2, {"b": 1}]',
            "x.json, item 2: not an object in braces; 2 bad items in all; mend or delete them",
        ),
        (b'[\n{"a": "\xe9"}]', "x.json:2: not UTF-8 (byte 0xe9); save it as UTF-8"),
        (b" \n", "x.json: empty, no rows in it; was it downloaded or copied completely?"),
        (b"[]", "x.json: empty, no rows in it; was it downloaded or copied completely?"),
    ],
)
def test_json_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    assert refusal(written(tmp_path, "x.json", content), required=("a",)) == message


def test_json_nested_too_deeply(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, "x.json", b"[" * 100_000)).startswith("x.json: not JSON that can be read (")


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    records = [{"question": f"{number}?", "choices": ["a", "b"], "answer": number} for number in range(200)]
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=70)
    rows = read_rows(path, required=("question", "answer"))
    assert list(rows) == records
    assert [rows[index] for index in (199, 0, 64, 63, -1)] == [records[index] for index in (199, 0, 64, 63, -1)]
    assert rows.place(64) == f"{path}, row 65"
    assert refusal(path, required=("question", "gold")) == (
        "x.parquet: has no column 'gold', only 'question', 'choices', 'answer'"
    )


def test_parquet_whose_values_are_not_what_it_says(tmp_path: Path) -> None:
    """Writers need not check what they call text or a moment, and Arrow's reader does not."""
    path = tmp_path / "x.parquet"
    texts = pa.array([b"a", b"b", b"ab\xff"], pa.binary())
    loose = pa.Array.from_buffers(pa.string(), 3, texts.buffers())
    moments = pa.array([0, 0, 2**62], pa.timestamp("us"))
    inner = pa.array([None, None, {"at": 2**62}], pa.struct([("at", moments.type)]))
    for name, column in (("a", loose), ("when", moments), ("in", inner)):
        pq.write_table(pa.table({"id": [1, 2, 3], name: column}), path)
        with pytest.raises(DataError) as caught:
            list(read_rows(path))
        said = str(caught.value)
        assert said.startswith(f"{path}, row 3: {name!r} cannot be read (") and "\n" not in said
        assert said.endswith("); save the column as UTF-8 text")
    pq.write_table(pa.table({"id": [1], "names": [2]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"names", b"n\xc3(es"))
    assert refusal(path) == "x.parquet: not a whole Parquet file; get it again"


def test_parquet_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1, None, 3, None]}), path)
    assert refusal(path, required=("a",)) == ("x.parquet, row 2: no 'a' there; 2 bad rows in all; mend or delete them")
    path.write_bytes(path.read_bytes()[:-5])
    assert refusal(path) == "x.parquet: not a whole Parquet file; get it again"
    pq.write_table(pa.table({"a": ["x" * 10_000]}), path, use_dictionary=False, compression="snappy")
    content = path.read_bytes()
    path.write_bytes(content[:40] + b"\xff" * 40 + content[80:])
    assert refusal(path).startswith("x.parquet: not a whole Parquet file")
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), path)
    assert refusal(path, required=("a",)).startswith("x.parquet: empty, no rows in it")
