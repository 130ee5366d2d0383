"""Low-rank adapters: the model stays frozen, checkpoints are merged models, and training goes on from the adapter."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from harness.errors import ConfigError
from harness.interfaces import TrainingRun
from harness.models import find_model
from harness.testing.tiny import make_tiny_model
from harness.training.loop import Job, train
from harness.training.model.adapters import adapter_config, add_adapter, join_layers, restore_adapter
from harness.training.model.memory import recompute_activations
from harness.training.model.network import compile_layers, load_network
from harness.training.options import TrainingOptions
from harness.training.parallel import join
from harness.training.session import Session
from harness_sft import SFT
from harness_sft.trainer import nll
from tests.conftest import Command

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


def job(tiny: Path, problems: Path, out: Path, objective: Any = nll, **more: Any) -> Job:
    chosen = SFT(
        data=(str(problems),), prompt_format="plain", sequence_length=128, batch_size=4, microbatch_size=4,
        learning_rate=1e-2, epochs=2, log_every=2, save_every=2, device="cpu", lora_rank=4, **more,
    )  # fmt: skip
    run = TrainingRun(str(tiny), out, {})
    session = Session(chosen, run)
    job = session.job(replace(chosen.prepare(session), objective=objective))
    return replace(job, identity={"made": "by a test"}, card={})


def stopping_at(step: int) -> Any:
    """Return the loss that sends SIGTERM while a step is computed."""
    calls: list[int] = []

    def stopping(network: Any, *words: Any) -> Any:
        calls.extend([1] * network.training)
        if len(calls) == step:
            signal.raise_signal(signal.SIGTERM)
        return nll(network, *words)

    return stopping


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_an_adapter_makes_a_model_of_its_base(harness: Command, tiny: Path, problems: Path, tmp_path: Path) -> None:
    """The same weights as the trainer's own, in the format that it was trained in; anything else is one line."""
    work = job(tiny, problems, tmp_path / "out")
    train(replace(work, card={"prompt_format": "plain", "base_model": str(tiny)}))
    adapter, made = tmp_path / "out" / "last" / "adapter", tmp_path / "made"
    done = harness("merge", adapter, "--out", made)
    assert (done.code, done.out) == (0, f"{made}\n"), done.err
    merged, tuned = weights(made), weights(tmp_path / "out")
    assert merged.keys() == tuned.keys()
    assert all(torch.allclose(merged[name], tuned[name], atol=1e-6) for name in tuned)
    assert json.loads((made / "harness.json").read_text())["prompt_format"] == "plain"
    assert find_model(str(made)).tokenizer.eos_token == find_model(str(tiny)).tokenizer.eos_token
    for words, said in (
        ((adapter, "--out", made), "is there already and not empty"),
        ((tiny, "--out", tmp_path / "b"), "no adapter"),
        ((adapter, "--out", tmp_path / "b", "--base", tmp_path / "none"), "which cannot be read"),
        ((adapter, "--out", tmp_path / "b", "--base", make_tiny_model(tmp_path / "c", hidden=32)), "cannot be merged"),
    ):
        done = harness("merge", *words)
        assert (done.code, done.out) == (2, "") and said in done.err and len(done.err.splitlines()) == 1


