"""Score recorded outputs again, by the run's parsers or by others, without a model and without changing the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, RunError
from harness.evaluation.journal import RunFolder
from harness.evaluation.judgements import verdicts_of
from harness.evaluation.predictions import write_predictions
from harness.evaluation.results import summarise
from harness.interfaces import Parser, Scorer
from harness.registry import Registry
from harness.types import Sample, Status


def rescore(folder: RunFolder, parsers: Sequence[str], registry: Registry) -> dict[str, Any]:
    """Return what results.json would say if the recorded outputs were read by `parsers` (the run's own if empty)."""
    config = folder.config
    scorer = registry.get("scorers", config["scorer"])
    if scorer.judged:
        message = f"{folder.path} is scored by a judge's replies, not by a parser"
        raise RunError(f"{message}: harness judge {folder.path} --judge MODEL")
    chosen = [registry.get("parsers", name) for name in parsers or config["parsers"]]
    return summarise(config["benchmark"], scorer, _again(folder, chosen, scorer), [parser.name for parser in chosen])


def export_predictions(folder: RunFolder, path: Path, parsers: Sequence[str], registry: Registry) -> None:
    """Write a CSV of the recorded outputs, read by the first of `parsers` (the run's own if empty).

    A run that is judged has the first judge's verdicts instead, once there are any; ConfigError for parsers there.
    """
    config = folder.config
    scorer = registry.get("scorers", config["scorer"])
    if parsers and scorer.judged:
        raise ConfigError(f"--parser does nothing here: {folder.path} is scored by a judge's replies, not by a parser")
    names = parsers or config["parsers"]
    samples, verdicts = folder.samples(), verdicts_of(folder, None, ())
    if parsers:
        samples = _again(folder, [registry.get("parsers", names[0])], scorer)
    write_predictions(path, samples, names[0] if names else None, verdicts)


def _again(folder: RunFolder, parsers: Sequence[Parser], scorer: Scorer) -> Iterator[Sample]:
    return (_read_again(sample, parsers, scorer) for sample in folder.samples())


def _read_again(sample: Sample, parsers: Sequence[Parser], scorer: Scorer) -> Sample:
    if sample.status == "engine_error":
        return sample
    example = sample.example()
    answers = {parser.name: parser.parse(sample.output, example) for parser in parsers}
    scores = {name: scorer.score(example, answer) for name, answer in answers.items()}
    status: Status = "unparsed" if parsers and answers[parsers[0].name] is None else "ok"
    return dataclasses.replace(sample, answers=answers, scores=scores, status=status)
