"""The run folder survives what happens to processes and disks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import RunError
from harness.runs.folder import SAMPLES, Run
from harness.runs.journal import Journal
from harness.runs.line_file import write_atomically
from harness.runs.samples import decode, encode
from harness.types import Sample, Status


def sample(index: int, output: str = "18", status: Status = "ok") -> Sample:
    return Sample(
        id=f"test-{index}",
        index=index,
        group=None,
        fields={"question": "How many?"},
        prompt="How many?\nAnswer:",
        prompt_tokens=5,
        completion_tokens=2,
        output=output,
        finish_reason="stop",
        answers={"final-number": "18"},
        gold="18",
        scores={"final-number": {"accuracy": 1.0}},
        status=status,
    )


def written(folder: Path) -> list[Sample]:
    return list(Run(folder).samples())


@given(st.text(st.characters(codec=None), max_size=200))
def test_any_output_comes_back_as_it_was(output: str) -> None:
    line = encode(sample(3, output))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line, Path("x")) == sample(3, output)


def test_text_that_can_be_read_is_not_escaped() -> None:
    assert "Zürich 東京".encode() in encode(sample(0, "Zürich 東京"))


def test_samples_come_in_the_benchmarks_order_and_the_last_of_each_counts(tmp_path: Path) -> None:
    with Journal(Run(tmp_path), 3) as journal:
        for each in (sample(2), sample(0, "", "engine_error"), sample(1), sample(0, "19")):
            journal.append(each)
        assert [s.index for s in journal.samples()] == [0, 1, 2]
    assert [(s.index, s.output) for s in written(tmp_path)] == [(0, "19"), (1, "18"), (2, "18")]


def test_a_failed_example_is_not_done(tmp_path: Path) -> None:
    with Journal(Run(tmp_path), 2) as journal:
        journal.append(sample(0, status="engine_error"))
        journal.append(sample(1, output='a model that says "engine_error"'))
        assert not journal.done(0)
        assert journal.done(1)
    with Journal(Run(tmp_path), 2) as journal:
        assert not journal.done(0)
        assert journal.done(1)


def test_cutting_the_file_anywhere_loses_only_the_line_that_was_cut(tmp_path: Path) -> None:
    lines = [encode(sample(i, "ü" * i)) for i in range(3)]
    whole = b"".join(lines)
    for cut in range(len(whole) + 1):
        (tmp_path / SAMPLES).write_bytes(whole[:cut])
        complete = sum(len(b"".join(lines[: i + 1])) <= cut for i in range(3))
        with Journal(Run(tmp_path), 3) as journal:
            assert [journal.done(i) for i in range(3)] == [i < complete for i in range(3)]
            journal.append(sample(2, "again"))
        assert [s.index for s in written(tmp_path)] == sorted({*range(complete), 2})
        assert written(tmp_path)[-1].output == "again"


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / SAMPLES).write_bytes(encode(sample(0)) + b"garbage\n" + encode(sample(1)))
    with pytest.raises(RunError, match=rf"{SAMPLES}:2: not a sample .*; delete the line to have it done again"):
        Journal(Run(tmp_path), 3)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from harness.runs.folder import Run\n"
        "from harness.runs.journal import Journal\n"
        "Journal(Run(Path(sys.argv[1])), 1)"
    )
    with Journal(Run(tmp_path), 1):
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
        assert "RunError: another process is writing to" in done.stderr
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with Journal(Run(tmp_path), 2) as journal:
        journal.append(sample(0))
        file = journal._file._file
        kept = os.dup(file.fileno())
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file.fileno())
        with pytest.raises(RunError, match="No space left on device; free some space and give the same command again"):
            journal.append(sample(1))
        os.dup2(kept, file.fileno())
        file.flush()
        os.close(full)
        os.close(kept)
    assert [s.index for s in written(tmp_path)][:1] == [0]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_atomically(path, [b"old"])

    def failing() -> object:
        yield b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="cannot write .*results.json: No space left"):
        write_atomically(path, failing())  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        _ = Run(tmp_path).record
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(RunError, match="not a JSON object"):
        _ = Run(tmp_path).record
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match="cannot read"):
        _ = Run(tmp_path).record
    with pytest.raises(RunError, match="no results yet"):
        _ = Run(tmp_path).results


@pytest.mark.parametrize(("name", "first"), [("x.json", '[\n  {"output": "a"}'), ("x.jsonl", '{"output": "a"}\n')])
def test_exports_are_arrays_or_lines(tmp_path: Path, name: str, first: str) -> None:
    records = [{"output": "a"}, {"output": "\ud800 é"}]
    Run(tmp_path).write_export(name, records)
    text = (tmp_path / "exports" / name).read_text(encoding="utf-8")
    assert text.startswith(first)
    read = json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    assert read == [{"output": "a"}, {"output": "\ufffd é"}]  # lone surrogates make other tools fail


def test_an_empty_export_is_an_empty_array(tmp_path: Path) -> None:
    Run(tmp_path).write_export("x.json", [])
    assert json.loads((tmp_path / "exports" / "x.json").read_text()) == []
