"""Where the options of a run come from: an earlier run, a run file, ``--set``, flags; each over the one before."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config import assignments, configure, merged, read_toml
from harness.errors import ConfigError
from harness.evaluation.journal import RUN, check_format
from harness.evaluation.plan import RunOptions


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
    table = merged(_earlier(earlier) if earlier else {}, read_toml(file) if file else {}, assignments(pairs))
    own = {field.name for field in dataclasses.fields(RunOptions)} - {"options"}
    settings = {key: value for key, value in table.items() if key in own}
    plugins = {key: value for key, value in table.items() if key not in own}
    chosen = configure(RunOptions(), settings, "run")
    try:  # flags have their types from the command line
        return dataclasses.replace(chosen, **given, options=plugins)
    except ValueError as error:
        raise ConfigError(f"run: {error}") from error


def _earlier(path: Path) -> dict[str, Any]:
    """Return the options that a run.json (or its folder) was made with."""
    path = path / RUN if path.is_dir() else path
    try:
        record = json.loads(path.read_bytes())
        command = dict(record["command"])
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a run.json ({error})") from error
    check_format(record, path)
    tables = command.pop("options")
    return {**{key: value for key, value in command.items() if value is not None}, **tables}
