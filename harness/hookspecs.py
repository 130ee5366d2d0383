"""The hooks that a plugin implements, one for each kind.

A plugin is a module with one or more of these functions, marked with `hookimpl`, and an entry point in the group of its
kind whose name is the name that users type::

    [project.entry-points."harness.benchmarks"]
    gsm8k = "harness_gsm8k"

Hooks give objects; the harness then calls plain methods on them (see `harness.interfaces`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from harness.interfaces import Benchmark, Engine, Format, Parser, Scorer, Tracker, Trainer

hookspec = pluggy.HookspecMarker("harness")
hookimpl = pluggy.HookimplMarker("harness")


@hookspec
def harness_benchmarks() -> Iterable[Benchmark]:  # type: ignore[empty-body]  # a specification has no body
    """Return the benchmarks that this module provides (entry-point group ``harness.benchmarks``)."""


@hookspec
def harness_parsers() -> Iterable[Parser]:  # type: ignore[empty-body]
    """Return the parsers that this module provides (entry-point group ``harness.parsers``)."""


@hookspec
def harness_scorers() -> Iterable[Scorer]:  # type: ignore[empty-body]
    """Return the scorers that this module provides (entry-point group ``harness.scorers``)."""


@hookspec
def harness_trainers() -> Iterable[Trainer]:  # type: ignore[empty-body]
    """Return the trainers that this module provides (entry-point group ``harness.trainers``)."""


@hookspec
def harness_engines() -> Iterable[Engine]:  # type: ignore[empty-body]
    """Return the engines that this module provides (entry-point group ``harness.engines``)."""


@hookspec
def harness_trackers() -> Iterable[Tracker]:  # type: ignore[empty-body]
    """Return the trackers that this module provides (entry-point group ``harness.trackers``)."""


@hookspec
def harness_formats() -> Iterable[Format]:  # type: ignore[empty-body]
    """Return the formats of recorded outputs that this module provides (entry-point group ``harness.formats``)."""
