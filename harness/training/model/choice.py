"""``memory = "auto"``: the fastest way to compute a training that fits its GPU, chosen before weights are loaded.

Three things trade speed for memory and change no result: how many rows are computed at a time, which activations are
kept, and how much of the optimizer's state lies in the host's memory. Of all their combinations that fit, by the
estimate that ``--plan`` shows, the one that would take the least time is chosen. What a step computes, its rows and its
weights, stays as it was given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from harness.training.model.memory import Memory, Shape, estimate, offloaded_gib
from harness.training.options import Recompute, TrainingOptions

#: The key of training.json under which stands how a training is computed; it need not be the same to go on.
CHOSEN = "memory"

#: The share of a GPU's free memory that may be planned with: estimates are off by 2%, and fragments take a per cent.
MARGIN = 0.93

#: How much longer a step takes with activations recomputed (Llama-3-8B's shape on an H200, `perf/sft.py`).
_LONGER: dict[Recompute, float] = {"none": 1.0, "selective": 1.11, "full": 1.2}
#: Of an H100: operations a second of a step, and GiB a second of its own memory and of the link to its host. Choices
#: depend on their ratios alone, which other GPUs share roughly.
_OPERATIONS, _MEMORY, _LINK = 6.3e14, 3700.0, 30.0


@dataclass(frozen=True)
class Choice:
    """How a training is computed: rows of a microbatch, what is recomputed, and the share of the state on the host.

    `memory` is what it takes so, `offloaded` what lies on the host (GiB), and `seconds` about how long a step takes on
    an H100, by which choices are compared.
    """

    microbatch_size: int
    recompute: Recompute
    offload: float
    memory: Memory
    offloaded: float
    seconds: float

    def of(self, options: TrainingOptions) -> TrainingOptions:
        """Return the options with what was chosen in them."""
        return replace(options, **self.record())

    #: What the training's record keeps.
    kept: ClassVar[tuple[str, ...]] = ("microbatch_size", "recompute", "offload")

    def record(self) -> dict[str, Any]:
        """Return what is kept of it for the training to go on."""
        return {name: getattr(self, name) for name in self.kept}


@dataclass(frozen=True)
class Ways:
    """The ways to compute a training of a model of this `shape`, with `options`, on each of `world` GPUs.

    `positions` gives the tokens of a microbatch of so many rows, padding included, and `reference` is the GiB that a
    second model takes.
    """

    shape: Shape
    options: TrainingOptions
    positions: Callable[[int], int]
    weight_bytes: int
    world: int = 1
    reference: float = 0.0

    @property
    def sizes(self) -> list[int]:
        """How many rows a microbatch may have: as many in each of a step, and what float8 can multiply."""
        rows = -(-self.options.batch_size // self.world)
        even = (size for size in range(1, rows + 1) if rows % size == 0)
        return [size for size in even if self.options.multiplies(self.positions(size))]

    def fastest(self, room: float, host: float = math.inf) -> Choice | None:
        """Return the fastest way in `room` GiB of a GPU and `host` GiB of its host's; None where there is none."""
        found = [choice for choice in self._all(room, host) if choice.memory.total <= room]
        return min(found, key=lambda choice: (choice.seconds, choice.memory.total), default=None)

    def smallest(self) -> Choice:
        """Return the way that takes the least of the GPU's memory, the host's left out; there is one for some size."""
        return min(self._all(math.inf, 0.0), key=lambda choice: choice.memory.total)

    def way(self, microbatch_size: int, recompute: Recompute, offload: float) -> Choice:
        """Return a way with what it takes."""
        rows, positions = self.options.batch_size, self.positions(microbatch_size)
        count = -(-rows // (microbatch_size * self.world))
        so = replace(self.options, microbatch_size=microbatch_size, recompute=recompute, offload=offload)
        memory = estimate(self.shape, so, positions, count, self.weight_bytes, self.world)
        memory = replace(memory, reference=self.reference)
        away = offloaded_gib(self.shape, so, self.weight_bytes, self.world)
        trained = self.shape.adapter(so.lora_rank) if so.lora_rank else self.shape.parameters
        moved = (2 * self.shape.parameters + 3 * trained) * self.weight_bytes / self.world / 2**30
        share = 2 / 3 if so.lora_rank else 1.0  # frozen weights have no gradients
        operations = share * self.shape.flops(count * positions, 0)
        seconds = operations / _OPERATIONS * _LONGER[recompute] + count * moved / _MEMORY + away / _LINK
        return Choice(microbatch_size, recompute, offload, memory, away, seconds)

    def _all(self, room: float, host: float) -> Iterator[Choice]:
        """Yield a way for each size of microbatch and recomputation, with what must lie on the host there."""
        for size in self.sizes:
            for recompute in _LONGER:
                way = self.way(size, recompute, 0.0)
                missing, state = way.memory.total - room, way.memory.optimizer
                if missing > 0 and self.world == 1 and state:
                    share = math.ceil(100 * missing / state) / 100
                    most = math.floor(100 * min(host / state, 1.0)) / 100
                    way = self.way(size, recompute, share) if share <= most else way
                yield way
