"""Pairs as rows: both sides of a pair in one microbatch, microbatches of one width, almost without padding.

A row is a pair, so that steps count pairs. Every step of an epoch gets about the same number of tokens: its pairs come
from all lengths alike. A step's pairs are then laid into microbatches that are as equal as can be, side by side, each
side a document of its own. So one width, the least that all of them fit into, is over 99% full, and compiled code meets
one shape.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.training.batch import Ints, TrainingRows, steps_in_epoch
from harness.training.data.pairs import Pair
from harness.training.data.tokens import Tokens, permutation, stable_order

if TYPE_CHECKING:
    from harness.training.batch import Batch

#: Widths are multiples of this, for the sake of matrix products.
_GRAIN = 64
#: So many positions of a microbatch hold nothing at least: what pads keys needs a query that sees them.
_PADDING = 8


class PairRows(TrainingRows):
    """Pairs as the loop takes them.

    Arguments:
        documents: the sides of all pairs as token ids, of pair p the chosen one at 2p and the rejected one behind it.
        texts: the pairs themselves.
        pairs: numbers of those that are rows here, int64 [rows].
        sources: of every pair of `documents` the number of the file that it comes from, int64 [pairs].
        share: whether both sides of a pair share the positions of their prompt.

    `width` is the number of positions of a microbatch, `longest` bounds a document's; see `fit`. `reference`, float32
    [pairs, 2], holds log-probabilities of both sides under the reference model, where they are known beforehand.
    """

    def __init__(
        self, documents: Tokens, texts: Sequence[Pair], pairs: Ints, sources: Ints, *, share: bool = False
    ) -> None:
        self.documents, self.texts, self.pairs, self.sources, self.share = documents, texts, pairs, sources, share
        lengths = documents.lengths - 1  # the end token is a label only
        sides = lengths[2 * pairs], lengths[2 * pairs + 1]
        self._lengths = sides[0] + sides[1]
        self.tokens = self._lengths - documents.prompts[2 * pairs] if share else self._lengths
        self.weights = np.ones(len(pairs), np.int64)
        self.longest = int(np.maximum(*sides).max(initial=1))
        self.width = self.keys = 0
        self.reference: npt.NDArray[np.float32] | None = None
        self._order: tuple[tuple[int, int, int], Ints] | None = None

    unit = "pairs"

    def __len__(self) -> int:
        return len(self.pairs)

    def positions(self, size: int) -> int:
        """Return about how many tokens a microbatch of `size` pairs, on average, holds, whatever was fitted."""
        even = math.ceil(1.02 * size * float(self.tokens.mean())) if len(self) else 0
        return -(-(max(even, int(self.tokens.max(initial=1))) + _PADDING) // _GRAIN) * _GRAIN

    def fit(self, batch_size: int, size: int, world: int, seed: int, other: PairRows | None = None) -> None:
        """Set the width, and `other`'s, to what microbatches of `size` pairs, on average, of the first epoch need."""
        longest, keys = max(int(rows.tokens.max(initial=1)) for rows in (self, other or self)), 0
        for step in range(max(1, len(self) // batch_size)):  # of a short last step, what does not fit is cut once more
            rows = np.array(self.step(batch_size, seed, step))
            for group in divided(self.tokens[rows], _parts(len(rows), size, world)):
                longest = max(longest, int(self.tokens[rows[group]].sum()))
                keys = max(keys, int(self._lengths[rows[group]].sum()))
        for one in (self, other or self):
            one.width = -(-(longest + _PADDING) // _GRAIN) * _GRAIN
            one.keys = -(-(keys + _PADDING) // _GRAIN) * _GRAIN + _GRAIN
            one.longest = max(self.longest, (other or self).longest)

    def step(self, batch_size: int, seed: int, step: int) -> list[int]:
        epoch, place = divmod(step, steps_in_epoch(len(self), batch_size))
        key = (batch_size, seed, epoch)
        if self._order is None or self._order[0] != key:
            self._order = key, balanced_order(self._lengths, batch_size, seed, epoch)
        rows: list[int] = self._order[1][place * batch_size : (place + 1) * batch_size].tolist()
        return rows

    def microbatches(self, rows: Sequence[int], size: int, rank: int, world: int) -> Iterator[Sequence[int]]:
        """Yield this rank's microbatches: `size` pairs each on average, as equal in tokens as can be.

        There are more of them where one would be wider than `width`.
        """
        numbers = np.asarray(rows, np.int64)
        tokens = self.tokens[numbers]
        least = -(-int(tokens.sum()) // (self.width * world)) * world
        count = max(_parts(len(numbers), size, world), least)
        groups = divided(tokens, count)
        while any(tokens[group].sum() > self.width for group in groups):
            count += world
            groups = divided(tokens, count)
        for group in groups[rank::world]:
            yield numbers[group].tolist()

    def batch(self, indices: Sequence[int], rows: int = 0) -> Batch:
        """Return the pairs at `indices` side by side, on the CPU; `rows` is the number of pairs to expect.

        There is one label for each token of a response, its end token included, and the position that it belongs to is
        in ``extra["at"]``; ``extra["side"]`` says which of the sides (chosen and rejected of the first pair, of the
        second, …) it counts for, ``extra["source"]`` which file a pair is from, and ``extra["reference"]`` holds
        `reference` of these pairs.
        """
        import torch

        from harness.training.batch import Batch

        pairs = self.pairs[np.asarray(indices, np.int64)]
        layout = _Layout(self.width, self.documents.end)
        for number, pair in enumerate(pairs.tolist()):
            prompt = int(self.documents.prompts[2 * pair])
            chosen, rejected = (self.documents.document(2 * pair + side) for side in (0, 1))
            start = layout.add(chosen, prompt, 2 * number)
            layout.add(rejected, prompt, 2 * number + 1, begun=start if self.share else None)
        layout.pad(self.longest, self.keys if self.share else 0, 3 * rows)
        extra: dict[str, npt.NDArray[Any]] = {
            "at": np.concatenate(layout.at),
            "side": np.concatenate(layout.sides),
            "source": self.sources[pairs],
        }
        if self.reference is not None:
            extra["reference"] = self.reference[pairs]
        keys = np.concatenate(layout.keys)
        return Batch(
            input_ids=torch.from_numpy(layout.inputs)[None],
            labels=torch.from_numpy(np.concatenate(layout.labels))[None],
            position_ids=torch.from_numpy(layout.positions)[None],
            borders=torch.tensor(layout.borders, dtype=torch.int32),
            longest=self.longest,
            extra={name: torch.from_numpy(values) for name, values in extra.items()},
            keys=torch.from_numpy(keys) if self.share else None,
            key_borders=torch.tensor(layout.key_borders, dtype=torch.int32) if self.share else None,
        )

    def describe(self, index: int) -> str:
        return self.texts[int(self.pairs[index])].place


class _Layout:
    """One microbatch while documents are put into it side by side."""

    def __init__(self, width: int, end: int) -> None:
        self.inputs, self.positions = np.full(width, end, np.int64), np.zeros(width, np.int64)
        self.labels, self.at, self.sides, self.keys = ([np.zeros(0, np.int64)] for _ in range(4))
        self.borders, self.key_borders = [0], [0]

    def add(self, ids: npt.NDArray[np.int32], prompt: int, side: int, begun: int | None = None) -> int:
        """Put in a document and return where it begins; its prompt stands at `begun` already, if that is given."""
        start, known = self.borders[-1], 0 if begun is None else prompt
        first = np.arange(known) + (begun or 0)
        own = np.arange(start, start + len(ids) - 1 - known)
        places = np.concatenate([first, own])
        self.inputs[own], self.positions[own] = ids[known:-1], np.arange(known, len(ids) - 1)
        self.labels.append(ids[prompt:].astype(np.int64))
        self.at.append(places[prompt - 1 :])
        self.sides.append(np.full(len(ids) - prompt, side))
        if len(own):
            self._close(len(own), places)
        return start

    def pad(self, longest: int, keys: int, documents: int) -> None:
        """Fill up with documents that count nothing, each of `longest` positions and keys at most.

        There are as many keys in all as `keys` asks for, if the positions suffice, and at least so many documents:
        compiled code is to meet one shape.
        """
        free = len(self.inputs) - self.borders[-1]
        each = max(longest - 1, 1)  # of positions and of keys, the shares are rounded up by one each at most
        more = min(max(keys - self.key_borders[-1] - free, 0), free * (each - 1))
        count = -(-(free + more) // each)
        for part in range(count):
            own, other = (amount * (part + 1) // count - amount * part // count for amount in (free, more))
            start = self.borders[-1]
            self._close(own, np.concatenate([np.zeros(other, np.int64), np.arange(start, start + own)]))
        for _ in range(documents + 1 - len(self.borders)):
            self._close(0, np.zeros(0, np.int64))

    def _close(self, own: int, keys: Ints) -> None:
        self.keys.append(keys)
        self.borders.append(self.borders[-1] + own)
        self.key_borders.append(self.key_borders[-1] + len(keys))


def balanced_order(tokens: Ints, batch_size: int, seed: int, epoch: int) -> Ints:
    """Return an order of pairs in which every `batch_size` of them have about as many tokens as any others.

    It depends on its arguments alone, on any machine. A step takes one pair from each of `batch_size` classes of
    length, which overlap, and those that have the most tokens so far take the shortest of the next class. What does not
    fill a step comes last.
    """
    drawn = permutation(len(tokens), seed, epoch)
    steps = len(tokens) // batch_size
    if not steps:
        return drawn
    chosen, rest = np.split(drawn, [steps * batch_size])
    lengths = tokens[chosen] * (4 * len(chosen) + np.arange(len(chosen)))  # up to a quarter longer, at random
    classes = chosen[stable_order(lengths.max() - lengths)].reshape(batch_size, steps)
    totals, order = np.zeros(steps, np.int64), np.empty((steps, batch_size), np.int64)
    for place, members in enumerate(classes):
        ascending = members[stable_order(tokens[members])]
        fullest_first = stable_order(totals.max() - totals)
        order[fullest_first, place] = ascending
        totals[fullest_first] += tokens[ascending]
    return np.concatenate([order[permutation(steps, seed, epoch, 1)].ravel(), rest])


def divided(tokens: Ints, parts: int) -> list[list[int]]:
    """Return the positions of `tokens` in so many parts of about equal sums: the longest first, each to the least sum.

    >>> divided(np.array([5, 1, 4, 2]), 2)
    [[0, 1], [2, 3]]
    """
    groups: list[list[int]] = [[] for _ in range(parts)]
    sums = [(0, part) for part in range(parts)]
    for place in stable_order(tokens.max(initial=0) - tokens).tolist():
        total, part = sums[0]
        groups[part].append(place)
        heapq.heapreplace(sums, (total + int(tokens[place]), part))
    return groups


def _parts(pairs: int, size: int, world: int) -> int:
    """Return how many microbatches a step of `pairs` has on all ranks together: as many on each."""
    return world * max(1, -(-pairs // (size * world)))
