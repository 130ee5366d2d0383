"""Attention over packed rows: documents side by side in one row never see each other.

One function serves every model that takes transformers' attention interface. Under a name that has no mask of its own
in transformers, models hand it their queries, keys and values, and the borders of the documents as ``cu_seq_lens_q``.
With ``keys`` a document sees others before its own (`harness.training.batch.Batch`), between the borders
``cu_seq_lens_k``. Rows without borders go to causal scaled-dot-product attention, where cuDNN's kernels are the fastest
on Hopper.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import ConfigError
from harness.training.options import Attention

#: The names under which transformers knows the two ways to attend.
VARLEN, SDPA = "harness-varlen", "harness-causal"


def implementation(wanted: Attention, device: torch.device, dtype: torch.dtype, packed: bool) -> str:
    """Return the name to give transformers as ``attn_implementation``, registered there.

    `packed` says that rows hold several documents. ``auto`` takes flash-attn where it is installed, else torch's own
    variable-length kernel; both need a GPU and 16-bit weights. ``sdpa`` attends document by document: exact anywhere,
    and on a GPU slow. Raises ConfigError for a kernel that cannot run here.
    """
    from transformers import AttentionInterface
    from transformers.utils.import_utils import is_flash_attn_2_available

    fast = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    if wanted in ("flash", "varlen") and not fast:
        raise ConfigError(f"attention={wanted} needs a GPU and bfloat16 weights; attention=sdpa runs anywhere")
    if wanted == "flash" and not is_flash_attn_2_available():
        raise ConfigError("attention=flash: flash-attn is not installed (pip install 'posttrain-harness[flash]')")
    if wanted == "sdpa" or not fast or (wanted == "auto" and not packed):
        AttentionInterface.register(SDPA, _sdpa)
        return SDPA
    if wanted == "flash" or (wanted == "auto" and is_flash_attn_2_available()):
        return "flash_attention_2"
    AttentionInterface.register(VARLEN, partial(_varlen, varlen_kernel()))
    return VARLEN


def fastest_kernels(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which scaled-dot-product attention prefers cuDNN, then flash, where they can run."""
    if device.type != "cuda":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(order, set_priority=True)


def _sdpa(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    cu_seq_lens_k: Tensor | None = None, max_length_q: int = 0, **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attend causally within each document; query [rows, heads, width, size], output [rows, width, heads, size]."""
    borders, keys = options.get("cu_seq_lens_q"), options.get("keys")
    width = query.shape[2]
    _refuse_unsupported(
        module, attention_mask, min(width, max_length_q or width) if borders is not None else width, options
    )
    if keys is not None:
        key, value = key[:, :, keys], value[:, :, keys]

    def attend(own: slice, seen: slice) -> Tensor:
        parts = query[:, :, own], key[:, :, seen], value[:, :, seen]
        mask, lengths = None, (parts[0].shape[2], parts[1].shape[2])
        if lengths[0] != lengths[1]:  # the last query sees every key, the one before it one less, …
            mask = torch.ones(lengths, dtype=torch.bool, device=query.device).tril(lengths[1] - lengths[0])
        return F.scaled_dot_product_attention(
            *parts, attn_mask=mask, is_causal=mask is None, scale=options.get("scaling"),
            enable_gqa=query.shape[1] != key.shape[1],
        )  # fmt: skip

    if borders is None:
        return attend(slice(None), slice(None)).transpose(1, 2).contiguous(), None
    own = [slice(*ends) for ends in pairwise(borders.tolist())]
    seen = own if keys is None or cu_seq_lens_k is None else [slice(*ends) for ends in pairwise(cu_seq_lens_k.tolist())]
    parts = [attend(*both) for both in zip(own, seen, strict=True) if both[0].stop > both[0].start]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _varlen(
    kernel: Callable[..., Tensor],
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    cu_seq_lens_k: Tensor | None = None, max_length_q: int = 0, **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """As `_sdpa`, over torch's variable-length flash kernel: rows with borders come as a single long one."""
    borders = options.get("cu_seq_lens_q")
    if borders is None:
        return _sdpa(module, query, key, value, attention_mask, **options)
    longest, keys, key_borders = max_length_q, options.get("keys"), borders
    _refuse_unsupported(module, attention_mask, longest, options)
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    if keys is not None:
        key, value, key_borders = key[keys], value[keys], cu_seq_lens_k
    result = kernel(
        query, key, value, borders, key_borders, longest, longest, window_size=(-1, 0), scale=options.get("scaling")
    )
    return result[None], None


def varlen_kernel() -> Callable[..., Tensor]:
    """Return torch's kernel; from 2.12 on it wants to be told that key heads may be fewer."""
    from torch.nn.attention.varlen import varlen_attn

    grouped = "enable_gqa" in inspect.signature(varlen_attn).parameters
    kernel: Callable[..., Any] = varlen_attn
    return partial(kernel, enable_gqa=True) if grouped else kernel


def _refuse_unsupported(module: Any, attention_mask: Tensor | None, longest: int, options: dict[str, Any]) -> None:
    """Raise ConfigError for a model whose attention is more than causal: computing something else would be silent."""
    if attention_mask is not None:
        raise ConfigError("its attention has a mask of its own, which no kernel here takes; take another model")
    if options.get("s_aux") is not None:
        raise ConfigError("its attention has sinks, which no kernel here computes; take another model")
    if (cap := options.get("softcap")) is not None:
        raise ConfigError(
            f"it caps its attention scores ({cap}), which attention=flash alone computes (a GPU and bfloat16); give "
            "that, or take another model"
        )
    window = options.get("sliding_window")
    if window is None:
        window = getattr(getattr(module, "config", None), "attention_chunk_size", None)
    if window is not None and window < longest:
        raise ConfigError(f"this model attends to {window} tokens at most, below the rows' {longest}; shorten the rows")
