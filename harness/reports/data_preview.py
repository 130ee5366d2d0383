"""A look at training data, as a model will see it: documents as text and as tokens, and what there is of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.interfaces import Tokenizer
from harness.reports.samples import printable
from harness.reports.summary import count_of
from harness.reports.tables import table
from harness.training.data.contamination import parts_of
from harness.training.data.packing import DocumentRows, Loss, StreamRows
from harness.training.data.texts import Text, Texts
from harness.training.data.tokens import Tokens, permutation
from harness.types import Message

#: Of a longer document only the tokens around its ends and its border are shown, this many on each side.
_MOST, _AROUND = 400, 60

#: Fields of rows whose values are counted, where there are any.
_GROUPS = ("fail_mode", "source", "dataset")
_MOST_VALUES = 20

_DIM, _GREEN, _PLAIN, _UNDERLINE, _NO_UNDERLINE = "\x1b[2m", "\x1b[32m", "\x1b[0m", "\x1b[4m", "\x1b[24m"


@dataclass(frozen=True)
class Look:
    """What is looked at: texts, their tokens, and where the loss will be. `colour` is for a terminal."""

    texts: Texts
    tokens: Tokens
    tokenizer: Tokenizer
    loss: Loss
    colour: bool = False

    def drawn(self, count: int, seed: int) -> Sequence[int]:
        """Return the numbers of `count` documents drawn at random, in their order; a greater count only adds some."""
        return sorted(permutation(len(self.tokens), seed)[:count].tolist())

    def example(self, index: int) -> str:
        """Return one document: where it stands, its prompt and response, and its tokens with the loss mask."""
        text, length = self.texts[index], int(self.tokens.lengths[index])
        learned = int(self._learned(index).sum())
        facts = [f"{length:,} tokens, {learned:,} of them learned"]
        facts += [f"{name} {printable(str(text.fields[name]))}" for name in _GROUPS if name in text.fields]
        parts = [f"── {self.texts.place(index)} ({'; '.join(facts)})"]
        parts += [block("tool", json.dumps(tool, ensure_ascii=False)) for tool in text.more.tools]
        parts += [block(*part) for part in told(text.system, text.history, text.prompt, text.more.role)]
        parts += [block(name, _shown_value(value)) for name, value in text.more.answer.items()]
        parts += [block("response", text.response)]
        how = "green is learned" if self.colour else "learned between ⟦ and ⟧"
        parts.append(_barred(f"tokens, {how}", self._marked(index)))
        return "\n".join(parts)

    def _learned(self, index: int) -> npt.NDArray[np.bool_]:
        """Return of each token of a document whether it has a loss; nothing comes before the first."""
        first, last = map(int, self.tokens.offsets[index : index + 2])
        if self.loss == "responses":
            return self.tokens.learned(first, last)
        return np.arange(last - first) > 0

    def _marked(self, index: int) -> str:
        """Return the tokens of a document, one from the next parted, with the learned ones marked."""
        ids, mask = self.tokens.document(index).tolist(), self._learned(index)
        shown = _shown(len(ids), [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(ids)])
        text = ""
        for learned, run in groupby(shown, key=lambda position: bool(mask[position])):
            part = self._run(ids, list(run))
            if self.colour:
                text += f"{_GREEN if learned else _DIM}{part}{_PLAIN}"
            else:
                text += f"⟦{part}⟧" if learned else part
        return text

    def _run(self, ids: Sequence[int], positions: Sequence[int]) -> str:
        text, previous = "", None
        for number, (first, last) in enumerate(_characters(ids, positions, self.tokenizer)):
            piece = printable(str(self.tokenizer.decode(list(ids[first:last])))).replace("\n", "⏎\n")
            if previous is not None and first != previous:
                text += f"\n… {first - previous:,} tokens …\n"
            elif previous is not None and not self.colour:
                text += "|"
            text += f"{_UNDERLINE}{piece}{_NO_UNDERLINE}" if self.colour and number % 2 else piece
            previous = last
        return text

    def parts(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield where each document stands, and the texts in it."""
        return parts_of(self.texts)

    def summary(self, width: int) -> str:
        """Return counts, lengths, and what packing into rows of `width` tokens makes of the documents."""
        facts = [*self._counts(), *self._lengths(width), *self._packing(width), *self._faults()]
        lines = [table(["", ""], [list(fact) for fact in facts]).lstrip("\n")]
        for name in _GROUPS:
            values = Counter(str(text.fields[name]) for text in self.texts if name in text.fields)
            if values:
                rows = [
                    [printable(value), count_of(n, len(self.tokens))] for value, n in values.most_common(_MOST_VALUES)
                ]
                rest = len(values) - len(rows)
                lines.append("\n" + table([name, "documents"], rows) + (f"\n… and {rest:,} more" if rest else ""))
        return "\n".join(lines)

    def _counts(self) -> Iterator[tuple[str, str]]:
        tokens = self.tokens
        for name, reading in zip(tokens.files, tokens.readings, strict=True):
            said, *others = reading.lines(name)
            yield "file", printable(said)
            yield from (("", printable(line)) for line in others)
        learned = len(tokens.ids) - len(tokens)
        if self.loss == "responses":
            learned = len(tokens.ids) - int(tokens.hidden(tokens.offsets[-1:])[0])
        yield "tokens", f"{len(tokens.ids):,}, of which learned {count_of(learned, len(tokens.ids))}"

    def _lengths(self, width: int) -> Iterator[tuple[str, str]]:
        prompts = np.asarray(self.tokens.prompts, np.int64)
        for name, lengths in (
            ("document tokens", self.tokens.lengths),
            ("prompt tokens", prompts),
            ("response tokens", self.tokens.lengths - prompts),
        ):
            yield name, spread(lengths)
        over = np.maximum(self.tokens.lengths - 1 - width, 0)
        longer = count_of(int((over > 0).sum()), len(over))
        yield (
            f"longer than {width:,}",
            f"{longer}; cutting them off there would lose {count_of(int(over.sum()), len(self.tokens.ids))} tokens",
        )
        unanswered = int((prompts > width).sum())
        yield f"prompts longer than {width:,}", count_of(unanswered, len(over))

    def _packing(self, width: int) -> Iterator[tuple[str, str]]:
        whole, stream = DocumentRows(self.tokens, width).report, StreamRows(self.tokens, width).report
        yield (
            f"packed by document, {width:,}",
            f"{whole.rows:,} rows, {100 * whole.fill:.1f}% filled, "
            f"{count_of(whole.cut, whole.documents)} documents split",
        )
        yield (
            f"packed in a stream, {width:,}",
            f"{stream.rows:,} rows, {count_of(stream.cut, stream.documents)} documents cut, "
            f"{stream.lost_tokens:,} tokens left over",
        )

    def _faults(self) -> Iterator[tuple[str, str]]:
        tokens, n = self.tokens, len(self.tokens)
        documents, prompts = Counter[bytes](), Counter[bytes]()
        ended = 0
        for index in range(n):
            ids = tokens.document(index)
            documents[ids.tobytes()] += 1
            prompts[ids[: tokens.prompts[index]].tobytes()] += 1
            ended += bool(ids[-1] == tokens.end)
        yield (
            "duplicates",
            f"{count_of(n - len(documents), n)} of a whole document, {count_of(n - len(prompts), n)} of a prompt",
        )
        yield "without an end token", count_of(n - ended, n)
        yield "empty responses", count_of(tokens.empty, n)
        yield "encoded apart", f"{count_of(tokens.separate, n)} (prompt and response would share a token)"
        special = [token for token in self.tokenizer.all_special_tokens if token]
        spelled = sum(any(token in part for token in special for part in _parts(text)) for text in self.texts)
        yield "special tokens spelled out", f"{count_of(spelled, n)} (read as ordinary characters)"


