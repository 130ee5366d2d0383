"""Instruction-tuning data as texts, whatever the file calls them; `harness.training.data.layouts` has what is known.

Every file says what became of it (`Reading`): what was honoured beside prompt and response, which columns nothing was
made of, and which rows were left out, and why.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Literal, TypeAlias, overload

from harness.datasets import Row, Rows, read_rows
from harness.datasets.faults import place
from harness.errors import ConfigError, DataError, nearest
from harness.files import expanded
from harness.interfaces import Tokenizer
from harness.prompts import NO_OPTIONS, Choice, FormatOptions, choose_format, find_format
from harness.training.data.fields import Unfit, says_nothing
from harness.training.data.layouts import ROLES, UNKNOWN, Columns, Layout, Learn, Text

__all__ = ["BadRows", "Columns", "Learn", "Reading", "Text", "TextFile", "Texts", "read_texts", "training_format"]

#: What becomes of a row that cannot be used: its file is refused, or the row is left out and counted.
BadRows = Literal["refuse", "skip"]

#: Says why a text cannot be used in a prompt format, or None.
Fits: TypeAlias = Callable[[Text], str | None]

#: What differs in reasons that are counted as one.
_PARTICULAR = re.compile(r"\b(message|turn) \d+|(?<= is not text but ).*|(?<=where one by ).*(?= belongs)")
_MOST = 8


@dataclass(frozen=True)
class Reading:
    """What became of a file: its layout and number of texts, how many rows say what, by what they say.

    `honoured` counts what texts hold beside prompt and response, `unused` the columns and fields that nothing was made
    of. `skipped` holds for each reason how many rows were left out, and the number of the first in the file's `unit`.
    """

    layout: str
    texts: int
    honoured: Mapping[str, int] = field(default_factory=dict)
    unused: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    unit: str = "line"

    def lines(self, path: str) -> Iterator[str]:
        """Yield what became of the file at `path`, a line for each thing."""
        counted = ", ".join(f"{count:,} with {name}" for name, count in self.honoured.items())
        yield f"{path}: {self.texts:,} texts from {self.layout}" + (f"; {counted}" if counted else "")
        if self.unused:
            names = sorted(self.unused.items(), key=lambda item: -item[1])
            more = f", and {len(names) - _MOST} more" if len(names) > _MOST else ""
            yield "not used: " + ", ".join(f"{name} ({count:,} rows)" for name, count in names[:_MOST]) + more
        for reason, (count, first) in sorted(self.skipped.items(), key=lambda item: -item[1][0])[:_MOST]:
            yield f"left out, {count:,} rows: {reason} (first: {place(Path(path), first, self.unit)})"
        if len(self.skipped) > _MOST:
            rest = sorted(count for count, _ in self.skipped.values())[:-_MOST]
            yield f"left out, {sum(rest):,} rows more, for {len(rest)} other reasons"


@dataclass(frozen=True)
class TextFile:
    """A file of texts: JSON Lines, JSON or CSV (also .gz, .zst), or Parquet.

    `columns` names its columns where they are none of the known ones. Of a `weight` of 2.5, each epoch holds every text
    twice and half of them a third time.
    """

    path: Path
    columns: Columns = field(default_factory=dict)
    weight: float = 1.0


class Texts(Sequence[Text]):
    """The texts of several files, one after the other, each parsed when it is asked for.

    A file is read and checked in full when its texts are first needed. `empty` allows responses without a character in
    them, which are refused otherwise; `learn` says what is learned of conversations, `on_bad_rows` what becomes of rows
    that cannot be used, `fits` why a text cannot be. Raises DataError, one line with file and line, for what is
    refused.
    """

    def __init__(
        self,
        files: Sequence[TextFile],
        *,
        empty: bool = False,
        learn: Learn = "last",
        on_bad_rows: BadRows = "refuse",
        fits: Fits | None = None,
    ) -> None:
        self.files = tuple(files)
        self.empty = empty
        self.learn = learn
        self.on_bad_rows = on_bad_rows
        self._fits = fits

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each file."""
        return tuple(file.weight for file in self.files)

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of texts in each file."""
        return tuple(len(file.kept) for file in self._opened)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What became of each file."""
        return tuple(file.reading for file in self._opened)

    def check(self) -> None:
        """Read all files now; raise DataError for what cannot be used."""
        _ = self._opened

    def place(self, index: int) -> str:
        """Return where a text stands, for messages: ``sft/train.jsonl:17``."""
        number, row = self._find(index)
        file = self._opened[number]
        return file.rows.place(file.kept[row])

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Text: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Text]: ...
    def __getitem__(self, index: int | slice) -> Text | Sequence[Text]:
        if isinstance(index, slice):
            return [self._text(position) for position in range(*index.indices(len(self)))]
        return self._text(range(len(self))[index])

    def _text(self, index: int) -> Text:
        number, row = self._find(index)
        file = self._opened[number]
        return file.layout.text(file.rows[file.kept[row]])

    def _find(self, index: int) -> tuple[int, int]:
        file = next(number for number, end in enumerate(self._ends) if index < end)
        return file, index - (self._ends[file - 1] if file else 0)

    @cached_property
    def _opened(self) -> tuple[_Opened, ...]:
        layouts = [Layout(file.path.name, file.columns, empty=self.empty, learn=self.learn) for file in self.files]
        skip = self.on_bad_rows == "skip"
        return tuple(
            _Opened(file.path, layout, skip, self._fits) for file, layout in zip(self.files, layouts, strict=True)
        )

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(accumulate(self.counts))


