"""Values of other tools' files as what a `RecordedOutput` has; ValueError, in words for users, for what is no such."""

from __future__ import annotations

from typing import Any


def text_of(value: Any, name: str | None = None) -> str | None:
    """Return a text, or None where there is none; with a `name`, anything else than text or None is refused."""
    if value is None or isinstance(value, str):
        return value
    if name is None:
        return None
    raise ValueError(f"{name!r} must be text, not {_quoted(value)}")


def identifier_of(value: Any) -> str | None:
    """Return an id as text.

    >>> identifier_of(17), identifier_of("test-17"), identifier_of(None)
    ('17', 'test-17', None)
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"an id must be text or a whole number, not {_quoted(value)}")
    return str(value)


def number_of(value: Any, name: str) -> float:
    """Return a score from 0 to 1.

    >>> number_of(True, "right"), number_of("0.5", "score"), number_of("False", "right")
    (1.0, 0.5, 0.0)
    """
    if isinstance(value, str):
        value = {"true": 1.0, "false": 0.0}.get(value.strip().lower(), value)
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = -1.0
    if not 0 <= found <= 1:
        raise ValueError(f"{name!r} must be a score from 0 to 1, not {_quoted(value)}")
    return found


def whole_of(value: Any, name: str) -> int | None:
    """Return a number of tokens, or None."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"{name!r} must be a number of tokens, not {_quoted(value)}")


def _quoted(value: Any, most: int = 60) -> str:
    text = ascii(value)
    return text if len(text) <= most else f"{text[: most - 4]} ..."
