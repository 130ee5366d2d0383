"""A recorded run as columns: what became of each sample, without the texts, which are read from disk when asked for.

samples.jsonl is gone through once, line by line, so that memory follows the number of samples and not their length.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
import numpy as np

from harness.errors import RunError
from harness.evaluation.journal import RESULTS, SAMPLES, RunFolder, decode
from harness.evaluation.judgements import JUDGED
from harness.evaluation.lines import read_lines, scan
from harness.types import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

_Record = TypeVar("_Record", bound=msgspec.Struct)


class _Line(msgspec.Struct):
    """What is taken of a line of samples.jsonl; its texts are passed over."""

    index: int
    id: str
    status: Literal["ok", "unparsed", "engine_error", "judge_error"]
    answers: dict[str, str | None]
    scores: dict[str, dict[str, float | None]]
    response: str = ""
    group: str | None = None
    category: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Said(msgspec.Struct):
    """What is taken of a line of judged/LABEL.jsonl."""

    id: str
    verdict: str
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Recorded:
    """A run's figures as columns, a row for each finished sample in the benchmark's order.

    `results` is None while the run is unfinished. `columns` maps (reader, score) to a number a sample, NaN where there
    is none; a reader is a parser or a judge. `unparsed` has a mask for each parser, `verdicts` each judge's verdict on
    every sample, None where it gave none. `lengths` counts the responses' characters. Token counts are NaN where the
    engine did not know them.
    """

    folder: RunFolder
    config: Mapping[str, Any]
    results: Mapping[str, Any] | None
    timing: Mapping[str, Any]
    ids: Sequence[str]
    indices: Ints
    groups: Sequence[str | None]
    categories: Sequence[str | None]
    columns: Mapping[tuple[str, str], Floats]
    statuses: NDArray[np.object_]
    truncated: Bools
    failed: Bools
    unparsed: Mapping[str, Bools]
    verdicts: Mapping[str, Sequence[str | None]]
    prompt_tokens: Floats
    completion_tokens: Floats
    lengths: Ints
    offsets: Ints

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def benchmark(self) -> str:
        """The benchmark's name."""
        return str(self.config["benchmark"])

    @property
    def model(self) -> str:
        """The evaluated model's name."""
        return str(self.config["model"])

    def kinds(self, parser: str | None = None, judge: str | None = None) -> dict[str, Bools]:
        """Return a mask for each kind of sample, as `parser` and `judge` read them; None is the first there is.

        Failed: the engine or the judge gave nothing; such a sample is of no other kind. Unparsed, truncated. Wrong:
        parsed, but the first score is below 1. A verdict's name: judged so.
        """
        parsers = self.config["parsers"]
        parser = parser or (parsers[0] if parsers else None)
        judge = judge or next(iter(self.verdicts), None)
        said = np.array(self.verdicts[judge] if judge is not None else [None] * len(self), dtype=object)
        answered = ~(self.failed | (said == "judge_error"))
        unparsed = self.unparsed.get(parser or "", np.zeros(len(self), dtype=np.bool_))
        scores = next((column for (reader, _), column in self.columns.items() if reader == parser), None)
        wrong = np.zeros(len(self), dtype=np.bool_) if scores is None else scores < 1
        found = {"wrong": wrong & ~unparsed, "unparsed": unparsed, "truncated": self.truncated}
        found |= {verdict: said == verdict for verdict in sorted({*said.tolist()} - {None, "judge_error"})}
        return {"failed": ~answered, **{kind: mask & answered for kind, mask in found.items()}}

    def sample(self, row: int) -> Sample:
        """Return the sample of a row with its texts, read from disk."""
        path = self.folder.path / SAMPLES
        [line] = read_lines(path, [int(self.offsets[row])])
        return decode(line, path)


def read_run(path: Path | str) -> Recorded:
    """Read the run in the folder `path`, finished or not.

    Raises RunError, with the remedy, for a folder that is no run, is of another format, or lacks samples that its
    results sum up.
    """
    folder = RunFolder(Path(path))
    config = folder.config
    results = folder.results if (folder.path / RESULTS).exists() else None
    rows = _Rows(config["parsers"])
    file_path = folder.path / SAMPLES
    if file_path.exists():
        with file_path.open("rb") as file:
            scan(file, file_path, rows.see, "sample")
    read = rows.table(folder, config, results)
    if results is not None and results["n"] != len(read):
        message = f"{file_path} has {len(read):,} samples, and results.json sums up {results['n']}"
        raise RunError(f"{message}; move results.json away and give the run's command again")
    return read


