"""`harness report`: one self-contained HTML page on one or more runs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default="report.html", show_default=True, metavar="FILE",
    help="Where to write the page.",
)  # fmt: skip
@click.option("--title", metavar="TEXT", help="The page's title.  [default: models and benchmarks]")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def command(runs: tuple[Path, ...], out: Path, title: str | None, force: bool) -> None:
    """Write a page on RUNS that needs nothing but a browser: results, charts, training, speed, and every sample.

    Runs of one benchmark are compared example by example, the first being the baseline; runs of several benchmarks
    stand side by side. The page has all prompts and outputs in it and fetches nothing.
    """
    from harness.errors import ConfigError
    from harness.evaluation.lines import write_atomically
    from harness.evaluation.recorded import read_run
    from harness.reports.html import render

    if out.is_dir():
        raise ConfigError(f"{out} is a folder; give --out a file, such as {out / 'report.html'}")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; give --force to replace it, or another --out")
    page = render([read_run(run) for run in runs], title=title)
    write_atomically(out, (piece.encode("utf-8") for piece in page))
    click.echo(f"{out}  {out.stat().st_size / 1e6:.1f} MB")
