"""What a gate says of a drop that is shown, one that is excluded, and one that cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.comparing.comparison import compare
from harness.comparing.gate import Gate, Rule, apply, read_rules
from harness.errors import ConfigError
from harness.runs.columns import read_run
from tests.made_runs import MadeRuns, Right


def gate(tmp_path: Path, second: Right, points: float, metric: str | None = None) -> Gate:
    """Return the gate over a run that is right in 30 of 60 and another."""
    made = MadeRuns(tmp_path)
    runs = [read_run(made.gsm8k(name, right)) for name, right in (("base", lambda i: i < 30), ("new", second))]
    return apply(compare(runs), {"gsm8k": Rule(points, metric)})


@pytest.mark.parametrize(
    ("second", "points", "verdict", "code"),
    [
        (lambda i: i < 30, 7.0, "pass", 0),  # nothing differs in 60: at most 6.02 points were lost
        (lambda i: i < 30, 5.0, "undecided", 4),
        (lambda i: i < 24, 25.0, "warn", 0),  # six lost: 3.4 to 20.1 points
        (lambda i: i < 24, 10.0, "undecided", 4),
        (lambda i: i < 24, 3.0, "fail", 3),
        (lambda i: i < 42, 1.0, "pass", 0),
    ],
)
def test_the_interval_decides(tmp_path: Path, second: Right, points: float, verdict: str, code: int) -> None:
    found = gate(tmp_path, second, points)
    assert (found.verdict, found.exit_code) == (verdict, code)
    [check] = found.checks
    assert check.difference is not None
    low, high = check.difference.estimate.low, check.difference.estimate.high
    assert (verdict == "undecided") == (low < -points / 100 <= high)


def test_the_worst_check_is_the_gates_verdict(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    rights: dict[str, Right] = {"base": lambda i: i < 30, "same": lambda i: i < 30, "worse": lambda i: i < 10}
    runs = [read_run(made.gsm8k(name, right)) for name, right in rights.items()]
    found = apply(compare(runs), {"gsm8k": Rule(10.0, "accuracy")})
    assert [(check.run, check.verdict) for check in found.checks] == [("same", "pass"), ("worse", "fail")]
    said = found.as_json()
    assert (said["verdict"], said["exit_code"]) == ("fail", 3)
    assert said["checks"][1]["value"] == pytest.approx(-20 / 60)
    assert said["checks"][1]["high"] < -0.1


def test_rules_are_read_from_a_file_and_from_flags(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[gsm8k]\nmax_drop = 1.5\nmetric = "accuracy"\n[mmlu]\nmax_drop = 2\n')
    rules = read_rules(path, ["mmlu=0.5"])
    assert rules == {"gsm8k": Rule(1.5, "accuracy"), "mmlu": Rule(0.5)}
    assert read_rules(None) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rule in it"),
        ("gsm8k = 1.0", "gsm8k: a rule is a table"),
        ("[gsm8k]\nmetric = 'accuracy'", "a rule needs max_drop"),
        ("[gsm8k]\nmax_drop = 1\nmin_gain = 2", "has no option 'min_gain'"),
        ("[gsm8k]\nmax_drop = 0", "above 0 and up to 100, not 0"),
        ("[gsm8k]\nmax_drop = 'much'", "max_drop"),
        ("[gsm8k", "not TOML"),
    ],
)
def test_what_is_no_rule_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as refused:
        read_rules(path)
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)


@pytest.mark.parametrize("drop", ["gsm8k", "=1", "gsm8k=much", "gsm8k=-1", "gsm8k=nan"])
def test_a_flag_that_is_no_rule_is_refused(drop: str) -> None:
    with pytest.raises(ConfigError, match="--max-drop"):
        read_rules(None, [drop])


def test_a_rule_on_what_is_not_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no metric 'acuracy'; did you mean 'accuracy'"):
        gate(tmp_path, lambda i: i < 30, 1.0, "acuracy")
    made = MadeRuns(tmp_path)
    runs = [read_run(made.gsm8k(name, lambda i: True)) for name in ("base", "new")]
    with pytest.raises(ConfigError, match="rule for mmlu, of which no two runs are given"):
        apply(compare(runs), {"mmlu": Rule(1.0)})
