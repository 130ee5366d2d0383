"""Checks in a process of their own: a plugin that crashes, hangs, ends the process or writes to it fails one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.testing.conformance import Subject, checks
from harness.testing.conformance.isolated import Outcome, run_isolated
from harness.testing.new import plugin_files
from tests.conftest import Command

if TYPE_CHECKING:
    from harness.testing.fixtures import FakeDistribution

SOUND = plugin_files("odd", "parser")["harness_odd.py"]
BEFORE = "before, end"


def install(fake_distribution: FakeDistribution, source: str) -> Subject:
    fake_distribution(
        "harness-odd", entry_points={"harness.parsers": {"odd": "harness_odd"}}, modules={"harness_odd": source}
    )
    return Subject("parsers", "odd", outputs=("<answer>a</answer>",))


def broken(change: str) -> str:
    """Return a parser that does something else on the fourth of the usual outputs alone."""
    assert BEFORE in SOUND
    return SOUND.replace(BEFORE, f"if output == '3/4':\n            {change}\n        {BEFORE}", 1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("import os; os._exit(3)", "the process ended in the middle of it (exit code 3)"),
        ("import os; os.kill(os.getpid(), 11)", "the process died of SIGSEGV"),
        ("raise SystemExit(5)", "it ends the process (exit code 5)"),
        ("raise KeyError('\\x1b[31m\\n')", r"it raises KeyError: '\x1b[31m\n' on '3/4'"),
    ],
)
def test_a_plugin_that_crashes_fails_the_checks_that_it_crashes_in(
    fake_distribution: FakeDistribution, change: str, why: str
) -> None:
    outcomes = list(run_isolated(install(fake_distribution, broken(change))))
    assert [outcome.check for outcome in outcomes] == [check.name for check in checks("parsers")]
    assert [outcome.status for outcome in outcomes] == ["ok", "ok", "ok", "failed", "failed", "failed", "ok"]
    assert outcomes[3].why == why


def test_a_plugin_that_hangs_is_ended(fake_distribution: FakeDistribution) -> None:
    loop = f"while len(output) > 500_000: pass\n        {BEFORE}"
    outcomes = list(run_isolated(install(fake_distribution, SOUND.replace(BEFORE, loop, 1)), seconds=8.0))
    assert outcomes[3] == Outcome("it reads any text", "failed", "it takes more than 8 s")
    assert [outcome.status for outcome in outcomes].count("ok") == len(outcomes) - 1


def test_what_a_plugin_writes_is_not_taken_for_a_report(fake_distribution: FakeDistribution) -> None:
    noise = 'import os; print(\'["ok", ""]\'); os.write(1, b\'["failed", "no"]\\n\')'
    subject = install(
        fake_distribution, f"{noise}\n{broken(noise)}".replace("from __future__ import annotations\n", "")
    )
    assert {outcome.status for outcome in run_isolated(subject)} == {"ok"}


def test_the_rest_is_skipped_where_a_plugin_does_not_load(fake_distribution: FakeDistribution) -> None:
    first, *others = run_isolated(install(fake_distribution, "import a_package_that_nobody_has"))
    assert first.status == "failed" and "No module named 'a_package_that_nobody_has'" in first.why
    assert len(others) == len(checks("parsers")) - 1
    assert {(outcome.status, outcome.why) for outcome in others} == {("skipped", "it does not load")}


def test_a_plugin_that_ends_the_process_when_it_is_imported_is_found(fake_distribution: FakeDistribution) -> None:
    first, *_ = run_isolated(install(fake_distribution, "import os; os._exit(0)"))
    assert first == Outcome("it loads", "failed", "the process ended in the middle of it (exit code 0)")


def test_the_command_says_it_line_by_line(harness: Command, fake_distribution: FakeDistribution) -> None:
    install(fake_distribution, broken("raise KeyError('\\x1b[31m\\u202e')"))
    done = harness("plugins", "--check", "odd")
    assert done.code == 1
    head, *lines, total = done.out.splitlines()
    assert head == "parser 'odd' from harness-odd 1.0"
    assert lines[0] == "  ok       it loads"
    assert lines[3].startswith("  failed   it reads any text: it raises KeyError: '\\x1b[31m")
    assert "\x1b" not in done.out and "\u202e" not in done.out
    assert total == "4 ok, 3 failed, 0 skipped"


def test_the_command_gives_json(harness: Command) -> None:
    done = harness("plugins", "--check", "scorers:exact", "--json")
    assert done.code == 0
    rows = json.loads(done.out)
    assert [row["check"] for row in rows] == [check.name for check in checks("scorers")]
    assert rows[0] == {"kind": "scorers", "name": "exact", "check": "it loads", "status": "ok", "why": ""}
    assert {row["status"] for row in rows} == {"ok", "skipped"}


def test_a_name_that_two_kinds_share_is_checked_as_both(harness: Command, fake_distribution: FakeDistribution) -> None:
    points = {"harness.parsers": {"odd": "harness_odd"}, "harness.trackers": {"odd": "harness_odd"}}
    source = f"{SOUND}\n\n{plugin_files('odd', 'tracker')['harness_odd.py']}".replace("from __future__", "#")
    fake_distribution("harness-odd", entry_points=points, modules={"harness_odd": source})
    rows = json.loads(harness("plugins", "--check", "odd", "--json").out)
    assert [row["kind"] for row in rows] == ["parsers"] * len(checks("parsers")) + ["trackers"] * len(
        checks("trackers")
    )
    assert {row["status"] for row in rows} == {"ok"}


def test_options_and_data_reach_the_plugin(harness: Command, gsm8k_data: Path) -> None:
    done = harness("plugins", "--check", "gsm8k", "--data", gsm8k_data)
    assert (done.code, done.out.splitlines()[-1]) == (0, "13 ok, 0 failed, 0 skipped")
    done = harness("plugins", "--check", "gsm8k", "--data", gsm8k_data, "--set", "gsm8k.split=train")
    assert done.code == 1 and "gsm8k/train.jsonl is missing" in done.out
    done = harness("plugins", "--check", "gsm8k")
    assert done.code == 0 and "skipped  ids are unique: the same" in done.out
    done = harness("plugins", "--check", "gsm8k", "--no-plugin", "gsm8k")
    assert done.code == 1 and "cannot be used: disabled" in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--check", "gsm9k"], "no plugin 'gsm9k'; did you mean 'gsm8k'?"),
        (["--check", "gsm8k", "--set", "mmlu.shots=1"], "are given as --set gsm8k.OPTION=VALUE"),
        (["--check", "gsm8k", "--kind", "parser"], "--kind goes with --new NAME"),
        (["--set", "gsm8k.split=train"], "--set goes with --check NAME"),
    ],
)
def test_what_does_not_fit_is_one_line(harness: Command, words: list[str], message: str) -> None:
    done = harness("plugins", *words)
    assert done.code == 2
    assert message in done.err and done.err.count("\n") == 1
