"""The format ``rows``: JSON, JSON Lines, CSV and Parquet with one output a row, under names that the user may give.

harness import answers.csv --benchmark gsm8k --map output=generated_text --map id=question_id
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness.datasets import Row, Rows, read_rows
from harness.errors import ConfigError, DataError
from harness.formats.values import identifier_of, number_of, text_of, whole_of
from harness.hookspecs import hookimpl
from harness.interfaces import Format
from harness.types import RecordedOutput, Recording

_USUAL_OUTPUT = ("output", "text", "completion", "response")

#: The names under which rows usually have what no option names; the first that the first row has counts.
_USUAL: Mapping[str, tuple[str, ...]] = {
    "output": _USUAL_OUTPUT,
    "id": ("id",),
    "question": ("question", "instruction"),
    "options": ("options",),
    "prompt": ("prompt",),
    "finish_reason": ("finish_reason",),
    "prompt_tokens": ("prompt_tokens",),
    "completion_tokens": ("completion_tokens",),
    "model": ("model", "generator"),
}

_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class RowsFormat:
    """The format; its options are the names of the fields that hold what an output comes with, ``--map NAME=FIELD``.

    `answer` and `score` (0 to 1) are what the source read in the output and gave for it. Without a name the usual one
    is looked for; a file need not have more than outputs and something to find their questions by.
    """

    name: ClassVar[str] = "rows"

    output: str | None = None
    id: str | None = None
    question: str | None = None
    options: str | None = None
    prompt: str | None = None
    answer: str | None = None
    score: str | None = None
    finish_reason: str | None = None
    prompt_tokens: str | None = None
    completion_tokens: str | None = None
    model: str | None = None

    def recognises(self, path: Path, start: bytes) -> bool:
        """Whether the file's name has a suffix of rows."""
        name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
        return name.endswith(_SUFFIXES)

    def read(self, path: Path) -> Recording:
        """Return the outputs of a file. Raises DataError for a file that is damaged, and for rows without an output."""
        rows = read_rows(path)
        names = self._found(rows)
        fields = {what: name for what, name in dataclasses.asdict(names).items() if name is not None}
        settings = {"fields": {what: name for what, name in fields.items() if what != "model"}}
        model = text_of(_value(rows[0], names.model))
        return Recording("unknown", _Outputs(rows, names), model=model, settings=settings)

    def _found(self, rows: Rows) -> RowsFormat:
        """Return these names with the usual ones found; ConfigError, naming the fields there, for one not there."""
        first, there = rows[0], ", ".join(map(repr, rows[0]))
        given = {what: name for what, name in dataclasses.asdict(self).items() if name is not None}
        for what, name in given.items():
            if name not in first:
                raise ConfigError(f"--map {what}={name}: {rows.place(0)} has no {name!r}, only {there}")
        usual = {what: next((name for name in names if name in first), None) for what, names in _USUAL.items()}
        found = RowsFormat(**{**usual, **given})
        if found.output is None:
            expected = ", ".join(map(repr, _USUAL_OUTPUT))
            raise DataError(f"{rows.place(0)}: no output in it ({expected}), only {there}; --map output=FIELD names it")
        return found


class _Outputs(Iterable[RecordedOutput]):
    def __init__(self, rows: Rows, names: RowsFormat) -> None:
        self._rows = rows
        self._names = names

    def __iter__(self) -> Iterator[RecordedOutput]:
        for index, row in enumerate(self._rows):
            try:
                yield from self._outputs(row, index)
            except ValueError as error:
                raise DataError(f"{self._rows.place(index)}: {error}") from None

    def _outputs(self, row: Row, index: int) -> Iterator[RecordedOutput]:
        """Yield the output of a row, or those in a list; what the source read in them is in lists as long, then."""
        names = self._names
        outputs = _value(row, names.output)
        if not isinstance(outputs, list) or not outputs:
            yield self._output(row, index)
            return
        given = [name for name in (names.output, names.answer, names.score) if name is not None]
        lists = {name: row[name] for name in given if row.get(name) is not None}
        for name, values in lists.items():
            if not isinstance(values, list) or len(values) != len(outputs):
                raise ValueError(f"{name!r} must be a list, one for each of {len(outputs)} outputs")
        for repeat in range(len(outputs)):
            one = {name: values[repeat] for name, values in lists.items()}
            yield dataclasses.replace(self._output({**row, **one}, index), repeat=repeat)

    def _output(self, row: Row, index: int) -> RecordedOutput:
        def value(name: str | None) -> Any:
            found = _value(row, name)
            return None if found == "" else found  # CSV has no other way to say nothing

        names = self._names
        score, options, answer = value(names.score), value(names.options), value(names.answer)
        return RecordedOutput(
            place=self._rows.place(index),
            output=text_of(_value(row, names.output), names.output or ""),
            id=identifier_of(value(names.id)),
            question=text_of(value(names.question)),
            options=tuple(map(str, options)) if isinstance(options, list) else None,
            prompt=text_of(value(names.prompt)),
            prompt_tokens=whole_of(value(names.prompt_tokens), "prompt_tokens"),
            completion_tokens=whole_of(value(names.completion_tokens), "completion_tokens"),
            finish_reason=text_of(value(names.finish_reason)),
            answer=None if answer is None else str(answer),
            scores={} if score is None else {"score": number_of(score, names.score or "")},
        )


def _value(row: Row, name: str | None) -> Any:
    return None if name is None else row.get(name)


@hookimpl
def harness_formats() -> Iterable[Format]:
    """Provide ``rows``."""
    return [RowsFormat()]
