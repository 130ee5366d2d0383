"""Interrupted trainings end where uninterrupted ones do, to the bit: killed, or asked to stop."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.training.checkpoint.manifest import fault
from tests.processes import Processes, run, start


def command(tiny: Path, problems: Path, out: Path, **more: str) -> list[str]:
    settings = {
        "sft.data": f'["{problems}"]',
        "sft.prompt_format": "plain",
        "sft.sequence_length": "128",
        "sft.batch_size": "4",
        "sft.microbatch_size": "2",
        "sft.learning_rate": "3e-3",
        "sft.epochs": "8",
        "sft.validation_documents": "8",
        "sft.validate_every": "20",
        "sft.save_every": "3",
        "sft.log_every": "2",  # so that checkpoints lie between two lines
        "sft.dtype": "bfloat16",
        "sft.deterministic": "true",
        "sft.device": "cpu",
        **{f"sft.{name}": value for name, value in more.items()},
    }
    words = ["train", "sft", "--model", str(tiny), "--out", str(out)]
    return [*words, *(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))]


def finished(words: list[str], folder: Path) -> str:
    done = run(words, folder / "said")
    assert done.returncode == 0, done.stderr
    return done.stderr


def started(words: list[str], folder: Path, until: str) -> Processes:
    """Start a training and wait until it has made a folder of that name."""
    processes = start(words, folder / "said")
    path = Path(words[words.index("--out") + 1]) / until
    while not path.exists() and processes.running():
        time.sleep(0.02)
    return processes


def outcome(out: Path) -> tuple[Any, ...]:
    """Return all that must be the same: weights and optimizer of last/, weights of best/, and the metrics' lines."""
    from safetensors.torch import load_file
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = FileSystemReader(out / "last" / "training" / "optimizer")
    entries: dict[str, Any] = reader.read_metadata().state_dict_metadata
    state = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in entries.items()}
    load(state, storage_reader=reader, no_dist=True)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "tokens_per", "memory", "mfu")
    kept = [{name: value for name, value in line.items() if not name.startswith(timed)} for line in lines]
    return load_file(out / "last" / "model.safetensors"), state, load_file(out / "best" / "model.safetensors"), kept


def assert_same(first: tuple[Any, ...], second: tuple[Any, ...]) -> None:
    for one, two in zip(first[:-1], second[:-1], strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert first[-1] == second[-1]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_killed_and_stopped_trainings_end_as_if_they_had_not_been(tiny: Path, problems: Path, tmp_path: Path) -> None:
    check_interruptions(tiny, problems, tmp_path)


def check_interruptions(tiny: Path, problems: Path, folder: Path, **more: str) -> None:
    """Kill a training twice and stop another, and hold how they end against one that ran through."""
    finished(command(tiny, problems, folder / "whole", **more), folder)
    expected = outcome(folder / "whole")
    assert expected[-1][-1]["step"] == expected[-1][-2]["step"] > 30

    words = command(tiny, problems, folder / "killed", **more)
    for place in ("last", "previous"):
        processes = started(words, folder, until=place)
        os.kill(processes.pids[0], signal.SIGKILL)
        assert processes.ended().returncode == -signal.SIGKILL
    assert "going on behind step" in finished(words, folder)
    assert_same(outcome(folder / "killed"), expected)

    words = command(tiny, problems, folder / "stopped", **more)
    processes = started(words, folder, until="last")
    os.kill(processes.pids[0], signal.SIGTERM)
    stopped = processes.ended()
    assert stopped.returncode == 0, stopped.stderr
    assert "the same command goes on from there" in stopped.stderr
    assert fault(folder / "stopped" / "last") is None
    done = json.loads((folder / "stopped" / "last" / "training" / "progress.json").read_text())["step"]
    assert f"going on behind step {done}" in finished(words, folder)
    assert_same(outcome(folder / "stopped"), expected)
