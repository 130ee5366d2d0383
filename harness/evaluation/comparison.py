"""Two and more runs of the same examples, compared example by example.

The first run of a benchmark is the baseline. Figures are differences of paired scores: examples are aligned by id, and
one that the engine or the judge failed on in either run is left out of that pair. Intervals come from a seeded paired
bootstrap, which resamples groups where there are enough of them (`harness.statistics.paired_bootstrap`); p-values are
exact (McNemar) for scores of right and wrong, by sign flips otherwise. Those of the benchmarks' headline metrics are
adjusted for each other by Holm.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import ConfigError, RunError, nearest
from harness.evaluation.pairing import aligned, stated_differences
from harness.evaluation.per_sample import MACRO, per_sample
from harness.evaluation.recorded import Recorded
from harness.interfaces import Scorer
from harness.registry import Registry
from harness.statistics import holm, macro_mean, mcnemar, paired_bootstrap, sign_flip
from harness.types import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

REPLICATES = 10_000

#: Fewer groups than this cannot stand for a population of groups, and examples are resampled instead. Fewer examples
#: with a difference than this say too little about its spread: the interval is too narrow. Both as simulated in
#: tests/test_paired_statistics.py.
FEWEST_GROUPS = FEWEST_DIFFERING = 10


@dataclass(frozen=True)
class Difference:
    """What `run` gains over `against` on one metric, both labels of runs.

    `estimate` is over the examples that both have a score for, of which `differing` have two different ones; `left_out`
    counts the others. `resampled` says what the bootstrap drew: ``examples``, ``groups``, or ``nothing`` (the interval
    is Student's t within groups). `p` is two-sided, by `test` (``mcnemar`` or ``sign-flip``), for the first metric of
    each reader, which the others restate. `adjusted` is p by Holm, for the benchmarks' headlines alone, over all of
    them in the comparison. `gained` and `lost` are the ids that turned right and wrong (of scores between 0 and 1:
    those that rose above one half, and fell from there), of every metric.
    """

    run: str
    against: str
    estimate: Estimate
    resampled: str
    differing: int
    left_out: int
    test: str | None = None
    p: float | None = None
    adjusted: float | None = None
    gained: Sequence[str] = ()
    lost: Sequence[str] = ()

    @property
    def doubtful(self) -> bool:
        """Whether too few examples differ for the interval to be relied on; the p-value of McNemar's test still is."""
        return self.differing < FEWEST_DIFFERING


@dataclass(frozen=True)
class Metric:
    """One metric of one benchmark: each run's own figure, by label, and the differences.

    `values` are as in results.json, None for a run that lacks the metric. `reason` says why there are no differences.
    """

    reader: str
    name: str
    values: Mapping[str, Mapping[str, Any] | None]
    against_baseline: Mapping[str, Difference] = field(default_factory=dict)
    against_previous: Mapping[str, Difference] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True)
class Facts:
    """What stands beside a run's figures: counts, means over samples (None where unknown), rates, and how it was made.

    `unparsed` is by parser, `unreadable` by judge. `differs` says in what the run differs from the baseline, beside the
    model.
    """

    path: str
    model: str
    n: int
    failed: int
    truncated: int
    unparsed: Mapping[str, int]
    unreadable: Mapping[str, int]
    prompt_tokens: float | None
    completion_tokens: float | None
    characters: float | None
    examples_per_second: float | None
    tokens_per_second: float | None
    prompt_format: str
    engine: str
    differs: Sequence[str]


@dataclass(frozen=True)
class BenchmarkComparison:
    """The runs of one benchmark: `facts` by label in the order given, the first being the baseline."""

    benchmark: str
    examples: int
    facts: Mapping[str, Facts]
    metrics: Sequence[Metric]

    @property
    def baseline(self) -> str:
        """The label of the first run."""
        return next(iter(self.facts))

    @property
    def headline(self) -> Metric | None:
        """The metric that stands for the benchmark: the first; None where nothing was scored."""
        return self.metrics[0] if self.metrics else None


@dataclass(frozen=True)
class Comparison:
    """All runs by benchmark; `labels` are the runs' columns, the same for the same model in each benchmark.

    `tests` counts the p-values that were adjusted for each other; `seed` and `replicates` are the bootstrap's.
    """

    labels: Sequence[str]
    benchmarks: Sequence[BenchmarkComparison]
    tests: int
    replicates: int
    seed: int

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
        content: dict[str, Any] = _plain(dataclasses.asdict(self))
        for each, record in zip(self.benchmarks, content["benchmarks"], strict=True):
            record["baseline"] = each.baseline
            record["headline"] = each.headline and {"reader": each.headline.reader, "name": each.headline.name}
        content["alignment_tax"] = {
            benchmark: {label: _tax(difference) for label, difference in by_label.items()}
            for benchmark, by_label in self.alignment_tax().items()
        }
        return content


