"""The tables of a report: plain values for the template, which escapes them all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.evaluation.comparison import Difference, Metric
from harness.evaluation.recorded import Recorded
from harness.reports.html.survey import Section, Survey, significant
from harness.reports.summary import count_of, percent, warnings


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
    """A figure with its interval, and what it changed against the baseline and the run before."""

    value: str
    interval: str
    changes: Sequence[Change]


@dataclass(frozen=True)
class MetricRow:
    """One metric of one benchmark across the report's labels."""

    benchmark: str
    reader: str
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
    counts = [figures["n"] for figures in metric.values.values() if figures]
    n = f"{min(counts):,}" if counts else "0"
    if counts and min(counts) != max(counts):
        n += f"–{max(counts):,}"
    cells = [_cell(survey, section, metric, label) for label in survey.labels]
    return MetricRow(section.title, metric.reader, metric.name.replace("_", " "), n, cells, metric.reason)


def _cell(survey: Survey, section: Section, metric: Metric, label: str) -> Cell | None:
    figures = metric.values.get(label)
    if not figures:
        return None
    found = (metric.against_baseline.get(label), metric.against_previous.get(label))
    place, runs = list(survey.sections).index(section), list(section.runs)
    changes = [
        _change(
            each, f"{place}/{runs.index(each.run)}/{runs.index(each.against)}" if metric is section.headline else ""
        )
        for each in found
        if each is not None and not math.isnan(each.estimate.value)
    ]
    return Cell(percent(figures["value"]), span(figures["low"], figures["high"]), changes)


def _change(difference: Difference, flips: str) -> Change:
    estimate = difference.estimate
    interval = "" if math.isnan(estimate.low) else f"{signed(estimate.low)} to {signed(estimate.high)}"
    tested = difference.p is not None
    chance = (
        f"p {p_value(difference.p)}, not adjusted"
        if difference.adjusted is None
        else f"adjusted p {p_value(difference.adjusted)}"
    )
    return Change(
        difference.against,
        signed(estimate.value),
        interval,
        mark(difference),
        f"{difference.test}, {chance}" if tested else "",
        len(difference.gained),
        len(difference.lost),
        flips if tested else "",
    )


def mark(difference: Difference) -> str:
    """Return ``better`` or ``worse`` where a difference is told from chance, ``level`` where not, nothing untested."""
    if difference.adjusted is None:
        return ""
    if not significant(difference) or difference.estimate.value == 0:
        return "level"
    return "better" if difference.estimate.value > 0 else "worse"


def p_value(p: float | None) -> str:
    """Return a p-value as papers print it.

    >>> p_value(0.0312), p_value(1e-9), p_value(None)
    ('0.031', '< 0.001', '–')
    """
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def signed(value: float) -> str:
    """Return a difference of proportions in points, with its sign.

    >>> signed(0.148), signed(-0.0213), signed(0.0)
    ('+14.8', '−2.1', '±0.0')
    """
    points = round(100 * value, 1)
    return f"+{points:.1f}" if points > 0 else f"−{-points:.1f}" if points < 0 else "±0.0"


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
    """Return for each run: samples, unparsed or unreadable, truncated, failed, mean tokens and characters."""
    return [RunRow(title, label, place, _failures(run)) for title, label, place, run in each_run(survey)]


def _failures(run: Recorded) -> list[str]:
    results = run.results or {}
    n = results["n"]
    judge = next(iter(results.get("judges", {}).values()), None)
    if judge is not None:
        unread = count_of(judge["unreadable"]["count"], judge["n"])
    else:
        unread = count_of(next(iter(results["unparsed"].values()), {"count": 0})["count"], n)
    answered = ~run.failed
    return [
        f"{n:,}",
        unread,
        count_of(results["truncated"]["count"], n),
        count_of(results["failed"]["count"], n),
        _mean(run.completion_tokens[answered]),
        _mean(run.lengths[answered].astype("float64")),
    ]


def doubts(survey: Survey) -> list[str]:
    """Return what makes figures doubtful, run by run, and in what runs differ from their baseline beside the model."""
    found = [
        f"{title}, {label}: {warning}"
        for title, label, _, run in each_run(survey)
        for warning in warnings(run.results or {})
    ]
    for section in survey.sections:
        for label, differs in section.differs.items():
            found.append(f"{section.title}, {label} against {section.baseline}: {'; '.join(differs)}")
        if section.headline is None:
            found.append(f"{section.title} has not been scored yet: harness judge RUN --judge MODEL")
        elif section.headline.reason:
            found.append(f"{section.title}: no differences are shown, as {section.headline.reason}")
    return found


def speeds(survey: Survey) -> list[RunRow]:
    """Return for each run: engine, hardware, examples and tokens a second, seconds of loading and generation."""
    return [RunRow(title, label, place, _speed(run)) for title, label, place, run in each_run(survey)]


def _speed(run: Recorded) -> list[str]:
    timing = run.timing
    sessions = len(timing.get("sessions", []))
    return [
        str(run.config["engine"]),
        hardware(run.config),
        rate(timing.get("examples_per_second")),
        rate(timing.get("completion_tokens_per_second") or None),
        seconds(timing.get("load_seconds")),
        seconds(timing.get("generation_seconds")),
        f"{sessions:,}" if sessions else "–",
    ]


def hardware(config: Mapping[str, Any]) -> str:
    """Return the GPUs of a run, or its CPU cores."""
    found = config.get("hardware") or {}
    names = [str(gpu["name"]) for gpu in found.get("gpus", [])]
    if names:
        return " + ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))
    return f"{found['cores']} CPU cores" if found.get("cores") else "–"


def each_run(survey: Survey) -> Iterator[tuple[str, str, int, Recorded]]:
    """Yield each run with its benchmark's title, its label and the label's place."""
    for section in survey.sections:
        for label, run in section.runs.items():
            yield section.title, label, survey.place(label), run


def rate(value: float | None) -> str:
    """Return something a second, or a dash."""
    return "–" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """Return a time in seconds, or a dash."""
    return "–" if value is None else f"{value:,.1f} s"


def _mean(values: Any) -> str:
    known = values[values == values]
    return f"{known.mean():,.0f}" if len(known) else "–"
