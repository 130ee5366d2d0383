"""What a run depends on, what its results sum up, and what is said where an engine gives less than it was asked for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.interfaces import BaseBenchmark
from harness.testing.fakes import evaluate
from harness.testing.fixtures import FakeDistribution
from harness.types import Completion, Example, Generation, Request
from tests.conftest import Command

EXAMPLES = (
    Example("a", {"question": "One?", "hint": [1]}, gold="1", group="odd", category="small"),
    Example("b", {"question": "Two?", "hint": [2]}, gold="2", group="even", category="small"),
    Example("c", {"question": "Three?", "hint": [3]}, gold="3", group="odd", category="small"),
    Example("d", {"question": "Nine?", "hint": [9]}, gold="9", group="odd", category="large"),
)


class Counting(BaseBenchmark):
    """A benchmark of the examples given."""

    name, title, citation = "counting", "Counting", "none"
    parsers, scorer = ("final-number",), "exact"

    def __init__(
        self,
        examples: tuple[Example, ...] = EXAMPLES,
        ask: Callable[[Example], str] = lambda example: str(example.fields["question"]),
        generation: Generation = Generation(max_tokens=5),
    ) -> None:
        self.given, self.ask, self.generation = examples, ask, generation

    def examples(self, source: Any) -> tuple[Example, ...]:
        return self.given

    def instruction(self, example: Example) -> str:
        return self.ask(example)


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def changed(**parts: Any) -> tuple[Example, ...]:
    return (*EXAMPLES[:3], dataclasses.replace(EXAMPLES[3], **parts))


OTHERS = {
    "another id": Counting(changed(id="e")),
    "another gold answer": Counting(changed(gold="8")),
    "no gold group": Counting(changed(group=None)),
    "another group": Counting(changed(group="even")),
    "another category": Counting(changed(category="small")),
    "other fields that are not asked about": Counting(changed(fields={"question": "Nine?", "hint": [8]})),
    "another instruction": Counting(ask=lambda example: f"{example.fields['question']} "),
    "another order": Counting(EXAMPLES[::-1]),
    "fewer examples": Counting(EXAMPLES[:3]),
    "other sampling": Counting(generation=Generation(max_tokens=6)),
}


def test_a_run_depends_on_all_that_outputs_and_scores_depend_on(tmp_path: Path) -> None:
    def fingerprint(benchmark: Counting, out: str) -> str:
        return str(record(evaluate(benchmark, lambda request: "1", out=tmp_path / out).path)["fingerprint"])

    found = {what: fingerprint(benchmark, what) for what, benchmark in OTHERS.items()}
    found["as it is"] = fingerprint(Counting(), "as it is")
    assert len(set(found.values())) == len(found), found
    assert fingerprint(Counting(), "again") == found["as it is"]
    fields = {"hint": [9], "question": "Nine?"}  # the order of keys is none
    assert fingerprint(Counting(changed(fields=fields)), "keys") == found["as it is"]


def test_results_sum_up_what_was_answered(tmp_path: Path) -> None:
    """One right, one wrong, one without an answer and cut off, one failed, which is left out; groups count alike."""

    def answer(request: Request) -> Completion:
        text = {"a": "1", "b": "3", "c": "well, ", "d": ""}[request.id]
        if request.id == "d":
            return Completion("d", "", None, 7, None, 0.25, error="it broke")
        return Completion(request.id, text, "length" if request.id == "c" else "stop", 10, 3, 0.123456)

    run = evaluate(Counting(), answer, out=tmp_path)
    results = json.loads((run.path / "results.json").read_text())
    assert (results["benchmark"], results["n"]) == ("counting", 4)
    figures = results["metrics"]["final-number"]
    assert figures["accuracy"]["value"] == pytest.approx(1 / 3) and figures["accuracy"]["n"] == 3
    assert figures["accuracy_macro"]["value"] == pytest.approx((1 / 2 + 0) / 2)
    groups = {name: each["final-number"]["accuracy"] for name, each in results["groups"].items()}
    assert {name: (each["value"], each["n"]) for name, each in groups.items()} == {"even": (0.0, 1), "odd": (0.5, 2)}
    categories = {name: each["final-number"]["accuracy"]["n"] for name, each in results["categories"].items()}
    assert categories == {"small": 3}
    assert results["unparsed"] == {"final-number": {"count": 1, "ids": ["c"]}}
    assert results["truncated"] == {"count": 1, "ids": ["c"]}
    assert (results["failed"]["count"], results["failed"]["ids"]) == (1, ["d"])
    assert results["tokens"] == {"prompt": 37, "completion": 9}
    samples = list(run.samples())
    assert [sample.status for sample in samples] == ["ok", "ok", "unparsed", "engine_error"]
    assert [sample.seconds for sample in samples] == [0.1235, 0.1235, 0.1235, 0.25]
    assert [sample.index for sample in samples] == [0, 1, 2, 3]
    assert samples[3].error == "it broke" and samples[0].error is None
    timing = json.loads((run.path / "timing.json").read_text())
    assert [(each["examples"], each["completion_tokens"]) for each in timing["sessions"]] == [(4, 9)]
    assert timing["generation_seconds"] == timing["sessions"][0]["generation_seconds"]


def test_one_group_has_no_macro_average(tmp_path: Path) -> None:
    same = tuple(dataclasses.replace(example, group="all") for example in EXAMPLES)
    run = evaluate(Counting(same), lambda request: "1", out=tmp_path)
    assert list(json.loads((run.path / "results.json").read_text())["metrics"]["final-number"]) == ["accuracy"]


def test_a_hundred_ids_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    many = tuple(Example(f"n{number:03}", {"question": "?"}, gold="1") for number in range(103))
    run = evaluate(Counting(many), lambda request: "none", out=tmp_path)
    unparsed = json.loads((run.path / "results.json").read_text())["unparsed"]["final-number"]
    assert unparsed["count"] == 103 and unparsed["ids"] == [f"n{number:03}" for number in range(100)]


def test_a_limit_and_its_seed_are_what_a_run_depends_on(tmp_path: Path) -> None:
    whole = record(evaluate(Counting(), lambda request: "1", out=tmp_path / "whole").path)
    some = record(evaluate(Counting(), lambda request: "1", out=tmp_path / "some", limit=2).path)
    assert (whole["examples"], whole["selected"], some["examples"], some["selected"]) == (4, 4, 4, 2)
    assert whole["identity"]["limit"] is None and whole["identity"]["seed"] is None
    assert some["identity"]["limit"] == 2 and some["identity"]["seed"] == 0


@pytest.mark.parametrize(("second", "message"), [("c", None), ("a", "have the same id 'a'; ids must be unique")])
def test_ids_that_stand_twice_are_refused(tmp_path: Path, second: str, message: str | None) -> None:
    two = Counting((EXAMPLES[0], dataclasses.replace(EXAMPLES[1], id=second)))
    if message is None:
        evaluate(two, lambda request: "1", out=tmp_path)
        return
    with pytest.raises(Exception, match=f"examples 1 and 2 .counted from 1. {message}"):
        evaluate(two, lambda request: "1", out=tmp_path)


def test_a_benchmark_without_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="counting: no examples in its data"):
        evaluate(Counting(()), lambda request: "1", out=tmp_path)


LAZY = """
import os
from harness.hookspecs import hookimpl
from harness.interfaces import BaseEngine
from harness.types import Completion

