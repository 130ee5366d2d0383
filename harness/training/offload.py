"""The optimizer's state in the host's memory: which of it, and how a GPU works on it.

Where the state of a training does not fit on the GPU, a share of it lies in pinned memory of the host. The optimizer's
kernel reads and writes it there, over the link between the two, while it works on what lies on the GPU. So nothing is
copied to and fro, numbers are the same to the bit, and a step takes longer by what the link needs beyond that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.errors import ConfigError
from harness.training.model.memory import HOST_SHARE, free_memory, states

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from harness.training.options import TrainingOptions


def offloaded(sizes: Mapping[str, int], share: float) -> set[str]:
    """Return names of which the sizes come to about `share` of all, spread evenly over those of one size.

    >>> sorted(offloaded({"a": 2, "b": 2, "c": 8, "d": 2, "e": 2}, 0.25))
    ['a', 'e']
    """
    found: set[str] = set()
    seen = taken = 0
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):  # the small ones make up for the large ones
        seen += size
        if size and taken + size <= share * seen:  # of a small tensor some ranks have nothing
            found.add(name)
            taken += size
    return found


def on_host(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """Return zeros like a parameter in the host's memory, where the parameter's GPU reaches them."""
    import torch

    return torch.zeros(parameter.shape, dtype=dtype, pin_memory=parameter.is_cuda)


def refuse_offload(options: TrainingOptions, named: Sequence[tuple[str, Tensor]]) -> None:
    """Raise ConfigError where the options want state of these parameters on the host and it cannot lie there."""
    trained = [parameter for _, parameter in named if parameter.requires_grad]
    if not options.offload or not trained or not trained[0].is_cuda:  # a CPU has it in its memory anyway
        return
    asked = f"offload={options.offload:g}"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"{asked} is for one GPU; several shard the optimizer's state: give offload=0")
    needed = options.offload * sum(one.numel() * states(options, one.element_size()) for one in trained)
    free = free_memory()
    if free is not None and needed > HOST_SHARE * free:
        raise ConfigError(
            f"{asked} keeps {needed / 2**30:.1f} GiB of the optimizer's state on the host, which may take "
            f"{HOST_SHARE:.0%} of the {free / 2**30:.1f} GiB that are free there; give a smaller share, or lora_rank=16"
        )


def is_away(state: Tensor, device: torch.device) -> bool:
    """Whether a tensor lies in the host's memory and what it belongs to on a GPU."""
    return state.device != device


def mixed(away: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return an order of blocks in which those whose state is away are spread evenly over all.

    The link to the host is slow beside the GPU's memory. So both work all the time, instead of one after the other.
    """
    rank = np.empty(len(away))
    for group in (away, ~away):
        count = int(group.sum())
        rank[group] = (np.arange(count) + 0.5) / max(count, 1)
    return np.argsort(rank, kind="stable")
