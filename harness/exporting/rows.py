"""A finished run as exports tell of it: what was asked, what came, and what each parser or judge made of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import msgspec

from harness.comparing.per_sample import per_sample
from harness.errors import RunError
from harness.evaluation.instructions import instructions
from harness.registry import Registry
from harness.runs.columns import Recorded
from harness.runs.folder import RUN
from harness.runs.judgements import read_verdicts
from harness.runs.records import RunRecord
from harness.types import Generation, Sample


@dataclass(frozen=True, slots=True)
class Reading:
    """What a parser or a judge made of one output.

    `answer` is the parser's answer or the judge's verdict. `values` are the metrics that are means over samples, as far
    as this sample counts for them. `against` is what a judge compared the output with.
    """

    reader: str
    answer: str | None
    values: Mapping[str, float]
    against: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A sample, what was asked, and what all readers made of the output that count it."""

    sample: Sample
    instruction: str
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class Finished:
    """A finished run with the plugins that say what was asked and what each sample counts for."""

    recorded: Recorded
    registry: Registry

    @property
    def record(self) -> RunRecord:
        """What run.json says."""
        return self.recorded.record

    @property
    def created(self) -> datetime:
        """When the run began; RunError where run.json has no such time."""
        try:
            return datetime.fromisoformat(self.record.created)
        except ValueError as error:
            raise RunError(f"{self.recorded.path / RUN}: 'created' is {self.record.created!r}, not a time") from error

    @property
    def generation(self) -> Generation:
        """How outputs were sampled; RunError where run.json does not say it as this version does."""
        try:
            return msgspec.convert(self.record.identity.generation, Generation)
        except ValueError as error:  # of msgspec, for a key that is no UTF-8 too
            raise RunError(
                f"{self.recorded.path / RUN}: 'generation' is not as this version has it ({error})"
            ) from error

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """The parsers and judges that have figures; RunError where there are none yet."""
        found = tuple(reader for reader, metrics in self.recorded.results.metrics.items() if metrics)
        if not found:
            raise RunError(f"{self.recorded.path} has no figures yet: harness judge {self.recorded.path} --judge MODEL")
        return found

    def rows(self) -> Iterator[Row]:
        """Yield the samples in the benchmark's order; one that no reader has a figure for has no readings."""
        recorded = self.recorded
        scorer = self.registry.scorer(self.record.scorer)
        values = {reader: per_sample(recorded, reader, scorer) for reader in self.readers}
        verdicts = {judge: read_verdicts(recorded.path, judge) for judge in recorded.verdicts}
        asked = instructions(self.record, self.registry)
        for place, sample in enumerate(recorded.samples(range(len(recorded)))):
            readings = []
            for reader, columns in values.items():
                known = {name: float(column[place]) for name, column in columns.items()}
                known = {name: value for name, value in known.items() if not math.isnan(value)}
                said = verdicts.get(reader, {}).get(sample.key)
                answer = sample.answers.get(reader) if said is None else said.verdict
                if known:
                    readings.append(Reading(reader, answer, known, None if said is None else said.against))
            yield Row(sample, asked(sample), tuple(readings))


def file_name(text: str, by: str = "_") -> str:
    """Return a name of a model or benchmark as one part of a path, `by` in the place of what no file system takes.

    >>> file_name("meta-llama/Llama-3:8b", "__"), file_name("..")
    ('meta-llama__Llama-3__8b', '_')
    """
    return re.sub(r'[\[\]<>:"/\\|?*\x00-\x1f]+', by, text).strip(". ") or "_"
