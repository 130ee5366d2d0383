"""The engine that replays recorded outputs: ``--engine replay --model outputs.jsonl``.

It reads the samples.jsonl of a run (or the run's folder), the judgements.jsonl of one judge, lines with an ``output``
(or ``text``, ``completion``, ``response``), and JSON arrays in AlpacaEval's form. Outputs are matched by ``id``, and,
of several of one example, by ``repeat``, which counts from 0; where no line has an id, the n-th line answers the
benchmark's n-th example, whichever examples are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness.datasets import Row, Rows, file_sha256, read_rows
from harness.datasets.faults import Faults
from harness.datasets.ids import IdIndex
from harness.errors import DataError, ModelError
from harness.hookspecs import hookimpl
from harness.interfaces import Engine, Tokenizer
from harness.types import Completion, FinishReason, Request, sample_key

#: The names under which files hold an output; the first that a line has counts.
_OUTPUT = ("output", "text", "completion", "response")

#: What a line of a run's samples.jsonl has and other files have not.
_SAMPLE = ("id", "index", "output", "status", "answers")


@dataclass(frozen=True)
class ReplayEngine:
    """Recorded outputs; `model` is the file that holds them."""

    name: ClassVar[str] = "replay"
    applies_chat_template: ClassVar[bool] = False

    def available(self) -> str | None:
        """Return None: this engine needs nothing but the file."""
        return None

    def tokenizer(self, model: str) -> Tokenizer | None:
        """Return None: what was sent to the model is not known."""
        return None

    def identity(self, model: str) -> Mapping[str, Any]:
        """Return the sha256 of the file. Raises DataError where it cannot be read."""
        return {"outputs_sha256": file_sha256(_file(model))}

    def load(self, model: str) -> Recording:
        """Read and check the whole file. Raises DataError, naming the line, for outputs that cannot be used."""
        rows = read_rows(_file(model))
        return Recording(rows, *_index(rows))


class Recording:
    """The outputs in a file, by id where there are `ids`, else by the example's position in the benchmark.

    `last` is the greatest repeat that there is of an example.
    """

    def __init__(self, rows: Rows, ids: IdIndex | None, last: int) -> None:
        self._rows = rows
        self._ids = ids
        self._last = last

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the recorded output of each request, in the order of the requests.

        An id that the file does not have gives a completion with `error`. Raises DataError where outputs without ids
        are too few or plainly belong to other questions, and for more samples than there are of any example.
        """
        for request in requests:
            if request.repeat > self._last:
                held = f"it holds {self._last + 1} of each example at most" if self._ids else "its outputs have no ids"
                raise DataError(f"{self._rows.path}: --samples {request.repeat + 1} and more cannot be had: {held}")
            row = self._by_order(request) if self._ids is None else self._by_id(self._ids, request.id)
            yield _missing(request.id, self._rows) if row is None else _completion(request.id, row)

    def close(self) -> None:
        """Hold nothing but an open file, which is closed with the last reference to it."""

    def _by_id(self, ids: IdIndex, identifier: str) -> Row | None:
        """Return the last row with this id, as a run's journal repeats an example whose first attempt failed."""
        rows = (self._rows[position] for position in reversed(ids.candidates(identifier)))
        return next((row for row in rows if _id(row) == identifier), None)

    def _by_order(self, request: Request) -> Row:
        rows, index = self._rows, request.index
        if index >= len(rows):
            which = (
                f"its {len(rows)} outputs have no ids, so the benchmark's example {index + 1} ({request.id}) has none"
            )
            raise DataError(f"{rows.path}: too few outputs: {which}; give one for each example, or ids")
        row = rows[index]
        asked = row.get("instruction")
        if isinstance(asked, str) and asked.strip() not in request.prompt.text:
            which = f"its instruction is not that of the benchmark's example {index + 1} ({request.id})"
            raise DataError(f"{rows.place(index)}: {which}; outputs without ids must stand in the benchmark's order")
        return row


