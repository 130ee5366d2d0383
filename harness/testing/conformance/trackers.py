"""What a tracker promises: it takes any number at any step, and can be closed twice."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from unittest import SkipTest

from harness.interfaces import TrackerRun
from harness.testing.conformance.check import Check, quoted, require
from harness.testing.conformance.subject import Subject
from harness.types import RunInfo

#: What a training's recipe looks like.
_CONFIG = {
    "model": "base/",
    "trackers": ["this", "that"],
    "sft": {"learning_rate": 2e-5, "data": ["a.jsonl", "b.jsonl"], "lora_rank": None, "nested": {"deep": True}},
}


def it_says_whether_it_can_be_used(subject: Subject) -> None:
    """Asked whether it can be used here, it answers None or one line with the reason."""
    reason = subject.plugin.available()
    good = reason is None or (isinstance(reason, str) and reason.strip() and "\n" not in reason)
    require(good, f"available() gives {quoted(reason)}, not None or one line")


def a_run_is_followed(subject: Subject) -> None:
    """A run is started, told numbers at rising steps, and closed; a second run after it as well."""
    for name in ("first", "second run: \u00e9"):
        with _run(subject, name) as run:
            for step in range(1, 6):
                run.log(step, {"loss": 1 / step, "validation/loss": 0.5, "learning_rate": 1e-5})
            run.close()


def a_run_without_options_or_numbers_is_followed(subject: Subject) -> None:
    """A run that is told nothing, or has no configuration, can be closed."""
    with _run(subject, "nothing") as run:
        run.close()
    with _run(subject, "no-config", bare=True) as run:
        run.log(1, {})
        run.close()


def any_number_can_be_told(subject: Subject) -> None:
    """Infinite and undefined numbers, whole numbers, and more than one call at a step raise nothing."""
    with _run(subject, "odd") as run:
        run.log(1, {"loss": math.nan, "gradient_norm": math.inf, "least": -math.inf})
        run.log(1, {"tokens": 10**12, "loss": 5e-324})
        run.log(10**9, {"a/b c.d": -0.0})
        run.close()


def closing_twice_is_safe(subject: Subject) -> None:
    """A run can be closed, and closed again."""
    with _run(subject, "closed") as run:
        run.log(1, {"loss": 1.0})
        run.close()
        run.close()


@contextmanager
def _run(subject: Subject, name: str, *, bare: bool = False) -> Iterator[TrackerRun]:
    """Start a run in a folder that is thrown away, as trackers write where they are; close it if anything is raised."""
    if (reason := subject.plugin.available()) is not None:
        raise SkipTest(f"it cannot be used here: {reason}")
    before = os.getcwd()
    os.chdir(subject.new_folder())
    try:
        run: TrackerRun = subject.plugin.start(RunInfo(name, {} if bare else _CONFIG))
        require(callable(getattr(run, "log", None)), f"start() gives {run!r}, which has no log()")
        try:
            yield run
        except BaseException:
            with suppress(Exception):
                run.close()
            raise
    finally:
        os.chdir(before)


CHECKS = [
    Check(it_says_whether_it_can_be_used),
    Check(a_run_is_followed),
    Check(a_run_without_options_or_numbers_is_followed),
    Check(any_number_can_be_told),
    Check(closing_twice_is_safe),
]
