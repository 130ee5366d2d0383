"""The charts of a report: figures with intervals, learning curves, length against win."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.reports.html.svg import FAINT, INK, drawing, inline, series_colour, series_marker
from harness.reports.samples import printable
from harness.runs.records import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 9.0
_LONGEST = 42
_MOST_POINTS = 400
_ABREAST = 3


@dataclass(frozen=True)
class Point:
    """A figure of one series with its interval, NaN where it is not known."""

    series: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """One line of a learning curve: steps and values; a validation's points are marked."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    validation: bool


def intervals(
    name: str, label: str, rows: Mapping[str, Sequence[Point]], axis_label: str, *, zero: bool = False
) -> str:
    """Return a chart of values in percent with their intervals, a row for each key; `zero` marks no difference."""
    series = sorted({point.series for points in rows.values() for point in points})
    gap = 0.62 / max(1, len(series))
    height = 0.75 + len(rows) * max(0.2, 0.1 + 0.11 * len(series))
    with drawing(WIDTH, height) as figure:
        axes = figure.subplots()
        for row, points in enumerate(rows.values()):
            for point in points:
                y = row + (series.index(point.series) - (len(series) - 1) / 2) * gap
                _point(axes, point, y)
        axes.set_yticks(range(len(rows)), [shortened(key) for key in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines.left.set_visible(False)
        for border in range(1, len(rows)):
            axes.axhline(border - 0.5, color=FAINT, linewidth=0.5)
        if zero:
            axes.axvline(0, color=INK, linewidth=1)
        axes.set_xlabel(axis_label)
        return inline(figure, name, label)


def _point(axes: Axes, point: Point, y: float) -> None:
    colour = series_colour(point.series)
    if not (math.isnan(point.low) or math.isnan(point.high)):
        axes.plot([100 * point.low, 100 * point.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot([100 * point.value], [y], series_marker(point.series), color=colour, markersize=5, markeredgewidth=0)


def curves(name: str, label: str, panels: Mapping[str, Sequence[Curve]], series: int) -> str:
    """Return learning curves, a panel for each key: training as a line, validation as marks on a broken one."""
    columns = min(_ABREAST, len(panels))
    lines = math.ceil(len(panels) / columns)
    colour = series_colour(series)
    with drawing(WIDTH, 2.1 * lines + 0.2) as figure:
        grid = figure.subplots(lines, columns, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(panels):
                axes.set_visible(False)
                continue
            title, found = list(panels.items())[place]
            axes.set_title(shortened(title))
            for curve in found:
                stride = max(1, len(curve.steps) // _MOST_POINTS)
                points = (curve.steps[::stride], curve.values[::stride])
                if curve.validation:
                    axes.plot(
                        *points, series_marker(series), linestyle=(0, (4, 2)), color=INK, linewidth=1, markersize=4
                    )
                else:
                    axes.plot(*points, color=colour, linewidth=1.4)
            if place + columns >= len(panels):
                axes.set_xlabel("step")
            axes.locator_params(nbins=5)
            axes.yaxis.set_major_formatter("{x:.4g}")
        return inline(figure, name, label)


def length_and_win(name: str, label: str, series: Mapping[int, Sequence[tuple[float, Point]]]) -> str:
    """Return win rates against the response's length as a share of the reference's, a line for each series."""
    with drawing(WIDTH, 3.4) as figure:
        axes = figure.subplots()
        for place, points in series.items():
            colour = series_colour(place)
            axes.plot([x for x, _ in points], [100 * point.value for _, point in points], color=colour, linewidth=1.4)
            for x, point in points:
                if not math.isnan(point.low):
                    axes.plot([x, x], [100 * point.low, 100 * point.high], color=colour, linewidth=1.4)
                axes.plot([x], [100 * point.value], series_marker(place), color=colour, markersize=6, markeredgewidth=0)
        axes.axhline(50, color=INK, linewidth=1, linestyle=(0, (2, 3)))
        axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (2, 3)))
        axes.set_ylim(0, 100)
        axes.set_xlim(left=0)
        axes.set_xlabel("length of the response ÷ length of the reference")
        axes.set_ylabel("win rate, %")
        return inline(figure, name, label)


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Return a name that fits beside an axis, without characters that could do anything but be seen."""
    clean = " ".join(printable(text).split())
    return clean if len(clean) <= longest else f"{clean[: longest - 1]}…"


def estimate_point(series: int, estimate: Estimate) -> Point | None:
    """Return the point of an estimate; None where its value is not known."""
    if estimate.value is None:
        return None
    low, high = (math.nan if side is None else float(side) for side in (estimate.low, estimate.high))
    return Point(series, float(estimate.value), low, high)