def _index(rows: Rows) -> tuple[IdIndex | None, int]:
    """Check every row, and return where each id stands, None where no row has one, and the greatest repeat."""
    ids, last = IdIndex(), 0
    faults = Faults(rows.path, rows.unit)
    with_ids, judge = "id" in rows[0], rows[0].get("judge")
    for index, row in enumerate(rows):
        fault = _fault(row, with_ids)
        if fault is None and row.get("judge") != judge:
            fault = f"a reply of the judge {row.get('judge')!r}, and the first is {judge!r}'s; give one's alone"
        if fault is not None:
            _add(faults, rows, index, fault)
        elif with_ids:
            ids.add(_id(row))
            last = max(last, row.get("repeat") or 0)
    faults.check()
    if not with_ids:
        return None, 0
    if not all(name in rows[0] for name in _SAMPLE):
        for first, second in ids.repeated(lambda position: _id(rows[position])):
            if rows[first].get("error") is not None:  # a judge's reply that failed, and was asked for again
                continue
            before = f", after {rows.unit} {rows.line(first)}" if not faults.count else ""
            repeat = f" and the repeat {repeat}" if (repeat := rows[second].get("repeat")) else ""
            _add(faults, rows, second, f"another output with the id {rows[second]['id']!r}{repeat}{before}")
        faults.check()
    return ids, last


def _id(row: Row) -> str:
    """Return the id of the request that a row answers."""
    return sample_key(str(row.get("id")), row.get("repeat") or 0)


def _add(faults: Faults, rows: Rows, index: int, fault: str) -> None:
    """Note a fault; only the first one's line is looked up, since counting lines reads the file."""
    faults.add(rows.line(index) if not faults.count else 0, fault)


def _fault(row: Row, with_id: bool) -> str | None:
    """Return what is wrong with a row, or None. `with_id` is whether the file's first row has an id."""
    name = next((name for name in _OUTPUT if name in row), None)
    if name is None:
        return f"no output in it ({', '.join(map(repr, _OUTPUT))}), only {', '.join(map(repr, row)) or 'nothing'}"
    if not isinstance(row[name], str):
        return f"{name!r} must be text, not {row[name]!r}"
    if ("id" in row) is not with_id:
        has, had = ("no id", "one") if with_id else ("an id", "none")
        return f"it has {has}, and the first has {had}; give all outputs ids, or none"
    identifier = row.get("id")
    if with_id and (not isinstance(identifier, str | int) or isinstance(identifier, bool)):
        return f"'id' must be text or a whole number, not {identifier!r}"
    repeat = row.get("repeat")
    if repeat is not None and (type(repeat) is not int or repeat < 0):
        return f"'repeat' must be a whole number from 0 on, not {repeat!r}"
    if row.get("finish_reason") not in (None, "stop", "length"):
        return f"'finish_reason' must be 'stop' or 'length', not {row['finish_reason']!r}"
    for count in ("prompt_tokens", "completion_tokens"):
        if row.get(count) is not None and (not isinstance(row[count], int) or row[count] < 0):
            return f"{count!r} must be a number of tokens, not {row[count]!r}"
    return None if _are_logprobs(row.get("top_logprobs")) else "'top_logprobs' must be a list of token → number"


def _are_logprobs(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        return False
    return all(isinstance(number, int | float) for each in value for number in each.values())


def _completion(identifier: str, row: Row) -> Completion:
    """Return what a row records. An output without a finish_reason is taken to be whole."""
    failed = row.get("status") == "engine_error" if "status" in row else row.get("error") is not None
    if failed and row.get("finish_reason") is not None:  # there is an output: a parser or a scorer failed on it
        failed = False
    if failed:
        return Completion(identifier, "", None, error=str(row.get("error") or "recorded as failed"))
    text = next(row[name] for name in _OUTPUT if name in row)
    finish: FinishReason = "length" if row.get("finish_reason") == "length" else "stop"
    logprobs = tuple(row.get("top_logprobs") or ())
    prompt, completion = row.get("prompt_tokens"), row.get("completion_tokens")
    return Completion(identifier, text, finish, prompt, completion, top_logprobs=logprobs)


def _missing(identifier: str, rows: Rows) -> Completion:
    such = f"its first of {len(rows)} is {_id(rows[0])!r}"
    return Completion(identifier, "", None, error=f"no output with the id {identifier!r} in {rows.path} ({such})")


def _file(model: str) -> Path:
    path = Path(model)
    if path.is_dir():
        inside = path / "samples.jsonl"
        if not inside.is_file():
            raise ModelError(f"{path}: a folder without samples.jsonl; give the file that holds the outputs")
        return inside
    return path


@hookimpl
def harness_engines() -> Iterable[Engine]:
    """Provide the engine ``replay``."""
    return (ReplayEngine(),)
