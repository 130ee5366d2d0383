"""A run that is still going: what has come in so far, read as it is written."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from harness.errors import RunError
from harness.files import open_read
from harness.runs.samples import decode
from harness.types import Sample

#: The rate is that of the last minute, as a resumed run's older lines say nothing about time.
_WINDOW_SECONDS = 60.0

#: How many of the latest samples are kept.
_LATEST = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a run is: samples by what became of them, samples/s (None: not known yet), the latest samples.

    `done` counts those with an output, `unparsed` and `truncated` are of these; `damaged` counts lines that cannot be
    read.
    """

    done: int
    failed: int
    unparsed: int
    truncated: int
    damaged: int
    rate: float | None
    latest: tuple[Sample, ...]


class Following:
    """samples.jsonl of a run under way; each `update` reads what has been added since the last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._begin()

    def _begin(self) -> None:
        self._end = 0
        self._found: dict[tuple[int, int], tuple[bool, bool, bool]] = {}
        self._damaged = 0
        self._latest: deque[Sample] = deque(maxlen=_LATEST)
        self._seen: deque[tuple[float, int]] = deque()

    def update(self) -> Standing:
        """Return how far the run is now."""
        with self._lock:
            self._read()
            flags = self._found.values()
            failed = sum(each[0] for each in flags)
            done = len(self._found) - failed
            return Standing(
                done,
                failed,
                sum(each[1] for each in flags),
                sum(each[2] for each in flags),
                self._damaged,
                self._rate(done),
                tuple(reversed(self._latest)),
            )

    def _read(self) -> None:
        try:
            with open_read(self._path) as file:
                if os.fstat(file.fileno()).st_size < self._end:  # a torn line was cut off, or it is another file
                    self._begin()
                file.seek(self._end)
                for line in file:
                    if not line.endswith(b"\n"):  # still being written
                        break
                    self._end += len(line)
                    self._take(line)
        except FileNotFoundError:
            self._begin()

    def _take(self, line: bytes) -> None:
        try:
            sample = decode(line, self._path)
        except RunError:
            self._damaged += 1
            return
        self._found[sample.index, sample.repeat] = (
            sample.status == "engine_error",
            sample.status == "unparsed",
            sample.finish_reason == "length",
        )
        self._latest.append(sample)

    def _rate(self, done: int) -> float | None:
        now = time.monotonic()
        self._seen.append((now, done))
        while now - self._seen[0][0] > _WINDOW_SECONDS:
            self._seen.popleft()
        seconds, added = now - self._seen[0][0], done - self._seen[0][1]
        return added / seconds if seconds >= 1 and added > 0 else None
