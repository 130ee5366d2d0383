"""Two and more runs of the same examples, compared example by example, whatever number of samples each has of one.

The first run of a benchmark is the baseline. Figures are differences of paired scores: examples are aligned by id, and
one that the engine or the judge failed on in either run is left out of that pair. Interval and p-value come from one
inference (`harness.statistics.paired_difference`), by groups where these are taken as a sample. The p-values of the
benchmarks' headline metrics are adjusted for each other by Holm, which only raises them: where a verdict is given, the
interval leaves no difference out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.comparing.facts import Facts, contaminated, engine_of, facts_of, format_of
from harness.comparing.pairing import aligned, example_ids
from harness.comparing.per_sample import MACRO, per_example
from harness.errors import ConfigError, RunError, nearest
from harness.evaluation.by_sample import range_of
from harness.evaluation.repeats import OF_SEVERAL
from harness.interfaces import Scorer
from harness.registry import Registry
from harness.runs import records
from harness.runs.columns import Recorded
from harness.runs.judgements import without_address
from harness.runs.records import JudgeRecord
from harness.statistics import (
    GroupsAre,
    clustered_mean,
    groups_are_sampled,
    holm,
    macro_mean,
    mean,
    paired_difference,
)
from harness.types import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: Below this, an adjusted p-value is a finding.
ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """What `run` gains over `against` on one metric, both labels of runs.

    `estimate` is over the examples that both have a score for, of which `differing` have two different ones; `left_out`
    counts the others. `detectable` is the smallest true difference that as many, as different as these, would show with
    80% power. `p` is two-sided, of the same inference as the interval, for the first metric of each reader, which the
    others restate. `adjusted` is p by Holm, for the benchmarks' headlines alone, over all of them in the comparison.
    `gained` and `lost` are the ids that turned right and wrong (of scores between 0 and 1: those that rose above one
    half, and fell from there), of every metric.
    """

    run: str
    against: str
    estimate: Estimate
    detectable: float
    differing: int
    left_out: int
    p: float | None = None
    adjusted: float | None = None
    gained: Sequence[str] = ()
    lost: Sequence[str] = ()

    @property
    def verdict(self) -> Literal["better", "worse", "level", ""]:
        """What may be said of it: ``level`` is not told from chance, nothing is said of what is no headline."""
        if self.adjusted is None:
            return ""
        if self.adjusted >= ALPHA:
            return "level"
        return "better" if self.estimate.value > 0 else "worse"


@dataclass(frozen=True)
class Metric:
    """One metric of one benchmark: each run's own figure, by label, and the differences.

    `values` are those of the runs' results, None for a run that lacks the metric. `reason` says why there are no
    differences.
    """

    reader: str
    name: str
    values: Mapping[str, records.Estimate | None]
    against_baseline: Mapping[str, Difference] = field(default_factory=dict)
    against_previous: Mapping[str, Difference] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True)
class BenchmarkComparison:
    """The runs of one benchmark: `facts` by label in the order given, the first being the baseline.

    `groups` counts the groups of examples where these are taken as a sample, else it is None. `contaminated` counts
    examples that were left out because a model was trained on them, None where that was not asked for.
    """

    benchmark: str
    examples: int
    groups: int | None
    facts: Mapping[str, Facts]
    metrics: Sequence[Metric]
    contaminated: int | None = None

    @property
    def baseline(self) -> str:
        """The label of the first run."""
        return next(iter(self.facts))

    @property
    def headline(self) -> Metric | None:
        """The metric that stands for the benchmark: the first; None where nothing was scored."""
        return self.metrics[0] if self.metrics else None

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON data, in which what is not known is null."""
        headline = self.headline and {"reader": self.headline.reader, "name": self.headline.name}
        content: dict[str, Any] = _plain({**_fields(self), "baseline": self.baseline, "headline": headline})
        return content


