"""What the loop asks of a data set: rows with weights, gathered into microbatches of one shape.

The order of the rows is a pure function of seed and epoch, and so is which rows a step, a microbatch and a rank get:
nothing needs to be stored or skipped to resume, and any number of ranks sees the same steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from harness.training.data.tokens import permutation

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from harness.training.options import TrainingOptions

Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Rows of one microbatch, all tensors on one device.

    `input_ids`, `labels` and `position_ids` are int64 [rows, width]. A label is the token that should follow, -100
    where none counts; a loss that names the positions of its labels in `extra` may have another number of them.
    `borders` (int32, [documents + 1]) holds where documents begin in the flattened rows and their end; attention must
    not cross them. None stands for plain causal rows. `longest` bounds the length of a document. `extra` holds what a
    loss needs beside them.

    A document may go on from a part of another: where `keys` is given (int64 [keys], places in the flattened rows),
    document d sees ``keys[key_borders[d] : key_borders[d + 1]]``, of which the last are its own, `longest` at most.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    borders: Tensor | None
    longest: int
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    keys: Tensor | None = None
    key_borders: Tensor | None = None

    @property
    def squares(self) -> int:
        """The sum of the squares of the documents' lengths, which attention costs; asked for on the CPU."""
        if self.borders is None:
            return int(self.input_ids.numel() * self.input_ids.shape[1])
        own = np.diff(self.borders.numpy()).astype(np.int64)
        seen = own if self.key_borders is None else np.diff(self.key_borders.numpy())
        return int((own * (2 * seen - own)).sum())

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`; the copy to a GPU runs beside the computation."""

        def moved(tensor: Tensor) -> Tensor:
            if device.type != "cuda" or tensor.is_cuda:
                return tensor.to(device, non_blocking=device.type == "cuda")
            return tensor.pin_memory().to(device, non_blocking=True)

        borders, key_borders = self.borders, self.key_borders
        if device.type == "cuda":  # compiled code is to meet few shapes
            borders, key_borders = (None if one is None else padded(one) for one in (borders, key_borders))
        return replace(
            self,
            input_ids=moved(self.input_ids),
            labels=moved(self.labels),
            position_ids=moved(self.position_ids),
            borders=None if borders is None else moved(borders),
            keys=None if self.keys is None else moved(self.keys),
            key_borders=None if key_borders is None else moved(key_borders),
            extra={name: moved(tensor) for name, tensor in self.extra.items()},
        )


def padded(borders: Tensor, least: int = 64) -> Tensor:
    """Return borders with empty documents at the end, up to a power of two that is `least` at least."""
    import torch

    count = max(least, 1 << (len(borders) - 1).bit_length())
    return torch.cat([borders, borders[-1:].expand(count - len(borders))])


class TrainingRows(Protocol):
    """A data set as the loop sees it.

    `weights` says how much each row counts in the loss: its label tokens, or 1 for a pair. `tokens` says how many
    tokens each row really holds, padding left out.
    """

    weights: Ints
    tokens: Ints

    #: What a row is called.
    unit: str = "rows"

    def __len__(self) -> int:
        """The number of rows."""

    def step(self, batch_size: int, seed: int, step: int) -> list[int]:
        """Return the rows of optimizer step `step`, as `step_rows` does."""
        return step_rows(len(self), batch_size, seed, step)

    def microbatches(self, rows: Sequence[int], size: int, rank: int, world: int) -> Iterator[Sequence[int]]:
        """Yield this rank's share of `rows`, as `microbatches` does: to every rank the same number of parts."""
        return microbatches(rows, size, rank, world)

    def batch(self, indices: Sequence[int], rows: int) -> Batch:
        """Return the rows at `indices`, with rows that count nothing behind them up to `rows` in all."""

    def positions(self, size: int) -> int:
        """Return how many tokens a microbatch of `size` rows holds, padding included."""
        return self.batch([], size).input_ids.numel()

    def fit(self, batch_size: int, size: int, world: int, seed: int, other: Any = None) -> None:
        """Make ready for microbatches of `size` rows, and `other` rows, those to validate on, with them."""
        return

    def describe(self, index: int) -> str:
        """Return where a row comes from, for messages: files and lines, or documents."""


@lru_cache(maxsize=2)  # an epoch's order of a million rows takes 8 MB
def order(length: int, seed: int, epoch: int) -> Ints:
    """Return the rows' order in an epoch, counted from 0: a permutation that depends on these three alone."""
    return permutation(length, seed, epoch)


def steps_in_epoch(length: int, batch_size: int) -> int:
    """Return how many optimizer steps an epoch has; the last may have fewer rows."""
    return -(-length // batch_size)


def total_steps(rows: int, options: TrainingOptions) -> int:
    """Return how many optimizer steps a training over so many rows takes."""
    steps = options.epochs * steps_in_epoch(rows, options.batch_size)
    return steps if options.max_steps is None else min(steps, options.max_steps)


def step_rows(length: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Return the rows of optimizer step `step`, counted from 0 over all epochs."""
    epoch, place = divmod(step, steps_in_epoch(length, batch_size))
    rows: list[int] = order(length, seed, epoch)[place * batch_size : (place + 1) * batch_size].tolist()
    return rows


def microbatches(rows: Sequence[int], size: int, rank: int, world: int) -> Iterator[Sequence[int]]:
    """Yield this rank's share of a step's rows, at most `size` at a time.

    Every rank gets the same number of microbatches, some of them short or empty where the rows do not come out even, so
    that all take part in every collective operation.

    >>> [[list(part) for part in microbatches(range(7), 2, rank, 2)] for rank in (0, 1)]
    [[[0, 1], [4, 5]], [[2, 3], [6]]]
    """
    for start in range(0, len(rows), size * world):
        begin = start + rank * size
        yield rows[begin : begin + size]
