"""The tables of a report: plain values for the template, which escapes them all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.comparing.comparison import Difference, Metric
from harness.evaluation.progress import pace, rate
from harness.reports.beside_source import beside_source
from harness.reports.comparison import detectable
from harness.reports.html.survey import Section, Survey
from harness.reports.summary import biases, count_of, percent, points, several, truncated, warnings
from harness.runs.columns import Recorded
from harness.runs.records import Hardware
from harness.statistics import said_of


@dataclass(frozen=True)
class Change:
    """A difference to another run; `mark` is better, worse, level, or nothing where it was not tested.

    `gained` and `lost` count the examples that turned right and wrong, where it was; `flips` is what leads to them
    among the samples (the places of the benchmark, the run and the other run); nothing where the samples do not tell.
    """

    against: str
    value: str
    interval: str
    mark: str
    test: str
    gained: int
    lost: int
    flips: str


@dataclass(frozen=True)
class Cell:
    """A figure with its interval, and what it changed against the baseline and the run before.

    `bounds` says in what range it lies whatever a judge's unreadable replies mean; nothing where all can be read.
    """

    value: str
    interval: str
    bounds: str
    changes: Sequence[Change]


@dataclass(frozen=True)
class MetricRow:
    """One metric of one benchmark across the report's labels."""

    benchmark: str
    reader: str
    judged: bool
    name: str
    n: str
    cells: Sequence[Cell | None]
    reason: str | None


def headline_rows(survey: Survey) -> list[MetricRow]:
    """Return the headline metric of each benchmark."""
    return [_row(survey, each, each.headline) for each in survey.sections if each.headline is not None]


def all_rows(survey: Survey) -> list[MetricRow]:
    """Return every metric of every benchmark."""
    return [_row(survey, each, metric) for each in survey.sections for metric in each.metrics]


def _row(survey: Survey, section: Section, metric: Metric) -> MetricRow:
    counts = [estimate.n for estimate in metric.values.values() if estimate is not None]
    n = f"{min(counts):,}" if counts else "0"
    if counts and min(counts) != max(counts):
        n += f"–{max(counts):,}"
    cells = [_cell(survey, section, metric, label) for label in survey.labels]
    judged = any(metric.reader in run.results.judged for run in section.runs.values())
    return MetricRow(section.title, metric.reader, judged, metric.name.replace("_", " "), n, cells, metric.reason)


def _cell(survey: Survey, section: Section, metric: Metric, label: str) -> Cell | None:
    estimate = metric.values.get(label)
    if estimate is None:
        return None
    found = (metric.against_baseline.get(label), metric.against_previous.get(label))
    place, runs = list(survey.sections).index(section), list(section.runs)
    # Of several samples an example, those that flipped are not the examples that did.
    linked = metric is section.headline and all(run.record.samples == 1 for run in section.runs.values())
    changes = [
        _change(each, f"{place}/{runs.index(each.run)}/{runs.index(each.against)}" if linked else "")
        for each in found
        if each is not None and not math.isnan(each.estimate.value)
    ]
    interval = span(estimate.low, estimate.high)
    return Cell(percent(estimate.value), interval, bounds(section.runs[label], metric), changes)


def bounds(run: Recorded, metric: Metric) -> str:
    """Return between what a judged metric lies, whatever the unreadable replies mean; nothing where all can be read."""
    said = run.results.judged.get(metric.reader)
    if said is None or not said.unreadable.count or metric.name not in said.bounds:
        return ""
    low, high = said.bounds[metric.name]
    return f"{percent(low)} to {percent(high)}, whatever {said.unreadable.count:,} unreadable replies mean"


def _change(difference: Difference, flips: str) -> Change:
    estimate = difference.estimate
    interval = "" if math.isnan(estimate.low) else f"{points(estimate.low)} to {points(estimate.high)}"
    tested = difference.p is not None
    chance = (
        f"p {p_value(difference.p)}, not adjusted"
        if difference.adjusted is None
        else f"adjusted p {p_value(difference.adjusted)}"
    )
    return Change(
        difference.against,
        points(estimate.value),
        interval,
        difference.verdict,
        f"{said_of(estimate.method)}; {chance}" if tested else "",
        len(difference.gained),
        len(difference.lost),
        flips if tested else "",
    )


def p_value(p: float | None) -> str:
    """Return a p-value as papers print it.

    >>> p_value(0.0312), p_value(1e-9), p_value(None)
    ('0.031', '< 0.001', '–')
    """
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def span(low: float | None, high: float | None) -> str:
    """Return an interval of proportions in percent; nothing where it is not known."""
    return "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


@dataclass(frozen=True)
class RunRow:
    """One run in the tables of failures, of speed and of how it was made."""

    benchmark: str
    label: str
    series: int
    values: Sequence[str]


def failures(survey: Survey) -> list[RunRow]:
    """Return for each run: samples, unread, letters beside another's text, truncated, failed, mean lengths."""
    return [RunRow(title, label, place, _failures(run)) for title, label, place, run in each_run(survey)]