@dataclass(frozen=True)
class Comparison:
    """All runs by benchmark; `labels` are the runs' columns, the same for the same model in each benchmark.

    `tests` counts the p-values that were adjusted for each other.
    """

    labels: Sequence[str]
    benchmarks: Sequence[BenchmarkComparison]
    tests: int

    def alignment_tax(self) -> Mapping[str, Mapping[str, Difference]]:
        """Return benchmark → label → the headline's difference to the first of `labels`; a loss is the tax.

        Benchmarks that have another baseline are left out.
        """
        return {
            each.benchmark: each.headline.against_baseline
            for each in self.benchmarks
            if each.headline is not None and each.headline.against_baseline and each.baseline == self.labels[0]
        }

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON data, in which what is not known is null."""
        tax = {
            benchmark: {label: _tax(difference) for label, difference in by_label.items()}
            for benchmark, by_label in self.alignment_tax().items()
        }
        benchmarks = [each.as_json() for each in self.benchmarks]
        return {**_plain({**_fields(self), "benchmarks": benchmarks}), "alignment_tax": tax}


def _tax(difference: Difference) -> dict[str, float | None]:
    estimate = difference.estimate
    figures = {"value": -estimate.value, "low": -estimate.high, "high": -estimate.low, "adjusted": difference.adjusted}
    return {name: None if value is None or math.isnan(value) else value + 0.0 for name, value in figures.items()}


def compare(
    runs: Sequence[Recorded],
    *,
    metrics: Sequence[str] = (),
    groups_are: GroupsAre | None = None,
    registry: Registry | None = None,
    without_contaminated: bool = False,
) -> Comparison:
    """Compare finished runs; those of one benchmark with the first of it. `metrics` are names to restrict it to.

    `groups_are` says whether groups are a sample or the whole; None is what the first run of a benchmark was made with.
    Scorers come from `registry`, by default that of what is installed. `without_contaminated` leaves out the examples
    that one of a benchmark's models was trained on, as its run records it.

    Raises RunError for runs that cannot be compared (unfinished, other examples, nothing in common) and ConfigError for
    a metric that none has.
    """
    by_benchmark: dict[str, list[Recorded]] = {}
    for run in runs:
        by_benchmark.setdefault(run.benchmark, []).append(run)
    if all(len(group) < 2 for group in by_benchmark.values()):
        names = ", ".join(by_benchmark) or "no run"
        raise RunError(f"nothing to compare: no two runs are of the same benchmark ({names})")
    _check(runs, metrics)
    registry = registry or Registry()
    found = [
        _Paired(group, labels(group, runs), registry, groups_are, without_contaminated).compare(metrics)
        for group in by_benchmark.values()
    ]
    adjusted, tests = _adjusted(found)
    columns = tuple(dict.fromkeys(label for each in adjusted for label in each.facts))
    return Comparison(columns, adjusted, tests)


def _check(runs: Sequence[Recorded], metrics: Sequence[str]) -> None:
    known: set[str] = set()
    for run in runs:
        known.update(name for metrics in run.results.metrics.values() for name in metrics)
    for name in metrics:
        if name not in known:
            raise ConfigError(f"no run has a metric {name!r}{nearest(name, known)}")


class _Paired:
    """The runs of one benchmark by label, their rows brought into the baseline's order."""

    def __init__(
        self,
        runs: Sequence[Recorded],
        columns: Sequence[str],
        registry: Registry,
        groups_are: GroupsAre | None,
        without_contaminated: bool,
    ) -> None:
        self._baseline = runs[0]
        self._runs = dict(zip(columns, runs, strict=True))
        self._order = {label: aligned(runs[0], run) for label, run in self._runs.items()}
        self._scorer: Scorer = registry.scorer(runs[0].record.scorer)
        numbers: dict[str | None, int] = {}
        groups = [numbers.setdefault(group, len(numbers)) for group in runs[0].groups]
        self._groups = np.array(groups, dtype=np.int64)[runs[0].first_rows]
        self._ids = np.array(example_ids(runs[0]), dtype=object)
        self._grouped = bool(numbers) and None not in numbers
        choice = groups_are or runs[0].record.command.groups_are
        self._sampled = self._grouped and groups_are_sampled(len(numbers), choice)
        self._count = len(numbers)
        self._left_out = self._leave_out(contaminated(runs)) if without_contaminated else None

    def _leave_out(self, ids: Collection[str]) -> int:
        """Go on without these examples, and return how many they are."""
        kept = np.array([identifier not in ids for identifier in self._ids], dtype=np.bool_)
        if not kept.any():
            raise RunError(f"{self._baseline.benchmark}: all examples are contaminated; nothing is left to compare")
        self._order = {label: order[kept] for label, order in self._order.items()}
        self._groups, self._ids = self._groups[kept], self._ids[kept]
        return int((~kept).sum())

    def compare(self, metrics: Sequence[str]) -> BenchmarkComparison:
        """Return all metrics that a run has, or those named; readers that all runs share come first."""
        readers = dict.fromkeys(reader for run in self._runs.values() for reader in run.results.metrics)
        shared = sorted(readers, key=lambda name: not all(name in run.results.metrics for run in self._runs.values()))
        found = [metric for reader in shared for metric in self._reader(reader, metrics)]
        facts = {label: facts_of(run, self._baseline) for label, run in self._runs.items()}
        groups = self._count if self._sampled else None
        return BenchmarkComparison(
            self._baseline.benchmark, len(self._ids), groups, facts, tuple(found), self._left_out
        )

    def _reader(self, reader: str, wanted: Sequence[str]) -> list[Metric]:
        """Return the metrics of one parser or judge; the first of them is tested."""
        figures = {label: run.results.metrics.get(reader, {}) for label, run in self._runs.items()}
        names = list(dict.fromkeys(name for each in figures.values() for name in each))
        scores = {
            label: {name: column[self._order[label]] for name, column in per_example(run, reader, self._scorer).items()}
            for label, run in self._runs.items()
        }
        found = []
        for name in names:
            if wanted and name not in wanted:
                continue
            macro = name.endswith(MACRO) and self._grouped
            columns = {label: each.get(name.removesuffix(MACRO) if macro else name) for label, each in scores.items()}
            own = {label: self._own(label, figures[label].get(name), columns[label], macro) for label in self._runs}
            metric = Metric(reader, name, own)
            found.append(self._with_differences(metric, columns, macro=macro, tested=name == names[0]))
        return found

    def _own(
        self, label: str, recorded: records.Estimate | None, column: Floats | None, macro: bool
    ) -> records.Estimate | None:
        """Return a run's own figure of these examples, with groups taken as they are here.

        It is the recorded one where that is no other; None where it is no mean over the examples that are left.
        """
        made = self._runs[label].record.command.groups_are
        if recorded is None or column is None:
            return None if self._left_out else recorded
        if not self._left_out and groups_are_sampled(self._count, made) == self._sampled:
            return recorded
        known = ~np.isnan(column)
        values, groups = column[known], self._groups[known]
        if not len(values) or not (self._grouped or self._left_out):
            return None if self._left_out else recorded
        bounds = range_of(values)
        if not self._grouped:
            return records.Estimate.of(mean(values, bounds=bounds))
        if macro:
            return records.Estimate.of(macro_mean(values, groups, bounds=bounds, sampled=self._sampled))
        found = clustered_mean(values, groups, bounds=bounds) if self._sampled else mean(values, bounds=bounds)
        return records.Estimate.of(found)

    def _with_differences(
        self, metric: Metric, columns: Mapping[str, Floats | None], *, macro: bool, tested: bool
    ) -> Metric:
        order = list(columns)
        to_baseline: dict[str, Difference] = {}
        to_previous: dict[str, Difference] = {}
        reasons: dict[str, None] = {}
        for place, label in enumerate(order[1:], start=1):
            for other, found in ((order[0], to_baseline), (order[place - 1], to_previous)):
                first, second = columns[other], columns[label]
                if place == 1 and found is to_previous:  # the one before it is the baseline
                    continue
                if self._judged_otherwise(metric.reader, other, label):
                    reasons[f"{other} and {label} were judged in different ways"] = None
                elif first is not None and second is not None:
                    found[label] = self._difference(label, other, (first, second), macro=macro, tested=tested)
                else:
                    reasons.update(dict.fromkeys(self._why_unpaired(metric, other, label)))
        return dataclasses.replace(
            metric, against_baseline=to_baseline, against_previous=to_previous, reason="; ".join(reasons) or None
        )

    def _judged_otherwise(self, reader: str, *labels: str) -> bool:
        said = [self._runs[label].results.judged.get(reader) for label in labels]
        ways = [None if each is None else _way(each) for each in said]
        return None not in ways and any(way != ways[0] for way in ways)

    def _why_unpaired(self, metric: Metric, *labels: str) -> Iterator[str]:
        """Yield why there is no difference on a metric where one of two runs has no score a sample."""
        figures = {label: metric.values[label] for label in labels}
        for label, each in figures.items():
            if each is None and not OF_SEVERAL.match(metric.name):  # of which not every number of samples has each
                judges = {name for run in self._runs.values() for name in run.results.judged}
                yield f"{label} was not {'judged' if metric.reader in judges else 'read'} by {metric.reader}"
            elif each is not None and each.n == 0:
                yield f"nothing of {label} could be scored"
        if all(each is not None and each.n for each in figures.values()):
            yield "it is no mean over samples"

    def _difference(
        self, run: str, against: str, columns: tuple[Floats, Floats], *, macro: bool, tested: bool
    ) -> Difference:
        both = ~np.isnan(columns[0] + columns[1])
        first, second = (column[both] for column in columns)
        ids = self._ids[both]
        gained, lost = (first <= 0.5) & (second > 0.5), (first > 0.5) & (second <= 0.5)
        inferred = paired_difference(
            first,
            second,
            bounds=range_of(np.concatenate([first, second])),
            groups=self._groups[both] if self._grouped else None,
            sampled=self._sampled,
            macro=macro,
        )
        return Difference(
            run,
            against,
            inferred.estimate,
            inferred.detectable,
            int((first != second).sum()),
            int(len(both) - both.sum()),
            p=inferred.p if tested and not math.isnan(inferred.p) else None,
            gained=tuple(ids[gained]),
            lost=tuple(ids[lost]),
        )


