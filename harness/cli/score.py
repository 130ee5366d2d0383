"""`harness score`: score the recorded outputs of a run again, without a model."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.cli.options import run_argument


@click.command("score")
@run_argument(metavar="RUN|ANNOTATIONS")
@click.option("--parser", "parsers", multiple=True, metavar="NAME", help="Parser; may be given more than once.")
@click.option("--length-control", metavar="FILE", help="df_gamed.csv, or `hub`, for ANNOTATIONS.")
@click.option("--groups", is_flag=True, help="Print the figures of every group, however many there are.")
@click.option("--json", "form", flag_value="json", help="Print what results.json would say.")
@click.option("--no-plugin", "disabled", multiple=True, metavar="NAME", help="Leave out a plugin or a distribution.")
def command(
    run: Path,
    parsers: tuple[str, ...],
    length_control: str | None,
    groups: bool,
    form: str | None,
    disabled: tuple[str, ...],
) -> None:
    """Score recorded outputs again, without a model: those of RUN, by its own parsers or by others.

    ANNOTATIONS is a file of pairwise judgements in AlpacaEval's format, whose win rate is printed. Nothing is
    changed.

    \b
    harness score latest:gsm8k/ckpt --parser last-number
    harness score annotations.json --length-control hub
    """
    from harness.api import score
    from harness.errors import ConfigError
    from harness.registry import Registry
    from harness.reports.summary import rescored
    from harness.runs.folder import Run
    from harness.runs.records import as_json

    if run.is_file():
        _refuse_idle(f"{run} is a file of annotations", parser=parsers, groups=groups, no_plugin=disabled)
        click.echo(_annotations(run, length_control, form))
        return
    if length_control is not None:
        raise ConfigError(f"--length-control goes with a file of annotations, and {run} is none")
    registry = Registry(disabled)
    results = score(run, parsers=parsers, registry=registry)
    text = json.dumps(as_json(results), indent=2) if form == "json" else rescored(Run(run), results, groups=groups)
    click.echo(text)


def _refuse_idle(reason: str, **options: object) -> None:
    """Raise ConfigError for the first option given that would do nothing."""
    from harness.errors import ConfigError

    for name, value in options.items():
        if value:
            raise ConfigError(f"--{name.replace('_', '-')} does nothing here: {reason}")


def _annotations(path: Path, length_control: str | None, form: str | None) -> str:
    """Return the win rate of recorded judgements."""
    from harness.judging.annotations import score_annotations
    from harness.reports.annotations import annotations_text
    from harness.scorers.winrate import WinRateScorer

    figures = score_annotations(path, WinRateScorer(length_control=length_control))
    return json.dumps(figures.as_json(), indent=2) if form == "json" else annotations_text(str(path), figures)
