"""Where the options of a run come from: an earlier run, a run file, ``--set``, flags; each over the one before."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from harness.config import assignments, configure, merged, read_toml
from harness.errors import ConfigError
from harness.evaluation.plan import RunOptions
from harness.runs.folder import RUN, read_command


def run_options(
    *,
    earlier: Path | None = None,
    file: Path | None = None,
    pairs: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> RunOptions:
    """Put together the options of a run; `flags` that are None or empty were not given.

    Raises ConfigError for what does not fit, with the file and key that it came from where they are known.
    """
    given = {key: value for key, value in (flags or {}).items() if value not in (None, ())}
    filed = merged(_earlier(earlier) if earlier else {}, read_toml(file) if file else {})
    typed = assignments(pairs)
    table, shared = merged(filed, typed), frozenset(filed.keys() - typed.keys() - given.keys())
    own = {field.name for field in dataclasses.fields(RunOptions)} - {"options", "shared", "run_dir", "replace"}
    settings = {key: value for key, value in table.items() if key in own}
    plugins = {key: value for key, value in table.items() if key not in own}
    chosen = configure(RunOptions(), settings, "run")
    try:  # flags have their types from the command line
        return dataclasses.replace(chosen, **given, options=plugins, shared=shared)
    except ValueError as error:
        raise ConfigError(f"run: {error}") from error


def _earlier(path: Path) -> dict[str, Any]:
    """Return the options that a run.json (or its folder) was made with."""
    path = path / RUN if path.is_dir() else path
    if not path.exists():
        raise ConfigError(f"cannot read {path}: No such file or directory")
    command = read_command(path)
    named = {**asdict(command), "options": None, "more": None}
    given = {name: value for name, value in named.items() if value not in (None, "")}
    return {**given, **command.more, **command.options}
