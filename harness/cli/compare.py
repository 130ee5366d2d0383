"""`harness compare`: what changed between runs, and by how much more than chance."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN RUN [RUN]...")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="This metric alone; may be given again.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the bootstrap.")
@click.option("--flips", type=click.IntRange(min=0), default=3, show_default=True, help="Ids to name of each kind.")
@click.option("--json", "form", flag_value="json", help="Everything as JSON, all flipped ids included.")
@click.option("--markdown", "form", flag_value="markdown", help="The tables as Markdown.")
def command(runs: tuple[Path, ...], metrics: tuple[str, ...], seed: int, flips: int, form: str | None) -> None:
    """Compare RUNs example by example; the first of each benchmark is the baseline.

    Give several models' runs on several benchmarks to get one table, with the alignment tax. Runs over other examples
    are refused; another prompt format, engine or version is stated.
    """
    import json

    from harness.evaluation.comparison import compare
    from harness.evaluation.recorded import read_run
    from harness.reports.comparison import as_markdown, print_sections, sections
    from harness.reports.terminal import console

    comparison = compare([read_run(path) for path in runs], metrics=metrics, seed=seed)
    if form == "json":
        click.echo(json.dumps(comparison.as_json(), indent=2))
    elif form == "markdown":
        click.echo(as_markdown(sections(comparison, flips)))
    else:
        print_sections(sections(comparison, flips), console())
