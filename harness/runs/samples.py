"""Samples as lines of samples.jsonl, and where the last line of each example stands in it.

A line's ``index`` comes first and is the example's position in the benchmark's order, and then, of samples after an
example's first, its ``repeat``. Where a sample stands twice (a failed one done again), the later line counts.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import TypeVar

import msgspec

from harness import limits
from harness.errors import RunError
from harness.runs.line_file import encode_record, line_decoder
from harness.types import Sample

_FIELDS = ("index", "repeat", *(field.name for field in fields(Sample) if field.name not in ("index", "repeat")))
_START, _REPEAT = b'{"index": ', b' "repeat": '

T = TypeVar("T")


class SampleIndex:
    """Where the last line of each sample stands: 9 bytes a sample, whatever its size.

    `size` is how many examples the benchmark has, as far as that is known, `samples` how many of each a run takes.
    """

    def __init__(self, size: int = 0, samples: int = 1) -> None:
        self._samples = samples
        self._place = array("q", [-1]) * (size * samples)
        self._failed = bytearray(size * samples)

    def see(self, line: bytes, offset: int) -> None:
        """Take in a line of the file; ValueError for one that is no sample's."""
        index, repeat, failed = _position(line)
        self.add(index, repeat, offset, failed)

    def add(self, index: int, repeat: int, place: int, failed: bool) -> None:
        """Note where the last line of a sample stands: its offset, or whatever else leads to it.

        Raises ValueError for a repeat that the run does not take, and, where it takes several of each example, for one
        that has a result already.
        """
        if not 0 <= repeat < self._samples:
            raise ValueError(f"its repeat is {repeat}, and of each example the run takes {self._samples}, from 0 on")
        position = index * self._samples + repeat
        if not 0 <= position < len(self._place):
            self._grow(position)
        elif self._samples > 1 and self._place[position] >= 0 and not self._failed[position]:
            raise ValueError(f"repeat {repeat} of the example with index {index} has a result further up")
        self._place[position] = place
        self._failed[position] = failed

    def _grow(self, position: int) -> None:
        if not 0 <= position < limits.SAMPLES.value:  # 151 MB of memory by default, whatever a file says
            raise ValueError(f"its index is not among the {limits.SAMPLES.told} that a run may have ({limits.SAMPLES})")
        more = max(position + 1 - len(self._place), len(self._place) >> 3)
        self._place.extend(array("q", [-1]) * more)
        self._failed.extend(bytes(more))

    def done(self, index: int, repeat: int = 0) -> bool:
        """Whether a sample of the example at `index` has a result that is not an engine's failure."""
        position = index * self._samples + repeat
        return position < len(self._place) and self._place[position] >= 0 and not self._failed[position]

    def places(self) -> Iterator[int]:
        """Yield where the lines stand that count, in the benchmark's order, an example's samples in theirs."""
        return (place for place in self._place if place >= 0)


def _position(line: bytes) -> tuple[int, int, bool]:
    """Return a line's index and repeat and whether it records a failure, without reading all of it where possible."""
    if b'"engine_error"' not in line and line.startswith(_START):
        digits, _, rest = line[len(_START) : len(_START) + 64].partition(b",")
        repeat = rest[len(_REPEAT) :].partition(b",")[0] if rest.startswith(_REPEAT) else b"0"
        if digits.isdigit() and repeat.isdigit():
            return int(digits), int(repeat), False
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(record, dict) or not isinstance(record.get("index"), int) or record["index"] < 0:
        raise ValueError("it has no index")
    repeat = record.get("repeat", 0)
    if type(repeat) is not int:
        raise ValueError(f"its repeat is {repeat!r}, no whole number")
    return record["index"], repeat, record.get("status") == "engine_error"


def encode(sample: Sample) -> bytes:
    """Return a sample as one line of JSON, readable where it can be UTF-8, escaped where it holds lone surrogates."""
    record = {name: getattr(sample, name) for name in _FIELDS if name != "repeat" or sample.repeat}
    if sample.source is None:
        del record["source"]
    else:
        record["source"] = asdict(sample.source)
    if sample.thought_tokens is None:
        del record["thought_tokens"]
    if sample.likelihoods:
        record["likelihoods"] = [asdict(each) for each in sample.likelihoods]
    else:
        del record["likelihoods"]
    return encode_record(record) + b"\n"


class SampleTexts(msgspec.Struct):
    """What is searched of a sample."""

    prompt: str
    output: str


def _decoder(kind: type[T]) -> Callable[[bytes, Path], T]:
    """Return a function from a line, and the path of its file for messages, to what `kind` takes of it."""
    read = line_decoder(kind)

    def decode_line(line: bytes, path: Path) -> T:
        try:
            return read(line)
        except ValueError as error:
            raise RunError(f"{path}: a line is no sample of this version ({error})") from error

    return decode_line


decode, decode_texts = _decoder(Sample), _decoder(SampleTexts)
