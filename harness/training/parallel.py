"""Many GPUs: the ranks that torchrun starts, FSDP2 over them, and the few words they exchange.

Words go over gloo, between the CPUs, so that a rank that listens never waits for its GPU.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from harness.errors import ConfigError, RunError

if TYPE_CHECKING:
    from torch import nn

#: How long a rank waits for the others in one exchange of the training, and while all write a checkpoint. A rank that
#: died is noticed at once; this is for one that hangs.
_PATIENCE, _DISK = timedelta(minutes=10), timedelta(hours=2)

#: What libraries say where a rank is not there any more, or does not answer.
_PARTED = re.compile(r"gloo|nccl|connection (?:closed|reset)|timed? ?out", re.IGNORECASE)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; a process by itself is rank 0 of 1.

    `group` is the line over which words go, None for the one that the training itself uses.
    """

    rank: int
    world: int
    device: torch.device
    group: Any = None

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and talks."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Return the elementwise sum of `values` over all ranks, on the device, without waiting for it."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true on any rank; all ranks must ask."""
        return bool(self.ask(int(flag))())

    def ask(self, word: int) -> Callable[[], int]:
        """Begin to find the largest `word` of all ranks, and return what waits for it; all ranks must ask, in turn."""
        if self.world == 1:
            return lambda: word
        words = torch.tensor([word])
        under_way: Any = dist.all_reduce(words, dist.ReduceOp.MAX, group=self.group, async_op=True)

        def answer() -> int:
            under_way.wait()
            return int(words)

        return answer

    def apart(self) -> Ranks:
        """Return the same ranks with a line of their own, over which another thread may talk; all ranks must ask."""
        if self.world == 1:
            return self
        return replace(self, group=dist.new_group(backend="gloo", timeout=_DISK))

    def gathered(self, value: Any) -> list[Any]:
        """Return every rank's `value` (plain data), in the order of the ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, self.group)
        return values


def device_of(name: str) -> torch.device:
    """Return the device that an option means: ``auto``, ``cpu``, ``cuda``, or ``cuda:N``; of many ranks each its own.

    Raises ConfigError for a device that is not there.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    match = re.fullmatch(r"cpu|cuda(?::([0-9]+))?", kind)
    if match is None:  # torch knows others, such as mps and meta, which nothing here is made for
        raise ConfigError(f"device={name}: no such device; give auto, cpu, cuda or cuda:N")
    if kind == "cpu":
        return torch.device(kind)
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    index = local if world > 1 or match[1] is None else int(match[1])
    if index >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError(f"device={name}: {found} GPUs are visible here, and number {index} is wanted")
    return torch.device("cuda", index)


def join(device: str) -> Ranks:
    """Return this process's place, having met the other ranks where torchrun started several.

    `device` is as `device_of` takes it.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = device_of(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world == 1:
        return Ranks(0, 1, chosen)
    if not dist.is_initialized():
        bound = chosen if chosen.type == "cuda" else None
        dist.init_process_group("cpu:gloo,cuda:nccl" if bound else "gloo", timeout=_PATIENCE, device_id=bound)
    return Ranks(dist.get_rank(), dist.get_world_size(), chosen)


@contextmanager
def together() -> Iterator[None]:
    """Say in one line, as RunError, what the libraries raise in here because another rank has ended."""
    try:
        yield
    except RuntimeError as error:
        parted = isinstance(error, dist.DistError) or _PARTED.search(str(error))
        if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not parted:
            raise
        remedy = "what it said stands above; give the same command again to go on"
        raise RunError(f"another rank of this training has ended, or cannot be reached; {remedy}") from error


def leave() -> None:
    """Part from the other ranks."""
    if dist.is_initialized():
        dist.destroy_process_group()


def shard(network: nn.Module, layers: Sequence[nn.Module], ranks: Ranks, *, late: nn.Module | None = None) -> None:
    """Spread the weights of `network` over all ranks with FSDP2: each layer a unit, `late` one, and the rest another.

    These two are gathered once a microbatch and kept through the backward pass. The rest is needed first and its
    gradients come last, so that nothing is computed while it travels; what is `late` travels while layers are computed.
    Gradients are averaged over the ranks in fp32. Two bf16 numbers need no such care: their mean is rounded once.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    policy = MixedPrecisionPolicy(
        reduce_dtype=None if ranks.world == 2 and ranks.device.type == "cuda" else torch.float32
    )
    for module in (*layers, *([late] if late else []), network):
        again = module is not network and module is not late
        unit: Any = fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=again)
        if ranks.device.type == "cuda":
            unit.set_allocate_memory_from_process_group_for_comm(True)  # where NCCL sends from and to without a copy


def whole(tensor: Tensor) -> Tensor:
    """Return a sharded tensor in full (all ranks must ask), any other as it is."""
    full: Any = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor, any other tensor as it is; both share their memory.

    Where a weight is gathered in float8, its part is torchao's wrapper of the tensor that is returned.
    """
    part: Any = getattr(tensor, "to_local", None)
    found: Any = tensor if part is None else part()
    inner: Tensor = getattr(found, "_tensor", found)
    return inner


def assembled(part: Tensor) -> Tensor:
    """Return a tensor of which `part` is this rank's, all parts being of one size; all ranks must ask."""
    from torch.distributed._functional_collectives import all_gather_tensor

    every: Any = dist.group.WORLD
    return all_gather_tensor(part, 0, every)


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """Return `tensor`, whole on every rank, as `model` has it: on its device, and sharded if it is."""
    here: Any = model
    if not hasattr(model, "full_tensor"):
        return tensor.to(model.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(model.device), here.device_mesh, here.placements, src_data_rank=None)


def copied(tensor: Tensor, copy: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the `copy` of a tensor on the host; of a sharded one each rank copies its part, and it stays sharded."""
    here: Any = tensor
    if not hasattr(tensor, "full_tensor"):
        return copy(tensor)
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        copy(here.to_local()), _host_mesh(here.device_mesh.size()), here.placements,
        run_check=False, shape=tensor.shape, stride=tensor.stride(),
    )  # fmt: skip


@functools.cache
def _host_mesh(world: int) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", (world,))


def sent(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers as a tensor on `device`; the host does not wait for the copy to a GPU."""
    here = torch.tensor(values, dtype=dtype)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here
