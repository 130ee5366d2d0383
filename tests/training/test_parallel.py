"""Many processes on one CPU: the same training on 1, 2 and 4 ranks, resumed on another number of them.

torchrun starts them where a rank dies; elsewhere the tests start them with the variables that it would set.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.training.checkpoint.manifest import fault
from tests.processes import Ended, run, start

SETTINGS = {
    "sft.prompt_format": "plain",
    "sft.sequence_length": "128",
    "sft.batch_size": "5",  # comes out even on no number of ranks
    "sft.microbatch_size": "2",
    "sft.learning_rate": "3e-3",
    "sft.epochs": "2",
    "sft.validation_documents": "9",
    "sft.validate_every": "4",
    "sft.save_every": "4",
    "sft.log_every": "2",
    "sft.device": "cpu",
}


def words_of(tiny: Path, problems: Path, out: Path, **more: str) -> list[str]:
    settings = {"sft.data": f'["{problems}"]', **SETTINGS, **more}
    words = ["train", "sft", "--model", str(tiny), "--out", str(out)]
    return [*words, *(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))]


def train(ranks: int, tiny: Path, problems: Path, out: Path, **more: str) -> Ended:
    return run(words_of(tiny, problems, out, **more), out.parent / "said", ranks=ranks)


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def curve(out: Path) -> list[tuple[int, Any]]:
    return [(line["step"], line.get("loss", line.get("validation/loss"))) for line in metrics(out)]


def test_any_number_of_ranks_gives_the_same_training(tiny: Path, problems: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    for ranks in (1, 2, 4):
        done = train(ranks, tiny, problems, tmp_path / str(ranks))
        assert done.returncode == 0, done.stderr[-3000:]
    expected = curve(tmp_path / "1")
    assert len(expected) > 6
    for ranks in (2, 4):
        found = curve(tmp_path / str(ranks))
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], abs=1e-4)
        for place in ("last", "best"):
            one: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "1" / place)
            many: Any = AutoModelForCausalLM.from_pretrained(tmp_path / str(ranks) / place)
            for name, tensor in one.state_dict().items():
                torch.testing.assert_close(many.state_dict()[name], tensor, rtol=1e-2, atol=1e-3)


def untied(model: Path, folder: Path) -> Path:
    """Write a model to `folder` whose output layer has weights of its own, and return it."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(model, folder)
    lm: Any = AutoModelForCausalLM.from_pretrained(model)
    lm.config.tie_word_embeddings = False
    lm.lm_head.weight = torch.nn.Parameter(lm.lm_head.weight.detach().flip(0))
    lm.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.02), ("untied", 1e-4)])
