"""Texts and messages in the fields of rows, with what is wrong with them in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.datasets import Row

_SPEAKERS = {"human": "user", "gpt": "assistant"}


class Unfit(Exception):
    """A row that cannot be used; says why."""


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


def message(value: Any, what: str) -> dict[str, str]:
    """Return a message as role and content; ShareGPT's from and value, human and gpt, are taken too."""
    if not isinstance(value, Mapping):
        raise Unfit(f"{what} is not an object")
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    name = text_of(role, f"the role of {what}")
    return {"role": _SPEAKERS.get(name, name), "content": text_of(content, f"the content of {what}")}
