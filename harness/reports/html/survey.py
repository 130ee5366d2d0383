"""What a report is about: runs by benchmark and label, their metrics, and the differences between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.comparing.comparison import BenchmarkComparison, Comparison, Metric, compare, labels
from harness.errors import RunError
from harness.registry import Registry
from harness.reports.summary import benchmark_title
from harness.runs.columns import Recorded


@dataclass(frozen=True)
class Section:
    """One benchmark: its runs by label, the first being the baseline, and what they are compared in."""

    name: str
    title: str
    runs: Mapping[str, Recorded]
    metrics: Sequence[Metric]
    differs: Mapping[str, Sequence[str]]

    @property
    def headline(self) -> Metric | None:
        """The metric that stands for the benchmark, None where nothing was scored."""
        return next((metric for metric in self.metrics if any(metric.values.values())), None)

    @property
    def judge(self) -> str | None:
        """Who judged for the headline; None where that asks no judge."""
        reader = self.headline.reader if self.headline is not None else None
        return reader if any(reader in run.results.judged for run in self.runs.values()) else None

    @property
    def baseline(self) -> str:
        """The label of the first run."""
        return next(iter(self.runs))


@dataclass(frozen=True)
class Survey:
    """All runs of a report; `labels` are its series in order. `comparison` is None where nothing can be compared."""

    labels: Sequence[str]
    sections: Sequence[Section]
    comparison: Comparison | None

    def place(self, label: str) -> int:
        """Return a label's place among the series, which gives it colour and marker."""
        return list(self.labels).index(label)


def survey(runs: Sequence[Recorded], registry: Registry | None = None) -> Survey:
    """Return `runs` by benchmark, compared where there are several of one.

    Raises RunError for no runs, and for runs that are unfinished or not over the same examples.
    """
    if not runs:
        raise RunError("a report needs at least one run: harness report RUN [RUN…]")
    registry = registry or Registry()
    names = dict.fromkeys(run.benchmark for run in runs)
    if len(names) == len(runs):
        columns = [labels([run], runs)[0] for run in runs]
        alone = [_alone(run, label, registry) for run, label in zip(runs, columns, strict=True)]
        return Survey(list(dict.fromkeys(columns)), alone, None)
    found = compare(runs, registry=registry)
    by_path = {str(run.path): run for run in runs}
    sections = [_section(each, by_path, registry) for each in found.benchmarks]
    return Survey(found.labels, sections, found)


def _alone(run: Recorded, label: str, registry: Registry) -> Section:
    metrics = [
        Metric(reader, name, {label: estimate})
        for reader, metrics in run.results.metrics.items()
        for name, estimate in metrics.items()
    ]
    return Section(run.benchmark, benchmark_title(run.benchmark, registry), {label: run}, metrics, {})


def _section(compared: BenchmarkComparison, by_path: Mapping[str, Recorded], registry: Registry) -> Section:
    runs = {label: by_path[facts.path] for label, facts in compared.facts.items()}
    differs = {label: facts.differs for label, facts in compared.facts.items() if facts.differs}
    return Section(compared.benchmark, benchmark_title(compared.benchmark, registry), runs, compared.metrics, differs)
