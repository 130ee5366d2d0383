"""Any file of prompts as a benchmark: ``harness run --benchmark prompts.jsonl``, without writing a plugin.

Rows have an instruction and, if they like, an id, a gold answer and a group; all other columns are the example's fields
beside ``instruction``, where parsers and scorers find what they need (``options``, ``reference``). A column ``system``
holds a system message for each. In the place of an instruction there may be messages, whose last one is asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from harness.calls import messages_of
from harness.config import configure
from harness.datasets import Mapped, Row
from harness.errors import ConfigError, DataError
from harness.interfaces import BaseBenchmark, DataSource, Parser
from harness.prompts import Shot, ShotsAs, system_text, with_shots
from harness.registry import Registry
from harness.types import Choices, Example, Generation, Message

#: The table of options that all prompt files of a command share.
PROMPTS = "prompts"

#: The names under which a file may hold what is asked, and what is right.
_INSTRUCTION, _GOLD = ("instruction", "prompt", "question", "messages"), ("gold", "answer")

#: Other names that such columns often have, without case and signs, the likeliest first.
_LIKELY_INSTRUCTION = (
    "instructions",
    "questions",
    "query",
    "problem",
    "task",
    "input",
    "text",
    "promptText",
    "content",
)
_LIKELY_GOLD = (
    "answerkey",
    "goldanswer",
    "correctanswer",
    "finalanswer",
    "answers",
    "target",
    "label",
    "solution",
    "expected",
)

#: The beginnings of the names of parsers that make use of options.
_OF_OPTIONS = ("choice", "loglikelihood")

_SUFFIXES = re.compile(r"\.(jsonl|ndjson|json|csv|tsv|parquet)(\.(gz|zst))?$", re.IGNORECASE)


@dataclass(frozen=True)
class PromptColumns:
    """Names of columns where they are not the usual ones; None: the first usual one that the first row has."""

    instruction: str | None = None
    id: str = "id"
    gold: str | None = None
    group: str = "group"


@dataclass(frozen=True)
class PromptOptions:
    """How a file of prompts is read, asked and scored.

    `parser` names the parsers, the headline first. `scorer` is by default ``exact`` with a parser, else ``answered``,
    which needs no gold answers; a judged one (``safety``) asks a judge. `system` is a system message, or a file of one,
    for rows without their own. Where the likeliest of a row's `options` is read, `continuation` is what each is asked
    for by: its ``letter``, or the ``option`` itself. `shots` is the number of worked examples, the first rows of the
    file `dev` with their gold answers as they stand there, before what is asked in one text or as turns (`shots_as`).
    """

    parser: tuple[str, ...] = ()
    scorer: str | None = None
    system: str | None = None
    continuation: Literal["letter", "option"] = "letter"
    shots: int = 0
    shots_as: ShotsAs = "text"
    dev: str | None = None
    columns: PromptColumns = PromptColumns()
    generation: Generation = field(default_factory=Generation)


@dataclass(frozen=True)
class _Columns:
    """The names of a file's columns by what they hold."""

    instruction: str
    id: str
    gold: str
    group: str


def is_prompt_file(name: str) -> bool:
    """Whether a benchmark's name is that of a file: with a suffix of data, or of a path.

    >>> is_prompt_file("red-team.csv.gz"), is_prompt_file("./mine"), is_prompt_file("gsm8k")
    (True, True, False)
    """
    return "/" in name or _SUFFIXES.search(name) is not None


