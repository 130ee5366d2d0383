"""Texts of many lengths in rows of one width, without loss and almost without padding.

Two ways, both functions of the tokens, the width and a seed alone:

    `StreamRows`    all documents in one stream, cut every `width` tokens; documents see each other (the assignment's)
    `DocumentRows`  whole documents side by side in a row, by best fit; each sees only itself

Both hand out batches whose labels are already shifted: the label of a position is the token that comes next.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from harness.errors import ConfigError, DataError
from harness.prompts import find_format
from harness.training.batch import Ints, TrainingRows
from harness.training.data.texts import read_texts
from harness.training.data.tokens import Tokens, permutation, stable_order, tokenize

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    from harness.training.batch import Batch

#: Where the loss counts: on every token that has one before it, or on those of responses (end token included) only.
Loss = Literal["all", "responses"]

#: What becomes of a document longer than a row: pieces, each read as if it began there, or nothing.
Overlong = Literal["split", "drop"]

#: The label of a position that has none, as torch's cross entropy has it.
IGNORE = -100


@dataclass(frozen=True)
class PackingReport:
    """What packing made of the documents.

    `tokens` counts theirs, BOS and end token included. `fill` is the share of the rows' positions that hold a token,
    `labels` counts the positions with a loss. `cut` documents do not lie in one piece; `dropped` ones were left out.
    `lost_tokens` are in no row, neither as input nor as label.
    """

    documents: int
    tokens: int
    rows: int
    width: int
    fill: float
    labels: int
    cut: int
    dropped: int
    lost_tokens: int


class PackedRows(TrainingRows, ABC):
    """Rows of token ids of one width, as the loop takes them (`harness.training.batch.TrainingRows`).

    `isolated` says whether attention stops at the borders of documents. `weights`, int64 [rows], holds the number of
    labels of each row, `tokens` the number of positions that hold a token.
    """

    source: Tokens
    width: int
    loss: Loss
    isolated: bool
    report: PackingReport

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def digest(self) -> str:
        """A sha256 of all token ids and of what is learned of them."""
        return rows_digest(self)

    def checked(self) -> Self:
        """Return these rows; raise DataError where there is none, or nothing to learn in them."""
        if not len(self):
            raise DataError(
                f"the data is too small for one row: {self.report.tokens:,} tokens, of which "
                f"{self.report.lost_tokens:,} are left out, for a width of {self.width:,}; "
                "give more data or a shorter sequence length"
            )
        if not self.report.labels:
            raise DataError(
                f"there is nothing to learn in {self.report.rows:,} rows of {self.width:,} tokens: prompts fill them; "
                "give a longer sequence length, more data, or loss_on=all"
            )
        return self

    @abstractmethod
    def documents(self, row: int) -> list[int]:
        """Return the numbers, in the order of `source`, of the documents that a row holds or holds a part of."""

    @abstractmethod
    def _fill(self, row: int, inputs: Ints, labels: Ints) -> list[int]:
        """Write a row's ids and labels, each [width], and return the lengths of its segments."""

    def describe(self, row: int) -> str:
        """Return the files and numbers of the texts in a row, for messages."""
        return "; ".join(dict.fromkeys(self.source.place(document) for document in self.documents(row)))

    def batch(self, indices: Sequence[int], rows: int = 0) -> Batch:
        """Return the rows at `indices` on the CPU, with rows of padding behind them up to `rows` in all.

        Padding has no labels; in rows of documents it is a segment of its own. `longest` is the width, whatever is in
        the batch, so that compiled code meets one shape only.
        """
        import torch

        from harness.training.batch import Batch

        shape = (max(len(indices), rows), self.width)
        inputs, labels = np.full(shape, self.source.end, np.int64), np.full(shape, IGNORE, np.int64)
        positions, borders = np.empty(shape, np.int64), [0]
        for place in range(shape[0]):
            index = int(indices[place]) if place < len(indices) else None
            lengths = [] if index is None else self._fill(index, inputs[place], labels[place])
            if sum(lengths) < self.width:
                lengths.append(self.width - sum(lengths))
            ends = np.cumsum(lengths)
            positions[place] = np.arange(self.width) - np.repeat(ends - lengths, lengths)
            borders.extend((place * self.width + ends).tolist())
        return Batch(
            input_ids=torch.from_numpy(inputs),
            labels=torch.from_numpy(labels),
            position_ids=torch.from_numpy(positions),
            borders=torch.tensor(borders, dtype=torch.int32) if self.isolated else None,
            longest=self.width,
        )


