"""Read the answers out of a stream of model outputs that belong to no run: lines of text, or JSON objects a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from harness.errors import HarnessError, PluginError
from harness.interfaces import Parser
from harness.parsers import Explanation
from harness.types import Example

#: Calls a parser: its answer, or its explanation of one.
_Read: TypeAlias = Callable[[str, Example | None], Any]

#: As many options as there are letters for them.
_MOST_OPTIONS = 26


class Answer(NamedTuple):
    """What became of one line, `line` counting from 1.

    `answer` is None where the parser found none. `id` is the record's, where it has one. `fault` says why the line
    could not be read. `explanation` says why the answer is what it is, in `output`, where that was asked for.
    """

    line: int
    answer: str | None
    id: str | int | None = None
    fault: str | None = None
    explanation: Explanation[str] | None = None
    output: str = ""


def read_answers(
    lines: Iterable[bytes], parser: Parser, *, records: bool | None = None, explain: bool = False
) -> Iterator[Answer]:
    """Yield an answer for each line as it comes in, with `explain` and its explanation.

    A line is an output, or, with `records`, a JSON object with an ``output`` and whatever the parser makes use of
    (``options``), on its own level or in ``fields`` as in a run's samples.jsonl; blank lines between records are
    skipped. With `records` None the first line decides: a JSON object with an ``output`` means records. Raises
    PluginError where an explanation is asked for from a parser that gives none.
    """
    if explain and not hasattr(parser, "explain"):
        raise PluginError(f"the parser {parser.name!r} cannot explain its answers; leave out --explain")
    read = partial(_call(explain), parser)
    stream = iter(lines)
    if records is None:
        first = next(stream, None)
        if first is None:
            return
        records = _is_record(first)
        stream = chain((first,), stream)
    for number, line in enumerate(stream, start=1):
        try:
            text = line.decode("utf-8").removeprefix("\ufeff" if number == 1 else "").removesuffix("\n")
        except UnicodeDecodeError as error:
            yield Answer(number, None, fault=f"not UTF-8 (byte {line[error.start]:#04x} at offset {error.start})")
            continue
        if not records:
            yield _answer(number, text.removesuffix("\r"), read)
        elif text.strip():
            yield _from_record(number, text, read)


def disagreeing(parsers: Iterable[Parser], output: str, example: Example) -> tuple[str, ...]:
    """Return the names of the parsers that read a letter in an output beside which another option's text stands."""
    return tuple(
        parser.name for parser in parsers if hasattr(parser, "disagrees") and parser.disagrees(output, example)
    )


def _is_record(line: bytes) -> bool:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and "output" in record


def _call(explain: bool) -> Callable[[Parser, str, Example | None], Any]:
    """Return how a parser is called: those of other packages, which need the core's, are named where they fail."""
    if find_spec("pluggy") is None:
        return lambda parser, output, example: (parser.explain if explain else parser.parse)(output, example)  # type: ignore[attr-defined]
    from harness.calls import explained, parse

    return explained if explain else parse


def _answer(
    number: int, output: str, read: _Read, example: Example | None = None, identifier: str | int | None = None
) -> Answer:
    try:
        found = read(output, example)
    except HarnessError as error:
        return Answer(number, None, identifier, str(error))
    if isinstance(found, Explanation):
        return Answer(number, found.answer, identifier, explanation=found, output=output)
    return Answer(number, found, identifier)


def _from_record(number: int, text: str, read: _Read) -> Answer:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        return Answer(number, None, fault=f"not JSON ({error.msg}, column {error.colno})")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, nesting without end
        return Answer(number, None, fault=f"not JSON that can be read ({error})")
    fault = _fault(record)
    if fault is not None:
        return Answer(number, None, fault=fault)
    identifier, output, gold = (record.get(name) for name in ("id", "output", "gold"))
    example = Example(str(number if identifier is None else identifier), _fields(record), gold)
    return _answer(number, output, read, example, identifier)


def _fields(record: dict[str, Any]) -> dict[str, Any]:
    fields = record.get("fields")
    return fields if isinstance(fields, dict) else record


def _fault(record: Any) -> str | None:
    if not isinstance(record, dict):
        return "JSON, but not an object in braces"
    if not isinstance(record.get("output"), str):
        there = ", ".join(map(repr, record)) or "nothing"
        return "'output' must be text" if "output" in record else f"no 'output' in it, only {there}"
    options = _fields(record).get("options")
    if options is None:
        return None
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        return "'options' must be a list of texts"
    if not 0 < len(options) <= _MOST_OPTIONS:
        return f"'options' has {len(options)} texts, expected 1 to {_MOST_OPTIONS}"
    return None
