"""Microbatches as CUDA graphs: what the host launched one by one, the GPU repeats by itself.

A microbatch of a small model is some thousand kernels of a few microseconds each, and launching them takes the host
longer than running them takes the GPU. They are the same from step to step, so once they have run a few times they are
recorded and from then on replayed, on inputs that are copied to where the recording found them. The first microbatch of
a step makes gradients and the others add to them, which are two recordings.

A batch of another shape drops the recordings; with it they are made anew, and where shapes keep changing, or memory is
short, all goes on without.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from harness.errors import ConfigError, first_line
from harness.training.batch import Batch, padded
from harness.training.options import TrainingOptions
from harness.training.parallel import Ranks

#: How often a microbatch runs as usual before it is recorded: code is compiled, kernels and workspaces are chosen.
_BEFORE = 3
#: How many shapes there may be before it is given up.
_SHAPES = 8
#: The largest share of the GPU's memory that may be in use where microbatches are recorded unasked: a recording keeps
#: its activations, and validation comes on top of them.
_SHARE = 0.85

#: Computes gradients of a microbatch, given its scale as a tensor, and returns the sums of its metrics.
Compute = Callable[[Batch, Tensor], Mapping[str, Tensor]]
Launches = Callable[[], Mapping[str, Tensor]]
#: Records what a function launches, for the first microbatch of a step or another one, and returns what the function
#: returned and what replays it. Raises RuntimeError where that cannot be.
Record = Callable[[Launches, bool], tuple[Mapping[str, Tensor], Callable[[], None]]]


@dataclass(frozen=True)
class _Recording:
    inputs: Batch
    scale: Tensor
    sums: Mapping[str, Tensor]
    gradients: Sequence[Tensor | None]
    replay: Callable[[], None]


class Graphs:
    """Computes microbatches, first as usual and then by replaying them.

    `parameters` are those that get gradients. `record` is how a recording is made.
    """

    def __init__(self, compute: Compute, parameters: Sequence[Tensor], device: torch.device, record: Record) -> None:
        self._compute, self._parameters, self._device = compute, parameters, device
        self._record = record
        self._recordings: dict[bool, _Recording] = {}
        self._shape: tuple[object, ...] | None = None
        self._shapes, self._borders = 0, 64
        self._seen = {True: 0, False: 0}
        self._off = False

    def __call__(self, batch: Batch, scale: float) -> Mapping[str, Tensor]:
        """Add the gradients of a microbatch, given on the CPU, to those there are, and return its sums.

        The sums hold until the next call.
        """
        first = all(parameter.grad is None for parameter in self._parameters)
        if not self._off:
            batch = self._as_before(batch)
            self._look_at(batch)
        if not self._off and self._may_be_recorded(first):
            self._make(batch, first)
        recording = None if self._off else self._recordings.get(first)
        if recording is None or not (first or self._in_place()):
            self._seen[first] += 1
            return self._compute(batch.to(self._device), torch.full((), scale, device=self._device))
        _put(batch, recording.inputs)
        recording.scale.fill_(scale)
        recording.replay()
        if first:
            for parameter, gradient in zip(self._parameters, recording.gradients, strict=True):
                parameter.grad = gradient
        return recording.sums

    def _as_before(self, batch: Batch) -> Batch:
        """Return the batch with as many borders as the largest so far, so that most have one shape."""
        if batch.borders is None:
            return batch
        borders = padded(batch.borders, self._borders)
        self._borders = len(borders)
        return replace(batch, borders=borders)

    def _look_at(self, batch: Batch) -> None:
        shape = _shape(batch)
        if shape == self._shape:
            return
        self._recordings.clear()
        self._seen = {True: 0, False: 0}
        self._shape, self._shapes = shape, self._shapes + 1
        self._off = self._shapes > _SHAPES or bool(batch.extra)

    def _may_be_recorded(self, first: bool) -> bool:
        """Whether a recording of this kind is to be made now; one that adds needs the gradients of the other."""
        return first not in self._recordings and self._seen[first] >= _BEFORE and (first or self._in_place())

    def _in_place(self) -> bool:
        """Whether the gradients are those that a recording made."""
        made = self._recordings.get(True)
        return made is not None and all(
            parameter.grad is gradient for parameter, gradient in zip(self._parameters, made.gradients, strict=True)
        )

    def _make(self, batch: Batch, first: bool) -> None:
        inputs, scale = _copied(batch.to(self._device)), torch.ones((), device=self._device)
        try:
            sums, replay = self._record(lambda: self._compute(inputs, scale), first)
        except RuntimeError as error:
            print(f"microbatches are not recorded: {first_line(error)}", file=sys.stderr, flush=True)
            self._recordings.clear()
            self._off = True
            if first:
                for parameter in self._parameters:
                    parameter.grad = None
            return
        gradients = [parameter.grad for parameter in self._parameters]
        self._recordings[first] = _Recording(inputs, scale, sums, gradients, replay)


def recorder(options: TrainingOptions, ranks: Ranks) -> Record | None:
    """Return what records microbatches, None where none are; raise ConfigError where it is asked for and cannot be."""
    possible = ranks.device.type == "cuda" and ranks.world == 1
    if options.graphs is True and not possible:
        raise ConfigError("graphs=true records what one GPU does; here are several, or none: give graphs=auto")
    return _Recorder(ranks.device, 1.0 if options.graphs is True else _SHARE) if possible and options.graphs else None


class _Recorder:
    """Records CUDA graphs; those of one step share their memory, as they are never replayed at the same time."""

    def __init__(self, device: torch.device, share: float) -> None:
        self._device, self._share = device, share
        self._pool: Any = None

    def __call__(self, launches: Launches, first: bool) -> tuple[Mapping[str, Tensor], Callable[[], None]]:
        taken, whole = torch.cuda.max_memory_reserved(self._device), torch.cuda.mem_get_info(self._device)[1]
        if first:
            if taken > self._share * whole:
                raise RuntimeError(f"{taken / 2**30:.1f} of {whole / 2**30:.1f} GiB are in use")
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):  # others write checkpoints
            sums = launches()
        return sums, graph.replay


def _tensors(batch: Batch) -> dict[str, Tensor]:
    own = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in {**own, **batch.extra}.items() if isinstance(value, Tensor)}


def _shape(batch: Batch) -> tuple[object, ...]:
    return batch.longest, *((name, tensor.shape) for name, tensor in sorted(_tensors(batch).items()))


def _copied(batch: Batch) -> Batch:
    copies: dict[str, Any] = {
        field.name: value.clone() for field in fields(batch) if isinstance(value := getattr(batch, field.name), Tensor)
    }
    return replace(batch, **copies)


def _put(batch: Batch, inputs: Batch) -> None:
    """Copy a batch of the CPU to where a recording reads it; the host does not wait."""
    places = _tensors(inputs)
    for name, tensor in _tensors(batch).items():
        places[name].copy_(tensor.pin_memory() if places[name].is_cuda else tensor, non_blocking=True)
