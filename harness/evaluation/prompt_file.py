"""Any file of prompts as a benchmark: ``harness run --benchmark prompts.jsonl``, without writing a plugin.

Rows have an instruction and, if they like, an id, a gold answer and a group; all other columns are the example's fields
beside ``instruction``, where parsers and scorers find what they need (``options``, ``reference``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config import configure
from harness.datasets import Mapped, Row
from harness.errors import ConfigError
from harness.interfaces import DataSource, Parser, Run
from harness.registry import Registry
from harness.types import Example, Generation

#: The table of options that all prompt files of a command share.
PROMPTS = "prompts"

#: The names under which a file may hold what is asked, and what is right.
_INSTRUCTION, _GOLD = ("instruction", "prompt", "question"), ("gold", "answer")

_SUFFIXES = re.compile(r"\.(jsonl|json|csv|parquet)(\.(gz|zst))?$", re.IGNORECASE)


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
    which needs no gold answers; a judged one (``safety``) asks a judge.
    """

    parser: tuple[str, ...] = ()
    scorer: str | None = None
    columns: PromptColumns = PromptColumns()
    generation: Generation = field(default_factory=Generation)


def is_prompt_file(name: str) -> bool:
    """Whether a benchmark's name is that of a file: with a suffix of data, or of a path.

    >>> is_prompt_file("red-team.csv.gz"), is_prompt_file("./mine"), is_prompt_file("gsm8k")
    (True, True, False)
    """
    return "/" in name or _SUFFIXES.search(name) is not None


class PromptFile:
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
        self._headline: Parser | None = registry.get("parsers", self.parsers[0]) if self.parsers else None

    def examples(self, source: DataSource) -> Sequence[Example]:
        """Return the rows in the file's order; DataError names the first bad line and counts all."""
        reader = _Reader(self)
        rows = source.named_rows(self.path, check=reader.fault)
        return Mapped(rows, reader.example)

    def instruction(self, example: Example) -> str:
        """Return the instruction as it stands in the file."""
        return str(example.fields["instruction"])

    def exports(self, run: Run) -> Mapping[str, Iterable[Mapping[str, Any]]]:
        """No file that another tool expects."""
        return {}

    def gold(self, given: Any, fields: Mapping[str, Any]) -> str | None:
        """Return a gold answer as the headline parser would give it, so that ``1,234`` equals an output's 1234."""
        text = None if given is None else str(given).strip()
        if not text or self._headline is None:
            return text or None
        return self._headline.parse(text, Example("", fields))


class _Reader:
    """Makes examples of a file's rows, whose columns the first one decides."""

    def __init__(self, benchmark: PromptFile) -> None:
        self._benchmark = benchmark
        self._columns: dict[str, str] = {}

    def example(self, index: int, row: Row) -> Example:
        """Return the example of a row that has no fault."""
        columns = self._columns
        fields = self._fields(row)
        group, gold = row.get(columns["group"]), row.get(columns["gold"])
        identifier = row.get(columns["id"], f"{self._benchmark.name}-{index:04d}")
        return Example(
            str(identifier),
            fields,
            self._benchmark.gold(gold, fields),
            None if group in (None, "") else str(group),
        )

    def _fields(self, row: Row) -> dict[str, Any]:
        own = set(self._columns.values())
        rest = {name: value for name, value in row.items() if name not in own and name != "instruction"}
        return {"instruction": row[self._columns["instruction"]], **rest}

    def fault(self, row: Row) -> str | None:
        """Return what is wrong with a row, or None."""
        if not self._columns:
            self._columns = _columns(self._benchmark.options.columns, row)
        columns = self._columns
        instruction, identifier = row.get(columns["instruction"]), row.get(columns["id"])
        if not isinstance(instruction, str) or not instruction.strip():
            there = ", ".join(map(repr, row)) or "nothing"
            usual = self._benchmark.options.columns.instruction is None and columns["instruction"] not in row
            asked = " or ".join(map(repr, _INSTRUCTION if usual else (columns["instruction"],)))
            return f"no text under {asked}, only {there}; or name its column: --set {PROMPTS}.columns.instruction=NAME"
        if columns["id"] in row and (
            isinstance(identifier, bool) or not isinstance(identifier, str | int) or identifier == ""
        ):
            return f"{columns['id']!r} must be text or a whole number, not {identifier!r}"
        return self._gold_fault(row) or self._fields_fault(row)

    def _gold_fault(self, row: Row) -> str | None:
        benchmark, given = self._benchmark, row.get(self._columns["gold"])
        if isinstance(given, Mapping | list | bool):
            return f"the gold answer must be text or a number, not {given!r}"
        if given not in (None, "") and not benchmark.parsers and benchmark.options.scorer is None:
            raise ConfigError(
                f"{benchmark.path} has gold answers ({self._columns['gold']!r}): say how outputs are read "
                f"(--set {PROMPTS}.parser=final-number; `harness plugins` lists parsers), or that nothing is to be "
                f"compared with them (--set {PROMPTS}.scorer=answered)"
            )
        if benchmark.scorer == "exact" and benchmark.gold(given, self._fields(row)) is None:
            if given in (None, ""):
                return f"no gold answer there, and the scorer 'exact' needs one; or --set {PROMPTS}.scorer=answered"
            return f"the gold answer {given!r} is none that the parser {benchmark.parsers[0]!r} reads"
        return None

    def _fields_fault(self, row: Row) -> str | None:
        fields = self._fields(row)
        options = fields.get("options")
        if "choice" in self._benchmark.parsers and options is not None:
            if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
                return "'options' must be a list of texts for the parser 'choice'"
            if not 0 < len(options) <= 26:
                return f"'options' has {len(options)} texts, expected 1 to 26"
        try:
            json.dumps(fields)
        except (TypeError, ValueError) as error:
            return f"a column holds what JSON has no form for ({error}); leave it out"
        return None


def _columns(named: PromptColumns, row: Row) -> dict[str, str]:
    """Return the names of the file's columns by what they hold."""

    def usual(names: Sequence[str]) -> str:
        return next((name for name in names if name in row), names[0])

    return {
        "instruction": named.instruction or usual(_INSTRUCTION),
        "id": named.id,
        "gold": named.gold or usual(_GOLD),
        "group": named.group,
    }
