"""The list as it is asked for: filtered by words and state, sorted by a column, in groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from harness.reports.view.folder import ListedRun

#: Columns in their order on the page: what ``sort`` calls them → their heads and what they are sorted by.
COLUMNS: Mapping[str, tuple[str, Callable[[ListedRun], Any]]] = {
    "benchmark": ("Benchmark", lambda row: row.benchmark),
    "model": ("Model", lambda row: row.model),
    "created": ("Begun (UTC)", lambda row: row.created),
    "state": ("Status", lambda row: row.state),
    "n": ("Samples", lambda row: row.n),
    "value": ("Headline metric", lambda row: _value(row)),
}

#: What ``group`` may be → the heading of a row's group.
GROUPS: Mapping[str, Callable[[ListedRun], str]] = {
    "benchmark": lambda row: row.benchmark,
    "model": lambda row: row.model,
    "none": lambda row: "",
}

_STATES = ("finished", "going", "judging", "stopped", "unreadable")


@dataclass(frozen=True)
class Listing:
    """What the list shows: groups of rows by heading, how many of `total` runs, and the choices that led to it.

    `sort` is a column's name, with ``-`` in front for the greatest first.
    """

    groups: Sequence[tuple[str, Sequence[ListedRun]]]
    shown: int
    total: int
    words: str
    state: str
    group: str
    sort: str
    states: Sequence[str]

    def turned(self, column: str) -> str:
        """Return what `sort` is to be when the head of `column` is pressed: that column, or the other way round."""
        if self.sort.removeprefix("-") != column:
            return f"-{column}" if column in ("created", "n", "value") else column
        return column if self.sort.startswith("-") else f"-{column}"

    def order(self, column: str) -> str:
        """Return the value of ``aria-sort`` for a column."""
        if self.sort.removeprefix("-") != column:
            return "none"
        return "descending" if self.sort.startswith("-") else "ascending"


def listing(rows: Sequence[ListedRun], asked: Mapping[str, str]) -> Listing:
    """Return the list that the query parameters q, state, group and sort ask for; what they must not be is ignored."""
    words, state = asked.get("q", "").strip(), asked.get("state", "")
    group = asked.get("group", "") if asked.get("group") in GROUPS else "benchmark"
    sort = asked.get("sort", "")
    sort = sort if sort.removeprefix("-") in COLUMNS else "-created"
    kept = [row for row in rows if state in ("", row.state) and _has(row, words)]
    key = COLUMNS[sort.removeprefix("-")][1]
    kept.sort(key=key, reverse=sort.startswith("-"))
    kept.sort(key=lambda row: (row.state == "unreadable", GROUPS[group](row)))  # as sorted before within a group
    grouped = [(name, list(each)) for name, each in groupby(kept, key=GROUPS[group])]
    states = [each for each in _STATES if any(row.state == each for row in rows)]
    return Listing(grouped, len(kept), len(rows), words, state, group, sort, states)


def _has(row: ListedRun, words: str) -> bool:
    """Whether every word stands somewhere in what the row says."""
    figure = [row.headline.reader, row.headline.metric] if row.headline else []
    text = " ".join([row.name, row.benchmark, row.model, row.created, row.state, *figure, *row.notes]).lower()
    return all(word in text for word in words.lower().split())


def _value(row: ListedRun) -> float:
    value = row.headline.value if row.headline else None
    return -1.0 if value is None else value
