"""Final metrics of runs in the trackers that training's go to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.testing.distributions import write_distribution
from tests.conftest import Command

#: A third party's tracker that writes down what it is told, and fails where it is asked to.
NOTES = """
import dataclasses, json
from typing import ClassVar
from harness.hookspecs import hookimpl

@dataclasses.dataclass(frozen=True)
class Notes:
    name: ClassVar[str] = "notes"
    file: str = "notes.jsonl"
    fail: bool = False
    def available(self): return None
    def start(self, run):
        if self.fail: raise OSError("no\\nnetwork")
        return Follow(self.file, run.name)

class Follow:
    def __init__(self, file, name): self.file, self.name = file, name
    def log(self, step, values):
        with open(self.file, "a") as file: print(json.dumps([self.name, step, values]), file=file)
    def close(self): pass

@hookimpl
def harness_trackers(): return [Notes()]
"""
TRACKED = ("--set", 'trackers=["notes"]')


@pytest.fixture
def run(
    tmp_path: Path, gsm8k_data: Path, outputs: Callable[..., Path]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run GSM8K's four questions in a process in which the tracker is installed."""
    site = write_distribution(
        tmp_path / "site",
        "harness-notes",
        entry_points={"harness.trackers": {"notes": "notes"}},
        modules={"notes": NOTES},
    )
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    model = outputs("#### 7", "I cannot tell.", "-5", "#### 3")

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        base = ["run", "-b", "gsm8k", "-e", "replay", "-m", str(model), "--data", str(gsm8k_data)]
        return subprocess.run(
            [sys.executable, "-m", "harness", *base, *words],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return command


def test_metrics_counts_and_speed_are_sent_when_a_run_ends(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert run().returncode == 0, "a run that is not tracked"
    assert run(*TRACKED).returncode == 0
    [folder] = (tmp_path / "runs" / "gsm8k" / "outputs").iterdir()  # trackers are no part of what defines a run
    [(name, step, values)] = [json.loads(line) for line in (tmp_path / "notes.jsonl").read_text().splitlines()]
    assert (name, step) == (f"gsm8k/outputs/{folder.name}", 0)
    timing = json.loads((folder / "timing.json").read_text(encoding="utf-8"))
    assert values.pop("gsm8k/examples_per_second", None) == timing["examples_per_second"]
    for kind in ("prompt", "completion"):
        values.pop(f"gsm8k/{kind}_tokens_per_second", None)
    assert values == {
        "gsm8k/final-number/accuracy": 0.5,
        "gsm8k/last-number/accuracy": 0.5,
        "gsm8k/final-number/unparsed": 0.25,
        "gsm8k/last-number/unparsed": 0.25,
        "gsm8k/truncated": 0.0,
        "gsm8k/failed": 0.0,
    }


def test_a_tracker_that_fails_costs_nothing_but_a_warning(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = run(*TRACKED, "--set", "notes.fail=true")
    assert done.returncode == 0 and "final-number" in done.stdout
    assert "warning: tracker 'notes' failed (no network); the results are in " in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", 'trackers=["nothing"]'], "unknown tracker 'nothing'"),
        ([*TRACKED, "--set", "notes.fiel=x"], "notes has no option 'fiel'; did you mean 'file'?"),
        (["--set", "notes.file=x"], "unknown option or plugin 'notes'"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_done(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, words: list[str], says: str
) -> None:
    done = run(*words)
    assert done.returncode == 2 and says in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_tracker_that_cannot_be_used_is_refused_before_the_model_is_loaded(
    harness: Command, gsm8k_data: Path, outputs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.chdir(tmp_path)
    base = ["run", "-b", "gsm8k", "-e", "replay", "-m", outputs("1", "2", "3", "4"), "--data", gsm8k_data]
    done = harness(*base, "--set", 'trackers=["wandb"]')
    assert (done.code, done.err) == (2, "harness: tracker 'wandb': wandb is not installed: pip install wandb\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_a_run_has_sent(
    harness: Command, gsm8k_data: Path, outputs: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    base = ["run", "-b", "gsm8k", "-e", "replay", "-m", outputs("7", "2000", "-5", "3"), "--data", gsm8k_data]
    words = ["-o", tmp_path / "runs", "--set", "trackers=tensorboard", "--set", f"tensorboard.folder={tmp_path / 'tb'}"]
    assert harness(*base, *words).code == 0
    [folder] = {path.parent for path in (tmp_path / "tb").rglob("events.*")}
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [event.value for event in events.Scalars("gsm8k/last-number/accuracy")] == [0.75]
