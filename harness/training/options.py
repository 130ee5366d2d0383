"""The options that every trainer shares; a trainer's own dataclass inherits them and adds its data's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeAlias

from harness.training.schedule import Schedule

Recompute = Literal["none", "selective", "full"]
Attention = Literal["auto", "flash", "varlen", "sdpa"]
Switch: TypeAlias = bool | Literal["auto"]

#: What the sides of a matrix that is multiplied in float8 must be divisible by.
FLOAT8_GRAIN = 16

_LEAST_EPS = 1e-30  # well above what fp32 makes 0 of
_MOST_SEEDS = 2**63  # whole numbers of TOML and seeds of torch have 64 bits


@dataclass(frozen=True)
class TrainingOptions:
    """What a training trains on and how it goes; a trainer's own options stand behind these.

    Attributes:
        data: files: names, or whatever tables the trainer takes. columns: the names of their columns, where these are
            not the usual ones. prompt_format: how prompts are wrapped; by default what
            `harness.training.data.texts.training_format` chooses. system: a system message, or a file of one, for texts
            without their own. template, chat_template: which of several chat templates, and its arguments.
            sequence_length: tokens of a row, or of a text.
        on_bad_rows: whether a row that cannot be used refuses its file, or is left out and counted (``skip``).
        against, against_data: benchmarks whose items the data is searched for before training, thirteen words in a row,
            and the folder of their data, by default the hub; what is found is said, and recorded in harness.json.
        epochs: passes over the data. max_steps: stop earlier, after so many optimizer steps (the schedule ends there).
        batch_size: rows (of pairs, for preference data) an optimizer step, over all GPUs; the last step of an epoch may
            have fewer. microbatch_size: rows that one GPU computes at a time; it changes speed and memory alone.
        optimizer, learning_rate, schedule, warmup (a share of the steps below 1, else a number of steps), weight_decay
            (matrices only), betas and eps (AdamW), alpha (RMSprop), moments (dtype of their averages), clip (largest
            norm of the gradient; 0 for none).
        dtype: of the weights; ``auto`` is bfloat16 on a GPU and float32 on a CPU. The fp32 masters of bfloat16 weights
            are exact.
        device: ``auto`` takes a GPU where there is one. attention: ``auto`` takes the fastest that keeps documents
            apart. compile: whether layers are compiled; ``auto`` on a GPU only. graphs: whether microbatches are
            recorded as CUDA graphs and replayed; ``auto`` on a single GPU with memory to spare.
        recompute: which activations are computed anew in the backward pass instead of kept. offload: the share of the
            optimizer's state that lies in the host's memory, from 0 to 1. memory: whether these two and
            microbatch_size are as given, or the fastest that fit the GPU (``auto``).
        deterministic: slower kernels whose results repeat to the bit; on a CPU they always do.
        lora_rank: rank of low-rank adapters that are trained in place of the weights, 0 for none; they are scaled by
            lora_alpha / lora_rank, and lora_targets names the layers that get one, by default all linear ones.
        float8: multiply matrices in float8 (Hopper, Ada and newer), each scaled by its largest element (``tensorwise``)
            or row by row (``rowwise``); weights, masters and validations stay as they are.
        base_bits: 4 holds the frozen base of the adapters in 4 bits (QLoRA: NF4, double quantisation), 0 in dtype.
        validate_every, save_every, log_every: steps between; validation and saving also come at the end, and 0 means
            only then. patience: stop after so many validations in a row that are not the best so far, 0 for never.
        keep: which checkpoints stay beside last/ and best/, as step-000200/: the newest so many of those saved, ``all``
            of them, those of a list of steps, or those at the end of each epoch (``epochs``), which are saved, and
            validated, too.
        seed: of the order of the data.
    """

    #: What users type: the trainer's name, and that of the table of its options.
    name: ClassVar[str]

    #: Options that decide how fast a training goes and what it tells, not where it ends but for rounding, and those of
    #: which a digest says more: a training that was interrupted may be resumed with others, on another device as long
    #: as dtype comes to the same there.
    free: ClassVar[frozenset[str]] = frozenset(
        {
            "data", "columns", "prompt_format", "system", "template", "chat_template", "on_bad_rows", "against",
            "against_data", "device", "microbatch_size", "attention", "compile", "graphs", "recompute", "offload",
            "memory", "deterministic", "save_every", "keep", "log_every",
        }
    )  # fmt: skip

    data: tuple[str | Mapping[str, Any], ...] = ()
    against: tuple[str, ...] = ()
    against_data: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    prompt_format: str | None = None
    system: str | None = None
    template: str | None = None
    chat_template: Mapping[str, Any] = field(default_factory=dict)
    sequence_length: int = 2048
    on_bad_rows: Literal["refuse", "skip"] = "refuse"
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
    compile: Switch = "auto"
    graphs: Switch = "auto"
    recompute: Recompute = "none"
    offload: float = 0.0
    memory: Literal["given", "auto"] = "given"
    deterministic: bool = False
    lora_rank: int = 0
    lora_alpha: int = 16
    lora_targets: tuple[str, ...] = ()
    base_bits: Literal[0, 4] = 0
    float8: Literal["none", "tensorwise", "rowwise"] = "none"
    validate_every: int = 0
    patience: int = 0
    save_every: int = 0
    keep: int | Literal["all", "epochs"] | tuple[int, ...] = 0
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (option.name for option in fields(self)):
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    raise ValueError(f"{name} must be finite, not {number}")
        for name in ("sequence_length", "epochs", "batch_size", "microbatch_size", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("validate_every", "save_every", "warmup", "weight_decay", "clip", "lora_rank", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if not 0 <= self.offload <= 1:
            raise ValueError(f"offload is a share of the optimizer's state, from 0 to 1, not {self.offload}")
        if isinstance(self.keep, int) and self.keep < 0:
            raise ValueError(f"keep must be 0 or more, not {self.keep}")
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
        if self.base_bits and self.float8 != "none":
            raise ValueError(
                f"base_bits={self.base_bits} and float8={self.float8} exclude each other; give one of them"
            )
        if self.lora_rank:
            if self.float8 == "rowwise":
                raise ValueError("float8=rowwise has no frozen layers; below an adapter give float8=tensorwise")
            return
        if self.base_bits:
            raise ValueError(f"base_bits={self.base_bits} needs lora_rank: 4-bit weights are frozen beside an adapter")
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in ("lora_alpha", "lora_targets") and value != option.default:
                raise ValueError(f"{option.name}={value} needs lora_rank: without one there is no adapter")

    def multiplies(self, tokens: int) -> bool:
        """Whether microbatches of so many tokens can be multiplied: float8 sums over them where weights learn."""
        return self.float8 == "none" or bool(self.lora_rank) or tokens % FLOAT8_GRAIN == 0

    def identity(self) -> dict[str, Any]:
        """Return the options on which it depends where a training ends."""
        return {name: value for name, value in asdict(self).items() if name not in self.free}
