"""What every plugin promises, whatever its kind."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from harness.config import configure, options_of
from harness.testing.conformance.check import Check, require
from harness.testing.conformance.fresh_process import in_fresh_process
from harness.testing.conformance.subject import Subject

#: What takes seconds to import, and is to be imported inside the functions that need it.
_HEAVY = (
    "datasets",
    "jax",
    "matplotlib",
    "pandas",
    "pyarrow",
    "sklearn",
    "tensorflow",
    "torch",
    "transformers",
    "vllm",
)


def it_loads(subject: Subject) -> None:
    """Its module is imported, its hook gives an object of its name, and that has all that its interface names."""
    require(subject.plugin.name == subject.name, f"its name is {subject.plugin.name!r}, not {subject.name!r}")


def importing_it_is_light(subject: Subject) -> None:
    """It imports no heavy library before it is used, so that commands start at once."""
    found = in_fresh_process(subject, "all_kinds.heavy_modules")
    require(not found, f"importing it imports {', '.join(found)}; import these inside the functions that need them")


def heavy_modules(subject: Subject) -> list[str]:
    """Return the heavy libraries that importing the plugin imports; runs in a new process."""
    subject.registry.get(subject.kind, subject.name)
    return [name for name in _HEAVY if name in sys.modules]


def options_come_back_from_a_file(subject: Subject) -> None:
    """Its options are JSON data, and giving it these again gives an equal plugin: runs are recorded and repeated so."""
    plugin = subject.plugin
    if not dataclasses.is_dataclass(plugin):
        return
    options = options_of(plugin)
    try:
        written: dict[str, Any] = json.loads(json.dumps(options))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"its options cannot be written as JSON: {error}") from None
    again = configure(plugin, written, subject.name)
    require(again == plugin, f"its options {options} give another plugin when they are read back: {options_of(again)}")


CHECKS = [Check(it_loads), Check(importing_it_is_light), Check(options_come_back_from_a_file)]
