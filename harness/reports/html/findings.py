"""What a report has found, in one sentence a model."""

from __future__ import annotations

from collections.abc import Sequence

from harness.comparing.comparison import Metric
from harness.reports.html.survey import Section, Survey
from harness.reports.html.tables import bounds
from harness.reports.summary import percent

#: More models than this are left to the table.
_MOST = 3


def title_of(survey: Survey) -> str:
    """Return the title of a report that was given none: ``base, sft and dpo on MMLU and GSM8K``."""
    return f"{enumerated(survey.labels)} on {enumerated([section.title for section in survey.sections])}"


def findings(survey: Survey) -> list[str]:
    """Return what each model gained and lost against the one before; without a comparison, what the models reached."""
    found = [sentence for label in survey.labels if (sentence := _step(survey, label))]
    return found[:_MOST] if found else _reached(survey)


def _step(survey: Survey, label: str) -> str:
    """Return what came of the step to one label; nothing for a baseline."""
    said: dict[str, list[str]] = {"better": [], "worse": [], "level": []}
    against: dict[str, None] = {}
    for section in survey.sections:
        metric = section.headline
        difference = (metric.against_previous.get(label) or metric.against_baseline.get(label)) if metric else None
        if difference is None or not (kind := difference.verdict):
            continue
        against[difference.against] = None
        unit = "" if said[kind] else "points "
        points = f"{abs(100 * difference.estimate.value):.1f} {unit}on "
        named = f"{section.title} (judged by {section.judge})" if section.judge else section.title
        said[kind].append(named if kind == "level" else points + named)
    if not against:
        return ""
    moved = ", but ".join(
        f"{verb} {enumerated(said[kind])}" for kind, verb in (("better", "gains"), ("worse", "loses")) if said[kind]
    )
    start = f"Against {enumerated(list(against))}, {label} "
    level = enumerated(said.pop("level"))
    if not moved:
        return f"{start}shows no difference that is told from chance, on {level}."
    return f"{start}{moved}{f'; on {level} no difference is told from chance' if level else ''}."


def _reached(survey: Survey) -> list[str]:
    found = []
    for label in survey.labels:
        figures = []
        for section in survey.sections:
            metric = section.headline
            value = metric.values.get(label) if metric is not None else None
            if metric is not None and value is not None:
                figures.append(_figure(section, metric, label, percent(value.value)))
        if figures:
            found.append(f"{label} reaches {enumerated(figures)}.")
    return found[:_MOST]


def _figure(section: Section, metric: Metric, label: str, value: str) -> str:
    """Return a figure in words, with the judge's name and what its unreadable replies leave open."""
    run = section.runs[label]
    said = [f"judged by {section.judge}"] if section.judge else []
    said += [between] if (between := bounds(run, metric)) else []
    aside = f" ({'; '.join(said)})" if said else ""
    return f"{value} {metric.name.replace('_', ' ')} on {section.title}{aside}"


def enumerated(words: Sequence[str]) -> str:
    """Return words as a sentence lists them.

    >>> enumerated(["MMLU"]), enumerated(["MMLU", "GSM8K", "SST"])
    ('MMLU', 'MMLU, GSM8K and SST')
    """
    *most, last = words or [""]
    return f"{', '.join(most)} and {last}" if most else last
