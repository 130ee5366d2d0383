"""Predictions as CSV: every sample of a run in a row, for spreadsheets and data frames.

A text that a spreadsheet would take for a formula (it begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end, and
is no number) gets an apostrophe in front, as https://owasp.org/www-community/attacks/CSV_Injection advises: outputs are
whatever a model wrote. samples.jsonl has the texts as they are.

It is written when asked for, not by every run: it would add a tenth to the time that scoring takes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from harness.errors import ConfigError
from harness.evaluation.judgements import Verdict
from harness.evaluation.lines import write_atomically
from harness.types import Sample

COLUMNS = ("id", "group", "prompt", "output", "answer", "gold", "score", "status")

#: Text is turned into bytes in blocks of about this many characters.
_BLOCK = 1 << 16

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def write_predictions(
    path: Path, samples: Iterable[Sample], parser: str | None, verdicts: Mapping[str, Verdict]
) -> None:
    """Write the table: the answer and the first score that `parser` gave, or the judge's verdict and score.

    Lone surrogates become U+FFFD. Raises ConfigError for a file that is there already, RunError where it cannot be
    written; nothing is left of it then.
    """
    if path.exists():
        raise ConfigError(f"{path} is there already: delete it, or choose another name")
    write_atomically(path, _blocks(samples, parser, verdicts))


def _blocks(samples: Iterable[Sample], parser: str | None, verdicts: Mapping[str, Verdict]) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for sample in samples:
        writer.writerow(_row(sample, parser, verdicts.get(sample.id)))
        if text.tell() > _BLOCK:
            yield _encoded(text.getvalue())
            text.seek(0)
            text.truncate()
    yield _encoded(text.getvalue())


def _row(sample: Sample, parser: str | None, verdict: Verdict | None) -> tuple[object, ...]:
    answer = sample.answers.get(parser or "")
    scores: Mapping[str, float | None] = sample.scores.get(parser or "", {})
    if verdict is not None:
        answer, scores = verdict.verdict, verdict.scores
    return (
        _cell(sample.id),
        _cell(sample.group),
        _cell(sample.prompt),
        _cell(sample.output),
        _cell(answer),
        _cell(sample.gold),
        next(iter(scores.values()), None),
        sample.status,
    )


def _cell(text: str | None) -> str | None:
    if text is None or not text.startswith(_FORMULA) or _NUMBER.fullmatch(text):
        return text
    return f"'{text}"


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode("utf-8")
