"""Texts and messages in the fields of rows, with what is wrong with them in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.datasets import Row
from harness.types import Message

_SPEAKERS = {
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "bot", "chatbot", "ai", "model"), "assistant"),
    **dict.fromkeys(("developer",), "system"),
    **dict.fromkeys(("observation", "function", "ipython", "tool_response"), "tool"),
}

#: A turn that is a call of a tool alone, as ShareGPT's layout has it: its text is the call as JSON.
_CALLS = ("function_call", "tool_call")

#: Under which names messages hold thoughts apart from the answer.
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")

#: By which names messages say that they are to be learned, or not.
_LEARNED = ("train", "training", "trainable", "loss")

#: What chat templates take from a message beside role and content.
_TAKEN = ("tool_call_id", "name")

_KNOWN = frozenset(
    ("role", "from", "content", "value", "tool_calls", "function_call", "weight", *_LEARNED, *_THOUGHTS, *_TAKEN)
)


class Unfit(Exception):
    """A row that cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class Said:
    """A message as a row holds it: whether it may be learned, and the names of fields that nothing is made of."""

    message: Message
    learned: bool = True
    unused: tuple[str, ...] = field(default=())


def string(row: Row, column: str, default: str | None = None) -> str:
    """Return the text in a column; `default`, where one is given, for a column that is absent or null."""
    value = row.get(column)
    if value is None and default is not None:
        return default
    if value is None:
        raise Unfit(f"no {column!r} there, only {', '.join(repr(key) for key in row if row[key] is not None)}")
    return text_of(value, repr(column))


def text_of(value: Any, what: str) -> str:
    """Return `value` if it is text that can be encoded; `what` names it where it is not."""
    if not isinstance(value, str):
        raise Unfit(f"{what} is not text but {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Unfit(f"{what} has half a character ({value[error.start]!a}, a lone surrogate)") from error
    return value


def says_nothing(value: Any) -> bool:
    """Whether a field is there without a meaning: null, empty, or an empty list as JSON."""
    return value is None or (isinstance(value, str) and value.strip() in ("", "[]", "null")) or value in ([], {})


def decoded(value: Any, what: str) -> Any:
    """Return `value`, or what it holds where it is JSON in a text that begins like a list or an object."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Unfit(f"{what} is not JSON ({error})") from error


def messages_of(value: Any, what: str) -> list[Said]:
    """Return the messages in a column: a list of them, the same as JSON, a single one, or a list for each field."""
    value = decoded(value, what)
    if isinstance(value, Mapping):
        value = _by_field(value) or [value]
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise Unfit(f"{what} is not a list of messages")
    return [said(one, f"message {number} of {what}") for number, one in enumerate(value, 1)]


def _by_field(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the messages of an object that has a list for each of their fields, as tables of nested rows may."""
    columns = {key: each for key, each in value.items() if each is not None}
    if not all(isinstance(each, list) for each in columns.values()) or not columns.keys() & {"role", "from"}:
        return []
    if len({len(each) for each in columns.values()}) != 1:
        return []
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def said(value: Any, what: str) -> Said:
    """Return a message; ShareGPT's from and value, human and gpt, and content in parts are taken too."""
    if not isinstance(value, Mapping):
        raise Unfit(f"{what} is not an object")
    name = text_of(value.get("role", value.get("from")), f"the role of {what}").casefold()
    content, more = value.get("content", value.get("value")), dict[str, Any]()
    if name in _CALLS:
        more.update(tool_calls=_calls(decoded(content, what), what))
        content = ""
    elif not says_nothing(calls := decoded(_called(value), f"the tool_calls of {what}")):
        more.update(tool_calls=_calls(calls, what))
        content = content or ""
    content, within = _without_thoughts(content)
    if thoughts := [*within, *(value[key] for key in _THOUGHTS if not says_nothing(value.get(key)))]:
        more.update(reasoning_content=text_of(thoughts[0], f"the reasoning of {what}"))
    role = "assistant" if name in _CALLS else _SPEAKERS.get(name, name)
    if role == "system" and content is None:
        content = ""
    if role == "tool":
        more |= {key: text_of(value[key], f"{key} of {what}") for key in _TAKEN if not says_nothing(value.get(key))}
        content = content if isinstance(content, str | list) else json.dumps(content, ensure_ascii=False)
    unused = tuple(key for key in value if key not in _KNOWN and not says_nothing(value[key]))
    if role != "tool" and not says_nothing(value.get("name")):
        unused += ("name",)
    return Said(Message(role, _content(content, f"the content of {what}"), more), _learned(value, what), unused)


def _called(value: Mapping[str, Any]) -> Any:
    """Return the calls of tools of a message, or its only one as OpenAI's older form has it."""
    calls = value.get("tool_calls")
    return value.get("function_call") if says_nothing(calls) else calls


def _without_thoughts(content: Any) -> tuple[Any, list[Any]]:
    """Return a content without parts that hold thoughts, and what is in these."""
    if not isinstance(content, list):
        return content, []
    kinds = [part.get("type") if isinstance(part, Mapping) else None for part in content]
    thoughts = [
        part.get(kind, part.get("text"))
        for part, kind in zip(content, kinds, strict=True)
        if kind in ("thinking", "reasoning")
    ]
    return [part for part, kind in zip(content, kinds, strict=True) if kind not in ("thinking", "reasoning")], thoughts


def _content(value: Any, what: str) -> str:
    """Return a content: a text, or the texts of its parts one after the other."""
    if not isinstance(value, list):
        return text_of(value, what)
    texts = []
    for part in value:
        kind = part.get("type", "text") if isinstance(part, Mapping) else None
        if isinstance(part, Mapping) and kind != "text":
            raise Unfit(f"{what} has a part of type {kind!r}; only text can be trained on")
        texts.append(text_of(part.get("text") if isinstance(part, Mapping) else part, f"a part of {what}"))
    return "".join(texts)


def _calls(value: Any, what: str) -> list[dict[str, Any]]:
    """Return calls of tools as chat templates take them: their arguments are an object, not JSON in a text."""
    calls = []
    for call in value if isinstance(value, list) else [value]:
        inner = call.get("function", call) if isinstance(call, Mapping) else None
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if inner is None or not isinstance(name, str):
            raise Unfit(f"{what} calls a tool without the name of a function")
        arguments = decoded(inner.get("arguments") or {}, f"the arguments of {what}")
        given = {key: value for key, value in call.items() if key == "id" and isinstance(value, str)}
        calls.append({**given, "type": "function", "function": {"name": name, "arguments": arguments}})
    return calls


def _learned(value: Mapping[str, Any], what: str) -> bool:
    """Whether a message may be learned: by OpenAI's `weight`, 0 or 1, and by `train`, which others have."""
    weight = value.get("weight")
    if weight is not None and weight not in (0, 1):
        raise Unfit(f"the weight of {what} is {weight!r}; a message is learned (1) or not (0)")
    said = {key: value[key] for key in _LEARNED if value.get(key) is not None}
    if wrong := [key for key, each in said.items() if not isinstance(each, bool)]:
        raise Unfit(f"{wrong[0]!r} of {what} is neither true nor false")
    return weight != 0 and all(said.values())
