"""Measure a language model, tune it, measure it again, and say honestly what changed.

    import harness

    base = harness.evaluate("gsm8k", "base/", limit=100)
    tuned = harness.evaluate("gsm8k", harness.train("sft", "sft.toml", model="base/", out="ckpt/"), limit=100)
    print(harness.describe(harness.compare(base, tuned)))

Importing `harness` loads nothing else: what it offers is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

from harness.version import __version__

if TYPE_CHECKING:
    from harness import errors
    from harness.api import (
        compare,
        describe,
        evaluate,
        export,
        import_outputs,
        judge,
        load_run,
        load_runs,
        report,
        score,
        train,
    )
    from harness.errors import (
        ConfigError,
        DataError,
        HarnessError,
        HarnessWarning,
        ModelError,
        PluginError,
        RunError,
    )
    from harness.registry import Registry
    from harness.runs.folder import Run

__all__ = [
    "ConfigError",
    "DataError",
    "HarnessError",
    "HarnessWarning",
    "ModelError",
    "PluginError",
    "Registry",
    "Run",
    "RunError",
    "__version__",
    "compare",
    "describe",
    "errors",
    "evaluate",
    "export",
    "import_outputs",
    "judge",
    "load_run",
    "load_runs",
    "report",
    "score",
    "train",
]

#: Where what is offered is defined; all else is in `harness.api`.
_PLACES = {
    "harness.errors": [name for name in __all__ if name.endswith(("Error", "Warning"))],
    "harness.registry": ["Registry"],
    "harness.runs.folder": ["Run"],
}


if not TYPE_CHECKING:  # a type checker would take any name for one that is there

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        if name == "errors":
            return import_module("harness.errors")
        place = next((place for place, names in _PLACES.items() if name in names), "harness.api")
        value = globals()[name] = getattr(import_module(place), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
