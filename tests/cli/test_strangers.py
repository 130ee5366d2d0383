"""Run folders that others made, given to every command that takes one: one line, no file outside touched, no hang."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.api import load_runs
from harness.reports.view.folder import RunsFolder
from harness.runs.environment import _git
from tests import processes
from tests.conftest import Command
from tests.made_runs import MadeRuns

COMMANDS = {
    "show": ("show", "RUN"),
    "score": ("score", "RUN"),
    "compare": ("compare", "RUN", "RUN"),
    "report": ("report", "RUN", "--out", "report.html"),
    "judge": ("judge", "RUN", "--judge", "replies.jsonl", "--judge-engine", "replay"),
}


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder_there(path: Path) -> None:
    path.mkdir()


def link_outside(path: Path) -> None:
    path.symlink_to(victim(path))


def deep(path: Path) -> None:
    path.write_text('{"index": 0, "a": ' + "[" * 100_000 + "]" * 100_000 + "}\n{}\n")


def victim(path: Path) -> Path:
    """Return a file of the user's outside the folder of runs."""
    found = Path.cwd() / "victim.txt"
    found.write_text("precious")
    return found


@pytest.fixture
def safety(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "replies.jsonl").write_text('{"output": "safe"}\n' * 4)
    return MadeRuns(tmp_path / "made").safety("m", lambda i: "safe", n=4)


def refused(words: tuple[str, ...], run: Path) -> str:
    """Return the one line that a command in a process of its own refuses a run with, before long."""
    given = [str(run) if word == "RUN" else word for word in words]
    done = processes.run(given, Path("said").absolute(), seconds=60)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    [said] = done.stderr.splitlines()
    return said


@pytest.mark.parametrize("make", [link_to_zeros, pipe, folder_there, link_outside, deep])
@pytest.mark.parametrize(
    ("command", "name"),
    [(command, name) for command in ("show", "compare") for name in ("run.json", "results.json", "samples.jsonl")]
    + [("judge", "run.json"), ("judge", "samples.jsonl")],  # which writes results.json anew
)
def test_an_odd_file_is_one_line(safety: Path, command: str, name: str, make: Callable[[Path], None]) -> None:
    (safety / name).unlink()
    make(safety / name)
    said = refused(COMMANDS[command], safety)
    assert str(safety / name) in said
    assert not (Path.cwd() / "victim.txt").exists() or (Path.cwd() / "victim.txt").read_text() == "precious"


@pytest.mark.parametrize("name", ["run.json", "results.json", "timing.json"])
def test_a_key_that_no_text_can_hold_is_one_line(safety: Path, harness: Command, name: str) -> None:
    content = json.loads((safety / name).read_text())
    (safety / name).write_text(json.dumps({"\ud800": 1, **content}))
    done = harness("show", safety)
    assert (done.code, len(done.err.splitlines())) in ((2, 1), (0, 0)), done.err  # not every command reads each file
    done = harness("report", safety, "--out", "report.html")
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert str(safety / name) in done.err


@pytest.mark.parametrize("command", ["score", "report"])
@pytest.mark.parametrize("name", ["run.json", "samples.jsonl"])
def test_other_commands_refuse_an_endless_file_too(safety: Path, command: str, name: str) -> None:
    (safety / name).unlink()
    link_to_zeros(safety / name)
    if command == "score":
        run = MadeRuns(safety.parents[3] / "more").gsm8k("m", lambda i: True, n=4)
        (run / name).unlink()
        link_to_zeros(run / name)
        safety = run
    assert "a symbolic link, which is not followed here" in refused(COMMANDS[command], safety)


@pytest.mark.parametrize("name", ["judgements.jsonl", "judged"])
def test_judging_writes_through_no_link(safety: Path, name: str) -> None:
    outside = Path.cwd() / "outside"
    outside.mkdir()
    (outside / "judge.jsonl").write_text("precious")
    (outside / "file").write_text("precious")
    place = safety / name
    if place.is_dir():
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        place.symlink_to(outside)
    else:
        place.unlink()
        place.symlink_to(outside / "file")
    said = refused(COMMANDS["judge"], safety)
    assert "symbolic link" in said
    assert str(safety) in said
    assert sorted(path.name for path in outside.iterdir()) == ["file", "judge.jsonl"]
    assert {path.read_text() for path in outside.iterdir()} == {"precious"}


@pytest.mark.parametrize("content", ["precious", "precious\n", '{"precious": true}\n', '{"precious": true}\n' * 3])
def test_what_is_no_record_is_not_cut_off(safety: Path, content: str) -> None:
    (safety / "judgements.jsonl").write_text(content)
    assert f"{safety / 'judgements.jsonl'}:1: not a judgement" in refused(COMMANDS["judge"], safety)
    assert (safety / "judgements.jsonl").read_text() == content


def test_a_file_with_a_second_name_is_not_written_to(safety: Path) -> None:
    (safety / "judgements.jsonl").unlink()
    (safety / "judgements.jsonl").hardlink_to(victim(safety))
    assert "a file of several names" in refused(COMMANDS["judge"], safety)
    assert (Path.cwd() / "victim.txt").read_text() == "precious"


def words_of(data: Path, recorded: Path) -> tuple[str | Path, ...]:
    return "run", "-b", "gsm8k", "-e", "replay", "-m", recorded, "--data", data, "-o", recorded.parent / "runs"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "recorded.jsonl"
    path.write_text('{"output": "#### 7"}\n' * 4)
    return path


