"""`harness runs`: the runs below a folder, and their removal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import runs_argument
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.reports.view.folder import ListedRun


class _Runs(click.Group):
    """A group that lists where no subcommand is named: `harness runs`, `harness runs FOLDER`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, args if args and args[0] in known else ["list", *args])


@click.group("runs", cls=_Runs)
def command() -> None:
    """List the runs below a folder, or remove some.

    \b
    harness runs                              those in runs/
    harness runs --latest                     of each benchmark and model the newest finished one
    harness runs elsewhere/ --json
    harness runs rm latest:gsm8k/sft
    harness runs rm 'runs/*/try-*/*' --yes
    """


@command.command("list")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--latest", is_flag=True, help="The newest finished run of each benchmark and model alone.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, with the intervals and what is doubtful.")
def list_runs(folder: Path | None, latest: bool, as_json: bool) -> None:
    """List the runs below FOLDER, or runs/: benchmark, model, when it began, state, samples, headline metric, path.

    A state is finished, going, judging, stopped (the command that began it goes on with it) or unreadable.
    """
    import json

    from harness.reports.samples import on_one_line
    from harness.reports.tables import table
    from harness.reports.view.folder import RunsFolder
    from harness.runs.selecting import RUNS

    named, folder = folder is not None, folder or Path(RUNS)
    found = RunsFolder(folder).rows() if named or folder.exists() else []
    if latest:  # of those that are listed by time, the last of each
        done = sorted((row for row in found if row.state == "finished"), key=lambda row: row.created)
        found = list({(row.benchmark, row.model): row for row in done}.values())
    rows = sorted(found, key=lambda row: (row.benchmark, row.model, row.created, row.name))
    if as_json:
        click.echo(json.dumps([_record(row, folder) for row in rows], indent=2))
    elif not rows:
        click.echo(f"no runs in {folder}")
    else:
        head = ["benchmark", "model", "begun (UTC)", "state", "samples", "metric", "value", "run"]
        click.echo(table(head, [[on_one_line(cell) for cell in _cells(row, folder)] for row in rows]))


@command.command("rm")
@runs_argument(latest=False, metavar="RUN...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def remove_runs(runs: tuple[Path, ...], yes: bool) -> None:
    """Remove the folders of RUNs for good; one that a process is at work on is refused."""
    from harness.reports.samples import on_one_line
    from harness.runs.selecting import remove

    if not yes and not sys.stdin.isatty():
        raise ConfigError("nobody can be asked here: give --yes to remove them without that")
    for path in dict.fromkeys(runs):
        if yes or click.confirm(f"remove {on_one_line(str(path))}?", err=True):
            remove(path)
            click.echo(f"removed {on_one_line(str(path))}")


def _record(row: ListedRun, folder: Path) -> dict[str, Any]:
    from dataclasses import asdict

    said = {name: value for name, value in asdict(row).items() if name not in ("key", "name")}
    return {"path": str(folder / row.name), **said}


def _cells(row: ListedRun, folder: Path) -> list[str]:
    figure = row.headline
    value = "" if figure is None or figure.value is None else f"{100 * figure.value:.1f}%"
    return [
        row.benchmark,
        row.model,
        row.created[:16].replace("T", " "),
        row.state,
        f"{row.n:,}" if row.n == row.selected else f"{row.n:,} of {row.selected:,}",
        "" if figure is None else f"{figure.metric} ({figure.reader})",
        value,
        str(folder / row.name),
    ]
