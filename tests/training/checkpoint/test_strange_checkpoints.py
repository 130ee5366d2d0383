"""Training folders that others made, with links and pipes where files are expected: nothing outside is touched."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import RunError
from harness.training.checkpoint.folder import _read_progress
from harness.training.checkpoint.kept import keep_step, remove
from harness.training.checkpoint.manifest import fault, write_manifest
from harness.training.metrics import draw_curves


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "last"
    (folder / "training" / "optimizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "training" / "progress.json").write_text("{}")
    write_manifest(folder)
    return folder


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(path.parent)
        try:
            server.bind(path.name)
        finally:
            os.chdir(before)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is no file"),
        (bind, "is no file"),
        (lambda path: path.symlink_to("/etc/hostname"), "is a symbolic link"),
        (lambda path: path.symlink_to("/tmp"), "is a symbolic link"),
        (lambda path: path.symlink_to("nowhere"), "is a symbolic link"),
    ],
)
@pytest.mark.parametrize("name", ["training/random-00000-of-00001.safetensors", "adapter", "training/optimizer/x"])
def test_what_no_manifest_names_is_no_link_and_no_pipe(
    checkpoint: Path, name: str, make: Callable[[Path], None], said: str
) -> None:
    assert fault(checkpoint) is None
    make(checkpoint / name)
    assert fault(checkpoint) == f"{name} {said}"


def test_a_checkpoint_is_no_link(checkpoint: Path) -> None:
    link = checkpoint.with_name("previous")
    link.symlink_to(checkpoint)
    assert fault(link) == "it is a symbolic link"


@pytest.mark.parametrize("name", ["previous", "step-000001"])
def test_a_link_in_the_place_of_a_checkpoint_goes_and_what_it_leads_to_stays(checkpoint: Path, name: str) -> None:
    outside = checkpoint.with_name("outside")
    outside.mkdir()
    (outside / "mine").write_text("precious")
    checkpoint.with_name(name).symlink_to(outside)
    remove(checkpoint.with_name(name)) if name == "previous" else keep_step(checkpoint, 1, 1, "training")
    assert not checkpoint.with_name(name).is_symlink()
    assert (outside / "mine").read_text() == "precious"
    assert len(list(outside.iterdir())) == 1


@pytest.mark.parametrize(
    "said",
    [
        {"step": -5}, {"step": 1 << 60}, {"tokens": -1}, {"stale": -9}, {"seconds": 1e308}, {"seconds": -1.0},
        {"best": 1.0}, {"best_step": 3}, {"best": 1.0, "best_step": -3}, {"step": "1"}, {"pending": {"a": "x"}},
    ],
)  # fmt: skip
def test_a_training_that_has_come_nowhere_is_one_line(tmp_path: Path, said: dict[str, object]) -> None:
    path = tmp_path / "progress.json"
    path.write_text(json.dumps({"step": 3, "tokens": 10, "best": 1.5, "best_loss": 1.5, "best_step": 2}))
    assert _read_progress(path).step == 3
    path.write_text(json.dumps(said))
    with pytest.raises(RunError, match="cannot read .*progress.json"):
        _read_progress(path)


def write_metrics(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("name", [".curve.png", ".curve.svg", "curve.png", "curve.svg"])
def test_a_picture_is_drawn_through_no_link(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / name).symlink_to("../victim")
    metrics = write_metrics(tmp_path / "made" / "metrics.jsonl", {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0})
    drawn = draw_curves(metrics, tmp_path / "made", "made")
    assert [path.name for path in drawn] == ["curve.png", "curve.svg"]
    assert all(path.is_file() and not path.is_symlink() for path in drawn)
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_picture_of_what_others_measured_is_drawn_in_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    many = {f"validation/x{number}": 1e30 for number in range(3000)} | {f"accuracy/{n}": 1.0 for n in range(3000)}
    path = write_metrics(tmp_path / "metrics.jsonl", {"step": 1, r"validation/$\frac{": 1e9, "loss": 1, **many})
    assert len(draw_curves(path, tmp_path, r"$x_{")) == 2
