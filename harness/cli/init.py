"""`harness init`: a folder to begin with."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("init")
def command() -> None:
    """Write a folder to begin with.

    \b
    harness init assignment work/
    make -C work MODEL=base/ JUDGE=judge/
    """


@command.command("assignment")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
def assignment(folder: Path) -> None:
    """Write CS336's assignment on alignment to DIR: a Makefile, recipes, and a page with each problem's commands.

    `make -C DIR MODEL=BASE JUDGE=JUDGE` then does all of it, and goes on where it was killed.
    """
    from harness.templates import write_assignment

    for path in write_assignment(folder):
        click.echo(path)
    click.echo(f"next: harness doctor; make -C {folder} MODEL=BASE JUDGE=JUDGE -n")
