"""`harness export`: a run in the form that another tool reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.cli.options import run_argument, tell_place


@click.command("export")
@run_argument(metavar="RUN")
@click.option(
    "--format",
    "form",
    metavar="NAME",
    default="csv",
    show_default=True,
    help="csv (predictions), lm-eval (lm-evaluation-harness) or every-eval-ever.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="PATH", help="File of a CSV, folder else.  [default: in exports/]"
)
@click.option("--parser", metavar="NAME", help="Read the outputs anew, for a CSV.")
@click.option("--raw", is_flag=True, help="Leave control characters in a CSV as they are, not as escapes.")
@click.option("--organization", metavar="NAME", help="Who evaluated, for Every Eval Ever.  [default: local]")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--no-plugin", "disabled", multiple=True, metavar="NAME", help="Leave out a plugin or a distribution.")
def command(run: Path, form: str, disabled: tuple[str, ...], **options: Any) -> None:
    """Write RUN in the form that another tool reads, and print the names of the files.

    csv has a row for each sample: id, instruction, the input's own columns, output, answer, gold, score and what a
    judge compared it with. The other two are for finished runs.

    \b
    harness export latest:gsm8k/ckpt --out predictions.csv
    harness export RUN --format every-eval-ever --organization me
    """
    from harness.api import export
    from harness.registry import Registry

    for path in export(run, form, registry=Registry(disabled), **options):
        tell_place(path)
