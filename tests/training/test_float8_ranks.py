"""Weights gathered in float8 by two ranks: what they learn, and going on from their checkpoints on one rank and on two.

On a CPU numbers are rounded to float8 and multiplied as others are; on two GPUs everything is as a user has it.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.testing.tiny import make_tiny_model
from harness.training.model.float8 import to_float8
from harness.training.options import TrainingOptions
from harness.training.parallel import local
from tests.aside import TORCHAO, needs_torchao
from tests.processes import Processes, start
from tests.training.test_parallel import curve
from tests.training.test_resume import assert_same, command, outcome

pytestmark = [needs_torchao, pytest.mark.filterwarnings("ignore")]
on_each = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")),
    ],
)

#: harness, saying in the end how often a weight was gathered in float8, and how often without a scale found before.
SCRIPT = """
import functools, sys
sys.path.insert(0, TORCHAO)
from torchao.float8.fsdp_utils import WeightWithDynamicFloat8CastTensor as Weight
from harness.cli import main
from harness.training import loop
from harness.training.model import float8, network

if DEVICE == "cpu":
    network.check_float8 = lambda options, device: None
    network.to_float8 = functools.partial(network.to_float8, emulate=True)
if not GATHERS:
    float8.gathers_float8 = lambda options, world: False
gather, leave, scaled = Weight.fsdp_pre_all_gather, loop.leave, []

def counted(self, mesh):
    scaled.append(self._precomputed_scale is not None)
    return gather(self, mesh)

def ended():
    leave()
    print(f"gathered {len(scaled)} without {scaled.count(False)}", file=sys.stderr, flush=True)

Weight.fsdp_pre_all_gather, loop.leave = counted, ended
main()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama of which three ranks can share the first matrices of the MLP evenly, and nothing else."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = make_tiny_model(tmp_path_factory.mktemp("model") / "model")
    models: Any = AutoModelForCausalLM  # untyped
    config = AutoConfig.from_pretrained(folder)
    config.intermediate_size = 192
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models.from_config(config).save_pretrained(folder)
    return folder


class Trainings:
    """Trainings of a model in float8 on one device."""

    def __init__(self, model: Path, data: Path, folder: Path, device: str) -> None:
        self._model, self._data, self._folder, self._device = model, data, folder, device

    def start(self, name: str, *, ranks: int = 2, gathers: bool = True) -> Processes:
        more = {"float8": "tensorwise", "device": self._device, "batch_size": "8", "epochs": "6"}
        words = command(self._model, self._data, self._folder / name, **more)
        script = (
            SCRIPT.replace("TORCHAO", repr(str(TORCHAO)))
            .replace("DEVICE", repr(self._device))
            .replace("GATHERS", repr(gathers))
        )
        return start(words, self._folder / "said", ranks=ranks, script=script)

    def run(self, name: str, *, ranks: int = 2, gathers: bool = True) -> str:
        """Train to the end; weights are gathered in float8, by scales that are there already, or not at all."""
        done = self.start(name, ranks=ranks, gathers=gathers).ended()
        assert done.returncode == 0, done.stderr[-3000:]
        found = re.findall(r"^gathered (\d+) without (\d+)$", done.stderr, re.MULTILINE)
        assert len(found) == ranks
        assert all((int(count) > 0) == (gathers and ranks > 1) and without == "0" for count, without in found)
        return done.stderr

    def back(self, name: str) -> None:
        """Put a training back to where it was before its last save."""
        (self._folder / name / "last").rename(self._folder / name / f"last.{time.monotonic_ns()}")


@on_each
def test_what_is_learned_does_not_depend_on_how_weights_are_gathered(
    model: Path, problems: Path, tmp_path: Path, device: str
) -> None:
    """On a CPU, where the same kernels multiply, to the bit; there also when it goes on on one rank, and on three."""
    trainings = Trainings(model, problems, tmp_path, device)
    for ranks in (2, 1, 3) if device == "cpu" else (2,):
        for gathers in (True, False):
            name = f"gathers {gathers}"
            if (tmp_path / name).exists():
                trainings.back(name)
                assert "going on behind step" in trainings.run(name, ranks=ranks, gathers=gathers)
            else:
                trainings.run(name, ranks=ranks, gathers=gathers)
        ours, theirs = tmp_path / "gathers True", tmp_path / "gathers False"
        if device == "cpu":
            assert_same(outcome(ours), outcome(theirs))
        assert [loss for _, loss in curve(ours)] == pytest.approx([loss for _, loss in curve(theirs)], rel=0.01)


@on_each
def test_killed_trainings_end_as_if_they_had_not_been(model: Path, problems: Path, tmp_path: Path, device: str) -> None:
    trainings = Trainings(model, problems, tmp_path, device)
    trainings.run("whole")
    processes = trainings.start("killed")
    while not (tmp_path / "killed" / "last").exists() and processes.running():
        time.sleep(0.02)
    for pid in processes.pids:
        os.kill(pid, signal.SIGKILL)
    assert processes.ended().returncode == -signal.SIGKILL
    assert "going on behind step" in trainings.run("killed")
    expected = outcome(tmp_path / "whole")
    assert_same(outcome(tmp_path / "killed"), expected)
    weights, state = expected[:2]
    projections = [name for name in weights if "_proj" in name]
    assert projections and all(weights[name].dtype == torch.bfloat16 for name in weights)
    assert all(state[f"{name}/residual"].any() for name in projections)


def test_weights_are_gathered_in_float8_where_all_ranks_have_equal_parts_of_them(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(TORCHAO)
    from torchao.float8.fsdp_utils import WeightWithDynamicFloat8CastTensor
    from transformers import AutoModelForCausalLM

    def gathered(world: int, **more: Any) -> set[str]:
        lm: Any = AutoModelForCausalLM.from_pretrained(model)
        mlp = lm.model.layers[0].mlp
        mlp.up_proj.weight = mlp.gate_proj.weight
        places = [parameter.data_ptr() for parameter in lm.parameters()]
        to_float8(lm, TrainingOptions(**{"float8": "tensorwise", **more}), world=world)
        assert [local(parameter.detach()).data_ptr() for parameter in lm.parameters()] == places
        named = lm.model.layers.named_parameters()
        return {name for name, each in named if isinstance(each, WeightWithDynamicFloat8CastTensor)}

    two = gathered(2)
    assert len(two) == 2 * 7 - 2 and not two & {"0.mlp.gate_proj.weight", "0.mlp.up_proj.weight"}
    assert gathered(3) == {"1.mlp.gate_proj.weight", "1.mlp.up_proj.weight"}
    assert gathered(1) == gathered(2, float8="rowwise") == gathered(2, lora_rank=4) == set()