def _way(said: JudgeRecord) -> tuple[object, ...]:
    """Return what must be the same for a judge's verdicts on two runs to be compared.

    Recorded replies lie in a file for each run, whose digest says nothing about who replied: their judge goes by label.
    """
    model = None if said.engine == "replay" else without_address(said.model)
    return said.engine, said.prompt_format, said.chat_template, said.scorer, said.options, said.inputs, model


def labels(runs: Sequence[Recorded], among: Sequence[Recorded] = ()) -> list[str]:
    """Return a label for each run of a benchmark: the model's name, with what tells apart the runs that share one.

    Models of one name that are not the same weights, in `runs` or elsewhere in `among`, have their digest's beginning
    in it, so that a label stands for one model on every benchmark.
    """
    names = [_name(run, [*runs, *among]) for run in runs]
    found = []
    for place, (name, run) in enumerate(zip(names, runs, strict=True)):
        alike = [other for called, other in zip(names, runs, strict=True) if called == name]
        label = name
        if len(alike) > 1:
            for fact in (format_of, engine_of):
                if len({fact(other) for other in alike}) == len(alike):
                    label = f"{name} · {fact(run)}"
                    break
            else:
                number = names[: place + 1].count(name)
                label = name if number == 1 else f"{name} ({number})"
        found.append(label)
    return found


