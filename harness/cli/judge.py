"""`harness judge`: have a model judge the responses of finished runs, or compare its judgements with people's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.cli.options import judge_options, warn


@click.command("judge")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN|CHAT...")
@judge_options
@click.option("--reference", metavar="FILE", help="Outputs to compare with, instead of those in the run.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Rows of id and label: print how far judges agree with them.",
)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="winrate.orders=one, judge.dtype=bfloat16.")
@click.option("--groups", is_flag=True, help="Print the figures of every group, however many there are.")
@click.option("--no-plugin", "disabled", multiple=True, metavar="NAME", help="Leave out a plugin or a distribution.")
def command(
    runs: tuple[Path, ...],
    reference: str | None,
    labels: Path | None,
    pairs: tuple[str, ...],
    groups: bool,
    disabled: tuple[str, ...],
    **flags: Any,
) -> int:
    """Judge the responses of each finished RUN, and write its results anew; or the answers in a CHAT's transcript.

    Nothing is asked twice: give the same command again after a crash and it goes on; another judge, or other options
    of the scorer, stand beside what is there. --labels compares the verdicts of all judges of RUN with people's: FILE
    is CSV, JSON or JSON Lines with a sample's id and its label (won, lost or tied; safe or unsafe).
    """
    from harness.errors import ConfigError
    from harness.evaluation.journal import RunFolder
    from harness.evaluation.judging import judge_run, judged_scorers, judging_options, make_judge
    from harness.evaluation.runner import LoadOnce
    from harness.evaluation.tracking import track
    from harness.evaluation.transcripts import TranscriptRun
    from harness.registry import Registry
    from harness.reports.summary import summary
    from harness.training.trackers import configured_trackers

    registry = Registry(disabled)
    folders = [TranscriptRun(run) if run.is_file() else RunFolder(run) for run in runs]
    options = judging_options(pairs, flags)
    scorers = judged_scorers(folders, options, reference, registry)
    trackers = configured_trackers(options.trackers, options.options, registry)
    failed = 0
    if options.judge_model is not None:
        judge = make_judge(options, registry)
        warn(judge.choice.warnings)
        with LoadOnce() as models:
            for folder, scorer in zip(folders, scorers, strict=True):
                outcome = judge_run(folder, scorer, judge, models)
                title = f"{folder.config['benchmark']} · {folder.model} · judged by {outcome.label}"
                click.echo(summary(title, outcome.results, {}, str(folder.path), groups=groups))
                warn(track(trackers, folder))
                failed += outcome.results["judges"][outcome.label]["failed"]["count"]
    elif labels is None:
        raise ConfigError("nothing to do: give --judge MODEL, or --labels FILE for a run that has been judged")
    if labels is not None:
        for folder, scorer in zip(folders, scorers, strict=True):
            click.echo(_agreement(folder, scorer.verdicts, labels))
    return 1 if failed else 0


def _agreement(folder: Any, words: tuple[str, ...], path: Path) -> str:
    """Return how far each judge of a run agrees with the labels in a file."""
    from harness.errors import RunError
    from harness.evaluation.agreement import agreement, read_labels
    from harness.evaluation.judgements import read_verdicts
    from harness.reports.agreement import agreement_text

    judges = folder.results.get("judges")
    if not judges:
        raise RunError(f"{folder.path} has not been judged yet: harness judge {folder.path} --judge MODEL")
    labels = read_labels(path, words, [sample.id for sample in folder.samples()])
    found = {judge: agreement(read_verdicts(folder, judge), labels, words) for judge in judges}
    return "\n".join(agreement_text(judge, each, words) for judge, each in found.items())
