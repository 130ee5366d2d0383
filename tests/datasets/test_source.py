"""Where files are looked for below --data, and what is recorded of those that were used."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.datasets import DataSource, HubFile, read_rows
from harness.datasets.rows import file_sha256
from harness.errors import DataError
from harness.types import DataFile

HUB = HubFile("owner/sums", "main/test-00000-of-00001.parquet", "0" * 40, "f" * 64)
CONTENT = b'{"question": "?", "answer": "#### 4"}\n'


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "place",
    ["sums/test.jsonl", "sums/main/test-00000-of-00001.parquet", "test.jsonl", "main/test-00000-of-00001.parquet"],
)
def test_a_file_is_found_in_the_layout_as_the_hub_names_it_or_in_its_own_folder(tmp_path: Path, place: str) -> None:
    expected = put(tmp_path / place)
    source = DataSource(tmp_path)
    assert source.path("sums/test.jsonl", hub=HUB) == expected
    assert source.used == (DataFile("sums/test.jsonl", hashlib.sha256(CONTENT).hexdigest()),)


def test_the_layout_comes_first(tmp_path: Path) -> None:
    put(tmp_path / "test.jsonl")
    expected = put(tmp_path / "sums" / "test.jsonl")
    assert DataSource(str(tmp_path)).path("sums/test.jsonl", hub=HUB) == expected


def test_files_without_a_folder(tmp_path: Path) -> None:
    expected = put(tmp_path / "gamed.csv")
    assert DataSource(tmp_path).path("gamed.csv") == expected


def test_a_missing_file_is_named_with_the_places_looked_at(tmp_path: Path) -> None:
    source = DataSource(tmp_path)
    (tmp_path / "sums" / "test.jsonl").mkdir(parents=True)
    with pytest.raises(DataError) as caught:
        source.path("sums/test.jsonl", hub=HUB)
    assert str(caught.value) == (
        f"sums/test.jsonl is missing: put it at the first of {tmp_path}/sums/test.jsonl, "
        f"{tmp_path}/sums/main/test-00000-of-00001.parquet, {tmp_path}/test.jsonl, "
        f"{tmp_path}/main/test-00000-of-00001.parquet "
        "(.jsonl, .ndjson, .json, .csv, .tsv, .parquet will do, packed or not), "
        "or leave out --data to get it from the hub (owner/sums)"
    )
    with pytest.raises(DataError) as caught:
        source.path("sums/gold.jsonl")
    assert str(caught.value) == (
        f"sums/gold.jsonl is missing: put it at the first of {tmp_path}/sums/gold.jsonl, {tmp_path}/gold.jsonl "
        "(.jsonl, .ndjson, .json, .csv, .tsv, .parquet will do, packed or not)"
    )
    assert source.used == ()


def test_folders_and_files_can_be_looked_for(tmp_path: Path) -> None:
    put(tmp_path / "quiz" / "test" / "anatomy_test.csv")
    assert DataSource(tmp_path).find("quiz/test") == tmp_path / "quiz" / "test"
    assert DataSource(tmp_path / "quiz").find("quiz/test") == tmp_path / "quiz" / "test"
    assert DataSource(tmp_path).find("quiz/val") is None
    assert DataSource().find("quiz/test") is None


def test_rows_are_read_from_where_the_file_was_found(tmp_path: Path) -> None:
    put(tmp_path / "sums" / "test.jsonl")
    put(tmp_path / "sums" / "test.csv", b"1,2\n")
    source = DataSource(tmp_path)
    rows = source.rows("sums/test.jsonl", hub=HUB, required=("question", "answer"))
    assert rows[0] == {"question": "?", "answer": "#### 4"}
    assert rows.sha256 == source.used[0].sha256
    assert list(source.rows("sums/test.csv", columns=("a", "b"))) == [{"a": "1", "b": "2"}]
    source.rows("sums/test.jsonl")
    assert [file.name for file in source.used] == ["sums/test.jsonl", "sums/test.csv"]


def test_a_root_that_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"--data .*/nowhere: no such folder$"):
        DataSource(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"--data .*/x: not a folder$"):
        DataSource(put(tmp_path / "x"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DataSource("~").root == tmp_path


def test_neither_a_root_nor_a_file_on_the_hub() -> None:
    with pytest.raises(
        DataError, match=r"^sums/test.jsonl: this file is not on the hub; give --data DIR with DIR/sums"
    ):
        DataSource().path("sums/test.jsonl")


def test_a_layout_s_file_may_be_of_any_kind_and_packed(tmp_path: Path) -> None:
    from pyarrow import Table, parquet

    row = {"question": "1 + 1?", "answer": "It is\n#### 2"}
    line = json.dumps(row).encode() + b"\n"
    written: dict[str, Callable[[Path], object]] = {
        "test.jsonl.gz": lambda path: path.write_bytes(gzip.compress(line)),
        "test.json": lambda path: path.write_bytes(b"[" + line + b"]"),
        "test.tsv": lambda path: path.write_text('question\tanswer\n1 + 1?\t"It is\n#### 2"\n'),
        "test.csv.gz": lambda path: path.write_bytes(gzip.compress(b'question,answer\n1 + 1?,"It is\n#### 2"\n')),
        "test.parquet": lambda path: parquet.write_table(
            Table.from_pylist([{name: text.encode() for name, text in row.items()}]), path
        ),
    }
    for name, write in written.items():
        folder = tmp_path / name / "gsm8k"
        folder.mkdir(parents=True)
        write(folder / name)
        source = DataSource(tmp_path / name)
        assert [*source.rows("gsm8k/test.jsonl")] == [row] and source.find("gsm8k/test.jsonl") == folder / name
        assert source.used[0].sha256 == file_sha256(folder / name)
    (tmp_path / "test.tsv" / "gsm8k" / "test.jsonl").write_bytes(line.replace(b"1 + 1", b"2 + 2"))
    assert DataSource(tmp_path / "test.tsv").rows("gsm8k/test.jsonl")[0]["question"] == "2 + 2?"
    with pytest.raises(
        DataError, match=r"\(\.jsonl, \.ndjson, \.json, \.csv, \.tsv, \.parquet will do, packed or not\)"
    ):
        DataSource(tmp_path).path("gsm8k/test.jsonl")


def test_binary_columns_that_are_no_text_stay_bytes(tmp_path: Path) -> None:
    from pyarrow import Table, parquet

    table = Table.from_pylist([{"image": b"\xff\x00", "choices": [b"a", "\u00e9".encode()], "n": {"name": b"x"}}])
    parquet.write_table(table, tmp_path / "rows.parquet")
    [row] = read_rows(tmp_path / "rows.parquet")
    assert row == {"image": b"\xff\x00", "choices": ["a", "\u00e9"], "n": {"name": "x"}}
