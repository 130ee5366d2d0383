"""Instruction-tuning data as pairs of prompt and response, whatever the file calls them.

Known without being told, by the first row of each file:

    prompt, response              also completion in place of response
    instruction, input, output    Alpaca's; a non-empty input stands behind the instruction, an empty line between them
    messages                      role and content, as chat models have them; also ShareGPT's conversations
                                  (from and value)

Other columns are named by hand: ``columns={"prompt": "question", "response": "answer"}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias, overload

from harness.datasets import Row, Rows, read_rows
from harness.errors import ConfigError, DataError, nearest
from harness.interfaces import Tokenizer
from harness.prompts import Choice, Turns, choose_format, find_format
from harness.training.fields import Unfit, message, string

Columns: TypeAlias = Mapping[str, str]

#: What `columns` may name.
ROLES = ("prompt", "response", "input", "system", "messages")

_LAYOUTS: tuple[Columns, ...] = (
    {"messages": "messages"},
    {"messages": "conversations"},
    {"prompt": "prompt", "response": "response"},
    {"prompt": "instruction", "response": "output", "input": "input"},
    {"prompt": "prompt", "response": "completion"},
)
_OPTIONAL = ("input", "system")
_UNKNOWN = f"no {' or '.join('/'.join(columns.values()) for columns in _LAYOUTS)} there"


@dataclass(frozen=True, slots=True)
class Text:
    """One demonstration: what is asked and the response to learn.

    `source` is the name of the file it comes from, `fields` what else its row holds (``id``, ``fail_mode``). A chat of
    several turns ends in `prompt` and `response`; its system message and earlier turns stand in `system` and `history`.
    """

    prompt: str
    response: str
    source: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    history: tuple[Mapping[str, str], ...] = ()

    @property
    def turns(self) -> Turns:
        """The same in the form that prompt formats render."""
        return Turns(self.prompt, self.response, self.system, self.history)


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
    them, which are refused otherwise. Raises DataError, one line with file and line, for what cannot be used.
    """

    def __init__(self, files: Sequence[TextFile], *, empty: bool = False) -> None:
        self.files = tuple(files)
        self.empty = empty

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each file."""
        return tuple(file.weight for file in self.files)

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of texts in each file."""
        return tuple(len(rows) for rows, _ in self._opened)

    def check(self) -> None:
        """Read all files now; raise DataError for what cannot be used."""
        _ = self._opened

    def place(self, index: int) -> str:
        """Return where a text stands, for messages: ``sft/train.jsonl:17``."""
        file, row = self._find(index)
        return self._opened[file][0].place(row)

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
        file, row = self._find(index)
        rows, layout = self._opened[file]
        return layout.text(rows[row])

    def _find(self, index: int) -> tuple[int, int]:
        file = next(number for number, end in enumerate(self._ends) if index < end)
        return file, index - (self._ends[file - 1] if file else 0)

    @cached_property
    def _opened(self) -> tuple[tuple[Rows, _Layout], ...]:
        return tuple(_open(file, self.empty) for file in self.files)

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(accumulate(self.counts))


def read_texts(
    paths: Sequence[str | Path],
    *,
    columns: Columns | Sequence[Columns] | None = None,
    weights: Sequence[float] | None = None,
    empty: bool = False,
) -> Texts:
    """Return the texts of one or more files.

    Arguments:
        paths: .jsonl, .json, .csv (these also .gz or .zst) or .parquet files; they are opened and checked when their
            texts are first needed.
        columns: names of columns, by what they hold (prompt, response, input, system, messages): one mapping for all
            files, or one for each; files without take what this module knows.
        weights: how often an epoch holds a file's texts, 1 by default; see `TextFile`.
        empty: whether empty responses are allowed, for a look at the data rather than for training.

    Raises DataError for a file that does not exist, ConfigError for columns or weights that do not fit.
    """
    if not paths:
        raise ConfigError("no data files; give at least one")
    given = [columns] * len(paths) if isinstance(columns, Mapping) else list(columns or [{}] * len(paths))
    shares = [1.0] * len(paths) if weights is None else list(weights)
    for name, values in (("columns", given), ("weights", shares)):
        if len(values) != len(paths):
            raise ConfigError(f"{len(values)} {name} for {len(paths)} files; give one for each")
    files = [TextFile(Path(p).expanduser(), dict(c), w) for p, c, w in zip(paths, given, shares, strict=True)]
    for file in files:
        _check_file(file)
    return Texts(files, empty=empty)


