"""Samples of one run, or of two side by side, for a terminal, as Markdown, or as JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.reports.samples import (
    answered,
    block,
    facts_of,
    kinds_of,
    likelihoods,
    on_one_line,
    printable,
    prompt_of,
)
from harness.runs.judgements import Verdict
from harness.types import SCORED, Sample

if TYPE_CHECKING:
    from rich.console import Console

_BAR = "  │ "

#: Characters between two columns.
_GAP = 2

#: Two runs stand side by side from this width on, in characters; below it, one under the other.
_SIDE_BY_SIDE = 80


@dataclass(frozen=True)
class Shown:
    """One sample as a run has it: the run's label, its parsers, and what its judge said.

    `instruction` is what was asked, to be shown in the place of the whole prompt where that is known; None shows it.
    """

    label: str
    sample: Sample
    parsers: Sequence[str]
    verdict: Verdict | None = None
    instruction: str | None = None

    @property
    def asked(self) -> tuple[str, str]:
        """What is shown of what was asked: its heading and its text."""
        if self.instruction is not None and self.sample.prompt:
            return "instruction", self.instruction
        text, sent = prompt_of(self.sample)
        return "prompt" if sent else "question (the prompt is not known)", text

    @property
    def facts(self) -> str:
        """Whether it is wrong, or its status, and what else is to be said of it on one line."""
        return ", ".join(facts_of(self.sample, self.kinds))

    @property
    def kinds(self) -> set[str]:
        """What is wrong with the sample, and its verdict."""
        return kinds_of(self.sample, self.parsers[0] if self.parsers else None, self.verdict)


def print_entry(shown: Sequence[Shown], console: Console) -> None:
    """Print the same example as one or two runs have it, its parts in colour where there are colours."""
    first = shown[0]
    if len(shown) == 1:
        _print("\n".join([*_common(shown), *_own(shown, first)]), console)
    else:
        _print("\n".join(_common(shown)), console)
        if console.width >= _SIDE_BY_SIDE:
            _print_columns(shown, console)
        else:
            for each in shown:
                _print("\n".join([_heading(each), *_own(shown, each)]), console)
    console.print()


def _common(shown: Sequence[Shown]) -> Iterator[str]:
    """Yield what one run, or two in common, have of an example."""
    sample = shown[0].sample
    facts = ", ".join([*([sample.group] if sample.group else []), *([shown[0].facts] if len(shown) == 1 else [])])
    yield f"── {on_one_line(sample.key)}{f' ({on_one_line(facts)})' if facts else ''}"
    if len({each.asked for each in shown}) == 1:
        yield block(*shown[0].asked)
    if sample.gold is not None:
        yield f"  gold: {on_one_line(sample.gold)}"


def _own(shown: Sequence[Shown], each: Shown) -> Iterator[str]:
    """Yield what each run has of its own."""
    if len({each.asked for each in shown}) > 1:
        yield block(*each.asked)
    yield from answered(each.sample, each.parsers, each.verdict)


def _heading(each: Shown) -> str:
    return f"  ── {on_one_line(each.label)}: {each.facts}"


def _print(text: str, console: Console) -> None:
    console.print(_coloured(text), soft_wrap=True)


def _print_columns(shown: Sequence[Shown], console: Console) -> None:
    from rich.table import Table

    width = (console.width - _GAP * (len(shown) - 1)) // len(shown)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=False)
    for _ in shown:
        table.add_column(width=width, overflow="fold")
    columns = ("\n".join([_heading(each), *_own(shown, each)]) for each in shown)
    table.add_row(*(_coloured(_broken(column, width, console)) for column in columns))
    console.print(table)


def _broken(text: str, width: int, console: Console) -> str:
    """Break the lines of blocks at `width`, each piece behind a bar of its own."""
    from rich.text import Text

    lines = []
    for line in text.split("\n"):
        if line.startswith(_BAR):
            pieces = Text(line.removeprefix(_BAR)).wrap(console, width - len(_BAR))
            lines += [f"{_BAR}{piece.plain.rstrip()}" for piece in pieces or [Text("")]]
        else:
            lines.append(line)
    return "\n".join(lines)


def _coloured(text: str) -> Any:
    """Return text for a console: headings strong, prompts and bars quiet."""
    from rich.text import Text

    found = Text(text, overflow="fold")
    found.highlight_regex(r"(?m)^ *──.*$", "bold")
    found.highlight_regex(r"(?m)^  │ ", "dim")
    found.highlight_regex(r"(?m)^  (gold|verdict): .*$", "cyan")
    return found


def as_markdown(shown: Sequence[Shown]) -> str:
    """Return the same as Markdown, texts in fences that nothing in them can close."""
    sample = shown[0].sample
    alike = len({each.asked for each in shown}) == 1
    parts = [f"### {_code(sample.key)}{f' · {_code(sample.group)}' if sample.group else ''}"]
    if alike:
        parts += _asked(shown[0])
    if sample.gold is not None:
        parts.append(f"Gold: {_code(sample.gold)}")
    for each in shown:
        parts.append(f"**{_code(each.label)}** ({each.facts})")
        if not alike:
            parts += _asked(each)
        parts += list(_answers(each))
    return "\n\n".join(parts)


def _asked(shown: Shown) -> list[str]:
    heading, text = shown.asked
    return [heading.capitalize(), _fenced(text)]


def _answers(shown: Shown) -> Iterator[str]:
    sample, verdict = shown.sample, shown.verdict
    if sample.error is not None or sample.finish_reason != SCORED:
        yield _fenced(sample.output) if sample.error is None else f"Error: {_code(sample.error)}"
    if sample.likelihoods:
        yield f"Log-likelihood\n\n{_fenced(likelihoods(sample))}"
    for parser in shown.parsers:
        answer = sample.answers.get(parser)
        yield f"- {parser}: {'no answer' if answer is None else _code(answer)}"
    if sample.source is not None:
        said = sample.source.answer
        yield f"- the source: {'no answer' if said is None else _code(said)}"
    if verdict is not None:
        if verdict.against is not None:
            yield f"Reference\n\n{_fenced(verdict.against)}"
        for question, reply in verdict.replies.items():
            yield f"Judge ({question})\n\n{_fenced(reply)}"
        yield f"Verdict: {verdict.verdict}"


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{printable(text)}\n{fence}"


def _code(text: str) -> str:
    """Return text on one line that Markdown leaves as it is."""
    single = " ".join(printable(text).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", single)), default=0))
    return f"{fence}{single}{fence}" if "`" not in single else f"{fence} {single} {fence}"


def as_record(shown: Sequence[Shown]) -> str:
    """Return one line of JSON, in ASCII: the sample with its kinds and verdict, of two runs a list in ``runs``."""
    records = [_record(each) for each in shown]
    return json.dumps(records[0] if len(records) == 1 else {"id": shown[0].sample.key, "runs": records})


def _record(shown: Shown) -> Mapping[str, Any]:
    verdict = None if shown.verdict is None else dataclasses.asdict(shown.verdict)
    return {
        "run": shown.label,
        **dataclasses.asdict(shown.sample),
        "kinds": sorted(shown.kinds),
        "verdict": verdict,
    }
