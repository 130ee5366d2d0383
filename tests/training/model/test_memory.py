"""The estimate of memory against what was measured, and what it says of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import ModelError
from harness.models import find_model
from harness.training.data.packing import DocumentRows
from harness.training.data.tokens import Tokens
from harness.training.metrics import peak_flops
from harness.training.model.memory import Memory, Shape, estimate
from harness.training.options import TrainingOptions
from harness.training.plan import Plan


@pytest.fixture
def llama() -> Shape:
    """Llama-3-8B's."""
    from transformers import LlamaConfig

    return Shape.of(
        LlamaConfig(
            vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
            num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=False,
        )
    )  # fmt: skip


def rows_of(count: int) -> DocumentRows:
    """Return so many rows of 16 tokens."""
    ids, offsets = np.zeros(17 * count, np.int32), np.arange(count + 1) * 17
    return DocumentRows(Tokens(ids, offsets, np.ones(count, np.int32), ("made",), (count,), 0, 0, 1), 16)


def planned(shape: Shape, world: int = 1, width: int = 512, **options: Any) -> Memory:
    chosen = TrainingOptions(**{"batch_size": 32 * world, **options})
    count = chosen.batch_size // (chosen.microbatch_size * world)
    return estimate(shape, chosen, chosen.microbatch_size * width, count, 2, world)


@pytest.mark.parametrize(
    ("microbatch", "recompute", "world", "width", "measured"),
    [
        (2, "none", 1, 512, 80.9),
        (16, "none", 1, 512, 111.2),
        (32, "none", 1, 512, 130.6),
        (32, "selective", 1, 512, 90.6),
        (32, "full", 1, 512, 77.0),
        (4, "none", 1, 2048, 111.2),
        (16, "none", 2, 512, 76.1),
        (32, "none", 2, 512, 103.0),
    ],
)
def test_the_estimate_is_what_was_measured(
    llama: Shape, microbatch: int, recompute: str, world: int, width: int, measured: float
) -> None:
    """Peaks of Llama-3-8B's shape on NVIDIA H200 (docs/training.md, `perf/sft.py`), within 2%."""
    found = planned(llama, world, width, microbatch_size=microbatch, recompute=recompute)
    assert found.total == pytest.approx(measured, rel=0.02)
    parts = (found.weights, found.optimizer, found.gradients, found.activations, found.loss)
    assert found.total == pytest.approx(sum(parts))


def test_a_small_single_microbatch_peaks_at_its_end(llama: Shape) -> None:
    small = planned(llama, microbatch_size=32, width=16)
    assert small.gradients == pytest.approx(2 * llama.parameters / 2**30)
    assert planned(llama, microbatch_size=32).gradients == 0


def test_adapters_take_little_and_four_bits_a_quarter(llama: Shape) -> None:
    full, lora, qlora = (
        planned(llama, microbatch_size=2, **more) for more in ({}, {"lora_rank": 16}, {"lora_rank": 16, "base_bits": 4})
    )
    assert lora.optimizer < full.optimizer / 100
    assert lora.weights == pytest.approx(full.weights, rel=0.01)
    assert qlora.weights == pytest.approx(3.36 + 1.96 + 0.08, rel=0.02)  # 4.1-bit layers, embeddings, adapter


def test_more_precise_moments_take_more(llama: Shape) -> None:
    kinds: list[dict[str, Any]] = [{}, {"moments": "float32"}, {"optimizer": "rmsprop"}]
    sizes = [planned(llama, microbatch_size=2, **more).optimizer / (llama.parameters / 2**30) for more in kinds]
    assert sizes == pytest.approx([6, 10, 6])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mamba", "hidden_size": 64}, "a model of type 'mamba' has no num_attention_heads; give a dec"),
        ({"model_type": "unheard-of"}, "config.json cannot be used (.*unheard-of.*); give another model"),
        ({}, "config.json cannot be used (.*); give another model"),
    ],
)
def test_a_model_without_the_sizes_is_one_line(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError) as caught:
        str(Plan(TrainingOptions(device="cpu"), find_model(str(tmp_path)), rows_of(4)))
    [line] = str(caught.value).splitlines()
    before, _, after = message.partition("(.*")
    assert line.startswith(f"{tmp_path}: {before}") and after.rpartition(")")[2] in line


@pytest.mark.parametrize(
    ("warmup", "text"),
    [
        (0, "0 of them warm-up"),
        (0.25, "1 of them warm-up"),
        (4, "all of them warm-up: the peak learning rate is reached at the last alone"),
        (1000, "all of them warm-up: the peak learning rate is not reached"),
    ],
)
def test_a_plan_says_how_much_is_warm_up(tiny: Path, warmup: float, text: str) -> None:
    options = TrainingOptions(device="cpu", batch_size=2, microbatch_size=1, warmup=warmup)
    said = Plan(options, find_model(str(tiny)), rows_of(8)).steps_text
    assert said == f"4 of 2 rows (2 x 16 tokens on 1 of cpu), {text}"


def test_a_reference_beside_the_policy_is_a_model_more(tiny: Path) -> None:
    plans = [Plan(TrainingOptions(device="cpu"), find_model(str(tiny)), rows_of(8), reference=r) for r in (False, True)]
    assert "reference" not in plans[0].memory_text and "reference 0.0" in plans[1].memory_text


_SIZES: dict[str, Any] = {"vocab_size": 300, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("LlamaConfig", {**_SIZES, "hidden_size": 64, "intermediate_size": 96}),
        ("Qwen3Config", {**_SIZES, "hidden_size": 64, "intermediate_size": 96, "head_dim": 64}),
        ("GemmaConfig", {**_SIZES, "hidden_size": 64, "intermediate_size": 96, "head_dim": 32}),
        ("MixtralConfig", {**_SIZES, "hidden_size": 64, "intermediate_size": 96, "num_local_experts": 4}),
        ("GPT2Config", {"vocab_size": 300, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    ],
)
def test_parameters_and_operations_are_those_of_the_model(name: str, sizes: dict[str, Any]) -> None:
    """Counted in the model itself, and by torch, which takes attention for the whole square."""
    import torch
    import transformers
    from torch.utils.flop_counter import FlopCounterMode

    config = getattr(transformers, name)(**sizes)
    models: Any = transformers.AutoModelForCausalLM
    model = models.from_config(config, attn_implementation="eager", experts_implementation="eager")
    shape = Shape.of(config)
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    ids = torch.arange(2 * 48).reshape(2, 48)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    assert shape.flops(ids.numel(), 2 * 2 * 48 * 48) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_gpus_have_the_peaks_of_their_own_names() -> None:
    found = {name: peak_flops(f"NVIDIA {name}") for name in ("H100 80GB HBM3", "H100 PCIe", "L40", "L40S", "L4")}
    assert list(found.values()) == [989e12, 756e12, 181e12, 362e12, 121e12]
    assert peak_flops("NVIDIA A100-SXM4-80GB") == peak_flops("NVIDIA A100 80GB PCIe") == 312e12
    assert peak_flops("NVIDIA H20") is None
