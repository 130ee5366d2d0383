"""Whether runs can be paired: the same examples with the same content, and what else is not the same, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from harness.errors import RunError
from harness.runs.columns import Recorded
from harness.runs.records import Identity

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: How many ids a message names.
_NAMED = 3

_CONTENT = ("fields", "gold", "group", "category")


def aligned(baseline: Recorded, run: Recorded) -> NDArray[np.int64]:
    """Return for each example of `baseline` the number of the same example in `run`, both counted from 0.

    Raises RunError, naming examples and counts, when the two are not over the same examples.
    """
    if baseline.benchmark != run.benchmark:
        both = f"{run.path} of {run.benchmark}"
        raise RunError(f"{baseline.path} is a run of {baseline.benchmark}, and {both}: there is nothing to pair")
    own, other = (example_ids(each) for each in (baseline, run))
    if own != other:
        places = {identifier: place for place, identifier in enumerate(other)}
        known = set(own)
        missing = [identifier for identifier in own if identifier not in places]
        extra = [identifier for identifier in other if identifier not in known]
        if missing or extra:
            faults = [f"{_count(ids, what)}" for ids, what in ((missing, "it has not"), (extra, "only it has")) if ids]
            raise RunError(f"{_not_the_same(baseline, run)}: {'; '.join(faults)}{_why(baseline, run)}")
        order = np.array([places[identifier] for identifier in own], dtype=np.int64)
    else:
        order = np.arange(len(own), dtype=np.int64)
    if baseline.record.identity.examples != run.record.identity.examples:
        _check_content(baseline, run, order)
    return order


def example_ids(run: Recorded) -> list[str]:
    """Return the ids of a run's examples in the benchmark's order, each once."""
    return [run.ids[row] for row in run.first_rows.tolist()]


def paired_rows(baseline: Recorded, run: Recorded) -> NDArray[np.int64]:
    """Return for each row of `baseline` a row of `run` with the same example: of its samples, taken in turn, the same.

    Raises RunError as `aligned` does.
    """
    examples = aligned(baseline, run)[baseline.examples]
    taken = np.bincount(run.examples)[examples]
    rows: NDArray[np.int64] = run.first_rows[examples] + baseline.repeats % taken
    return rows


def _check_content(baseline: Recorded, run: Recorded, order: NDArray[np.int64]) -> None:
    """Compare the examples themselves; RunError when one has other content under the same id."""
    other: list[str] = []
    where: set[str] = set()
    for row, place in zip(baseline.first_rows.tolist(), run.first_rows[order].tolist(), strict=True):
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
    return f"{run.path} is not over the examples of {baseline.path}"


def _count(ids: Sequence[str], what: str) -> str:
    more = ", …" if len(ids) > _NAMED else ""
    return f"{len(ids):,} {what} ({', '.join(ids[:_NAMED])}{more})"


def _why(baseline: Recorded, run: Recorded) -> str:
    """Name the options that may have led to other examples."""
    first, second = baseline.record.identity, run.record.identity
    said = [
        f"{name} {_value(one)} and {_value(other)}"
        for name, one, other in (("limit", first.limit, second.limit), ("seed", first.seed, second.seed))
        if one != other
    ]
    said += [
        words
        for words in _changes(first.benchmark, second.benchmark, baseline.benchmark, " and ")
        if ".generation." not in words
    ]
    return f" [{', '.join(said)}]; compare runs that were asked the same" if said else ""


def stated_differences(baseline: Recorded, run: Recorded) -> tuple[str, ...]:
    """Say in what else than the model `run` differs from `baseline`: prompt format, sampling, engine, versions."""
    first, second = baseline.record, run.record
    formats = [each.identity.prompt_format for each in (first, second)]
    same = formats[0].name == formats[1].name
    alike = [_comparable(each.identity, digest=same) for each in (first, second)]
    found = list(_changes(alike[0], alike[1], "", " → "))
    seeds = [_seed(each.identity) for each in (first, second)]
    if seeds[0] != seeds[1]:
        alone = _but_for_seeds(first.identity) == _but_for_seeds(second.identity)
        said = f"seed {_value(seeds[0])} → {_value(seeds[1])}"
        found.append(f"{said}, and in nothing else: it is one model, and what differs is chance" if alone else said)
    if first.harness != second.harness:
        found.append(f"harness {first.harness or None} → {second.harness or None}")
    if baseline.record.identity.examples != run.record.identity.examples:
        found.append("wording of the questions, or examples outside the sample")
    return tuple(found)


def _comparable(identity: Identity, *, digest: bool) -> dict[str, Any]:
    """Return what of a run's identity is to be said where it differs: each thing once, under the name people know.

    The model is left out, and what has been looked at example by example. `digest` asks for that of the prompt format.
    """
    return {
        "generation": {name: value for name, value in identity.generation.items() if name != "seed"} or "unknown",
        "samples": identity.samples,
        "engine": identity.engine,
        "chat_template": identity.chat_template,
        "scorer": identity.scorer,
        **identity.more,
        "benchmark": identity.benchmark_options,
        "parsers": {parser.name: parser.options or "as it is" for parser in identity.parsers},
        "plugins": {plugin.name: f"{plugin.distribution} {plugin.version}" for plugin in identity.plugins},
        "prompt_format": identity.prompt_format.name or None,
        **({"prompt_format_digest": identity.prompt_format.digest or None} if digest else {}),
    }


def _seed(identity: Identity) -> Any:
    """Return the seed that outputs are drawn with; None where nothing is drawn, or nothing said of it."""
    if not identity.generation.get("temperature"):
        return None
    own = identity.generation.get("seed")
    return identity.model.get("seed") if own is None else own


def _but_for_seeds(identity: Identity) -> Any:
    """Return all that outputs depend on but for seeds."""
    generation, model = ({**each, "seed": None} for each in (identity.generation, identity.model))
    benchmark = {**identity.benchmark, "generation": None}
    return msgspec.structs.replace(identity, generation=generation, model=model, benchmark=benchmark)


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
