"""Small models and adapters against TRL on one GPU, random weights: tokens a second and peak memory.

    python perf/small.py [--only NAME …] [--steps N]

Each row runs in a process of its own, one after the other, on the same GPU. Llamas of the shapes of SmolLM2-135M and
Llama-3.2-1B in rows of 1,024 tokens, all of a step in one microbatch; and adapters of rank 16 beside all linear layers
of Llama-3-8B's shape, in rows of 4,096 tokens, 16,384 tokens a step. Ours is whole steps of the loop, as in
perf/sft.py. "float8" rounds all products but the output layer's; "QLoRA" holds all layers but that one in 4 bits.
Rows of "documents" hold two that must not see each other; "FA4" needs flash-attn-4.
"""

from __future__ import annotations

from beside_trl import PEAK, Bench, shape
from sft import RandomRows, run_ours, run_trl

#: name → (size, tokens a row, rows a step, rows a microbatch, what else)
OURS: dict[str, tuple[str, int, int, int, dict[str, object]]] = {
    "135M, 8 rows": ("135M", 1024, 8, 8, {}),
    "135M, 8 rows, nothing recorded": ("135M", 1024, 8, 8, {"graphs": False}),
    "135M, 32 rows": ("135M", 1024, 32, 32, {}),
    "1.2B, 8 rows": ("1.2B", 1024, 8, 8, {}),
    "1.2B, 8 rows, float8": ("1.2B", 1024, 8, 8, {"float8": "tensorwise"}),
    "1.2B, 32 rows": ("1.2B", 1024, 32, 32, {}),
    "LoRA 8B, 2 x 2": ("8B", 4096, 4, 2, {"lora_rank": 16}),
    "LoRA 8B, 2 x 2, apart": ("8B", 4096, 4, 2, {"lora_rank": 16, "apart": True}),
    "LoRA 8B, auto": ("8B", 4096, 4, 2, {"lora_rank": 16, "memory": "auto"}),
    "LoRA 8B, 4 x 1, full": ("8B", 4096, 4, 4, {"lora_rank": 16, "recompute": "full"}),
    "LoRA 8B, 1 x 4": ("8B", 4096, 4, 1, {"lora_rank": 16}),
    "LoRA 8B, 2 x 2, float8": ("8B", 4096, 4, 2, {"lora_rank": 16, "float8": "tensorwise"}),
    "QLoRA 8B, 2 x 2": ("8B", 4096, 4, 2, {"lora_rank": 16, "base_bits": 4}),
    "LoRA 8B, 2 x 2, documents": ("8B", 4096, 4, 2, {"lora_rank": 16, "documents": 2}),
    "LoRA 8B, 2 x 2, documents, FA4": ("8B", 4096, 4, 2, {"lora_rank": 16, "documents": 2, "flash": "FA4"}),
}
#: name → (size, tokens a row, rows a step, rows a microbatch, rank of adapters, bits of the base below them)
TRL: dict[str, tuple[str, int, int, int, int, int]] = {
    "TRL + Liger 135M, 8 rows": ("135M", 1024, 8, 8, 0, 0),
    "TRL + Liger 135M, 32 rows": ("135M", 1024, 32, 32, 0, 0),
    "TRL + Liger 1.2B, 8 rows": ("1.2B", 1024, 8, 8, 0, 0),
    "TRL + peft + Liger LoRA 8B, 2 x 2": ("8B", 4096, 4, 2, 16, 0),
    "TRL + peft + bitsandbytes + Liger QLoRA 8B, 2 x 2": ("8B", 4096, 4, 2, 16, 4),
}
#: (ours, theirs, the ratio to reach)
RATIOS = [
    ("135M, 8 rows", "TRL + Liger 135M, 8 rows", 2.0),
    ("135M, 32 rows", "TRL + Liger 135M, 32 rows", 1.5),
    ("1.2B, 8 rows", "TRL + Liger 1.2B, 8 rows", 1.2),
    ("1.2B, 8 rows, float8", "TRL + Liger 1.2B, 8 rows", 1.2),
    ("LoRA 8B, 2 x 2", "TRL + peft + Liger LoRA 8B, 2 x 2", 1.5),
    ("LoRA 8B, 2 x 2, float8", "TRL + peft + Liger LoRA 8B, 2 x 2", 1.5),
    ("LoRA 8B, 2 x 2, documents, FA4", "LoRA 8B, 2 x 2, documents", 1.0),
    ("QLoRA 8B, 2 x 2", "TRL + peft + bitsandbytes + Liger QLoRA 8B, 2 x 2", 1.3),
]


def work(name: str, steps: int, layers: int) -> dict[str, float]:
    """Return what the measurement called `name` finds; of a small model all layers are there."""
    from harness.training.model.memory import Shape

    size, width, batch, microbatch, *_ = OURS[name] if name in OURS else TRL[name]
    if name in TRL:
        lengths = [width] * (batch * steps)
        found = run_trl(lengths, microbatch, batch, steps, None, size, lora=TRL[name][4], bits=TRL[name][5])
    else:
        more = dict(OURS[name][4])
        documents = int(str(more.pop("documents", 0)))
        lengths = [width // documents] * documents if documents else [width]
        vocabulary = min(128_000, shape(size=size).vocab_size)
        rows = RandomRows(width, [lengths] * 4096, isolated=documents > 0, vocabulary=vocabulary)
        found = run_ours(rows, microbatch, batch, steps, None, size, **more)
    flops = Shape.of(shape(size=size)).flops(found["tok_s"], found["tok_s"] * width)
    return {**found, "mfu": flops / PEAK}


if __name__ == "__main__":
    Bench(OURS, TRL, (), "tok_s", RATIOS, work).main(__doc__)
