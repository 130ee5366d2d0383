"""The format ``mmlu-pro``: the result files of MMLU-Pro's own evaluation, of API models and of local ones.

A list of questions, or an object of such lists by category; each question with ``question_id``, ``question``,
``options``, ``answer``, the letter ``pred`` that the authors' script read, and the output under ``generated_text`` or
``model_outputs``. Where the script read nothing it guesses when it adds up its accuracy; here that counts as wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from harness.datasets import read_json_file
from harness.errors import DataError
from harness.formats.beginnings import first_record
from harness.formats.values import identifier_of, text_of
from harness.hookspecs import hookimpl
from harness.interfaces import Format
from harness.types import RecordedOutput, Recording

_OUTPUT = ("generated_text", "model_outputs")


class _Question(msgspec.Struct):
    """What is needed of a question in the file."""

    question_id: Any
    question: Any
    options: Any
    answer: Any
    pred: Any


_NEEDED = _Question.__struct_fields__


@dataclass(frozen=True)
class MmluProFormat:
    """The format; it has no options."""

    name: ClassVar[str] = "mmlu-pro"

    def recognises(self, path: Path, start: bytes) -> bool:
        """Whether the first question has what MMLU-Pro's own files have."""
        first = first_record(start)
        return all(name in first for name in _NEEDED) and any(name in first for name in _OUTPUT)

    def read(self, path: Path) -> Recording:
        """Return the outputs of a file; DataError, naming the question, for one that is cut off or of another form."""
        content = read_json_file(path)
        lists = content if isinstance(content, dict) else {"": content}
        outputs = []
        for category, questions in lists.items():
            if not isinstance(questions, list):
                raise DataError(f"{path}: neither a list of questions nor lists of them by category")
            for number, question in enumerate(questions, start=1):
                place = f"{path}, {f'{category!r}, ' if category else ''}item {number}"
                outputs.append(_output(question, place))
        return Recording("MMLU-Pro's evaluation", outputs)


def _output(question: Any, place: str) -> RecordedOutput:
    """Return one question's output; DataError where it lacks something."""
    if not isinstance(question, dict):
        raise DataError(f"{place}: not an object in braces")
    missing = [name for name in _NEEDED if name not in question]
    if missing:
        there = ", ".join(map(repr, question)) or "nothing"
        raise DataError(f"{place}: no {', '.join(map(repr, missing))} there, only {there}")
    output = next((question[name] for name in _OUTPUT if question.get(name) is not None), None)
    if isinstance(output, list) and len(output) == 1:  # as vLLM's outputs were once written
        [output] = output
    try:
        told = msgspec.convert(question, _Question)
        return RecordedOutput(
            place=place,
            output=text_of(output, "generated_text"),
            id=identifier_of(told.question_id),
            question=text_of(told.question),
            options=tuple(map(str, told.options)) if isinstance(told.options, list) else None,
            answer=text_of(told.pred),
            scores={"accuracy": float(told.pred is not None and told.pred == told.answer)},
        )
    except ValueError as error:
        raise DataError(f"{place}: {error}") from None


@hookimpl
def harness_formats() -> Iterable[Format]:
    """Provide ``mmlu-pro``."""
    return [MmluProFormat()]
