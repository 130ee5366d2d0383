"""Plugins that raise, exit, print, return nonsense or never return: one line says whose fault it is, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness import calls, overdue
from harness.errors import PluginError
from harness.scorers.exact import Exact
from harness.testing.fixtures import FakeDistribution
from harness.types import Example
from tests.conftest import Command

ODD = """
import sys, time
from harness.hookspecs import hookimpl

class Odd:
    name = "odd"
    def parse(self, output, example=None):
        if output == "odd":
            {odd}
        return output

@hookimpl
def harness_parsers():
    return [Odd()]
"""

EXAMPLE = Example("a", {}, gold="1")


@pytest.fixture
def run_with(
    harness: Command, fake_distribution: FakeDistribution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[Any, Path]]:
    """Run a file of prompts whose second of three outputs the parser `odd` does `odd` with."""
    monkeypatch.chdir(tmp_path)

    def run(odd: str) -> tuple[Any, Path]:
        fake_distribution(
            "harness-odd",
            entry_points={"harness.parsers": {"odd": "harness_odd"}},
            modules={"harness_odd": ODD.format(odd=odd)},
        )
        Path("asked.jsonl").write_text("".join(json.dumps({"prompt": f"q{n}", "gold": "1"}) + "\n" for n in range(3)))
        Path("outputs.jsonl").write_text("".join(json.dumps({"output": text}) + "\n" for text in ("1", "odd", "2")))
        words = ["--set", "prompts.parser=odd", "--engine", "replay", "--model", "outputs.jsonl"]
        done = harness("run", "--benchmark", "asked.jsonl", *words)
        return done, next(iter(Path("runs").glob("*/*/*")), Path("nowhere"))

    return run


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ("raise KeyError('x')", "it raises KeyError: 'x' (harness_odd.py, line 9)"),
        ("return {}['y']", "it raises KeyError: 'y' (harness_odd.py, line 9)"),
        ("sys.exit(0)", "it raises SystemExit: 0 (harness_odd.py, line 9)"),
        ("import os; os._exit(0)", "it raises SystemExit: os._exit(0) (harness_odd.py, line 9)"),
        ("raise GeneratorExit", "it raises GeneratorExit: (harness_odd.py, line 9)"),
        ("raise BaseException('x')", "it raises BaseException: x (harness_odd.py, line 9)"),
        ("return [1]", "its answer is [1], not text or None"),
        ("return 3", "its answer is 3, not text or None"),
        (
            "raise type('E', (Exception,), {'__str__': lambda self: 1 / 0})",
            "it raises E: what it says cannot be read (harness_odd.py, line 9)",
        ),
        (
            "return type('A', (), {'__repr__': lambda self: 1 / 0})()",
            "its answer is what cannot be shown, of the type A, not text or None",
        ),
    ],
)
def test_a_parser_that_fails_on_one_output_fails_that_example_alone(
    run_with: Callable[[str], tuple[Any, Path]], odd: str, why: str
) -> None:
    done, folder = run_with(odd)
    said = f"parser 'odd' from harness-odd 1.0, example 'asked-0001': {why}"
    assert done.code == 1
    assert f"warning: {said}; the output is kept: harness score {folder} reads it again\n" in done.err
    results = json.loads((folder / "results.json").read_text())
    assert results["failed"]["ids"] == ["asked-0001"] and said == results["failed"]["reasons"][0]["reason"]
    assert results["metrics"]["odd"]["accuracy"]["n"] == 2 and results["metrics"]["odd"]["accuracy"]["value"] == 0.5
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [sample["status"] for sample in samples] == ["ok", "engine_error", "ok"]
    assert samples[1]["error"] == said and samples[1]["output"] == "odd" and samples[1]["scores"] == {}


def test_what_is_kept_is_read_again_once_the_parser_is_mended(
    run_with: Callable[[str], tuple[Any, Path]], harness: Command
) -> None:
    _, folder = run_with("raise KeyError('x')")
    done = harness("score", folder, "--parser", "final-number")
    assert (done.code, done.err) == (0, "")
    assert "failed 0" in done.out and " 3 " in done.out
    again = harness("score", folder)
    assert "failed 1 (33.3%)" in again.out


def test_a_run_of_recorded_outputs_reads_them_too(
    run_with: Callable[[str], tuple[Any, Path]], harness: Command
) -> None:
    _, folder = run_with("raise KeyError('x')")
    words = ["--set", "prompts.parser=final-number", "--engine", "replay", "--model", folder]
    assert "failed 0" in harness("run", "--benchmark", "asked.jsonl", *words).out


def test_a_parser_that_does_not_return_is_ended(
    run_with: Callable[[str], tuple[Any, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overdue, "PATIENCE", 0.3)
    started = time.monotonic()
    _, folder = run_with("import re; re.match(r'(a+)+$', 'a' * 50 + 'b')")
    results = json.loads((folder / "results.json").read_text())
    assert results["failed"]["ids"] == ["asked-0001"] and results["n"] == 3
    assert "it takes more than 0.3 s" in (folder / "samples.jsonl").read_text()
    assert time.monotonic() - started < 30


def test_one_that_catches_everything_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn:
        name = "stubborn"

        def parse(self, output: str, example: Example | None = None) -> str | None:
            while True:
                with suppress(Exception):
                    time.sleep(0.01)

    monkeypatch.setattr(overdue, "PATIENCE", 0.3)
    with pytest.raises(
        PluginError, match=r"^Stubborn 'stubborn', example 'a': it takes more than 0.3 s \(HARNESS_LIMIT_SECONDS\)$"
    ):
        calls.parse(Stubborn(), "", EXAMPLE)
    time.sleep(1.5)  # nothing comes later


def test_what_takes_its_time_and_returns_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue, "PATIENCE", 3.0)
    with calls.timed(Exact(), EXAMPLE):
        time.sleep(1.2)


def test_in_a_thread_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue, "PATIENCE", 0.1)
    ended = []

    def work() -> None:
        with calls.timed(Exact(), EXAMPLE):
            time.sleep(1.3)
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended


def test_what_a_parser_prints_is_no_answer(harness: Command, fake_distribution: FakeDistribution) -> None:
    source = ODD.format(odd="print('printed', flush=True); sys.stdout.write('written\\n')")
    fake_distribution(
        "harness-odd", entry_points={"harness.parsers": {"odd": "harness_odd"}}, modules={"harness_odd": source}
    )
    path = Path("outputs.txt").resolve()
    try:
        path.write_text("one\nodd\n")
        done = harness("parse", "odd", path)
    finally:
        path.unlink()
    assert (done.out, done.err) == ("one\nodd\n", "printed\nwritten\n")


def test_parse_tells_at_the_end_what_a_parser_failed_on(
    harness: Command, fake_distribution: FakeDistribution, tmp_path: Path
) -> None:
    fake_distribution(
        "harness-odd",
        entry_points={"harness.parsers": {"odd": "harness_odd"}},
        modules={"harness_odd": ODD.format(odd="raise KeyError('x')")},
    )
    (tmp_path / "outputs.txt").write_text("one\nodd\ntwo\n")
    done = harness("parse", "odd", tmp_path / "outputs.txt")
    assert (done.code, done.out) == (2, "one\n\ntwo\n")
    assert "outputs.txt:2: parser 'odd' from harness-odd 1.0: it raises KeyError: 'x'" in done.err


def test_a_process_that_ends_at_once_ends_well() -> None:
    """A signal that comes while Python cleans up would kill it."""
    program = (
        "import time; from harness import overdue; overdue.begin(); overdue.end()\n"
        "class Slow:\n    def __del__(self, sleep=time.sleep):\n        sleep(1.5)\n"
        "import sys; sys.slow = Slow()"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_forked_child_is_watched_too() -> None:
    program = (
        "import os, time; from harness import overdue; overdue.PATIENCE = 0.2; overdue.begin(); overdue.end()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    overdue.begin()\n"
        "    try:\n        time.sleep(20)\n    except overdue.TooLong:\n        os._exit(7)\n"
        "    os._exit(1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("odd", ["sys.stdout.close()", "sys.stderr.close()", "sys.stdout.close(); sys.stderr.close()"])
def test_a_parser_that_closes_what_is_said_fails_that_example_alone(
    fake_distribution: FakeDistribution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = fake_distribution(
        "harness-odd",
        entry_points={"harness.parsers": {"odd": "harness_odd"}},
        modules={"harness_odd": ODD.format(odd=odd)},
    )
    Path("asked.jsonl").write_text("".join(json.dumps({"prompt": f"q{n}", "gold": "1"}) + "\n" for n in range(3)))
    Path("outputs.jsonl").write_text("".join(json.dumps({"output": text}) + "\n" for text in ("1", "odd", "2")))
    words = ["run", "-b", "asked.jsonl", "--set", "prompts.parser=odd", "-e", "replay", "-m", "outputs.jsonl"]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words, "--run-dir", "run"], check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    said = "parser 'odd' from harness-odd 1.0, example 'asked-0001': it closes standard output or standard error"
    results = json.loads(Path("run", "results.json").read_text())
    assert said == results["failed"]["reasons"][0]["reason"] and results["metrics"]["odd"]["accuracy"]["n"] == 2
    assert (said in done.stderr + done.stdout) == (";" not in odd)


@pytest.mark.parametrize(("at_import", "code"), [("import os; os._exit(0)", 2), ("import sys; sys.exit(0)", 2)])
def test_a_plugin_that_ends_the_process_as_it_is_imported_is_named(
    harness: Command, fake_distribution: FakeDistribution, at_import: str, code: int
) -> None:
    fake_distribution(
        "harness-odd", entry_points={"harness.parsers": {"odd": "harness_odd"}}, modules={"harness_odd": at_import}
    )
    done = harness("parse", "odd", "-")
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("harness: parser 'odd' from harness-odd 1.0 failed to load: SystemExit")


def test_an_end_outside_a_plugins_call_is_told_and_no_success() -> None:
    program = "import os; from harness.cli.ending import tell_of_exits; tell_of_exits()\nos._exit(0)"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "harness: something has ended the process at once: os._exit(0) (<string>, line 2)\n"
    forks = "os.fork() or os._exit(7)\nassert os.waitstatus_to_exitcode(os.wait()[1]) == 7"
    forked = program.replace("os._exit(0)", forks)
    assert subprocess.run([sys.executable, "-c", forked], check=False).returncode == 0


def test_an_answer_is_text_however_it_would_compare(run_with: Callable[[str], tuple[Any, Path]]) -> None:
    done, folder = run_with("return type('A', (str,), {'__eq__': lambda *_: 1 / 0, '__hash__': lambda *_: 1 / 0})('1')")
    assert (done.code, done.err.count("warning:")) == (0, 0), done.err
    assert json.loads((folder / "results.json").read_text())["metrics"]["odd"]["accuracy"]["n"] == 3
