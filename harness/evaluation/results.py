"""From samples to results.json: metrics with intervals, overall, by group and by category, and what went wrong."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from harness import types
from harness.calls import estimates_of
from harness.interfaces import JudgedScorer, Scorer
from harness.parsers import is_thought_only
from harness.runs.records import (
    Count,
    Estimate,
    Failures,
    JudgedBy,
    JudgeRecord,
    Metrics,
    MetricsByReader,
    Reason,
    Results,
    Variance,
)
from harness.statistics import GroupsAre, clustered_mean, groups_are_sampled, macro_mean, mean
from harness.types import Columns, Judged, Sample, Scores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: How many ids of unparsed, truncated and failed samples results.json lists; the count is always of all.
LISTED = 100

_NAN = float("nan")


class _Table:
    """Named columns of scores, a row a sample, in the benchmark's order; a name that a row lacks is NaN there.

    `groups` are the rows' groups, `indices` their examples', `repeats` which of an example's samples they are, `votes`
    the numbers of their answers; `finished` marks those that were not cut off in their thoughts.
    """

    def __init__(self) -> None:
        self.columns: dict[str, array[float]] = {}
        self.groups: list[str | None] = []
        self.indices, self.repeats, self.votes = array("q"), array("q"), array("q")
        self.finished = bytearray()
        self._answers: dict[str, int] = {}

    def add(self, scores: Scores, sample: Sample, answer: str | None = None) -> None:
        for name in scores:
            if name not in self.columns:
                self.columns[name] = array("d", [_NAN]) * len(self.groups)
        for name, column in self.columns.items():
            column.append(scores.get(name, _NAN))
        self.groups.append(sample.group)
        self.indices.append(sample.index)
        self.repeats.append(sample.repeat)
        self.finished.append(not _is_cut_thinking(sample))
        self.votes.append(-1 if answer is None else self._answers.setdefault(answer, len(self._answers)))

    def sampled(self, groups_are: GroupsAre) -> bool:
        """Whether its groups are taken as a sample."""
        return None not in self.groups and groups_are_sampled(len(set(self.groups)), groups_are)


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

    def metrics(self, scorer: Scorer, samples: int, *, sampled: bool) -> dict[str, MetricsByReader]:
        """Return label → parser → metric → estimate; `sampled` says whether groups are taken as a sample."""
        return {
            label: {parser: recorded(_figures(scorer, table, samples, sampled)) for parser, table in tables.items()}
            for label, tables in sorted(self._by_label.items())
        }


class _Counting:
    """Counts samples of some kind, and notes the first ids."""

    def __init__(self) -> None:
        self.count = 0
        self.ids: list[str] = []

    def add(self, sample: Sample) -> None:
        self.count += 1
        if len(self.ids) < LISTED:
            self.ids.append(sample.key)

    def counted(self) -> Count:
        return Count(count=self.count, ids=self.ids)


def _is_cut_thinking(sample: Sample) -> bool:
    """Whether a sample was cut off in its thoughts, so that it has not answered."""
    if sample.finish_reason != "length":
        return False
    opened_by_prompt = sample.thought_tokens is not None and sample.thought_tokens == sample.completion_tokens
    return opened_by_prompt or is_thought_only(sample.output)


#: The most frequent reasons of failures, so many, are kept.
_REASONS = 3


class _Failing:
    """Counts samples that failed, by the reason; errors that differ in numbers and the sample's id alone are alike."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._count = 0
        self._reasons: dict[str, tuple[int, str, str]] = {}

    def add(self, identifier: str, error: str | None) -> None:
        self._count += 1
        if len(self._ids) < LISTED:
            self._ids.append(identifier)
        reason = error or "no reason given"
        kind = re.sub(r"\d[\d.,]*", "0", reason.replace(repr(identifier), ""))
        count, first, example = self._reasons.get(kind, (0, reason, identifier))
        self._reasons[kind] = count + 1, first, example

    def counted(self) -> Failures:
        often = sorted(self._reasons.values(), key=lambda each: -each[0])[:_REASONS]
        reasons = [Reason(reason=reason, count=count, id=example) for count, reason, example in often]
        return Failures(count=self._count, ids=self._ids, reasons=reasons)


