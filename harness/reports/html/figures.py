"""Which charts a report has, each with the table of what it shows."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.comparing.comparison import Difference
from harness.reports.html.charts import Curve, Point, curves, estimate_point, intervals, length_and_win
from harness.reports.html.survey import Section, Survey
from harness.reports.html.tables import p_value, span
from harness.reports.html.training import learning_curves, training_folder
from harness.reports.summary import percent, points
from harness.runs.columns import Recorded
from harness.runs.records import Estimate
from harness.statistics import clustered_mean, mean

#: Rows of a learning curve's table.
_STEPS = 25

Kind = Literal["categories", "groups"]

#: What figures are broken down by, and what one is called.
_KINDS: Mapping[Kind, str] = {"categories": "category", "groups": "group"}

#: Into how many parts of the same number of samples the lengths of responses are cut.
_PARTS = 5


@dataclass(frozen=True)
class Chart:
    """A chart with its caption, the labels (and places) of its series, and its figures as a table."""

    name: str
    title: str
    caption: str
    svg: str
    series: Sequence[tuple[str, int]]
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def overview(survey: Survey) -> Iterator[Chart]:
    """Yield the charts of what each model gained and lost; where nothing is compared, of what was reached."""
    if survey.comparison is None:
        found = _reached(survey)
        if found is not None:
            yield found
        return
    baseline = {
        each.title: each.headline.against_baseline.values() for each in survey.sections if each.headline is not None
    }
    previous = {
        each.title: each.headline.against_previous.values() for each in survey.sections if each.headline is not None
    }
    caption = "Difference to {} with its 95% interval. Left of the line is the alignment tax: what was lost."
    for name, title, against, differences in (
        ("tax", "What was gained, and what it cost", "the first model", baseline),
        ("steps", "What the last steps changed", "the model before", previous),
    ):
        chart = _differences(survey, name, title, caption.format(against) + _judges(survey), differences)
        if chart is not None:
            yield chart


def _differences(
    survey: Survey, name: str, title: str, caption: str, found: Mapping[str, Iterable[Difference]]
) -> Chart | None:
    rows: dict[str, list[Point]] = {}
    table: list[list[str]] = []
    for benchmark, differences in found.items():
        for each in differences:
            value, low, high = each.estimate.value, each.estimate.low, each.estimate.high
            if math.isnan(value):
                continue
            rows.setdefault(benchmark, []).append(Point(survey.place(each.run), value, low, high))
            interval = "" if math.isnan(low) else f"{points(low)} to {points(high)}"
            flips = [f"{len(each.gained):,}", f"{len(each.lost):,}"] if each.p is not None else ["", ""]
            table.append([benchmark, each.run, each.against, points(value), interval, p_value(each.adjusted), *flips,
                          f"{each.estimate.n:,}"])  # fmt: skip
    if not rows:
        return None
    label = f"{title}: differences by benchmark, with 95% intervals; the table has the figures."
    svg = intervals(name, label, rows, "difference in percentage points", zero=True)
    heads = ["benchmark", "model", "against", "difference", "95% interval", "adjusted p", "gained", "lost", "n"]
    return Chart(name, title, caption, svg, _series(survey, {row[1] for row in table}), heads, table)


def _reached(survey: Survey) -> Chart | None:
    """Return the chart of what was reached on several benchmarks."""
    headlines = {section.title: section.headline.values for section in survey.sections if section.headline}
    rows = {title: _points(survey, values) for title, values in headlines.items()}
    rows = {title: points for title, points in rows.items() if points}
    if len(rows) < 2:
        return None
    table = _figures_table(headlines)
    label = "Results by benchmark, with 95% intervals; the table has the figures."
    svg = intervals("reached", label, rows, "percent")
    heads = ["benchmark", "model", "value", "95% interval", "n"]
    series = _series(survey, {label for values in headlines.values() for label in values})
    caption = "Headline metric with its 95% interval." + _judges(survey)
    return Chart("reached", "What was reached", caption, svg, series, heads, table)


def _judges(survey: Survey) -> str:
    """Return a sentence on who judged, to stand behind others; nothing where no judge was asked."""
    judged: dict[str, list[str]] = {}
    for section in survey.sections:
        if section.judge is not None:
            judged.setdefault(section.judge, []).append(section.title)
    found = [f"{', '.join(titles)} judged by {judge}" for judge, titles in judged.items()]
    return f" {'; '.join(found)}." if found else ""


def breakdowns(survey: Survey) -> Iterator[Chart]:
    """Yield the headline by category and by group of each benchmark that has them."""
    for section in survey.sections:
        for kind in _KINDS:
            chart = _breakdown(survey, section, kind)
            if chart is not None:
                yield chart


def _breakdown(survey: Survey, section: Section, kind: Kind) -> Chart | None:
    headline = section.headline
    if headline is None:
        return None
    found: dict[str, dict[str, Estimate]] = {}
    for label, run in section.runs.items():
        parts = run.results.categories if kind == "categories" else run.results.groups
        for name, by_reader in parts.items():
            estimate = by_reader.get(headline.reader, {}).get(headline.name)
            if estimate is not None:
                found.setdefault(name, {})[label] = estimate
    found = dict(sorted(found.items(), key=lambda item: _rank(item[1]), reverse=True))
    rows = {name: points for name, values in found.items() if (points := _points(survey, values))}
    if len(rows) < 2:
        return None
    one = _KINDS[kind]
    metric = headline.name.replace("_", " ")
    name = f"{kind}-{list(survey.sections).index(section)}"
    svg = intervals(
        name,
        f"{section.title}: {metric} by {one}, with 95% intervals; the table has the figures.",
        {name.replace("_", " "): points for name, points in rows.items()},
        f"{metric}, %",
    )
    judged = f", judged by {section.judge}" if section.judge is not None else ""
    caption = (
        f"{metric[:1].upper()}{metric[1:]}{judged}, with its 95% interval, from the highest of the last model to the "
        "lowest."
    )
    return Chart(name, f"{section.title} by {one}", caption, svg, _series(survey, section.runs),
                 [one, "model", "value", "95% interval", "n"], _figures_table(found))  # fmt: skip


def _rank(values: Mapping[str, Estimate]) -> float:
    """Return what a group is sorted by: the value of the last model that has one."""
    return next((each.value for each in reversed([*values.values()]) if each.value is not None), -math.inf)


def _points(survey: Survey, values: Mapping[str, Estimate | None]) -> list[Point]:
    points = [estimate_point(survey.place(label), each) for label, each in values.items() if each is not None]
    return [point for point in points if point is not None]


def _figures_table(found: Mapping[str, Mapping[str, Estimate | None]]) -> list[list[str]]:
    return [
        [name, label, percent(each.value), span(each.low, each.high), f"{each.n:,}"]
        for name, values in found.items()
        for label, each in values.items()
        if each is not None
    ]


def _series(survey: Survey, labels: Container[str]) -> list[tuple[str, int]]:
    return [(label, place) for place, label in enumerate(survey.labels) if label in labels]


def trainings(survey: Survey) -> Iterator[Chart]:
    """Yield the learning curves of each training that made an evaluated model and is still at hand."""
    seen: set[Path] = set()
    for section in survey.sections:
        for label, run in section.runs.items():
            folder = training_folder(run)
            if folder is None or folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            chart = _training(label, survey.place(label), folder, len(seen))
            if chart is not None:
                yield chart


def _training(label: str, place: int, folder: Path, number: int) -> Chart | None:
    panels = learning_curves(folder)
    if not panels:
        return None
    name = f"training-{number}"
    svg = curves(name, f"Learning curves of {label}; the table has the figures.", panels, place)
    found = [curve for each in panels.values() for curve in each]
    caption = "Lines are the training's own figures, marks on broken lines those of the held-out validation data."
    return Chart(name, f"Training of {label}", caption, svg, [(label, place)],
                 ["step", *(curve.name for curve in found)], _curves_table(found))  # fmt: skip


def _curves_table(found: Sequence[Curve]) -> list[list[str]]:
    """Return about as many steps as a reader wants, all of the validation's among them where these are few."""
    by_step = [dict(zip(curve.steps, curve.values, strict=True)) for curve in found]
    marked = sorted({step for curve in found if curve.validation for step in curve.steps})
    steps = sorted({step for curve in found for step in curve.steps})
    stride = max(1, math.ceil(len(steps) / _STEPS))
    kept = sorted({*steps[::stride], *steps[-1:], *(marked if len(marked) <= _STEPS else [])})
    return [[f"{step:,g}", *(f"{values[step]:.4g}" if step in values else "" for values in by_step)] for step in kept]


