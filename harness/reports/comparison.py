"""A comparison of runs, for people: one table of all metrics, the alignment tax, flips, and what stands beside them.

The same content is laid out for a terminal of any width, or as Markdown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.comparing.comparison import (
    BenchmarkComparison,
    Comparison,
    Difference,
    Metric,
)
from harness.comparing.facts import Facts
from harness.comparing.gate import Check, Gate
from harness.evaluation.progress import pace, rate
from harness.reports.samples import on_one_line, printable
from harness.reports.summary import count_of, number, percent, points
from harness.reports.terminal import Line, Tone, styled
from harness.statistics import said_of
from harness.types import Estimate

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

#: A head is broken beyond this, the gap is between columns; both in characters.
_HEAD, _GAP = 16, 2

Cell = Sequence[Line]


@dataclass(frozen=True)
class Section:
    """A titled table, its first column naming the rows, and lines below it."""

    title: str
    heads: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def sections(comparison: Comparison, flips: int) -> list[Section]:
    """Return what there is to say; of each kind of flip at most `flips` ids are named."""
    found = [_metrics(comparison), _tax(comparison), _flips(comparison, flips), _beside(comparison)]
    return [section for section in found if section.rows or section.notes]


def _metrics(comparison: Comparison) -> Section:
    rows = []
    for each in comparison.benchmarks:
        for metric in each.metrics:
            tone: Tone = "strong" if metric is each.headline else "plain"
            name = [Line(each.benchmark, tone), Line(f"{metric.name} ({metric.reader})", tone)]
            rows.append([name, *(_cell(metric, label) for label in comparison.labels)])
    return Section("", ["", *comparison.labels], rows, list(_notes(comparison)))


def _cell(metric: Metric, label: str) -> list[Line]:
    """Return a run's figure, its difference to the baseline, and that to the run before it."""
    estimate = metric.values.get(label)
    lines = [Line("–", "quiet") if estimate is None else Line(percent(estimate.value))]
    for differences, named in ((metric.against_baseline, False), (metric.against_previous, True)):
        difference = differences.get(label)
        if difference is not None:
            lines += _difference(difference, f"vs {difference.against} " if named else "")
    return lines


def _difference(difference: Difference, prefix: str = "") -> list[Line]:
    tone = _TONES[difference.verdict]
    lines = [Line(f"{prefix}{interval(difference.estimate)}", tone)]
    if difference.p is None:
        return lines
    adjusted = difference.adjusted
    return [*lines, Line(f"{p_value(difference.p)}†" if adjusted is None else p_value(adjusted), tone)]


_TONES: Mapping[str, Tone] = {"": "plain", "level": "quiet", "better": "better", "worse": "worse"}


def _notes(comparison: Comparison) -> Iterator[str]:
    """Yield how the figures were made, and what there is to hold against them."""
    found = [difference for each in comparison.benchmarks for difference in differences(each)]
    if found:
        family = f"; p adjusted by Holm for the {comparison.tests} tests of headline metrics" * (comparison.tests > 1)
        yield f"differences in points with 95% intervals, and two-sided p-values of the same inference{family}"
    for each in comparison.benchmarks:
        taken = {label: facts.samples for label, facts in each.facts.items()}
        if max(taken.values()) > 1:
            said = ", ".join(f"{label} {count}" for label, count in taken.items())
            yield f"{each.benchmark}: samples an example: {said}; an example's gain is that of its means over them"
    for each in comparison.benchmarks:
        if each.contaminated is not None:
            yield (
                f"{each.benchmark}: without {each.contaminated:,} examples that a model was trained on; "
                f"{each.examples:,} are left"
            )
    yield from _methods(comparison)
    if any(each.p is not None and each.adjusted is None for each in found):
        yield "† not adjusted: another metric is the benchmark's headline"
    for each in comparison.benchmarks:
        yield from _lacking(each)


def _methods(comparison: Comparison) -> Iterator[str]:
    """Yield how the differences' intervals were made, and the smallest true ones that the headlines' would show."""
    made: dict[str, dict[str, None]] = {}
    for each in comparison.benchmarks:
        for difference in differences(each):
            made.setdefault(said_of(difference.estimate.method), {})[each.benchmark] = None
    for said, names in made.items():
        yield f"{', '.join(names)}: {said}"
    for each in comparison.benchmarks:
        found = each.headline.against_baseline if each.headline is not None else {}
        if least := detectable(found):
            yield f"{each.benchmark}: smallest true difference to show with 80% power, in points: {least}"


def detectable(found: Mapping[str, Difference]) -> str:
    """Return the smallest true difference that each run's examples would show, in points, where it is known."""
    return ", ".join(f"{run} {100 * of.detectable:.2g}" for run, of in found.items() if not math.isnan(of.detectable))