class _Counts:
    """What goes wrong in samples, and how long they are."""

    def __init__(self, parsers: Sequence[str]) -> None:
        self._unparsed = {parser: _Counting() for parser in parsers}
        self._disagreeing = {parser: _Counting() for parser in parsers}
        self._truncated, self._failed, self._thoughts = _Counting(), _Failing(), _Counting()
        self._cut_thinking = _Counting()
        self._total = self._prompt_tokens = self._completion_tokens = self._unknown_ends = self._thought_tokens = 0

    def add(self, sample: Sample) -> None:
        self._total += 1
        self._prompt_tokens += sample.prompt_tokens or 0
        self._completion_tokens += sample.completion_tokens or 0
        self._thought_tokens += sample.thought_tokens or 0
        if sample.status == "engine_error":
            self._failed.add(sample.key, sample.error)
            return
        self._unknown_ends += sample.finish_reason is None
        if sample.finish_reason == "length":
            self._truncated.add(sample)
        if _is_cut_thinking(sample):
            self._cut_thinking.add(sample)
        elif is_thought_only(sample.output):
            self._thoughts.add(sample)
        for parser, unparsed in self._unparsed.items():
            if sample.answers.get(parser) is None:
                unparsed.add(sample)
            if parser in sample.disagreeing:
                self._disagreeing[parser].add(sample)

    def counted(self) -> dict[str, Any]:
        """Return what results.json says of them, by its names."""
        return {
            "n": self._total,
            "unparsed": {parser: each.counted() for parser, each in self._unparsed.items()},
            "disagreeing": {parser: each.counted() for parser, each in self._disagreeing.items() if each.count},
            "truncated": self._truncated.counted(),
            "thoughts": self._thoughts.counted() if self._thoughts.count else None,
            "cut_thinking": self._cut_thinking.counted() if self._cut_thinking.count else None,
            "unknown_ends": self._unknown_ends,
            "failed": self._failed.counted(),
            "tokens": {
                "prompt": self._prompt_tokens,
                "completion": self._completion_tokens,
                **({"thought": self._thought_tokens} if self._thought_tokens else {}),
            },
        }


def summarise(
    benchmark: str,
    scorer: Scorer,
    samples: Iterable[Sample],
    parsers: Sequence[str],
    groups_are: GroupsAre = "auto",
    several: int = 1,
) -> Results:
    """Return what results.json is to say of samples that come in the benchmark's order, `several` of each example.

    A sample that could not be parsed counts as wrong; one that an engine failed on is left out of every metric and
    counted beside them. The same samples give the same results, in whatever order and however often they were resumed.

    Where there are groups, a metric that is the mean of a score gets a macro average beside it, in which each group
    counts the same: ``accuracy`` and ``accuracy_macro``. Where the groups are taken as a sample, which `groups_are`
    decides, the interval of each metric that is a mean over samples is by groups.

    Of several samples an example, the example's mean over them is what counts, in each figure and interval. What one,
    some or all of them achieve stands beside it: ``pass@k``, ``pass^K``, ``maj@K`` (`harness.evaluation.repeats`).

    Where samples were cut off in their thoughts, ``accuracy_finished`` is of the others alone.
    """
    overall: dict[str, _Table] = {parser: _Table() for parser in parsers}
    groups, categories = _Tables(parsers), _Tables(parsers)
    counts = _Counts(parsers)
    for sample in samples:
        counts.add(sample)
        if sample.status == "engine_error":
            continue
        for parser in parsers:
            scores = sample.scores.get(parser, {})
            overall[parser].add(scores, sample, sample.answers.get(parser) if several > 1 else None)
            if sample.group is not None:
                groups.at(sample.group)[parser].add(scores, sample)
            if sample.category is not None:
                categories.at(sample.category)[parser].add(scores, sample)
    sampled = any(table.sampled(groups_are) for table in overall.values())
    return Results(
        benchmark=benchmark,
        samples=several,
        metrics={
            parser: recorded(_figures(scorer, table, several, sampled, overall=True))
            for parser, table in overall.items()
        },
        variance=_variances(scorer, overall, several),
        categories=categories.metrics(scorer, several, sampled=sampled),
        groups=groups.metrics(scorer, several, sampled=sampled),
        judges={} if scorer.judged else None,
        **counts.counted(),
    )


