"""How likely a network finds continuations of a prompt, for the engine `transformers`.

What the continuations of a request have in common, which is the prompt and often more, goes through the network once.
Where each has one token more, that is all; else their ends go through it in batches that share the prompt's keys and
values. A batch that does not fit into memory is halved.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.engines.batching import attention_kernels, out_of_memory, release
from harness.engines.decoding import cache_keyword, to_device
from harness.types import Request

if TYPE_CHECKING:
    import torch
    from transformers import Cache


@dataclass(frozen=True, slots=True)
class Weighed:
    """A request with the log-probability of each of its continuations, or why there are none."""

    request: Request
    logprobs: tuple[float, ...]
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request: the ids that its continuations share, of which those from `start` on count, and how each ends."""

    request: Request
    shared: tuple[int, ...]
    start: int
    ends: tuple[tuple[int, ...], ...]


#: A log-probability that is wanted: of which request and continuation, in which row and column, and of which token.
_Wanted = tuple[int, int, int, int, int]


class Weigher:
    """Finds log-probabilities of continuations with a network of transformers in evaluation mode.

    A pass has at most `batch_rows` rows, and `prefill_tokens` tokens, padding included, of what is shared; ends go
    through with keys and values of at most `batch_tokens` tokens.
    """

    def __init__(self, network: Any, *, batch_tokens: int, batch_rows: int, prefill_tokens: int) -> None:
        accepted = inspect.signature(network.forward).parameters
        self._network = network
        self._device: torch.device = network.device
        self._batch_tokens, self._batch_rows, self._prefill_tokens = batch_tokens, batch_rows, prefill_tokens
        self._cache_keyword = cache_keyword(network)
        self._takes_positions = "position_ids" in accepted
        self._keeps = "logits_to_keep" in accepted

    def run(self, requests: Iterable[Request]) -> Iterator[Weighed]:
        """Yield what is found for each request, the longest first."""
        waiting = sorted(map(_asked, requests), key=lambda asked: len(asked.shared))
        while waiting:
            count = max(1, min(self._batch_rows, self._prefill_tokens // len(waiting[-1].shared)))
            batch = waiting[: -count - 1 : -1]
            del waiting[-count:]
            yield from self._fitted(batch)

    def _fitted(self, batch: Sequence[_Asked]) -> Iterator[Weighed]:
        """Yield what is found for a batch, by halves where it does not fit into memory."""
        started = time.perf_counter()
        found: list[list[float]] | None = None
        try:
            found = self._weigh(batch)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        seconds = time.perf_counter() - started
        if found is not None:
            for asked, logprobs in zip(batch, found, strict=True):
                broken = any(value != value for value in logprobs)
                problem = "the model gave NaN; try dtype=float32, or save the model anew" if broken else None
                yield Weighed(asked.request, () if broken else tuple(logprobs), seconds, problem)
            return
        release(self._device)
        if len(batch) == 1:
            problem = f"out of memory at {len(batch[0].shared)} tokens; try dtype=bfloat16"
            yield Weighed(batch[0].request, (), seconds, problem)
            return
        self._prefill_tokens = max(1, self._prefill_tokens // 2)
        self._batch_tokens = max(1, self._batch_tokens // 2)
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            yield from self._fitted(half)

    def _weigh(self, batch: Sequence[_Asked]) -> list[list[float]]:
        """Return the log-probabilities of each request's continuations; the batch's longest comes first."""
        import torch

        sums = [[0.0] * len(asked.ends) for asked in batch]
        with torch.inference_mode():
            kept = max(len(asked.shared) - asked.start for asked in batch) + 1
            logits, cache = self._shared(batch, kept)
            wanted = list(_of_shared(batch, kept))
            self._add(sums, logits, wanted)
            del logits
            rows = [
                (number, end)
                for number, asked in enumerate(batch)
                for end, ids in enumerate(asked.ends)
                if len(ids) > 1
            ]
            longest = len(batch[0].shared)
            while rows:
                width = max(len(batch[number].ends[end]) for number, end in rows) - 1
                most = max(1, self._batch_tokens // (longest + width))
                some, rows = rows[:most], rows[most:]
                self._add(sums, self._ends(batch, some, cache), _of_ends(batch, some))
        return sums

    def _shared(self, batch: Sequence[_Asked], kept: int) -> tuple[torch.Tensor, Cache]:
        """Run what each request shares through the network, aligned on the right; return the last logits, and cache."""
        import torch
        from transformers import DynamicCache

        lengths = [len(asked.shared) for asked in batch]
        longest, cache = lengths[0], DynamicCache()
        ids = to_device([[0] * (longest - len(asked.shared)) + [*asked.shared] for asked in batch], self._device)
        places = torch.arange(longest, device=self._device) - (longest - to_device(lengths, self._device))[:, None]
        mask = None if lengths[-1] == longest else places >= 0
        keep = {"logits_to_keep": kept} if self._keeps else {}
        return self._forward(ids, places.clamp(min=0), mask, cache, **keep)[:, -kept:], cache

    def _ends(self, batch: Sequence[_Asked], rows: Sequence[tuple[int, int]], cache: Cache) -> torch.Tensor:
        """Run all but the last token of some ends through the network, each behind its request's keys and values."""
        import torch
        from transformers import DynamicCache

        longest = len(batch[0].shared)
        tokens = [batch[number].ends[end][:-1] for number, end in rows]
        width = max(map(len, tokens))
        ids = to_device([[*each, *[0] * (width - len(each))] for each in tokens], self._device)
        lengths = to_device([len(batch[number].shared) for number, _ in rows], self._device)[:, None]
        filled = torch.arange(longest, device=self._device) >= longest - lengths
        given = torch.arange(width, device=self._device)
        mask = torch.cat([filled, given < to_device([len(each) for each in tokens], self._device)[:, None]], dim=1)
        sources = to_device([number for number, _ in rows], self._device)
        own = DynamicCache()
        layers: list[Any] = cache.layers
        for number, layer in enumerate(layers):
            own.update(layer.keys[sources], layer.values[sources], number)
        return self._forward(ids, lengths + given, mask, own)

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: Any, **more: Any
    ) -> torch.Tensor:
        placed = {"position_ids": positions} if self._takes_positions else {}
        held = {self._cache_keyword: cache}
        with attention_kernels(self._device):
            output = self._network(input_ids=ids, attention_mask=mask, use_cache=True, **held, **placed, **more)
        logits: torch.Tensor = output.logits
        return logits

    def _add(self, sums: list[list[float]], logits: torch.Tensor, wanted: Iterable[_Wanted]) -> None:
        """Add the log-probabilities that are wanted of `logits` [rows, columns, vocabulary] to the sums they are of."""
        listed = list(wanted)
        _, _, rows, columns, tokens = to_device(listed, self._device).unbind(1)
        totals = logits.float().logsumexp(dim=-1)
        values = (logits[rows, columns, tokens].float() - totals[rows, columns]).tolist()
        for (number, end, *_), value in zip(listed, values, strict=True):
            sums[number][end] += value


def _asked(request: Request) -> _Asked:
    every = [each.token_ids for each in request.continuations]
    shortest = min(map(len, every)) - 1  # the last token of each is predicted, and goes through no network
    differs = (place for place, ids in enumerate(zip(*every, strict=False)) if len(set(ids)) > 1)
    length = min(next(differs, shortest), shortest)
    start = request.continuations[0].start
    return _Asked(request, every[0][:length], start, tuple(ids[length:] for ids in every))


def _of_shared(batch: Sequence[_Asked], kept: int) -> Iterator[_Wanted]:
    """Yield what is wanted of the logits of what is shared, of which the last `kept` columns are there."""
    for number, asked in enumerate(batch):
        length = len(asked.shared)
        for end, ids in enumerate(asked.ends):
            for place in range(asked.start, length):
                yield number, end, number, kept - length + place - 1, asked.shared[place]
            yield number, end, number, kept - 1, ids[0]


def _of_ends(batch: Sequence[_Asked], rows: Sequence[tuple[int, int]]) -> Iterator[_Wanted]:
    for row, (number, end) in enumerate(rows):
        for column, token in enumerate(batch[number].ends[end][1:]):
            yield number, end, row, column, token
