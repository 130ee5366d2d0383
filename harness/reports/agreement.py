"""A judge beside human labels, as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from harness.judging.agreement import Agreement
from harness.reports.samples import on_one_line
from harness.reports.summary import favours, percent
from harness.reports.tables import table
from harness.types import Estimate


def agreement_text(judge: str, found: Agreement, verdicts: Sequence[str]) -> str:
    """Return kappa, the share of equal verdicts, and how often each label met each verdict."""
    kappa, agreed = found.kappa, found.agreed
    lines = [
        f"{on_one_line(judge)} and the labels",
        f"  Cohen's kappa {_number(kappa.value)} [{_number(kappa.low)}, {_number(kappa.high)}]"
        f" · agree on {percent(None if isnan(agreed.value) else agreed.value)}"
        f" [{percent(agreed.low)}, {percent(agreed.high)}] · n {agreed.n:,}",
    ]
    judged, corrected = found.judged, found.corrected
    if not isnan(corrected.value):
        lines.append(f"  by the judge {_share(judged)}; corrected by the labels {_share(corrected)}")
        lines.append("  (prediction-powered; right if the labelled samples were drawn at random)")
    if found.preference is not None and not isnan(found.preference.value):
        lines.append(f"  {favours('the labels', found.preference)}")
    if found.unreadable:
        lines.append(f"  {found.unreadable:,} labelled samples have no verdict that can be read, and are left out")
    rows = [[label, *(f"{found.counts.get((label, verdict), 0):,}" for verdict in verdicts)] for label in verdicts]
    heads = ["label", *(f"judged {verdict}" for verdict in verdicts)]
    return "\n".join([*lines, *(f"  {line}" for line in table(heads, rows).splitlines())])


def _share(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} [{percent(estimate.low)}, {percent(estimate.high)}]"


def _number(value: float) -> str:
    return "–" if isnan(value) else f"{value:.2f}"
