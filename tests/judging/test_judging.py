"""Judging survives what happens to processes, and asks exactly what it should."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.errors import PluginError, RunError
from harness.interfaces import JudgedScorer, Model, Scorer
from harness.judging.judging import judge_run
from harness.prompts import Choice, find_format
from harness.registry import Registry
from harness.respondent import Respondent
from harness.runs.folder import Run
from harness.runs.judgements import JUDGEMENTS, JudgementLog
from harness.scorers.safety import Safety
from harness.scorers.winrate import WinRateScorer
from harness.testing.distributions import write_distribution
from harness.types import Completion, Request

#: An engine that replies by a digest of the prompt, and kills its own process before reply number DIE_AT.
ENGINE = """
import hashlib, os, signal
from harness.hookspecs import hookimpl
from harness.types import Completion

REPLIES = ["1", "2", "2", "M", "m", "tie", "?", "safe", "unsafe"]

class Oracle:
    name = "oracle"
    applies_chat_template = False
    def available(self): return None
    def tokenizer(self, model): return None
    def identity(self, model): return {"model": model}
    def load(self, model): return self
    def close(self): pass
    def generate(self, requests):
        for count, request in enumerate(sorted(requests, key=lambda r: r.id[::-1])):
            if count == int(os.environ.get("DIE_AT", -1)):
                os.kill(os.getpid(), signal.SIGKILL)
            reply = REPLIES[hashlib.sha256(request.prompt.text.encode()).digest()[0] % len(REPLIES)]
            yield Completion(request.id, reply, "stop", 3, 1)

@hookimpl
def harness_engines():
    return [Oracle()]