def _tax(difference: Difference) -> dict[str, float | None]:
    estimate = difference.estimate
    figures = {"value": -estimate.value, "low": -estimate.high, "high": -estimate.low, "adjusted": difference.adjusted}
    return {name: None if value is None or math.isnan(value) else value + 0.0 for name, value in figures.items()}


def compare(
    runs: Sequence[Recorded], *, metrics: Sequence[str] = (), replicates: int = REPLICATES, seed: int = 0
) -> Comparison:
    """Compare finished runs; those of one benchmark with the first of it. `metrics` are names to restrict it to.

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
    registry = Registry()
    found = [
        _Runs(group, labels(group, runs), registry.get("scorers", group[0].config["scorer"]), replicates, seed).compare(
            metrics
        )
        for group in by_benchmark.values()
    ]
    adjusted, tests = _adjusted(found)
    columns = tuple(dict.fromkeys(label for each in adjusted for label in each.facts))
    return Comparison(columns, adjusted, tests, replicates, seed)


def _check(runs: Sequence[Recorded], metrics: Sequence[str]) -> None:
    known: set[str] = set()
    for run in runs:
        if run.results is None:
            raise RunError(f"{run.folder.path} {run.folder.unfinished}")
        known.update(name for figures in _figures(run).values() for name in figures)
    for name in metrics:
        if name not in known:
            raise ConfigError(f"no run has a metric {name!r}{nearest(name, known)}")


class _Runs:
    """The runs of one benchmark by label, their rows brought into the baseline's order."""

    def __init__(
        self, runs: Sequence[Recorded], columns: Sequence[str], scorer: Scorer, replicates: int, seed: int
    ) -> None:
        self._baseline = runs[0]
        self._runs = dict(zip(columns, runs, strict=True))
        self._order = {label: aligned(runs[0], run) for label, run in self._runs.items()}
        self._scorer, self._replicates, self._seed = scorer, replicates, seed
        numbers: dict[str | None, int] = {}
        self._groups = np.array([numbers.setdefault(group, len(numbers)) for group in runs[0].groups], dtype=np.int64)
        self._grouped = bool(numbers) and None not in numbers
        self._by_group = self._grouped and len(numbers) >= FEWEST_GROUPS

    def compare(self, metrics: Sequence[str]) -> BenchmarkComparison:
        """Return all metrics that a run has, or those named; readers that all runs share come first."""
        readers = dict.fromkeys(reader for run in self._runs.values() for reader in _figures(run))
        shared = sorted(readers, key=lambda name: not all(name in _figures(run) for run in self._runs.values()))
        found = [metric for reader in shared for metric in self._reader(reader, metrics)]
        facts = {label: _facts(run, self._baseline) for label, run in self._runs.items()}
        return BenchmarkComparison(self._baseline.benchmark, len(self._baseline), facts, tuple(found))

    def _reader(self, reader: str, wanted: Sequence[str]) -> list[Metric]:
        """Return the metrics of one parser or judge; the first of them is tested."""
        figures = {label: _figures(run).get(reader, {}) for label, run in self._runs.items()}
        names = list(dict.fromkeys(name for each in figures.values() for name in each))
        scores = {
            label: {name: column[self._order[label]] for name, column in per_sample(run, reader, self._scorer).items()}
            for label, run in self._runs.items()
        }
        found = []
        for name in names:
            if wanted and name not in wanted:
                continue
            metric = Metric(reader, name, {label: figures[label].get(name) for label in self._runs})
            macro = name.endswith(MACRO) and self._grouped
            columns = {label: each.get(name.removesuffix(MACRO) if macro else name) for label, each in scores.items()}
            found.append(self._with_differences(metric, columns, macro=macro, tested=name == names[0]))
        return found

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
                    reasons.update(dict.fromkeys(_why_unpaired(metric, other, label)))
        return dataclasses.replace(
            metric, against_baseline=to_baseline, against_previous=to_previous, reason="; ".join(reasons) or None
        )

    def _judged_otherwise(self, reader: str, *labels: str) -> bool:
        said = [(self._runs[label].results or {}).get("judges", {}).get(reader) for label in labels]
        return None not in said and any(_way(each) != _way(said[0]) for each in said)

    def _difference(
        self, run: str, against: str, columns: tuple[Floats, Floats], *, macro: bool, tested: bool
    ) -> Difference:
        both = ~np.isnan(columns[0] + columns[1])
        first, second = (column[both] for column in columns)
        groups = self._groups[both]
        ids = np.array(self._baseline.ids, dtype=object)[both]
        gained, lost = (first <= 0.5) & (second > 0.5), (first > 0.5) & (second <= 0.5)
        found = Difference(
            run,
            against,
            self._estimate(first, second, groups, macro=macro),
            "groups" if self._by_group else "nothing" if macro else "examples",
            int((first != second).sum()),
            int(len(both) - both.sum()),
            gained=tuple(ids[gained]),
            lost=tuple(ids[lost]),
        )
        if not tested or not len(first):
            return found
        binary = bool(np.isin(np.concatenate([first, second]), (0.0, 1.0)).all())
        p = mcnemar(int(gained.sum()), int(lost.sum())) if binary else sign_flip(second - first, self._seed)
        test = "mcnemar" if binary else "sign-flip"
        return dataclasses.replace(found, test=test, p=p)

    def _estimate(self, first: Floats, second: Floats, groups: Ints, *, macro: bool) -> Estimate:
        seed, replicates = self._seed, self._replicates
        if not macro:
            clusters = groups.tolist() if self._by_group else None
            return paired_bootstrap(first, second, seed, clusters, replicates=replicates)
        if not self._by_group:
            return macro_mean(second - first, groups.tolist())
        present, codes = np.unique(groups, return_inverse=True)
        sizes = np.bincount(codes, minlength=len(present))
        means = [np.bincount(codes, weights=column) / sizes for column in (first, second)]
        estimate = paired_bootstrap(means[0], means[1], seed, replicates=replicates)
        return dataclasses.replace(estimate, n=len(first))