def rows_digest(*parts: PackedRows | None) -> str:
    """Return a sha256 of all token ids of several sets of rows, and of what is learned of them."""
    digest = hashlib.sha256()
    for rows in parts:
        if rows is not None:
            digest.update(rows.source.digest.encode())
            for array in (rows.weights, rows.tokens):
                digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class StreamRows(PackedRows):
    """All documents in one stream, cut into rows of `width`; a row's last label is the next row's first input.

    A stream of N tokens has (N - 1) // width rows; what is left at the end is in none. Documents are read through to
    the next (``isolated`` is false), and from an end token to the BOS behind it there is a label like any other.

    `documents` are the numbers of those in the stream, in its order; all of them in theirs by default.
    """

    isolated = False

    def __init__(self, tokens: Tokens, width: int, *, documents: Ints | None = None, loss: Loss = "all") -> None:
        _check(width, loss)
        self.source, self.width, self.loss = tokens, width, loss
        self._order = np.arange(len(tokens)) if documents is None else np.asarray(documents, np.int64)
        lengths = tokens.lengths[self._order]
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        total = int(self._starts[-1])
        count = max(0, (total - 1) // width)
        borders = np.arange(count + 1) * width + 1  # a row's labels, in the stream
        self.weights, self.tokens = np.diff(self._learned(borders)), np.full(count, width)
        first, last = self._starts[:-1] // width, (self._starts[1:] - 2) // width  # the rows of its inputs
        self.report = PackingReport(
            documents=len(self._order),
            tokens=total,
            rows=count,
            width=width,
            fill=1.0 if count else 0.0,
            labels=int(self.weights.sum()),
            cut=int(((first != last) | (last >= count)).sum()),
            dropped=0,
            lost_tokens=total - (count * width + 1) if count else total,
        )

    def documents(self, row: int) -> list[int]:
        return [document for document, _, _ in self._spans(row * self.width, (row + 1) * self.width + 1)]

    def _fill(self, row: int, inputs: Ints, labels: Ints) -> list[int]:
        start, at = row * self.width, 0
        stream = np.empty(self.width + 1, np.int64)
        learned = np.ones(self.width + 1, np.bool_)
        for _, first, last in self._spans(start, start + self.width + 1):
            stream[at : at + last - first] = self.source.ids[first:last]
            if self.loss == "responses":
                learned[at : at + last - first] = self.source.learned(first, last)
            at += last - first
        inputs[:] = stream[:-1]
        labels[:] = np.where(learned[1:], stream[1:], IGNORE)
        return [self.width]

    def _spans(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield the document and the range in `tokens.ids` of each part of the stream from `start` to `end`."""
        place = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < end:
            document, stop = int(self._order[place]), min(end, int(self._starts[place + 1]))
            base = int(self.source.offsets[document]) - int(self._starts[place])
            if stop > start:
                yield document, base + start, base + stop
            start, place = stop, place + 1

    def _learned(self, ends: Ints) -> Ints:
        """Return how many of the stream's tokens before each of `ends` count for the loss."""
        if self.loss == "all" or not len(self._order):
            return ends
        firsts, lengths = self.source.offsets[self._order], np.diff(self._starts)
        hidden = self.source.hidden(firsts)
        whole = lengths - (self.source.hidden(firsts + lengths) - hidden)
        learned = np.concatenate([[0], np.cumsum(whole)])
        place = np.minimum(np.searchsorted(self._starts, ends, side="right") - 1, len(firsts) - 1)
        part = ends - self._starts[place]
        return np.asarray(learned[place] + part - (self.source.hidden(firsts[place] + part) - hidden[place]))


class DocumentRows(PackedRows):
    """Whole documents side by side in rows of `width`, by best-fit decreasing over all of them.

    A document of n tokens takes n - 1 positions, one for each token that has a next one: its end token is a label only.
    Position ids start anew with each. One that is longer than a row is split into pieces of `width` positions and a
    rest, each read by itself, or dropped, as `overlong` says. A piece with nothing to learn is left out.

    `documents` are the numbers of those to pack, one that stands twice twice; by default an epoch's, those of files
    with a weight repeated or sampled. `seed` decides that, and which of equal length go together.
    """

    isolated = True

    def __init__(
        self,
        tokens: Tokens,
        width: int,
        *,
        documents: Ints | None = None,
        loss: Loss = "all",
        overlong: Overlong = "split",
        seed: int = 0,
    ) -> None:
        _check(width, loss)
        if overlong not in ("split", "drop"):
            raise ConfigError(f"overlong is 'split' or 'drop', not {overlong!r}")
        self.source, self.width, self.loss = tokens, width, loss
        chosen = tokens.draw(seed) if documents is None else np.asarray(documents, np.int64)
        chosen = chosen[permutation(len(chosen), seed)]
        lengths = tokens.lengths[chosen]
        long = lengths - 1 > width
        dropped = long if overlong == "drop" else np.zeros_like(long)
        lost = int(lengths[dropped].sum()) + self._pack(chosen[~dropped])
        self.report = PackingReport(
            documents=len(chosen),
            tokens=int(lengths.sum()),
            rows=len(self),
            width=width,
            fill=float(self.tokens.mean() / width) if len(self) else 0.0,
            labels=int(self.weights.sum()),
            cut=int((long & ~dropped).sum()),
            dropped=int(dropped.sum()),
            lost_tokens=lost,
        )

    def _pack(self, chosen: Ints) -> int:
        """Cut the documents into pieces, lay these into rows, row by row, and return how many tokens are in none."""
        positions = self.source.lengths[chosen] - 1
        counts = -(-positions // self.width)
        documents = np.repeat(chosen, counts)
        firsts = np.repeat(np.cumsum(counts) - counts, counts)
        starts = (np.arange(len(documents)) - firsts) * self.width
        lengths = np.minimum(self.width, np.repeat(positions, counts) - starts)
        learned = lengths > self._hidden(documents, starts, lengths)
        lost = int(lengths[~learned].sum())
        documents, starts, lengths = documents[learned], starts[learned], lengths[learned]
        rows = best_fit(lengths, self.width)
        order = stable_order(rows)
        self._documents, self._piece_starts, self._lengths = documents[order], starts[order], lengths[order]
        self._borders = np.concatenate([[0], np.cumsum(np.bincount(rows))]) if len(rows) else np.zeros(1, np.int64)
        labels = self._lengths - self._hidden(self._documents, self._piece_starts, self._lengths)
        self.weights, self.tokens = (
            np.add.reduceat(counts, self._borders[:-1]) if len(rows) else np.zeros(0, np.int64)
            for counts in (labels, self._lengths)
        )
        return lost

    def _hidden(self, documents: Ints, starts: Ints, lengths: Ints) -> Ints:
        """Return how many positions of each piece have a token as their next that is no response's."""
        if self.loss == "all":
            return np.zeros_like(lengths)
        firsts = self.source.offsets[documents] + starts + 1
        return np.asarray(self.source.hidden(firsts + lengths) - self.source.hidden(firsts))

    def documents(self, row: int) -> list[int]:
        return [int(document) for document in self._documents[self._borders[row] : self._borders[row + 1]]]

    def lengths(self, row: int) -> list[int]:
        """Return how many positions each of `documents` takes in a row, in their order."""
        return [int(length) for length in self._lengths[self._borders[row] : self._borders[row + 1]]]

    def _fill(self, row: int, inputs: Ints, labels: Ints) -> list[int]:
        pieces = slice(int(self._borders[row]), int(self._borders[row + 1]))
        own = self._documents[pieces], self._piece_starts[pieces], self._lengths[pieces]
        lengths, at = [int(length) for length in own[2]], 0
        starts = self.source.offsets[own[0]] + own[1]
        for start, length in zip(starts.tolist(), lengths, strict=True):
            ids = self.source.ids[start : start + length + 1]
            inputs[at : at + length], labels[at : at + length] = ids[:-1], ids[1:]
            if self.loss == "responses":
                labels[at : at + length][~self.source.learned(start + 1, start + length + 1)] = IGNORE
            at += length
        return lengths


def best_fit(lengths: npt.NDArray[Any], width: int) -> Ints:
    """Return for each item the number of its row, from 0, by best-fit decreasing.

    Items are taken from the longest to the shortest, those of equal length in their order, and each goes into the
    fullest row that still has room for it, a new one where none has. All items of one length are placed at once, so
    the time grows with the number of distinct lengths and row fills, not with the number of items times rows.

    `lengths` are int [n], each from 1 to `width`. At most 11/9 of the fewest rows possible, and 6/9 of one, are used
    (Dósa and others, 2013, for first-fit decreasing; best fit meets the same bound).
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= width:
        raise ValueError(f"lengths must lie between 1 and {width}")
    order = stable_order(width - lengths)
    kinds, counts = np.unique(lengths, return_counts=True)
    ends = np.cumsum(counts[::-1])
    row_of = np.empty(len(lengths), np.int64)
    open_rows = _OpenRows()
    for length, start, end in zip(kinds[::-1].tolist(), (ends - counts[::-1]).tolist(), ends.tolist(), strict=True):
        while start < end:
            free, rows = open_rows.take(length, end - start, width)
            items = min(end - start, len(rows) * (free // length))
            row_of[order[start : start + items]] = np.repeat(rows, free // length)[:items]
            full, rest = divmod(items, free // length)
            open_rows.put(free % length, rows[:full])
            if rest:
                open_rows.put(free - rest * length, rows[full:])
            start += items
    return row_of


class _OpenRows:
    """The rows that have room left, by how much."""

    def __init__(self) -> None:
        self._by_room: dict[int, list[Ints]] = {}
        self._rooms = 0  # bit n is set where there are rows with room n
        self._count = 0

    def take(self, length: int, items: int, width: int) -> tuple[int, Ints]:
        """Return the least room that is enough for `length`, and rows with it: no more than `items` items need."""
        above = self._rooms >> length
        if not above:
            rows = self._count + np.arange(-(-items // (width // length)))
            self._count += len(rows)
            return width, rows
        room = length + (above & -above).bit_length() - 1
        stack = self._by_room[room]
        rows, needed = stack.pop(), -(-items // (room // length))
        if len(rows) > needed:
            stack.append(rows[needed:])
            rows = rows[:needed]
        if not stack:
            self._rooms ^= 1 << room
        return room, rows

    def put(self, room: int, rows: Ints) -> None:
        """Keep rows for later, unless they are full."""
        if room and len(rows):
            self._by_room.setdefault(room, []).append(rows)
            self._rooms |= 1 << room


def _check(width: int, loss: str) -> None:
    if width < 1:
        raise ConfigError(f"a row must have at least 1 token, not {width}")
    if loss not in ("all", "responses"):
        raise ConfigError(f"loss is on 'all' or on 'responses', not {loss!r}")


class PackedDataset:
    """The instruction-tuning data of CS336's assignment 5: a map-style dataset, as torch's DataLoader takes it.

    Each text, in the Alpaca template, is ``BOS + document + EOS``; these follow each other in one stream (shuffled by
    `seed` if `shuffle` is true, else in the file's order), cut every `seq_length` tokens; see `StreamRows`.

    Arguments:
        tokenizer: a transformers tokenizer; it adds its BOS if it is made to.
        dataset_path: a file of texts; see `harness.training.data.texts`.
        seq_length: tokens a row.
        shuffle: whether documents are shuffled before they are packed.

    Raises DataError for data that cannot be used, ModelError for a tokenizer without an end token.
    """

    def __init__(
        self,
        tokenizer: Any,
        dataset_path: str | os.PathLike[str],
        seq_length: int,
        shuffle: bool,
        *,
        seed: int = 0,
        columns: Mapping[str, str] | None = None,
    ) -> None:
        texts = read_texts([os.fspath(dataset_path)], columns=columns)
        tokens = tokenize(texts, find_format("alpaca_sft"), tokenizer)
        order = permutation(len(tokens), seed) if shuffle else None
        self.rows = StreamRows(tokens, seq_length, documents=order)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return ``input_ids`` and ``labels``, int64 [seq_length] each; raise IndexError past the end."""
        try:
            row = range(len(self))[index]
        except IndexError:
            raise IndexError(f"row {index} of {len(self)}") from None
        batch = self.rows.batch([row])
        return {"input_ids": batch.input_ids[0], "labels": batch.labels[0]}


def iterate_batches(
    dataset: Any, batch_size: int, shuffle: bool, *, seed: int = 0
) -> DataLoader[dict[str, torch.Tensor]]:
    """Return batches of a map-style dataset; one pass is one epoch, the last batch may be short.

    With `shuffle` the rows come in an order drawn from `seed`, another one in each pass.
    """
    import torch
    from torch.utils.data import DataLoader

    chance = torch.Generator().manual_seed(seed)
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, generator=chance)