class Lazy(BaseEngine):
    name = "lazy"
    def identity(self, model):
        return {}
    def load(self, model):
        return self
    def generate(self, requests):
        for request in requests:
            if request.index % 2 == 0 or os.environ.get("EAGER"):
                yield Completion(request.id, "7", "stop")
    def close(self):
        pass

@hookimpl
def harness_engines():
    return [Lazy()]
"""


def test_an_engine_that_gives_fewer_results_than_asked(
    harness: Command, fake_distribution: FakeDistribution, gsm8k_data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """What it gave is kept, there are no results yet, and the same command asks for the rest."""
    fake_distribution("harness-lazy", entry_points={"harness.engines": {"lazy": "lazy"}}, modules={"lazy": LAZY})
    words = ["run", "-b", "gsm8k", "-e", "lazy", "-m", "any", "--data", gsm8k_data, "--out", tmp_path / "runs"]
    done = harness(*words)
    assert done.code == 2
    assert "the engine gave 2 of 4 results and stopped; give the same command again to do the rest" in done.err
    [folder] = (tmp_path / "runs").glob("*/*/*")
    assert not (folder / "results.json").exists()
    assert len((folder / "samples.jsonl").read_text().splitlines()) == 2
    monkeypatch.setenv("EAGER", "1")
    assert harness(*words).code == 0
    assert len((folder / "samples.jsonl").read_text().splitlines()) == 4
    timing = json.loads((folder / "timing.json").read_text())
    assert [each["examples"] for each in timing["sessions"]] == [2, 2]
    both = sum(each["generation_seconds"] for each in timing["sessions"])
    assert timing["generation_seconds"] == pytest.approx(both, abs=0.002)
    assert harness(*words).code == 0 and len(json.loads((folder / "timing.json").read_text())["sessions"]) == 2


def test_a_judge_that_gives_fewer_replies_than_asked(
    harness: Command, fake_distribution: FakeDistribution, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    fake_distribution("harness-lazy", entry_points={"harness.engines": {"lazy": "lazy"}}, modules={"lazy": LAZY})
    Path("asked.jsonl").write_text("".join(json.dumps({"prompt": f"q{n}"}) + "\n" for n in range(4)))
    Path("outputs.jsonl").write_text("".join(json.dumps({"output": f"o{n}"}) + "\n" for n in range(4)))
    words = ["--set", "prompts.scorer=safety", "--engine", "replay", "--model", "outputs.jsonl"]
    assert harness("run", "--benchmark", "asked.jsonl", *words).code == 0
    [folder] = Path("runs").glob("*/*/*")
    done = harness("judge", folder, "--judge", "any", "--judge-engine", "lazy")
    assert done.code == 2
    assert "the judge gave 2 of 4 replies and stopped; give the same command again to do the rest" in done.err
    assert len((folder / "judgements.jsonl").read_text().splitlines()) == 2
