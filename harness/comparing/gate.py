"""A gate for CI: whether a run has dropped by more than is allowed, or whether that cannot be told.

A rule allows a drop of `max_drop` points on one benchmark's metric. The difference's 95% interval decides: all of it
above the allowed drop passes, with a warning where it also lies below 0; all of it beyond the allowed drop fails; one
that holds the allowed drop is undecided, and more examples are needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from harness.comparing.comparison import BenchmarkComparison, Comparison, Difference, Metric
from harness.config import configure, read_toml
from harness.errors import ConfigError, nearest

Verdict: TypeAlias = Literal["pass", "warn", "undecided", "fail"]

#: Verdict → the exit code of a command, from the mildest to the worst.
EXIT_CODES: Mapping[Verdict, int] = {"pass": 0, "warn": 0, "undecided": 4, "fail": 3}


@dataclass(frozen=True)
class Rule:
    """What a benchmark may lose: `max_drop` points of `metric`, the benchmark's headline where it is None."""

    max_drop: float
    metric: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.max_drop <= 100:
            raise ValueError(f"max_drop must be points above 0 and up to 100, not {self.max_drop:g}")


@dataclass(frozen=True)
class Check:
    """One rule on one run: `difference` is to the baseline, None where there is none, which `reason` explains."""

    benchmark: str
    metric: str
    max_drop: float
    run: str
    verdict: Verdict
    difference: Difference | None = None
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON data; value, low and high are proportions."""
        said: dict[str, Any] = {
            "benchmark": self.benchmark,
            "metric": self.metric,
            "max_drop": self.max_drop,
            "run": self.run,
            "verdict": self.verdict,
            "reason": self.reason,
        }
        if self.difference is not None:
            e = self.difference.estimate
            said |= {"against": self.difference.against, "value": e.value, "low": _known(e.low), "high": _known(e.high)}
        return said


@dataclass(frozen=True)
class Gate:
    """All checks."""

    checks: Sequence[Check]

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks'."""
        return max((check.verdict for check in self.checks), key=list(EXIT_CODES).index)

    @property
    def exit_code(self) -> int:
        """0 where all pass or warn, 3 where one fails, 4 where none fails and one is undecided."""
        return EXIT_CODES[self.verdict]

    def as_json(self) -> dict[str, Any]:
        """Return verdict, exit code and checks as JSON data."""
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "checks": [check.as_json() for check in self.checks],
        }


def read_rules(path: Path | None, drops: Sequence[str] = ()) -> dict[str, Rule]:
    """Return benchmark → rule, from a file of tables by benchmark and from ``NAME=POINTS``, which stand over the file.

    Raises ConfigError for anything that is no rule, naming where it stands.
    """
    rules = {name: _rule(table, f"{path}: {name}") for name, table in (read_toml(path) if path else {}).items()}
    for drop in drops:
        name, equals, points = drop.partition("=")
        if not name or not equals:
            raise ConfigError(f"--max-drop {drop!r} must look like NAME=POINTS, such as gsm8k=1.0")
        rules[name] = _rule({"max_drop": points}, f"--max-drop {drop}")
    if path is not None and not rules:
        raise ConfigError(f"{path}: no rule in it; write a table such as [gsm8k] with max_drop = 1.0")
    return rules


def _rule(table: Any, place: str) -> Rule:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{place}: a rule is a table, such as [gsm8k] with max_drop = 1.0")
    if "max_drop" not in table:
        raise ConfigError(f"{place}: a rule needs max_drop, in points")
    return configure(Rule(max_drop=1.0), table, place)


def apply(comparison: Comparison, rules: Mapping[str, Rule]) -> Gate:
    """Hold each run but the baseline against the rules; ConfigError for a rule on what is not compared."""
    benchmarks = {each.benchmark: each for each in comparison.benchmarks}
    checks: list[Check] = []
    for name, rule in rules.items():
        if name not in benchmarks or len(benchmarks[name].facts) < 2:
            known = nearest(name, benchmarks)
            raise ConfigError(f"the gate has a rule for {name}, of which no two runs are given{known}")
        checks += _checks(benchmarks[name], rule)
    return Gate(checks)


def _checks(compared: BenchmarkComparison, rule: Rule) -> list[Check]:
    metric = _metric(compared, rule)
    if metric is None:
        name = rule.metric or "the headline"
        known = dict.fromkeys(each.name for each in compared.metrics)
        if known and rule.metric is not None:
            raise ConfigError(f"{compared.benchmark} has no metric {rule.metric!r}{nearest(rule.metric, known)}")
        return [
            Check(compared.benchmark, name, rule.max_drop, run, "undecided", reason="nothing has been scored")
            for run in list(compared.facts)[1:]
        ]
    return [_check(compared.benchmark, metric, rule, run) for run in list(compared.facts)[1:]]


def _metric(compared: BenchmarkComparison, rule: Rule) -> Metric | None:
    if rule.metric is None:
        return compared.headline
    return next((each for each in compared.metrics if each.name == rule.metric), None)


def _check(benchmark: str, metric: Metric, rule: Rule, run: str) -> Check:
    difference = metric.against_baseline.get(run)
    if difference is None or math.isnan(difference.estimate.low):
        reason = metric.reason or "too little is known for an interval"
        return Check(benchmark, metric.name, rule.max_drop, run, "undecided", difference, reason)
    low, high, allowed = difference.estimate.low, difference.estimate.high, -rule.max_drop / 100
    verdict: Verdict = "undecided"
    if high < allowed:
        verdict = "fail"
    elif low >= allowed:
        verdict = "warn" if high < 0 else "pass"
    return Check(benchmark, metric.name, rule.max_drop, run, verdict, difference)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
