"""Predictions as CSV: every sample of a run in a row, for spreadsheets and data frames.

A text that a spreadsheet would take for a formula (it begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end, and
is no number) gets an apostrophe in front, as https://owasp.org/www-community/attacks/CSV_Injection advises: outputs are
whatever a model wrote. For the same reason control characters and those that turn the direction of a line around are
written as escapes (``\\x1b``, ``\\u202e``) unless they are asked for. samples.jsonl has the texts as they are.

It is written when asked for, not by every run: it would add a tenth to the time that scoring takes.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from harness.runs.judgements import Verdict
from harness.types import Sample

#: The columns of every table, before and after those of the input's own fields.
BEFORE, AFTER = ("id", "group", "instruction"), ("prompt", "output", "answer", "gold", "score", "reference", "status")

#: Text is turned into bytes in blocks of about this many characters.
_BLOCK = 1 << 16

_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROL = (*range(9), 11, 12, *range(14, 32), *range(127, 160))
_ESCAPED = {n: f"\\x{n:02x}" for n in _CONTROL} | {n: f"\\u{n:04x}" for n in _BIDI}

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def predictions(
    samples: Iterable[Sample],
    fields: Sequence[str],
    asked: Callable[[Sample], str],
    parser: str | None,
    verdicts: Mapping[str, Verdict],
    *,
    several: bool = False,
    raw: bool = False,
) -> Iterator[bytes]:
    """Yield the table: what was `asked`, the answer and the first score that `parser` gave, or the judge's verdict's.

    `fields` are the names of the input's own fields, a column each (``input.NAME`` where the table has a NAME of its
    own); what is no text is JSON there. The reference is what a judge compared the output with. With `several`
    samples an example there is a column ``repeat`` behind the id. Lone surrogates become U+FFFD; `raw` keeps control
    characters.
    """
    before = (BEFORE[0], *(["repeat"] if several else []), *BEFORE[1:])
    escaped = {} if raw else _ESCAPED
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*before, *(_head(name, (*before, *AFTER)) for name in fields), *AFTER])
    for sample in samples:
        identifier, *rest = _row(sample, fields, asked(sample), parser, verdicts.get(sample.key))
        writer.writerow([identifier, *([sample.repeat] if several else []), *rest])
        if text.tell() > _BLOCK:
            yield _encoded(text.getvalue().translate(escaped))
            text.seek(0)
            text.truncate()
    yield _encoded(text.getvalue().translate(escaped))


def _head(name: str, taken: Sequence[str]) -> str | None:
    return _cell(f"input.{name}" if name in taken else name)


def _row(
    sample: Sample, fields: Sequence[str], asked: str, parser: str | None, verdict: Verdict | None
) -> tuple[object, ...]:
    answer = sample.answers.get(parser or "")
    scores: Mapping[str, float | None] = sample.scores.get(parser or "", {})
    if verdict is not None:
        answer, scores = verdict.verdict, verdict.scores
    return (
        _cell(sample.id),
        _cell(sample.group),
        _cell(asked),
        *(_field(sample.fields.get(name)) for name in fields),
        _cell(sample.prompt),
        _cell(sample.output),
        _cell(answer),
        _cell(sample.gold),
        next(iter(scores.values()), None),
        _cell(None if verdict is None else verdict.against),
        sample.status,
    )


def _field(value: object) -> str | None:
    return _cell(value) if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cell(text: str | None) -> str | None:
    if text is None or not text.startswith(_FORMULA) or _NUMBER.fullmatch(text):
        return text
    return f"'{text}"


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode("utf-8")
