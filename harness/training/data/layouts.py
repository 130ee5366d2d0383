"""The text in a row of demonstrations, and what else the row says.

Known without being told, by the first row of each file:

    messages                      role and content, as chat models have them; also ShareGPT's conversations (from and
                                  value), and either as JSON in a text
    prompt, response              also completion in place of response; both may be lists of messages
    instruction, input, output    Alpaca's; a non-empty input stands behind the instruction, an empty line between them
    instruction, context,         Dolly's, likewise
    response

Beside any of them: `system` (also `system_prompt`), `history` (earlier instructions with their responses) and `tools`
(also `functions`).
Other columns are named by hand: ``columns={"prompt": "question", "response": "answer"}``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

from harness.datasets import Row
from harness.prompts import NO_EXTRAS, Extras, Turns
from harness.training.data.fields import Said, Unfit, decoded, messages_of, says_nothing, string, text_of
from harness.types import Message

Columns: TypeAlias = Mapping[str, str]

#: What is learned of a conversation: its last response, or each.
Learn = Literal["last", "all"]

#: What `columns` may name.
ROLES = ("prompt", "response", "input", "system", "history", "tools", "messages")

_LAYOUTS: tuple[Columns, ...] = (
    {"messages": "messages"},
    {"messages": "conversations"},
    {"messages": "conversation"},
    {"prompt": "prompt", "response": "response"},
    {"prompt": "instruction", "response": "output", "input": "input"},
    {"prompt": "prompt", "response": "completion"},
    {"prompt": "instruction", "response": "response", "input": "context"},
)
_OPTIONAL = ("input", "system", "history", "tools")
UNKNOWN = f"no {' or '.join('/'.join(columns.values()) for columns in _LAYOUTS)} there"

_SYSTEM = ("system", "system_prompt")

#: Columns in which the known layouts say which responses are wanted (KTO), and those that no text is made of.
_LABELS, _MEDIA = ("label", "kto_tag"), ("images", "image", "videos", "audios")


@dataclass(frozen=True)
class _Named:
    """The columns of a file's texts by what they hold: `messages`, or at least `prompt` and `response`."""

    prompt: str = ""
    response: str = ""
    input: str | None = None
    system: str | None = None
    history: str | None = None
    tools: str | None = None
    messages: str | None = None

    @cached_property
    def own(self) -> frozenset[str]:
        """Return the names."""
        return frozenset(name for name in astuple(self) if name)

    def __str__(self) -> str:
        return self.messages or "/".join(filter(None, (self.prompt, self.input, self.response)))


@dataclass(frozen=True, slots=True)
class Text:
    """One demonstration: what is asked and the response to learn.

    `source` is the name of the file it comes from, `fields` what else its row holds (``id``, ``fail_mode``). A chat of
    several turns ends in `prompt` and `response`; its system message and earlier turns stand in `system` and `history`,
    tools and what belongs to them in `more`. `unused` names what of its messages nothing is made of.
    """

    prompt: str
    response: str
    source: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    history: tuple[Message, ...] = ()
    more: Extras = NO_EXTRAS
    unused: tuple[str, ...] = ()

    @property
    def turns(self) -> Turns:
        """The same in the form that prompt formats render."""
        return Turns(self.prompt, self.response, self.system, self.history, self.more)

    @property
    def honoured(self) -> tuple[str, ...]:
        """What there is beside prompt and response, in words."""
        more = self.more
        calls = more.role == "tool" or any(each.more.get("tool_calls") for each in self.turns.asked)
        told = {
            "a system message": self.system,
            "earlier turns": self.history,
            "tools": more.tools,
            "calls of tools": calls or more.answer.get("tool_calls"),
            "thoughts apart": more.answer.get("reasoning_content"),
            "earlier responses learned": more.learned,
        }
        return tuple(name for name, value in told.items() if value)


class Layout:
    """How the rows of one file hold their texts: as `columns` say, or by the first row that fits a known layout."""

    def __init__(self, source: str, columns: Columns, *, empty: bool = False, learn: Learn = "last") -> None:
        self._source = source
        self._columns = _Named(**columns) if columns else None
        self._named = bool(columns)
        self._empty = empty
        self._learn = learn

    @property
    def known(self) -> bool:
        """Whether columns were given, or a row has been of a known layout."""
        return self._columns is not None

    def __str__(self) -> str:
        return str(self._columns or "nothing known")

    def text(self, row: Row) -> Text:
        """Return the text in a row; raise Unfit, saying why, where there is none."""
        columns = self._columns = self._columns or _recognised(row)
        _refuse(row, columns)
        told = columns if self._named else _beside(columns, row)
        rest = {key: value for key, value in row.items() if key not in told.own}
        said = _conversation(row, columns)
        text = self._text(said, columns.messages or columns.response, earlier_turns(row, told.history))
        text = replace(text, source=self._source, fields=rest)
        extra = string(row, columns.input, "") if columns.input is not None else ""
        if extra.strip() and not text.history:
            text = replace(text, more=replace(text.more, input=extra))
        if told.system is not None and (system := string(row, told.system, "")):
            if text.system not in (None, system):
                raise Unfit(f"two system messages: one under {told.system!r}, another among {str(columns)!r}")
            text = replace(text, system=system)
        if told.tools is not None and (tools := _tools(row, told.tools)):
            text = replace(text, more=replace(text.more, tools=tools))
        if not self._empty and not text.response.strip() and not text.more.answer.get("tool_calls"):
            raise Unfit("the response is empty")
        return text

    def _text(self, said: list[Said], column: str, before: list[Said]) -> Text:
        """Return the text in messages: optional system messages, then those of the user and the model by turns."""
        systems = []
        while said and said[0].message.role == "system":
            systems.append(said.pop(0).message.content)
        said = before + said
        _check_turns([each.message for each in said], column)
        learned = [number for number, each in enumerate(said) if each.message.role == "assistant" and each.learned]
        if not learned:
            raise Unfit(f"{column!r} has no response that is to be learned (weight 0, or train false)")
        last = learned[-1]
        asked, answer = said[last - 1].message, said[last].message
        earlier = tuple(learned[:-1]) if self._learn == "all" else ()
        more = Extras(asked.role, asked.more, answer.more, (), earlier)
        return Text(
            asked.content, answer.content, self._source, {}, "\n\n".join(filter(None, systems)) or None,
            tuple(each.message for each in said[: last - 1]), more,
            tuple(_unused(said, last)),
        )  # fmt: skip


