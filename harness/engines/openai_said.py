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

#: What is told where an answer was given fewer tokens than were asked for.
LOWERED = "max_tokens is above what the model or its context allows; it was lowered where needed"

#: A server's message is quoted up to this many characters.
_LONGEST = 400

#: A key of so many characters is a secret, and no word of a text.
_SECRET = 16

_SHORTENED = re.compile(r"([\w-]*)(?:\.{2,}|…|[*•]{2,}|[xX]{3,})([\w-]*)")
#: Whole numbers in a message, without those in names of models and versions, and statuses.
_NO_COUNT = re.compile(r"[A-Za-z][\w.]*-[\w.-]*|\b(?:code|status)\W{0,3}\d{3}\b", re.IGNORECASE)
_COUNT = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?!\w|[.,]\d)")

#: Where the whole context is too small for prompt and answer, or what may be written is less than was asked for.
_WHOLE = re.compile(r"context|prompt|input|messages", re.IGNORECASE)
_WRITTEN = re.compile(r"max_\w*tokens|(?:completion|output|new|generated) tokens", re.IGNORECASE)

#: Where the context stands among the numbers, if not as the largest; and where a sum stands for the prompt.
_CONTEXT = re.compile(r"(?:<=|>) ?([\d,]*\d)|context (?:\w+ ){0,2}(?:is|of)?\W{0,2}([\d,]*\d)", re.IGNORECASE)
_TOTAL = re.compile(r"total|requested", re.IGNORECASE)

#: vLLM, which reads no more of a prompt than would fit: one token more than the context has.
_AT_LEAST = re.compile(r"total of at least ([\d,]+)")

#: A number below this is none of tokens that an answer may have.
_FEWEST = 16


def own_key() -> str:
    """Return the key, or a placeholder. Raises ModelError for one that no header can hold, without showing it."""
    found = os.environ.get(KEY, "").strip()
    if not found.isascii() or not found.isprintable():
        raise ModelError(f"openai: {KEY} holds characters that no key has; set it again")
    return found or NO_KEY


def left_for(said: str, limit: int, sent: int | None = None) -> int | None:
    """Return how many tokens may be left for an answer, where the server says that `limit` is too many; else None.

    Servers have as many words for it as there are of them, but the numbers say it: a context, and a prompt (`sent`
    where its tokens are known) that leaves less than the limit of it; or a limit of theirs that is less.
    """
    if (total := _AT_LEAST.search(said)) is not None:
        left = limit // 2 if sent is None else _number(total[1]) - 1 - sent
        return left if 0 < left < limit else None
    numbers = {_number(each) for each in _COUNT.findall(_NO_COUNT.sub(" ", said))} - {limit}
    named = _CONTEXT.search(said)
    context = _number(named[1] or named[2]) if named else max(numbers, default=0)
    prompts = {each for each in numbers if each < context}
    if len(numbers) == 2 and _TOTAL.search(said):
        prompts.add(max(numbers) - limit)
    found = [left for prompt in prompts if 0 < (left := context - prompt) < limit] if _WHOLE.search(said) else []
    if not found and _WRITTEN.search(said):
        whole = "max_model_len" in said  # of which a prompt has a token at least
        found = [max((each - whole for each in numbers if _FEWEST <= each < limit), default=limit)]
    return min((left for left in found if left < limit), default=None)


def _number(text: str) -> int:
    return int(text.replace(",", ""))


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
