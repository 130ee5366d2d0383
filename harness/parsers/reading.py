"""What a parser reads of an output, where that stands in it, and what a parser says of its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from harness.parsers.normalize import Places, plain_characters, plain_markup
from harness.parsers.reasoning import response_spans, without_reasoning
from harness.parsers.statements import standing_from
from harness.parsers.turns import turn_span

T = TypeVar("T")


class Explanation(NamedTuple, Generic[T]):
    """An answer with its reason.

    `rule` names what read it, or why there is none. The deciding words are ``output[start:end]``; both are 0 where no
    words decide. `disagrees` says that the letter that was read stands beside the text of another option.
    """

    answer: T | None
    rule: str
    start: int = 0
    end: int = 0
    disagrees: bool = False


def no_answer(_text: str) -> bool:
    """Tell that nothing answers: for parsers that need not know where an invented turn begins."""
    return False


def readable(output: str, answers: Callable[[str], bool] = no_answer) -> str:
    """Return what a parser reads: the first turn, in plain characters, without markup, after its last retraction.

    `answers` tells whether a piece of plain text holds an answer; see `harness.parsers.turns`.

    >>> readable("<think>A?</think>The answer is **A**. Wait, no. It is B.", lambda text: True)
    'It is B.'
    """
    return _read(output, answers, None)


def places(output: str, answers: Callable[[str], bool] = no_answer) -> Places:
    """Return where in the output each character of ``readable(output, answers)`` stands, and where that text ends."""
    kept = list(range(len(output) + 1))
    _read(output, answers, kept)
    return kept


def _read(output: str, answers: Callable[[str], bool], kept: Places | None) -> str:
    text = without_reasoning(output)
    if kept is not None and (spans := response_spans(output)) is not None:
        kept[:] = [place for start, end in spans for place in range(start, end)] + [spans[-1][1] if spans else 0]
    text = plain_characters(text, kept)
    start, end = turn_span(text, answers)
    text = plain_markup(_cut(text, start, end, kept), kept)
    text = _cut(text, standing_from(text), len(text), kept)
    stripped = text.strip()
    start = len(text) - len(text.lstrip())
    _cut(text, start, start + len(stripped), kept)
    return stripped


def _cut(text: str, start: int, end: int, kept: Places | None) -> str:
    if kept is not None:
        kept[:] = [*kept[start:end], kept[end - 1] + 1 if end > start else kept[start]]
    return text[start:end]


def located(
    finding: Explanation[T], output: str, answers: Callable[[str], bool] = no_answer, shift: int = 0
) -> Explanation[T]:
    """Return a finding in ``readable(output, answers)[shift:]`` with its place in the output."""
    answer, rule, start, end, disagrees = finding
    if end <= start:
        return Explanation(answer, rule, 0, 0, disagrees)
    kept = places(output, answers)
    last = len(kept) - 1
    first, behind = kept[min(start + shift, last)], kept[min(end + shift - 1, last)] + 1
    return Explanation(answer, rule, first, max(behind, first), disagrees)