def _unused(said: Sequence[Said], last: int) -> Iterator[str]:
    """Yield what nothing is made of in a conversation of which the response `last` is the last that is learned."""
    yield from dict.fromkeys(f"{key!r} of messages" for each in said for key in each.unused)
    if any(each.message.role == "assistant" and not each.learned for each in said):
        yield "responses of weight 0 or train false"
    if last + 1 < len(said):
        yield "messages behind the last response to learn"


def _recognised(row: Row) -> _Named:
    for columns in _LAYOUTS:
        if all(column in row for role, column in columns.items() if role not in _OPTIONAL):
            return _Named(**columns)
    raise Unfit(f"{UNKNOWN}, only {', '.join(map(repr, row)) or 'nothing'}")


def _beside(columns: _Named, row: Row) -> _Named:
    """Return a known layout with the columns that may stand beside it and say something in this row."""
    history, tools = _saying(row, ("history",)), _saying(row, ("tools", "functions"))
    return replace(columns, system=beside_system(row), history=history, tools=tools)


def beside_system(row: Row) -> str | None:
    """Return the name of the column that holds a row's system message, None where there is none."""
    return _saying(row, _SYSTEM)


def _saying(row: Row, names: Sequence[str]) -> str | None:
    """Return the first of these columns that says something in a row."""
    return next((name for name in names if not says_nothing(row.get(name))), None)


def _refuse(row: Row, columns: _Named) -> None:
    """Raise Unfit for a row that means something else than a response to learn."""
    for name in _LABELS:
        if name not in columns.own and isinstance(row.get(name), bool):
            raise Unfit(
                f"{name!r} tells wanted responses from unwanted ones (KTO), which would be learned alike; keep those "
                "that are true and take the column out, or pair them as chosen and rejected (harness train dpo)"
            )
    for name in _MEDIA:
        if name not in columns.own and not says_nothing(row.get(name)):
            raise Unfit(f"{name!r} holds what is no text; only text can be trained on")


def _conversation(row: Row, columns: _Named) -> list[Said]:
    """Return the messages of a row, whatever its layout."""
    if columns.messages is not None:
        return messages_of(row.get(columns.messages), repr(columns.messages))
    asked = _side(row, columns.prompt, "user")
    extra = string(row, columns.input, "") if columns.input is not None else ""
    if extra.strip():
        last = asked[-1].message
        asked[-1] = replace(asked[-1], message=last._replace(content=f"{last.content}\n\n{extra}"))
    return asked + _side(row, columns.response, "assistant")


def _side(row: Row, column: str, role: str) -> list[Said]:
    """Return the messages in the column of a prompt or a response: those of a list, or one by `role`."""
    value = row.get(column)
    if isinstance(value, list | Mapping):
        return messages_of(value, repr(column))
    return [Said(Message(role, string(row, column)))]


def earlier_turns(row: Row, column: str | None) -> list[Said]:
    """Return earlier turns: pairs of an instruction and its response, as LLaMA-Factory has them."""
    value = decoded(row.get(column), repr(column)) if column is not None else None
    if says_nothing(value):
        return []
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise Unfit(f"{column!r} is not a list of earlier turns")
    turns = []
    for number, pair in enumerate(value, 1):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise Unfit(f"turn {number} of {column!r} is no pair of an instruction and its response")
        for role, text in zip(("user", "assistant"), pair, strict=True):
            turns.append(Said(Message(role, text_of(text, f"turn {number} of {column!r}"))))
    return turns


def _tools(row: Row, column: str) -> tuple[Any, ...]:
    value = decoded(row.get(column), repr(column))
    if says_nothing(value):
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise Unfit(f"{column!r} is not a list of tools")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in value)


#: Who may speak after whom; the first of each is who is missed where somebody else does.
_NEXT = {"": ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("assistant", "tool")}


def _check_turns(said: Sequence[Message], column: str) -> None:
    """Raise Unfit unless users and the model speak by turns, with results of tools between, and the model last."""
    before = ""
    for message in said:
        expected = _NEXT[before]
        if message.role not in expected:
            raise Unfit(f"{column!r} has a message by {message.role!r} where one by {expected[0]!r} belongs")
        before = message.role
    if before != "assistant":
        raise Unfit(f"{column!r} does not end in a response")
