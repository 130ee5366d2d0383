"""What servers say beside answers, on one line and without the key; and the key."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from functools import cache
from typing import TYPE_CHECKING

from harness.errors import ModelError

if TYPE_CHECKING:
    from openai import APIStatusError

KEY = "OPENAI_API_KEY"
NO_KEY = "no-key"  # the client insists on one; servers of one's own take any

#: What is told of it where `left_for` has found less.
LOWERED = "max_tokens is above what the model or its context allows; it was lowered where needed"

#: A server's message is quoted up to this many characters.
_LONGEST = 400

#: What servers write where prompt and answer together would be too long: OpenAI, vLLM, SGLang and TGI.
_CONTEXT = re.compile(r"context length (?:is|of) ([\d,]+)|must be <= ([\d,]+)", re.IGNORECASE)
#: A key of so many characters is a secret, and no word of a text.
_SECRET = 16

_SHORTENED = re.compile(r"([\w-]*)(?:\.{2,}|…|[*•]{2,}|[xX]{3,})([\w-]*)")
_INPUT = re.compile(
    r"([\d,]+) (?:in the (?:messages|prompt)|input tokens|tokens from the input)|Given: ([\d,]+) `inputs`",
    re.IGNORECASE,
)

#: What they write where the answer alone would be: vLLM of the whole context, OpenAI and Anthropic of what is written.
_ANSWER = re.compile(
    r"max_\w*tokens\S* cannot be greater than max_model_len\W+([\d,]+)|at most ([\d,]+) completion tokens"
    r"|max_\w*tokens: [\d,]+ > ([\d,]+)",
    re.IGNORECASE,
)


def own_key() -> str:
    """Return the key, or a placeholder. Raises ModelError for one that no header can hold, without showing it."""
    found = os.environ.get(KEY, "").strip()
    if not found.isascii() or not found.isprintable():
        raise ModelError(f"openai: {KEY} holds characters that no key has; set it again")
    return found or NO_KEY


def left_for(said: str, limit: int) -> int | None:
    """Return how many tokens are left for an answer, where the server says that `limit` is too many."""
    context, sent, alone = _CONTEXT.search(said), _INPUT.search(said), _ANSWER.search(said)
    if alone is not None:
        left = _number(alone) - (alone[1] is not None)  # a prompt has a token at least
    elif (
        context is not None and sent is not None and "characters" not in said
    ):  # of these the prompt alone has too many
        left = _number(context) - _number(sent)
    else:
        return None
    return left if 0 < left < limit else None


def _number(found: re.Match[str]) -> int:
    return int(next(filter(None, found.groups())).replace(",", "") or 0)


def said_in(error: APIStatusError) -> str:
    """Return the server's message on one line, in the forms that servers write it."""
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return one_line(str(body or "no reason given"))


def _without_key(shortened: re.Match[str]) -> str:
    """Return ``[key]`` for a key without its middle, as in ``sk-ABC...XYZ``, and other words as they are."""
    key, (head, tail) = own_key(), shortened.groups()
    own = (len(head) > 2 and key.startswith(head)) or (len(tail) > 2 and key.endswith(tail))
    return "[key]" if own else shortened[0]


def without_key(text: str) -> str:
    """Return `text` with ``[key]`` in the place of the key, as it is and in base64.

    A key of a few letters, which one's own servers take, is a word as others are.
    """
    key = own_key()
    if len(key) < _SECRET:
        return text
    for form in _forms(key):
        text = text.replace(form, "[key]")
    return text


@cache
def _forms(key: str) -> tuple[str, ...]:
    """Return a key's forms: itself, and what is its alone of its base64, which depends on where in a text it begins."""
    forms = [key]
    for before in range(3):
        encoded = b64encode(bytes(before) + key.encode() + bytes(-(before + len(key)) % 3)).decode()
        first, last = -(-8 * before // 6), 8 * (before + len(key)) // 6
        own = encoded[first:last]
        forms += [own, own.translate(str.maketrans("+/", "-_"))]
    return tuple(forms)


def one_line(text: str) -> str:
    """Return `text` on one line that is safe to print, not too long, and without the key."""
    text = _SHORTENED.sub(_without_key, without_key(text.replace(own_key(), "[key]")))
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * _LONGEST]).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
