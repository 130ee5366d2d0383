"""From samples to results.json: metrics with intervals, overall, by group and by category, and what went wrong."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterable, Mapping, Sequence
from math import inf, isnan
from typing import Any

from harness.interfaces import JudgedScorer, Scorer
from harness.types import Columns, Estimate, Judged, Sample, Scores

#: How many ids of unparsed, truncated and failed samples results.json lists; the count is always of all.
LISTED = 100

_NAN = float("nan")


class _Table:
    """Named columns of scores, filled row by row; a name that a row lacks is NaN there."""

    def __init__(self) -> None:
        self.columns: dict[str, array[float]] = {}
        self._rows = 0

    def add(self, scores: Scores) -> None:
        for name in scores:
            if name not in self.columns:
                self.columns[name] = array("d", [_NAN]) * self._rows
        for name, column in self.columns.items():
            column.append(scores.get(name, _NAN))
        self._rows += 1


class _Tables:
    """A table for each label (a group, a category) and parser."""

    def __init__(self, parsers: Sequence[str]) -> None:
        self._parsers = parsers
        self._by_label: dict[str, dict[str, _Table]] = {}

    def at(self, label: str) -> Mapping[str, _Table]:
        """Return the tables of one label by parser, new ones where there were none."""
        if label not in self._by_label:
            self._by_label[label] = {parser: _Table() for parser in self._parsers}
        return self._by_label[label]

    def of(self, parser: str) -> list[Columns]:
        """Return one parser's columns, a label each, in the labels' order."""
        return [tables[parser].columns for _, tables in sorted(self._by_label.items())]

    def as_json(self, scorer: Scorer) -> dict[str, Any]:
        return {
            label: {parser: as_json(scorer.summarise(table.columns)) for parser, table in tables.items()}
            for label, tables in sorted(self._by_label.items())
        }


class _Named:
    """A count and the first ids of some kind of sample."""

    def __init__(self) -> None:
        self.count = 0
        self.ids: list[str] = []

    def add(self, sample: Sample) -> None:
        self.count += 1
        if len(self.ids) < LISTED:
            self.ids.append(sample.id)

    def as_json(self) -> dict[str, Any]:
        return {"count": self.count, "ids": self.ids}


def summarise(benchmark: str, scorer: Scorer, samples: Iterable[Sample], parsers: Sequence[str]) -> dict[str, Any]:
    """Return the content of results.json.

    A sample that could not be parsed counts as wrong; one that an engine failed on is left out of every metric and
    counted beside them. The same samples give the same results, in whatever order and however often they were resumed.

    Where there are groups, a metric that is the mean of a score gets a macro average beside it, in which each group
    counts the same: ``accuracy`` and ``accuracy_macro``.
    """
    overall: dict[str, _Table] = {parser: _Table() for parser in parsers}
    groups, categories = _Tables(parsers), _Tables(parsers)
    named = {"unparsed": {parser: _Named() for parser in parsers}}
    truncated, failed = _Named(), _Named()
    tokens = {"prompt": 0, "completion": 0}
    total = 0
    for sample in samples:
        total += 1
        tokens["prompt"] += sample.prompt_tokens or 0
        tokens["completion"] += sample.completion_tokens or 0
        if sample.status == "engine_error":
            failed.add(sample)
            continue
        if sample.finish_reason == "length":
            truncated.add(sample)
        for parser in parsers:
            scores = sample.scores.get(parser, {})
            overall[parser].add(scores)
            if sample.group is not None:
                groups.at(sample.group)[parser].add(scores)
            if sample.category is not None:
                categories.at(sample.category)[parser].add(scores)
            if sample.answers.get(parser) is None:
                named["unparsed"][parser].add(sample)
    return {
        "benchmark": benchmark,
        "n": total,
        "metrics": {
            parser: as_json(_with_macro(scorer.summarise(table.columns), groups.of(parser)))
            for parser, table in overall.items()
        },
        "categories": categories.as_json(scorer),
        "groups": groups.as_json(scorer),
        "unparsed": {parser: ids.as_json() for parser, ids in named["unparsed"].items()},
        "truncated": truncated.as_json(),
        "failed": failed.as_json(),
        "tokens": tokens,
        **({"judges": {}} if scorer.judged else {}),
    }


def with_judgements(
    results: Mapping[str, Any],
    label: str,
    scorer: JudgedScorer,
    judged: Sequence[Judged],
    failed: Sequence[str],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return `results` with what a judge said, under its `label`.

    Unreadable judgements are counted, with their ids and the bounds of what they could have been; the ids in `failed`
    have no judgement and are left out of every metric. `facts` say who judged and how.
    """
    overall = _Table()
    groups, categories = _Tables([label]), _Tables([label])
    unreadable = _Named()
    verdicts = dict.fromkeys(scorer.verdicts, 0)
    for each in judged:
        scores = each.judgement.scores
        overall.add(scores)
        if each.sample.group is not None:
            groups.at(each.sample.group)[label].add(scores)
        if each.sample.category is not None:
            categories.at(each.sample.category)[label].add(scores)
        if each.judgement.verdict in verdicts:
            verdicts[each.judgement.verdict] += 1
        else:
            unreadable.add(each.sample)
    said = {
        **facts,
        "n": len(judged),
        "verdicts": verdicts,
        "unreadable": unreadable.as_json(),
        "failed": {"count": len(failed), "ids": list(failed[:LISTED])},
        **scorer.details(overall.columns),
    }
    return {
        **results,
        "metrics": {**results["metrics"], label: as_json(scorer.summarise(overall.columns))},
        "categories": _merged(results["categories"], categories.as_json(scorer)),
        "groups": _merged(results["groups"], groups.as_json(scorer)),
        "judges": {**results.get("judges", {}), label: said},
    }


def _merged(tables: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {**tables.get(name, {}), **more.get(name, {})} for name in sorted({*tables, *more})}


def _with_macro(estimates: Mapping[str, Estimate], groups: Sequence[Columns]) -> Mapping[str, Estimate]:
    """Return `estimates` with a macro average for each metric that is named like a column of scores."""
    from harness.statistics import macro_mean

    found = dict(estimates)
    for metric in estimates:
        values, labels = array("d"), array("q")
        for label, columns in enumerate(groups):
            known = [value for value in columns.get(metric, ()) if not isnan(value)]
            values.extend(known)
            labels.extend([label] * len(known))
        if len(set(labels)) > 1:
            proportions = min(values) >= 0 and max(values) <= 1
            found[f"{metric}_macro"] = macro_mean(values, labels, bounds=(0, 1) if proportions else (-inf, inf))
    return found


def as_json(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Return estimates as JSON data, in which what is not known (NaN) is null."""
    return {
        name: {k: None if isinstance(v, float) and isnan(v) else v for k, v in dataclasses.asdict(estimate).items()}
        for name, estimate in estimates.items()
    }