def spread(lengths: npt.NDArray[np.int64]) -> str:
    """Return what there is of lengths: ``shortest 1, median 20, 95% 70, 99% 90, longest 91, mean 24.3``."""
    marks = [int(mark) for mark in np.percentile(lengths, [0, 50, 95, 99, 100])]
    names = ("shortest", "median", "95%", "99%", "longest")
    return (
        f"{', '.join(f'{name} {mark:,}' for name, mark in zip(names, marks, strict=True))}, mean {lengths.mean():,.1f}"
    )


def block(title: str, text: str) -> str:
    """Return a text under its title, behind a bar, with nothing in it that could steer a terminal."""
    return _barred(title, printable(text))


def _barred(title: str, text: str) -> str:
    return f"  {title}\n" + "\n".join(f"  │ {line}" for line in text.split("\n"))


def _parts(text: Text) -> Sequence[str]:
    return (text.prompt, text.response)


def told(system: str | None, history: Sequence[Message], prompt: str, role: str = "user") -> Iterator[tuple[str, str]]:
    """Yield what stands before a response, part by part, each with its title."""
    if system is not None:
        yield "system", system
    for message in history:
        yield f"earlier, by the {message.role}", message.content
        yield from ((name, _shown_value(value)) for name, value in message.more.items())
    yield ("prompt" if role == "user" else f"by the {role}"), prompt


def _shown_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shown(length: int, borders: Sequence[int]) -> list[int]:
    """Return the positions to show: all, or those around the borders of what is learned."""
    if length <= _MOST:
        return list(range(length))
    near = {p for border in borders for p in range(border - _AROUND, border + _AROUND) if 0 <= p < length}
    return sorted(near)


def _characters(ids: Sequence[int], positions: Sequence[int], tokenizer: Any) -> Iterator[tuple[int, int]]:
    """Yield ranges of positions: one token each, or several where only together they are whole characters."""
    first = None
    for place, position in enumerate(positions):
        first = position if first is None else first
        runs_on = place + 1 < len(positions) and positions[place + 1] == position + 1
        broken = str(tokenizer.decode(list(ids[first : position + 1]))).endswith("\ufffd")
        if not broken or not runs_on or position - first >= 3:
            yield first, position + 1
            first = None