@pytest.mark.parametrize("name", ["samples.jsonl", "exports"])
def test_a_run_that_is_gone_on_with_writes_through_no_link(
    harness: Command, gsm8k_data: Path, recorded: Path, tmp_path: Path, name: str
) -> None:
    assert harness(*words_of(gsm8k_data, recorded)).code == 0
    [run] = (tmp_path / "runs" / "gsm8k").glob("*/*")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "samples.jsonl").write_text("")
    if name == "samples.jsonl":
        (run / name).unlink()
        (run / name).symlink_to(outside / name)
        done = harness(*words_of(gsm8k_data, recorded))
        assert (done.code, "symbolic link" in done.err) == (2, True)
    else:
        (run / name).symlink_to(outside)
        from harness.errors import RunError
        from harness.runs.folder import Run

        with pytest.raises(RunError, match=r"in exports/, which is a symbolic link"):
            Run(run).write_export("x.json", [{}])
    assert [path.name for path in outside.iterdir()] == ["samples.jsonl"]
    assert (outside / "samples.jsonl").read_text() == ""


def test_a_folder_in_which_no_run_began_is_left_out(harness: Command, tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    first, second = made.gsm8k("a", lambda i: True, n=8), made.gsm8k("b", lambda i: i > 2, n=8)
    empty = tmp_path / "20261121T040338Z-00000000"
    empty.mkdir()
    (empty / ".run.json.999999999").write_text("{")
    done = harness("compare", first, empty, second)
    assert done.code == 0
    assert f"{empty} is left out: no run has begun in it" in done.err
    assert "b" in done.out
    done = harness("compare", first, tmp_path / "no-such-run")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    (empty / "notes.txt").write_text("mine")
    assert harness("compare", first, empty).code == 2


def test_a_run_appears_only_whole_and_what_a_dead_process_left_goes(
    harness: Command, gsm8k_data: Path, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tmp_path / "runs" / "gsm8k" / "recorded"
    left = parent / ".20200101T000000Z-abcdef01.999999999"
    left.mkdir(parents=True)
    (left / ".run.json.999999999").write_text("{")
    mine = parent / ".mine.999999999"
    mine.write_text("mine")
    seen: list[list[str]] = []

    def rename(*names: Any, **folders: Any) -> None:
        seen.append(sorted(path.name for path in parent.iterdir() if not path.name.startswith(".")))
        assert load_runs(tmp_path / "runs") == []
        assert RunsFolder(tmp_path / "runs").rows() == []
        real(*names, **folders)

    real = os.rename
    monkeypatch.setattr(os, "rename", rename)
    assert harness(*words_of(gsm8k_data, recorded)).code == 0
    assert seen == [[]]
    assert not left.exists()
    assert mine.exists()
    [run] = [path for path in parent.iterdir() if not path.name.startswith(".")]
    assert "fingerprint" in json.loads((run / "run.json").read_text())
    (run / ".results.json.999999999").write_text("{")
    (run / f".results.json.{os.getppid()}").write_text("{")
    assert harness(*words_of(gsm8k_data, recorded)).code == 0
    assert not (run / ".results.json.999999999").exists()
    assert (run / f".results.json.{os.getppid()}").exists(), "of a process that is alive"


@pytest.mark.parametrize("index", [2**63, 300_000_000, 10**30, -1])
@pytest.mark.parametrize("command", ["show", "compare", "report"])
def test_an_index_beyond_all_benchmarks_is_one_line(safety: Path, command: str, index: int) -> None:
    first, *rest = (safety / "samples.jsonl").read_text().splitlines(keepends=True)
    record = {**json.loads(first), "index": index}
    (safety / "samples.jsonl").write_text("".join([json.dumps(record) + "\n", *rest]))
    assert f"{safety / 'samples.jsonl'}:1: not a sample" in refused(COMMANDS[command], safety)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("samples.jsonl", {"category": 1e308}),
        ("samples.jsonl", {"output": 1e308}),
        ("samples.jsonl", {"prompt": None}),
        ("judged/judge.jsonl", {"against": True}),
        ("judgements.jsonl", {"prompt_tokens": None, "output": None}),
        ("judgements.jsonl", {"prompt_tokens": True}),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_value_of_another_type_is_one_line_or_not_looked_at(
    safety: Path, command: str, file: str, changes: dict[str, Any]
) -> None:
    first, *rest = (safety / file).read_text().splitlines(keepends=True)
    record = {**json.loads(first), **changes}
    (safety / file).write_text("".join([json.dumps(record) + "\n", *rest]))
    given = [str(safety) if word == "RUN" else word for word in COMMANDS[command]]
    done = processes.run(given, Path("said").absolute(), seconds=60)
    assert done.returncode in (0, 2), done.stderr
    assert done.returncode == 0 or len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_no_program_that_a_strangers_repository_names_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    repository = Path.cwd() / "repository"
    program = Path.cwd() / "program"
    program.write_text(f"#!/bin/sh\ntouch {Path.cwd() / 'started'}\n")
    program.chmod(0o755)
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    monkeypatch.chdir(repository)
    named = ["-c", "user.name=x", "-c", "user.email=x@y"]
    for words in ([*named, "commit", "-q", "--allow-empty", "-m", "x"], ["config", "core.fsmonitor", str(program)]):
        subprocess.run(["git", *words], check=True)
    subprocess.run(["git", "status"], check=True, capture_output=True)
    assert (repository.parent / "started").exists(), "git itself would start it"
    (repository.parent / "started").unlink()
    assert isinstance(_git.__wrapped__(), dict)
    assert not (repository.parent / "started").exists()