def with_judgements(
    results: Results,
    label: str,
    scorer: JudgedScorer,
    judged: Sequence[Judged],
    failed: Sequence[tuple[Sample, str]],
    by: JudgedBy,
    groups_are: GroupsAre = "auto",
) -> Results:
    """Return `results` with what a judge said, under its `label`.

    Unreadable judgements are counted, with their ids and the bounds of what they could have been; the samples in
    `failed` have no judgement, for the reason there, and are left out of every metric. `by` says who judged,
    `groups_are` is as in `summarise`.
    """
    overall = _Table()
    groups, categories = _Tables([label]), _Tables([label])
    unreadable = _Counting()
    verdicts = dict.fromkeys(scorer.verdicts, 0)
    failing = _Failing()
    for sample, reason in failed:
        failing.add(sample.key, reason)
    for each in judged:
        scores, sample = each.judgement.scores, each.sample
        overall.add(scores, sample)
        if sample.group is not None:
            groups.at(sample.group)[label].add(scores, sample)
        if sample.category is not None:
            categories.at(sample.category)[label].add(scores, sample)
        if each.judgement.verdict in verdicts:
            verdicts[each.judgement.verdict] += 1
        else:
            unreadable.add(each.sample)
    several = results.samples
    said = JudgeRecord(
        **msgspec.structs.asdict(by),
        n=len(judged),
        verdicts=verdicts,
        unreadable=unreadable.counted(),
        failed=failing.counted(),
        details=_details(scorer, overall, several),
    )
    sampled = overall.sampled(groups_are)
    return msgspec.structs.replace(
        results,
        metrics={**results.metrics, label: recorded(_figures(scorer, overall, several, sampled, overall=True))},
        variance={**results.variance, **_variances(scorer, {label: overall}, several)},
        categories=_merged(results.categories, categories.metrics(scorer, several, sampled=sampled)),
        groups=_merged(results.groups, groups.metrics(scorer, several, sampled=sampled)),
        judges={**results.judged, label: said},
    )


def _merged(tables: Mapping[str, MetricsByReader], more: Mapping[str, MetricsByReader]) -> dict[str, MetricsByReader]:
    return {name: {**tables.get(name, {}), **more.get(name, {})} for name in sorted({*tables, *more})}


