"""Attention over 16,384 tokens of Llama-3-8B's heads: torch's own flash kernels beside others and plain causal rows.

    python perf/attention.py

A line each way: milliseconds of a forward and backward pass of one layer. "FA3" and "FA4" are tried where they are
installed, as a training with long rows tries them (`harness.training.model.flash`). "causal" is what rows without
borders take, by cuDNN, where all documents are of one length. Needs a GPU.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.training.model.attention import fastest_kernels, varlen_kernel
from harness.training.model.flash import choose_flash

TOKENS, HEADS, KEY_HEADS, SIZE = 16_384, 32, 8, 128


def mixed() -> list[int]:
    """Return lengths of documents as chats have them, up to 4,096 tokens."""
    draw, lengths = np.random.default_rng(0), [0]
    while sum(lengths) < TOKENS:
        lengths.append(int(min(4096, draw.lognormal(6.0, 0.6), TOKENS - sum(lengths))) or 1)
    return lengths[1:]


def milliseconds(run: Callable[[], object]) -> float:
    """Return the median time of a run."""
    spans = []
    for _ in range(13):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        spans.append(1000 * (time.perf_counter() - began))
    return statistics.median(spans[3:])


def measure(lengths: Sequence[int]) -> dict[str, object]:
    """Return what documents of these lengths take."""
    kernel = varlen_kernel()
    inputs = [
        torch.randn(TOKENS, heads, SIZE, dtype=torch.bfloat16, device="cuda", requires_grad=True)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]
    borders = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device="cuda")

    def attend(query: Tensor, key: Tensor, value: Tensor, borders: Tensor, longest: int) -> Tensor:
        return kernel(query, key, value, borders, borders, longest, longest, window_size=(-1, 0))

    choice = choose_flash(attend, inputs, borders, max(lengths))
    found: dict[str, object] = {"documents": len(lengths), "longest": max(lengths), "ways": choice.said}
    if len(set(lengths)) == 1:
        rows = [part.detach().view(len(lengths), lengths[0], -1, SIZE).transpose(1, 2) for part in inputs]
        rows = [part.requires_grad_() for part in rows]
        towards = torch.randn_like(rows[0])

        def causal() -> object:
            query, key, value = rows
            output = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            return torch.autograd.grad(output, rows, towards)

        with fastest_kernels(torch.device("cuda")):
            found["causal_ms"] = milliseconds(causal)
    return found


if __name__ == "__main__":
    for lengths in ([TOKENS], [8192] * 2, [4096] * 4, [2048] * 8, [512] * 32, mixed()):
        print(json.dumps(measure(lengths)), flush=True)
