"""The run folder: run.json, samples.jsonl, results.json, timing.json, exports/.

samples.jsonl is append-only and flushed line by line, so that a killed process loses at most the line it was writing;
every other file is written aside and renamed into place. A line's ``index`` comes first and is the example's position
in the benchmark's order; where an index stands twice (a failed example done again), the later line counts.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from harness.errors import RunError
from harness.evaluation.lines import (
    LineFile,
    encode_record,
    locked,
    read_lines,
    scan,
    write_atomically,
)
from harness.types import Sample

SAMPLES, RUN, RESULTS, TIMING, EXPORTS = "samples.jsonl", "run.json", "results.json", "timing.json", "exports"

#: What run.json calls the layout of the folder and its files; no version reads another's.
RUN_FORMAT = 1

_FIELDS = ("index", *(field.name for field in fields(Sample) if field.name != "index"))
_START = b'{"index": '
_WHAT = "sample"


class RunFolder:
    """A recorded run, for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> dict[str, Any]:
        """What run.json says; RunError when this is no run folder, or one of another format."""
        from harness.evaluation.shape import Run, check_shape

        path = self.path / RUN
        config = _read_json(path, "not a run folder")
        check_format(config, path)
        check_shape(config, Run, path)
        return config

    @property
    def going(self) -> bool:
        """Whether a process is at work on the run's samples; not known, and False, on file systems without locks."""
        return locked(self.path / SAMPLES)

    @property
    def results(self) -> dict[str, Any]:
        """What results.json says; RunError when the run has not finished."""
        from harness.evaluation.shape import Results, check_shape

        results = _read_json(self.path / RESULTS, f"the run {self.unfinished}")
        check_shape(results, Results, self.path / RESULTS)
        return results

    @property
    def unfinished(self) -> str:
        """What to say of a run without results, and to do about it."""
        if self.going:
            return "is still going; wait for it to finish"
        return "has no results yet; give its command again to finish it"

    @property
    def timing(self) -> dict[str, Any]:
        """What timing.json says, or nothing."""
        from harness.evaluation.shape import Timing, check_shape

        path = self.path / TIMING
        if not path.exists():
            return {"sessions": []}
        timing = _read_json(path, "")
        check_shape(timing, Timing, path)
        return timing

    @property
    def model(self) -> str:
        """The evaluated model's name, as the run's folder and exported files have it."""
        return str(self.config["model"])

    def samples(self) -> Iterator[Sample]:
        """Yield the finished samples in the benchmark's order, read from disk one by one."""
        path = self.path / SAMPLES
        if not path.exists():
            return
        index = _Index()
        with path.open("rb") as file:
            scan(file, path, index.see, _WHAT)
        yield from (decode(line, path) for line in read_lines(path, index.offsets()))

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a JSON file of the folder as a whole, or leave it as it was."""
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=True) + "\n"
        write_atomically(self.path / name, [_encode_text(text)])

    def write_export(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Write `records` to exports/`name`: a JSON array for ``.json``, one object a line for ``.jsonl``.

        Lone surrogates, which other tools stumble over, become U+FFFD; samples.jsonl keeps them.
        """
        folder = self.path / EXPORTS
        folder.mkdir(exist_ok=True)
        write_atomically(folder / name, _json_array(records) if name.endswith(".json") else _json_lines(records))


class Journal:
    """samples.jsonl of a run under way: locked against a second process, recovered after a crash, appended to.

    `size` is the number of examples in the benchmark. Raises RunError when another process holds the run, or when a
    line other than the last cannot be read.
    """

    def __init__(self, folder: RunFolder, size: int) -> None:
        self._path = folder.path / SAMPLES
        self._index = _Index(size)
        self._file = LineFile(self._path, self._index.see, _WHAT)

    def done(self, index: int) -> bool:
        """Whether the example at `index` has a result that is not an engine's failure."""
        return self._index.done(index)

    def append(self, sample: Sample) -> None:
        """Write one finished sample; RunError when the disk is full or gone (what was written before is kept)."""
        self._index.add(sample.index, self._file.append(encode(sample)), sample.status == "engine_error")

    def samples(self) -> Iterator[Sample]:
        """Yield the finished samples in the benchmark's order, read back from disk one by one."""
        return (decode(line, self._path) for line in read_lines(self._path, self._index.offsets()))

    def close(self) -> None:
        """Close the file and give up the lock."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Index:
    """Where the last line of each example stands: 9 bytes an example, whatever its size."""

    def __init__(self, size: int = 0) -> None:
        self._offset = array("q", [-1]) * size
        self._failed = bytearray(size)

    def see(self, line: bytes, offset: int) -> None:
        """Take in a line of the file; ValueError for one that is no sample's."""
        position, failed = _position(line)
        self.add(position, offset, failed)

    def add(self, index: int, offset: int, failed: bool) -> None:
        if index >= len(self._offset):
            more = index + 1 - len(self._offset)
            self._offset.extend(array("q", [-1]) * more)
            self._failed.extend(bytes(more))
        self._offset[index] = offset
        self._failed[index] = failed

    def done(self, index: int) -> bool:
        return index < len(self._offset) and self._offset[index] >= 0 and not self._failed[index]

    def offsets(self) -> Iterator[int]:
        return (offset for offset in self._offset if offset >= 0)


def _position(line: bytes) -> tuple[int, bool]:
    """Return a line's index and whether it records an engine's failure, without reading all of it where possible."""
    if b'"engine_error"' not in line and line.startswith(_START):
        digits = line[len(_START) : line.index(b",")]
        if digits.isdigit():
            return int(digits), False
    record = json.loads(line)
    if not isinstance(record, dict) or not isinstance(record.get("index"), int) or record["index"] < 0:
        raise ValueError("it has no index")
    return record["index"], record.get("status") == "engine_error"


def encode(sample: Sample) -> bytes:
    """Return a sample as one line of JSON, readable where it can be UTF-8, escaped where it holds lone surrogates."""
    record = {name: getattr(sample, name) for name in _FIELDS}
    return encode_record(record) + b"\n"


def decode(line: bytes, path: Path) -> Sample:
    """Return the sample in one line; RunError when it has other fields than this version writes."""
    try:
        return Sample(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise RunError(f"{path}: a line is no sample of this version ({error})") from error


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


def _json_lines(records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    return (_exported(record) + b"\n" for record in records)


def _json_array(records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    separator = b"[\n  "
    for record in records:
        yield separator + _exported(record)
        separator = b",\n  "
    yield b"[]\n" if separator == b"[\n  " else b"\n]\n"


def _read_json(path: Path, meaning: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RunError(f"no {path}: {meaning}") from error
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: not a JSON object")
    return content
