"""`harness merge`: a model of an adapter and its base."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import tell_place


@click.command("merge")
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the model.")
@click.option("--base", metavar="MODEL", help="Model below it.  [default: what the adapter names]")
def command(adapter: Path, out: Path, base: str | None) -> None:
    """Write the model that ADAPTER, a folder in peft's format, makes of its base, and print its folder.

    The base's weights are read in fp32, so that sums are rounded once.

    \b
    harness merge sft/last/adapter -o merged/
    harness merge adapter/ -o merged/ --base base/
    """
    from harness.training.merge import merge_adapter

    tell_place(merge_adapter(adapter, out, base=base))
