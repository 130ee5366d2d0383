"""Recipes: what `harness train` is given, from a run file, ``--set`` and flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config import assignments, configure, merged, read_toml
from harness.errors import ConfigError, nearest
from harness.files import expanded
from harness.interfaces import Trainer, TrainingRun
from harness.registry import Registry
from harness.trackers.libraries import configured_trackers


@dataclasses.dataclass(frozen=True)
class _Settings:
    model: str = ""
    out: str = ""
    trackers: tuple[str, ...] = ()


def read_recipe(
    name: str,
    registry: Registry,
    *,
    file: Path | None = None,
    pairs: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> tuple[Trainer, TrainingRun]:
    """Return the trainer called `name` with its options put in, and the run it is to do.

    Top-level keys are ``model``, ``out`` and ``trackers``; tables are options of the trainer and the trackers. Raises
    ConfigError for what does not fit or is missing.
    """
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    table = merged(read_toml(file) if file else {}, assignments(pairs), given)
    own = {field.name for field in dataclasses.fields(_Settings)}
    settings = configure(_Settings(), {key: value for key, value in table.items() if key in own}, "train")
    trainer: Trainer = registry.trainer(name)
    for key in table.keys() - own - {name, *settings.trackers}:
        raise ConfigError(f"unknown option or plugin {key!r}{nearest(key, [*own, name, *settings.trackers])}")
    for key in ("model", "out"):
        if not getattr(settings, key):
            raise ConfigError(f"no {key} given: --{key} FOLDER, or {key} = in the recipe")
    trackers = configured_trackers(settings.trackers, table, registry)
    trainer = configure(trainer, _table(table, name), name)
    return trainer, TrainingRun(settings.model, expanded(settings.out), table, trackers)


def _table(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    options = table.get(name, {})
    if not isinstance(options, Mapping):
        raise ConfigError(f"options of {name!r} are given as {name}.OPTION=VALUE, not {name}={options}")
    return options
