"""The optimizer's step as one launch: every parameter's update in a single Triton kernel, whatever their number.

A kernel for each parameter costs a launch each, and the host more time than the GPU where models are small. Here one
program a block of elements looks up in a table to which parameter it belongs and where that, its gradient and its state
lie. It computes what `harness.training.optim` computes parameter by parameter on a CPU.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.training.offload import is_away, mixed
from harness.training.parallel import sent

#: Elements that a program updates, and the warps that do so: 16 bytes a thread of a 16-bit parameter.
_BLOCK, _WARPS = 1024, 4
#: What addresses in bytes, and numbers of elements, are divisible by where a thread may move 16 bytes at once.
_BYTES, _ELEMENTS = 16, 8


class Fused:
    """The update of parameters of one dtype, and of one dtype of moments.

    `parameters`, `residuals` (of 16-bit parameters), `moments` (one or two lists) and the gradients that a call takes
    lie in the same order; all but gradients are contiguous. Residuals and moments may lie in the host's pinned memory,
    which has one address for the host and its GPUs.
    """

    def __init__(
        self, parameters: Sequence[Tensor], residuals: Sequence[Tensor] | None, moments: Sequence[Sequence[Tensor]]
    ) -> None:
        device = parameters[0].device
        self._flags: dict[str, Any] = {
            "ADAM": len(moments) == 2,
            "MASTERS": residuals is not None,
            "SHORT": moments[0][0].dtype == torch.bfloat16,
            "BLOCK": _BLOCK,
        }
        self._states = [residuals or parameters, *moments]
        self._sizes = [parameter.numel() for parameter in parameters]
        self._decays = torch.tensor([parameter.ndim > 1 for parameter in parameters], dtype=torch.int32, device=device)
        blocks = -(-np.array(self._sizes, np.int64) // _BLOCK)
        owners = np.repeat(np.arange(len(blocks), dtype=np.int32), blocks)
        firsts = np.repeat(np.cumsum(blocks) - blocks, blocks)
        places = (np.arange(len(owners)) - firsts).astype(np.int32)
        away = np.array([any(is_away(state[at], device) for state in self._states) for at in range(len(blocks))])
        if away.any():
            order = mixed(away[owners])
            owners, places = owners[order], places[order]
        self._owners, self._places = torch.from_numpy(owners).to(device), torch.from_numpy(places).to(device)
        self._at: list[list[int]] = []
        self._table = self._origin = self._decays

    def __call__(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        numbers: Tensor,
        scale: Tensor,
        proceed: Tensor,
        seeds: Tensor,
    ) -> None:
        """Update the parameters that have a gradient; the last four arguments are as `Optimizer` hands them on."""
        found = [None if one is None else one.contiguous() for one in gradients]
        at = [_addresses(parameters), [0 if one is None else one.data_ptr() for one in found]]
        if at != self._at:  # the gradients of recorded microbatches stay where they are
            self._at = at
            self._look_up(at)
        if len(self._owners):
            _update[(len(self._owners),)](
                self._origin, self._table, self._decays, seeds, self._owners, self._places,
                numbers, scale, proceed.to(torch.int32), len(parameters), **self._flags, num_warps=_WARPS,
            )  # fmt: skip

    def _look_up(self, at: Sequence[Sequence[int]]) -> None:
        """Make the table: of each parameter its elements, and where it, its gradient and its states lie.

        A parameter without a gradient has no elements. Places are distances from one address, which is aligned.
        """
        sizes = [size if gradient else 0 for size, gradient in zip(self._sizes, at[1], strict=True)]
        columns = [*at, *(_addresses(state) for state in self._states)]
        origin = self._origin.data_ptr()
        aligned = all((address - origin) % _BYTES == 0 for column in columns for address in column if address)
        aligned = aligned and all(size % _ELEMENTS == 0 for size in sizes)
        unit, grain = (_BYTES, _ELEMENTS) if aligned else (1, 1)
        places = [(address - origin) // unit for column in columns for address in column]
        self._flags |= {"UNIT": unit, "GRAIN": grain}
        self._table = sent([*(size // grain for size in sizes), *places], torch.int64, self._origin.device)


def _addresses(tensors: Sequence[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


@triton.jit
def _at(origin, table, row: tl.constexpr, columns, column, kind: tl.constexpr, UNIT: tl.constexpr):
    """Return the pointer so many units of bytes behind `origin`; of an address from a table no alignment is known."""
    moved = tl.load(table + row * columns + column)
    size: tl.constexpr = kind.primitive_bitwidth // 8
    moved = moved // size if UNIT == 1 else moved * (UNIT // size)
    return origin.to(tl.pointer_type(kind)) + moved


@triton.jit
def _short(value, noise):
    """Round to bf16's bits stochastically, by the low 16 bits of `noise`."""
    return ((value.to(tl.int32, bitcast=True) + (noise & 0xFFFF)) >> 16).to(tl.int16)


