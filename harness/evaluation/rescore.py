"""Score recorded outputs again, by the run's parsers or by others, without a model and without changing the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from harness.calls import read, reads_likelihoods
from harness.errors import ConfigError, HarnessError, RunError
from harness.evaluation.outputs import disagreeing
from harness.evaluation.results import summarise
from harness.interfaces import Parser, Scorer
from harness.registry import Registry
from harness.runs.folder import Run
from harness.runs.records import Results
from harness.types import SCORED, Sample, Status


def rescore(run: Run, parsers: Sequence[str], registry: Registry) -> Results:
    """Return what results.json would say if the recorded outputs were read by `parsers` (the run's own if empty)."""
    record = run.record
    scorer = registry.scorer(record.scorer)
    if scorer.judged:
        message = f"{run.path} is scored by a judge's replies, not by a parser"
        raise RunError(f"{message}: harness judge {run.path} --judge MODEL")
    chosen = [registry.parser(name) for name in parsers or record.parsers]
    names = [parser.name for parser in chosen]
    again, groups_are = _again(run, chosen, scorer), record.command.groups_are
    return summarise(record.benchmark, scorer, again, names, groups_are, record.samples)


def read_again(run: Run, parser: str, registry: Registry) -> Iterator[Sample]:
    """Yield the samples of a run as `parser` alone reads them; ConfigError for a run that a judge scores."""
    scorer = registry.scorer(run.record.scorer)
    if scorer.judged:
        raise ConfigError(f"--parser does nothing here: {run.path} is scored by a judge's replies, not by a parser")
    return _again(run, [registry.parser(parser)], scorer)


def _again(run: Run, parsers: Sequence[Parser], scorer: Scorer) -> Iterator[Sample]:
    ends_are_known = run.record.imported is None
    for sample in run.samples():
        _check_recorded(run, sample, parsers)
        there_is_none = sample.finish_reason is None and (ends_are_known or not sample.output)
        yield sample if there_is_none else _read_again(sample, parsers, scorer)


def _check_recorded(run: Run, sample: Sample, parsers: Sequence[Parser]) -> None:
    """Raise RunError where a parser reads what the run has not asked for."""
    if sample.status == "engine_error":
        return
    for parser in parsers:
        if reads_likelihoods(parser) and not sample.likelihoods:
            remedy = f"harness run --from {run.path} --scoring both"
            raise RunError(f"{run.path}: {parser.name} reads how likely options are, which was not asked; {remedy}")
        if not reads_likelihoods(parser) and sample.finish_reason == SCORED:
            remedy = f"harness run --from {run.path} --scoring generated"
            raise RunError(f"{run.path}: {parser.name} reads what a model says, and nothing was generated; {remedy}")


def _read_again(sample: Sample, parsers: Sequence[Parser], scorer: Scorer) -> Sample:
    example = sample.example()
    try:
        answers, scores = read(parsers, scorer, sample.output, example, sample.likelihoods)
    except HarnessError as unread:
        return dataclasses.replace(sample, answers={}, scores={}, status="engine_error", error=str(unread))
    status: Status = "unparsed" if parsers and answers[parsers[0].name] is None else "ok"
    return dataclasses.replace(
        sample,
        answers=answers,
        scores=scores,
        status=status,
        error=None,
        disagreeing=disagreeing(parsers, sample.output, example),
    )