class PromptFile(BaseBenchmark):
    """The benchmark in the file at `path`; `tables` hold the options of a command.

    It is no dataclass, as the path is none of its options: what is asked defines a run, not where it lies.
    """

    citation = "a file of prompts"

    def __init__(self, path: str, tables: Mapping[str, Any], registry: Registry) -> None:
        table = tables.get(PROMPTS, {})
        if not isinstance(table, Mapping):
            raise ConfigError(f"options of prompt files are given as {PROMPTS}.OPTION=VALUE, not {PROMPTS}={table}")
        self.path = path
        self.options = configure(PromptOptions(), table, PROMPTS)
        self.title = Path(path).name
        self.name = re.sub(r"[^\w.+-]+", "-", _SUFFIXES.sub("", self.title)).strip(".-") or PROMPTS
        self.generation = self.options.generation
        self.parsers = self.options.parser
        self.scorer = self.options.scorer or ("exact" if self.parsers else "answered")
        if self.scorer == "exact" and not self.parsers:
            raise ConfigError(f"the scorer 'exact' compares what a parser finds: --set {PROMPTS}.parser=final-number")
        self._headline: Parser | None = registry.parser(self.parsers[0]) if self.parsers else None

    def examples(self, source: DataSource) -> Sequence[Example]:
        """Return the rows in the file's order; DataError names the first bad line and counts all."""
        shots = self._shots(source)
        reader = _Reader(self, shots)
        rows = source.named_rows(self.path, check=reader.fault)
        return Mapped(rows, reader.example)

    def _shots(self, source: DataSource) -> list[dict[str, str]]:
        """Return the worked examples; DataError for a file that has too few with a gold answer."""
        count, path = self.options.shots, self.options.dev
        if not count:
            return []
        if path is None or count < 0:
            what = f"{PROMPTS}.shots {count}"
            raise ConfigError(f"{what}: worked examples are the first rows of a file, --set {PROMPTS}.dev=FILE")
        reader = _Reader(self, [])
        rows = source.named_rows(path, check=reader.worked_fault)
        if len(rows) < count:
            raise DataError(f"{path}: {len(rows)} rows, fewer than the {count} worked examples asked for")
        return [reader.worked(rows[number]) for number in range(count)]

    def instruction(self, example: Example) -> str | tuple[Message, ...]:
        """Return the instruction or the messages as they stand in the file, behind worked examples if any."""
        fields = example.fields
        if messages := fields.get("messages"):
            return messages_of(messages)
        shots = [Shot(**shot) for shot in fields.get("shots", ())] if self.options.shots else []
        return with_shots("", shots, str(fields["instruction"]), self.options.shots_as)

    def system(self, example: Example) -> str | None:
        """Return the system message of a row, or that of the options."""
        own, given = example.fields.get("system"), self.options.system
        return own or (None if given is None else system_text(given))

    def choices(self, example: Example) -> Choices:
        """Return the letters of a row's options, and what stands for each behind the prompt."""
        options = example.fields.get("options") or ()
        letters = ascii_uppercase[: len(options)]
        return Choices(dict(zip(letters, letters if self.options.continuation == "letter" else options, strict=True)))

    def gold(self, given: Any, fields: Mapping[str, Any]) -> str | None:
        """Return a gold answer as the headline parser would give it, so that ``1,234`` equals an output's 1234."""
        text = None if given is None else str(given).strip()
        if not text or self._headline is None:
            return text or None
        return self._headline.parse(text, Example("", fields))


