"""`harness report`: one self-contained HTML page on one or more runs."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import runs_argument, tell_place, warn


@click.command("report")
@runs_argument(compared=True, metavar="RUN...")
@click.option("--format", "form", type=click.Choice(["html", "markdown"]), default="html", show_default=True)
@click.option("-o", "--out", metavar="FILE", help="Where to write it.  [default: report.html or report.md]")
@click.option("--title", metavar="TEXT", help="The page's title.  [default: models and benchmarks]")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def command(runs: tuple[Path, ...], form: str, out: str | None, title: str | None, force: bool) -> None:
    """Write a page on RUNS that needs nothing but a browser: results, charts, training, speed, and every sample.

    Runs of one benchmark are compared example by example, the first being the baseline; runs of several benchmarks
    stand side by side. The page has all prompts and outputs in it and fetches nothing.
    --format markdown writes the tables alone, for a write-up.

    \b
    harness report latest:*/base latest:*/ckpt
    harness report --latest --force
    harness report RUN RUN --format markdown --out tables.md
    """
    from harness.api import report
    from harness.runs.selecting import comparable

    kept, notes = comparable(runs)
    warn(notes)
    page = report(*kept, out=out, title=title, force=force, form=form)
    tell_place(page, f"  {page.stat().st_size / 1e6:.1f} MB")