def _figures(
    scorer: Scorer, table: _Table, samples: int, sampled: bool, overall: bool = False
) -> Mapping[str, types.Estimate]:
    """Return a table's metrics: means are over examples, and have the inference by groups where these are `sampled`.

    `overall` adds macro averages, which only what is named like a column of scores has, and nothing that a judge said,
    and what some and all samples of an example achieve.
    """
    found = dict(estimates_of(scorer, table.columns))
    macro = overall and not scorer.judged
    grouped = None not in table.groups and len(set(table.groups)) > 1
    unfinished = macro and not all(table.finished)
    if (samples == 1 and not (grouped and (sampled or macro)) and not unfinished) or not table.groups:
        return found
    import numpy as np

    from harness.evaluation.by_sample import range_of
    from harness.evaluation.repeats import averaged, example_means, of_right_and_wrong, right_among
    from harness.runs.columns import numbered

    numbers: dict[str | None, int] = {}
    labels = np.array([numbers.setdefault(group, len(numbers)) for group in table.groups], dtype=np.int64)
    examples = numbered(np.frombuffer(table.indices, dtype=np.int64)) if samples > 1 else np.arange(len(labels))
    labels = labels[np.diff(examples, prepend=-1) > 0]
    by_metric = _means(scorer, table, found)
    if samples > 1:
        over_repeats = averaged([estimates_of(scorer, columns) for columns in _by_repeat(table, samples)])
        found = {metric: over_repeats[metric] for metric in found}

    def inferred(values: Floats, *, macro: bool = False) -> types.Estimate:
        known = ~np.isnan(values)
        values, groups = values[known], labels[known]
        bounds = range_of(values)
        if macro:
            return macro_mean(values, groups, bounds=bounds, sampled=sampled)
        return clustered_mean(values, groups, bounds=bounds) if sampled and grouped else mean(values, bounds=bounds)

    for metric, values in by_metric.items():
        means = example_means(values, examples)
        known = labels[~np.isnan(means)]
        if samples > 1 or (sampled and len(known)):
            found[metric] = inferred(means)
        if unfinished and metric in table.columns and np.frombuffer(table.finished, dtype=np.bool_).any():
            finished = np.where(np.frombuffer(table.finished, dtype=np.bool_), values, np.nan)
            found[f"{metric}_finished"] = inferred(example_means(finished, examples))
        if macro and grouped and metric in table.columns and len(np.unique(known)) > 1:
            found[f"{metric}_macro"] = inferred(means, macro=True)
    if overall and samples > 1 and (right := of_right_and_wrong(by_metric)) is not None:
        votes = None if scorer.judged else np.frombuffer(table.votes, dtype=np.int64)
        for metric, values in right_among(right, examples, samples, votes).items():
            found[metric] = inferred(values)
    return found


def _means(scorer: Scorer, table: _Table, found: Mapping[str, types.Estimate]) -> Mapping[str, Floats]:
    """Return metric → a value a row, of those that `found` has and that are means over rows."""
    import numpy as np

    from harness.evaluation.by_sample import by_sample, is_mean

    columns = {name: np.frombuffer(column) for name, column in table.columns.items()}
    return {
        metric: values
        for metric, values in by_sample(columns, np.arange(len(table.groups)), scorer).items()
        if metric in found and is_mean(values, found[metric].value, found[metric].n)
    }


def _by_repeat(table: _Table, samples: int) -> list[Columns]:
    """Return the columns of each repeat alone, of which there is something."""
    import numpy as np

    repeats = np.frombuffer(table.repeats, dtype=np.int64)
    masks = [repeats == repeat for repeat in range(samples)]
    return [
        {name: array("d", np.frombuffer(column)[mask].tobytes()) for name, column in table.columns.items()}
        for mask in masks
        if mask.any()
    ]


def _details(scorer: JudgedScorer, table: _Table, samples: int) -> dict[str, Any]:
    """Return a scorer's details, of several samples an example the mean over repeats, as one repeat's are meant."""
    if samples == 1 or not table.groups:
        return dict(scorer.details(table.columns))
    from harness.evaluation.repeats import averaged_details

    return dict(averaged_details([scorer.details(columns) for columns in _by_repeat(table, samples)]))


def _variances(scorer: Scorer, tables: Mapping[str, _Table], samples: int) -> dict[str, Variance]:
    """Return reader → where the variance of its first metric lies that is a mean, of several samples an example."""
    found = {}
    for reader, table in tables.items():
        if samples == 1 or not table.groups:
            continue
        import numpy as np

        from harness.evaluation.repeats import variance_of
        from harness.runs.columns import numbered

        values = next(iter(_means(scorer, table, estimates_of(scorer, table.columns)).values()), None)
        examples = numbered(np.frombuffer(table.indices, dtype=np.int64))
        if values is not None and (variance := variance_of(values, examples, samples)) is not None:
            found[reader] = Variance.of(variance)
    return found


def recorded(estimates: Mapping[str, types.Estimate]) -> Metrics:
    """Return a reader's estimates as results.json has them, in which what is not known (NaN) is null."""
    return {metric: Estimate.of(estimate) for metric, estimate in estimates.items()}