@triton.jit
def _noise(place, seed):
    """Return 32 bits for each place, which the seed decides."""
    mixed = place.to(tl.int32) * -1640531527 + seed
    mixed = (mixed ^ ((mixed >> 16) & 0xFFFF)) * -2048144789
    mixed = (mixed ^ ((mixed >> 13) & 0x7FFFF)) * -1640531527
    return mixed ^ ((mixed >> 16) & 0xFFFF)


@triton.jit
def _read(at, place, inside, SHORT: tl.constexpr):
    value = tl.load(at + place, mask=inside, other=0)
    return (value.to(tl.int32) << 16).to(tl.float32, bitcast=True) if SHORT else value


@triton.jit
def _lerp(start, end, share):
    return tl.where(share < 0.5, start + share * (end - start), end - (end - start) * (1 - share))


@triton.jit
def _update(
    origin, table, decays, seeds, owners, places, numbers, scale, proceed, columns,
    ADAM: tl.constexpr, MASTERS: tl.constexpr, SHORT: tl.constexpr, BLOCK: tl.constexpr,
    UNIT: tl.constexpr, GRAIN: tl.constexpr,
):  # fmt: skip
    owner = tl.load(owners + tl.program_id(0))
    place = tl.load(places + tl.program_id(0)).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < tl.load(table + owner) * GRAIN
    going = tl.load(proceed) != 0
    bits: tl.constexpr = tl.int16 if MASTERS else tl.float32
    moment: tl.constexpr = tl.int16 if SHORT else tl.float32

    weight_at = _at(origin, table, 1, columns, owner, bits, UNIT)
    grad_at = _at(origin, table, 2, columns, owner, bits, UNIT)
    high = tl.load(weight_at + place, mask=inside, other=0)
    if MASTERS:
        residual_at = _at(origin, table, 3, columns, owner, tl.int16, UNIT)
        low = tl.load(residual_at + place, mask=inside, other=0)
        old = ((high.to(tl.int32) << 16) + low.to(tl.int32)).to(tl.float32, bitcast=True)
    else:
        old = high
    slope = _read(grad_at, place, inside, MASTERS) * tl.load(scale)
    rate, decay = tl.load(numbers), tl.load(numbers + 1)

    if ADAM:
        mean_at = _at(origin, table, 4, columns, owner, moment, UNIT)
        square_at = _at(origin, table, 5, columns, owner, moment, UNIT)
        mean, square = _read(mean_at, place, inside, SHORT), _read(square_at, place, inside, SHORT)
        eps, correction, root = tl.load(numbers + 4), tl.load(numbers + 5), tl.load(numbers + 6)
        new_mean = _lerp(slope, mean, tl.load(numbers + 2))
        new_square = _lerp(slope * slope, square, tl.load(numbers + 3))
        change = new_mean / correction / (tl.sqrt(new_square) / root + eps)
        new_mean = tl.where(going, new_mean, mean)
    else:
        square_at = _at(origin, table, 4, columns, owner, moment, UNIT)
        square = _read(square_at, place, inside, SHORT)
        new_square = _lerp(slope * slope, square, tl.load(numbers + 2))
        change = slope / (tl.sqrt(new_square) + tl.load(numbers + 3))
    new_square = tl.where(going, new_square, square)

    kept = tl.where(tl.load(decays + owner) != 0, old * (1 - rate * decay), old)
    new = tl.where(going, kept - rate * change, old)
    if MASTERS:
        whole = new.to(tl.int32, bitcast=True)
        above = (whole + 0x8000) >> 16
        tl.store(weight_at + place, above.to(tl.int16), mask=inside)
        tl.store(residual_at + place, (whole - (above << 16)).to(tl.int16), mask=inside)
    else:
        tl.store(weight_at + place, new, mask=inside)

    if SHORT:
        mixed = tl.where(going, _noise(place, tl.load(seeds + owner)), 0)  # a moment that stays is its own upper half
        if ADAM:
            tl.store(mean_at + place, _short(new_mean, mixed), mask=inside)
            mixed = mixed >> 16
        tl.store(square_at + place, _short(new_square, mixed), mask=inside)
    else:
        if ADAM:
            tl.store(mean_at + place, new_mean, mask=inside)
        tl.store(square_at + place, new_square, mask=inside)
