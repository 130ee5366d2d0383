"""Win rates of recorded judgements, as plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.reports.samples import on_one_line
from harness.reports.tables import table


def annotations_text(title: str, figures: Mapping[str, Any]) -> str:
    """Return the figures of a file of annotations, in percent, and what its unreadable judgements could change."""
    rows = [
        ["win_rate", _percent(figures["win_rate"]), _interval(figures["low"], figures["high"])],
        ["standard_error", _percent(figures["standard_error"]), ""],
        ["discrete_win_rate", _percent(figures["discrete_win_rate"]), ""],
    ]
    if "length_controlled_winrate" in figures:
        interval = _interval(figures["lc_low"], figures["lc_high"])
        rows.append(["length_controlled_winrate", _percent(figures["length_controlled_winrate"]), interval])
        rows.append(["lc_bootstrap_standard_error", _percent(figures["lc_bootstrap_standard_error"]), ""])
    counts = ("n_wins", "n_wins_base", "n_draws", "n_total", "unreadable")
    lines = [
        on_one_line(title),
        table(["", "percent", "95% interval"], rows),
        " · ".join(f"{name} {figures[name]:,}" for name in counts),
    ]
    if figures["unreadable"]:
        bounds = _interval(figures["lowest"], figures["highest"])
        lines.append(f"win_rate lies in {bounds}, whatever the unreadable ones mean")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _interval(low: float | None, high: float | None) -> str:
    return f"[{_percent(low)}, {_percent(high)}]"