def lengths(survey: Survey) -> Iterator[Chart]:
    """Yield for each pairwise judged benchmark how often responses win, by their length."""
    for section in survey.sections:
        found = {label: cut for label, run in section.runs.items() if (cut := _by_length(run, section.judge))}
        if not found:
            continue
        series = {
            survey.place(label): [(x, Point(survey.place(label), *figures)) for x, figures, _ in parts]
            for label, parts in found.items()
        }
        name = f"length-{list(survey.sections).index(section)}"
        label = f"{section.title}: win rate by length of the response; the table has the figures."
        svg = length_and_win(name, label, series)
        caption = (
            f"Judged by {section.judge}. Each model's responses in five parts of equal number, from its shortest to "
            "its longest beside the reference's. A line that climbs says that the judge likes length, or that longer "
            "answers are better."
        )
        rows = [
            [label, f"{x:.2f}", percent(value), span(low, high), f"{n:,}"]
            for label, parts in found.items()
            for x, (value, low, high), n in parts
        ]
        heads = ["model", "length ÷ reference's", "win rate", "95% interval", "n"]
        yield Chart(name, f"{section.title}: length and winning", caption, svg, _series(survey, found), heads, rows)


def _by_length(run: Recorded, judge: str | None) -> list[tuple[float, tuple[float, float, float], int]]:
    """Return mean relative length, win rate with interval, and count of each fifth of the judged responses."""
    import numpy as np

    needed = [run.columns.get((judge or "", name)) for name in ("win", "length", "reference_length")]
    wins, own, other = (column if column is not None else np.array([]) for column in needed)
    if any(column is None for column in needed):
        return []
    known = ~np.isnan(wins) & (other > 0)
    ratio, wins, examples = own[known] / other[known], wins[known], run.examples[known]
    order = np.argsort(ratio, kind="stable")
    parts = [part for part in np.array_split(order, _PARTS) if len(part)]
    found = []
    for part in parts:
        several = run.record.samples > 1  # samples of one example are alike
        estimate = (
            clustered_mean(wins[part], examples[part], bounds=(0, 1)) if several else mean(wins[part], bounds=(0, 1))
        )
        found.append((float(ratio[part].mean()), (estimate.value, estimate.low, estimate.high), len(part)))
    return found
