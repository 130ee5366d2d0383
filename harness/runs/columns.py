"""A recorded run as columns: what became of each sample, without the texts, which are read from disk when asked for.

samples.jsonl is gone through once, line by line, so that memory follows the number of samples and not their length.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from harness.errors import RunError
from harness.files import open_read
from harness.runs.folder import SAMPLES, Run
from harness.runs.judgements import each_verdict
from harness.runs.line_file import cannot_read, line_decoder, read_lines, scan
from harness.runs.records import Results, RunRecord, Timing
from harness.runs.samples import SampleIndex, SampleTexts, decode, decode_texts
from harness.types import Sample, Status, sample_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


class _Source(msgspec.Struct):
    """What is taken of what the source of an imported output read."""

    answer: str | None
    scores: dict[str, float | None]


class _Line(msgspec.Struct):
    """What is taken of a line of samples.jsonl; its texts are passed over."""

    index: int
    id: str
    status: Status
    answers: dict[str, str | None]
    scores: dict[str, dict[str, float | None]]
    response: str = ""
    group: str | None = None
    category: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    disagreeing: list[str] = []
    repeat: int = 0
    source: _Source | None = None


#: The number of an output's answer where there is none; answers are numbered from 0 on.
NO_ANSWER = -1


@dataclass(frozen=True)
class SourceColumns:
    """What the source of an imported run read itself, a row a sample.

    `known` marks those of which it says anything, `answered` those in which it read an answer, `scores` has its
    headline score, NaN where it gave none. `differing` marks by parser the samples that ours and it read differently.
    """

    known: Bools
    answered: Bools
    scores: Floats
    differing: Mapping[str, Bools]


@dataclass(frozen=True)
class Recorded:
    """A run's figures as columns, a row for each finished sample in the benchmark's order, an example's together.

    `summed_up` are its results, None while it is unfinished. `ids` and `indices` are the examples', which samples of
    one example share; `repeats` tells these apart, and `examples` numbers the example of each row from 0 on. `columns`
    maps (reader, score) to a number a sample, NaN where there is none; a reader is a parser or a judge. `unparsed` and
    `disagreeing` have a mask for each parser, `answers`, of runs of several samples an example, a number for what it
    read, the same for the same; `verdicts` each judge's verdict on every sample, None where it gave none. `lengths`
    counts the responses' characters. Token counts are NaN where the engine did not know them. `source` is
    None where nothing was imported that the source had read itself.
    """

    run: Run
    record: RunRecord
    summed_up: Results | None
    timing: Timing
    ids: Sequence[str]
    indices: Ints
    repeats: Ints
    examples: Ints
    groups: Sequence[str | None]
    categories: Sequence[str | None]
    columns: Mapping[tuple[str, str], Floats]
    statuses: NDArray[np.object_]
    truncated: Bools
    failed: Bools
    unparsed: Mapping[str, Bools]
    disagreeing: Mapping[str, Bools]
    answers: Mapping[str, Ints]
    verdicts: Mapping[str, Sequence[str | None]]
    prompt_tokens: Floats
    completion_tokens: Floats
    lengths: Ints
    offsets: Ints
    source: SourceColumns | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def examples_per_second(self) -> float | None:
        """Of several samples, examples with all of theirs; None where it is not known."""
        rate = self.timing.examples_per_second
        return None if rate is None else rate / self.record.samples

    @property
    def keys(self) -> list[str]:
        """What the samples are called, row by row."""
        return [*map(sample_key, self.ids, self.repeats.tolist())]

    @property
    def first_rows(self) -> Ints:
        """The row of each example's first sample, as far as it has one."""
        return np.flatnonzero(np.diff(self.examples, prepend=-1))

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.run.path

    @property
    def results(self) -> Results:
        """The run's results; RunError, with what to do, while it has none."""
        if self.summed_up is None:
            raise RunError(f"{self.path} {self.run.unfinished}")
        return self.summed_up

    @property
    def benchmark(self) -> str:
        """The benchmark's name."""
        return self.record.benchmark

    @property
    def model(self) -> str:
        """The evaluated model's name."""
        return self.record.model

    def kinds(self, parser: str | None = None, judge: str | None = None) -> dict[str, Bools]:
        """Return a mask for each kind of sample, as `parser` and `judge` read them; None is the first there is.

        Failed: the engine or the judge gave nothing; such a sample is of no other kind. Unparsed, truncated. Wrong:
        parsed, but the first score is below 1. Disagreeing: a letter beside another option's text. Where outputs were
        imported, differing-from-source: read otherwise than by their source. A verdict's name: judged so.
        """
        parser = parser or self.record.headline
        judge = judge or next(iter(self.verdicts), None)
        said = np.array(self.verdicts[judge] if judge is not None else [None] * len(self), dtype=object)
        answered = ~(self.failed | (said == "judge_error"))
        unparsed = self.unparsed.get(parser or "", np.zeros(len(self), dtype=np.bool_))
        scores = next((column for (reader, _), column in self.columns.items() if reader == parser), None)
        wrong = np.zeros(len(self), dtype=np.bool_) if scores is None else scores < 1
        disagreeing = self.disagreeing.get(parser or "", np.zeros(len(self), dtype=np.bool_))
        found = {"wrong": wrong & ~unparsed, "unparsed": unparsed, "truncated": self.truncated}
        found["disagreeing"] = disagreeing
        if self.source is not None and parser is not None:
            found["differing-from-source"] = self.source.differing[parser]
        found |= {verdict: said == verdict for verdict in sorted({*said.tolist()} - {None, "judge_error"})}
        return {"failed": ~answered, **{kind: mask & answered for kind, mask in found.items()}}

    def sample(self, row: int) -> Sample:
        """Return the sample of a row with its texts, read from disk."""
        [sample] = self.samples([row])
        return sample

    def samples(self, rows: Sequence[int] | Ints) -> Iterator[Sample]:
        """Yield the samples of `rows` with their texts, read from disk one by one."""
        return (decode(line, self.path / SAMPLES) for line in self._lines(rows))

    def texts(self, rows: Sequence[int] | Ints) -> Iterator[SampleTexts]:
        """Yield prompts and outputs alone, which takes half the time."""
        return (decode_texts(line, self.path / SAMPLES) for line in self._lines(rows))

    def _lines(self, rows: Sequence[int] | Ints) -> Iterator[bytes]:
        return read_lines(self.path / SAMPLES, map(int, self.offsets[np.asarray(rows, np.int64)]))


