"""Prompt and two responses out of a row of preference data, or why there are none; see `harness.training.pairs`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from harness.datasets import Row
from harness.training.fields import Unfit, message, string

Columns: TypeAlias = Mapping[str, str]
Turn: TypeAlias = tuple[str, str]

#: The end of a transcript that the response goes on from.
_OPEN: Turn = ("assistant", "")

#: Why a conversation is no pair, in the order in which it is looked for.
ODD, SEVERAL, PROMPTS, EMPTY, EQUAL = (
    "odd or repeated roles",
    "several turns",
    "prompts that differ",
    "an empty side",
    "chosen equal to rejected",
)

#: The columns that make rows pairs.
SIDES: Columns = {"chosen": "chosen", "rejected": "rejected"}
_LAYOUTS: tuple[Columns, ...] = (
    {"prompt": "prompt", **SIDES},
    {"prompt": "instruction", "input": "input", **SIDES},
    SIDES,
)
_OPTIONAL = ("input", "system")

#: Who speaks next in a transcript.
_MARKER = re.compile(r"(?:\A\s*|(?:\r?\n){2})(Human|Assistant):")
#: A whole transcript, and one that the response is to go on from, as some copies of HH have them beside each other.
_WHOLE, _BEGUN = (re.compile(rf"\s*Human:.*(?:\r?\n){{2}}Assistant:{end}", re.DOTALL) for end in (".*", r"\s*\Z"))
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}


class LeftOut(Exception):
    """A conversation that is well formed but no pair; says why."""


class Layout:
    """How the rows of one file hold their pairs: as `columns` say, or by the first row that fits a known layout."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def pair(self, row: Row) -> tuple[str, str, str]:
        """Return prompt, chosen and rejected; raise LeftOut where they are no pair, Unfit where they are not there."""
        columns = self._columns = self._columns or _recognised(row)
        asked = _asked(row, columns)
        sides = [_conversation(asked, _said(row, columns[side], asked, "prompt" in columns)) for side in SIDES]
        kinds = [_kind(side) for side in sides]
        for kind in (ODD, SEVERAL, EMPTY):
            if kind in kinds:
                raise LeftOut(kind)
        (prompt, chosen), (other, rejected) = (_joined(side) for side in sides)
        if prompt != other:
            raise LeftOut(PROMPTS)
        if not (prompt.strip() and chosen.strip() and rejected.strip()):
            raise LeftOut(EMPTY)
        if chosen == rejected:
            raise LeftOut(EQUAL)
        return prompt, chosen, rejected


def _recognised(row: Row) -> Columns:
    for columns in _LAYOUTS:
        if all(column in row for role, column in columns.items() if role not in _OPTIONAL):
            return columns
    known = ", ".join(map(repr, row)) or "nothing"
    raise Unfit(
        f"no 'chosen' and 'rejected' there, only {known}; "
        "name those of prompt, chosen and rejected with columns (--columns)"
    )


def _asked(row: Row, columns: Columns) -> list[Turn]:
    """Return what stands in columns of its own before the responses: a system message, the prompt, or nothing."""
    system = string(row, columns["system"], "") if "system" in columns else ""
    turns = [("system", system)] if system.strip() else []
    if "prompt" not in columns:
        return turns
    value = row.get(columns["prompt"])
    if value is not None and not isinstance(value, str):
        return turns + _messages(value, columns["prompt"])
    prompt = string(row, columns["prompt"])
    if _BEGUN.match(prompt):
        return turns + _transcript(prompt, columns["prompt"])
    extra = string(row, columns["input"], "") if "input" in columns else ""
    return [*turns, ("user", f"{prompt}\n\n{extra}" if extra.strip() else prompt)]


def _said(row: Row, column: str, asked: list[Turn], apart: bool) -> list[Turn]:
    """Return one side: the response, where the prompt stands `apart` from it, or the turns of a conversation."""
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        return _messages(value, column)
    text = string(row, column)
    if not apart:
        return _transcript(text, column)
    if _WHOLE.match(text):  # unless it is a response of this form, to a wish for one
        turns = _transcript(text, column)
        if text.startswith("\n\n") or turns[0] in _stripped(asked):
            return turns
    return [("assistant", text.strip() if asked[-1:] == [_OPEN] else text)]


def _messages(value: Any, column: str) -> list[Turn]:
    if not isinstance(value, Sequence):
        raise Unfit(f"{column!r} is neither text nor a list of messages")
    said = [message(_filled(one), f"message {number} of {column!r}") for number, one in enumerate(value, 1)]
    return [(one["role"], one["content"]) for one in said]


def _filled(one: Any) -> Any:
    """Return a message whose content is null as one of nothing."""
    return {**one, "content": ""} if isinstance(one, Mapping) and one.get("content", "") is None else one


def _transcript(text: str, column: str) -> list[Turn]:
    """Return the turns of a transcript, white space around them taken off."""
    before, *parts = _MARKER.split(text)
    if not parts and text.strip():
        raise Unfit(
            f"{column!r} is no transcript (no '\\n\\nHuman:' in it), and there is no column for the prompt; name it"
        )
    turns = [(_SPEAKERS[role], said.strip()) for role, said in zip(parts[::2], parts[1::2], strict=True)]
    return [("", before), *turns] if before.strip() else turns


def _conversation(asked: list[Turn], said: list[Turn]) -> list[Turn]:
    """Return a side's turns behind what was asked, which they may repeat."""
    if not said:
        return []
    repeated = {_OPEN, *_stripped(said)}
    return [turn for turn, bare in zip(asked, _stripped(asked), strict=True) if bare not in repeated] + said


def _stripped(turns: list[Turn]) -> list[Turn]:
    return [(role, text.strip()) for role, text in turns]


def _kind(turns: list[Turn]) -> str | None:
    """Return why the turns of one side are no prompt with its response, None where they are."""
    roles = [role for role, _ in turns]
    roles = roles[roles[:1] == ["system"] :]
    if not roles:
        return EMPTY
    if roles != ["user", "assistant"] * (len(roles) // 2):
        return ODD
    return SEVERAL if len(roles) > 2 else None


def _joined(turns: list[Turn]) -> tuple[str, str]:
    """Return prompt and response of a side of one turn, a system message before the prompt."""
    *asked, (_, response) = turns
    return "\n\n".join(text for _, text in asked), response
