"""`harness run`: evaluate a model on one or more benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.cli.options import ONE_RUN, evaluation_options, groups_are_option, judge_options, plugin_names, warn


@click.command("run")
@click.argument("config", required=False, type=click.Path(path_type=Path), metavar="[CONFIG.toml]")
@click.option(
    "-b",
    "--benchmark",
    multiple=True,
    metavar="NAME",
    shell_complete=plugin_names("benchmarks"),
    help="Benchmark, or a file of prompts; repeatable.",
)
@evaluation_options
@judge_options
@click.option("-o", "--out", metavar="DIR", help="Folder for run folders.  [default: runs]")
@click.option("--run-dir", metavar="DIR", help="The run's own folder, in the place of one named by model and time.")
@click.option("--replace", is_flag=True, help="With --run-dir: a run of other options that is there makes way.")
@click.option("-n", "--limit", type=int, metavar="N", help="A seeded sample of N examples, stratified by group.")
@click.option("--seed", type=int, metavar="S", help="Seed of that sample.  [default: 0]")
@click.option(
    "--samples", type=int, metavar="K", help="Ask each example K times, at a temperature above 0.  [default: 1]"
)
@click.option("--from", "earlier", type=ONE_RUN, metavar="RUN", help="Options of an earlier run.json.")
@click.option("--fresh", is_flag=True, help="Begin a new run even if an unfinished or finished one matches.")
@groups_are_option
@click.option("--groups", is_flag=True, help="Print the figures of every group, however many there are.")
@click.option(
    "--trained-on", multiple=True, metavar="FILE", help="Training data: examples with 13 of its words are noted."
)
@click.option(
    "--plan", "there", metavar="GPUSxGIB", help="Say what the model takes of such a cluster (16x80), and how long."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, load no weights, write nothing.")
def command(
    config: Path | None,
    pairs: tuple[str, ...],
    disabled: tuple[str, ...],
    earlier: Path | None,
    fresh: bool,
    groups: bool,
    dry_run: bool,
    there: str | None,
    **flags: Any,
) -> int:
    """Evaluate a model on one or more benchmarks.

    Give the same command again after a crash or Ctrl-C and it goes on where it stopped. Options come from --from, then
    CONFIG.toml, then --set, then flags; plugins take theirs as --set NAME.OPTION=VALUE.

    \b
    harness run -b gsm8k -m ckpt/ --limit 100
    harness run run.toml -b mmlu -m ckpt/ --set mmlu.shots=5
    harness run -b alpaca_eval -m ckpt/ --judge JUDGE
    harness run --from RUN --fresh
    """
    from harness.evaluation.options import run_options
    from harness.jobs import Evaluation
    from harness.registry import Registry

    evaluation = Evaluation(run_options(earlier=earlier, file=config, pairs=pairs, flags=flags), Registry(disabled))
    warn(evaluation.warnings)
    if dry_run or there is not None:
        click.echo(evaluation.describe() if there is None else evaluation.sized(there))
        return 0
    failed = 0
    for done in evaluation.carry_out(fresh=fresh):
        click.echo(done.summary(groups=groups))
        warn(done.warnings)
        failed += done.failed
    return 1 if failed else 0
