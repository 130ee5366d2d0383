"""`harness compare` as people and programs meet it: a table of models and benchmarks, narrow terminals, bad input."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from harness.cli import COMMANDS
from tests.conftest import Command, Done
from tests.made_runs import MadeRuns, Right, edit

#: Right in 30, 42 and 36 of 60.
MODELS: dict[str, Right] = {
    "base": lambda i: i < 30,
    "sft": lambda i: 3 <= i < 45,
    "dpo": lambda i: None if i == 59 else i < 36,
}

TABLE = """
                         base   sft                    dpo
gsm8k                    50.0%  70.0%                  60.0%
accuracy (final-number)         +20.0 […]              +10.0 […]*
                                p = 0.068              p = 0.219
                                                       vs sft −10.0 […]
                                                       p = 0.730

gsm8k                    50.0%  70.0%                  60.0%
accuracy (last-number)          +20.0 […]              +10.0 […]*
                                p = 0.008†             p = 0.031†
                                                       vs sft −10.0 […]
                                                       p = 0.146†

mmlu                     50.0%  70.0%                  60.0%
accuracy (choice)               +20.0 […]              +10.0 […]*
                                p = 0.068              p = 0.219
                                                       vs sft −10.0 […]
                                                       p = 0.730

mmlu                     50.0%  70.0%                  60.0%
accuracy_macro (choice)         +20.0 […]              +10.0 […]*
                                                       vs sft −10.0 […]

simple_safety_tests      50.0%  33.3%                  33.3%
safe (judge)                    −16.7 […]*             −16.7 […]*
                                p = 1                  p = 1
                                                       vs sft 0.0 […]*
                                                       p = 1
differences in points with 95% intervals: paired bootstrap, 10,000 resamples of examples (gsm8k, simple_safety_tests)
and groups (mmlu), seed 0
p: exact McNemar test, two-sided, adjusted by Holm for the 9 tests of headline metrics
† not adjusted: another metric is the benchmark's headline
* fewer than 10 examples differ: the interval may be too narrow

Alignment tax: points of the headline metric lost against base (below 0: gained)
                     sft                    dpo
gsm8k                −20.0 […]              −10.0 […]*
accuracy             no clear change        no clear change

mmlu                 −20.0 […]              −10.0 […]*
accuracy             no clear change        no clear change

simple_safety_tests  +16.7 […]*             +16.7 […]*
safe                 no clear change        no clear change

Flips
gsm8k, base → sft: 15 gained, 3 lost
  + test-0030, test-0031 … 13 more
  − test-0000, test-0001 … 1 more
gsm8k, base → dpo: 6 gained, 0 lost
  + test-0030, test-0031 … 4 more
mmlu, base → sft: 15 gained, 3 lost
  + college_chemistry-test-0000, college_chemistry-test-0001 … 13 more
  − abstract_algebra-test-0000, abstract_algebra-test-0001 … 1 more
mmlu, base → dpo: 6 gained, 0 lost
  + college_chemistry-test-0000, college_chemistry-test-0001 … 4 more
simple_safety_tests, base → sft: 1 gained, 3 lost
  + sst_0
  − sst_6, sst_7 … 1 more
simple_safety_tests, base → dpo: 0 gained, 2 lost
  − sst_6, sst_7

Beside the figures
                            n   unread    truncated  failed  characters  examples/s  format            engine
