"""Where the options of a run come from: an earlier run, a run file, ``--set``, flags; each over the one before."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import asdict

from harness.config import assignments, configure, merged, read_toml
from harness.engines.openai_said import KEY
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
    before, written, typed = _earlier(earlier) if earlier else {}, read_toml(file) if file else {}, assignments(pairs)
    _check_earlier(before, merged(written, typed), earlier)
    filed = merged(before, written)
    table, shared = merged(filed, typed), frozenset(filed.keys() - typed.keys() - given.keys())
    own = {field.name for field in dataclasses.fields(RunOptions)} - {"options", "shared", "run_dir", "replace"}
    settings = {key: value for key, value in table.items() if key in own}
    plugins = {key: value for key, value in table.items() if key not in own}
    chosen = configure(RunOptions(), settings, "run")
    try:  # flags have their types from the command line
        return dataclasses.replace(chosen, **given, options=plugins, shared=shared)
    except ValueError as error:
        raise ConfigError(f"run: {error}") from error


def _check_earlier(before: Mapping[str, Any], now: Mapping[str, Any], path: Path | None) -> None:
    """Raise ConfigError for what a run.json, which others may have made, does not decide unless it is said `now` too.

    That is a server elsewhere, which would get the key, and arguments that vLLM takes as they are, some of which have
    it run code.
    """
    for name, options in before.items():
        said = now.get(name)
        for option in ("base_url", "engine_args") if isinstance(options, Mapping) else ():
            value = options.get(option)
            given = said.get(option) if isinstance(said, Mapping) else None
            if not value or (given and merged({option: value}, {option: given}) == {option: given}):
                continue  # nothing is left of it
            if option == "base_url" and (_own(str(value)) or not os.environ.get(KEY)):
                continue
            why = f"would get {KEY}" if option == "base_url" else "can have vLLM run code"
            raise ConfigError(
                f"{path}: it asks for {name}.{option} = {str(value)[:200]!r}, which {why}; if you trust that, give it "
                f"yourself: --set {name}.{option}=…"
            )


def _own(url: str) -> bool:
    """Whether a server is on this machine, or the one that the environment names."""
    try:
        host = urlsplit(url).hostname or ""
        here = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        here = False
    return here or url.rstrip("/") == os.environ.get("OPENAI_BASE_URL", "").strip().rstrip("/")


def _earlier(path: Path) -> dict[str, Any]:
    """Return the options that a run.json (or its folder) was made with."""
    path = path / RUN if path.is_dir() else path
    if not path.exists():
        raise ConfigError(f"cannot read {path}: No such file or directory")
    command = read_command(path)
    named = {**asdict(command), "options": None, "more": None}
    given = {name: value for name, value in named.items() if value not in (None, "")}
    return {**given, **command.more, **command.options}
