"""The run folder: run.json, samples.jsonl, results.json, timing.json, exports/.

samples.jsonl is append-only and flushed line by line, so that a killed process loses at most the line it was writing;
every other file is written aside and renamed into place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import RunError
from harness.files import open_read, read_json
from harness.runs.judgements import Verdict, each_verdict
from harness.runs.line_file import cannot_read, locked, read_lines, scan, write_atomically
from harness.runs.records import (
    Command,
    HasCommand,
    JudgingSession,
    Record,
    Results,
    RunRecord,
    Timing,
    as_json,
    as_record,
)
from harness.runs.samples import SampleIndex, decode
from harness.types import Sample

SAMPLES, RUN, RESULTS, TIMING, EXPORTS = "samples.jsonl", "run.json", "results.json", "timing.json", "exports"

#: What run.json calls the layout of the folder and its files; no version reads another's.
RUN_FORMAT = 1


class Run:
    """A recorded run in the folder `path`: what its files say, read anew each time.

    While it is being `summed_up` anew, its results may be of fewer samples than there are.
    """

    def __init__(self, path: Path, *, summed_up: bool = True) -> None:
        self.path = path
        self._summed_up = summed_up

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def record(self) -> RunRecord:
        """What run.json says; RunError when this is no run folder, or one of another format."""
        path = self.path / RUN
        content = _read_json(path, "not a run folder")
        check_format(content, path)
        return as_record(content, RunRecord, path)

    @property
    def going(self) -> bool:
        """Whether a process is at work on the run's samples; not known, and False, on file systems without locks."""
        return locked(self.path / SAMPLES)

    @property
    def finished(self) -> bool:
        """Whether there are results."""
        return (self.path / RESULTS).exists()

    @property
    def results(self) -> Results:
        """What results.json says; RunError when the run has not finished."""
        path = self.path / RESULTS
        return as_record(_read_json(path, f"the run {self.unfinished}"), Results, path)

    @property
    def unfinished(self) -> str:
        """What to say of a run without results, and to do about it."""
        if self.going:
            return "is still going; wait for it to finish"
        return "has no results yet; give its command again to finish it"

    @property
    def timing(self) -> Timing:
        """What timing.json says, or nothing."""
        path = self.path / TIMING
        return as_record(_read_json(path, ""), Timing, path) if path.exists() else Timing()

    @property
    def model(self) -> str:
        """The evaluated model's name, as the run's folder and exported files have it."""
        return self.record.model

    def samples(self) -> Iterator[Sample]:
        """Yield the finished samples in the benchmark's order, those of an example together, read from disk one by one.

        Raises RunError for lines that are no samples, or of one that is there already, and where results.json sums up
        more or fewer.
        """
        path = self.path / SAMPLES
        index = SampleIndex(samples=self.record.samples if (self.path / RUN).exists() else 1)
        try:
            with open_read(path) as file:
                scan(file, path, index.see, "sample")
        except FileNotFoundError:
            return
        except OSError as error:
            raise cannot_read(path, error) from error
        self.check_whole(sum(1 for _ in index.places()))
        yield from (decode(line, path) for line in read_lines(path, index.places()))

    def check_whole(self, count: int) -> None:
        """Raise RunError where results.json sums up another number of samples than the `count` that there are."""
        if self._summed_up and self.finished and (summed := self.results.n) != count:
            message = f"{self.path / SAMPLES} has {count:,} samples, and results.json sums up {summed:,}"
            raise RunError(f"{message}; move results.json away and give the run's command again")

    def to_pandas(self) -> Any:
        """Return the samples as a `pandas.DataFrame`, a row for each in the benchmark's order.

        Columns are a sample's fields of the same name (``fields`` as JSON; ``repeat`` counts an example's samples from
        0); for each parser ``PARSER.answer`` and its scores, such as ``PARSER.accuracy``; for each judge
        ``JUDGE.verdict`` and its. Raises ConfigError where pandas is not installed.
        """
        from harness.runs.frames import to_pandas

        return to_pandas(self.record.parsers, self.samples(), self._verdicts())

    def to_polars(self) -> Any:
        """Return the samples as a `polars.DataFrame`, with the columns of `to_pandas`."""
        from harness.runs.frames import to_polars

        return to_polars(self.record.parsers, self.samples(), self._verdicts())

    def to_arrow(self) -> Any:
        """Return the samples as a `pyarrow.Table`, with the columns of `to_pandas`."""
        from harness.runs.frames import to_arrow

        return to_arrow(self.record.parsers, self.samples(), self._verdicts())

    def _verdicts(self) -> dict[str, Iterator[Verdict]]:
        return {judge: each_verdict(self.path, judge) for judge in (self.results.judged if self.finished else ())}

    def write(self, name: str, content: Record | Mapping[str, Any]) -> None:
        """Replace a JSON file of the folder as a whole, or leave it as it was."""
        content = as_json(content) if isinstance(content, Record) else content
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=True) + "\n"
        write_atomically(self.path / name, [_encode_text(text)], others=(RUN, RESULTS, TIMING))

    def update(self, name: str, changes: Record | Mapping[str, Any]) -> None:
        """Put `changes` in the place of what a JSON file of the folder says, and leave what else it says as it is."""
        path = self.path / name
        content = _read_json(path, "") if path.exists() else {}
        changed = {**content, **(as_json(changes) if isinstance(changes, Record) else changes)}
        if changed != content:
            self.write(name, changed)

    def add_judging(self, session: JudgingSession) -> None:
        """Note in timing.json what a process that judged took."""
        path = self.path / TIMING
        content = _read_json(path, "") if path.exists() else {"sessions": []}
        self.write(TIMING, {**content, "judging": [*content.get("judging", []), as_json(session)]})

    def write_export(self, name: str, records: Iterable[Mapping[str, Any]], repeat: int = 0) -> None:
        """Write `records` to exports/`name`: a JSON array for ``.json``, `exported_lines` for ``.jsonl``.

        Other tools expect one output an example: those of a `repeat` after the first go into a file of their own, such
        as alpaca_eval.2.json.
        """
        content = _json_array(records) if name.endswith(".json") else exported_lines(records)
        place = Path(name)
        name = f"{place.stem}.{repeat}{place.suffix}" if repeat else name
        write_atomically(self.path / EXPORTS / name, content, root=self.path)


