"""float8: which layers multiply in it, how far gradients are from exact ones, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import ConfigError
from harness.training.model.float8 import FrozenFloat8, check_float8, to_float8
from harness.training.options import TrainingOptions
from tests.aside import TORCHAO, needs_torchao
from tests.conftest import Command, Done

ADAPTER = TrainingOptions(lora_rank=4, float8="tensorwise")


def test_a_frozen_layer_is_that_of_its_weight_to_float8s_precision() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 32)
    linear.weight.requires_grad_(False)
    rounded = FrozenFloat8(linear)
    inputs = torch.randn(2, 16, 64, requires_grad=True)
    towards = torch.randn(2, 16, 32)
    found, wanted = rounded(inputs), linear(inputs)
    [slope] = torch.autograd.grad((found * towards).sum(), inputs)
    [exact] = torch.autograd.grad((wanted * towards).sum(), inputs)
    assert 0.001 < ((found - wanted).norm() / wanted.norm()).item() < 0.05  # 3 bits behind the first one
    assert 0.001 < ((slope - exact).norm() / exact.norm()).item() < 0.1  # 2 bits
    assert rounded.weight is linear.weight and list(rounded.state_dict()) == ["weight", "bias"]
    with torch.no_grad():
        assert torch.equal(rounded(inputs), wanted)


def test_every_linear_layer_but_the_output_below_an_adapter(tiny: Path) -> None:
    from transformers import AutoModelForCausalLM

    lm: Any = AutoModelForCausalLM.from_pretrained(tiny)
    names = set(lm.state_dict())
    found = to_float8(lm, ADAPTER)
    assert len(found) == 7 * lm.config.num_hidden_layers and not any("lm_head" in name for name in found)
    assert isinstance(lm.model.layers[0].mlp.down_proj, FrozenFloat8)
    assert type(lm.lm_head) is torch.nn.Linear and set(lm.state_dict()) == names


@needs_torchao
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recipe", ["tensorwise", "rowwise"])
def test_layers_that_learn_get_gradients_close_to_exact_ones_and_are_measured_exactly(
    tiny: Path, recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(TORCHAO)
    from transformers import AutoModelForCausalLM

    gradients, losses, measured = [], [], []
    for rounds in (False, True):
        lm: Any = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
        if rounds:
            assert len(to_float8(lm, TrainingOptions(float8=recipe), emulate=True)) == 7 * lm.config.num_hidden_layers
        ids = torch.arange(32)[None] % 50
        loss = lm(ids, labels=ids, use_cache=False).loss
        loss.backward()
        gradients.append({name: parameter.grad for name, parameter in lm.named_parameters()})
        with torch.no_grad():
            measured.append(lm(ids, labels=ids, use_cache=False).loss.item())
        losses.append(loss.item())
    assert losses[0] == measured[0] == measured[1] != losses[1]  # what is only measured is not rounded
    for name, exact in gradients[0].items():
        assert ((gradients[1][name] - exact).norm() / exact.norm()).item() < 0.25, name


def test_what_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_float8(TrainingOptions(), torch.device("cpu"))
    with pytest.raises(ConfigError, match="float8=tensorwise needs a GPU that computes in it"):
        check_float8(ADAPTER, torch.device("cpu"))
    gpu = torch.device("cuda")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "NVIDIA A100")
    with pytest.raises(ConfigError, match="NVIDIA A100 does not compute in float8"):
        check_float8(ADAPTER, gpu)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    check_float8(ADAPTER, gpu)
    with pytest.raises(ConfigError, match="needs compile"):
        check_float8(replace(ADAPTER, compile=False), gpu)
    for name in ("torchao", "torchao.float8"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'posttrain-harness\[float8\]'"):  # before weights are loaded
        check_float8(replace(ADAPTER, lora_rank=0), gpu)
    with pytest.raises(ValueError, match="base_bits=4 and float8=tensorwise exclude each other"):
        replace(ADAPTER, base_bits=4)
    with pytest.raises(ValueError, match="give float8=tensorwise"):
        replace(ADAPTER, float8="rowwise")


def test_microbatches_that_cannot_be_multiplied_are_refused(
    harness: Command, tiny: Path, problems: Path, tmp_path: Path
) -> None:
    """Their tokens count, not a row's: two rows of 104 can be multiplied."""
    words = ["train", "sft", "-m", tiny, "-o", tmp_path / "out", "--plan", "--set", "sft.prompt_format=plain"]
    words += ["--set", f'sft.data=["{problems}"]', "--set", "sft.float8=tensorwise", "--set", "sft.device=cpu"]

    def planned(width: int, rows: int, **more: int) -> Done:
        given = {"sequence_length": width, "microbatch_size": rows, **more}
        return harness(*words, *(part for key, value in given.items() for part in ("--set", f"sft.{key}={value}")))

    refused = planned(104, 1)
    said = "float8=tensorwise multiplies 16 tokens at a time, and a microbatch has 104"
    assert refused.code == 2 and said in refused.err and refused.err.count("\n") == 1
    assert "sequence_length divisible by 16, not 104" in refused.err
    for settings in ({"width": 104, "rows": 2}, {"width": 104, "rows": 1, "lora_rank": 4}, {"width": 128, "rows": 1}):
        assert planned(**settings).code == 0