def test_a_checkpoint_is_the_merged_model(tiny: Path, problems: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    before = find_model(str(tiny)).digest
    work = job(tiny, problems, tmp_path / "out")
    train(work)
    assert find_model(str(tiny)).digest == before
    base, tuned = weights(tiny), weights(tmp_path / "out")
    assert base.keys() == tuned.keys()
    changed = {name for name in base if not torch.equal(base[name], tuned[name])}
    assert changed == {name for name in base if name.endswith("proj.weight")}
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    network = load_network(str(tiny), work.options, join("cpu"), packed=False)
    restore_adapter(tmp_path / "out" / "last" / "adapter", network.lm)
    ids = torch.arange(50)[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, network.lm(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_the_adapter_is_one_that_peft_reads(tiny: Path, problems: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    train(job(tiny, problems, tmp_path / "out", max_steps=4, lora_targets=("q_proj", "down_proj"), lora_alpha=3))
    base: Any = AutoModelForCausalLM.from_pretrained(tiny)
    adapted: Any = PeftModel.from_pretrained(base, str(tmp_path / "out" / "last" / "adapter"))
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.arange(50)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-4)
    card = json.loads((tmp_path / "out" / "last" / "adapter" / "adapter_config.json").read_text())
    assert (card["r"], card["lora_alpha"], card["target_modules"]) == (4, 3, ["down_proj", "q_proj"])


def test_an_interrupted_adapter_goes_on_to_the_bit(tiny: Path, problems: Path, tmp_path: Path) -> None:
    train(job(tiny, problems, tmp_path / "whole"))
    train(job(tiny, problems, tmp_path / "part", stopping_at(5)))
    assert json.loads((tmp_path / "part" / "last" / "training" / "progress.json").read_text())["step"] == 5
    train(job(tiny, problems, tmp_path / "part"))
    whole, part = weights(tmp_path / "whole"), weights(tmp_path / "part")
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def test_a_layer_that_is_not_there_is_one_line(tiny: Path, problems: Path, tmp_path: Path) -> None:
    for target, reason in (
        ("q_prj", "q_prj"),
        ("embed_tokens", "model.embed_tokens is not a linear layer"),
        ("lm_head", "lm_head is the output layer"),
    ):
        with pytest.raises(ConfigError, match=rf"lora_targets=\['{target}'\]: .*{reason}"):
            train(job(tiny, problems, tmp_path / target, lora_targets=(target,)))


@pytest.fixture
def bitsandbytes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's, when it is first imported
        pytest.importorskip("bitsandbytes")


@pytest.mark.usefixtures("bitsandbytes")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_on_a_base_of_four_bits(tiny: Path, problems: Path, tmp_path: Path, dtype: Any) -> None:
    """It learns, what is saved is the model as trained (base dequantised), and it goes on to the bit."""
    from transformers import AutoModelForCausalLM

    more = {"base_bits": 4, "dtype": dtype, "validation_documents": 8, "validate_every": 4}
    train(job(tiny, problems, tmp_path / "whole", max_steps=8, **more))
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation/loss"] for line in lines if "validation/loss" in line]
    assert len(losses) == 3 and losses == sorted(losses, reverse=True)  # of the same documents

    work = job(tiny, problems, tmp_path / "unused", **more)
    network = load_network(str(tiny), work.options, join("cpu"), packed=True)
    layer: Any = network.lm.model.layers[0].self_attn.q_proj
    assert layer.base_layer.weight.dtype == torch.uint8 and layer.lora_A.default.weight.dtype == getattr(torch, dtype)
    restore_adapter(tmp_path / "whole" / "last" / "adapter", network.lm)
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "whole" / "last")
    assert plain.dtype == getattr(torch, dtype) and not hasattr(plain.config, "quantization_config")
    ids, tolerance = torch.arange(50)[None], 1e-4 if dtype == "float32" else 0.1
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, network.lm(ids).logits, rtol=tolerance, atol=tolerance)

    train(job(tiny, problems, tmp_path / "part", stopping_at(5), max_steps=8, **more))
    train(job(tiny, problems, tmp_path / "part", max_steps=8, **more))
    whole, part = weights(tmp_path / "whole" / "last"), weights(tmp_path / "part" / "last")
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def test_what_is_not_installed_is_one_line(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And said before any weights are loaded: the folder has none."""
    for package, options in (("peft", {}), ("bitsandbytes", {"base_bits": 4})):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(ConfigError, match=f"needs {package}: pip install"):
                load_network("none", TrainingOptions(lora_rank=4, **options), join("cpu"), packed=False)  # type: ignore[arg-type]


def test_a_base_of_four_bits_without_an_adapter_is_refused() -> None:
    with pytest.raises(ValueError, match="base_bits=4 needs lora_rank"):
        TrainingOptions(base_bits=4)


def adapted(tiny: Path, together: bool, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a model whose adapter's second matrices are not 0, and whose first ones are multiplied together or not."""
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    options = TrainingOptions(lora_rank=4, lora_alpha=12)
    with monkeypatch.context() as patch:
        if not together:
            patch.setattr("harness.training.model.adapters._TOGETHER", ())
        add_adapter(lm, adapter_config(options), torch.float32, seed=0)
    draw = torch.Generator().manual_seed(1)
    for name, parameter in lm.named_parameters():
        if ".lora_B" in name:
            parameter.data.copy_(0.05 * torch.randn(parameter.shape, generator=draw))
    return lm


def test_layers_of_one_input_compute_as_peft_does(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, gradients = torch.arange(48).view(2, 24) % 50, []
    for together in (True, False):
        lm = adapted(tiny, together, monkeypatch)
        assert type(lm.model.layers[0].mlp.up_proj).__name__ == ("Together" if together else "Linear")
        lm(ids, labels=ids, use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in lm.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) == 14 * lm.config.num_hidden_layers
    for name, gradient in gradients[1].items():
        assert (gradients[0][name] - gradient).norm() <= 1e-5 * gradient.norm(), name


@pytest.mark.parametrize(
    ("recompute", "compiled"), [("none", False), ("none", True), ("full", True), ("selective", False)]
)
@pytest.mark.filterwarnings("ignore")
def test_joined_layers_compute_as_peft_does(
    tiny: Path, recompute: Any, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and gradients, after the adapters have learned, compiled or recomputed, in fp64."""
    ids, found = torch.arange(48).view(2, 24) % 50, []
    for joined in (True, False):
        lm = adapted(tiny, joined, monkeypatch).double()
        if joined:
            assert join_layers(lm.base_model) == 2 * lm.config.num_hidden_layers
        for parameter in lm.parameters():
            parameter.data.mul_(1 + 0.5 * parameter.requires_grad)
        layers = lm.base_model.layers
        recompute_activations(layers, recompute, narrow=12)
        if compiled:
            torch._dynamo.reset()
            counters.clear()
            compile_layers(layers, backend="aot_eager")
        output = lm(ids, labels=ids, use_cache=False)
        output.loss.backward()
        assert not compiled or (counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"])
        found.append({name: p.grad for name, p in lm.named_parameters() if p.requires_grad} | {"": output.logits})
    assert found[0].keys() == found[1].keys() and len(found[0]) == 1 + 14 * lm.config.num_hidden_layers
    for name, value in found[1].items():
        assert value.norm() > 0 and (found[0][name] - value).norm() <= 1e-12 * value.norm(), name


def test_another_input_is_not_taken_for_the_same(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [adapted(tiny, together, monkeypatch).model.layers[0].self_attn for together in (True, False)]
    first, second = torch.randn(2, 1, 3, layers[0].q_proj.in_features, generator=torch.Generator().manual_seed(0))
    for inputs in ((first, first, second), (first, second, first), (second, second, second)):
        both = [[layer.q_proj(inputs[0]), layer.k_proj(inputs[1]), layer.v_proj(inputs[2])] for layer in layers]
        for one, two in zip(*both, strict=True):
            torch.testing.assert_close(one, two)


@pytest.mark.filterwarnings("ignore")  # of what torch does to compile
def test_compiled_code_of_one_layer_is_that_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all but the first, whose input needs no gradient; torch stops compiling after a few."""
    lm, compiled = adapted(make_tiny_model(tmp_path / "model", layers=5), True, monkeypatch), []

    def count(module: Any, inputs: Any) -> Any:
        compiled.append(module)
        return module.forward

    torch._dynamo.reset()
    for layer in lm.base_model.layers:
        layer.compile(dynamic=False, backend=count)
    lm.base_model(torch.arange(16)[None], use_cache=False).last_hidden_state.sum().backward()
    assert len(compiled) == 2
