"""Pick samples of a run by what became of them, by group, by id, by their text, or by what another run made of them."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.comparing.comparison import compare
from harness.errors import ConfigError, RunError, nearest
from harness.runs.columns import Recorded
from harness.runs.judgements import Verdict, each_verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

#: What becomes of a sample, whatever its scorer; other kinds are a judge's verdicts.
OUTCOMES = ("wrong", "unparsed", "disagreeing", "truncated", "failed", "differing-from-source")

#: Seconds that one text may take to search: some patterns take longer than a life.
_PATIENCE = 1.0


@dataclass(frozen=True)
class Wanted:
    """Which samples are wanted: of any of `kinds`, and in one of `groups`, and of `ids`, and with `pattern` in them.

    `kinds` are those of `Recorded.kinds`, as `parser` and `judge` read them. `groups` are groups or categories. `ids`
    are examples', or single samples' (``ID#3``). `pattern` is a regular expression to find in the prompt or the output.
    What is empty or None restricts nothing.
    """

    kinds: Collection[str] = ()
    groups: Collection[str] = ()
    ids: Collection[str] = ()
    pattern: str | None = None
    parser: str | None = None
    judge: str | None = None


def matching(run: Recorded, wanted: Wanted, flipped_in: Recorded | None = None) -> Ints:
    """Return the rows of the samples that are wanted, and, with `flipped_in`, right in one of the two runs alone.

    Raises ConfigError, with the nearest name, for a kind, group, id, parser or judge that the run does not have, and
    for a pattern that is none or takes too long; RunError for runs that cannot be compared.
    """
    _check(run, wanted)
    kinds = run.kinds(wanted.parser, wanted.judge)
    mask = np.ones(len(run), dtype=np.bool_)
    if wanted.kinds:
        mask = np.zeros(len(run), dtype=np.bool_)
        for kind in wanted.kinds:
            mask |= kinds.get(kind, mask)
    if wanted.groups:
        mask &= np.fromiter(
            (g in wanted.groups or c in wanted.groups for g, c in zip(run.groups, run.categories, strict=True)),
            dtype=np.bool_,
            count=len(run),
        )
    if wanted.ids:
        mask &= _among(run.ids, wanted.ids) | _among(run.keys, wanted.ids)
    if flipped_in is not None:
        mask &= _among(run.ids, flips(run, flipped_in, wanted.judge or wanted.parser))
    rows = np.flatnonzero(mask)
    return rows if wanted.pattern is None else _with_text(run, rows, wanted.pattern)


def flips(run: Recorded, other: Recorded, reader: str | None) -> set[str]:
    """Return the ids that are right in one run alone, as `reader` (by default the headline's) has read them.

    Of several samples an example, right are those that are so more often than not.
    """
    [compared] = compare([run, other]).benchmarks
    for metric in compared.metrics:
        if reader in (None, metric.reader):
            for difference in metric.against_baseline.values():
                return {*difference.gained, *difference.lost}
            raise RunError(f"{other.path}: no flips, as {metric.reason or f'it was not read by {metric.reader}'}")
    raise RunError(f"{other.path}: no flips, as nothing was scored in it and in {run.path}")


def draw(rows: Ints, count: int, seed: int) -> list[int]:
    """Return `count` of `rows` drawn at random, in their order; all of them if there are no more."""
    found = rows.tolist()
    return sorted(random.Random(seed).sample(found, count)) if count < len(found) else found


def said_about(run: Recorded, judge: str | None, ids: Collection[str]) -> dict[str, Verdict]:
    """Return by key what a judge, the first if None, said about the examples `ids`, with its words; {} if unjudged."""
    label = judge or next(iter(run.verdicts), None)
    if label is None:
        return {}
    return {verdict.key: verdict for verdict in each_verdict(run.path, label) if verdict.id in ids}


def _check(run: Recorded, wanted: Wanted) -> None:
    """Raise ConfigError for a name that the run does not have."""
    parsers, judges, path = run.record.parsers, run.verdicts, run.path
    if wanted.parser is not None and wanted.parser not in parsers:
        raise ConfigError(f"the run has no parser {wanted.parser!r}{nearest(wanted.parser, parsers)}")
    if wanted.judge is not None and wanted.judge not in judges:
        raise ConfigError(f"the run has no judge {wanted.judge!r}{nearest(wanted.judge, judges)}")
    if "differing-from-source" in wanted.kinds and run.source is None:
        raise ConfigError(f"--differing-from-source: {path} has nothing that a source of its outputs has read in them")
    _check_verdicts(run, [kind for kind in wanted.kinds if kind not in OUTCOMES])
    groups = {name for name in {*run.groups, *run.categories} if name is not None}
    for name in wanted.groups:
        if name not in groups:
            raise ConfigError(f"{path} has no group {name!r}{nearest(name, groups) or '; it has no groups'}")
    known = {*run.ids, *run.keys} if wanted.ids else ()
    for name in wanted.ids:
        if name not in known:
            like = f"; ids are like {run.ids[0]!r}" if len(run) else ""
            raise ConfigError(f"{path} has no sample {name!r}{like}")


def _check_verdicts(run: Recorded, asked: Sequence[str]) -> None:
    """Raise ConfigError for a verdict that no judge of the run could have given."""
    if asked and not run.verdicts:
        cannot = f"no sample can be {' or '.join(asked)}: {run.path}"
        if run.summed_up is not None and run.summed_up.judges is None:
            raise ConfigError(f"{cannot} is a run of {run.benchmark}, which no judge is asked about")
        raise ConfigError(f"{cannot} has not been judged (harness judge {run.path} --judge MODEL)")
    judged = {} if run.summed_up is None else run.summed_up.judged
    known = [*OUTCOMES, "unreadable", *(verdict for each in judged.values() for verdict in each.verdicts)]
    for verdict in asked:
        if verdict not in known:
            raise ConfigError(f"--{verdict}: no sample of {run.path} can be that{nearest(verdict, known)}")


def _among(ids: Sequence[str], wanted: Collection[str]) -> Bools:
    return np.fromiter((identifier in wanted for identifier in ids), dtype=np.bool_, count=len(ids))


def _with_text(run: Recorded, rows: Ints, pattern: str) -> Ints:
    """Return those of `rows` in whose prompt or output the pattern is found; texts are read one by one."""
    import regex

    try:
        found = regex.compile(pattern, regex.V0)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"--grep {pattern!r} is no regular expression: {error}") from error
    try:
        return np.array(
            [
                row
                for row, text in zip(rows.tolist(), run.texts(rows), strict=True)
                if found.search(text.prompt, timeout=_PATIENCE) or found.search(text.output, timeout=_PATIENCE)
            ],
            dtype=np.int64,
        )
    except TimeoutError as error:
        raise ConfigError(f"--grep {pattern!r} takes too long; repeat nothing that is repeated, as in (a+)+") from error
