"""What a plan says of any training: its model, its steps and its memory, before weights are loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.engines.models import model_folder
from harness.errors import ModelError, first_line
from harness.training.batch import total_steps
from harness.training.memory import Shape, estimate
from harness.training.options import TrainingOptions
from harness.training.schedule import warmup_steps

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Outlook:
    """A training to come: `steps` optimizer steps, `warmup` of them rising, on `world` devices like `device`."""

    model: str
    shape: Shape
    device: torch.device
    weight_bytes: int
    world: int
    steps: int
    warmup: int

    @classmethod
    def of(cls, options: TrainingOptions, model: str, rows: int) -> Outlook:
        """Return that of training `model` on so many rows.

        Raises ConfigError for a device that is not there, ModelError for a model of unknown or unsuitable type.
        """
        from harness.training.network import weights_dtype
        from harness.training.parallel import device_of

        shape = _shape(model)
        device, steps = device_of(options.device), total_steps(rows, options)
        return cls(
            model, shape, device, weights_dtype(options, device).itemsize,
            int(os.environ.get("WORLD_SIZE", "1")), steps, warmup_steps(steps, options.warmup),
        )  # fmt: skip

    @property
    def warmup_text(self) -> str:
        """How many of the steps are warm-up, in words."""
        if self.warmup < self.steps:
            return f"{self.warmup:,} of them warm-up"
        reached = "reached at the last alone" if self.warmup == self.steps else "not reached"
        return f"all of them warm-up: the peak learning rate is {reached}"

    def memory(self, options: TrainingOptions, width: int) -> dict[str, float]:
        """Return the estimate of the memory on one device, as `harness.training.memory.estimate` does."""
        return estimate(self.shape, options, width, self.weight_bytes, self.world)

    def __str__(self) -> str:
        billions = self.shape.parameters / 1e9
        return f"{self.model} ({billions:.2f}B parameters), {8 * self.weight_bytes}-bit weights on {self.device}"


def _shape(model: str) -> Shape:
    from transformers import AutoConfig

    folder = model_folder(model, weights=False)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True).get_text_config()
    except Exception as error:  # the library raises whatever its parsers raise: ValueError, OSError, KeyError
        raise ModelError(f"{model}: config.json cannot be used ({first_line(error)}); give another model") from error
    try:
        return Shape.of(config)
    except ModelError as error:
        raise ModelError(f"{model}: {error}") from error


def memory_text(memory: Mapping[str, float]) -> str:
    """Return an estimate of memory in words."""
    parts = ", ".join(f"{name} {value:.1f}" for name, value in memory.items() if name != "total")
    return f"{memory['total']:.1f} GiB a device, estimated: {parts}"


def shortened(text: str, limit: int) -> str:
    """Return `text` without its middle where it is longer than about `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"
