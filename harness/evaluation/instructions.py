"""What a recorded sample was asked, without the prompt format around it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from harness.calls import question_of
from harness.config import configured
from harness.errors import HarnessError
from harness.evaluation.prompt_file import is_prompt_file
from harness.registry import Registry
from harness.runs.records import RunRecord
from harness.types import Sample


def instructions(record: RunRecord, registry: Registry) -> Callable[[Sample], str]:
    """Return a function from a sample to what was asked, without the prompt format around it.

    Where the benchmark cannot be used here, it is the field ``instruction`` or, without that, the whole prompt.
    """
    if not is_prompt_file(next(iter(record.command.benchmark), "")):
        with suppress(HarnessError):
            benchmark = configured(record.command.options, record.benchmark, registry.benchmark(record.benchmark))
            return lambda sample: question_of(benchmark, sample.example())
    return lambda sample: str(sample.fields.get("instruction", sample.prompt))
