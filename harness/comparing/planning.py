"""How many examples, or samples of each, a comparison needs to show a difference of a given size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.comparing.comparison import compare
from harness.comparing.per_sample import MACRO, per_sample
from harness.datasets import DataSource
from harness.errors import ConfigError, RunError
from harness.evaluation.repeats import variance_of
from harness.registry import Registry
from harness.runs.columns import Recorded
from harness.statistics import plan_samples, plan_size, variance_shown


@dataclass(frozen=True)
class Assumption:
    """What a plan rests on: the variance of an example's gain, in the unit of scores, and in words where it is from.

    It is that of one sample of each example, `inside` the part of it that more samples average out; None where that is
    not known. `benchmark` and how many `examples` it has are None where no benchmark is meant. `samples` is how many
    each example had where the variance was seen.
    """

    variance: float
    said: str
    benchmark: str | None = None
    examples: int | None = None
    inside: float | None = None
    samples: int = 1


@dataclass(frozen=True)
class Plan:
    """What shows `detect` points with `power` percent.

    `needed` is the number of examples with one sample each, `needed_sampled` that with the assumption's samples each.
    `within` is the percentage of the variance that is within examples. `samples` is how many samples of each of the
    benchmark's examples would do: None where no number does, or where nothing is known of it. `shown` is what the
    benchmark's examples show with one sample each, in points.
    """

    assumption: Assumption
    detect: float
    within: float
    power: float
    needed: int
    needed_sampled: int
    samples: int | None
    shown: float | None


def assumed(benchmark: str | None, data: str | None, differing: float | None) -> Assumption:
    """Return an assumption without runs: `differing` percent of examples, or the worst case, two unrelated models."""
    count = None
    if benchmark is not None:
        count = len(Registry().benchmark(benchmark).examples(DataSource(data)))
    elif data is not None:
        raise ConfigError("--data does nothing without --benchmark NAME")
    if differing is None:
        return Assumption(0.5, "two unrelated models at 50%, which differ on half of the examples", benchmark, count)
    return Assumption(_share("--differing", differing), f"{differing:g}% of examples differ", benchmark, count)


def observed(runs: Sequence[Recorded], differing: float | None) -> Assumption:
    """Return what two finished runs of one benchmark show of its headline metric; RunError where they show nothing.

    The gains of runs with several samples are those of examples' means, so they vary by less than one sample's: by the
    variance within examples, which the samples tell, less what their number leaves of it (E. Miller, arXiv:2411.00640,
    section 3). Of a run with one sample it is not known, and taken to lie between examples.
    """
    if differing is not None:
        raise ConfigError("--differing does nothing where two runs say on how many examples they differ")
    if len(runs) != 2:
        raise ConfigError(f"give two runs of one benchmark, not {len(runs)}")
    registry = Registry()
    [each] = compare(runs, registry=registry).benchmarks
    headline = each.headline
    found = list(headline.against_baseline.values()) if headline is not None else []
    if headline is None or not found or not found[0].detectable > 0:
        raise RunError(f"{runs[0].path} and {runs[1].path} have no difference to plan with")
    [difference] = found
    variance = variance_shown(difference.detectable, difference.estimate.n)
    said = f"{difference.differing:,} of {difference.estimate.n:,} examples differ between {each.baseline} and "
    said += difference.run + (f", by {each.groups} groups" if each.groups else "")
    counts = [run.record.samples for run in runs]
    if max(counts) == 1:
        return Assumption(variance, said, each.benchmark, each.examples)
    inside = 0.0
    for run, samples in zip(runs, counts, strict=True):
        scores = per_sample(run, headline.reader, registry.scorer(run.record.scorer))[headline.name.removesuffix(MACRO)]
        split = variance_of(scores, run.examples, samples)
        if split is not None:
            inside += split.within
            variance += split.within * (1 - 1 / samples)
    said += f", by the means of {counts[0]} and {counts[1]} samples of each"
    return Assumption(variance, said, each.benchmark, each.examples, min(inside, variance), min(counts))


def plan(assumption: Assumption, detect: float, *, within: float | None = None, power: float = 80.0) -> Plan:
    """Return the plan; ConfigError for figures that are no percentages above 0."""
    gain, chance = _share("--detect", detect), _share("--power", power)
    if assumption.inside is not None:
        if within is not None:
            raise ConfigError("--within does nothing where the runs have several samples of each example, which say it")
        within = 100 * assumption.inside / assumption.variance
    within = within or 0.0
    if assumption.inside is None and not 0 <= within < 100:
        raise ConfigError(f"--within must be a percentage from 0 to below 100, not {within:g}")
    if chance >= 1:
        raise ConfigError("--power must be below 100: nothing shows a difference for certain")
    inside = assumption.variance * within / 100
    between = assumption.variance - inside
    needed, sampled = (
        plan_size(gain, between, within=inside, samples=each, power=chance) for each in (1, assumption.samples)
    )
    samples = shown = None
    if assumption.examples:
        samples = plan_samples(gain, assumption.examples, between, inside, power=chance)
        shown = 100 * gain * (needed / assumption.examples) ** 0.5
    return Plan(assumption, detect, within, power, needed, sampled, samples, shown)


def _share(name: str, percent: float) -> float:
    if not 0 < percent <= 100:
        raise ConfigError(f"{name} must be above 0 and up to 100, not {percent:g}")
    return percent / 100
