"""What a report is about: runs by benchmark and label, their metrics, and the differences between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import HarnessError, RunError
from harness.evaluation.comparison import BenchmarkComparison, Comparison, Difference, Metric, compare, labels
from harness.evaluation.recorded import Recorded
from harness.registry import Registry


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


def survey(runs: Sequence[Recorded]) -> Survey:
    """Return `runs` by benchmark, compared where there are several of one.

    Raises RunError for no runs, and for runs that are unfinished or not over the same examples.
    """
    if not runs:
        raise RunError("a report needs at least one run: harness report RUN [RUN…]")
    for run in runs:
        if run.results is None:
            raise RunError(f"{run.folder.path} {run.folder.unfinished}")
    names = dict.fromkeys(run.benchmark for run in runs)
    if len(names) == len(runs):
        columns = [labels([run], runs)[0] for run in runs]
        alone = [_alone(run, label) for run, label in zip(runs, columns, strict=True)]
        return Survey(list(dict.fromkeys(columns)), alone, None)
    found = compare(runs)
    by_path = {str(run.folder.path): run for run in runs}
    sections = [_section(each, by_path) for each in found.benchmarks]
    return Survey(found.labels, sections, found)


def significant(difference: Difference) -> bool:
    """Return whether a difference is told from chance at 5%, after adjustment for all tests."""
    return difference.adjusted is not None and difference.adjusted < 0.05


def _alone(run: Recorded, label: str) -> Section:
    metrics = [
        Metric(reader, name, {label: figures})
        for reader, named in (run.results or {})["metrics"].items()
        for name, figures in named.items()
    ]
    return Section(run.benchmark, _title(run.benchmark), {label: run}, metrics, {})


def _section(compared: BenchmarkComparison, by_path: Mapping[str, Recorded]) -> Section:
    runs = {label: by_path[facts.path] for label, facts in compared.facts.items()}
    differs = {label: facts.differs for label, facts in compared.facts.items() if facts.differs}
    return Section(compared.benchmark, _title(compared.benchmark), runs, compared.metrics, differs)


def _title(benchmark: str) -> str:
    """Return a benchmark's title, its name where no plugin has it (a run is read without its plugin, too)."""
    try:
        return Registry().get("benchmarks", benchmark).title
    except HarnessError:
        return benchmark