class _Rows:
    """Columns as they grow, a row a line; a line that comes again for an index replaces the earlier."""

    def __init__(self, parsers: Sequence[str]) -> None:
        self._parsers = parsers
        self._decode = line_decoder(_Line)
        self._ids: list[str] = []
        self._groups: list[str | None] = []
        self._categories: list[str | None] = []
        self._statuses: list[str] = []
        self._numbers = {name: array("q") for name in ("index", "offset", "length", "truncated")}
        self._tokens = {"prompt": array("d"), "completion": array("d")}
        self._unparsed = {parser: array("b") for parser in parsers}
        self._scores: dict[tuple[str, str], array[float]] = {}

    def see(self, text: bytes, offset: int) -> None:
        """Take in a line that begins at `offset`; ValueError for one that is no sample's."""
        line = self._decode(text)
        if line.index < 0:
            raise ValueError("its index is negative")
        row = len(self._ids)
        self._ids.append(line.id)
        self._groups.append(line.group and sys.intern(line.group))
        self._categories.append(line.category and sys.intern(line.category))
        self._statuses.append(line.status)
        self._numbers["index"].append(line.index)
        self._numbers["offset"].append(offset)
        self._numbers["length"].append(len(line.response))
        self._numbers["truncated"].append(line.finish_reason == "length")
        for kind, count in (("prompt", line.prompt_tokens), ("completion", line.completion_tokens)):
            self._tokens[kind].append(_nan(count))
        for parser, mask in self._unparsed.items():
            mask.append(line.status != "engine_error" and line.answers.get(parser) is None)
        for reader, scores in line.scores.items():
            for name, value in scores.items():
                column = self._scores.get((reader, name))
                if column is None:
                    column = self._scores[reader, name] = array("d")
                column.extend([np.nan] * (row - len(column)))
                column.append(_nan(value))

    def table(self, folder: RunFolder, config: Mapping[str, Any], results: Mapping[str, Any] | None) -> Recorded:
        """Return the rows in the benchmark's order, with the verdicts of all judges."""
        numbers = {name: np.array(column, dtype=np.int64) for name, column in self._numbers.items()}
        total = len(self._ids)
        # The last of each index: the first of the reversed column.
        indices, last = np.unique(numbers["index"][::-1], return_index=True)
        order = total - 1 - last
        ids = [self._ids[i] for i in order]
        columns = {}
        for name, column in self._scores.items():
            column.extend([np.nan] * (total - len(column)))
            columns[name] = np.array(column, dtype=np.float64)[order]
        statuses = np.array(self._statuses, dtype=object)[order]
        verdicts = {}
        for label in (results or {}).get("judges", {}):
            said, scores = _verdicts(folder, label, ids)
            verdicts[label] = said
            columns.update({(label, name): values for name, values in scores.items()})
        return Recorded(
            folder=folder,
            config=config,
            results=results,
            timing=folder.timing,
            ids=ids,
            indices=indices,
            groups=[self._groups[i] for i in order],
            categories=[self._categories[i] for i in order],
            columns=columns,
            statuses=statuses,
            truncated=numbers["truncated"][order].astype(np.bool_),
            failed=np.array(statuses == "engine_error", dtype=np.bool_),
            unparsed={
                parser: np.array(mask, dtype=np.int8)[order].astype(np.bool_) for parser, mask in self._unparsed.items()
            },
            verdicts=verdicts,
            prompt_tokens=np.array(self._tokens["prompt"], dtype=np.float64)[order],
            completion_tokens=np.array(self._tokens["completion"], dtype=np.float64)[order],
            lengths=numbers["length"][order],
            offsets=numbers["offset"][order],
        )


def _verdicts(folder: RunFolder, label: str, ids: Sequence[str]) -> tuple[list[str | None], dict[str, Floats]]:
    """Return a judge's verdict and scores for each of `ids`; RunError where its file cannot be read."""
    path = folder.path / JUDGED / f"{label}.jsonl"
    rows = {identifier: row for row, identifier in enumerate(ids)}
    said: list[str | None] = [None] * len(ids)
    scores: dict[str, Floats] = {}
    decode_line = line_decoder(_Said)
    try:
        with path.open("rb") as file:
            for text in file:
                line = decode_line(text)
                row = rows[line.id]
                said[row] = line.verdict
                for name, value in line.scores.items():
                    if name not in scores:
                        scores[name] = np.full(len(ids), np.nan)
                    scores[name][row] = _nan(value)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"cannot read {path} ({error}); judge the run again to have it written anew") from error
    return said, scores


def line_decoder(kind: type[_Record]) -> Callable[[bytes], _Record]:
    """Return a function from a line to a record; it raises ValueError for a line that is none."""
    fast = msgspec.json.Decoder(kind)

    def decode_line(text: bytes) -> _Record:
        try:
            return fast.decode(text)
        except ValueError:  # NaN and lone surrogates are in Python's JSON, and in our files, but not in the standard
            return msgspec.convert(json.loads(text), kind)

    return decode_line


def _nan(value: float | None) -> float:
    return np.nan if value is None else value