def _lacking(each: BenchmarkComparison) -> Iterator[str]:
    """Yield where a benchmark has no figures, no differences, or differences over fewer examples."""
    if not each.metrics:
        yield f"{each.benchmark}: nothing has been scored; if it is judged: harness judge RUN --judge MODEL"
    for metric in each.metrics:
        if metric.reason:
            yield f"{each.benchmark}, {metric.name} ({metric.reader}): no differences, as {metric.reason}"
        left_out = max((difference.left_out for difference in metric.against_baseline.values()), default=0)
        if left_out and metric is each.headline:
            yield f"{each.benchmark}: up to {left_out:,} examples that lack a score in one of two runs are left out"


def differences(comparison: BenchmarkComparison) -> Iterator[Difference]:
    """Yield every difference of a benchmark."""
    for metric in comparison.metrics:
        yield from metric.against_baseline.values()
        yield from metric.against_previous.values()


def _tax(comparison: Comparison) -> Section:
    """Return what each run has lost of the first model's headline metric, where it is the baseline of several."""
    tax = comparison.alignment_tax()
    if len(tax) < 2:
        return Section("")
    headlines = {each.benchmark: each.headline.name for each in comparison.benchmarks if each.headline is not None}
    labels = [label for label in comparison.labels if any(label in lost for lost in tax.values())]
    rows = [
        [[Line(benchmark), Line(headlines[benchmark])], *(_lost(lost.get(label)) for label in labels)]
        for benchmark, lost in tax.items()
    ]
    first = comparison.labels[0]
    notes = [
        f"{each.benchmark} is left out: its baseline is {each.baseline}"
        for each in comparison.benchmarks
        if each.baseline != first and each.headline is not None and each.headline.against_baseline
    ]
    title = f"Alignment tax: points of the headline metric lost against {first} (below 0: gained)"
    return Section(title, ["", *labels], rows, notes)


def _lost(difference: Difference | None) -> list[Line]:
    if difference is None:
        return [Line("–", "quiet")]
    tone = _TONES[difference.verdict]
    e = difference.estimate
    mirrored = Estimate(-e.value, e.n, e.stderr, -e.high, -e.low, e.method)
    word = "no clear change" if tone == "quiet" else "gained" if tone == "better" else "lost"
    return [Line(interval(mirrored), tone), Line(word, tone)]


def _flips(comparison: Comparison, count: int) -> Section:
    """Return how many examples turned right and wrong by each benchmark's headline metric, and some of them."""
    notes = []
    for each in comparison.benchmarks:
        if count and each.headline is not None:
            for difference in each.headline.against_baseline.values():
                notes += list(_flipped(each.benchmark, difference, count))
    return Section("Flips", notes=notes)


def _flipped(benchmark: str, difference: Difference, count: int) -> Iterator[str]:
    gained, lost = difference.gained, difference.lost
    change = f"{len(gained):,} gained, {len(lost):,} lost"
    yield f"{benchmark}, {difference.against} → {difference.run}: {change}"
    for sign, ids in (("+", gained), ("−", lost)):
        if ids:
            more = f" … {len(ids) - count:,} more" if len(ids) > count else ""
            yield f"  {sign} {', '.join(ids[:count])}{more}"


def gate_section(gate: Gate) -> Section:
    """Return what a gate's rules come to, a line each."""
    return Section(f"Gate: {gate.verdict}", notes=[_checked(check) for check in gate.checks])


def _checked(check: Check) -> str:
    allowed = f"may lose {check.max_drop:g} points of {check.metric}"
    change = f"{interval(check.difference.estimate)}" if check.difference is not None else "no difference"
    reason = f" ({check.reason})" if check.reason else ""
    return f"{check.verdict}: {check.benchmark}, {check.run}: {change}{reason}; {allowed}"


def _beside(comparison: Comparison) -> Section:
    """Return what went wrong, lengths, rates and conditions, a row a run, without columns of which nothing is known."""
    runs = [(each, label, facts) for each in comparison.benchmarks for label, facts in each.facts.items()]
    columns = {head: [text(each, facts) for each, _, facts in runs] for head, text in _FACTS.items()}
    columns = {head: texts for head, texts in columns.items() if set(texts) != {"–"}}
    rows = [
        [[Line(f"{each.benchmark} · {label}")], *([Line(texts[place])] for texts in columns.values())]
        for place, (each, label, _) in enumerate(runs)
    ]
    notes: dict[str, list[str]] = {}
    for each, label, facts in runs:
        for change in facts.differs:
            names = notes.setdefault(f"from {each.baseline}: {change}", [])
            names += [label] * (label not in names)
    said = [f"{', '.join(names)} differ{'s' * (len(names) == 1)} {change}" for change, names in notes.items()]
    return Section("Beside the figures", ["", *columns], rows, said)


def _unread(each: BenchmarkComparison, facts: Facts) -> str:
    """Return how much the headline's parser or judge has left unread."""
    reader = each.headline.reader if each.headline is not None else next(iter(facts.unparsed), "")
    if reader in facts.unreadable:
        return count_of(facts.unreadable[reader], facts.judged[reader])
    return count_of(facts.unparsed[reader], facts.outputs) if reader in facts.unparsed else "–"