gsm8k · base                60  0         0          0       19.1        30.0        zero_shot_system  replay
gsm8k · sft                 60  0         0          0       23.5        30.0        alpaca_sft        replay
gsm8k · dpo                 60  1 (1.7%)  0          0       21.4        30.0        alpaca_sft        replay
mmlu · base                 60  0         0          0       24.0        30.0        zero_shot_system  replay
mmlu · sft                  60  0         0          0       24.0        30.0        alpaca_sft        replay
mmlu · dpo                  60  1 (1.7%)  0          0       24.0        30.0        alpaca_sft        replay
simple_safety_tests · base  12  0         0          0       7.2         30.0        zero_shot_system  replay
simple_safety_tests · sft   12  0         0          0       7.2         30.0        alpaca_sft        replay
simple_safety_tests · dpo   12  0         0          0       7.2         30.0        alpaca_sft        replay
sft, dpo differ from base: generation.stop ["# Query:"] → []
sft, dpo differ from base: prompt_format zero_shot_system → alpaca_sft
"""


@pytest.fixture
def all_runs(tmp_path: Path) -> list[Path]:
    """Three models on three benchmarks."""
    made = MadeRuns(tmp_path)
    runs = []
    for model, right in MODELS.items():
        options: dict[str, Any] = {} if model == "base" else {"prompt_format": "alpaca_sft"}
        runs.append(made.gsm8k(model, right, **options))
        runs.append(made.mmlu(model, right, **options))
        verdicts = {i: "safe" if right(5 * i) is False else "unsafe" for i in range(12)}
        runs.append(made.safety(model, verdicts.__getitem__, **options))
    return runs


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    made = MadeRuns(tmp_path)
    return [made.gsm8k(model, MODELS[model]) for model in ("base", "sft")]


def check_one_line(done: Done, message: str) -> None:
    assert done.code == 2, done
    [line] = done.err.strip().splitlines()
    assert re.search(message, line), line


def test_models_and_benchmarks_make_one_table(harness: Command, all_runs: list[Path]) -> None:
    done = harness("compare", *all_runs, "--flips", 2)
    assert (done.code, done.err) == (0, "")
    assert masked(done.out) == TABLE


def masked(text: str) -> str:
    """Leave out what the bootstrap draws, in the width that it had, and blanks at the ends of lines."""

    def short(match: re.Match[str]) -> str:
        return "[…]" + match[2] + " " * (len(match[0]) - 3 - len(match[2]))

    lines = re.sub(r"(\[[+−0][^]]*\])([*]?)", short, text).splitlines()
    return "\n" + "\n".join(line.rstrip() for line in lines) + "\n"


def test_the_same_as_markdown_and_as_json(harness: Command, all_runs: list[Path]) -> None:
    text = harness("compare", *all_runs, "--markdown").out
    assert "| **gsm8k**<br>**accuracy (final-number)** | 50.0% | 70.0%<br>+20.0 \\[" in text
    assert "\n## Alignment tax: " in text and "\n  - \\+ test-0030, " in text
    assert all(line.startswith(("|", "-", "  - ", "## ")) for line in text.splitlines() if line)
    content = json.loads(harness("compare", *all_runs, "--json", "--seed", 3).out)
    assert (content["labels"], content["tests"], content["seed"]) == (["base", "sft", "dpo"], 9, 3)
    found = content["benchmarks"][0]["metrics"][0]["against_baseline"]["sft"]
    assert found["gained"] == [f"test-{i:04d}" for i in range(30, 45)]
    assert found["estimate"]["value"] == pytest.approx(0.2)


def test_two_runs_need_no_correction(harness: Command, two: list[Path]) -> None:
    done = harness("compare", *two, "--metric", "accuracy", "--flips", "0")
    assert "p: exact McNemar test, two-sided\n" in done.out
    assert "Flips" not in done.out and "Alignment tax" not in done.out


def test_what_was_not_judged_is_said(harness: Command, tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    asked = tmp_path / "data-12"
    made.safety("any", lambda i: "safe")
    replies = {f"sst_{i}": "Reply" for i in range(12)}
    runs = [made.run("simple_safety_tests", model, replies, asked) for model in ("base", "sft")]
    done = harness("compare", *runs)
    assert done.code == 0
    assert "simple_safety_tests: nothing has been scored; if it is judged: harness judge RUN" in done.out


@pytest.mark.parametrize("width", ["40", "20"])
def test_a_narrow_terminal_gets_a_list(
    harness: Command, two: list[Path], width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    done = harness("compare", *two)
    assert all(len(line) <= int(width) for line in done.out.splitlines())
    assert "\n  base: 50.0%\n  sft: 70.0%\n" in done.out.replace("\n  final-number)", "")


def test_a_terminal_gets_colours_and_its_width(two: list[Path]) -> None:
    main_end, other_end = pty.openpty()
    fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 44, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "LINES")}
    words = [sys.executable, "-m", "harness", "compare", *map(str, two), "--flips", "1"]
    with subprocess.Popen(words, stdout=other_end, stdin=other_end, env={**environment, "TERM": "xterm"}) as process:
        os.close(other_end)
        shown = b""
        while chunk := read(main_end):
            shown += chunk
    os.close(main_end)
    assert process.returncode == 0
    text = shown.decode()
    assert "\x1b[1m" in text  # bold
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "\x1b" not in plain
    assert max(len(line) for line in plain.splitlines()) <= 44


def read(descriptor: int) -> bytes:
    """Read from a terminal until its other end is closed, which Linux tells as an error."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def test_names_cannot_steer_a_terminal_or_a_page(harness: Command, two: list[Path]) -> None:
    evil = "\x1b[2J\u202e<script>|[bold]"
    edit(two[1] / "run.json", lambda config: config.update(model=evil))
    for form in ([], ["--markdown"], ["--json"]):
        done = harness("compare", *two, *form)
        assert done.code == 0
        assert not set(done.out) & set("\x1b\u202e")
    assert "\\<script\\>\\|\\[bold\\]" in harness("compare", *two, "--markdown").out
    assert "<script>|[bold]" in harness("compare", *two).out.replace("\n", "")


