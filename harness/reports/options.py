"""What options a plugin takes: names, types, defaults, and what its docstrings say of them."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.reports.samples import printable
from harness.reports.tables import table


@dataclass(frozen=True)
class Option:
    """One option: what follows the plugin's name in ``--set``, the type as people write it, and the default."""

    name: str
    type: str
    default: Any


def options(plugin: Any) -> list[Option]:
    """Return the options of a plugin's object, those of nested tables as ``table.option``; none where it has none."""
    if not dataclasses.is_dataclass(plugin) or isinstance(plugin, type):
        return []
    hints = _hints(type(plugin))
    found = []
    for field in dataclasses.fields(plugin):
        value = getattr(plugin, field.name)
        if not field.init:
            continue
        if dataclasses.is_dataclass(value):
            found += [dataclasses.replace(each, name=f"{field.name}.{each.name}") for each in options(value)]
        else:
            found.append(Option(field.name, _type(hints.get(field.name, field.type)), value))
    return found


def docs(plugin: Any) -> list[str]:
    """Return the docstrings that speak of a plugin and its options: its class's, inherited ones, nested tables'."""
    inherited = [
        each for each in type(plugin).__mro__[1:] if dataclasses.is_dataclass(each) and "__doc__" in vars(each)
    ]
    said = [inspect.cleandoc(each.__doc__ or "") for each in (type(plugin), *inherited)]
    for field in dataclasses.fields(plugin) if dataclasses.is_dataclass(plugin) else ():
        if _is_table(value := getattr(plugin, field.name)):
            said.append(f"`{field.name}`: {inspect.cleandoc(type(value).__doc__ or '')}")
    generated = ("(", f"{type(plugin).__name__}(")  # what dataclasses write where there is no docstring
    return [text for text in dict.fromkeys(said) if text and not text.startswith(generated)]


def described(heading: str, name: str, plugin: Any) -> str:
    """Return a plugin's heading, docstrings and table of options for a terminal, made `printable`."""
    rows = [[f"{name}.{each.name}", each.type, _toml(each.default)] for each in options(plugin)]
    told = table(["option", "type", "default"], rows) if rows else "it takes no options"
    return printable("\n\n".join([heading, *docs(plugin), told]))


def as_record(kind: str, name: str, plugin: Any) -> dict[str, Any]:
    """Return the same as JSON-ready data."""
    found = [dataclasses.asdict(each) for each in options(plugin)]
    return {"kind": kind, "name": name, "options": found, "docs": docs(plugin)}


def _is_table(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _hints(cls: type) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError):  # names that are there for a type checker alone
        return {}


def _type(hint: Any) -> str:
    """Return a type as users take it.

    >>> _type(typing.Literal["a", "b"]), _type(tuple[str, ...]), _type(int | None), _type(Mapping[str, str])
    ('a | b', 'list of str', 'int | none', 'table')
    """
    if isinstance(hint, str):
        return hint
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " | ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(dict.fromkeys(_type(each) for each in inner))
    if origin in (tuple, list) or (isinstance(origin, type) and issubclass(origin, Sequence)):
        each = dict.fromkeys(_type(one) for one in inner if one is not Ellipsis)
        return f"list of {' | '.join(each)}" if len(each) < 3 else "list"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "table"
    return "none" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _toml(value: Any) -> str:
    """Return a value as a run file has it; what is not there as a dash."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return "{" + ", ".join(_pairs(value)) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _pairs(table: Mapping[str, Any]) -> Iterator[str]:
    return (f"{key} = {_toml(value)}" for key, value in table.items())
