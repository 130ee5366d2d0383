"""Prompt and two responses out of a row of preference data, or why there are none.

See `harness.training.data.pairs`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, TypeAlias

from harness.datasets import Row
from harness.prompts import NO_EXTRAS, Extras, Turns
from harness.training.data.fields import Unfit, messages_of, says_nothing, string
from harness.training.data.layouts import beside_system, earlier_turns
from harness.types import Message

Columns: TypeAlias = Mapping[str, str]

#: The end of a transcript that the response goes on from.
_OPEN = Message("assistant", "")

#: Why a conversation is no pair, in the order in which it is looked for.
ODD, SEVERAL, TOOLS, PROMPTS, EMPTY, EQUAL = (
    "odd or repeated roles",
    "several turns",
    "tools, or thoughts apart from the answer",
    "prompts that differ",
    "an empty side",
    "chosen equal to rejected",
)

#: The columns that make rows pairs.
SIDES: Columns = {"chosen": "chosen", "rejected": "rejected"}
#: OpenAI's, whose input is a request: messages, and tools if any.
OPENAI: Columns = {"prompt": "input", "chosen": "preferred_output", "rejected": "non_preferred_output"}
_LAYOUTS: tuple[Columns, ...] = (
    {"prompt": "prompt", **SIDES},
    {"prompt": "instruction", "input": "input", **SIDES},
    {"prompt": "question", **SIDES},
    {"prompt": "conversations", **SIDES},
    SIDES,
    OPENAI,
)
_OPTIONAL = ("input", "system", "history")

#: Who speaks next in a transcript.
_MARKER = re.compile(r"(?:\A\s*|(?:\r?\n){2})(Human|Assistant):")
#: A whole transcript, and one that the response is to go on from, as some copies of HH have them beside each other.
_WHOLE, _BEGUN = (re.compile(rf"\s*Human:.*(?:\r?\n){{2}}Assistant:{end}", re.DOTALL) for end in (".*", r"\s*\Z"))
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True)
class _Named:
    """The columns of a file's pairs by what they hold."""

    chosen: str
    rejected: str
    prompt: str | None = None
    input: str | None = None
    system: str | None = None
    history: str | None = None

    @property
    def own(self) -> frozenset[str]:
        """Return the names."""
        return frozenset(name for name in astuple(self) if name)


class LeftOut(Exception):
    """A conversation that is well formed but no pair; says why."""


class Layout:
    """How the rows of one file hold their pairs: as `columns` say, or by the first row that fits a known layout.

    `several` says whether pairs may have earlier turns, which are then the same for both responses.
    """

    def __init__(self, columns: Columns, *, several: bool = False) -> None:
        self._columns = _Named(**columns) if columns else None
        self._named = bool(columns)
        self._several = several

    def pair(self, row: Row) -> tuple[Turns, Turns]:
        """Return both sides, chosen first; raise LeftOut where they are no pair, Unfit where they are not there."""
        columns = self._told(row)
        asked = _asked(row, columns)
        apart = columns.prompt is not None
        sides = [_conversation(asked, _said(row, side, asked, apart)) for side in (columns.chosen, columns.rejected)]
        kinds = [_kind(side, self._several) for side in sides]
        for kind in (ODD, SEVERAL, TOOLS, EMPTY):
            if kind in kinds:
                raise LeftOut(kind)
        extra = string(row, columns.input, "") if columns.input is not None else ""
        given = extra if extra.strip() else ""
        chosen, rejected = (_turns(side, given) for side in sides)
        if replace(chosen, response="") != replace(rejected, response=""):
            raise LeftOut(PROMPTS)
        if not (chosen.instruction.strip() and chosen.response.strip() and rejected.response.strip()):
            raise LeftOut(EMPTY)
        if chosen.response == rejected.response:
            raise LeftOut(EQUAL)
        return chosen, rejected

    def unused(self, row: Row) -> Iterator[str]:
        """Yield the names of the columns of a row that say something and that nothing is made of."""
        own = self._told(row).own
        yield from (key for key, value in row.items() if key not in own and not says_nothing(value))

    def _told(self, row: Row) -> _Named:
        """Return the layout with the columns that may stand beside it and say something in this row."""
        columns = self._columns = self._columns or _recognised(row)
        if self._named:
            return columns
        history = "history" if not says_nothing(row.get("history")) else None
        return replace(columns, system=beside_system(row), history=history)