class _Reader:
    """Makes examples of a file's rows, whose columns the first one decides."""

    def __init__(self, benchmark: PromptFile, shots: Sequence[Mapping[str, str]]) -> None:
        self._benchmark = benchmark
        self._shots = list(shots)
        self._found: _Columns | None = None

    def example(self, index: int, row: Row) -> Example:
        """Return the example of a row that has no fault."""
        columns, fields = self._columns(row), self._fields(row)
        group, gold = row.get(columns.group), row.get(columns.gold)
        identifier = row.get(columns.id, f"{self._benchmark.name}-{index:04d}")
        return Example(
            str(identifier),
            fields,
            self._benchmark.gold(gold, fields),
            None if group in (None, "") else str(group),
        )

    def _columns(self, row: Row) -> _Columns:
        if self._found is None:
            self._found = _columns(self._benchmark.options.columns, row)
        return self._found

    def _fields(self, row: Row) -> dict[str, Any]:
        columns = self._columns(row)
        own = {"instruction", "messages", columns.instruction, columns.id, columns.gold, columns.group}
        fields = {name: row[name] for name in row if name not in own}
        asked = row[columns.instruction]
        if isinstance(asked, list):
            return {"instruction": messages_of(asked)[-1].content, "messages": asked, **fields}
        return {"instruction": asked, **fields, **({"shots": self._shots} if self._shots else {})}

    def worked(self, row: Row) -> dict[str, str]:
        """Return a row that has no fault as a worked example."""
        columns = self._columns(row)
        return {"question": row[columns.instruction], "answer": str(row[columns.gold])}

    def worked_fault(self, row: Row) -> str | None:
        """Return what is wrong with a row as a worked example, or None."""
        columns = self._columns(row)
        if isinstance(row.get(columns.instruction), list):
            return "a worked example is asked in one text, not in messages"
        if row.get(columns.gold) in (None, ""):
            return f"a worked example has its answer in {columns.gold!r}, and there is none"
        return self.fault(row)

    def _messages_fault(self, messages: list[Any]) -> str | None:
        if self._shots:
            return f"messages have their turns already; leave {PROMPTS}.shots out"
        try:
            messages_of(messages)
        except ValueError as error:
            return str(error)
        return None

    def fault(self, row: Row) -> str | None:
        """Return what is wrong with a row, or None."""
        columns = self._columns(row)
        instruction, identifier = row.get(columns.instruction), row.get(columns.id)
        if isinstance(instruction, list):
            if (problem := self._messages_fault(instruction)) is not None:
                return problem
        elif not isinstance(instruction, str) or not instruction.strip():
            there = ", ".join(map(repr, row)) or "nothing"
            likely = _likely(row, _LIKELY_INSTRUCTION) or "NAME"
            usual = self._benchmark.options.columns.instruction is None and columns.instruction not in row
            asked = " or ".join(map(repr, _INSTRUCTION if usual else (columns.instruction,)))
            return (
                f"no text under {asked}, only {there}; or name its column: --set {PROMPTS}.columns.instruction={likely}"
            )
        if columns.id in row and (
            isinstance(identifier, bool) or not isinstance(identifier, str | int) or identifier == ""
        ):
            return f"{columns.id!r} must be text or a whole number, not {identifier!r}"
        return self._gold_fault(row) or self._fields_fault(row)

    def _gold_fault(self, row: Row) -> str | None:
        benchmark, column = self._benchmark, self._columns(row).gold
        given = row.get(column)
        if isinstance(given, Mapping | list | bool):
            return f"the gold answer must be text or a number, not {given!r}"
        if given not in (None, "") and not benchmark.parsers and benchmark.options.scorer is None:
            raise ConfigError(
                f"{benchmark.path} has gold answers ({column!r}): say how outputs are read "
                f"(--set {PROMPTS}.parser=final-number; `harness plugins` lists parsers), or that nothing is to be "
                f"compared with them (--set {PROMPTS}.scorer=answered)"
            )
        if benchmark.scorer == "exact" and benchmark.gold(given, self._fields(row)) is None:
            if given in (None, ""):
                likely = None if column in row else _likely(row, _LIKELY_GOLD)
                named = f"; if it is {likely!r}: --set {PROMPTS}.columns.gold={likely}" if likely else ""
                return (
                    f"no gold answer there, and the scorer 'exact' needs one{named}; or --set {PROMPTS}.scorer=answered"
                )
            return f"the gold answer {given!r} is none that the parser {benchmark.parsers[0]!r} reads"
        return None

    def _fields_fault(self, row: Row) -> str | None:
        fields = self._fields(row)
        options = fields.get("options")
        reader = next((name for name in self._benchmark.parsers if name.startswith(_OF_OPTIONS)), None)
        if reader is not None and options is not None:
            if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
                return f"'options' must be a list of texts for the parser {reader!r}"
            if not 0 < len(options) <= 26:
                return f"'options' has {len(options)} texts, expected 1 to 26"
        if not isinstance(fields.get("system"), str | None):
            return f"'system' must be text, not {fields['system']!r}"
        try:
            json.dumps(fields)
        except (TypeError, ValueError) as error:
            return f"a column holds what JSON has no form for ({error}); leave it out"
        return None


def _likely(row: Row, names: Sequence[str]) -> str | None:
    """Return the column of a row whose name, whatever its case and signs, is the first of `names` that there is."""
    plain = {re.sub(r"[^a-z]", "", name.lower()): name for name in row}
    return next((plain[name] for name in names if name in plain), None)


def _columns(named: PromptColumns, row: Row) -> _Columns:
    """Return the names of the columns of a file whose first row this is."""

    def usual(names: Sequence[str]) -> str:
        return next((name for name in names if name in row), names[0])

    return _Columns(named.instruction or usual(_INSTRUCTION), named.id, named.gold or usual(_GOLD), named.group)
