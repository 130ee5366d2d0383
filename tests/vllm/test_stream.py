"""Streaming by vLLM: the pieces, joined, are what `generate` gives."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import pytest

from harness.engines.streaming import stream
from harness.interfaces import Model, StreamingModel
from harness.types import Generation, Prompt, Request
from tests.engines.test_streaming import followed, outcome


@pytest.mark.parametrize(
    "generation",
    [
        Generation(max_tokens=60),
        Generation(max_tokens=5),
        Generation(max_tokens=60, stop=("\n#### ", "ha")),
        Generation(max_tokens=40, temperature=3.0, seed=7),
    ],
    ids=str,
)
def test_the_pieces_are_the_text_that_generate_gives(
    model: Model, prompts: list[Prompt], generation: Generation
) -> None:
    assert isinstance(model, StreamingModel)
    for prompt in prompts[:4]:
        asked = Request("a", prompt, generation)
        [expected] = model.generate([asked])
        told, completion = followed(stream(model, asked))
        assert "".join(told) == expected.text
        assert outcome(completion) == outcome(expected)
        assert len(told) > 1 or (completion.completion_tokens or 0) < 5


def test_an_answer_that_is_left_can_be_asked_again(model: Model, prompts: list[Prompt]) -> None:
    asked = Request("a", prompts[0], Generation(max_tokens=60))
    [expected] = model.generate([asked])
    for _ in range(3):
        with closing(stream(model, asked)) as pieces:
            assert len(list(islice(pieces, 5))) == 5
    told, completion = followed(stream(model, asked))
    assert "".join(told) == completion.text == expected.text


def test_what_cannot_be_asked_is_an_error_and_no_text(model: Model) -> None:
    told, completion = followed(stream(model, Request("a", Prompt("", (5,) * 3000), Generation())))
    assert told == [] and "does not fit a context" in (completion.error or "")
