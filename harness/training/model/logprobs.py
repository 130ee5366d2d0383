"""Log-probabilities of chosen tokens from hidden states, in chunks: the one primitive under every loss here.

The logits of all positions never exist at once. A chunk's are computed by a matrix product in the model's own precision
with fp32 results and turned by an fp32 softmax into log-probabilities, or straight into gradients, before the next
chunk's take their place. Two forms:

* `selected_logprobs` gives each position's log-probability and can be put into any loss; its backward pass computes the
  logits a second time.
* `summed_nll` gives the scaled sum of negative log-likelihoods. Its scale is known beforehand, so the gradients are
  made together with the loss and nothing is computed twice (as in Liger's fused cross-entropy, arXiv:2410.10989, and
  torchtitan's chunked loss).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100

#: Positions whose gradients are multiplied at a time; their logits are computed in `_PIECES` pieces, each turned into
#: 16-bit gradients before the next. 1,024 positions of a 128k vocabulary take 0.25 GiB so, and 256 fp32 logits 0.12.
CHUNK = 1024
_PIECES = 4


def selected_logprobs(hidden: Tensor, lm_head: Tensor, labels: Tensor, *, chunk: int = CHUNK) -> Tensor:
    """Return log softmax(hidden · lm_headᵀ) at `labels`, in nats, as an fp32 tensor of the labels' shape.

    `hidden` is [..., H], `lm_head` the output layer's weight [V, H] of the same dtype, `labels` [...] of int64; where a
    label is -100 the result is 0 and no gradient flows. Gradients reach `hidden` and `lm_head` as far as they ask for
    them. At most `chunk` rows of logits exist at a time.
    """
    _check(hidden, lm_head, labels)
    rows, targets = hidden.reshape(-1, hidden.shape[-1]), labels.reshape(-1)
    result: Tensor = _Selected.apply(rows, lm_head, targets, chunk)  # type: ignore[no-untyped-call]
    return result.view(labels.shape)


def summed_nll(
    hidden: Tensor, lm_head: Tensor, labels: Tensor, scale: float | Tensor = 1.0, *, chunk: int = CHUNK
) -> Tensor:
    """Return `scale` · Σ −log p(label) over the labels that are not -100, an fp32 scalar.

    Shapes as for `selected_logprobs`; `scale` may be an fp32 tensor of one element. Where gradients are on, the forward
    pass makes them too; without a single label the result is 0, still attached to the graph, with gradients of 0.
    """
    if not torch.is_grad_enabled():
        return -scale * selected_logprobs(hidden, lm_head, labels, chunk=chunk).sum()
    _check(hidden, lm_head, labels)
    rows, targets = hidden.reshape(-1, hidden.shape[-1]), labels.reshape(-1)
    result: Tensor = _SummedNll.apply(rows, lm_head, targets, scale, chunk)  # type: ignore[no-untyped-call]
    return result


class _Selected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, lm_head: Tensor, labels: Tensor, chunk: int) -> Tensor:
        chosen = torch.empty(labels.shape, dtype=torch.float32, device=hidden.device)
        normaliser = torch.empty_like(chosen)
        for part in _parts(labels, chunk):
            rows, own = _filled(hidden[part], chunk), _filled(labels[part], chunk, IGNORED)
            logits = _logits(rows, lm_head)
            for into, found in zip((chosen, normaliser), _on_device(_score, logits)(logits, own), strict=True):
                into[part] = found[: part.stop - part.start]
            del logits  # else these and the next chunk's exist side by side
        ctx.save_for_backward(hidden, lm_head, labels, normaliser)
        ctx.chunk = chunk
        return chosen

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, lm_head, labels, normaliser = ctx.saved_tensors
        into = _Gradients(ctx, hidden, lm_head, ctx.chunk)
        towards = gradients[0].float()
        for part in _parts(labels, ctx.chunk):
            for piece in _pieces(part, ctx.chunk):
                logits = _logits(into.rows(hidden, piece), lm_head)
                into.put(logits, piece, labels, normaliser, towards)
                del logits
            into.add(part)
        return into.hidden, into.lm_head, None, None


class _SummedNll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, lm_head: Tensor, labels: Tensor, scale: float | Tensor, chunk: int) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        into = _Gradients(ctx, hidden, lm_head, chunk)
        down = torch.ones(len(labels), device=hidden.device) * -scale
        normaliser = torch.empty_like(down)
        for part in _parts(labels, chunk):
            for piece in _pieces(part, chunk):
                logits = _logits(into.rows(hidden, piece), lm_head)
                own = into.rows(labels, piece, IGNORED)
                chosen, found = _on_device(_score, logits)(logits, own)
                total -= chosen.sum()
                normaliser[piece] = found[: piece.stop - piece.start]
                into.put(logits, piece, labels, normaliser, down)
                del logits  # else these and the next piece's exist side by side
            into.add(part)
        ctx.save_for_backward(into.hidden, into.lm_head)
        return total * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # In place: nobody else holds these, and lm_head's is the largest tensor of all.
        hidden, lm_head = ctx.saved_tensors
        for saved in (hidden, lm_head):
            if saved is not None:
                _on_device(_multiply, saved)(saved, gradients[0])
        return hidden, lm_head, None, None, None


class _Gradients:
    """The gradients of hidden states and output layer, as far as they are asked for, gathered chunk by chunk."""

    def __init__(self, ctx: Any, hidden: Tensor, lm_head: Tensor, chunk: int) -> None:
        self._of = hidden, lm_head
        self.hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        self.lm_head = torch.empty_like(lm_head) if ctx.needs_input_grad[1] else None
        if self.lm_head is not None and not len(hidden):
            self.lm_head.zero_()
        wanted = self.hidden is not None or self.lm_head is not None
        self._chunk, self._piece = chunk, _piece(chunk)
        rows = -(-min(chunk, len(hidden)) // self._piece) * self._piece
        self._slopes = hidden.new_empty(rows, len(lm_head)) if wanted else None

    def rows(self, tensor: Tensor, piece: slice, value: int = 0) -> Tensor:
        """Return a piece of one of the tensors that are read by chunks, as long as all pieces are."""
        return _filled(tensor[piece], self._piece, value)

    def put(self, logits: Tensor, piece: slice, labels: Tensor, normaliser: Tensor, towards: Tensor) -> None:
        """Take in the gradient with respect to the logits of a piece of the chunk under way."""
        if self._slopes is not None:
            start = piece.start % self._chunk
            slopes = self._slopes[start : start + len(logits)]
            own = self.rows(labels, piece, IGNORED), self.rows(normaliser, piece), self.rows(towards, piece)
            _on_device(_slope, logits)(slopes, logits, *own)

    def add(self, part: slice) -> None:
        """Put in what the chunk's gradients with respect to its logits, [chunk, V], give."""
        hidden, lm_head = self._of
        if self._slopes is None:
            return
        slopes = self._slopes[: part.stop - part.start]
        if self.hidden is not None:
            torch.mm(slopes, lm_head, out=self.hidden[part])
        if self.lm_head is not None and part.start == 0:
            torch.mm(slopes.t(), hidden[part], out=self.lm_head)
        elif self.lm_head is not None:
            self.lm_head.addmm_(slopes.t(), hidden[part])


