"""The runs below a folder, as a list: what each is, how far it got, and its headline figure."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from harness.errors import ConfigError, RunError
from harness.files import open_read
from harness.reports.summary import warnings
from harness.runs.folder import RESULTS, RUN, SAMPLES, TIMING, Run
from harness.runs.judgements import JUDGED, JUDGEMENTS
from harness.runs.line_file import locked
from harness.runs.records import Results

#: ``going`` and ``judging`` are known by the lock that the process at work holds, not by the time of a change.
State: TypeAlias = Literal["finished", "going", "judging", "stopped", "unreadable"]

#: How deep runs are looked for, and in how many folders at most: `harness view /` must not read a whole disk.
_DEPTH, _FOLDERS = 8, 50_000

_CHUNK = 1 << 20

#: Times and sizes of files.
Signature: TypeAlias = tuple[tuple[int, int], ...]


class MissingRun(RunError):
    """There is no such run below the folder."""


@dataclass(frozen=True, slots=True)
class Headline:
    """The first metric of the first parser or judge, with its 95% interval."""

    reader: str
    metric: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ListedRun:
    """One run in the list.

    `key` names it in addresses. `created` is the time in ISO format. `n` of `selected` samples are recorded; a failed
    one that was done again may count twice while the run has no results. `notes` say what is doubtful or broken.
    """

    key: str
    name: str
    state: State
    benchmark: str = ""
    model: str = ""
    created: str = ""
    n: int = 0
    selected: int = 0
    headline: Headline | None = None
    notes: tuple[str, ...] = ()


class RunsFolder:
    """A folder with runs at any depth; raises ConfigError where there is none.

    No run outside it is read, whatever names and symbolic links say. What is known of a run is kept until its files
    change.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ConfigError(f"no folder {path}: `harness run` makes it, or name another")
        self.path = path
        self._real = path.resolve()
        self._known: dict[str, tuple[Signature, ListedRun]] = {}
        self._counted: dict[str, tuple[int, int]] = {}  # where the lines end that were counted, and how many

    def rows(self) -> list[ListedRun]:
        """Return all runs, the newest first."""
        rows = [self._row(name) for name in self._names()]
        there = {row.name for row in rows}
        for kept in (self._known, self._counted):
            for name in kept.keys() - there:
                kept.pop(name, None)
        return sorted(rows, key=lambda row: (row.created, row.name), reverse=True)

    def row(self, key: str) -> ListedRun:
        """Return one run; MissingRun where there is none of that key."""
        self.open(key)
        return self._row(_name(key))

    def open(self, key: str) -> Run:
        """Return a run; MissingRun where there is none of that key below the folder."""
        name = _name(key)
        inside = "\0" not in name and not name.startswith("/") and ".." not in PurePosixPath(name).parts
        try:
            if inside and (self.path / name / RUN).is_file() and not self._leads_out(self.path / name):
                return Run(self.path / name)
        except OSError:  # such as a name that is too long
            pass
        raise MissingRun(f"no run {name} in {self.path}: it has been deleted, or never was")

    def signature(self, key: str) -> Signature:
        """Return what changes when anything of a run's figures or samples does."""
        path = self.open(key).path
        return tuple(_changed(path / name) for name in (RUN, RESULTS, TIMING, SAMPLES))

    def _names(self) -> Iterator[str]:
        """Yield the paths of run folders below the folder; links are not followed."""
        waiting, seen = [("", 0)], 0
        while waiting and seen < _FOLDERS:
            name, depth = waiting.pop()
            seen += 1
            try:
                with os.scandir(self.path / name) as entries:
                    found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            except OSError:  # deleted or closed to us
                continue
            if (RUN, False) in found:
                yield name
            elif depth < _DEPTH:
                below = [each for each, is_folder in found if is_folder and not each.startswith(".")]
                waiting += [(f"{name}/{each}" if name else each, depth + 1) for each in below]

    def _leads_out(self, path: Path) -> bool:
        """Whether a run folder, or a file in it, is a link to somewhere outside, or no ordinary file at all."""
        if not path.resolve().is_relative_to(self._real):
            return True
        for folder in (path, path / JUDGED):
            if folder.is_dir():
                for entry in os.scandir(folder):
                    kind = entry.stat().st_mode
                    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                        return True
                    if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(self._real):
                        return True
        return False

    def _row(self, name: str) -> ListedRun:
        key, path = quote(os.fsencode(name), safe="/"), self.path / name
        try:
            if self._leads_out(path):
                return ListedRun(key, name, "unreadable", notes=("its files lie outside the folder of runs",))
            signature = tuple(_changed(path / file) for file in (RUN, RESULTS))
            known = self._known.get(name)
            if known is None or known[0] != signature:
                known = self._known[name] = (signature, _read(key, name, Run(path)))
            return self._now(known[1], path)
        except (RunError, OSError) as error:
            return ListedRun(key, name, "unreadable", notes=(str(error),))

    def _now(self, row: ListedRun, path: Path) -> ListedRun:
        """Return `row` with what may have changed while its files have not."""
        if row.state == "unreadable":
            return row
        if row.state != "finished":
            row = replace(row, n=self._count(row, path / SAMPLES))
        if locked(path / SAMPLES):
            return replace(row, state="going")
        return replace(row, state="judging") if locked(path / JUDGEMENTS) else row

    def _count(self, row: ListedRun, path: Path) -> int:
        """Return how many lines a file of samples has, at most those selected; only what is new is read."""
        end, lines = self._counted.get(row.name, (0, 0))
        try:
            with open_read(path) as file:
                if os.fstat(file.fileno()).st_size < end:
                    end, lines = 0, 0
                file.seek(end)
                while chunk := file.read(_CHUNK):
                    end += len(chunk)
                    lines += chunk.count(b"\n")
        except FileNotFoundError:
            return 0
        self._counted[row.name] = end, lines
        return min(lines, row.selected)


def _name(key: str) -> str:
    return os.fsdecode(unquote_to_bytes(key))


def _changed(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _read(key: str, name: str, run: Run) -> ListedRun:
    """Return what run.json and results.json say."""
    try:
        record = run.record
        total = record.selected * record.samples
        row = ListedRun(key, name, "stopped", record.benchmark, record.model, record.created, selected=total)
        if not run.finished:
            return row
        results = run.results
    except RunError as error:
        return ListedRun(key, name, "unreadable", notes=(str(error),))
    notes = tuple(warnings(results))
    if results.judges is not None and not results.judges:
        notes += ("not judged yet",)
    return replace(row, state="finished", n=results.n, headline=headline(results), notes=notes)


def headline(results: Results) -> Headline | None:
    """Return the headline figure, or None where there is none yet (not judged)."""
    for reader, metrics in results.metrics.items():
        for metric, estimate in metrics.items():
            return Headline(reader, metric, estimate.value, estimate.low, estimate.high)
    return None
