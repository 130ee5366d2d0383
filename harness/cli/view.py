"""`harness view`: a local page over a folder of runs."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import warn


@click.command("view")
@click.argument("runs", type=click.Path(path_type=Path), default="runs")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 takes one that is free."
)
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
def command(runs: Path, host: str, port: int, open_it: bool) -> None:
    """Show the runs below the folder RUNS as a local page: list them, compare them, read them, follow them.

    It can be reached from this machine alone, unless --host says otherwise, and changes nothing. Ctrl-C ends it.

    \b
    harness view --open
    harness view elsewhere/ --port 0
    """
    from harness.reports.view.serving import serve

    def ready(address: str, loopback: bool) -> None:
        if not loopback:
            said = f"whoever can reach {address} can read every run in {runs}; there is no password"
            warn([said])
        click.echo(f"{address}  (the runs in {runs}; Ctrl-C ends it)")
        if open_it:
            click.launch(address)

    serve(runs, host, port, ready)
