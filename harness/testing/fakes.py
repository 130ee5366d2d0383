"""Fakes for plugin authors: an engine that is a function, a judge that follows a script, a tracker that remembers.

They keep the promises of what they stand for; `evaluate` puts a benchmark through the real run loop with them::

    run = evaluate("capitals", lambda request: "The answer is Paris.", data="data", out=tmp_path)
    assert run.results.metrics["choice"]["accuracy"].value == 0.25
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.interfaces import Benchmark, Tokenizer
from harness.runs.folder import Run
from harness.types import Completion, Request, RunInfo

#: Gives the whole answer to a request: its text, or a completion as it is to come back.
Answer = Callable[[Request], str | Completion]

_WORD = re.compile(r"\s*\S+")


class FakeEngine:
    """An engine whose model is the function `answer`; a model's name means nothing to it.

    Stop strings and max_tokens cut what the function gives; a token is a word with the white space before it.
    """

    applies_chat_template = False

    def __init__(self, answer: Answer, name: str = "fake") -> None:
        self.answer, self.name = answer, name

    def available(self) -> str | None:
        """Return None: it runs anywhere."""
        return None

    def tokenizer(self, model: str) -> Tokenizer | None:
        """Return None: the function is given text."""
        return None

    def identity(self, model: str) -> Mapping[str, Any]:
        """Return the model's name; functions cannot be told apart."""
        return {"fake": model}

    def load(self, model: str) -> FakeModel:
        """Return the function as a model."""
        return FakeModel(self.answer)


@dataclass
class FakeModel:
    """A function as a model; `requests` are those that it has been asked, in order."""

    answer: Answer
    requests: list[Request] = field(default_factory=list)

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield an answer for each request in turn; what the function raises is raised here."""
        for request in requests:
            self.requests.append(request)
            given = self.answer(request)
            yield given if isinstance(given, Completion) else _cut(given, request)

    def close(self) -> None:
        """Hold nothing."""


def scripted(*replies: str) -> Answer:
    """Return a function that gives `replies` in turn, for a judge or a model that follows a script.

    Raises AssertionError when it is asked more often than there are replies.
    """
    left = iter(replies)

    def answer(request: Request) -> str:
        for reply in left:
            return reply
        raise AssertionError(f"the script has {len(replies)} replies, and {request.id!r} asks for another")

    return answer


@dataclass
class Followed:
    """What a `RecordingTracker` was told of one run: `values` are pairs of a step and its numbers."""

    name: str
    config: Mapping[str, Any]
    values: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    closed: bool = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Note the values at a step."""
        self.values.append((step, dict(values)))

    def close(self) -> None:
        """Note that nothing more comes."""
        self.closed = True


class RecordingTracker:
    """A tracker that keeps what it is told in `runs`, one after the other."""

    name = "recording"

    def __init__(self) -> None:
        self.runs: list[Followed] = []

    def available(self) -> str | None:
        """Return None: it needs nothing."""
        return None

    def start(self, run: RunInfo) -> Followed:
        """Begin to follow a run."""
        self.runs.append(Followed(run.name, run.config))
        return self.runs[-1]


def evaluate(
    benchmark: str | Benchmark,
    answer: Answer,
    *,
    out: str | Path,
    data: str | Path | None = None,
    judge: Answer | None = None,
    options: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> Run:
    """Evaluate the function `answer` on a benchmark, an installed one by its name, and return the run.

    It is `harness.evaluate` with fakes: `out` is the folder for runs, `data` the data folder, `judge` the function that
    judges where the scorer asks a judge; `options` are tables of the plugins' options, as in a run file. The prompt is
    the benchmark's instruction. Raises HarnessError as `harness run` does.
    """
    from harness.api import evaluate as evaluate_model

    asked: dict[str, Any] = {}
    if judge is not None:
        asked = {"judge": "judge", "judge_engine": FakeEngine(judge, "fake-judge"), "judge_prompt_format": "plain"}
    asked |= {"data": data, "out": out, "limit": limit, "fresh": True, "progress": False, **(options or {})}
    return evaluate_model(benchmark, "fake", engine=FakeEngine(answer), prompt_format="plain", **asked)


def _cut(text: str, request: Request) -> Completion:
    """Return the completion that a model which says `text` would give to a request."""
    generation, prompt_tokens = request.generation, len(_WORD.findall(request.prompt.text))
    words = list(_WORD.finditer(text))
    kept = text if len(words) <= generation.max_tokens else text[: words[generation.max_tokens - 1].end()]
    ends = [at for stop in generation.stop if (at := kept.find(stop)) >= 0]
    if ends:
        kept = kept[: min(ends)]
    stopped = bool(ends) or len(words) <= generation.max_tokens
    return Completion(request.id, kept, "stop" if stopped else "length", prompt_tokens, len(_WORD.findall(kept)))
