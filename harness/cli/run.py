"""`harness run`: evaluate a model on one or more benchmarks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import evaluation_options, judge_options, warn

if TYPE_CHECKING:
    from harness.evaluation.plan import Plan


@click.command("run")
@click.argument("config", required=False, type=click.Path(path_type=Path), metavar="[CONFIG.toml]")
@click.option("-b", "--benchmark", multiple=True, metavar="NAME", help="Benchmark, or a file of prompts; repeatable.")
@evaluation_options
@judge_options
@click.option("-o", "--out", metavar="DIR", help="Folder for run folders.  [default: runs]")
@click.option("-n", "--limit", type=int, metavar="N", help="A seeded sample of N examples, stratified by group.")
@click.option("--seed", type=int, metavar="S", help="Seed of that sample.  [default: 0]")
@click.option(
    "--from", "earlier", type=click.Path(path_type=Path), metavar="RUN", help="Options of an earlier run.json."
)
@click.option("--fresh", is_flag=True, help="Begin a new run even if an unfinished or finished one matches.")
@click.option("--groups", is_flag=True, help="Print the figures of every group, however many there are.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, load no weights, write nothing.")
def command(
    config: Path | None,
    pairs: tuple[str, ...],
    disabled: tuple[str, ...],
    earlier: Path | None,
    fresh: bool,
    groups: bool,
    dry_run: bool,
    **flags: Any,
) -> int:
    """Evaluate a model on one or more benchmarks.

    Give the same command again after a crash or Ctrl-C and it goes on where it stopped. Options come from --from, then
    CONFIG.toml, then --set, then flags; plugins take theirs as --set NAME.OPTION=VALUE.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # prompts are encoded singly: threads only get in the way
    from harness.evaluation.judging import judge_run, make_judge, planned_scorer
    from harness.evaluation.options import run_options
    from harness.evaluation.plan import make_plans
    from harness.evaluation.runner import LoadOnce, run
    from harness.evaluation.tracking import track
    from harness.registry import Registry
    from harness.reports.preview import describe
    from harness.reports.summary import summary
    from harness.training.trackers import configured_trackers

    options = run_options(earlier=earlier, file=config, pairs=pairs, flags=flags)
    registry = Registry(disabled)
    plans = make_plans(options, registry)
    trackers = configured_trackers(options.trackers, options.options, registry)
    judge = make_judge(options, registry) if options.judge_model is not None else None
    scorers = [planned_scorer(plan) if judge is not None else None for plan in plans]
    warn([*plans[0].choice.warnings, *(judge.choice.warnings if judge else ())])
    if dry_run:
        for plan in plans:
            click.echo(describe(plan))
        if judge is not None:
            click.echo(f"judge          {judge.model} · {judge.engine.name} · {judge.choice.format.name}")
        return 0
    failed = 0
    outcomes = []
    with LoadOnce() as models:
        for plan, scorer in zip(plans, scorers, strict=True):
            outcome = run(plan, models, fresh=fresh)
            outcomes.append(outcome)
            failed += outcome.results["failed"]["count"]
            if scorer is None:  # else the table comes with the judge's figures
                click.echo(
                    summary(_title(plan), outcome.results, outcome.timing, str(outcome.folder.path), groups=groups)
                )
                warn(track(trackers, outcome.folder))
    with LoadOnce() as models:  # the evaluated model has been freed
        for plan, outcome, scorer in zip(plans, outcomes, scorers, strict=True):
            if judge is not None and scorer is not None:
                found = judge_run(outcome.folder, scorer, judge, models)
                click.echo(
                    summary(_title(plan), found.results, outcome.timing, str(outcome.folder.path), groups=groups)
                )
                warn(track(trackers, outcome.folder))
                failed += found.results["judges"][found.label]["failed"]["count"]
    return 1 if failed else 0


def _title(plan: Plan) -> str:
    return f"{plan.benchmark.title} · {plan.model_name} · {plan.engine.name} · {plan.choice.format.name}"
