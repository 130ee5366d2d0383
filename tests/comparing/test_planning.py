"""How many examples a plan asks for, by hand and from two runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.comparing.planning import Assumption, assumed, observed, plan
from harness.errors import ConfigError, RunError
from harness.runs.columns import read_run
from tests.made_runs import MadeRuns

FACTOR = (1.959964 + 0.841621) ** 2


def test_without_runs_the_two_models_are_taken_as_unrelated() -> None:
    found = plan(assumed(None, None, None), 2.0, within=0, power=80)
    assert found.needed == pytest.approx(0.5 * FACTOR / 0.02**2, abs=1)
    assert (found.samples, found.shown) == (None, None)
    assert plan(assumed(None, None, 10.0), 2.0, within=0, power=80).needed == pytest.approx(found.needed / 5, abs=1)


def test_two_runs_say_how_far_models_differ(tmp_path: Path) -> None:
    made = MadeRuns(tmp_path)
    runs = [read_run(made.gsm8k("base", lambda i: i < 30)), read_run(made.gsm8k("sft", lambda i: 3 <= i < 45))]
    assumption = observed(runs, None)
    assert assumption.variance == pytest.approx(18 / 60 - 0.2**2, rel=0.08)
    assert (assumption.benchmark, assumption.examples) == ("gsm8k", 60)
    assert assumption.said == "18 of 60 examples differ between base and sft"
    found = plan(assumption, 5.0, within=0, power=80)
    assert found.shown == pytest.approx(5 * (found.needed / 60) ** 0.5)


def test_samples_take_the_place_of_examples_as_far_as_variance_is_within_them() -> None:
    assumption = Assumption(0.2, "", "gsm8k", 1319)
    found = plan(assumption, 3.0, within=50, power=80)
    n = 1319 * 0.03**2 / FACTOR
    assert found.samples == -(-0.1 // (n - 0.1))
    assert plan(assumption, 1.0, within=50, power=80).samples is None


def test_what_is_no_percentage_is_refused(tmp_path: Path) -> None:
    assumption = assumed(None, None, None)
    for detect, within, power in ((0, 0, 80), (-1, 0, 80), (2, 100, 80), (2, -1, 80), (2, 0, 100), (2, 0, 0)):
        with pytest.raises(ConfigError, match="--(detect|within|power) must be"):
            plan(assumption, detect, within=within, power=power)
    with pytest.raises(ConfigError, match="--data does nothing without"):
        assumed(None, "data", None)
    made = MadeRuns(tmp_path)
    run = read_run(made.gsm8k("base", lambda i: True))
    with pytest.raises(ConfigError, match="give two runs of one benchmark, not 1"):
        observed([run], None)
    with pytest.raises(ConfigError, match="--differing does nothing"):
        observed([run, run], 5.0)
    with pytest.raises(RunError, match="no two runs are of the same benchmark"):
        observed([run, read_run(made.mmlu("base", lambda i: True))], None)
