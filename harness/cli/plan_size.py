"""`harness plan-size`: how many examples, or samples of each, would show a difference."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import runs_argument


@click.command("plan-size")
@runs_argument(required=False, compared=True, metavar="[RUN RUN]")
@click.option("-b", "--benchmark", metavar="NAME", help="Benchmark, of which the examples are counted.")
@click.option("--detect", type=float, required=True, metavar="POINTS", help="The difference to show.")
@click.option("--differing", type=float, metavar="PERCENT", help="Examples on which the two models will differ.")
@click.option("--within", type=float, metavar="PERCENT", help="Of the gains' variance, what lies within examples.")
@click.option("--power", type=float, default=80.0, show_default=True, metavar="PERCENT", help="How surely to show it.")
@click.option("--data", metavar="DIR", help="Data folder; without it, the Hugging Face hub.")
def command(
    runs: tuple[Path, ...],
    benchmark: str | None,
    detect: float,
    differing: float | None,
    within: float | None,
    power: float,
    data: str | None,
) -> None:
    """Say how many examples a paired comparison needs to show a difference of POINTS.

    How far two models differ from example to example is taken from two finished RUNs of a benchmark, such as last
    month's, or from --differing; without either, the two are taken as unrelated at 50%, the worst case. --within is
    what sampling adds at a temperature above 0, and says how many samples of each example would do instead; RUNs of
    several samples say it themselves.

    \b
    harness plan-size -b gsm8k --detect 2
    harness plan-size latest:gsm8k/base latest:gsm8k/ckpt --detect 1
    """
    from harness.comparing.planning import assumed, observed, plan
    from harness.reports.planning import planning_text
    from harness.runs.columns import read_run

    recorded = [read_run(path) for path in runs]
    assumption = observed(recorded, differing) if recorded else assumed(benchmark, data, differing)
    click.echo(planning_text(plan(assumption, detect, within=within, power=power)))