def training_format(model: str, override: str | None, tokenizer: Tokenizer | None) -> Choice:
    """Choose the prompt format to train `model` in.

    `override` wins; else what the checkpoint's harness.json names; else the tokenizer's chat template; else
    ``alpaca_sft``, where an evaluation would take ``zero_shot_system``.
    """
    choice = choose_format(model, override, tokenizer)
    if choice.format.name == "zero_shot_system" and choice.reason == "the default for a base model":
        return Choice(find_format("alpaca_sft"), "the default for training a base model")
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


class _Layout:
    """How the rows of one file hold their texts: as `columns` say, or by the first row that fits a known layout."""

    def __init__(self, file: TextFile, empty: bool) -> None:
        self._source = file.path.name
        self._columns = file.columns
        self._empty = empty

    @property
    def known(self) -> bool:
        """Whether columns were given, or a row has been of a known layout."""
        return bool(self._columns)

    def fault(self, row: Row) -> str | None:
        """Return what is wrong with a row, or None."""
        try:
            self.text(row)
        except Unfit as reason:
            return str(reason)
        return None

    def text(self, row: Row) -> Text:
        """Return the text in a row; raise Unfit, saying why, where there is none."""
        columns = self._columns = self._columns or _recognised(row)
        rest = {key: value for key, value in row.items() if key not in columns.values()}
        if "messages" in columns:
            return self._checked(
                _conversation(row, columns["messages"], partial(Text, source=self._source, fields=rest))
            )
        prompt, response = (string(row, columns[role]) for role in ("prompt", "response"))
        extra = string(row, columns["input"], "") if "input" in columns else ""
        if extra.strip():
            prompt = f"{prompt}\n\n{extra}"
        system = string(row, columns["system"], "") if "system" in columns else ""
        return self._checked(Text(prompt, response, self._source, rest, system or None))

    def _checked(self, text: Text) -> Text:
        if not self._empty and not text.response.strip():
            raise Unfit("the response is empty")
        return text


def _recognised(row: Row) -> Columns:
    for columns in _LAYOUTS:
        if all(column in row for role, column in columns.items() if role not in _OPTIONAL):
            return columns
    raise Unfit(f"{_UNKNOWN}, only {', '.join(map(repr, row)) or 'nothing'}")


def _conversation(row: Row, column: str, make: Callable[..., Text]) -> Text:
    """Return the text in a list of messages: an optional system message, then user and assistant by turns."""
    messages = row.get(column)
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise Unfit(f"{column!r} is not a list of messages")
    said = [message(one, f"message {number} of {column!r}") for number, one in enumerate(messages, 1)]
    system = said.pop(0)["content"] if said[0]["role"] == "system" else None
    for number, turn in enumerate(said):
        expected = "assistant" if number % 2 else "user"
        if turn["role"] != expected:
            raise Unfit(f"{column!r} has a message by {turn['role']!r} where one by {expected!r} belongs")
    if not said or len(said) % 2:
        raise Unfit(f"{column!r} does not end in a response")
    return make(said[-2]["content"], said[-1]["content"], system=system, history=tuple(said[:-2]))


def _open(file: TextFile, empty: bool) -> tuple[Rows, _Layout]:
    layout = _Layout(file, empty)
    try:
        return read_rows(file.path, check=layout.fault), layout
    except DataError as error:
        if layout.known or _UNKNOWN not in str(error):
            raise
        # not one row has known columns: nothing is wrong with the lines, so no word of how many there are to mend
        found = str(error).rsplit("; ", 2)[0]
        remedy = "name the columns of prompt and response with the option columns (--columns of harness data look)"
        raise DataError(f"{found}; {remedy}") from error
