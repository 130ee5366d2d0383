"""Intervals of a run's own figures: by groups where these are a sample, and what shares are of."""

from __future__ import annotations

import dataclasses

import pytest

from harness.evaluation.results import summarise
from harness.reports.summary import summary, warnings
from harness.respondent import make_respondent
from harness.runs.records import Session, Timing
from harness.scorers.exact import Exact
from harness.statistics import GroupsAre, clustered_mean, macro_mean, proportion
from harness.testing.fakes import FakeEngine
from harness.types import Sample

READER = "choice"


def samples(groups: int, size: int = 5) -> list[Sample]:
    """Return samples in groups that are all right, all wrong, or right now and then, two of three kinds a category."""
    found = []
    for index in range(groups * size):
        group = index // size
        right = (0.0, 1.0, float(index % 2))[group % 3]
        found.append(
            Sample(
                id=f"{index}", index=index, group=f"group {group}", category=f"category {group % 2}", fields={},
                prompt="", prompt_tokens=None, completion_tokens=None, output="", finish_reason="stop",
                answers={READER: "A"}, gold="A", scores={READER: {"accuracy": right}}, status="ok",
            )
        )  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("groups", "choice", "sampled"),
    [
        (12, "auto", True),
        (9, "auto", False),
        (2, "auto", False),
        (9, "sample", True),
        (12, "whole", False),
        (12, "sample", True),
    ],
)
def test_groups_are_a_sample_or_the_whole(groups: int, choice: GroupsAre, sampled: bool) -> None:
    made = samples(groups)
    values, labels = [each.scores[READER]["accuracy"] for each in made], [each.group for each in made]
    found = summarise("mmlu", Exact(), made, [READER], choice)
    accuracy, macro = found.metrics[READER]["accuracy"], found.metrics[READER]["accuracy_macro"]
    known = clustered_mean(values, labels, bounds=(0, 1)) if sampled else proportion(int(sum(values)), len(values))
    assert (accuracy.low, accuracy.high, accuracy.method) == (known.low, known.high, known.method)
    known = macro_mean(values, labels, bounds=(0, 1), sampled=sampled)
    assert (macro.value, macro.low, macro.method) == (known.value, known.low, known.method)
    category = found.categories["category 0"][READER]["accuracy"]
    assert category.method == (f"clustered-score, {-(-groups // 2)} groups" if sampled else "wilson")
    assert found.groups["group 0"][READER]["accuracy"].method == "wilson"
    said = summary("MMLU", found, Timing(), "runs/x")
    assert ("taken as a sample" in said) == sampled and ("taken as the whole" in said) != sampled


def test_samples_without_a_group_are_independent() -> None:
    made = [dataclasses.replace(sample, group=None) for sample in samples(12)]
    found = summarise("gsm8k", Exact(), made, [READER], "sample")
    assert found.metrics[READER]["accuracy"].method == "wilson"
    assert "accuracy_macro" not in found.metrics[READER]
    assert "intervals:" not in summary("GSM8K", found, Timing(), "runs/x")


def test_what_cannot_be_read_is_a_share_of_the_outputs() -> None:
    made = samples(12)
    for index in range(12):
        made[index] = dataclasses.replace(made[index], status="engine_error", error="no")
    made[12:] = [dataclasses.replace(each, answers={READER: None}, finish_reason="length") for each in made[12:]]
    found = summarise("mmlu", Exact(), made, [READER])
    assert (found.n, found.outputs) == (60, 48)
    text = summary("MMLU", found, Timing(), "runs/x")
    assert "48 (100.0%)" in text and "truncated 48 (100.0%) · failed 12 (20.0%)" in text
    said = [warning.split(" outputs ")[0] for warning in warnings(found)]
    assert said == ["48 (100.0%)", "12 (20.0%)", "48 (100.0%)"]


def test_a_load_is_counted_once() -> None:
    model = make_respondent("m", FakeEngine(lambda request: ""), "a test", "plain")
    assert model.loading() == 0.0
    first = model.loaded()
    assert model.loading() > 0
    assert model.loaded() is first
    assert model.loading() == 0.0


def test_slow_models_have_seconds_an_example() -> None:
    found = summarise("gsm8k", Exact(), samples(12), [READER])
    timing = Timing(
        load_seconds=1.0,
        generation_seconds=61.0,
        examples_per_second=0.0491803,
        prompt_tokens_per_second=12.3456,
        completion_tokens_per_second=0.5,
        sessions=[Session(load_seconds=1.0, generation_seconds=61.0, examples=3)],
    )
    said = summary("", found, timing, "runs/x")
    assert "20.3 s/example · tokens/s: prompt 12.3, output 0.5 · load 1.0 s" in said
