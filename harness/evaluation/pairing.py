"""Whether runs can be paired: the same examples with the same content, and what else is not the same, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import RunError
from harness.evaluation.recorded import Recorded

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: How many ids a message names.
_NAMED = 3

_CONTENT = ("fields", "gold", "group", "category")

#: What of a run's identity is the model's, or has been looked at example by example.
_APART = ("model", "examples", "limit", "seed", "benchmark", "parsers", "plugins", "prompt_format")


def aligned(baseline: Recorded, run: Recorded) -> NDArray[np.int64]:
    """Return for each row of `baseline` the row of `run` with the same example.

    Raises RunError, naming examples and counts, when the two are not over the same examples.
    """
    if baseline.benchmark != run.benchmark:
        both = f"{run.folder.path} of {run.benchmark}"
        raise RunError(f"{baseline.folder.path} is a run of {baseline.benchmark}, and {both}: there is nothing to pair")
    if list(baseline.ids) != list(run.ids):
        rows = {identifier: row for row, identifier in enumerate(run.ids)}
        known = set(baseline.ids)
        missing = [identifier for identifier in baseline.ids if identifier not in rows]
        extra = [identifier for identifier in run.ids if identifier not in known]
        if missing or extra:
            faults = [f"{_count(ids, what)}" for ids, what in ((missing, "it has not"), (extra, "only it has")) if ids]
            raise RunError(f"{_not_the_same(baseline, run)}: {'; '.join(faults)}{_why(baseline, run)}")
        order = np.array([rows[identifier] for identifier in baseline.ids], dtype=np.int64)
    else:
        order = np.arange(len(baseline), dtype=np.int64)
    if _digest(baseline) != _digest(run):
        _check_content(baseline, run, order)
    return order


def _check_content(baseline: Recorded, run: Recorded, order: NDArray[np.int64]) -> None:
    """Compare the examples themselves; RunError when one has other content under the same id."""
    other: list[str] = []
    where: set[str] = set()
    for row, place in enumerate(order.tolist()):
        first, second = baseline.sample(row), run.sample(place)
        unlike = [name for name in _CONTENT if getattr(first, name) != getattr(second, name)]
        if unlike:
            other.append(first.id)
            where.update(_fields(first.fields, second.fields) if "fields" in unlike else ())
            where.update(name for name in unlike if name != "fields")
    if other:
        count = _count(other, f"with another {' and '.join(sorted(where))} under the same id")
        raise RunError(f"{_not_the_same(baseline, run)}: {count}{_why(baseline, run)}")


def _fields(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    return (name for name in {*first, *second} if first.get(name) != second.get(name))


def _not_the_same(baseline: Recorded, run: Recorded) -> str:
    return f"{run.folder.path} is not over the examples of {baseline.folder.path}"


def _count(ids: Sequence[str], what: str) -> str:
    more = ", …" if len(ids) > _NAMED else ""
    return f"{len(ids):,} {what} ({', '.join(ids[:_NAMED])}{more})"


def _why(baseline: Recorded, run: Recorded) -> str:
    """Name the options that may have led to other examples."""
    first, second = baseline.config["identity"], run.config["identity"]
    said = [
        f"{name} {_value(first.get(name))} and {_value(second.get(name))}"
        for name in ("limit", "seed")
        if first.get(name) != second.get(name)
    ]
    said += [
        words
        for words in _changes(first.get("benchmark"), second.get("benchmark"), baseline.benchmark, " and ")
        if ".generation." not in words
    ]
    return f" [{', '.join(said)}]" if said else ""


def _digest(run: Recorded) -> Any:
    return run.config["identity"].get("examples")


def stated_differences(baseline: Recorded, run: Recorded) -> tuple[str, ...]:
    """Say in what else than the model `run` differs from `baseline`: prompt format, sampling, engine, versions."""
    first, second = (_comparable(each.config["identity"]) for each in (baseline, run))
    if first["prompt_format"] != second["prompt_format"]:
        del first["prompt_format_digest"], second["prompt_format_digest"]
    found = list(_changes(first, second, "", " → "))
    harness = [r.config.get("harness") for r in (baseline, run)]
    if harness[0] != harness[1]:
        found.append(f"harness {harness[0]} → {harness[1]}")
    if _digest(baseline) != _digest(run):
        found.append("wording of the questions, or examples outside the sample")
    return tuple(found)


def _comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a run's identity is to be said where it differs: each thing once, under the name people know."""
    found = {name: value for name, value in identity.items() if name not in _APART}
    found["benchmark"] = {k: v for k, v in identity.get("benchmark", {}).items() if k not in ("generation", "name")}
    for kind in ("parsers", "plugins"):
        found[kind] = {}
    for parser in identity.get("parsers", []):
        found["parsers"][parser["name"]] = {k: v for k, v in parser.items() if k != "name"} or "as it is"
    for plugin in identity.get("plugins", []):
        found["plugins"][plugin["name"]] = f"{plugin['distribution']} {plugin['version']}"
    named = identity.get("prompt_format", {})
    found["prompt_format"] = named.get("name")
    found["prompt_format_digest"] = named.get("digest")
    return found


def _changes(first: Any, second: Any, name: str, between: str) -> Iterator[str]:
    """Yield ``a.b 1 → 2`` for each leaf in which two JSON values differ."""
    if first == second:
        return
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in [*first, *(key for key in second if key not in first)]:
            yield from _changes(first.get(key), second.get(key), f"{name}.{key}" if name else key, between)
        return
    if name.endswith(("digest", "chat_template")):
        yield f"{name} differs"
        return
    yield f"{name} {_value(first)}{between}{_value(second)}"


def _value(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
