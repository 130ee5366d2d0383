"""Preference data as pairs of responses to one prompt, whatever the file calls them.

Known without being told, by the first row of each file:

    chosen, rejected                      two transcripts, "\\n\\nHuman: … \\n\\nAssistant: …", as in Anthropic's HH
                                          (Bai et al. 2022, arXiv:2204.05862), or two lists of messages
    prompt, chosen, rejected              two responses, or lists of messages with or without the prompt; or the prompt
                                          as a transcript that ends in "Assistant:", or transcripts that repeat it
    instruction, input, chosen, rejected  a non-empty input stands behind the instruction, an empty line between them

    question, chosen, rejected            Orca's
    input, preferred_output,              OpenAI's: a request with its messages, and one message for each response
    non_preferred_output
    conversations, chosen, rejected       LLaMA-Factory's: what comes before, and one message for each response

Beside any of them: `system` (also `system_prompt`) and `history`. Other columns are named by hand:
``columns={"prompt": "question", "chosen": "better", "rejected": "worse"}``.

Two conversations are a pair where they differ in the last response alone; those of several turns where the prompt
format has a place for these. What is left out is counted by reason; what is not of the expected form at all is refused,
or left out and counted too.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import overload

from harness.datasets import Row, Rows, read_rows
from harness.errors import ConfigError, DataError, nearest
from harness.files import expanded
from harness.prompts import NO_EXTRAS, Extras
from harness.training.data.conversations import OPENAI, SIDES, Columns, Layout, LeftOut
from harness.training.data.fields import Unfit
from harness.training.data.texts import BadRows, Reading, Text, TextFile, Texts, general
from harness.types import Message

#: What `columns` may name.
ROLES = ("prompt", "chosen", "rejected", "input", "system", "history")

#: Raised when the same rows would give other pairs than before: token ids of the sides are kept on disk.
_VERSION = 4


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt, of which `chosen` was preferred to `rejected`.

    `source` is the name of the file, with as much of its folder as tells it from others, and `place` where the pair
    stands in it, for messages: ``hh/harmless-base.jsonl.gz:17`` (lines are those of the unpacked text). Both
    have the same system message and earlier turns.
    """

    prompt: str
    chosen: str
    rejected: str
    source: str
    place: str
    system: str | None = None
    history: tuple[Message, ...] = ()
    more: Extras = NO_EXTRAS


