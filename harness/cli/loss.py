"""`harness loss`: the loss of a model on data files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import prompt_options, said_of_prompts

if TYPE_CHECKING:
    from harness.training.data.packing import Loss
    from harness.training.data.texts import BadRows
    from harness.training.loss import Losses


@click.command("loss")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-m", "--model", required=True, metavar="DIR", help="Folder of the model, or a name on the hub.")
@click.option("--loss", type=click.Choice(["responses", "all"]), default="responses", show_default=True)
@click.option("--prompt-format", metavar="NAME", help="Over the model's: a shipped format or a .prompt file.")
@prompt_options
@click.option("--columns", metavar="NAMES", help="Such as prompt=q,response=a.")
@click.option("--on-bad-rows", type=click.Choice(["refuse", "skip"]), default="refuse", help="Or leave them out.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu or cuda.")
@click.option("--documents", type=click.Path(path_type=Path), metavar="OUT.jsonl", help="Write each document's loss.")
def command(
    files: tuple[str, ...],
    model: str,
    loss: Loss,
    prompt_format: str | None,
    system: str | None,
    template: str | None,
    pairs: tuple[str, ...],
    columns: str | None,
    on_bad_rows: BadRows,
    device: str,
    documents: Path | None,
) -> None:
    """Print mean loss, perplexity and bits per byte of a model on FILE, with 95% intervals over documents.

    Files are what `harness train sft` takes, rendered as a training would. Rows are packed, so that no time is lost to
    padding.

    \b
    harness loss test.jsonl -m ckpt/
    harness loss a.jsonl b.jsonl -m ckpt/ --loss all --documents losses.jsonl
    """
    from harness.cli.data import named_columns
    from harness.reports.loss import document_lines, loss_table
    from harness.training.loss import measure_loss

    found: Losses = measure_loss(
        files, model, loss=loss, columns=named_columns(columns), prompt_format=prompt_format, on_bad_rows=on_bad_rows,
        device=device, said=said_of_prompts(system, template, pairs),
    )  # fmt: skip
    click.echo(loss_table(found))
    if documents is not None:
        from harness.files import replace_file

        replace_file(documents, document_lines(found))
        click.echo(documents)
