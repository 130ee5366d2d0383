"""Token ids as text, in which the borders of a model's reasoning stay, even where its tokenizer calls them special.

A tokenizer that drops ``<think>`` or ``[THINK]`` with its other special tokens leaves a text in which nobody can tell
thoughts from the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.parsers.reasoning import border_tokens


class Detokenizer:
    """Decodes with one tokenizer of transformers, without its special tokens but for the borders of reasoning."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        special = {
            token: str(added)
            for token, added in getattr(tokenizer, "added_tokens_decoder", {}).items()
            if added.special
        }
        kept = border_tokens(special.values())
        self._kept = {token for token, text in special.items() if text in kept and token != tokenizer.eos_token_id}
        self._dropped = set(special) - self._kept

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        if self._kept.isdisjoint(ids):
            return self.all(ids, skip_special_tokens=True)
        return self.all([token for token in ids if token not in self._dropped])

    def all(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of token ids with the special ones."""
        text = self._tokenizer.decode(
            list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return str(text)
