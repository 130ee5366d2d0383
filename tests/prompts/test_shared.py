"""Continuations whose prompt is encoded once have the ids that they have when each is encoded as a whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import PromptError
from harness.prompts import find_format
from harness.prompts.encoding import controls_of
from harness.prompts.shared import Shared
from harness.types import Choices, Continuation
from tests.prompts.shapes import SHAPES, make

made = cache(make)
WORDS = [
    "What",
    "does",
    "this",
    "mean?",
    "ten 10 100",
    "ten",
    "10",
    "1234567",
    "日本語",
    "e\u0301",
    "🙂",
    "and",
    "don't",
]
SPACES = [" ", " ", " ", " ", "\n", "  ", "\n\n", "    ", "\t", "", "\r\n"]


@st.composite
def texts(draw: Callable[..., Any], spelled: list[str], longest: int) -> str:
    words = draw(
        st.lists(st.sampled_from([*WORDS, *WORDS, *spelled, *(each[1:] for each in spelled)]), max_size=longest)
    )
    return "".join(word + draw(st.sampled_from(SPACES)) for word in words)


def following(name: str, form: str, asked: str, choices: Choices) -> tuple[Continuation, ...] | str:
    try:
        return find_format(form).continuations(asked, made(name), choices)
    except PromptError as error:
        return str(error)


@pytest.mark.parametrize("form", ["plain", "chat", "zero_shot_system"])
@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_ids_are_those_of_whole_texts(name: str, form: str, data: st.DataObject) -> None:
    spelled = sorted(token.content for token in controls_of(made(name)).tokens.values())
    asked, lead = data.draw(texts(spelled, 40)), data.draw(texts(spelled, 3)).strip()
    options = data.draw(st.lists(texts(spelled, 6).map(str.strip).filter(bool), min_size=1, max_size=4, unique=True))
    choices = Choices(dict(zip("ABCD", options, strict=False)), lead=lead)
    found = following(name, form, asked, choices)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shared, "ids", lambda *_: None)
        assert following(name, form, asked, choices) == found


@pytest.mark.parametrize("name", SHAPES)
def test_a_question_is_encoded_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But by tokenizers whose control tokens take the white space behind them, or whose tokens span words."""
    shared, taken = Shared.ids, list[bool]()

    def counted(self: Shared, text: str) -> tuple[int, ...] | None:
        taken.append((found := shared(self, text)) is not None)
        return found

    monkeypatch.setattr(Shared, "ids", counted)
    question = "Which of these words is the right one here?\nA. this\nB. that one\nC. none of them at all\nAnswer:"
    for form in ("plain", "chat"):
        find_format(form).continuations(question, made(name), Choices({"A": "A", "B": "B"}, lead="It is"))
        if (form, name) not in [("chat", "phi 4"), ("plain", "gemma 3"), ("plain", "mistral")]:
            assert len(taken) == 3 and all(taken), form
        taken.clear()
