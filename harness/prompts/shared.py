"""Texts that begin alike, as a prompt does with each of its continuations: what they share is encoded once.

A text is cut near the end of what is shared, where no token of the tokenizer can lie across: behind its last control
token, or before a space between two words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from harness.interfaces import Tokenizer
from harness.prompts.encoding import Place, controls_of, text_ids

#: Characters at the end of a text in which a place to cut it is looked for.
_FAR = 600

#: Characters behind a cut that are the same in all texts, at least: more than any pattern of a tokenizer looks ahead.
_NEAR = 32

_BETWEEN_WORDS = re.compile(r"(?<=[A-Za-z0-9]) (?=[A-Za-z0-9])")

#: A space behind a letter or digit within one token, as vocabularies write it.
_ACROSS = re.compile(r"[A-Za-z0-9][ \u2581\u0120]")


class Shared:
    """A text with its ids, made by `encode` or by a chat template, with which other texts begin alike."""

    def __init__(self, text: str, ids: Sequence[int], tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._place: Place = "within"
        self._cut = self._sure = 0
        self._kept: tuple[int, ...] | None = None  # the ids before the cut; None where there is no place for one
        if getattr(tokenizer, "backend_tokenizer", None) is not None and self._find(text):
            tail = tuple(text_ids(text[self._cut :], tokenizer, self._place))
            kept = tuple(ids[: len(ids) - len(tail)])
            if (*kept, *tail) == tuple(ids) and self._control in (None, *kept[-1:]):
                self._kept, self._alike = kept, text[: self._sure]

    def _find(self, text: str) -> bool:
        """Find where to cut, and what id must stand before that."""
        controls = controls_of(self._tokenizer)
        start = max(0, len(text) - _FAR)
        matches = [*controls.pattern.finditer(text, start)]
        self._control = controls.ids[matches[-1].group()] if matches else None
        if self._control is not None:
            self._place, self._cut = "behind", matches[-1].end()
            self._sure = self._cut
            return not controls.tokens[self._control].rstrip
        near = _margin(self._tokenizer)
        end = len(text) - (near or 0)
        places = [match.start() for match in _BETWEEN_WORDS.finditer(text, start, end)] if near and end > start else []
        if not places:
            return False
        self._cut, self._sure = places[-1], places[-1] + (near or 0)
        return True

    def ids(self, text: str) -> tuple[int, ...] | None:
        """Return the ids of a text that begins alike, None where it has to be encoded as a whole."""
        if self._kept is None or not text.startswith(self._alike):
            return None
        return (*self._kept, *text_ids(text[self._cut :], self._tokenizer, self._place))


@lru_cache(maxsize=16)
def _margin(tokenizer: Any) -> int | None:
    """Return how many characters behind a cut between words must be known, None where a token may lie across one."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    pieces = tokenizer.get_vocab().keys() - added
    if any(map(_ACROSS.search, pieces)) or any(map(_BETWEEN_WORDS.search, added)):
        return None
    return max(_NEAR, *map(len, added), 0)
