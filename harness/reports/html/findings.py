"""What a report has found, in one sentence a model."""

from __future__ import annotations

from collections.abc import Sequence

from harness.reports.html.survey import Survey
from harness.reports.html.tables import mark
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
        if difference is None or not (kind := mark(difference)):
            continue
        against[difference.against] = None
        unit = "" if said[kind] else "points "
        points = f"{abs(100 * difference.estimate.value):.1f} {unit}on "
        said[kind].append(section.title if kind == "level" else points + section.title)
    if not against:
        return ""
    moved = ", but ".join(
        f"{verb} {enumerated(said[kind])}" for kind, verb in (("better", "gains"), ("worse", "loses")) if said[kind]
    )
    start = f"Against {enumerated(list(against))}, {label} "
    level = enumerated(said["level"])
    if not moved:
        return f"{start}shows no difference that is told from chance, on {level}."
    return f"{start}{moved}{f'; on {level} no difference is told from chance' if said['level'] else ''}."


def _reached(survey: Survey) -> list[str]:
    found = []
    for label in survey.labels:
        figures = []
        for section in survey.sections:
            metric = section.headline
            value = metric.values.get(label) if metric is not None else None
            if metric is not None and value:
                figures.append(f"{percent(value['value'])} {metric.name.replace('_', ' ')} on {section.title}")
        if figures:
            found.append(f"{label} reaches {enumerated(figures)}.")
    return found[:_MOST]


def enumerated(words: Sequence[str]) -> str:
    """Return words as a sentence lists them.

    >>> enumerated(["a"]), enumerated(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    *most, last = words or [""]
    return f"{', '.join(most)} and {last}" if most else last