def test_a_training_goes_on_with_another_number_of_ranks(
    tiny: Path, problems: Path, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    if dtype == "untied":
        tiny, dtype = untied(tiny, tmp_path / "untied"), "float32"
    more = {"sft.dtype": dtype}
    whole = train(1, tiny, problems, tmp_path / "whole", **more)
    assert whole.returncode == 0, whole.stderr[-3000:]
    out = tmp_path / "out"
    first = train(2, tiny, problems, out, **more)
    assert first.returncode == 0, first.stderr[-3000:]
    for name in ("last", "best"):  # back to where it was before its last save
        (out / name).rename(out / f"{name}.gone")
    second = train(1, tiny, problems, out, **more)
    assert second.returncode == 0, second.stderr[-3000:]
    assert "going on behind step" in second.stderr
    expected = curve(tmp_path / "whole")
    assert [step for step, _ in curve(out)] == [step for step, _ in expected]
    assert [loss for _, loss in curve(out)] == pytest.approx([loss for _, loss in expected], abs=tolerance)


def test_a_rank_that_dies_ends_the_others(tiny: Path, problems: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "harness"]
    words += words_of(tiny, problems, tmp_path / "out", **{"sft.epochs": "10000"})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    errors = process.stderr
    assert errors is not None
    for line in errors:
        if line.startswith("step 4/"):
            break
    [*_, rank] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(rank), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "exitcode  : -9" in said


FULL_DISK = """
import errno, os
import safetensors.torch
import harness.training.checkpoint.background, harness.training.checkpoint.folder, harness.training.checkpoint.weights
from harness.cli import main

real, steps = safetensors.torch.save_file, set()

def save_file(tensors, path, **named):
    if os.environ["RANK"] == "0" and path.name.startswith("model"):
        steps.add(path.parent.stat().st_ino)
        if len(steps) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
    real(tensors, path, **named)

safetensors.torch.save_file = save_file
harness.training.checkpoint.weights._FILE_BYTES = 100_000
if BESIDE == "no":
    harness.training.checkpoint.background.free_memory = lambda: 1000
main()
"""


@pytest.mark.parametrize("beside", ["yes", "no"])
def test_a_disk_that_is_full_for_one_rank_ends_all_with_one_line(
    tiny: Path, problems: Path, tmp_path: Path, beside: str
) -> None:
    """The second save fails on one rank, amid several files: nobody waits for it."""
    more = {"sft.validation_documents": "0", "sft.validate_every": "0"}
    words, script = words_of(tiny, problems, tmp_path / "out", **more), FULL_DISK.replace("BESIDE", repr(beside))
    done = start(words, tmp_path / "said", ranks=2, script=script).ended()
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("harness: ")]
    assert len(lines) == 2 and len(set(lines)) == 1, done.stderr[-3000:]
    assert "No space left on device; free some space and give the same command again" in lines[0]
    assert ("training waits for checkpoints" in done.stderr) == (beside == "no")
    assert fault(tmp_path / "out" / "last") is None and not (tmp_path / "out" / "last.new").exists()
    assert json.loads((tmp_path / "out" / "last" / "training" / "progress.json").read_text())["step"] == 4


def test_adapters_are_trained_on_any_number_of_ranks(tiny: Path, problems: Path, tmp_path: Path) -> None:
    """The frozen model sharded, the adapter too (a rank of it has nothing); interrupted on two ranks, ended on one."""
    from safetensors.torch import load_file

    pytest.importorskip("peft")
    more = {"sft.lora_rank": "1", "sft.learning_rate": "1e-2"}
    for ranks in (1, 2):
        done = train(ranks, tiny, problems, tmp_path / str(ranks), **more)
        assert done.returncode == 0, done.stderr[-3000:]
    (tmp_path / "2" / "last").rename(tmp_path / "2" / "finished")
    done = train(1, tiny, problems, tmp_path / "2", **more)
    assert done.returncode == 0 and "going on behind step" in done.stderr, done.stderr[-3000:]
    assert [loss for _, loss in curve(tmp_path / "2")] == pytest.approx(
        [loss for _, loss in curve(tmp_path / "1")], abs=1e-5
    )
    base, expected = load_file(tiny / "model.safetensors"), load_file(tmp_path / "1" / "last" / "model.safetensors")
    for place in ("last", "finished"):
        found = load_file(tmp_path / "2" / place / "model.safetensors")
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert (found[name] - tensor).abs().max() <= 1e-5
            assert torch.equal(tensor, base[name]) == ("proj" not in name)


def test_a_signal_to_one_rank_stops_all_behind_the_step(tiny: Path, problems: Path, tmp_path: Path) -> None:
    """Long before the next line of metrics; all end with 0, and so would torchrun."""
    quiet = {"sft.epochs": "10000", "sft.log_every": "1000000", "sft.validate_every": "0", "sft.save_every": "3"}
    processes = start(words_of(tiny, problems, tmp_path / "out", **quiet), tmp_path / "said", ranks=2)
    last = tmp_path / "out" / "last"
    while not last.exists() and processes.running():
        time.sleep(0.05)
    os.kill(processes.pids[-1], signal.SIGTERM)
    done = processes.ended()
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the same command goes on from there" in done.stderr
    assert fault(last) is None