"""


@pytest.fixture
def world(tmp_path: Path) -> dict[str, str]:
    """Data, recorded outputs, and an environment in which the engine `oracle` is installed."""
    data = tmp_path / "data" / "alpaca_eval"
    data.mkdir(parents=True)
    rows = [{"instruction": f"Question {n}?", "dataset": "abc"[n % 3]} for n in range(12)]
    (data / "alpaca_eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    references = [{"instruction": f"Question {n}?", "output": f"Reference {n}", "generator": "R"} for n in range(12)]
    (data / "gpt4_1106_preview.json").write_text(json.dumps(references))
    (tmp_path / "model.jsonl").write_text("".join(json.dumps({"output": f"Answer {n}"}) + "\n" for n in range(12)))
    site = write_distribution(
        tmp_path / "site",
        "oracle",
        entry_points={"harness.engines": {"oracle": "oracle"}},
        modules={"oracle": ENGINE},
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}


def run(world: Mapping[str, str], folder: Path, out: str, die_at: int | None = None) -> int:
    words = ["run", "-b", "alpaca_eval", "-e", "replay", "-m", folder / "model.jsonl", "--data", folder / "data"]
    words += ["-o", folder / out, "--judge", "the-judge", "--judge-engine", "oracle"]
    environment = {**world, **({} if die_at is None else {"DIE_AT": str(die_at)})}
    return subprocess.run(
        [sys.executable, "-m", "harness", *map(str, words)], env=environment, capture_output=True, check=False
    ).returncode


def outcome(folder: Path, out: str) -> dict[str, bytes]:
    [record] = (folder / out).rglob("run.json")
    names = ("results.json", "judged/the-judge.jsonl", "exports/annotations.the-judge.json")
    return {name: (record.parent / name).read_bytes() for name in names}


def test_judging_that_is_killed_goes_on_to_the_same_results(world: Mapping[str, str], tmp_path: Path) -> None:
    assert run(world, tmp_path, "whole") == 0
    expected = outcome(tmp_path, "whole")
    assert json.loads(expected["results.json"])["judges"]["the-judge"]["unreadable"]["count"] > 0
    for die_at in (0, 1, 9, 5):
        assert run(world, tmp_path, "killed", die_at) == -signal.SIGKILL
    [journal] = (tmp_path / "killed").rglob(JUDGEMENTS)
    assert len(journal.read_text().splitlines()) == 15
    journal.write_bytes(journal.read_bytes()[:-40])  # as if the last write had been cut off
    assert run(world, tmp_path, "killed") == 0
    assert outcome(tmp_path, "killed") == expected
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert len(lines) == len({line["key"] for line in lines}) == 24


class Parrot:
    """An engine that says what it is told to, and remembers what it was asked."""

    name = "parrot"
    applies_chat_template = False

    def __init__(self, replies: Iterable[str], stop_after: int | None = None) -> None:
        self.replies = list(replies)
        self.stop_after = stop_after
        self.asked: list[Request] = []

    def available(self) -> str | None:
        return None

    def tokenizer(self, model: str) -> None:
        return None

    def identity(self, model: str) -> Mapping[str, Any]:
        return {"model": model}

    def load(self, model: str) -> Model:
        return self

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            if len(self.asked) == self.stop_after:
                return
            reply = self.replies[len(self.asked) % len(self.replies)]
            self.asked.append(request)
            yield Completion(request.id, reply, "stop", 3, 1, top_logprobs=({"1": -0.2, "2": -1.8}, {"x": 0.0}))

    def close(self) -> None:
        pass


def judge_with(engine: Parrot, model: str = "polly", prompt_format: str = "plain") -> Respondent:
    return Respondent(model, engine, "a test", None, Choice(find_format(prompt_format), "a test"))


@pytest.fixture
def finished(world: Mapping[str, str], tmp_path: Path) -> Run:
    """A run that has not been judged."""
    from harness.evaluation.plan import RunOptions, make_plans
    from harness.evaluation.runner import run as evaluate

    options = RunOptions(
        benchmark=("alpaca_eval",),
        model=str(tmp_path / "model.jsonl"),
        engine="replay",
        data=str(tmp_path / "data"),
        out=str(tmp_path / "runs"),
        limit=5,
    )
    [plan] = make_plans(options, Registry())
    with plan.respondent:
        return evaluate(plan).run


def test_a_judge_that_stops_early_is_asked_for_the_rest(finished: Run) -> None:
    engine = Parrot(["1", "2"], stop_after=3)
    with (
        pytest.raises(RunError, match="the judge gave 3 of 10 replies and stopped; give the same"),
    ):
        judge_run(finished, WinRateScorer(), judge_with(engine))
    assert finished.results.judges == {}
    engine.stop_after = None
    done = judge_run(finished, WinRateScorer(), judge_with(engine))
    assert (done.asked, done.resumed, len(engine.asked)) == (7, 3, 10)
    assert [session.replies for session in finished.timing.judging] == [3, 7], "what was cut short has taken its time"
    assert len({request.id for request in engine.asked}) == 10


def test_the_judge_is_not_loaded_when_all_is_there(finished: Run) -> None:
    for _ in range(2):
        judge_run(finished, WinRateScorer(), judge_with(engine := Parrot(["2"])))
    assert engine.asked == []


def test_log_probabilities_are_kept_for_the_next_time(finished: Run) -> None:
    first = judge_run(finished, WinRateScorer(), judge_with(Parrot(["1"])))
    win_rate = first.results.metrics["polly"]["win_rate"]
    assert win_rate.value == pytest.approx(0.5) and win_rate.n == 5
    [line, *_] = (finished.path / JUDGEMENTS).read_text().splitlines()
    assert json.loads(line)["top_logprobs"] == [{"1": -0.2, "2": -1.8}]
    before = (finished.path / "results.json").read_bytes()
    judge_run(finished, WinRateScorer(), judge_with(Parrot(["never asked"])))
    assert (finished.path / "results.json").read_bytes() == before


def test_the_judges_own_format_wraps_the_question_and_cleans_the_reply(finished: Run) -> None:
    engine = Parrot(["\n2\n```"])
    judge_run(finished, WinRateScorer(), judge_with(engine, prompt_format="zero_shot_system"))
    asked = engine.asked[0]
    assert asked.prompt.text.startswith("# Instruction\n") and asked.generation.stop == ("# Query:",)
    [verdict, *_] = [json.loads(line) for line in (finished.path / "judged" / "polly.jsonl").read_text().splitlines()]
    assert verdict["replies"] == {"reference-first": "2", "model-first": "2"}


def test_a_system_message_goes_to_judges_as_one(finished: Run, tmp_path: Path) -> None:
    prompt = tmp_path / "clf.txt"
    prompt.write_text(
        "<|im_start|>system\nBe fair.\n<|im_end|>\n<|im_start|>user\n{instruction} {output_1} {output_2}\n<|im_end|>"
    )
    scorer = WinRateScorer(prompt=str(prompt), orders="one")
    chat, plain = Parrot(["1"]), Parrot(["1"])
    for engine, prompt_format in ((chat, "chat"), (plain, "plain")):
        judge_run(finished, scorer, judge_with(engine, prompt_format=prompt_format))
    messages = chat.asked[0].prompt.messages
    assert messages is not None
    assert [message.role for message in messages] == ["system", "user"]
    assert messages[0].content == "Be fair."
    assert plain.asked[0].prompt.text == f"Be fair.\n\n{messages[1].content}"


def test_a_second_process_is_refused(finished: Run) -> None:
    with (
        JudgementLog(finished.path),
        pytest.raises(RunError, match="another process is writing to"),
    ):
        judge_run(finished, WinRateScorer(), judge_with(Parrot(["1"])))


def test_a_broken_line_in_the_middle_is_named(finished: Run) -> None:
    (finished.path / JUDGEMENTS).write_text('{"key": "a", "output": ""}\n{"key": 3}\n{"key": "b", "output": ""}\n')
    with pytest.raises(RunError, match=r"judgements.jsonl:2: not a judgement \(it has no key and output\); delete"):
        JudgementLog(finished.path)


def test_any_reply_is_kept_as_it_came(finished: Run) -> None:
    nasty = "\x1b[2J \udc80 \u202e\n\x00" + "9 " * 10_000
    done = judge_run(finished, WinRateScorer(), judge_with(Parrot([nasty])))
    assert done.results.judged["polly"].unreadable.count == 5
    assert done.results.metrics["polly"]["win_rate"].value is None
    assert done.results.judged["polly"].bounds == {"win_rate": (0, 1)}
    with JudgementLog(finished.path) as log:
        keys = [json.loads(line)["key"] for line in (finished.path / JUDGEMENTS).read_bytes().splitlines()]
        assert {reply.text for reply in log.replies(keys)} == {nasty}


def test_a_length_control_that_has_no_fit_is_told_and_costs_nothing(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.errors import DataError

    def unfit(*_: object) -> Any:
        raise DataError("length control needs at least two readable judgements, but there are 0")

    monkeypatch.setattr(WinRateScorer, "report", unfit)
    done = judge_run(finished, WinRateScorer(), judge_with(Parrot(["?"])))
    assert done.results.judged["polly"].warnings == [
        "length control needs at least two readable judgements, but there are 0"
    ]


def test_a_judged_scorer_that_lacks_a_method_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from harness.hookspecs import hookimpl\n"
        "class Half:\n    name, judged, verdicts = 'half', True, ()\n"
        "    def score(self, example, answer): return {}\n    def summarise(self, columns): return {}\n"
        "@hookimpl\ndef harness_scorers(): return [Half()]\n"
    )
    points = {"harness.scorers": {"half": "half_scorer"}}
    site = write_distribution(tmp_path / "more", "half", entry_points=points, modules={"half_scorer": source})
    monkeypatch.syspath_prepend(site)
    with pytest.raises(
        PluginError, match="Half is no JudgedScorer: it lacks details, exports, inputs, judgement, quest"
    ):
        Registry().scorer("half")


def test_the_scorers_are_judged_scorers() -> None:
    for scorer in (WinRateScorer(), Safety()):
        typed: JudgedScorer = scorer
        assert isinstance(typed, Scorer)
        assert typed.judged
