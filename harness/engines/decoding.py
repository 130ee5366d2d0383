"""The parts of a decode loop: the rows being completed, their keys and values, the next token, and stop strings.

A `Row` is all there is to know about a request on its way, held on the host: when memory runs out, a batch can be
dropped and its rows taken up again. `Columns` holds the keys and values of a batch, aligned on the right, so that all
rows write the same column and a model sees ordinary left padding.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.engines.detokenizing import Detokenizer
from harness.engines.streaming import settled, without_bytes
from harness.engines.thinking import Thoughts
from harness.types import Request

if TYPE_CHECKING:
    import torch
    from transformers import Cache, PreTrainedTokenizerBase

_SLACK = 64  # spare columns of a batch: its rows are moved to the left once in so many steps


@dataclass(slots=True, eq=False)
class Row:
    """A request on its way: `ids` are the prompt's and those generated so far, at most `limit` of them in the end.

    `forced` are the next tokens, whatever the model would choose: those that close a thought that takes too long. Stop
    strings are looked for behind the first `passed` of the ids, the prompt's and those of a closed thought.
    """

    request: Request
    ids: list[int]
    limit: int
    draw: random.Random
    prompt_tokens: int = field(init=False)
    passed: int = field(init=False)
    started: float | None = None
    top_logprobs: list[dict[str, float]] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prompt_tokens = self.passed = len(self.ids)


class Columns:
    """The keys and values of up to `capacity` rows, for each layer of a model.

    Row i of the batch is row i of every buffer, [capacity, heads, columns, head size]; its keys end before column
    `end`, where the next token's go. `cache()` gives what a model's forward takes: it writes one column and shows those
    that any of the rows fills. Rows come in by `add` and go by `remove`; nothing else is ever copied, except that
    `make_room` moves all rows when the columns run out or more are wanted.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []  # keys held, row by row
        self.start = 0  # the first column shown
        self.end = 0  # the column that the next token's keys go to
        self._capacity = 0
        self._width = 0
        self._cache: Cache | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def make_room(self, capacity: int, width: int, longest: int = 0) -> None:
        """Provide for `capacity` rows of `width` keys each, and for rows of `longest` keys to be added."""
        occupied = max(self.lengths, default=0)
        if (self._capacity, self._width) == (capacity, width) and longest <= self.end < width + _SLACK:
            return
        end = max(occupied, longest)
        for layer in self._layers():
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = old.new_zeros(capacity, old.shape[1], width + _SLACK, old.shape[3])
                new[: len(self), :, end - occupied : end] = old[: len(self), :, self.end - occupied : self.end]
                setattr(layer, name, new)
        self._capacity, self._width, self.end = capacity, width, end

    def add(self, prefilled: Cache, lengths: Sequence[int]) -> None:
        """Take in the rows of a cache that holds their keys aligned on the right; `make_room` has seen to the place."""
        held = len(self)
        if self._cache is None:
            self._cache = _empty_cache(prefilled, self)
        for own, other in zip(self._cache.layers, prefilled.layers, strict=True):
            for name in ("keys", "values"):
                new = getattr(other, name)
                if getattr(own, name) is None:  # zeros, since what is masked must still be finite
                    columns = self._width + _SLACK
                    setattr(own, name, new.new_zeros(self._capacity, new.shape[1], columns, new.shape[3]))
                buffer = getattr(own, name)
                buffer[held : held + len(lengths), :, self.end - new.shape[2] : self.end] = new
        self.lengths.extend(lengths)

    def remove(self, gone: Sequence[int]) -> list[int]:
        """Drop rows and return the batch's new order: the last ones have moved to where rows went."""
        gone_rows = set(gone)
        left = len(self) - len(gone_rows)
        movers = [row for row in range(left, len(self)) if row not in gone_rows]
        order = list(range(left))
        for hole in sorted(row for row in gone_rows if row < left):
            order[hole] = movers.pop()
        moved = [row for row in range(left) if order[row] != row]
        if moved:
            begin = self.end - max(self.lengths[order[row]] for row in moved)
            layers = self._layers()
            targets, sources = to_device([moved, [order[row] for row in moved]], layers[0].keys.device)
            for layer in layers:
                for buffer in (layer.keys, layer.values):
                    filled = buffer[:, :, begin : self.end]
                    filled.index_copy_(0, targets, filled.index_select(0, sources))
        self.lengths = [self.lengths[row] for row in order]
        return order

    def cache(self) -> Cache:
        """Return the cache to call the model with, once, for the next token of every row."""
        assert self._cache is not None, "rows are added before they are decoded"
        self.start = self.end - max(self.lengths)
        return self._cache

    def advance(self) -> None:
        """Note that a column has been written for every row."""
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def _layers(self) -> list[Any]:
        return [] if self._cache is None else list(self._cache.layers)


