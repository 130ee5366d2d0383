"""`harness compare`: what changed between runs, and by how much more than chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import groups_are_option, runs_argument, warn

if TYPE_CHECKING:
    from harness.statistics import GroupsAre


@click.command("compare")
@runs_argument(compared=True, metavar="RUN RUN [RUN]...")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="This metric alone; may be given again.")
@groups_are_option
@click.option("--without-contaminated", is_flag=True, help="Leave out examples that a model was trained on.")
@click.option("--flips", type=click.IntRange(min=0), default=3, show_default=True, help="Ids to name of each kind.")
@click.option(
    "--gate",
    "rules",
    type=click.Path(path_type=Path),
    metavar="RULES.toml",
    help="Tables by benchmark with max_drop, in points: exit 3 where one is broken, 4 where that is undecided.",
)
@click.option("--max-drop", "drops", multiple=True, metavar="NAME=POINTS", help="Such a rule; may be given again.")
@click.option("--json", "form", flag_value="json", help="Everything as JSON, all flipped ids included.")
@click.option("--markdown", "form", flag_value="markdown", help="The tables as Markdown.")
def command(
    runs: tuple[Path, ...],
    metrics: tuple[str, ...],
    groups_are: GroupsAre | None,
    without_contaminated: bool,
    flips: int,
    rules: Path | None,
    drops: tuple[str, ...],
    form: str | None,
) -> int:
    """Compare RUNs example by example; the first of each benchmark is the baseline.

    Give several models' runs on several benchmarks to get one table, with the alignment tax. Runs over other examples
    are refused; another prompt format, engine or version is stated. With --gate or --max-drop the exit code says
    whether a run has lost too much: 0 it has not, 3 it has, 4 that cannot be told with so many examples.

    \b
    harness compare latest:*/base latest:*/ckpt
    harness compare --latest
    harness compare RUN RUN --max-drop gsm8k=1.0
    """
    import json

    from harness.api import compare
    from harness.comparing.gate import apply, read_rules
    from harness.reports.comparison import as_markdown, gate_section, print_sections, sections
    from harness.reports.terminal import console
    from harness.runs.folder import begun
    from harness.runs.selecting import comparable

    wanted = read_rules(rules, drops)
    kept, notes = begun(runs) if wanted else comparable(runs)  # a gate passes over nothing
    warn(notes)
    comparison = compare(*kept, metrics=metrics, groups_are=groups_are, without_contaminated=without_contaminated)
    gate = apply(comparison, wanted) if wanted else None
    found = [*sections(comparison, flips), *([gate_section(gate)] if gate else [])]
    if form == "json":
        said = {"gate": gate.as_json()} if gate else {}
        click.echo(json.dumps({**comparison.as_json(), **said}, indent=2))
    elif form == "markdown":
        click.echo(as_markdown(found))
    else:
        print_sections(found, console())
    return gate.exit_code if gate else 0
