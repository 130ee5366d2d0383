"""The options that every trainer shares; a trainer's own dataclass inherits them and adds its data's."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from harness.training.schedule import Schedule

Recompute = Literal["none", "selective", "full"]
Attention = Literal["auto", "flash", "varlen", "sdpa"]

_LEAST_EPS = 1e-30  # well above what fp32 makes 0 of
_MOST_SEEDS = 2**63  # whole numbers of TOML and seeds of torch have 64 bits


@dataclass(frozen=True)
class TrainingOptions:
    """How a training goes, whatever it trains on.

    Attributes:
        epochs: passes over the data. max_steps: stop earlier, after so many optimizer steps (the schedule ends there).
        batch_size: rows (of pairs, for preference data) an optimizer step, over all GPUs; the last step of an epoch may
            have fewer. microbatch_size: rows that one GPU computes at a time; it changes speed and memory alone.
        optimizer, learning_rate, schedule, warmup (a share of the steps below 1, else a number of steps), weight_decay
            (matrices only), betas and eps (AdamW), alpha (RMSprop), moments (dtype of their averages), clip (largest
            norm of the gradient; 0 for none).
        dtype: of the weights; ``auto`` is bfloat16 on a GPU and float32 on a CPU. The fp32 masters of bfloat16 weights
            are exact.
        device: ``auto`` takes a GPU where there is one. attention: ``auto`` takes the fastest that keeps documents
            apart. compile: whether layers are compiled; ``auto`` on a GPU only.
        recompute: which activations are computed anew in the backward pass instead of kept.
        deterministic: slower kernels whose results repeat to the bit; on a CPU they always do.
        lora_rank: rank of low-rank adapters that are trained in place of the weights, 0 for none; they are scaled by
            lora_alpha / lora_rank, and lora_targets names the layers that get one, by default all linear ones.
        base_bits: 4 holds the frozen base of the adapters in 4 bits (QLoRA: NF4, double quantisation), 0 in dtype.
        validate_every, save_every, log_every: steps between; validation and saving also come at the end, and 0 means
            only then. patience: stop after so many validations in a row that are not the best so far, 0 for never.
        seed: of the order of the data.
    """

    epochs: int = 1
    max_steps: int | None = None
    batch_size: int = 32
    microbatch_size: int = 8
    optimizer: Literal["adamw", "rmsprop"] = "adamw"
    learning_rate: float = 2e-5
    schedule: Schedule = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    alpha: float = 0.99
    moments: Literal["auto", "bfloat16", "float32"] = "auto"
    clip: float = 1.0
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    device: str = "auto"
    attention: Attention = "auto"
    compile: bool | Literal["auto"] = "auto"
    recompute: Recompute = "none"
    deterministic: bool = False
    lora_rank: int = 0
    lora_alpha: int = 16
    lora_targets: tuple[str, ...] = ()
    base_bits: Literal[0, 4] = 0
    validate_every: int = 0
    patience: int = 0
    save_every: int = 0
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    raise ValueError(f"{name} must be finite, not {number}")
        for name in ("epochs", "batch_size", "microbatch_size", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("validate_every", "save_every", "warmup", "weight_decay", "clip", "lora_rank", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if not 0 <= self.seed < _MOST_SEEDS:
            raise ValueError(f"seed must be from 0 to {_MOST_SEEDS - 1}, not {self.seed}")
        if self.warmup > 1 and self.warmup % 1:
            raise ValueError(f"warmup must be a share below 1 or a whole number of steps, not {self.warmup}")
        self._check_adapter()
        if self.patience and not self.validate_every:
            raise ValueError(f"patience={self.patience} needs validate_every: it counts validations")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, not {self.max_steps}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")
        if self.eps < _LEAST_EPS:
            raise ValueError(f"eps must be at least {_LEAST_EPS}, not {self.eps}: where gradients are 0 it divides")
        if not all(0 <= beta < 1 for beta in (*self.betas, self.alpha)):
            raise ValueError("betas and alpha must be in [0, 1)")

    def _check_adapter(self) -> None:
        if self.lora_alpha < 1:
            raise ValueError(f"lora_alpha must be at least 1, not {self.lora_alpha}")
        if self.lora_rank:
            return
        if self.base_bits:
            raise ValueError(f"base_bits={self.base_bits} needs lora_rank: 4-bit weights are frozen beside an adapter")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("lora_alpha", "lora_targets") and value != field.default:
                raise ValueError(f"{field.name}={value} needs lora_rank: without one there is no adapter")


#: Options that decide how fast a training goes and what it tells, not where it ends but for rounding: a training that
#: was interrupted may be resumed with others, on another device as long as dtype comes to the same there.
FREE = frozenset(
    {"microbatch_size", "device", "attention", "compile", "recompute", "save_every", "log_every", "deterministic"}
)
