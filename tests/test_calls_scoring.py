"""Benchmarks, scorers, judges and engines that raise or return nonsense: one line says whose fault it is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import calls
from harness.errors import DataError, PluginError
from harness.interfaces import BaseBenchmark, BaseJudgedScorer, BaseScorer
from harness.registry import Registry
from harness.scorers.exact import Exact
from harness.statistics import proportion
from harness.testing.fakes import FakeEngine, FakeModel, evaluate
from harness.testing.fixtures import FakeDistribution
from harness.types import Completion, Example, Generation, Judgement, JudgeQuestion, Prompt, Request
from tests.conftest import Command

EXAMPLE = Example("a", {}, gold="1")


class Scorer(BaseScorer):
    """Gives every answer the scores `given`."""

    name = "given"

    def __init__(self, given: Any) -> None:
        self.given = given

    def score(self, example: Example, answer: str | None) -> Any:
        return self.given

    def summarise(self, columns: Any) -> Any:
        return self.given


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"a": 1.5}, "its score a is 1.5, not a number from 0 to 1"),
        ({"a": -0.1}, "its score a is -0.1, not a number from 0 to 1"),
        ({"a": 1.0, "b": float("inf")}, "its score b is inf, not a number from 0 to 1"),
        ({"a": "1"}, "its score a is '1', not a number from 0 to 1"),
        ({"a": None}, "its score a is None, not a number from 0 to 1"),
        (0.5, "its scores are 0.5, not a mapping of names to numbers"),
        (None, "its scores are None, not a mapping of names to numbers"),
    ],
)
def test_impossible_scores(given: Any, why: str) -> None:
    with pytest.raises(PluginError) as caught:
        calls.score(Scorer(given), EXAMPLE, "1")
    assert str(caught.value) == f"Scorer 'given', example 'a': {why}"


def test_numbers_of_other_kinds_become_floats() -> None:
    found = calls.score(Scorer({"a": True, "b": np.float32(0.5), "c": 1, "d": float("nan")}), EXAMPLE, None)
    assert {name: type(value) for name, value in found.items()} == dict.fromkeys("abcd", float)
    assert (found["a"], found["b"], found["c"]) == (1.0, 0.5, 1.0) and found["d"] != found["d"]


def test_summaries_are_estimates() -> None:
    for given in ({"a": 0.5}, 0.5, None):
        with pytest.raises(PluginError, match=r"^Scorer 'given': its summary .*, not a harness.types.Estimate$"):
            calls.estimates_of(Scorer(given), {})
    assert calls.estimates_of(Scorer({"a": proportion(1, 2)}), {})["a"].value == 0.5


class Asking(BaseBenchmark):
    """A benchmark of two examples, of which `second` makes the second."""

    name, title, citation = "asking", "Asking", "none"
    generation, scorer = Generation(), "exact"
    parsers: tuple[str, ...] = ("final-number",)

    def __init__(self, second: Callable[[], Any], instruction: Any = "Say 1.", exported: Any = None) -> None:
        self.second, self.asked, self.exported = second, instruction, exported

    def examples(self, source: Any) -> Any:
        asking = self

        class Lazy:
            def __len__(self) -> int:
                return 2

            def __getitem__(self, index: int) -> Any:
                if index > 1:
                    raise IndexError(index)
                return asking.second() if index else EXAMPLE

        return Lazy()

    def instruction(self, example: Example) -> Any:
        return self.asked if example.id != "a" else "Say 1."

    def exports(self, run: Any) -> Any:
        return self.exported or {}


def second(**parts: Any) -> Callable[[], Any]:
    return lambda: Example(**{"id": "b", "fields": {}, "gold": "1", **parts})


@pytest.mark.parametrize(
    ("benchmark", "why"),
    [
        (
            Asking(second(golden="1")),
            "argument 'golden' (test_calls_scoring.py, line {line}), in making example 2",
        ),
        (Asking(second(gold=["1"])), "benchmark 'asking', example 'b': its gold is ['1'], not text or None"),
        (Asking(second(gold=1)), "benchmark 'asking', example 'b': its gold is 1, not text or None"),
        (Asking(second(group=3)), "benchmark 'asking', example 'b': its group is 3, not text or None"),
        (Asking(second(id=7)), "benchmark 'asking': example 2 (counted from 1) has the id 7, not text"),
        (Asking(second(fields=[1])), "benchmark 'asking', example 'b': its fields are [1], not a mapping"),
        (Asking(second(fields={"a": {1}})), "example 'b': it raises TypeError: Object of type set is not JSON"),
        (Asking(lambda: None), "example 2 (counted from 1) is None, not a harness.types.Example"),
        (
            Asking(second(), ["Say", "1"]),
            "benchmark 'asking', example 'b': its instruction is ['Say', '1'], neither text nor messages (message 1",
        ),
        (Asking(second(), None), "benchmark 'asking', example 'b': its instruction is None, neither text nor messages"),
    ],
)
def test_examples_that_cannot_be_asked_end_the_command_before_the_model_is_loaded(
    tmp_path: Path, benchmark: Asking, why: str
) -> None:
    def answer(request: Request) -> str:
        raise AssertionError("nothing is to be asked")

    with pytest.raises(PluginError) as caught:
        evaluate(benchmark, answer, out=tmp_path)
    last = next(n for n, text in enumerate(Path(__file__).read_text().splitlines()) if "return lambda: Example" in text)
    assert why.format(line=last + 1) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_scorer_that_scores_nothing_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    class Ungraded(Asking):
        def examples(self, source: Any) -> Any:
            return [Example("a", {})]

    with pytest.raises(PluginError, match=r"^scorer 'exact' from posttrain-harness .*, example 'a': it raises "):
        evaluate(Ungraded(second()), lambda request: "1", out=tmp_path)


def test_errors_for_users_stay_as_they_are(tmp_path: Path) -> None:
    def missing() -> Any:
        raise DataError("questions.jsonl is missing")

    with pytest.raises(DataError, match=r"^questions.jsonl is missing$"):
        evaluate(Asking(missing), lambda request: "1", out=tmp_path)


@pytest.mark.parametrize(
    ("exported", "why"),
    [
        ({"a.json": [{"set": {1}}]}, "it raises TypeError: Object of type set is not JSON serializable"),
        (
            {"a.json": (1 / 0 for _ in "a")},
            "it raises ZeroDivisionError: division by zero (test_calls_scoring.py, line ",
        ),
        ([1], "it raises AttributeError: 'list' object has no attribute 'items'"),
    ],
)
def test_exports_that_cannot_be_written_leave_the_results(tmp_path: Path, exported: Any, why: str) -> None:
    with pytest.raises(PluginError) as caught:
        evaluate(Asking(second(), "Say 1.", exported), lambda request: "1", out=tmp_path)
    assert str(caught.value).startswith(f"benchmark 'asking': {why}")
    [folder] = tmp_path.glob("*/*/*")
    assert json.loads((folder / "results.json").read_text())["n"] == 2
    assert not list((folder / "exports").iterdir()) if (folder / "exports").exists() else True


def test_an_engine_that_answers_what_was_not_asked() -> None:
    def stray(request: Request) -> Completion:
        return Completion("stray", "1", "stop")

    asked = [("one", Request("a", Prompt("?"), Generation()))]
    with pytest.raises(PluginError, match=r"'fake': its completion 'stray' was not asked for"):
        list(calls.answered(FakeEngine(stray), FakeModel(stray), asked))


def test_an_engine_that_breaks_is_named(tmp_path: Path) -> None:
    def broken(request: Request) -> str:
        raise ZeroDivisionError("no reason")

    with pytest.raises(PluginError, match=r"^engine 'fake': it raises ZeroDivisionError: no reason"):
        evaluate(Asking(second()), broken, out=tmp_path)


class Polite(BaseJudgedScorer):
    """Fails on one reply alone."""

    name = "polite"
    verdicts = ("polite", "rude")

    def questions(self, example: Example, response: str) -> list[JudgeQuestion]:
        return [JudgeQuestion("only", f"Polite? {response}", Generation())]

    def judgement(self, example: Example, response: str, replies: Mapping[str, Completion]) -> Any:
        verdict: Any = {"none": None, "list": ["polite"], "text": {"a": "b"}}.get(replies["only"].text, "polite")
        if replies["only"].text == "none":
            return None
        return Judgement(verdict, {"polite": 1.0}) if not isinstance(verdict, dict) else Judgement("polite", verdict)

    def score(self, example: Example, answer: str | None) -> Mapping[str, float]:
        return {"polite": 1.0}

    def summarise(self, columns: Any) -> Any:
        return {"polite": proportion(len(columns.get("polite", ())), len(columns.get("polite", ())))}


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("none", "its judgement is None, not a harness.types.Judgement"),
        ("list", "its verdict is ['polite'], not text"),
        ("text", "its score a is 'b', not a number"),
    ],
)
def test_a_scorer_that_fails_on_a_reply_leaves_that_response_unjudged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: str, why: str
) -> None:
    class Judged(Asking):
        parsers = ()
        scorer = "polite"

    added = Registry.__init__

    def with_polite(self: Registry, disabled: Any = ()) -> None:
        added(self, disabled)
        self.add("scorers", Polite())

    monkeypatch.setattr(Registry, "__init__", with_polite)
    replies = iter((reply, "polite"))
    run = evaluate(Judged(second()), lambda request: "1", out=tmp_path, judge=lambda request: next(replies))
    assert run.results.judged["judge"].failed.ids == ["a"]
    assert run.results.metrics["judge"]["polite"].n == 1
    [judged] = (run.path / "judged").glob("*.jsonl")
    assert f"scorer 'polite', example 'a': {why}" in judged.read_text()


POLITE = """
from harness.hookspecs import hookimpl
from harness.interfaces import BaseJudgedScorer
from harness.statistics import proportion
from harness.types import Generation, Judgement, JudgeQuestion

