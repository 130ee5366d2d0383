"""The description of an optimizer's state is a pickle that can name nothing but what torch puts there."""

from __future__ import annotations

import builtins
import os
import pickle
import pickletools
import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from harness.errors import RunError
from harness.training.checkpoint.manifest import MANIFEST, fault, write_manifest
from harness.training.checkpoint.optimizer_state import OptimizerReader
from tests.processes import run
from tests.training.test_resume import command, finished

STATE = {
    "layers.0/first": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "layers.0/second": torch.ones(2, 3, dtype=torch.bfloat16),
    "layers.0/residual": torch.full((2, 3), 7, dtype=torch.int16),
    "norm/first": torch.ones(()),
}


class Canary:
    """What calls a function when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(dict(STATE), storage_writer=FileSystemWriter(tmp_path / "optimizer"), no_dist=True)
    return tmp_path / "optimizer"


def described(folder: Path) -> Metadata:
    found: Metadata = pickle.loads((folder / ".metadata").read_bytes())
    return found


def test_what_torch_writes_is_read_as_torch_reads_it(folder: Path) -> None:
    ours, torchs = OptimizerReader(folder).read_metadata(), FileSystemReader(folder).read_metadata()
    for name in ("state_dict_metadata", "storage_data", "planner_data", "version"):
        assert getattr(ours, name) == getattr(torchs, name)
    found = {name: torch.empty_like(tensor) for name, tensor in STATE.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(found, storage_reader=OptimizerReader(folder), no_dist=True)
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "function",
    [os.system, builtins.exec, builtins.getattr, subprocess.Popen, torch.load, torch.hub.load, shutil.rmtree],
)
def test_nothing_that_it_names_is_called(folder: Path, function: Any, protocol: int) -> None:
    canary = folder.parent / "canary"
    words = f"touch {canary}" if function is os.system else str(canary)
    inside = replace(described(folder), planner_data=Canary(function, words))
    for content in (Canary(function, words), inside):
        (folder / ".metadata").write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(RunError, match=r"\.metadata: not what torch writes \(.*\), so it is not read"):
            OptimizerReader(folder)
    assert not canary.exists()


def test_names_with_dots_in_them_lead_nowhere(folder: Path) -> None:
    parts = [b"\x80\x04\x8c\x05torch\x8c\x0fSize.__class__\x93.", b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93."]
    for content in parts:
        (folder / ".metadata").write_bytes(content)
        with pytest.raises(RunError, match="not what torch writes"):
            OptimizerReader(folder)


@pytest.mark.parametrize("name", ["../../secret", "../x.distcp", "/etc/x.distcp", "x", ""])
def test_a_file_elsewhere_is_not_read(folder: Path, name: str) -> None:
    metadata = described(folder)
    for place in metadata.storage_data.values():
        place.relative_path = name
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(RunError, match="it names the file"):
        OptimizerReader(folder)


def test_a_class_of_torchs_is_not_changed(folder: Path) -> None:
    """BUILD on a class would set its attributes: those of a stand-in are set."""
    content = b"\x80\x04\x8c\x29torch.distributed.checkpoint.metadata\x8c\x08Metadata\x93"
    content = content.replace(b"\x8c\x29", b"\x8c%c" % len("torch.distributed.checkpoint.metadata"))
    content += b"N}\x8c\x06canaryK\x01s\x86b."
    assert [opcode.name for opcode, _, _ in pickletools.genops(content)][-2:] == ["BUILD", "STOP"]
    (folder / ".metadata").write_bytes(content)
    with pytest.raises(RunError):
        OptimizerReader(folder)
    assert not hasattr(Metadata, "canary")


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04.", b"\x80\x04N.", b"garbage", b"\x80\x04}.", b"\x80\x04r\xff\xff\xff\x7f."]
)
def test_what_is_no_pickle_of_torchs_is_one_line(folder: Path, content: bytes) -> None:
    (folder / ".metadata").write_bytes(content)
    with pytest.raises(RunError, match="not what torch writes"):
        OptimizerReader(folder)


def test_an_interrupted_training_of_a_stranger_runs_nothing(tiny: Path, problems: Path, tmp_path: Path) -> None:
    out, canary = tmp_path / "out", tmp_path / "canary"
    words = command(tiny, problems, out, epochs="1", save_every="5")
    finished(words, tmp_path)
    (out / "last" / "training" / "optimizer" / ".metadata").write_bytes(
        pickle.dumps(Canary(os.system, f"touch {canary}"))
    )
    (out / "last" / MANIFEST).unlink()
    write_manifest(out / "last")
    shutil.rmtree(out / "previous", ignore_errors=True)
    assert fault(out / "last") is None
    done = run(words, tmp_path / "said")
    assert done.returncode == 2, done.stderr
    [said] = [line for line in done.stderr.splitlines() if "metadata" in line]
    assert "not what torch writes (it names posix.system), so it is not read" in said
    assert said == done.stderr.splitlines()[-1]
    assert not canary.exists()