@dataclass(frozen=True)
class OneRepeat:
    """A run as if it had taken the samples of one `repeat` alone, for what takes one sample of each example."""

    run: Run
    repeat: int

    @property
    def model(self) -> str:
        """The evaluated model's name."""
        return self.run.model

    def samples(self) -> Iterator[Sample]:
        """Yield the repeat's samples in the benchmark's order."""
        return (sample for sample in self.run.samples() if sample.repeat == self.repeat)


def begun(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Return the paths without folders in which no run has begun, and a line on each of these.

    Such a folder is empty but for hidden files, as a process that was killed at once may have left it.
    """
    kept, notes = [], []
    for path in paths:
        try:
            empty = all(name.startswith(".") for name in os.listdir(path))
        except OSError:  # what is wrong with it is said by whoever reads it
            empty = False
        if empty:
            notes.append(f"{path} is left out: no run has begun in it")
        else:
            kept.append(path)
    return kept, notes


def read_command(path: Path) -> Command:
    """Return the options in the run.json at `path`, whatever else it says; RunError when there are none to be used."""
    content = _read_json(path, "not a run folder")
    check_format(content, path)
    return as_record(content, HasCommand, path).command


def check_format(config: Mapping[str, Any], path: Path) -> None:
    """Raise RunError unless `config`, read from `path`, is of the format that this version reads."""
    if config.get("format") == RUN_FORMAT:
        return
    made = f"format {config['format']!r} is not" if "format" in config else "it names no format, and not"
    version = f"harness {config['harness']!r}" if "harness" in config else "the version that made it"
    raise RunError(f"{path}: {made} the {RUN_FORMAT} that this version reads; use {version}, or run it --fresh")


def _encode_text(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(json.loads(text), indent=2).encode("ascii") + b"\n"


def _exported(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=False)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode("utf-8")


def exported_lines(records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield records as other tools take them, one object a line.

    Lone surrogates, which such tools stumble over, become U+FFFD; samples.jsonl keeps them.
    """
    return (_exported(record) + b"\n" for record in records)


def _json_array(records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    separator = b"[\n  "
    for record in records:
        yield separator + _exported(record)
        separator = b",\n  "
    yield b"[]\n" if separator == b"[\n  " else b"\n]\n"


def _runs_within(folder: Path) -> str:
    """Return what to give in the place of a folder that is no run and holds some, as the folder of a model does."""
    with suppress(OSError):
        for depth in ("*", "*/*", "*/*/*", "*/*/*/*"):
            runs = sorted(path.parent for path in folder.glob(f"{depth}/{RUN}") if not path.parent.name.startswith("."))
            if runs:
                return f", but runs are in it; give {folder / depth}, or one such as {runs[-1]}"
    return ""


def _read_json(path: Path, meaning: str) -> dict[str, Any]:
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        within = _runs_within(path.parent) if path.name == RUN else ""
        raise RunError(f"no {path}: {meaning}{within}") from error
    except OSError as error:
        raise cannot_read(path, error) from error
    except ValueError as error:
        raise RunError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: not a JSON object")
    return content
