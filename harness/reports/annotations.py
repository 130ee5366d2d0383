"""Win rates of recorded judgements, as plain text."""

from __future__ import annotations

from math import isnan

from harness.judging.annotations import AnnotatedWinRate
from harness.reports.samples import on_one_line
from harness.reports.tables import table


def annotations_text(title: str, found: AnnotatedWinRate) -> str:
    """Return the figures of a file of annotations, in percent, and what its unreadable judgements could change."""
    raw, fit = found.raw, found.length_controlled
    rows = [
        ["win_rate", _percent(raw.win_rate), _interval(raw.low, raw.high)],
        ["standard_error", _percent(raw.standard_error), ""],
        ["discrete_win_rate", _percent(raw.discrete_win_rate), ""],
    ]
    if fit is not None:
        rows.append(
            ["length_controlled_winrate", _percent(fit.length_controlled_winrate), _interval(fit.low, fit.high)]
        )
        rows.append(["lc_bootstrap_standard_error", _percent(fit.bootstrap_standard_error), ""])
    counts = {
        "n_wins": raw.n_wins,
        "n_wins_base": raw.n_wins_base,
        "n_draws": raw.n_draws,
        "n_total": raw.n_total,
        "unreadable": raw.unreadable,
    }
    lines = [
        on_one_line(title),
        table(["", "percent", "95% interval"], rows),
        " · ".join(f"{name} {count:,}" for name, count in counts.items()),
    ]
    if raw.unreadable:
        lines.append(f"win_rate lies in {_interval(raw.lowest, raw.highest)}, whatever the unreadable ones mean")
    if found.repeated:
        lines.append(f"{found.repeated:,} judgements are of what others have judged before, and count once more")
    if found.without:
        lines.append(
            f"{found.without:,} of AlpacaEval's 805 instructions have no judgement: they are in no figure here,"
        )
        lines.append("and a length-controlled win rate that the leaderboard has for such a file is off by points")
    if fit is None:
        lines.append("length-controlled win rate: off; --length-control df_gamed.csv, or hub")
    return "\n".join(lines)


def _percent(value: float) -> str:
    return "–" if isnan(value) else f"{value:.2f}"


def _interval(low: float, high: float) -> str:
    return f"[{_percent(low)}, {_percent(high)}]"
