"""Borders of reasoning stay in decoded text, whatever the tokenizer calls them; other special tokens do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.engines.detokenizing import Detokenizer
from harness.parsers import without_reasoning
from harness.testing.tiny import make_tiny_model

BORDERS = ("<think>", "</think>", "[THINK]", "[/THINK]", "<|begin_of_thought|>", "<|end_of_thought|>")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder: Path = make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([*BORDERS, "<|image|>"], special_tokens=True)
    return tokenizer


def test_borders_stay_and_other_special_tokens_go(tokenizer: Any) -> None:
    for opening, closing in zip(BORDERS[::2], BORDERS[1::2], strict=True):
        ids = tokenizer.encode(f"{opening}one apple<|image|>{closing}two apples", add_special_tokens=False)
        assert tokenizer.decode(ids, skip_special_tokens=True) == "one appletwo apples"
        text = Detokenizer(tokenizer).text([*ids, tokenizer.eos_token_id])
        assert text == f"{opening}one apple{closing}two apples"
        assert without_reasoning(text) == "two apples"


def test_text_without_borders_is_what_transformers_gives(tokenizer: Any) -> None:
    ids = tokenizer.encode("one apple<|image|> and 2 pears", add_special_tokens=False)
    assert Detokenizer(tokenizer).text(ids) == tokenizer.decode(ids, skip_special_tokens=True)
    assert "<|image|>" in Detokenizer(tokenizer).all(ids)


class Tokens:
    """A tokenizer whose special tokens are harmony's, or the end token of another family."""

    def __init__(self, *special: str) -> None:
        self.added_tokens_decoder = {n: _Token(text) for n, text in enumerate(special)}
        self.eos_token_id = len(special) - 1

    def decode(self, ids: Sequence[int], skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        return "" if skip_special_tokens else "".join(map(str, (self.added_tokens_decoder[n] for n in ids)))


class _Token(SimpleNamespace):
    special = True

    def __init__(self, text: str) -> None:
        super().__init__(text=text)

    def __str__(self) -> str:
        return str(self.text)


def test_an_end_token_is_a_border_in_harmony_alone() -> None:
    harmony = Tokens("<|channel|>", "<|message|>", "<|end|>", "<|return|>")
    assert Detokenizer(harmony).text(range(4)) == "<|channel|><|message|><|end|>"
    other = Tokens("<|user|>", "<|end|>", "</s>")
    assert Detokenizer(other).text(range(3)) == ""
