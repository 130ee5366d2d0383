"""`harness doctor`: what this machine has of what the harness can use."""

from __future__ import annotations

import click


@click.command("doctor")
@click.option("--data", metavar="DIR", help="A data folder: say which benchmarks it has.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.option("--no-plugin", "disabled", multiple=True, metavar="NAME", help="Leave out a plugin or a distribution.")
def command(data: str | None, as_json: bool, disabled: tuple[str, ...]) -> None:
    """Say which versions, GPUs, engines, caches and data there are, what is missing, and how to have it.

    \b
    harness doctor
    harness doctor --data DIR --json
    """
    import json
    from dataclasses import asdict

    from harness.registry import Registry
    from harness.reports.doctor import examine

    found = examine(data, Registry(disabled))
    click.echo(json.dumps(asdict(found), indent=2) if as_json else found.text())
