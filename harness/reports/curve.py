"""Perplexity against figures of benchmarks over checkpoints: a table, how far they go together, and a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.reports.samples import printable
from harness.reports.summary import percent
from harness.reports.tables import table
from harness.runs.records import Estimate


@dataclass(frozen=True)
class Point:
    """One checkpoint: after so many steps, its perplexity, and the headline figure of each benchmark by its name.

    A figure is of the first metric of the first parser or judge, or None where there is none.
    """

    step: int
    perplexity: Estimate
    figures: Mapping[str, Estimate | None]


def curve_table(points: Sequence[Point]) -> str:
    """Return a row a checkpoint, and the rank correlation of each figure with perplexity."""
    names = list(points[0].figures)
    rows = [
        [f"{point.step:,}", _with_interval(point.perplexity, "{:.3f}".format)]
        + [_with_interval(point.figures.get(name), percent) for name in names]
        for point in points
    ]
    lines = [table(["step", "perplexity", *map(printable, names)], rows)]
    return "\n".join([*lines, *_correlations(points, names)])


def _correlations(points: Sequence[Point], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        pairs = [(point.perplexity.value, each.value) for point in points if (each := point.figures.get(name))]
        known = [(x, y) for x, y in pairs if x is not None and y is not None]
        if len(known) > 2 and all(len(set(side)) > 1 for side in zip(*known, strict=True)):
            from scipy.stats import spearmanr

            rho = float(spearmanr(*map(np.array, zip(*known, strict=True))).statistic)
            yield printable(
                f"{name}: rank correlation with perplexity {rho:+.2f} over {len(known)} checkpoints (of one training: "
                "no sample of trainings)"
            )


def _with_interval(found: Estimate | None, text: Any) -> str:
    if found is None or found.value is None:
        return "–"
    if found.low is None or found.high is None or math.isnan(found.low):
        return str(text(found.value))
    return f"{text(found.value)} [{text(found.low)}, {text(found.high)}]"


def draw_curve(points: Sequence[Point], path: Path, title: str) -> None:
    """Draw the same to `path`, whose suffix is a kind of picture: over steps, and figures against perplexity.

    Raises ImportError where matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(1, 2)
    over, against = axes
    steps = [point.step for point in points]
    _band(over, steps, [point.perplexity for point in points], "perplexity", "C0")
    over.set(xlabel="step", ylabel="perplexity")
    over.xaxis.set_major_locator(MaxNLocator(integer=True))
    beside = over.twinx()
    for number, name in enumerate(points[0].figures, start=1):
        found = [point.figures.get(name) for point in points]
        _band(beside, steps, found, name, f"C{number}")
        xs, ys = [point.perplexity.value for point in points], [each and each.value for each in found]
        against.plot(xs, ys, "o-", color=f"C{number}", label=name, linewidth=0.6, markersize=4)
        for step, x, y in zip(steps, xs, ys, strict=True):
            if x is not None and y is not None:
                against.annotate(f"{step:,}", (x, y), fontsize="x-small", textcoords="offset points", xytext=(3, 3))
    against.set(xlabel="perplexity", ylabel="figures of benchmarks (marks are steps)")
    lines = [*over.get_lines(), *beside.get_lines()]
    over.legend(lines, [line.get_label() for line in lines], fontsize="small", frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def _band(axis: Any, steps: Sequence[int], found: Sequence[Estimate | None], name: str, colour: str) -> None:
    """Draw estimates with their intervals, where they have any."""
    known = [(step, each) for step, each in zip(steps, found, strict=True) if each is not None]
    xs = [step for step, _ in known]
    axis.plot(xs, [each.value for _, each in known], "o-", color=colour, label=name, markersize=4)
    ends = [[np.nan if end is None else end for end in (each.low, each.high)] for _, each in known]
    if ends:
        low, high = np.array(ends, dtype=np.float64).T
        axis.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