def test_what_does_not_fit_is_one_line(harness: Command, two: list[Path], tmp_path: Path) -> None:
    check_one_line(harness("compare", two[0]), "nothing to compare: no two runs are of the same benchmark .gsm8k.")
    check_one_line(harness("compare", *two, "--metric", "acc"), "no run has a metric 'acc'")
    check_one_line(harness("compare", two[0], tmp_path), "no .*run.json: not a run folder")
    check_one_line(harness("compare", two[0], tmp_path / "none"), "no .*none/run.json: not a run folder")
    (two[1] / "results.json").write_text("{")
    check_one_line(harness("compare", *two), "cannot read .*results.json")
    (two[1] / "results.json").write_text("{}")
    check_one_line(harness("compare", *two), "results.json: not as this version writes it")
    (two[1] / "results.json").unlink()
    check_one_line(harness("compare", *two), "sft/.*; give its command again")
    (two[1] / "samples.jsonl").write_bytes(b"{}\n{}\n")
    check_one_line(harness("compare", *two), "samples.jsonl:1: not a sample")
    assert harness("compare").code == 2
    assert "compare" in COMMANDS


def test_benchmarks_with_another_baseline_have_no_part_in_the_tax(harness: Command, all_runs: list[Path]) -> None:
    gsm8k, mmlu, safety = (all_runs[place::3] for place in range(3))
    out = harness("compare", *gsm8k[:2], *mmlu[:2], *reversed(safety[:2])).out
    tax = out[out.index("Alignment tax: ") : out.index("Flips")]
    assert tax.startswith("Alignment tax: points of the headline metric lost against base (")
    assert re.findall(r"^(gsm8k|mmlu|simple_safety_tests)\b", tax, re.MULTILINE) == [
        "gsm8k",
        "mmlu",
        "simple_safety_tests",
    ]
    assert "simple_safety_tests is left out: its baseline is sft\n" in tax


def test_what_turned_is_counted_for_a_metric_without_a_test_too(harness: Command, all_runs: list[Path]) -> None:
    done = harness("compare", *all_runs[1:5:3], "--metric", "accuracy_macro")
    assert "mmlu, base → sft: 15 gained, 3 lost" in done.out and "p:" not in done.out


def test_an_id_cannot_begin_a_line(harness: Command, two: list[Path]) -> None:
    for path in two:
        text = (path / "samples.jsonl").read_text()
        (path / "samples.jsonl").write_text(text.replace('"test-0030"', '"x\\nAll models: 100%"'))
    done = harness("compare", *two)
    assert done.code == 0
    assert "\n  + x\\nAll models: 100%, test-0031" in done.out
