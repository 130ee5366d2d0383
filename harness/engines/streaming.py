"""Answers as they are made: what of an unfinished text can be told already, and any model's answer piece by piece."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from typing import Any

from harness.errors import ModelError
from harness.interfaces import Model, StreamingModel
from harness.types import Completion, Request

#: A token of one byte, as tokenizers made by SentencePiece spell it.
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def stream(model: Model, request: Request) -> Generator[str, None, Completion]:
    """Yield the pieces of an answer and return its completion, by any model: one that cannot stream gives one piece."""
    if isinstance(model, StreamingModel):
        return (yield from model.stream(request))
    for completion in model.generate([request]):
        if completion.text:
            yield completion.text
        return completion
    raise ModelError("the engine gave no answer and no error")


class Pieces:
    """Cuts a text that grows into pieces, which joined are that text."""

    def __init__(self) -> None:
        self._told = ""

    def grow(self, text: str) -> str:
        """Return what `text`, all of it so far, has more than before; it may be nothing."""
        if not text.startswith(self._told):
            return ""
        piece, self._told = text[len(self._told) :], text
        return piece


def settled(text: str, stops: Sequence[str]) -> str:
    r"""Return as much of an unfinished text as no later token can take back.

    Held back are an end that is a part of a character, and one with which a stop string may begin; nothing behind a
    stop string counts.

    >>> settled("It is 4.\n##", ("\n#### ", "Q:")), settled("It is 4.\n##a", ("\n#### ",)), settled("caf\ufffd", ())
    ('It is 4.', 'It is 4.\n##a', 'caf')
    """
    text = text[: min((text.find(stop) for stop in stops if stop in text), default=None)]
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")
    held = max((_overlap(text, stop) for stop in stops), default=0)
    return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest beginning of `stop`, short of all of it, that `text` ends with."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


def without_bytes(ids: Sequence[int], tokenizer: Any) -> Sequence[int]:
    """Return `ids` without the single bytes at their end: what comes next can change the text of all of them."""
    end = len(ids)
    while end and _BYTE.fullmatch(str(tokenizer.convert_ids_to_tokens(ids[end - 1]))):
        end -= 1
    return ids[:end]