def _name(run: Recorded, among: Sequence[Recorded]) -> str:
    """Return a model's name, with the beginning of its digest where another model in `among` has the same name."""
    own = run.record.identity.weights
    others = {other.record.identity.weights for other in among if other.model == run.model} - {None, own}
    return f"{run.model} · {own[:8]}" if own is not None and others else run.model


def _adjusted(found: Sequence[BenchmarkComparison]) -> tuple[tuple[BenchmarkComparison, ...], int]:
    """Return the comparisons with the headlines' p-values adjusted for all of them, and how many there are."""
    headlines = [each.headline for each in found if each.headline is not None]
    tests = [
        difference.p
        for metric in headlines
        for difference in (*metric.against_baseline.values(), *metric.against_previous.values())
        if difference.p is not None
    ]
    adjusted = iter(holm(tests))

    def fill(differences: Mapping[str, Difference]) -> dict[str, Difference]:
        return {
            label: each if each.p is None else dataclasses.replace(each, adjusted=next(adjusted))
            for label, each in differences.items()
        }

    filled = []
    for each in found:
        if each.headline is not None:
            first = dataclasses.replace(
                each.headline,
                against_baseline=fill(each.headline.against_baseline),
                against_previous=fill(each.headline.against_previous),
            )
            each = dataclasses.replace(each, metrics=(first, *each.metrics[1:]))
        filled.append(each)
    return tuple(filled), len(tests)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    """Return JSON data in which NaN is null."""
    if isinstance(value, records.Record):
        return _plain(records.as_json(value))
    if dataclasses.is_dataclass(value):
        return _plain(_fields(value))
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