def read_run(path: Path | str) -> Recorded:
    """Read the run in the folder `path`, finished or not.

    Raises RunError, with the remedy, for a folder that is no run, is of another format, or lacks samples that its
    results sum up.
    """
    run = Run(Path(path))
    record = run.record
    results = run.results if run.finished else None
    growing = _Growing(record.parsers, record.samples)
    file_path = run.path / SAMPLES
    try:
        with open_read(file_path) as file:
            scan(file, file_path, growing.see, "sample")
    except FileNotFoundError:  # nothing has been done yet
        pass
    except OSError as error:
        raise cannot_read(file_path, error) from error
    read = growing.recorded(run, record, results)
    run.check_whole(len(read))
    return read


def numbered(indices: Ints) -> Ints:
    """Return the number of each row's example, of rows with these indices of examples, which do not fall.

    >>> numbered(np.array([3, 3, 7, 9, 9])).tolist()
    [0, 0, 1, 2, 2]
    """
    return np.cumsum(np.diff(indices, prepend=indices[:1]) > 0, dtype=np.int64)


class _Growing:
    """Columns as they grow, a row a line; a line that comes again for a sample replaces the earlier."""

    def __init__(self, parsers: Sequence[str], samples: int) -> None:
        self._index = SampleIndex(samples=samples)
        self._answers = {parser: array("q") for parser in parsers if samples > 1}
        self._known: dict[str | None, int] = {None: NO_ANSWER}
        self._decode = line_decoder(_Line)
        self._ids: list[str] = []
        self._groups: list[str | None] = []
        self._categories: list[str | None] = []
        self._statuses: list[str] = []
        self._numbers = {name: array("q") for name in ("index", "repeat", "offset", "length", "truncated")}
        self._tokens = {"prompt": array("d"), "completion": array("d")}
        self._unparsed = {parser: array("b") for parser in parsers}
        self._disagreeing = {parser: array("b") for parser in parsers}
        self._scores: dict[tuple[str, str], array[float]] = {}
        self._source_known, self._source_answered, self._source_scores = array("b"), array("b"), array("d")
        self._differing = {parser: array("b") for parser in parsers}

    def see(self, text: bytes, offset: int) -> None:
        """Take in a line that begins at `offset`; ValueError for one that is no sample's."""
        line = self._decode(text)
        row = len(self._ids)
        self._index.add(line.index, line.repeat, row, line.status == "engine_error")
        self._ids.append(line.id)
        self._groups.append(line.group and sys.intern(line.group))
        self._categories.append(line.category and sys.intern(line.category))
        self._statuses.append(line.status)
        self._numbers["index"].append(line.index)
        self._numbers["repeat"].append(line.repeat)
        self._numbers["offset"].append(offset)
        self._numbers["length"].append(len(line.response))
        self._numbers["truncated"].append(line.finish_reason == "length")
        for kind, count in (("prompt", line.prompt_tokens), ("completion", line.completion_tokens)):
            self._tokens[kind].append(_nan(count))
        for parser, mask in self._unparsed.items():
            mask.append(line.status != "engine_error" and line.answers.get(parser) is None)
        for parser, mask in self._disagreeing.items():
            mask.append(parser in line.disagreeing)
        for parser, numbers in self._answers.items():
            numbers.append(self._known.setdefault(line.answers.get(parser), len(self._known) - 1))
        self._see_source(line)
        for reader, scores in line.scores.items():
            for name, value in scores.items():
                column = self._scores.get((reader, name))
                if column is None:
                    column = self._scores[reader, name] = array("d")
                column.extend([np.nan] * (row - len(column)))
                column.append(_nan(value))

    def _see_source(self, line: _Line) -> None:
        said = line.source
        self._source_known.append(said is not None)
        self._source_answered.append(said is not None and said.answer is not None)
        self._source_scores.append(np.nan if said is None else _nan(next(iter(said.scores.values()), None)))
        for parser, mask in self._differing.items():
            read = said is not None and line.status != "engine_error"
            mask.append(read and said is not None and line.answers.get(parser) != said.answer)

    def recorded(self, run: Run, record: RunRecord, results: Results | None) -> Recorded:
        """Return the rows in the benchmark's order, with the verdicts of all judges."""
        numbers = {name: np.array(column, dtype=np.int64) for name, column in self._numbers.items()}
        total = len(self._ids)
        order = np.fromiter(self._index.places(), dtype=np.int64)
        indices, repeats = (numbers[name][order] for name in ("index", "repeat"))
        ids = [self._ids[i] for i in order]
        columns = {}
        for name, column in self._scores.items():
            column.extend([np.nan] * (total - len(column)))
            columns[name] = np.array(column, dtype=np.float64)[order]
        statuses = np.array(self._statuses, dtype=object)[order]
        verdicts = {}
        for label in results.judged if results is not None else ():
            said, scores = _verdicts(run, label, [*map(sample_key, ids, repeats.tolist())])
            verdicts[label] = said
            columns.update({(label, name): values for name, values in scores.items()})
        return Recorded(
            run=run,
            record=record,
            summed_up=results,
            timing=run.timing,
            ids=ids,
            indices=indices,
            examples=numbered(indices),
            repeats=repeats,
            groups=[self._groups[i] for i in order],
            categories=[self._categories[i] for i in order],
            columns=columns,
            statuses=statuses,
            truncated=numbers["truncated"][order].astype(np.bool_),
            failed=np.array(statuses == "engine_error", dtype=np.bool_),
            unparsed=_masks(self._unparsed, order),
            disagreeing=_masks(self._disagreeing, order),
            answers={parser: np.array(column, dtype=np.int64)[order] for parser, column in self._answers.items()},
            verdicts=verdicts,
            prompt_tokens=np.array(self._tokens["prompt"], dtype=np.float64)[order],
            completion_tokens=np.array(self._tokens["completion"], dtype=np.float64)[order],
            lengths=numbers["length"][order],
            offsets=numbers["offset"][order],
            source=self._source(order),
        )

    def _source(self, order: Ints) -> SourceColumns | None:
        if not any(self._source_known):
            return None
        masks = _masks({"known": self._source_known, "answered": self._source_answered}, order)
        scores = np.array(self._source_scores, dtype=np.float64)[order]
        return SourceColumns(masks["known"], masks["answered"], scores, _masks(self._differing, order))


def _masks(columns: Mapping[str, array[int]], order: Ints) -> dict[str, Bools]:
    return {name: np.array(column, dtype=np.int8)[order].astype(np.bool_) for name, column in columns.items()}


def _verdicts(run: Run, label: str, keys: Sequence[str]) -> tuple[list[str | None], dict[str, Floats]]:
    """Return a judge's verdict and scores for each of the samples `keys`; RunError where its file cannot be read."""
    rows = {key: row for row, key in enumerate(keys)}
    said: list[str | None] = [None] * len(keys)
    scores: dict[str, Floats] = {}
    for verdict in each_verdict(run.path, label, rows):
        row = rows[verdict.key]
        said[row] = verdict.verdict
        for name, value in verdict.scores.items():
            if name not in scores:
                scores[name] = np.full(len(keys), np.nan)
            scores[name][row] = _nan(value)
    return said, scores


def _nan(value: float | None) -> float:
    return np.nan if value is None else value
