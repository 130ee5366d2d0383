"""The templates of the pages, in which whatever runs contain stays visible text."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.comparing.comparison import Difference
from harness.evaluation.progress import rate
from harness.registry import Registry
from harness.reports.samples import kinds_of, printable
from harness.reports.summary import benchmark_title, count_of, percent, points
from harness.reports.view.listing import COLUMNS
from harness.types import Sample

#: Characters of an output that a page of samples shows.
_MOST = 2000


def templates() -> Environment:
    """Return the environment: every value is escaped, and hidden characters in it are made visible first."""
    found = Environment(
        loader=PackageLoader("harness.reports.view", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "address": _address,
        "chance": _chance,
        "clip": _clip,
        "count": "{:,}".format,
        "kinds": _kinds,
        "percent": percent,
        "points": points,
        "rate": rate,
        "remarks": _remarks,
        "shell": shlex.quote,
        "span": _span,
        "when": _when,
    }
    registry, known = Registry(), dict[str, str]()
    found.filters["benchmark"] = lambda name: known.get(name) or known.setdefault(name, benchmark_title(name, registry))
    found.globals |= {"columns": COLUMNS, "count_of": count_of}
    return found


def _visible(value: Any) -> Any:
    return value if isinstance(value, Markup) else printable(str(value))


def _address(text: str) -> str:
    """Return a text as a part of an address; what is no character of Unicode is lost."""
    return quote(text, safe="", errors="replace")


def _when(time: str) -> str:
    """Return a time in ISO format as people read it, in UTC; what is none as it stands.

    >>> _when("2026-11-21T05:03:38+01:00"), _when("soon")
    ('2026-11-21 04:03', 'soon')
    """
    try:
        return f"{datetime.fromisoformat(time).astimezone(UTC):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError):
        return time


def _clip(text: str) -> str:
    """Return the beginning of a text, saying so where it is cut."""
    return text if len(text) <= _MOST else f"{text[:_MOST]}… ({len(text) - _MOST:,} more characters)"


def _chance(p: float) -> str:
    """Return a p-value with as many figures as mean something.

    >>> _chance(0.0321), _chance(1.0), _chance(1e-9)
    ('0.032', '1.000', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _remarks(found: Difference, several: bool) -> str:
    """Return what stands beside a difference: to which of `several` runs, its p-value, and how many lack a score."""
    remarks = [f"against {found.against}"] if several else []
    if found.adjusted is not None:
        told = found.verdict in ("better", "worse")
        remarks.append(f"p {_chance(found.adjusted)}" + (f", {found.verdict}" if told else ""))
    if found.left_out:
        remarks.append(f"{found.left_out:,} left out")
    return " · ".join(remarks)


def _span(seconds: float) -> str:
    """Return a time to wait, roughly.

    >>> _span(8.2), _span(90), _span(7500)
    ('8 s', '2 min', '2 h 5 min')
    """
    if seconds < 60:
        return f"{max(seconds, 1):.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _kinds(sample: Sample) -> list[str]:
    """Return what became of a sample, as its first parser reads it; ``right`` where it has a gold answer and met it."""
    found = sorted(kinds_of(sample, next(iter(sample.answers), None)))
    if not found and sample.gold is not None:
        found.append("right")
    return found