class Pairs(Sequence[Pair]):
    """The pairs of several files, one after the other, each parsed when it is asked for.

    A file is read and checked in full when its pairs are first needed; some bytes a row stay in memory. Raises
    DataError, one line with file and line, for what cannot be used.

    `files` are the paths, `sources` their names as pairs have them, `columns` the names of columns that were given.
    """

    def __init__(
        self, files: Sequence[Path], columns: Columns, *, several: bool = False, on_bad_rows: BadRows = "refuse"
    ) -> None:
        self.files = tuple(files)
        self.columns = columns
        self.several = several
        self.on_bad_rows = on_bad_rows
        self.sources = _sources(self.files)

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of pairs in each file, without those left out."""
        return tuple(len(file.kept) for file in self._opened)

    @cached_property
    def left_out(self) -> Mapping[str, int]:
        """How many rows of all files are no pairs, by reason."""
        return sum((Counter(file.left_out) for file in self._opened), Counter())

    @cached_property
    def firsts(self) -> Mapping[str, str]:
        """Where the first row of each reason stands."""
        found: dict[str, str] = {}
        for file in self._opened:
            for reason, row in file.firsts.items():
                found.setdefault(reason, file.rows.place(row))
        return found

    @property
    def unused(self) -> Mapping[str, int]:
        """The columns that nothing is made of, with the number of rows in which they say something."""
        return sum((Counter(file.unused) for file in self._opened), Counter())

    @property
    def left_out_by_file(self) -> tuple[Mapping[str, int], ...]:
        """How many rows of each file are no pairs, by reason."""
        return tuple(file.left_out for file in self._opened)

    def check(self) -> None:
        """Read all files now; raise DataError for what cannot be used, and where not one pair is left."""
        if not self:
            said = ", ".join(f"{reason} ({count:,})" for reason, count in self.left_out.items())
            what = "no pairs" if self.several else "no pairs of one turn"
            raise DataError(f"{', '.join(map(str, self.files))}: {what}; left out: {said}")

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | Sequence[Pair]:
        if isinstance(index, slice):
            return [self._pair(position) for position in range(*index.indices(len(self)))]
        return self._pair(range(len(self))[index])

    def _pair(self, index: int) -> Pair:
        number = next(number for number, end in enumerate(self._ends) if index < end)
        file = self._opened[number]
        row = file.kept[index - (self._ends[number - 1] if number else 0)]
        chosen, rejected = file.layout.pair(file.rows[row])
        return Pair(
            chosen.instruction, chosen.response, rejected.response, self.sources[number], file.rows.place(row),
            chosen.system, chosen.history, chosen.more,
        )  # fmt: skip

    @cached_property
    def _opened(self) -> tuple[_PairFile, ...]:
        skip = self.on_bad_rows == "skip"
        return tuple(_PairFile(path, Layout(self.columns, several=self.several), skip) for path in self.files)

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(accumulate(self.counts))


class Sides(Texts):
    """Both sides of pairs as texts, chosen and rejected by turns, so that they are encoded and kept as any text is.

    The sides of pair i are texts 2i and 2i + 1.
    """

    def __init__(self, pairs: Pairs) -> None:
        how = f"chosen, rejected, {_VERSION}, {pairs.several}, {pairs.on_bad_rows}"
        known_as = {**pairs.columns, "sides": how}
        super().__init__([TextFile(path, known_as) for path in pairs.files])
        self._pairs = pairs

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(2 * count for count in self._pairs.counts)

    @property
    def readings(self) -> tuple[Reading, ...]:
        return ()  # pairs say for themselves what became of their files

    def check(self) -> None:
        self._pairs.check()

    def place(self, index: int) -> str:
        return self._pairs[index // 2].place

    def __len__(self) -> int:
        return 2 * len(self._pairs)

    def _text(self, index: int) -> Text:
        pair = self._pairs[index // 2]
        response = pair.rejected if index % 2 else pair.chosen
        return Text(pair.prompt, response, pair.source, {}, pair.system, pair.history, pair.more)


def read_pairs(
    files: Sequence[str | Path],
    *,
    columns: Columns | None = None,
    several: bool = False,
    on_bad_rows: BadRows = "refuse",
) -> Pairs:
    """Return the pairs of one or more files.

    Arguments:
        files: .jsonl, .json, .csv (these also .gz or .zst) or .parquet files; they are opened and checked when their
            pairs are first needed.
        columns: names of columns, by what they hold (prompt, chosen, rejected, input, system, history); without a
            prompt, chosen and rejected hold whole conversations.
        several: whether pairs may have earlier turns, for prompt formats with a place for them.
        on_bad_rows: whether a row that cannot be used refuses its file, or is left out and counted.

    Raises DataError for a file that does not exist, ConfigError for columns that do not fit.
    """
    if not files:
        raise ConfigError("no data files; give at least one")
    named = dict(columns or {})
    for role in named:
        if role not in ROLES:
            raise ConfigError(f"columns has no {role!r}{nearest(role, ROLES)}")
    if named and not SIDES.keys() <= named.keys():
        raise ConfigError("columns must name both chosen and rejected")
    return Pairs([_existing(path) for path in files], named, several=several, on_bad_rows=on_bad_rows)


def holds_pairs(files: Sequence[str | Path], columns: Columns | None = None) -> bool:
    """Return whether files hold pairs rather than texts: by their first rows, or by what `columns` name.

    Raises DataError where some do and some do not, and for a file that does not exist or has no rows.
    """
    if columns:
        return bool(SIDES.keys() & columns.keys())
    kinds = {}
    for path in files:
        found = _first_row(_existing(path)).keys()
        kinds[str(path)] = SIDES.keys() <= found or set(OPENAI.values()) <= found
    if len(set(kinds.values())) > 1:
        one, other = (next(path for path, kind in kinds.items() if kind is wanted) for wanted in (True, False))
        raise DataError(f"{one} has pairs and {other} has not; look at them one after the other")
    return all(kinds.values())


def _existing(name: str | Path) -> Path:
    path = expanded(name)
    if not path.exists():
        raise DataError(f"{path}: no such file")
    return path


class _Found(Exception):
    """Ends the reading of a file."""


def _first_row(path: Path) -> Row:
    """Return the first row of a file without reading on."""
    rows: list[Row] = []

    def keep(row: Row) -> str | None:
        rows.append(row)
        raise _Found

    with suppress(_Found):
        read_rows(path, check=keep)
    return rows[0]


class _PairFile:
    """One file, read: its rows, the numbers of those that are pairs, and how many others there are by reason."""

    def __init__(self, path: Path, layout: Layout, skip: bool) -> None:
        self.layout = layout
        self.kept = array("q")
        self.left_out, self.unused = Counter[str](), Counter[str]()
        self.firsts: dict[str, int] = {}
        self._skip = skip
        self._seen = 0
        self.rows: Rows = read_rows(path, check=self._sorted)

    def _sorted(self, row: Row) -> str | None:
        """Note whether the next row is a pair; return what is wrong with it if it is neither that nor left out."""
        number = self._seen
        self._seen += 1
        try:
            self.layout.pair(row)
        except Unfit as reason:
            if not self._skip:
                return str(reason)
            self._leave_out(general(str(reason)), number)
        except LeftOut as reason:
            self._leave_out(str(reason), number)
        else:
            self.kept.append(number)
            self.unused.update(self.layout.unused(row))
        return None

    def _leave_out(self, reason: str, number: int) -> None:
        self.left_out[reason] += 1
        self.firsts.setdefault(reason, number)


def _sources(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of files, where two have the same with the folders that tell them apart."""
    names = []
    for path in paths:
        others = {other for other in paths if other != path}
        parts = 1
        while parts < len(path.parts) and any(other.parts[-parts:] == path.parts[-parts:] for other in others):
            parts += 1
        names.append("/".join(path.parts[-parts:]))
    return tuple(names)
