"""`harness score`: score the recorded outputs of a run again, without a model."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("score")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN|ANNOTATIONS")
@click.option("--parser", "parsers", multiple=True, metavar="NAME", help="Parser; may be given more than once.")
@click.option("--length-control", metavar="FILE", help="df_gamed.csv, or `hub`, for ANNOTATIONS.")
@click.option("--groups", is_flag=True, help="Print the figures of every group, however many there are.")
@click.option("--csv", "table", type=click.Path(path_type=Path), metavar="FILE", help="Write a row for each sample.")
@click.option("--json", "as_json", is_flag=True, help="Print what results.json would say.")
@click.option("--no-plugin", "disabled", multiple=True, metavar="NAME", help="Leave out a plugin or a distribution.")
def command(
    run: Path,
    parsers: tuple[str, ...],
    length_control: str | None,
    groups: bool,
    table: Path | None,
    as_json: bool,
    disabled: tuple[str, ...],
) -> None:
    """Score recorded outputs again, without a model: those of RUN, by its own parsers or by others.

    ANNOTATIONS is a file of pairwise judgements in AlpacaEval's format, whose win rate is printed. --csv writes
    prompts, outputs, answers and scores of RUN, or a judge's verdicts, for a spreadsheet. Nothing is changed.
    """
    from harness.errors import ConfigError
    from harness.evaluation.journal import RunFolder
    from harness.evaluation.rescore import export_predictions, rescore
    from harness.registry import Registry
    from harness.reports.summary import summary

    if run.is_file():
        _refuse_idle(f"{run} is a file of annotations", parser=parsers, groups=groups, csv=table, no_plugin=disabled)
        click.echo(_annotations(run, length_control, as_json))
        return
    if length_control is not None:
        raise ConfigError(f"--length-control goes with a file of annotations, and {run} is none")
    if table is not None:
        _refuse_idle("--csv writes a table of samples", groups=groups, json=as_json)
        if len(parsers) > 1:
            raise ConfigError("--csv writes the answers of one parser; give one --parser")
    folder = RunFolder(run)
    if table is not None:
        export_predictions(folder, table, parsers, Registry(disabled))
        click.echo(table)
        return
    results = rescore(folder, parsers, Registry(disabled))
    if as_json:
        click.echo(json.dumps(results, indent=2))
        return
    selected = folder.config["selected"]
    part = "" if results["n"] == selected else f" · {results['n']:,} of {selected:,} samples so far"
    part += ", and the run is still going" if part and folder.going else ""
    click.echo(summary(f"{folder.config['benchmark']} · {folder.model}{part}", results, {}, str(run), groups=groups))


def _refuse_idle(reason: str, **options: object) -> None:
    """Raise ConfigError for the first option given that would do nothing."""
    from harness.errors import ConfigError

    for name, value in options.items():
        if value:
            raise ConfigError(f"--{name.replace('_', '-')} does nothing here: {reason}")


def _annotations(path: Path, length_control: str | None, as_json: bool) -> str:
    """Return the win rate of recorded judgements."""
    from harness.evaluation.annotations import score_annotations
    from harness.reports.annotations import annotations_text
    from harness.scorers.winrate import WinRateScorer

    figures = score_annotations(path, WinRateScorer(length_control=length_control))
    return json.dumps(figures, indent=2) if as_json else annotations_text(str(path), figures)
