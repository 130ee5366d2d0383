"""The decode loop of the engine `transformers`: a running batch that rows join and leave one by one.

A batch costs what its longest row costs, so rows of like length are decoded together: batches begin narrow and grow
wider, and a row that outgrows its batch steps back while shorter ones wait, to go on with its equals. When memory runs
out, the batch is dropped and its rows, which are held on the host, go on in batches half as large.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.engines.decoding import Columns, Row, RowTexts, cache_keyword, choose_tokens, to_device, top_logprobs
from harness.engines.streaming import Pieces
from harness.types import Completion, FinishReason

if TYPE_CHECKING:
    import torch

_GRAIN = 256  # batches are as wide as a multiple of this,
_ROOM = 128  # and wide enough for so many new tokens of each row

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Batch:
    """Rows that are being decoded, and the `queue` of those, the longest last, that join them as others finish."""

    width: int = 0
    capacity: int = 0
    rows: list[Row] = field(default_factory=list)
    queue: list[Row] = field(default_factory=list)
    columns: Columns = field(default_factory=Columns)


class Decoder:
    """Decodes rows with a network.

    Arguments:
        network: a causal language model of transformers in evaluation mode.
        texts: decodes its tokens.
        stop_ids: the tokens that end a completion.
        batch_tokens: the tokens that a batch may hold keys and values for, rows times width.
        batch_rows: the most rows of a batch.
        prefill_tokens: the most tokens of prompts, padding included, in one forward pass of several prompts.
    """

    def __init__(
        self,
        network: Any,
        texts: RowTexts,
        stop_ids: Iterable[int],
        *,
        batch_tokens: int,
        batch_rows: int,
        prefill_tokens: int,
    ) -> None:
        self._network = network
        self._device: torch.device = network.device
        self._texts = texts
        self._stop_ids = frozenset(stop_ids)
        self._batch_rows = batch_rows
        self._most_tokens = self._batch_tokens = batch_tokens
        self._prefill_tokens = prefill_tokens
        accepted = inspect.signature(network.forward).parameters
        self._cache_keyword = cache_keyword(network)
        self._takes_positions = "position_ids" in accepted
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def run(self, rows: Iterable[Row]) -> Iterator[Completion]:
        """Yield the completion of each row as it finishes."""
        return itertools.chain.from_iterable(self._steps(rows))

    def stream(self, row: Row) -> Generator[str, None, Completion]:
        """Yield the text of one row piece by piece and return its completion."""
        pieces = Pieces()
        for finished in self._steps([row]):
            for completion in finished:
                yield pieces.grow(completion.text)
                return completion
            yield pieces.grow(self._texts.settled(row))
        raise AssertionError("a row ends with a completion")

    def _steps(self, rows: Iterable[Row]) -> Iterator[list[Completion]]:
        """Yield after each pass of the network the completions that it has finished."""
        lanes: dict[int, list[Row]] = {}  # width → rows that wait for a batch of that width
        for row in rows:
            self._wait(row, lanes)
        batch = _Batch()
        while lanes or batch.queue or batch.rows:
            self._widen(batch, lanes)
            admitted = self._admit(batch)
            exhausted = False
            try:
                news = self._prefill(batch, admitted) if admitted else self._step(batch)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                exhausted = True  # the batch is dropped only outside this clause, whose error refers to its tensors
            if exhausted:
                yield list(self._shrink(batch, lanes))
                batch = _Batch()
                release(self._device)
                continue
            yield self._take(batch, news, lanes)

    def _wait(self, row: Row, lanes: dict[int, list[Row]]) -> None:
        lanes.setdefault(self._width(row), []).append(row)

    def _width(self, row: Row) -> int:
        """Return the width of the batches that `row` belongs in."""
        return -(-min(len(row.ids) + _ROOM, row.limit) // _GRAIN) * _GRAIN

    def _capacity(self, width: int) -> int:
        return max(1, min(self._batch_rows, self._batch_tokens // width))

    def _widen(self, batch: _Batch, lanes: dict[int, list[Row]]) -> None:
        """Once nothing waits for this batch, let it take up the rows of the next wider lane."""
        if batch.queue or not lanes:
            return
        lane = min(lanes)
        width = max(lane, batch.width)
        if len(batch.rows) < self._capacity(width):
            batch.queue = sorted(lanes.pop(lane), key=lambda row: len(row.ids))
            batch.width = width
            batch.capacity = min(self._capacity(width), len(batch.rows) + len(batch.queue))

    def _admit(self, batch: _Batch) -> list[Row]:
        """Move rows from the queue into the batch, longest first, and return them.

        None move until an eighth of the batch is free, since a pass for few rows costs as much as one for many.
        """
        free = batch.capacity - len(batch.rows)
        if not batch.queue or free < max(1, batch.capacity // 8):
            return []
        count = max(1, min(free, self._prefill_tokens // len(batch.queue[-1].ids)))
        admitted = batch.queue[: -count - 1 : -1]
        del batch.queue[-count:]
        now = time.perf_counter()
        for row in admitted:
            row.started = row.started or now
        batch.rows += admitted
        return admitted

    def _prefill(self, batch: _Batch, rows: Sequence[Row]) -> list[tuple[int, dict[str, float]]]:
        """Run the ids of new rows, longest first, through the network and return the token that follows each."""
        import torch
        from transformers import DynamicCache

        lengths = [len(row.ids) for row in rows]
        longest = lengths[0]
        cache = DynamicCache()
        with torch.inference_mode():
            batch.columns.make_room(batch.capacity, batch.width, longest)
            ids = to_device([[0] * (longest - len(row.ids)) + row.ids for row in rows], self._device)
            places = torch.arange(longest, device=self._device) - (longest - to_device(lengths, self._device))[:, None]
            mask = None if lengths[-1] == longest else places >= 0
            logits = self._forward(ids, places.clamp(min=0), mask, cache)
            batch.columns.add(cache, lengths)
            return self._choose(logits, rows)

    def _step(self, batch: _Batch) -> list[tuple[int, dict[str, float]]]:
        """Run the newest token of every row through the network and return the token that follows it."""
        import torch

        lengths = batch.columns.lengths
        with torch.inference_mode():
            batch.columns.make_room(batch.capacity, batch.width)
            ids, places = to_device([[row.ids[-1] for row in batch.rows], lengths], self._device)[:, :, None]
            longest = max(lengths)
            mask = None
            if min(lengths) < longest:
                mask = torch.arange(longest + 1, device=self._device) >= longest - places
            logits = self._forward(ids, places, mask, batch.columns.cache())
            batch.columns.advance()
            return self._choose(logits, batch.rows)

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        """Return the fp32 logits [rows, vocabulary] after the last of `ids` [rows, tokens]."""
        placed = {"position_ids": positions} if self._takes_positions else {}
        held = {self._cache_keyword: cache}
        with attention_kernels(self._network.device):
            output = self._network(
                input_ids=ids, attention_mask=mask, use_cache=True, **held, **placed, **self._last_only
            )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[tuple[int, dict[str, float]]]:
        """Return for each row its next token, and what its request wants to know of the most likely ones."""
        named: list[dict[str, float]] = []
        for top in top_logprobs(logits, rows):
            named.append({})
            for token, value in top:
                named[-1].setdefault(self._texts.name(token), value)  # of tokens with one text the most likely
        return list(zip(choose_tokens(logits, rows), named, strict=True))

    def _take(
        self, batch: _Batch, news: Sequence[tuple[int, dict[str, float]]], lanes: dict[int, list[Row]]
    ) -> list[Completion]:
        """Give the last rows of the batch their new tokens; drop those that have finished and return their ends."""
        import torch

        first = len(batch.rows) - len(news)
        now = time.perf_counter()
        done, gone, outgrown = [], [], []
        for index, (token, top) in enumerate(news, first):
            row = batch.rows[index]
            completion = self._extend(row, token, top, now)
            if completion is not None:
                done.append(completion)
                gone.append(index)
            elif len(row.ids) > batch.width:
                outgrown.append(index)
        if outgrown:
            width = max(self._width(batch.rows[index]) for index in outgrown)
            left = len(batch.rows) - len(gone)
            if not batch.queue and left <= self._capacity(width):
                batch.width, batch.capacity = width, left
            else:
                gone += outgrown
                for index in outgrown:
                    self._wait(batch.rows[index], lanes)
        if gone:
            with torch.inference_mode():
                order = batch.columns.remove(gone)
            batch.rows = [batch.rows[index] for index in order]
        return done

    def _extend(self, row: Row, token: int, top: dict[str, float], now: float) -> Completion | None:
        """Append a token to a row and return its completion if that ends it."""
        if token < 0:
            return self._completion(row, now, error="the model gave NaN; try dtype=float32, or save the model anew")
        forced = bool(row.forced)  # what was put into the model's mouth ends nothing
        token = row.forced.pop(0) if forced else token
        row.ids.append(token)
        if top:
            row.top_logprobs.append(top)
        if token in self._stop_ids and not forced:
            return self._completion(row, now, self._texts.completion(row, -1), "stop")
        text = None if forced else self._texts.stopped(row)
        if text is not None:
            return self._completion(row, now, text, "stop")
        if len(row.ids) - row.prompt_tokens == row.request.generation.thinking_tokens:
            self._texts.close_thought(row)
        if len(row.ids) >= row.limit:
            return self._completion(row, now, self._texts.completion(row), "length")
        return None

    def _completion(
        self, row: Row, now: float, text: str = "", finish_reason: FinishReason | None = None, error: str | None = None
    ) -> Completion:
        return Completion(
            row.request.id,
            text,
            finish_reason,
            prompt_tokens=row.prompt_tokens,
            completion_tokens=len(row.ids) - row.prompt_tokens,
            seconds=now - (row.started or now),
            error=error,
            top_logprobs=tuple(row.top_logprobs),
            thought_tokens=self._texts.thought_tokens(row),
        )

    def _shrink(self, batch: _Batch, lanes: dict[int, list[Row]]) -> Iterator[Completion]:
        """After running out of memory let all rows wait for smaller batches; give up a row that had one to itself."""
        rows = batch.rows + batch.queue
        if batch.capacity > 1:
            self._batch_tokens = batch.capacity * batch.width // 2
            self._prefill_tokens = max(1, self._prefill_tokens // 2)
            _log.warning("out of memory: batches hold %d tokens from now on", self._batch_tokens)
        else:
            row = rows.pop(0)
            self._batch_tokens = self._most_tokens
            error = f"out of memory at {len(row.ids)} tokens; try dtype=bfloat16, or the engine vllm over several GPUs"
            yield self._completion(row, time.perf_counter(), error=error)
        for row in rows:
            self._wait(row, lanes)


def attention_kernels(device: torch.device) -> AbstractContextManager[None]:
    """Choose among PyTorch's attention kernels: cuDNN makes a plan for each shape, and each step has a new one.

    Without it 256 rows of an 8B model took 17.3 s for 160 tokens on an H200, with it 22.4 s.
    """
    if device.type != "cuda":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernels: AbstractContextManager[None] = sdpa_kernel(
        [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    )
    return kernels


def out_of_memory(error: BaseException) -> bool:
    """Return whether PyTorch ran out of memory, on whichever device."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def release(device: torch.device) -> None:
    """Give memory that nothing refers to any more back to the device."""
    import gc

    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
