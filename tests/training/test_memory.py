"""The estimate of memory against what was measured, and what it says of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ModelError
from harness.training.memory import Shape, estimate
from harness.training.options import TrainingOptions
from harness.training.outlook import Outlook


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


def planned(shape: Shape, world: int = 1, width: int = 512, **options: Any) -> dict[str, float]:
    chosen = TrainingOptions(**{"batch_size": 32 * world, **options})
    return estimate(shape, chosen, width, 2, world)


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
    assert found["total"] == pytest.approx(measured, rel=0.02)
    assert found["total"] == pytest.approx(sum(size for name, size in found.items() if name != "total"))


def test_a_small_single_microbatch_peaks_at_its_end(llama: Shape) -> None:
    small = planned(llama, microbatch_size=32, width=16)
    assert small["gradients"] == pytest.approx(2 * llama.parameters / 2**30)
    assert planned(llama, microbatch_size=32)["gradients"] == 0


def test_adapters_take_little_and_four_bits_a_quarter(llama: Shape) -> None:
    full, lora, qlora = (
        planned(llama, microbatch_size=2, **more) for more in ({}, {"lora_rank": 16}, {"lora_rank": 16, "base_bits": 4})
    )
    assert lora["optimizer"] < full["optimizer"] / 100
    assert lora["weights"] == pytest.approx(full["weights"], rel=0.01)
    assert qlora["weights"] == pytest.approx(3.36 + 1.96 + 0.08, rel=0.02)  # 4.1-bit layers, embeddings, adapter


def test_more_precise_moments_take_more(llama: Shape) -> None:
    kinds: list[dict[str, Any]] = [{}, {"moments": "float32"}, {"optimizer": "rmsprop"}]
    sizes = [planned(llama, microbatch_size=2, **more)["optimizer"] / (llama.parameters / 2**30) for more in kinds]
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
        Outlook.of(TrainingOptions(device="cpu"), str(tmp_path), rows=8)
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
    options = TrainingOptions(device="cpu", batch_size=2, warmup=warmup)
    assert Outlook.of(options, str(tiny), rows=8).warmup_text == text