class Polite(BaseJudgedScorer):
    name, verdicts = "polite", ("polite", "rude", "very-rude")
    def questions(self, example, response):
        return [JudgeQuestion("only", response, Generation())]
    def judgement(self, example, response, replies):
        return Judgement(replies["only"].text, {"polite": float(replies["only"].text == "polite")})
    def score(self, example, answer):
        return {"polite": float(answer == "polite")}
    def summarise(self, columns):
        values = columns.get("polite", ())
        return {"polite": proportion(sum(values), len(values))}

@hookimpl
def harness_scorers():
    return [Polite()]
"""


def test_the_verdicts_of_a_third_partys_scorer_are_shown(
    harness: Command, fake_distribution: FakeDistribution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fake_distribution(
        "harness-polite", entry_points={"harness.scorers": {"polite": "polite"}}, modules={"polite": POLITE}
    )
    Path("asked.jsonl").write_text("".join(json.dumps({"prompt": f"q{n}"}) + "\n" for n in range(3)))
    Path("outputs.jsonl").write_text("".join(json.dumps({"output": f"o{n}"}) + "\n" for n in range(3)))
    words = ["--set", "prompts.scorer=polite", "--engine", "replay", "--model", "outputs.jsonl"]
    assert harness("run", "--benchmark", "asked.jsonl", *words).code == 0
    [folder] = Path("runs").glob("*/*/*")
    unjudged = harness("show", folder, "--rude")
    assert unjudged.code == 2 and "no sample can be rude" in unjudged.err and "has not been judged" in unjudged.err
    said = [{"id": f"asked-{n:04}#only", "output": text} for n, text in enumerate(("polite", "rude", "very-rude"))]
    Path("replies.jsonl").write_text("".join(json.dumps(each) + "\n" for each in said))
    assert harness("judge", folder, "--judge", "replies.jsonl", "--judge-engine", "replay").code == 0
    shown = harness("show", folder, "--very-rude")
    assert shown.code == 0 and "1 of 3 samples that are very-rude" in shown.out and "o2" in shown.out
    assert "2 of 3 samples that are rude or very-rude" in harness("show", "--rude", folder, "--very-rude").out
    assert "1 of 3 samples that are polite" in harness("show", folder, "--grep", "--polite|o0", "--polite").out
    wrong = harness("show", folder, "--polit")
    assert wrong.code == 2 and "--polit: no sample of" in wrong.err and "did you mean 'polite'?" in wrong.err


def test_a_registry_that_is_given_is_the_one_that_comparisons_and_reports_use(tmp_path: Path) -> None:
    from harness.comparing.comparison import compare
    from harness.reports.html import render
    from harness.runs.columns import read_run

    class Near(Exact):
        name = "near"

    class Graded(Asking):
        title, scorer = "A title of its own", "near"

    registry = Registry()
    for kind, plugin in (("scorers", Near()), ("benchmarks", Graded(second()))):
        registry.add(kind, plugin)  # type: ignore[arg-type]
    added = Registry.__init__
    runs = []
    for number, says in enumerate(("1", "2")):
        with pytest.MonkeyPatch.context() as patch:

            def with_near(self: Registry, disabled: Any = ()) -> None:
                added(self, disabled)
                self.add("scorers", Near())

            patch.setattr(Registry, "__init__", with_near)
            replies = itertools.repeat(says)
            runs.append(evaluate(Graded(second()), lambda request: next(replies), out=tmp_path / str(number)))  # noqa: B023
    read = [read_run(run.path) for run in runs]
    with pytest.raises(PluginError, match="unknown scorer 'near'"):
        compare(read)
    assert [metric.name for metric in compare(read, registry=registry).benchmarks[0].metrics] == ["accuracy"]
    assert "A title of its own" in "".join(render(read, registry=registry))


ODDITIES = """
import os
from harness.hookspecs import hookimpl
from harness.interfaces import BaseEngine

