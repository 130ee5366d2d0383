"""Short ways to ask a `CompletionsServer` through the engine ``openai``, and a model, and to say what one chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

from harness.engines.decoding import Row
from harness.engines.openai import OpenAIEngine
from harness.testing.tiny import word_problems
from harness.types import Completion, Generation, Prompt, Request
from tests.completions_server import CompletionsServer


def request(identifier: str, prompt: Prompt | str = "a question", **generation: Any) -> Request:
    prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
    return Request(identifier, prompt, Generation(**generation))


def numbered(count: int) -> Iterator[Request]:
    return (request(f"q/{n}", f"question number {n}") for n in range(count))


def ask(server: CompletionsServer, requests: Iterable[Request], **options: Any) -> dict[str, Completion]:
    model = OpenAIEngine(base_url=server.base_url, **options).load("tiny")
    completions = list(model.generate(requests))
    model.close()
    model.close()
    assert len({c.id for c in completions}) == len(completions)
    return {c.id: c for c in completions}


def ask_one(server: CompletionsServer, prompt: Prompt | str = "a question", **options: Any) -> Completion:
    generation = options.pop("generation", {})
    return ask(server, [request("a", prompt, **generation)], **options)["a"]


def change(answer: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the answer with fields of its first choice replaced."""
    return answer | {"choices": [answer["choices"][0] | fields]}


def requests_for(tokenizer: Any, texts: Sequence[str], **generation: Any) -> list[Request]:
    settings = Generation(**{"max_tokens": 40, **generation})
    return [
        Request(str(index), Prompt(text, tuple(tokenizer.encode(text))), settings, index)
        for index, text in enumerate(texts)
    ]


def questions(count: int, seed: int = 7) -> list[str]:
    return [f"{question}\nAnswer:" for question, _ in word_problems(count, seed=seed)]


def answered(model: Any, requests: Sequence[Request]) -> list[Completion]:
    """Return the completions in the order of the requests, each of which is answered once."""
    completions = {completion.id: completion for completion in model.generate(iter(requests))}
    assert completions.keys() == {request.id for request in requests}
    return [completions[request.id] for request in requests]


def outcomes(completions: Sequence[Completion]) -> list[Any]:
    return [(one.text, one.finish_reason, one.prompt_tokens, one.completion_tokens, one.error) for one in completions]


def scripted(monkeypatch: pytest.MonkeyPatch, choose: Sequence[int] | Callable[[list[int]], int]) -> None:
    """Let models of the engine ``transformers`` say certain tokens, or what `choose` makes of those said so far.

    Whatever the weights are: what a tiny model has learned differs from one processor to the next.
    """

    def chosen(logits: Any, rows: Sequence[Row]) -> list[int]:
        made = [row.ids[row.prompt_tokens :] for row in rows]
        return [choose(each) if callable(choose) else choose[len(each)] for each in made]

    monkeypatch.setattr("harness.engines.batching.choose_tokens", chosen)
