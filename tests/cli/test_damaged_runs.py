"""Runs of another format, torn, unfinished or still going, given to every command that reads runs: one line, exit 2."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from harness.runs.folder import RUN_FORMAT, Run
from harness.runs.journal import Journal
from tests.conftest import Command
from tests.reports.viewing import write_run

READERS = {
    "show": ("show", "RUN"),
    "score": ("score", "RUN"),
    "judge": ("judge", "RUN", "--judge", "judge.jsonl", "--judge-engine", "replay"),
    "compare": ("compare", "RUN", "RUN"),
    "report": ("report", "RUN", "--out", "report.html"),
    "run": ("run", "--from", "RUN"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path / "runs", "model", 3, 5)


def line(harness: Command, command: str, folder: Path) -> str:
    """Return the one line that a command refuses a run with."""
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    done = harness(*(str(folder) if word == "RUN" else word for word in READERS[command]))
    assert (done.code, done.out) == (2, "")
    [said] = done.err.splitlines()
    assert {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()} == before
    return said


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize(
    ("version", "said"), [(0, "format 0 is not"), (2, "format 2 is not"), (None, "names no format")]
)
def test_a_run_of_another_format_names_it_and_what_to_do(
    harness: Command, folder: Path, command: str, version: int | None, said: str
) -> None:
    config = json.loads((folder / "run.json").read_text())
    del config["format"]
    (folder / "run.json").write_text(json.dumps({**config, **({} if version is None else {"format": version})}))
    found = line(harness, command, folder)
    assert said in found
    assert f"the {RUN_FORMAT} that this version reads; use harness '0.1.0', or run it --fresh" in found
    assert str(folder / "run.json") in found


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("content", ["", '{"format": 1, "bench', "[1]", "\x00\x01"])
def test_a_torn_run_json_is_named(harness: Command, folder: Path, command: str, content: str) -> None:
    (folder / "run.json").write_text(content)
    assert str(folder / "run.json") in line(harness, command, folder)


@pytest.mark.parametrize("command", sorted(READERS.keys() - {"run"}))
def test_a_file_of_another_shape_is_named_with_the_place(harness: Command, folder: Path, command: str) -> None:
    config = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**config, "parsers": "final-number"}))
    expected = "run.json: not as this version writes it (Expected `array`, got `str` - at `$.parsers`); mend it"
    assert expected in line(harness, command, folder)


@pytest.mark.parametrize("command", ["show", "score", "compare", "report"])
def test_a_damaged_sample_is_named_with_its_line(harness: Command, folder: Path, command: str) -> None:
    whole = (folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "samples.jsonl").write_bytes(whole[0] + b"garbage\n" + b"".join(whole[2:]))
    assert f"{folder / 'samples.jsonl'}:2: not a sample" in line(harness, command, folder)


@pytest.mark.parametrize("command", ["compare", "report"])
def test_an_unfinished_run_is_told_from_one_that_is_going(harness: Command, folder: Path, command: str) -> None:
    pytest.importorskip("jinja2")
    (folder / "results.json").unlink()
    assert "give its command again" in line(harness, command, folder)
    with Journal(Run(folder), 5):
        assert "is still going; wait for it" in line(harness, command, folder)


def test_a_run_that_is_going_can_be_scored_so_far_and_is_said_to_be(harness: Command, folder: Path) -> None:
    (folder / "results.json").unlink()
    whole = (folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "samples.jsonl").write_bytes(b"".join(whole[:3]))
    assert "3 of 5 samples so far\n" in harness("score", folder).out
    with Journal(Run(folder), 5):
        assert "3 of 5 samples so far, and the run is still going\n" in harness("score", folder).out


def test_a_run_of_another_format_is_never_gone_on_with(
    harness: Command, gsm8k_data: Path, outputs: object, tmp_path: Path
) -> None:
    recorded = tmp_path / "recorded.jsonl"
    recorded.write_text('{"output": "#### 7"}\n' * 4)
    words = ("run", "-b", "gsm8k", "-e", "replay", "-m", recorded, "--data", gsm8k_data, "-o", tmp_path / "runs")
    assert harness(*words).code == 0
    [path] = (tmp_path / "runs").rglob("run.json")
    path.write_text(path.read_text().replace('"format": 1', '"format": 0'))
    done = harness(*words)
    assert done.code == 2
    assert "format 0 is not the 1 that this version reads" in done.err
    assert done.err.rstrip().endswith("or run it --fresh")
    assert harness(*words, "--fresh").code == 0


def test_what_the_machine_denies_is_one_line_whatever_it_hits(
    harness: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*words: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    monkeypatch.setattr("harness.reports.doctor.examine", full)
    done = harness("doctor")
    assert (done.code, done.out) == (2, "")
    assert done.err == "harness: somewhere: No space left on device; mend that and give the same command again\n"
