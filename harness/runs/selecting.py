"""What people give for a run: its folder, a pattern of folders, or ``latest:`` a benchmark and a model."""

from __future__ import annotations

import glob
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.errors import RunError
from harness.runs.folder import RUN, SAMPLES, Run, begun
from harness.runs.judgements import JUDGEMENTS
from harness.runs.line_file import locked
from harness.runs.records import RunRecord

LATEST = "latest:"

#: Where ``latest:`` and patterns look for what is no path of its own.
RUNS = "runs"


def found_runs(word: str, folder: str | Path = RUNS) -> list[Path]:
    """Return the paths that `word` stands for; a path stands for itself, be there a run or not.

    A pattern (``runs/*/sft/*``) stands for all runs that fit; ``latest:gsm8k/sft`` for the newest finished one below
    that folder, and ``latest:*/sft`` for that of each folder that fits. Both are looked up below `folder` too. Raises
    RunError where nothing fits.
    """
    if word.startswith(LATEST):
        pattern = word.removeprefix(LATEST).strip("/") or "."
        return [latest([place]) for place in _places(pattern, folder, _holds_runs) or _none(word, folder)]
    if glob.has_magic(word) and not os.path.lexists(word):
        return _places(word, folder, _is_run) or _none(word, folder)
    return [Path(word)]


def one_run(word: str, folder: str | Path = RUNS) -> Path:
    """Return the one path that `word` stands for, as `found_runs` has them; RunError where it stands for several."""
    found = found_runs(word, folder)
    if len(found) > 1:
        raise RunError(f"{word} stands for {len(found)} runs, and one is taken here, such as {found[-1]}")
    return found[0]


def latest(paths: Sequence[Path]) -> Path:
    """Return the newest finished run at and below `paths`; RunError where nothing has finished."""
    return max(newest(paths), key=lambda path: Run(path).record.created)


def newest(paths: Sequence[Path]) -> list[Path]:
    """Return the newest finished run of each benchmark and model, of those at and below `paths`.

    They come in the order of `paths`, and below one of these by when the first of benchmark and model began. Raises
    RunError where nothing has finished.
    """
    found: dict[tuple[str, str], tuple[str, Path]] = {}
    for path in _finished(paths):
        record = Run(path).record
        key, one = (record.benchmark, record.model), (record.created, path)
        found[key] = max(found.get(key, one), one)
    return [path for _, path in found.values()]


def newest_comparable(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the same of those over the examples that most share, and a line on newer ones that are over others."""
    every = _finished(paths)
    other = _of_other_examples(every)
    kept = newest([path for path in every if path not in other])
    newer = [path for path in newest(every) if path not in kept]
    return kept, [left_out(newer, "of other examples than the runs beside them")] if newer else []


def _finished(paths: Sequence[Path]) -> list[Path]:
    """Return the finished runs at and below `paths`, in their order and by time; RunError where there is none."""
    found: list[Path] = []
    for place in paths:
        below = [path for path in _below(place) if Run(path).finished]
        found += sorted(below, key=lambda path: Run(path).record.created)
    if not found:
        where = ", ".join(map(str, paths))
        raise RunError(f"no run in {where} has finished; `harness runs` lists those that there are")
    return list(dict.fromkeys(found))


def _places(pattern: str, folder: str | Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """Return the folders that fit and are wanted, from here or below `folder`."""
    for where in (pattern, os.path.join(glob.escape(str(folder)), pattern)):
        if found := [path for path in map(Path, sorted(glob.glob(where))) if wanted(path)]:
            return found
    return []


def _is_run(path: Path) -> bool:
    return (path / RUN).is_file()


def _holds_runs(path: Path) -> bool:
    return next(_below(path), None) is not None


def _none(word: str, folder: str | Path) -> list[Path]:
    raise RunError(f"no run is {word}, here or in {folder}; `harness runs {folder}` lists those that there are")


def _below(place: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(place):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if RUN in files:
            folders.clear()
            yield Path(path)


def comparable(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return those of several runs that can stand beside each other, and a line on what is left out, by reason.

    Left out is what has not begun; of more than two runs what is unfinished; and where runs of a benchmark have other
    examples than most, such as another ``--limit``, those of models of which there is a run with the same.
    """
    kept, notes = begun(paths)
    finished = [path for path in kept if not _unfinished(path)]
    if 2 <= len(finished) < len(kept):
        notes.append(left_out([path for path in kept if path not in finished], "unfinished"))
        kept = finished
    other = _of_other_examples(kept)
    if other:
        notes.append(left_out(other, "of other examples than the runs beside them"))
    return [path for path in kept if path not in other], notes


def _unfinished(path: Path) -> bool:
    return (path / RUN).is_file() and not Run(path).finished


def left_out(paths: Sequence[Path], reason: str) -> str:
    """Say that runs are left out, and why, on one line."""
    are = "is" if len(paths) == 1 else "are"
    return f"{', '.join(map(str, paths))} {are} left out: {reason}"


def _of_other_examples(paths: Sequence[Path]) -> list[Path]:
    by_benchmark: dict[str, list[tuple[Path, RunRecord]]] = defaultdict(list)
    for path in paths:
        try:
            record = Run(path).record
        except RunError:  # is said by whoever reads it
            return []
        by_benchmark[record.benchmark].append((path, record))
    other = []
    for runs in by_benchmark.values():
        models = {(_examples(record), record.model) for _, record in runs}
        shared = Counter(examples for examples, _ in models)
        newest = {_examples(record): record.created for _, record in sorted(runs, key=lambda run: run[1].created)}
        most = max(shared, key=lambda examples: (shared[examples], newest[examples]))
        other += [path for path, run in runs if _examples(run) != most and (most, run.model) in models]
    return other


def _examples(record: RunRecord) -> tuple[int, int | None, int | None]:
    """Return what was selected; whether the same examples were asked alike is for those to say who pair them."""
    return record.selected, record.identity.limit, record.identity.seed


def remove(path: Path) -> None:
    """Remove a run's folder; RunError where it is none, or where a process is at work on it.

    It is no run any more as soon as the first file goes; what is killed in between leaves no half of one.
    """
    if path.is_symlink() or not (path / RUN).is_file():
        raise RunError(f"{path} is not a run folder; nothing is removed")
    if locked(path / SAMPLES) or locked(path / JUDGEMENTS):
        raise RunError(f"{path}: a process is at work on it; end that first")
    try:
        (path / RUN).unlink()
        shutil.rmtree(path)
    except OSError as error:
        raise RunError(f"cannot remove {error.filename or path}: {error.strerror}") from error
