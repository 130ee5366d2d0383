"""Plugins that raise, exit, print, return nonsense or never return: one line says whose fault it is, nothing lost."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import calls, overdue
from harness.errors import DataError, PluginError
from harness.interfaces import BaseBenchmark, BaseJudgedScorer, BaseScorer
from harness.registry import Registry
from harness.scorers.exact import Exact
from harness.statistics import proportion
from harness.testing.fakes import FakeEngine, FakeModel, evaluate
from harness.testing.fixtures import FakeDistribution
from harness.types import Completion, Example, Generation, Judgement, JudgeQuestion, Prompt, Request
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
            "argument 'golden' (test_calls.py, line {line}), in making example 2",
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
        ({"a.json": (1 / 0 for _ in "a")}, "it raises ZeroDivisionError: division by zero (test_calls.py, line "),
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