def _score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the labels' log-probabilities (0 where ignored) and log Σ exp(logits), both [chunk]."""
    top = logits.amax(-1, keepdim=True)
    normaliser = top[:, 0] + (logits - top).exp().sum(-1).log()  # which compiles to one pass, as logsumexp does not
    counted = labels != IGNORED
    picked = logits.gather(-1, torch.where(counted, labels, 0)[:, None])[:, 0]
    return torch.where(counted, picked - normaliser, 0.0), normaliser


def _slope(slopes: Tensor, logits: Tensor, labels: Tensor, normaliser: Tensor, towards: Tensor) -> None:
    """Write d(Σ towards · logprob)/d(logits) into `slopes`, [piece, V]."""
    towards = torch.where(labels != IGNORED, towards, 0.0)[:, None]
    columns = torch.arange(logits.shape[-1], device=logits.device)
    hit = (columns == labels[:, None]).to(logits.dtype)
    slopes.copy_((hit - torch.exp(logits - normaliser[:, None])) * towards)


def _multiply(tensor: Tensor, by: Tensor) -> None:
    tensor.mul_(by)


def _logits(hidden: Tensor, lm_head: Tensor) -> Tensor:
    """Return hidden · lm_headᵀ in fp32: 16-bit factors on a GPU are multiplied as they are, with fp32 results."""
    if hidden.dtype == torch.float32:
        return hidden @ lm_head.t()
    if hidden.is_cuda:
        return torch.mm(hidden, lm_head.t(), out_dtype=torch.float32)
    return hidden.float() @ lm_head.float().t()


def _parts(labels: Tensor, chunk: int) -> Iterator[slice]:
    return (slice(start, min(start + chunk, len(labels))) for start in range(0, len(labels), chunk))


def _piece(chunk: int) -> int:
    return -(-chunk // _PIECES)


def _pieces(part: slice, chunk: int) -> Iterator[slice]:
    size = _piece(chunk)
    return (slice(start, min(start + size, part.stop)) for start in range(part.start, part.stop, size))


def _filled(rows: Tensor, count: int, value: int = 0) -> Tensor:
    """Return rows, where they are compiled for with others behind them up to `count`: code for one length is enough."""
    missing = count - len(rows)
    if not missing or not _compiles(rows):
        return rows
    return F.pad(rows, (0,) * (2 * rows.ndim - 1) + (missing,), value=value)


def _on_device(function: Callable[..., Any], like: Tensor) -> Callable[..., Any]:
    """Return `function`, compiled where `like` is on a GPU: one pass over the logits instead of five."""
    return _compiled(function) if _compiles(like) else function


def _compiles(like: Tensor) -> bool:
    return like.is_cuda


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(function, dynamic=False)
    return compiled


def _check(hidden: Tensor, lm_head: Tensor, labels: Tensor) -> None:
    if hidden.shape[:-1] != labels.shape or hidden.shape[-1] != lm_head.shape[-1]:
        shapes = f"hidden {tuple(hidden.shape)}, lm_head {tuple(lm_head.shape)}, labels {tuple(labels.shape)}"
        raise ValueError(f"{shapes} do not fit: [..., H], [V, H] and [...] are wanted")
    if hidden.dtype != lm_head.dtype:
        raise ValueError(f"hidden is {hidden.dtype} and lm_head {lm_head.dtype}: they must be of one dtype")
