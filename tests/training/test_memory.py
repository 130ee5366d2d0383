"""The estimate of memory against what was measured, and what it says of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from harness.training.memory import Shape, estimate
from harness.training.options import TrainingOptions


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
