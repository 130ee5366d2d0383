"""`harness judge`: have a model judge the responses of finished runs, or compare its judgements with people's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.cli.options import judge_options, runs_argument, warn


@click.command("judge")
@runs_argument(metavar="RUN|CHAT...")
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
    of the scorer, stand beside what is there. Of several RUNs those that no judge is asked about are left out.
    --labels compares the verdicts of all judges of RUN with people's: FILE is CSV, JSON or JSON Lines with a sample's
    id and its label (won, lost or tied; safe or unsafe).

    \b
    harness judge latest:alpaca_eval/ckpt --judge JUDGE
    harness judge RUN --judge gpt-4o --judge-engine openai --set judge.api=chat
    harness judge RUN --labels people.csv
    """
    from harness.api import load_run
    from harness.errors import ConfigError
    from harness.jobs import Judging
    from harness.judging.judging import judgeable, judging_options
    from harness.registry import Registry

    if flags.get("judge_model") is None and labels is None:
        raise ConfigError("nothing to do: give --judge MODEL, or --labels FILE for a run that has been judged")
    registry = Registry(disabled)
    recorded, notes = judgeable([load_run(path) for path in runs], registry)
    judging = Judging(recorded, judging_options(pairs, flags), registry, reference=reference)
    warn([*notes, *judging.warnings])
    failed = 0
    for done in judging.carry_out() if judging.judge is not None else ():
        click.echo(done.summary(groups=groups))
        warn(done.warnings)
        failed += done.failed
    for text in judging.agreement(labels) if labels is not None else ():
        click.echo(text)
    return 1 if failed else 0
