"""What a terminal is sent: in a real one, no name, id, group or path out of a file can steer it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.made_runs import MadeRuns, edit

EVIL = "\x1b[2J\x1b]0;owned\x07\u202e\n  evil"
SEEN = r"\x1b[2J\x1b]0;owned\x07\u202e"


def typed(*words: str | Path) -> str:
    """Run a Python command whose input and output are a terminal, and return what the terminal was sent."""
    main_end, other_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *map(str, words)], stdin=other_end, stdout=other_end, stderr=other_end, close_fds=True
    )
    os.close(other_end)
    sent = b""
    try:
        while chunk := os.read(main_end, 65536):
            sent += chunk
    except OSError:  # which is how Linux tells that the other end is closed
        pass
    finally:
        os.close(main_end)
        process.wait()
    return sent.decode()


def check(sent: str) -> None:
    assert SEEN in sent, sent
    assert not any(sequence in sent for sequence in ("\x1b[2J", "\x1b]", "\x07", "\u202e")), repr(sent)


def harness(*words: str | Path) -> str:
    return typed("-m", "harness", *words)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "\x1b[2Jp.jsonl"
    rows = [{"instruction": "1 + 1?", "gold": "2", "id": f"{i}{EVIL}", "group": f"{i}{EVIL}"} for i in range(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_errors_and_warnings() -> None:
    check(harness("show", SEEN.encode().decode("unicode_escape")))
    check(harness("show", "a", "b", f"{SEEN}{SEEN.encode().decode('unicode_escape')}"))  # told by click, without CSI
    check(typed("-c", f"from harness.cli.options import warn; warn([{EVIL!r}])"))


def test_ids_and_groups_of_a_run(prompts: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs.jsonl"
    outputs.write_text('{"output": "2"}\n{"output": "3"}\n', encoding="utf-8")
    asked: list[str | Path] = ["-e", "replay", "-m", outputs, "--set", "prompts.parser=final-number"]
    sent = harness("run", "-b", prompts, *asked, "-o", tmp_path / "runs")
    check(sent)
    [run] = (tmp_path / "runs").rglob("run.json")
    commands: list[list[str | Path]] = [["score", run.parent], ["show", run.parent], ["preview", prompts, *asked]]
    for command in commands:
        sent = harness(*command)
        check(sent)
        assert "\n  evil" not in sent.replace("\r", "")


def test_names_of_a_benchmark_and_a_judge(tmp_path: Path) -> None:
    run = MadeRuns(tmp_path).safety("m", lambda i: "safe", n=2)
    edit(run / "run.json", lambda config: config.update(benchmark=EVIL))
    replies = tmp_path / "m" / "judge.jsonl"
    replies = replies.rename(replies.with_name("second.jsonl"))
    check(harness("judge", run, "-j", replies, "--judge-engine", "replay"))


def test_places_that_were_written(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")  # a report is written
    run = MadeRuns(tmp_path).gsm8k("m", lambda index: True, n=2)
    evil = run.with_name(SEEN.encode().decode("unicode_escape"))
    run.rename(evil)
    check(harness("export", evil, "--format", "lm-eval"))
    check(harness("report", evil, "--out", f"{evil}.html"))