def _speed(each: BenchmarkComparison, facts: Facts) -> str:
    """Return examples a second, or seconds an example where they are slow, with the ratio to the baseline's."""
    own, other = facts.examples_per_second, each.facts[each.baseline].examples_per_second
    ratio = f" ({own / other:.2f} ×)" if own and other and facts is not each.facts[each.baseline] else ""
    return f"{pace(own)}{ratio}"


_FACTS: Mapping[str, Callable[[BenchmarkComparison, Facts], str]] = {
    "n": lambda _, facts: f"{facts.n:,}",
    "unread": _unread,
    "truncated": lambda _, facts: "–" if facts.truncated is None else count_of(facts.truncated, facts.outputs),
    "failed": lambda _, facts: count_of(facts.failed, facts.n),
    "prompt tokens": lambda _, facts: number(facts.prompt_tokens),
    "output tokens": lambda _, facts: number(facts.completion_tokens),
    "characters": lambda _, facts: number(facts.characters),
    "examples/s": _speed,
    "prompt tokens/s": lambda _, facts: rate(facts.prompt_tokens_per_second),
    "output tokens/s": lambda _, facts: rate(facts.completion_tokens_per_second),
    "format": lambda _, facts: facts.prompt_format,
    "engine": lambda _, facts: facts.engine,
}


def interval(estimate: Estimate) -> str:
    """Return a difference of proportions in points with its interval: ``+2.9 [+2.1, +3.7]``."""
    if math.isnan(estimate.low):
        return f"{points(estimate.value)} [–]"
    return f"{points(estimate.value)} [{points(estimate.low)}, {points(estimate.high)}]"


def p_value(p: float) -> str:
    """Return a p-value as papers print it.

    >>> p_value(0.0002), p_value(0.0412), p_value(1.0)
    ('p < 0.001', 'p = 0.041', 'p = 1')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.9995 else "p = 1"


def print_sections(found: Sequence[Section], console: Console) -> None:
    """Print to a terminal, or to a file: as tables where they fit, else as one list a row."""
    for place, section in enumerate(found):
        if place:
            console.print()
        if section.title:
            console.print(styled(Line(section.title, "strong")))
        if section.rows:
            console.print(_laid_out(section, console))
        for note in section.notes:
            console.print(styled(Line(note, "quiet")))


def _laid_out(section: Section, console: Console) -> RenderableType:
    from rich.table import Table

    widths = [
        max(len(on_one_line(line.text)) for cell in cells for line in cell) for cells in zip(*section.rows, strict=True)
    ]
    widths = [max(width, min(len(head), _HEAD)) for width, head in zip(widths, section.heads, strict=True)]
    if sum(widths) + _GAP * (len(widths) - 1) > console.width:
        return _stacked(section)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold", show_edge=False)
    for head, width in zip(section.heads, widths, strict=True):
        table.add_column(styled(Line(head)), width=width)
    tall = any(len(cell) > 1 for row in section.rows for cell in row)
    for place, row in enumerate(section.rows):
        if tall and place:
            table.add_row()
        table.add_row(*(styled(*cell) for cell in row))
    return table


def _stacked(section: Section) -> Text:
    """Return the rows one below the other, each with its columns below it, for a terminal that is narrow."""
    from rich.text import Text

    blocks = []
    for name, *cells in section.rows:
        blocks.append(styled(Line(" · ".join(line.text for line in name), "strong")))
        named = [(head, cell) for head, cell in zip(section.heads[1:], cells, strict=True) if head]
        if all(len(cell) == 1 for cell in cells):
            blocks.append(styled(Line("  " + " · ".join(f"{head} {cell[0].text}" for head, cell in named))))
            continue
        for head, (first, *rest) in named:
            lines = [Line(f"  {head}: {first.text}", first.tone), *(Line(f"    {x.text}", x.tone) for x in rest)]
            blocks.append(styled(*lines))
    return Text("\n").join(blocks)


def as_markdown(found: Sequence[Section]) -> str:
    """Return the same as Markdown; what is significant is bold."""
    blocks = []
    for section in found:
        if section.title:
            blocks.append(f"## {_escaped(section.title)}")
        if section.rows:
            rows = [section.heads and [_escaped(head) for head in section.heads], ["---"] * len(section.heads)]
            rows += [[_markdown(cell) for cell in row] for row in section.rows]
            blocks.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
        if section.notes:
            blocks.append("\n".join(f"{note[: -len(note.lstrip())]}- {_escaped(note)}" for note in section.notes))
    return "\n\n".join(blocks)


def _markdown(cell: Cell) -> str:
    bold = ("better", "worse", "strong")
    return "<br>".join(f"**{_escaped(line.text)}**" if line.tone in bold else _escaped(line.text) for line in cell)


def _escaped(text: str) -> str:
    """Return text that is nothing but text in Markdown, on one line."""
    single = "".join(f"\\{c}" if c in "\\`*_[]<>|#&~" else c for c in " ".join(printable(text).split()))
    return f"\\{single}" if single.startswith(("+ ", "- ")) else single
