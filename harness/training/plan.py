"""What is known of a training before weights are loaded: its steps, its memory, and how it will be computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, ModelError
from harness.files import read_json
from harness.models import ModelFolder
from harness.training.batch import TrainingRows, total_steps
from harness.training.model.choice import CHOSEN, MARGIN, Choice, Ways
from harness.training.model.memory import HOST_SHARE, Shape, estimate, free_memory, offloaded_gib
from harness.training.options import FLOAT8_GRAIN, TrainingOptions
from harness.training.schedule import warmup_steps

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Plan:
    """What can be said of a training of `model` on `rows` before weights are loaded: its steps and its memory.

    `world` devices train together; on each may stand a second model, the `reference`. Asking raises ConfigError for a
    device that is not there, ModelError for a model of unknown or unsuitable type.
    """

    options: TrainingOptions
    model: ModelFolder
    rows: TrainingRows
    world: int = 1
    reference: bool = False

    @cached_property
    def shape(self) -> Shape:
        """The sizes of the model."""
        config = self.model.transformers_config.get_text_config()
        try:
            return Shape.of(config)
        except ModelError as error:
            raise ModelError(f"{self.model}: {error}") from error

    @cached_property
    def device(self) -> torch.device:
        """Where it would run."""
        from harness.training.parallel import device_of

        return device_of(self.options.device)

    @cached_property
    def weight_bytes(self) -> int:
        """The bytes of a weight."""
        from harness.training.model.network import weights_dtype

        return weights_dtype(self.options, self.device).itemsize

    def __str__(self) -> str:
        billions = self.shape.parameters / 1e9
        return f"{self.model} ({billions:.2f}B parameters), {8 * self.weight_bytes}-bit weights on {self.device}"

    @property
    def microbatches(self) -> int:
        """How many microbatches a device computes in the first step."""
        size, first = self.options.microbatch_size, self.rows.step(self.options.batch_size, self.options.seed, 0)
        return sum(1 for _ in self.rows.microbatches(first, size, 0, self.world))

    @property
    def positions(self) -> int:
        """How many tokens a microbatch holds, padding included."""
        return self.rows.batch([], self.options.microbatch_size).input_ids.numel()

    @property
    def steps_text(self) -> str:
        """How many optimizer steps there are, how each is cut, and how many of them are warm-up, in words."""
        steps = total_steps(len(self.rows), self.options)
        cut = f"{self.microbatches} x {self.positions:,} tokens on {self.world} of {self.device.type}"
        warmup = warmup_text(steps, warmup_steps(steps, self.options.warmup))
        return f"{steps:,} of {self.options.batch_size} {self.rows.unit} ({cut}), {warmup}"

    @property
    def reference_gib(self) -> float:
        """What the second model takes."""
        return self.shape.parameters * self.weight_bytes / self.world / 2**30 if self.reference else 0.0

    @property
    def ways(self) -> Ways:
        """The ways to compute it."""
        positions = cache(self.rows.positions)  # which gathers as many rows
        return Ways(self.shape, self.options, positions, self.weight_bytes, self.world, self.reference_gib)

    @property
    def memory_text(self) -> str:
        """What a device needs at its peak, in words (`harness.training.model.memory.estimate`)."""
        memory = estimate(self.shape, self.options, self.positions, self.microbatches, self.weight_bytes, self.world)
        memory = replace(memory, reference=self.reference_gib)
        named = asdict(memory).items()
        parts = ", ".join(f"{name} {value:.1f}" for name, value in named if self.reference or name != "reference")
        away = offloaded_gib(self.shape, self.options, self.weight_bytes, self.world)
        host = f"; on the host {away:.1f} GiB of the optimizer's state" if away else ""
        return f"{memory.total:.1f} GiB a device, estimated: {parts}{host}"


@dataclass(frozen=True)
class Chosen:
    """How a training is computed where the options leave it open, in words too; None is as given."""

    choice: Choice | None
    text: str


def choose(plan: Plan, before: Path) -> Chosen:
    """Return how to compute a training on its GPU; `before` is the training.json that says how it was begun, if it was.

    Raises ConfigError where nothing fits.
    """
    options, device = plan.options, plan.device
    if device.type != "cuda":
        given = f"microbatch_size={options.microbatch_size}, recompute={options.recompute}, offload={options.offload:g}"
        return Chosen(None, f"{given}, as given: memory=auto chooses for a GPU, and this is {device}")
    room, host = MARGIN * free_gib(device, plan.world), HOST_SHARE * host_gib()
    ways = plan.ways
    if not ways.sizes:
        raise _uneven(options, ways.positions(options.batch_size))
    fits = f"{room:.1f} GiB, {MARGIN:.0%} of what is free on {device}"
    kept = _recorded(ways, before)
    if kept is not None and kept.memory.total <= room and kept.offloaded <= host:
        return Chosen(kept, f"{_named(kept, plan)}, as this training was begun; it fits {fits}")
    choice, best = ways.fastest(room, host), ways.fastest(math.inf)
    if choice is None or best is None:
        least = ways.smallest().memory
        away = min(host, least.optimizer) if plan.world == 1 else 0.0
        raise ConfigError(
            f"{options.name}.memory=auto: nothing fits {fits}; the least is {least.total:.1f} GiB, of which the host "
            f"could take {away:.1f}; give {_smaller(options, plan.world)}a smaller model or more GPUs"
        )
    why = "nothing is faster"
    if choice.seconds > best.seconds:
        why = f"the fastest of all would take {best.memory.total:.1f}"
    return Chosen(choice, f"{_named(choice, plan)}: the fastest that fits {fits}; {why}")


def _smaller(options: TrainingOptions, world: int) -> str:
    """Return the option that takes the most off what a training needs, where one is left."""
    if not options.lora_rank:
        return f"{options.name}.lora_rank=16, "
    quantizes = world == 1 and options.float8 == "none" and not options.base_bits
    return f"{options.name}.base_bits=4, " if quantizes else ""


def refuse_uneven(plan: Plan) -> None:
    """Raise ConfigError where float8 cannot multiply the microbatches as they are."""
    if not plan.options.multiplies(plan.positions):
        raise _uneven(plan.options, plan.positions)


def _uneven(options: TrainingOptions, positions: int) -> ConfigError:
    asked = f"{options.name}.float8={options.float8} multiplies {FLOAT8_GRAIN} tokens at a time"
    return ConfigError(
        f"{asked}, and a microbatch has {positions:,}; give a {options.name}.sequence_length divisible by "
        f"{FLOAT8_GRAIN}, not {options.sequence_length}"
    )


def _named(choice: Choice, plan: Plan) -> str:
    said = f"microbatch_size={choice.microbatch_size}, recompute={choice.recompute}"
    return f"{said}, offload={choice.offload:g}" if choice.offload else said


def _recorded(ways: Ways, path: Path) -> Choice | None:
    """Return the choice that a training.json keeps, None where there is none that could be used."""
    with suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
        found: Any = read_json(path)[CHOSEN]
        if isinstance(found, Mapping):
            chosen = replace(ways.options, **{name: found[name] for name in Choice.kept})
            return ways.way(chosen.microbatch_size, chosen.recompute, chosen.offload)
    return None


def free_gib(device: torch.device, world: int) -> float:
    """Return what is free on a GPU in GiB; of several, which must all choose alike, what the smallest has."""
    import torch

    from harness.training.loop import prepare_process

    prepare_process()
    if world == 1:
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0] / 2**30
    sizes = (torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count()))
    return min(sizes) / 2**30 - 1  # what CUDA takes for itself


def host_gib() -> float:
    """Return what is free of the host's memory in GiB; 0 where nothing says so."""
    return (free_memory() or 0) / 2**30


def warmup_text(steps: int, warmup: int) -> str:
    """Return how many of the steps are warm-up, in words.

    >>> warmup_text(40, 2)
    '2 of them warm-up'
    """
    if warmup < steps:
        return f"{warmup:,} of them warm-up"
    reached = "reached at the last alone" if warmup == steps else "not reached"
    return f"all of them warm-up: the peak learning rate is {reached}"
