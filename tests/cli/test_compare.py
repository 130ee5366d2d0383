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
                         base   sft                   dpo
gsm8k                    50.0%  70.0%                 60.0%
accuracy (final-number)         +20.0 [+6.8, +33.5]   +10.0 [+3.4, +20.1]
                                p = 0.042             p = 0.114
                                                      vs sft −10.0 [−22.2, +1.5]
                                                      p = 0.583

gsm8k                    50.0%  70.0%                 60.0%
accuracy (last-number)          +20.0 [+6.8, +33.5]   +10.0 [+3.4, +20.1]
                                p = 0.005†            p = 0.014†
                                                      vs sft −10.0 [−22.2, +1.5]
                                                      p = 0.083†

mmlu                     50.0%  70.0%                 60.0%
accuracy (choice)               +20.0 [−19.3, +54.0]  +10.0 [−20.0, +40.0]
                                p = 1                 p = 1
                                                      vs sft −10.0 [−42.0, +23.4]
                                                      p = 1

mmlu                     50.0%  70.0%                 60.0%
accuracy_macro (choice)         +20.0 [−19.3, +54.0]  +10.0 [−20.0, +40.0]
                                                      vs sft −10.0 [−42.0, +23.4]

simple_safety_tests      50.0%  33.3%                 33.3%
safe (judge)                    −16.7 [−48.5, +18.9]  −16.7 [−44.8, +11.6]
                                p = 1                 p = 0.944
                                                      vs sft 0.0 [−29.9, +29.9]
                                                      p = 1
differences in points with 95% intervals, and two-sided p-values of the same inference; p adjusted by Holm for the 9
tests of headline metrics
gsm8k, simple_safety_tests: score method, examples independent
mmlu: score method with the variance between 12 groups, taken as a sample of such groups, by Satterthwaite's t
mmlu: score method of the groups' means with the variance between 12 groups, taken as a sample of such groups, by
Satterthwaite's t
gsm8k: smallest true difference to show with 80% power, in points: sft 19, dpo 12
mmlu: smallest true difference to show with 80% power, in points: sft 51, dpo 41
simple_safety_tests: smallest true difference to show with 80% power, in points: sft 48, dpo 40
† not adjusted: another metric is the benchmark's headline

Alignment tax: points of the headline metric lost against base (below 0: gained)
                     sft                   dpo
gsm8k                −20.0 [−33.5, −6.8]   −10.0 [−20.1, −3.4]
accuracy             gained                no clear change

mmlu                 −20.0 [−54.0, +19.3]  −10.0 [−40.0, +20.0]
accuracy             no clear change       no clear change

simple_safety_tests  +16.7 [−18.9, +48.5]  +16.7 [−11.6, +44.8]
safe                 no clear change       no clear change

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
                            n   unread    truncated  failed  characters  examples/s   format            engine
gsm8k · base                60  0         0          0       19.1        30           zero_shot_system  replay
gsm8k · sft                 60  0         0          0       23.5        30 (1.00 ×)  alpaca_sft        replay
gsm8k · dpo                 60  1 (1.7%)  0          0       21.4        30 (1.00 ×)  alpaca_sft        replay
mmlu · base                 60  0         0          0       24.0        30           zero_shot_system  replay
mmlu · sft                  60  0         0          0       24.0        30 (1.00 ×)  alpaca_sft        replay
mmlu · dpo                  60  1 (1.7%)  0          0       24.0        30 (1.00 ×)  alpaca_sft        replay
simple_safety_tests · base  12  0         0          0       7.2         30           zero_shot_system  replay
simple_safety_tests · sft   12  0         0          0       7.2         30 (1.00 ×)  alpaca_sft        replay
simple_safety_tests · dpo   12  0         0          0       7.2         30 (1.00 ×)  alpaca_sft        replay
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
    assert without_blanks(done.out) == TABLE


def without_blanks(text: str) -> str:
    """Leave out blanks at the ends of lines."""
    lines = text.splitlines()
    return "\n" + "\n".join(line.rstrip() for line in lines) + "\n"


def test_the_same_as_markdown_and_as_json(harness: Command, all_runs: list[Path]) -> None:
    text = harness("compare", *all_runs, "--markdown").out
    assert "| **gsm8k**<br>**accuracy (final-number)** | 50.0% | 70.0%<br>**+20.0 \\[" in text
    assert "\n## Alignment tax: " in text and "\n  - \\+ test-0030, " in text
    assert all(line.startswith(("|", "-", "  - ", "## ")) for line in text.splitlines() if line)
    content = json.loads(harness("compare", *all_runs, "--json", "--groups-are", "whole").out)
    assert (content["labels"], content["tests"]) == (["base", "sft", "dpo"], 9)
    assert [each["groups"] for each in content["benchmarks"]] == [None, None, None]
    found = content["benchmarks"][0]["metrics"][0]["against_baseline"]["sft"]
    assert found["gained"] == [f"test-{i:04d}" for i in range(30, 45)]
    assert found["estimate"]["value"] == pytest.approx(0.2)


def test_two_runs_need_no_correction(harness: Command, two: list[Path]) -> None:
    done = harness("compare", *two, "--metric", "accuracy", "--flips", "0")
    assert "two-sided p-values of the same inference\n" in done.out and "Holm" not in done.out
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
    check_one_line(
        harness("compare", two[0], tmp_path), "not a run folder, but runs are in it; give .*, or one such as"
    )
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


def test_a_gate_says_so_with_its_exit_code(harness: Command, two: list[Path], tmp_path: Path) -> None:
    passed = harness("compare", *two, "--max-drop", "gsm8k=1")
    assert passed.code == 0
    assert "\nGate: pass\npass: gsm8k, sft: +20.0 [+6.8, +33.5]; may lose 1 points of accuracy\n" in passed.out
    failed = harness("compare", *reversed(two), "--max-drop", "gsm8k=1", "--json")
    assert failed.code == 3
    assert json.loads(failed.out)["gate"]["verdict"] == "fail"
    rules = tmp_path / "rules.toml"
    rules.write_text("[gsm8k]\nmax_drop = 10.0\n")
    undecided = harness("compare", *reversed(two), "--gate", rules, "--markdown")
    assert undecided.code == 4 and "## Gate: undecided" in undecided.out
    check_one_line(harness("compare", *two, "--max-drop", "mmlu=1"), "rule for mmlu, of which no two runs are given")


def test_a_plan_says_how_many_examples_are_needed(harness: Command, two: list[Path]) -> None:
    done = harness("plan-size", "--detect", "5", *two)
    assert (done.code, done.err) == (0, "")
    assert re.search(
        r"[\d,]+ examples, paired, show a true difference of 5 points with 80% power\n"
        r"gsm8k has 60, which show 19 points\n"
        r"assumed: 18 of 60 examples differ between base and sft\n",
        done.out,
    )
    worst = harness("plan-size", "--detect", "2")
    assert worst.out.startswith("9,812 examples, paired, show a true difference of 2 points with 80% power\n")
    check_one_line(harness("plan-size", "--detect", "0"), "--detect must be above 0")