def read_texts(
    paths: Sequence[str | Path],
    *,
    columns: Columns | Sequence[Columns] | None = None,
    weights: Sequence[float] | None = None,
    empty: bool = False,
    learn: Learn = "last",
    on_bad_rows: BadRows = "refuse",
    fits: Fits | None = None,
) -> Texts:
    """Return the texts of one or more files.

    Arguments:
        paths: .jsonl, .json, .csv (these also .gz or .zst) or .parquet files; they are opened and checked when their
            texts are first needed.
        columns: names of columns, by what they hold (`harness.training.data.layouts.ROLES`): one mapping for all files,
            or one for each; files without take what is known.
        weights: how often an epoch holds a file's texts, 1 by default; see `TextFile`.
        empty: whether empty responses are allowed, for a look at the data rather than for training.
        learn: whether the last response of a conversation is learned, or all are.
        on_bad_rows: whether a row that cannot be used refuses its file, or is left out and counted.
        fits: says why a text cannot be used in the prompt format, or None.

    Raises DataError for a file that does not exist, ConfigError for columns or weights that do not fit.
    """
    if not paths:
        raise ConfigError("no data files; give at least one")
    given = [columns] * len(paths) if isinstance(columns, Mapping) else list(columns or [{}] * len(paths))
    shares = [1.0] * len(paths) if weights is None else list(weights)
    for name, values in (("columns", given), ("weights", shares)):
        if len(values) != len(paths):
            raise ConfigError(f"{len(values)} {name} for {len(paths)} files; give one for each")
    files = [TextFile(expanded(p), dict(c), w) for p, c, w in zip(paths, given, shares, strict=True)]
    for file in files:
        _check_file(file)
    return Texts(files, empty=empty, learn=learn, on_bad_rows=on_bad_rows, fits=fits)


def training_format(
    model: str, override: str | None, tokenizer: Tokenizer | None, options: FormatOptions = NO_OPTIONS
) -> Choice:
    """Choose the prompt format to train `model` in, with what is said about prompts in `options`.

    `override` wins; else what the checkpoint's harness.json names; else the tokenizer's chat template; else
    ``alpaca_sft``, where an evaluation would take ``zero_shot_system``.
    """
    choice = choose_format(model, override, tokenizer, options=options)
    if choice.format.name == "zero_shot_system" and choice.reason == "the default for a base model":
        form = replace(find_format("alpaca_sft"), options=choice.format.options)
        return Choice(form, "the default for training a base model")
    return choice


def _check_file(file: TextFile) -> None:
    for role in file.columns:
        if role not in ROLES:
            raise ConfigError(f"columns has no {role!r}{nearest(role, ROLES)}")
    if file.columns and "messages" not in file.columns and not {"prompt", "response"} <= set(file.columns):
        raise ConfigError("columns must name both prompt and response, or messages")
    if not 0 < file.weight < float("inf"):
        raise ConfigError(f"{file.path}: the weight must be above 0, not {file.weight}")
    if not file.path.exists():
        raise DataError(f"{file.path}: no such file")


class _Opened:
    """One file, read: its rows, the numbers of those that are used, and what became of all."""

    def __init__(self, path: Path, layout: Layout, skip: bool, fits: Fits | None) -> None:
        self.layout = layout
        self.kept = array("q")
        self._skip, self._fits = skip, fits
        self._seen = 0
        self._honoured, self._unused = Counter[str](), Counter[str]()
        self._skipped, self._firsts = Counter[str](), dict[str, int]()
        self.rows: Rows = self._read(path)
        skipped = {reason: (n, self.rows.line(self._firsts[reason])) for reason, n in self._skipped.items()}
        self.reading = Reading(
            str(layout), len(self.kept), dict(self._honoured), dict(self._unused), skipped, self.rows.unit
        )
        if not self.kept:
            said = "; ".join(list(self.reading.lines(str(path)))[1:])
            raise DataError(f"{path}: not one row can be used; {said}")

    def _read(self, path: Path) -> Rows:
        try:
            return read_rows(path, check=self._sorted)
        except DataError as error:
            if self.layout.known or UNKNOWN not in str(error):
                raise
            # not one row has known columns: nothing is wrong with the lines, so no word of how many there are to mend
            found = str(error).rsplit("; ", 2)[0]
            remedy = "name the columns of prompt and response with the option columns (--columns of harness data look)"
            raise DataError(f"{found}; {remedy}") from error

    def _sorted(self, row: Row) -> str | None:
        """Note what becomes of the next row; return what is wrong with it where that refuses the file."""
        number = self._seen
        self._seen += 1
        try:
            text = self.layout.text(row)
            reason = self._fits(text) if self._fits is not None else None
        except Unfit as error:
            reason = str(error)
        if reason is None:
            self.kept.append(number)
            self._honoured.update(text.honoured)
            self._unused.update([*(repr(key) for key in text.fields if not says_nothing(text.fields[key]))])
            self._unused.update(text.unused)
        elif self._skip:
            reason = general(reason)
            self._skipped[reason] += 1
            self._firsts.setdefault(reason, number)
            return None
        return reason


def general(reason: str) -> str:
    """Return a reason without what differs from row to row.

    >>> general("the content of message 3 of 'messages' is not text but 7")
    "the content of a message of 'messages' is not text but …"
    """
    return _PARTICULAR.sub(lambda match: f"a {match[1]}" if match[1] else "…", reason)
