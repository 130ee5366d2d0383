"""The format ``lm-eval``: the ``samples_TASK_DATE.jsonl`` of lm-evaluation-harness, written with ``--log_samples``.

A line is a document with what a filter made of the model's output; where a task has several filters, each document has
a line for each. The ``results_DATE.json`` beside it says which model it was, and which version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from harness.datasets import Row, Rows, read_rows
from harness.errors import DataError, nearest
from harness.files import read_json
from harness.formats.beginnings import first_record
from harness.formats.values import identifier_of, number_of
from harness.hookspecs import hookimpl
from harness.interfaces import Format
from harness.types import RecordedOutput, Recording


class _Line(msgspec.Struct):
    """What is needed of a line: a document with the model's outputs and what a filter left of them."""

    doc_id: Any
    doc: Any
    resps: Any
    filtered_resps: Any
    filter: str | None = None
    metrics: Sequence[str] | None = None
    arguments: dict[str, Any] | list[Any] | None = None


_NEEDED = ("doc_id", "doc", "resps", "filtered_resps")

#: Fields of a document that hold the question alone, and its options.
_QUESTION, _OPTIONS = ("question", "instruction", "problem", "prompt"), ("options", "choices")


@dataclass(frozen=True)
class LmEvalFormat:
    """The format; `filter` is the one whose answers and scores are kept beside ours, by default the file's first."""

    name: ClassVar[str] = "lm-eval"

    filter: str | None = None

    def recognises(self, path: Path, start: bytes) -> bool:
        """Whether the first line has what every line of such a file has."""
        return all(name in first_record(start) for name in _NEEDED)

    def read(self, path: Path) -> Recording:
        """Return the outputs of a file; DataError for one of log-likelihoods, in which there are none."""
        rows = read_rows(path, required=_NEEDED, check=_fault)
        first = msgspec.convert(rows[0], _Line)
        chosen = self._filter(rows, first.filter)
        results = _results(path)
        model = results.get("model_name") or path.parent.name or None
        version = results.get("lm_eval_version")
        settings = {"filter": chosen, **({"generation": sent} if (sent := _arguments(first)[1]) else {})}
        task = path.name.removeprefix("samples_").removesuffix(".jsonl").rpartition("_")[0]
        return Recording(
            "lm-eval",
            _Outputs(rows, chosen),
            None if version is None else str(version),
            None if model is None else str(model),
            {"task": task, **settings} if task else settings,
        )

    def _filter(self, rows: Rows, first: str | None) -> str | None:
        if self.filter is None:
            return first
        there = list(dict.fromkeys(str(row.get("filter")) for row in rows))
        if self.filter not in there:
            raise DataError(f"{rows.path}: no line has the filter {self.filter!r}{nearest(self.filter, there)}")
        return self.filter


class _Outputs(Iterable[RecordedOutput]):
    def __init__(self, rows: Rows, chosen: str | None) -> None:
        self._rows = rows
        self._chosen = chosen

    def __iter__(self) -> Iterator[RecordedOutput]:
        for index, row in enumerate(self._rows):
            if row.get("filter") == self._chosen:
                try:
                    yield from _outputs(row, self._rows.place(index))
                except ValueError as error:
                    raise DataError(f"{self._rows.place(index)}: {error}") from None


def _outputs(row: Row, place: str) -> Iterator[RecordedOutput]:
    """Yield each repeat of a document; the answer that the filter left belongs to the first alone."""
    line = msgspec.convert(row, _Line)
    doc, [responses] = line.doc, line.resps
    question = next((doc[name] for name in _QUESTION if isinstance(doc.get(name), str)), None)
    options = next((doc[name] for name in _OPTIONS if _are_texts(doc.get(name))), None)
    names = line.metrics or ()
    scores = {
        name: number_of(row[name], name) for name in names if isinstance(row.get(name), int | float) and row[name] <= 1
    }
    filtered = line.filtered_resps
    said = filtered[0] if isinstance(filtered, list) and filtered else None
    for repeat, response in enumerate(responses):
        yield RecordedOutput(
            place=place,
            output=response,
            id=identifier_of(line.doc_id),
            question=question,
            options=None if options is None else tuple(options),
            prompt=_arguments(line)[0],
            answer=said if isinstance(said, str) and not repeat else None,
            scores={} if repeat else scores,
            repeat=repeat,
        )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _arguments(line: _Line) -> tuple[str | None, Mapping[str, Any] | None]:
    """Return the prompt and the sampling of a document, in the newer form of objects or the older one of lists."""
    sent = line.arguments
    first = next(iter(sent.values()), None) if isinstance(sent, Mapping) else sent[0] if sent else None
    values = [*first.values()] if isinstance(first, Mapping) else list(first) if isinstance(first, list) else []
    prompt = values[0] if values and isinstance(values[0], str) else None
    return prompt, values[1] if len(values) > 1 and isinstance(values[1], Mapping) else None


def _fault(row: Row) -> str | None:
    """Return what is wrong with a line, or None."""
    try:
        line = msgspec.convert(row, _Line)
    except ValueError as error:  # of msgspec, for a key that is no UTF-8 too
        return f"not as lm-eval writes it ({error})"
    if not isinstance(line.doc, Mapping):
        return f"'doc' must be an object, not {type(line.doc).__name__}"
    responses = line.resps
    if not isinstance(responses, list) or len(responses) != 1 or not isinstance(responses[0], list):
        return "a task of log-likelihoods: no output was generated, so there is nothing to read"
    if not responses[0] or not all(isinstance(each, str) for each in responses[0]):
        return "'resps' holds no generated text; only tasks that generate text (generate_until) have outputs"
    return None


def _results(path: Path) -> Mapping[str, Any]:
    """Return what the results of the same evaluation say, or nothing."""
    date = path.name.removesuffix(".jsonl").rpartition("_")[2]
    try:
        found = read_json(path.parent / f"results_{date}.json")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@hookimpl
def harness_formats() -> Iterable[Format]:
    """Provide ``lm-eval``."""
    return [LmEvalFormat()]
