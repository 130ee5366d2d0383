"""metrics.jsonl when a training goes on: later lines go, and what stays is never at risk."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import RunError
from harness.training.metrics import Metrics, read_metrics


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(path: Path, end: str = "") -> str:
    text = "".join(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in range(1, 6)) + end
    path.write_text(text)
    return text


def test_lines_of_steps_to_come_again_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    written(path, '{"step": 6, "lo')
    metrics = Metrics(path, 8, 3, screen=io.StringIO())
    metrics.log(4, {"loss": 7.0})
    metrics.close()
    assert [(line["step"], line["loss"]) for line in lines(path)] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 7.0)]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_where_nothing_is_dropped_the_file_is_only_added_to(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    written(path)
    before = path.stat()
    Metrics(path, 8, 5, screen=io.StringIO()).close()
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_disk_that_is_full_leaves_the_lines_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    before = written(path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match=r"cannot write \S*metrics.jsonl: No space left on device"):
        Metrics(path, 8, 3)
    assert path.read_text() == before


def test_metrics_of_others_are_numbers_by_names_of_some_length(tmp_path: Path) -> None:
    odd = {"a": "x", "b": [1], "c": None, "d": True, "e": 10**400, "f" * 300: 1.0, "loss": 1, "mfu": 0.5}
    path = tmp_path / "metrics.jsonl"
    rows: list[Any] = [{"step": 1, **odd}, {"step": 2**60}, {"step": -1}, {"step": True}, [], {"step": 2}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [(line.step, dict(line.values)) for line in read_metrics(path)] == [(1, {"loss": 1, "mfu": 0.5}), (2, {})]
