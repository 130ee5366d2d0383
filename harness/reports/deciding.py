"""Which words of an output decided an answer, for a report to mark them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness.calls import explained
from harness.errors import HarnessError
from harness.interfaces import Parser
from harness.registry import Registry
from harness.types import Sample


class Reason(NamedTuple):
    """The rule that read a recorded answer; ``output[start:end]`` decided, both are 0 where no words did."""

    rule: str
    start: int
    end: int


def explaining(names: Iterable[str], registry: Registry) -> Sequence[Parser]:
    """Return those of the parsers called `names` that are installed and can explain their answers."""
    found = []
    for name in names:
        try:
            parser = registry.get("parsers", name)
        except HarnessError:
            continue
        if hasattr(parser, "explain"):
            found.append(parser)
    return found


def reasons(sample: Sample, parsers: Iterable[Parser]) -> dict[str, Reason]:
    """Return by parser why the sample's recorded answers are what they are.

    A parser that by now reads another answer, or fails, has no reason here: it would be the reason of something else.
    """
    found: dict[str, Reason] = {}
    for parser in parsers:
        if sample.error is not None or parser.name not in sample.answers:
            continue
        try:
            answer, rule, start, end, _ = explained(parser, sample.output, sample.example())
        except HarnessError:
            continue
        if answer == sample.answers[parser.name] and isinstance(rule, str):
            lies_within = isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(sample.output)
            found[parser.name] = Reason(rule, start, end) if lies_within else Reason(rule, 0, 0)
    return found
