"""What a plan says of any training: its model, its steps and its memory, before weights are loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.engines.models import model_folder
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
        """Return that of training `model` on so many rows; ConfigError for a device that is not there."""
        from transformers import AutoConfig

        from harness.training.network import weights_dtype
        from harness.training.parallel import device_of

        config = AutoConfig.from_pretrained(model_folder(model, weights=False), local_files_only=True)
        device, steps = device_of(options.device), total_steps(rows, options)
        return cls(
            model, Shape.of(config.get_text_config()), device, weights_dtype(options, device).itemsize,
            int(os.environ.get("WORLD_SIZE", "1")), steps, warmup_steps(steps, options.warmup),
        )  # fmt: skip

    def memory(self, options: TrainingOptions, width: int) -> dict[str, float]:
        """Return the estimate of the memory on one device, as `harness.training.memory.estimate` does."""
        return estimate(self.shape, options, width, self.weight_bytes, self.world)

    def __str__(self) -> str:
        billions = self.shape.parameters / 1e9
        return f"{self.model} ({billions:.2f}B parameters), {8 * self.weight_bytes}-bit weights on {self.device}"


def memory_text(memory: Mapping[str, float]) -> str:
    """Return an estimate of memory in words."""
    parts = ", ".join(f"{name} {value:.1f}" for name, value in memory.items() if name != "total")
    return f"{memory['total']:.1f} GiB a device, estimated: {parts}"


def shortened(text: str, limit: int) -> str:
    """Return `text` without its middle where it is longer than about `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"
