"""Trackers: TensorBoard's files read back by TensorBoard; the others' calls, on stand-ins of their libraries."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.registry import Registry
from harness.trackers.libraries import TensorBoard, Trackio, WandB
from harness.training.recipe import read_recipe
from harness.types import RunInfo

LINES = [(1, {"loss": 2.5, "learning_rate": 0.1}), (2, {"loss": 1.5})]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = TensorBoard(str(tmp_path)).start(RunInfo("first"))
    for step, values in LINES:
        run.log(step, values)
    run.close()
    run.close()
    events = EventAccumulator(str(tmp_path / "first"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.5), (2, 1.5)]


class Library(ModuleType):
    """A stand-in for wandb and trackio: notes how it is called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[Any] = []

    def init(self, **options: Any) -> Library:
        self.calls.append(options)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append((step, values))

    def finish(self) -> None:
        self.calls.append("finish")


@pytest.mark.parametrize(
    ("tracker", "options"),
    [(WandB("p", "offline"), {"mode": "offline"}), (Trackio("p", "me/space"), {"space_id": "me/space"})],
)
def test_metrics_reach_the_library(tracker: Any, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tracker.name)
    monkeypatch.setitem(sys.modules, tracker.name, library)
    run = tracker.start(RunInfo("first", {"seed": 1}))
    for step, values in LINES:
        run.log(step, values)
    run.close()
    run.close()
    assert library.calls == [{"project": "p", "name": "first", "config": {"seed": 1}, **options}, *LINES, "finish"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_one_line_before_anything_is_loaded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    flags = {"model": "nowhere", "out": "nowhere"}
    with pytest.raises(ConfigError, match=f"tracker '{name}': {name} is not installed: pip install {name}"):
        read_recipe("sft", Registry(), pairs=[f"trackers={name}"], flags=flags)
