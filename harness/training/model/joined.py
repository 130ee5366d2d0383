"""Frozen layers of one input, and the adapters beside them, as one matrix product.

Queries, keys and values multiply one input, and so do gate and up. With W their weights one above the other, and B the
second matrices of their adapters (each in the rows of its layer and the columns of its rank, and scaled), the matrix
[W B] times the input with A · input behind it, A being all first matrices, is what all layers give, adapters included.
So no sum of base and adapter is written and read again, which costs a GPU more time than the adapters' few operations
do. The weights that the layers have are views of W.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

#: Ranks are filled up to a multiple of this: rows that begin at whole lines of memory are read faster.
_GRAIN = 64


class Joined:
    """Adapted layers of one input whose weights lie in one matrix; their adapters are called `name`."""

    def __init__(self, layers: Sequence[Any], name: str) -> None:
        bases = [layer.get_base_layer() for layer in layers]
        self._scale: float = layers[0].scaling[name]
        self._seconds: list[Tensor] = [layer.lora_B[name].weight for layer in layers]
        self._width = bases[0].in_features
        rank = -(-sum(second.shape[1] for second in self._seconds) // _GRAIN) * _GRAIN
        self.matrix = bases[0].weight.new_zeros(sum(base.out_features for base in bases), self._width + rank)
        for base, (start, end) in zip(bases, _spans([base.out_features for base in bases]), strict=True):
            own = self.matrix[start:end, : self._width]
            own.copy_(base.weight)
            base.weight = nn.Parameter(own, requires_grad=False)

    @torch.no_grad()
    def refresh(self) -> None:
        """Put what the adapters have learned into the matrix."""
        rows, ranks = (_spans([second.shape[side] for second in self._seconds], side * self._width) for side in (0, 1))
        for second, row, rank in zip(self._seconds, rows, ranks, strict=True):
            torch.mul(second, self._scale, out=self.matrix[slice(*row), slice(*rank)])


def may_be_joined(layers: Sequence[Any], name: str) -> bool:
    """Whether adapted layers are ordinary linear layers of one dtype, frozen and without biases."""
    bases = [layer.get_base_layer() for layer in layers]
    kinds = {part[name].weight.dtype for layer in layers for part in (layer.lora_A, layer.lora_B)}
    return all(
        type(base) is nn.Linear and base.bias is None and not base.weight.requires_grad for base in bases
    ) and kinds == {base.weight.dtype for base in bases}


def product(input: Tensor, matrix: Tensor, scale: float, pairs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return what joined layers give of their input, [..., in], each in turn.

    `matrix` is that of `Joined`, and `pairs` are the first and the second matrix of each layer's adapter by turns;
    gradients reach the input and these.
    """
    rows = input.reshape(-1, input.shape[-1])
    found: Tensor = _Product.apply(rows, matrix, scale, *pairs)  # type: ignore[no-untyped-call]
    return torch.split(found.view(*input.shape[:-1], len(matrix)), [len(second) for second in pairs[1::2]], -1)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: Tensor, scale: float, *pairs: Tensor) -> Tensor:
        sizes, ranks = [len(second) for second in pairs[1::2]], [len(first) for first in pairs[::2]]
        firsts = torch.cat([*pairs[::2], rows.new_zeros(matrix.shape[1] - rows.shape[1] - sum(ranks), rows.shape[1])])
        wide = torch.cat([rows, rows @ firsts.t()], 1)
        ctx.save_for_backward(wide, matrix, firsts)  # not the rows: they would be kept beside their copy
        ctx.scale, ctx.sizes, ctx.ranks = scale, sizes, ranks
        return wide @ matrix.t()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        wide, matrix, firsts = ctx.saved_tensors
        width, ranks = firsts.shape[1], ctx.ranks
        rows, inner = wide[:, :width], wide[:, width:]
        [towards] = gradients
        behind = towards @ matrix[:, width:]
        back = towards @ matrix[:, :width] + behind @ firsts
        seconds = [
            ctx.scale * (towards[:, slice(*own)].t() @ inner[:, slice(*rank)])
            for own, rank in zip(_spans(ctx.sizes), _spans(ranks), strict=True)
        ]
        learned = torch.split((behind.t() @ rows)[: sum(ranks)], ranks)
        return back, None, None, *(one for both in zip(learned, seconds, strict=True) for one in both)


def _spans(sizes: Sequence[int], start: int = 0) -> list[tuple[int, int]]:
    """Return where parts of these sizes, side by side, begin and end.

    >>> _spans([2, 3], 10)
    [(10, 12), (12, 15)]
    """
    return list(pairwise(accumulate(sizes, initial=start)))
