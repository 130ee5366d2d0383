"""Trackers: TensorBoard, Weights & Biases and trackio, beside what every training and every run leaves on disk.

harness train sft recipe.toml --set 'trackers=["tensorboard", "trackio"]' --set tensorboard.folder=runs/tb
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.calls import foreign
from harness.config import configured
from harness.errors import ConfigError
from harness.hookspecs import hookimpl
from harness.interfaces import Tracker, TrackerRun
from harness.registry import Registry
from harness.types import RunInfo


def configured_trackers(names: Sequence[str], tables: Mapping[str, Any], registry: Registry) -> tuple[Tracker, ...]:
    """Return the trackers called `names`, each with the options that `tables` hold under its name.

    Raises ConfigError for options that do not fit, and for a tracker that cannot be used on this machine: before hours
    of work rather than after them.
    """
    found = []
    for name in dict.fromkeys(names):
        tracker = configured(tables, name, registry.tracker(name))
        with foreign(tracker):
            problem = tracker.available()
        if problem is not None:
            raise ConfigError(f"tracker {name!r}: {problem}")
        found.append(tracker)
    return tuple(found)


@dataclass(frozen=True)
class TensorBoard:
    """Writes event files for TensorBoard, a subfolder of `folder` a run."""

    name: ClassVar[str] = "tensorboard"
    folder: str = "tensorboard"

    def available(self) -> str | None:
        """Return None where TensorBoard is installed, and torch, whose writer it is."""
        return _missing("torch") or _missing("tensorboard")

    def start(self, run: RunInfo) -> TrackerRun:
        """Begin to follow a run."""
        from torch.utils.tensorboard import SummaryWriter

        return _TensorBoardRun(SummaryWriter(f"{self.folder}/{run.name}"))


class _TensorBoardRun:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


@dataclass(frozen=True)
class WandB:
    """Sends metrics to Weights & Biases; `mode` ``offline`` keeps them on disk until `wandb sync`."""

    name: ClassVar[str] = "wandb"
    project: str = "harness"
    mode: str = "online"

    def available(self) -> str | None:
        """Return None where wandb is installed."""
        return _missing("wandb")

    def start(self, run: RunInfo) -> TrackerRun:
        """Begin to follow a run."""
        library: Any = importlib.import_module("wandb")
        started = library.init(project=self.project, name=run.name, config=dict(run.config), mode=self.mode)
        return _Started(started)


@dataclass(frozen=True)
class Trackio:
    """Keeps metrics in trackio's local database, or in a Hugging Face Space called `space`."""

    name: ClassVar[str] = "trackio"
    project: str = "harness"
    space: str | None = None

    def available(self) -> str | None:
        """Return None where trackio is installed."""
        return _missing("trackio")

    def start(self, run: RunInfo) -> TrackerRun:
        """Begin to follow a run."""
        library: Any = importlib.import_module("trackio")
        started = library.init(project=self.project, name=run.name, config=dict(run.config), space_id=self.space)
        return _Started(started)


class _Started:
    """A run of wandb's, or of a library that offers the same."""

    def __init__(self, run: Any) -> None:
        self._run: Any | None = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._run is not None:
            self._run.log(dict(values), step=step)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None


def _missing(package: str) -> str | None:
    try:
        found = importlib.util.find_spec(package) is not None
    except ValueError:  # a module that was put into sys.modules by hand has no specification
        found = True
    return None if found else f"{package} is not installed: pip install {package}"


@hookimpl
def harness_trackers() -> Iterable[Tracker]:
    """Return the trackers ``tensorboard``, ``wandb`` and ``trackio``."""
    return [TensorBoard(), WandB(), Trackio()]