def _why_unpaired(metric: Metric, *labels: str) -> Iterator[str]:
    """Yield why there is no difference on a metric where one of two runs has no score a sample."""
    figures = {label: metric.values[label] for label in labels}
    for label, each in figures.items():
        if each is None:
            yield f"{label} was not read by {metric.reader}"
        elif each["n"] == 0:
            yield f"nothing of {label} could be scored"
    if all(each is not None and each["n"] for each in figures.values()):
        yield "it is no mean over samples"


def _figures(run: Recorded) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = (run.results or {})["metrics"]
    return found


def _way(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be the same for a judge's verdicts on two runs to be compared.

    Recorded replies lie in a file for each run, whose digest says nothing about who replied: their judge goes by label.
    """
    parts = ["engine", "prompt_format", "chat_template", "scorer", "options", "inputs"]
    return {name: said.get(name) for name in (*parts, *(["model"] if said.get("engine") != "replay" else []))}


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
            for fact in (_format, _engine):
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
    own = _weights(run)
    others = {_weights(other) for other in among if other.model == run.model} - {None, own}
    return f"{run.model} · {own[:8]}" if own is not None and others else run.model


def _weights(run: Recorded) -> str | None:
    """Return the digest of a model's weights; None where the engine knows none, as of a server or recorded outputs."""
    digest = run.config["identity"].get("model", {}).get("model_digest")
    return None if digest is None else str(digest)


def _format(run: Recorded) -> str:
    return str(run.config["prompt_format"]["name"])


def _engine(run: Recorded) -> str:
    return str(run.config["engine"])


def _facts(run: Recorded, baseline: Recorded) -> Facts:
    answered = ~run.failed
    judges = (run.results or {}).get("judges", {})
    timing = run.timing
    return Facts(
        path=str(run.folder.path),
        model=run.model,
        n=len(run),
        failed=int(run.failed.sum()),
        truncated=int(run.truncated.sum()),
        unparsed={parser: int(mask.sum()) for parser, mask in run.unparsed.items()},
        unreadable={judge: sum(verdict == "unreadable" for verdict in run.verdicts[judge]) for judge in judges},
        prompt_tokens=_mean(run.prompt_tokens[answered]),
        completion_tokens=_mean(run.completion_tokens[answered]),
        characters=_mean(run.lengths[answered].astype(np.float64)),
        examples_per_second=timing.get("examples_per_second"),
        tokens_per_second=timing.get("completion_tokens_per_second") or None,
        prompt_format=_format(run),
        engine=_engine(run),
        differs=stated_differences(baseline, run),
    )


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


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


def _plain(value: Any) -> Any:
    """Return JSON data in which NaN is null."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