def cache_keyword(network: Any) -> str:
    """Return the name under which a network's forward takes its keys and values.

    transformers calls it ``cache`` since 5.24, and no longer ``past_key_values`` from 5.40 on.
    """
    return "cache" if "cache" in inspect.signature(network.forward).parameters else "past_key_values"


def _empty_cache(like: Cache, columns: Columns) -> Cache:
    from transformers import Cache

    kind = _layer_class()
    return Cache(layers=[kind(columns) for _ in like.layers])


@functools.cache
def _layer_class() -> type[Any]:
    """Return the class of a cache's layer that writes to `Columns`; made here, since its base takes torch to import."""
    from transformers.cache_utils import DynamicLayer

    class ColumnLayer(DynamicLayer):
        def __init__(self, columns: Columns) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.columns = columns
            self.is_initialized = True

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            rows, start, end = len(self.columns), self.columns.start, self.columns.end
            assert self.keys is not None and self.values is not None
            self.keys[:rows, :, end] = key_states[:, :, 0]
            self.values[:rows, :, end] = value_states[:, :, 0]
            return self.keys[:rows, :, start : end + 1], self.values[:rows, :, start : end + 1]

        def get_seq_length(self) -> int:
            return self.columns.end - self.columns.start

    return ColumnLayer


def choose_tokens(logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
    """Return the next token of each row, from fp32 `logits` [rows, vocabulary]; -1 for a row whose logits are NaN.

    Temperature 0 takes the most likely token. Otherwise one uniform number from the row's own generator picks a token
    by the inverse of the distribution function, after nucleus sampling (Holtzman et al. 2020) has kept the fewest most
    likely tokens that hold a probability of `top_p`: what is drawn does not depend on the other rows.
    """
    import torch

    best, tokens = logits.max(dim=-1)
    sampled = [index for index, row in enumerate(rows) if row.request.generation.temperature > 0]
    if sampled:
        settings = [
            (row.request.generation.temperature, row.request.generation.top_p, row.draw.random())
            for row in (rows[index] for index in sampled)
        ]
        temperature, top_p, uniform = to_device(settings, logits.device).unbind(1)
        places = to_device(sampled, logits.device)
        scaled = logits[places] / temperature[:, None]
        probabilities, order = scaled.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        reached = probabilities.cumsum(dim=-1)
        kept = reached - probabilities < top_p[:, None]
        mass = (probabilities * kept).sum(dim=-1)
        place = (reached <= (uniform * mass)[:, None]).sum(dim=-1)
        place = torch.minimum(place, kept.sum(dim=-1) - 1)
        tokens[places] = order.gather(1, place[:, None])[:, 0]
    return torch.where(best.isnan(), -1, tokens).tolist()


def top_logprobs(logits: torch.Tensor, rows: Sequence[Row]) -> list[list[tuple[int, float]]]:
    """Return for each row its request's number of most likely tokens, with their natural log probabilities."""
    most = max(row.request.generation.logprobs for row in rows)
    if not most:
        return [[] for _ in rows]
    values, ids = logits.log_softmax(dim=-1).topk(min(most, logits.shape[-1]), dim=-1)
    pairs = [list(zip(*both, strict=True)) for both in zip(ids.tolist(), values.tolist(), strict=True)]
    return [one[: row.request.generation.logprobs] for one, row in zip(pairs, rows, strict=True)]


def to_device(values: Sequence[Any], device: torch.device) -> torch.Tensor:
    """Return a tensor of `values` on `device`, copied from pinned memory and without waiting where that is possible."""
    import torch

    tensor = torch.tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class RowTexts:
    """Turns generated ids into text and finds stop strings in it, with as little decoding as will do.

    A stop string can only be complete when the newest token holds its last character (or part of a character): only
    then is anything decoded, and only as many of the last tokens as the longest stop string can span.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer)
        self._thoughts = Thoughts(tokenizer, self._detokenizer)
        self._anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]
        self._pieces: dict[int, str] = {}
        self._names: dict[int, str] = {}

    def completion(self, row: Row, end: int | None = None) -> str:
        """Return the text of the ids that `row` has generated, up to index `end` of its ids.

        Special tokens are left out, but for the borders of reasoning.
        """
        return self._after(row.ids[max(0, row.prompt_tokens - 8) : row.prompt_tokens], row.ids[row.prompt_tokens : end])

    def close_thought(self, row: Row) -> None:
        """Let the thought of a row that is on its way be closed, if it is in one."""
        row.forced = self._thoughts.closing(row.ids[: row.prompt_tokens], row.ids[row.prompt_tokens :])
        if row.forced:
            row.passed = len(row.ids) + len(row.forced)

    def thought_tokens(self, row: Row) -> int:
        """Return how many of the ids that `row` has generated are thoughts."""
        return self._thoughts.count(row.ids[: row.prompt_tokens], row.ids[row.prompt_tokens :])

    def settled(self, row: Row) -> str:
        """Return what is sure already of the text of a row on its way."""
        end = row.prompt_tokens + len(without_bytes(row.ids[row.prompt_tokens :], self._tokenizer))
        return settled(self.completion(row, end), row.request.generation.stop)

    def stopped(self, row: Row) -> str | None:
        """Return the text before the stop string that the newest token completes, None if it completes none."""
        stops = row.request.generation.stop
        if not stops:
            return None
        piece = self._piece(row.ids[-1])
        if "\N{REPLACEMENT CHARACTER}" not in piece and not any(stop[-1] in piece for stop in stops):
            return None
        if not self._in_tail(row, stops):
            return None
        text = self._after(row.ids[max(0, row.passed - 8) : row.passed], row.ids[row.passed :])
        ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
        return self.completion(row, row.passed) + text[: min(ends)[1]] if ends else None

    def name(self, token: int) -> str:
        """Return the text of one token, special ones included."""
        if token not in self._names:
            self._names[token] = self._detokenizer.all([token])
        return self._names[token]

    def _in_tail(self, row: Row, stops: Sequence[str]) -> bool:
        """Return whether one of `stops` lies in the last few tokens of `row`."""
        generated = len(row.ids) - row.passed
        tokens = (
            max(len(stop.encode()) for stop in stops) + 4
        )  # a token is a byte at least; 4 for a character cut in two
        while True:
            tail = self._detokenizer.text(row.ids[-min(tokens, generated) :])
            if any(stop in tail for stop in stops):
                return True
            if tokens >= generated or len(tail) >= max(map(len, stops)) + 4:
                return False
            tokens *= 2  # many of them were special tokens, without a text

    def _piece(self, token: int) -> str:
        """Return the text that `token` adds in the middle of a text."""
        if token not in self._pieces:
            self._pieces[token] = self._after(self._anchor, [token])
        return self._pieces[token]

    def _after(self, before: list[int], ids: list[int]) -> str:
        """Return the text of `ids` as it stands after `before`: some tokenizers drop a space at the very beginning."""
        context, text = self._detokenizer.text(before), self._detokenizer.text(before + ids)
        return text[len(context) :] if text.startswith(context) else self._detokenizer.text(ids)
