"""Thoughts in generated tokens: how many there are, and how they are closed where they take too long."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from harness.engines.detokenizing import Detokenizer
from harness.parsers.reasoning import closing_of, thought_end

#: As many tokens of a prompt's end as hold the border that opens a thought.
_TAIL = 16


class Thoughts:
    """Finds thoughts in the tokens of one tokenizer."""

    def __init__(self, tokenizer: Any, detokenizer: Detokenizer) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = detokenizer

    def closing(self, prompt: Sequence[int], ids: Sequence[int]) -> list[int]:
        """Return the tokens that close the thought in which `ids` end behind `prompt`; none where they end in none."""
        closing = self._closing(prompt, ids)
        return [] if closing is None else [*self._tokenizer.encode(closing, add_special_tokens=False)]

    def count(self, prompt: Sequence[int], ids: Sequence[int]) -> int:
        """Return how many of `ids` are a thought with its borders: those up to its end, all where it has none."""
        if self._closing(prompt, ids) is not None:
            return len(ids)
        end = thought_end(self._detokenizer.text(ids), self._detokenizer.text(prompt[-_TAIL:]))
        return (
            bisect_left(range(len(ids)), end, key=lambda place: len(self._detokenizer.text(ids[:place]))) if end else 0
        )

    def _closing(self, prompt: Sequence[int], ids: Sequence[int]) -> str | None:
        before = self._detokenizer.text(prompt[-_TAIL:])
        return closing_of(self._detokenizer.text(ids), before)