def _recognised(row: Row) -> _Named:
    for columns in _LAYOUTS:
        if all(column in row for role, column in columns.items() if role not in _OPTIONAL):
            return _Named(**columns)
    known = ", ".join(map(repr, row)) or "nothing"
    raise Unfit(
        f"no 'chosen' and 'rejected' there, only {known}; "
        "name those of prompt, chosen and rejected with columns (--columns)"
    )


def _asked(row: Row, columns: _Named) -> list[Message]:
    """Return what stands in columns of its own before the responses: a system message, the prompt, or nothing."""
    system = string(row, columns.system, "") if columns.system is not None else ""
    turns = [Message("system", system)] if system.strip() else []
    turns += [each.message for each in earlier_turns(row, columns.history)]
    if columns.prompt is None:
        return turns
    value = row.get(columns.prompt)
    if isinstance(value, Mapping) and "messages" in value:
        if not says_nothing(value.get("tools")):
            raise LeftOut(TOOLS)
        value = value.get("messages")
    if value is not None and not isinstance(value, str):
        return turns + _messages(value, columns.prompt)
    prompt = string(row, columns.prompt)
    if prompt.lstrip().startswith('[{"'):
        return turns + _messages(prompt, columns.prompt)
    if _BEGUN.match(prompt):
        return turns + _transcript(prompt, columns.prompt)
    extra = string(row, columns.input, "") if columns.input is not None else ""
    return [*turns, Message("user", f"{prompt}\n\n{extra}" if extra.strip() else prompt)]


def _said(row: Row, column: str, asked: list[Message], apart: bool) -> list[Message]:
    """Return one side: the response, where the prompt stands `apart` from it, or the turns of a conversation."""
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        return _messages(value, column)
    text = string(row, column)
    if text.lstrip().startswith('[{"'):
        return _messages(text, column)
    if not apart:
        return _transcript(text, column)
    if _WHOLE.match(text):  # unless it is a response of this form, to a wish for one
        turns = _transcript(text, column)
        if text.startswith("\n\n") or turns[0] in _stripped(asked):
            return turns
    return [Message("assistant", text.strip() if asked[-1:] == [_OPEN] else text)]


def _messages(value: Any, column: str) -> list[Message]:
    if not isinstance(value, Sequence | Mapping):
        raise Unfit(f"{column!r} is neither text nor a list of messages")
    if isinstance(value, list):
        value = [_filled(one) for one in value]
    return [each.message for each in messages_of(value, repr(column))] if value else []


def _filled(one: Any) -> Any:
    """Return a message whose content is null as one of nothing."""
    return {**one, "content": ""} if isinstance(one, Mapping) and one.get("content", "") is None else one


def _transcript(text: str, column: str) -> list[Message]:
    """Return the turns of a transcript, white space around them taken off."""
    before, *parts = _MARKER.split(text)
    if not parts and text.strip():
        raise Unfit(
            f"{column!r} is no transcript (no '\\n\\nHuman:' in it), and there is no column for the prompt; name it"
        )
    turns = [Message(_SPEAKERS[role], said.strip()) for role, said in zip(parts[::2], parts[1::2], strict=True)]
    return [Message("", before), *turns] if before.strip() else turns


def _conversation(asked: list[Message], said: list[Message]) -> list[Message]:
    """Return a side's turns behind what was asked, which they may repeat."""
    if not said:
        return []
    asked = [turn for turn in asked if turn != _OPEN]
    if said[0].role == "assistant" and asked:
        return asked + said
    repeated = _stripped(said)
    return [turn for turn, bare in zip(asked, _stripped(asked), strict=True) if bare not in repeated] + said


def _stripped(turns: list[Message]) -> list[Message]:
    return [turn._replace(content=turn.content.strip()) for turn in turns]


def _kind(turns: list[Message], several: bool) -> str | None:
    """Return why the turns of one side are no prompt with its response, None where they are."""
    roles = [turn.role for turn in turns]
    roles = roles[bool(roles) and roles[0] == "system" :]
    if not roles:
        return EMPTY
    if "tool" in roles or any(turn.more for turn in turns):
        return TOOLS
    if roles != ["user", "assistant"] * (len(roles) // 2):
        return ODD
    return SEVERAL if len(roles) > 2 and not several else None


def _turns(side: list[Message], given: str) -> Turns:
    """Return the turns of a side that has both a prompt and a response."""
    system = side[0].content if side[0].role == "system" else None
    *history, prompt, response = side[system is not None :]
    more = Extras(input=given) if given and not history else NO_EXTRAS
    return Turns(prompt.content, response.content, system, tuple(history), more)