def _failures(run: Recorded) -> list[str]:
    results = run.results
    n = results.n
    judge = next(iter(results.judged.values()), None)
    if judge is not None:
        unread = count_of(judge.unreadable.count, judge.n)
    else:
        unread = count_of(next((unparsed.count for unparsed in results.unparsed.values()), 0), results.outputs)
    answered = ~run.failed
    return [
        f"{n:,}",
        unread,
        count_of(next((each.count for each in results.disagreeing.values()), 0), results.outputs),
        truncated(results),
        count_of(results.failed.count, n),
        _mean(run.completion_tokens[answered]),
        _mean(run.lengths[answered].astype("float64")),
    ]


def beside_sources(survey: Survey) -> list[RunRow]:
    """Return for each imported run how its outputs are read beside their source, under `beside_source.HEADS`."""
    found = ((title, label, place, beside_source(run)) for title, label, place, run in each_run(survey))
    return [RunRow(title, label, place, each.cells()) for title, label, place, each in found if each is not None]


def doubts(survey: Survey) -> list[str]:
    """Return what makes figures doubtful, run by run, and in what runs differ from their baseline beside the model."""
    found = [
        f"{title}, {label}: {warning}" for title, label, _, run in each_run(survey) for warning in warnings(run.results)
    ]
    for section in survey.sections:
        for label, differs in section.differs.items():
            found.append(f"{section.title}, {label} against {section.baseline}: {'; '.join(differs)}")
        if section.headline is None:
            found.append(f"{section.title} has not been scored yet: harness judge RUN --judge MODEL")
        elif section.headline.reason:
            found.append(f"{section.title}: no differences are shown, as {section.headline.reason}")
    return found


def judges_biases(survey: Survey) -> list[str]:
    """Return how far each judge favours what is shown first and its own family's responses, run by run."""
    return [
        f"{title}, {label}: {judge} {bias}"
        for title, label, _, run in each_run(survey)
        for judge, said in run.results.judged.items()
        for bias in biases(said)
    ]


def detectables(survey: Survey) -> list[tuple[str, str]]:
    """Return for each benchmark the smallest true difference of its headline that each run would show, in points."""
    headlines = [(section.title, section.headline) for section in survey.sections if section.headline is not None]
    found = [(title, detectable(metric.against_baseline)) for title, metric in headlines]
    return [(title, least) for title, least in found if least]


def speeds(survey: Survey) -> list[RunRow]:
    """Return for each run: engine, hardware, examples and tokens a second, seconds of loading and generation."""
    return [RunRow(title, label, place, _speed(run)) for title, label, place, run in each_run(survey)]


def _speed(run: Recorded) -> list[str]:
    timing = run.timing
    sessions = len(timing.sessions)
    return [
        run.record.engine,
        hardware(run.record.hardware) if run.record.imported is None else "–",
        pace(run.examples_per_second),
        rate(timing.prompt_tokens_per_second or None),
        rate(timing.completion_tokens_per_second or None),
        seconds(timing.load_seconds),
        seconds(timing.generation_seconds),
        f"{sessions:,}" if sessions else "–",
    ]


def hardware(found: Hardware) -> str:
    """Return the GPUs of a run, or its CPU cores."""
    names = [gpu.name for gpu in found.gpus]
    if names:
        return " + ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))
    return f"{found.cores} CPU cores" if found.cores else "–"


def each_run(survey: Survey) -> Iterator[tuple[str, str, int, Recorded]]:
    """Yield each run with its benchmark's title, its label and the label's place."""
    for section in survey.sections:
        for label, run in section.runs.items():
            yield section.title, label, survey.place(label), run


def seconds(value: float | None) -> str:
    """Return a time in seconds, or a dash."""
    return "–" if value is None else f"{value:,.1f} s"


def _mean(values: Any) -> str:
    known = values[values == values]
    return f"{known.mean():,.0f}" if len(known) else "–"


def repeats(survey: Survey) -> list[str]:
    """Return what is to be known of runs of several samples an example."""
    said = ((title, label, list(several(run.results))) for title, label, _, run in each_run(survey))
    return [f"{title}, {label}: {'; '.join(lines)}" for title, label, lines in said if lines]


def methods(survey: Survey) -> list[tuple[str, str]]:
    """Return in words how the intervals on the page were made, and of which benchmarks' figures and differences."""
    made: dict[str, dict[str, None]] = {}
    for section in survey.sections:
        for metric in section.metrics:
            differences = (*metric.against_baseline.values(), *metric.against_previous.values())
            used = [estimate.method for estimate in metric.values.values() if estimate is not None]
            for method in dict.fromkeys([*used, *(each.estimate.method for each in differences)]):
                made.setdefault(said_of(method), {})[section.title] = None
    return [(said, ", ".join(names)) for said, names in made.items()]