def odd(where, given=None):
    if os.environ["ODD"] == where:
        raise ValueError("no reason")
    return given

class Engine(BaseEngine):
    name = "odd"
    def available(self):
        return odd("available")
    def tokenizer(self, model):
        return odd("tokenizer")
    def identity(self, model):
        return odd("identity", {})
    def advice(self):
        return odd("advice")
    def load(self, model):
        return odd("load")

class Trainer:
    name = "odd"
    def plan(self, run):
        return odd("plan", "nothing")
    def train(self, run):
        return odd("train", run.out)

class Tracker:
    name = "odd"
    def available(self):
        return odd("tracking")
    def start(self, run):
        raise AssertionError

@hookimpl
def harness_engines():
    return [Engine()]

@hookimpl
def harness_trainers():
    return [Trainer()]

@hookimpl
def harness_trackers():
    return [Tracker()]
"""


@pytest.mark.parametrize("where", ["available", "tokenizer", "identity", "advice", "load", "plan", "train", "tracking"])
def test_engines_trainers_and_trackers_that_raise_are_named(
    harness: Command, fake_distribution: FakeDistribution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ODD", where)
    kinds = {"engine": "engines", "trainer": "trainers", "tracker": "trackers"}
    points = {f"harness.{kind}": {"odd": "harness_odd"} for kind in kinds.values()}
    fake_distribution("harness-odd", entry_points=points, modules={"harness_odd": ODDITIES})
    Path("asked.jsonl").write_text('{"prompt": "q"}\n')
    words = ["run", "-b", "asked.jsonl", "-e", "odd", "-m", "any", "--prompt-format", "plain"]
    kind = {"plan": "trainer", "train": "trainer", "tracking": "tracker"}.get(where, "engine")
    if kind == "trainer":
        words = ["train", "odd", "-m", "any", "-o", "out", *(["--plan"] if where == "plan" else [])]
    elif kind == "tracker":
        words += ["--set", 'trackers=["odd"]']
    elif where != "load":
        words += ["--dry-run"]
    done = harness(*words)
    assert done.code == 2 and done.err.count("\n") == 1, done.err
    assert done.err.startswith(f"harness: {kind} 'odd' from harness-odd 1.0: it raises ValueError: no reason (harness_")


def test_what_the_machine_does_to_a_plugin_is_not_laid_at_its_door() -> None:
    for error in (OSError(28, "No space left on device"), MemoryError()):
        with pytest.raises(type(error)), calls.foreign(Near()):
            raise error
    with pytest.raises(PluginError, match="it raises KeyError: 'a'"), calls.foreign(Near()):
        raise KeyError("a")


class Near:
    """A plugin that no registry gave out."""

    name = "near"
