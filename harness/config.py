"""Options: TOML files and ``--set key=value`` into frozen dataclasses; an unknown key is refused by name.

A table is a nested mapping as TOML gives it. Top-level keys are options of the command (``model``, ``limit``) or names
of plugins, whose tables hold the plugin's own options (``[vllm]`` ``tensor_parallel_size = 2``).
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from harness.errors import ConfigError, nearest
from harness.files import open_given
from harness.limits import RECORD

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a run file; raise ConfigError naming the file and the line of what is wrong in it."""
    try:
        with open_given(path) as file:
            content = file.read(RECORD.value + 1)
        if len(content) > RECORD.value:
            raise ConfigError(f"{path}: larger than {RECORD.told} ({RECORD}), and no run file is")
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def assignments(pairs: Iterable[str]) -> dict[str, Any]:
    """Turn ``key=value`` pairs into a nested table; values are read as TOML, and as text where they are no TOML.

    >>> assignments(["gsm8k.generation.max_tokens=64", "model=ckpt/", "vllm.enforce_eager=true"])
    {'gsm8k': {'generation': {'max_tokens': 64}}, 'model': 'ckpt/', 'vllm': {'enforce_eager': True}}
    """
    table: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise ConfigError(f"--set {pair!r} must look like key=value or plugin.key=value")
        place = table
        for part in parts[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {pair!r}: {part!r} has already been given a value")
        place[parts[-1]] = _value(value.strip())
    return table


def _value(text: str) -> Any:
    try:
        [value] = tomllib.loads(f"value = {text}").values()
    except ValueError:  # no TOML, or several lines of it
        return text
    return value


def merged(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Merge tables into a new one, later ones over earlier ones, nested tables key by key."""
    result: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def options_of(plugin: Any) -> dict[str, Any]:
    """Return a plugin's options and their values as JSON-ready data; empty for a plugin that is no dataclass."""
    if not dataclasses.is_dataclass(plugin) or isinstance(plugin, type):
        return {}
    return dataclasses.asdict(plugin)


def configure(plugin: T, options: Mapping[str, Any], name: str) -> T:
    """Return the dataclass instance `plugin` with `options` put in, nested ones too.

    Types are checked and converted as TOML and the command line need it (a list for a tuple, a text for a tuple of one,
    ``"2"`` for 2). Raises ConfigError that names every unknown or ill-typed key at once, with the nearest known name.
    """
    if not options:
        return plugin
    if not dataclasses.is_dataclass(plugin) or isinstance(plugin, type):
        raise ConfigError(f"{name} takes no options (got {', '.join(sorted(options))})")
    problems = list(_unknown(plugin, options, name))
    if problems:
        raise ConfigError("; ".join(problems))
    made = _validated(plugin, merged(dataclasses.asdict(plugin), _listed(plugin, options)), name)
    if problems := list(_counted(options, made, name)):
        raise ConfigError("; ".join(problems))
    return cast(T, made)


def configured(tables: Mapping[str, Any], name: str, plugin: T) -> T:
    """Return `plugin` with the options that `tables` hold under its name; ConfigError for what does not fit."""
    table = tables.get(name, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"options of {name!r} are given as {name}.OPTION=VALUE, not {name}={table}")
    return configure(plugin, table, name)


def _unknown(instance: Any, options: Mapping[str, Any], prefix: str) -> Iterable[str]:
    fields = {field.name for field in dataclasses.fields(instance) if field.init}
    for key, value in options.items():
        if key not in fields:
            yield f"{prefix} has no option {key!r}{_hint(key, instance)}"
        elif dataclasses.is_dataclass(getattr(instance, key)):
            if isinstance(value, Mapping):
                yield from _unknown(getattr(instance, key), value, f"{prefix}.{key}")
            else:
                yield f"{prefix}.{key} is a table of options, not {value!r}"


def _hint(key: str, instance: Any) -> str:
    """Return the nearest option's name, of a nested table's too: ``; did you mean 'generation.max_tokens'?``."""
    names = option_names(instance)
    within = {name.rpartition(".")[2]: name for name in names if "." in name}
    if key in within:
        return f"; did you mean {within[key]!r}?"
    return nearest(key, names)


def option_names(instance: Any) -> list[str]:
    """Return what the options of a dataclass instance are called, those of nested tables as ``table.option``."""
    found = []
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name, None)
        if field.init and dataclasses.is_dataclass(value):
            found += [f"{field.name}.{name}" for name in option_names(value)]
        elif field.init:
            found.append(field.name)
    return found


def _counted(given: Any, made: Any, place: str) -> Iterable[str]:
    """Yield what is wrong where a truth value was given and pydantic has made a number of it."""
    if isinstance(given, bool):
        if isinstance(made, int | float) and not isinstance(made, bool):
            yield f"{place}: Input should be a number, not {given}"
    elif isinstance(given, Mapping):
        for key, value in given.items():
            inner = made.get(key) if isinstance(made, Mapping) else getattr(made, str(key), None)
            yield from _counted(value, inner, f"{place}.{key}")
    elif isinstance(given, list | tuple) and isinstance(made, list | tuple):
        for number, (value, inner) in enumerate(zip(given, made, strict=False)):
            yield from _counted(value, inner, f"{place}.{number}")


def _listed(instance: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` with a list of one for each text that is given where several are taken."""
    listed: dict[str, Any] = {}
    for key, value in options.items():
        old = getattr(instance, key)
        if isinstance(value, str) and isinstance(old, tuple):
            value = [value]
        elif isinstance(value, Mapping) and dataclasses.is_dataclass(old):
            value = _listed(old, value)
        listed[key] = value
    return listed


def _validated(instance: Any, table: Mapping[str, Any], name: str) -> Any:
    import pydantic

    try:
        return pydantic.TypeAdapter(type(instance)).validate_python(dict(table))
    except pydantic.ValidationError as error:
        details = "; ".join(
            f"{'.'.join([name, *map(str, e['loc'])])}: {e['msg'].removeprefix('Value error, ')}, not {e['input']!r}"
            if e["type"] != "value_error"
            else f"{name}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise ConfigError(details) from error
