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
@click.option(
    "-e",
    "--engine",
    metavar="NAME",
    help="Over --device: transformers, vllm or ray; --set gives its options.",
)
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
    engine: str | None,
    documents: Path | None,
) -> None:
    """Print mean loss, perplexity and bits per byte of a model on FILE, with 95% intervals over documents.

    Files are what `harness train sft` takes, rendered as a training would. Rows are packed, so that no time is lost to
    padding.

    \b
    harness loss test.jsonl -m ckpt/
    harness loss a.jsonl b.jsonl -m ckpt/ --loss all --documents losses.jsonl
    harness loss test.jsonl -m ckpt/ -e ray --set ray.engine=vllm --set ray.replicas=4
    """
    from harness.cli.data import named_columns
    from harness.config import assignments
    from harness.errors import ConfigError
    from harness.registry import Registry
    from harness.reports.loss import document_lines, loss_table
    from harness.respondent import choose_engine, engine_tables
    from harness.training.loss import measure_loss

    of_template = [pair for pair in pairs if pair.startswith("chat_template.")]
    tables = assignments(pair for pair in pairs if pair not in of_template)
    if tables and engine is None:
        raise ConfigError("--set goes with --engine NAME: it gives the engine's options")
    by = None if engine is None else choose_engine(engine, tables, Registry())[0]
    if by is not None and (unknown := set(tables) - set(engine_tables(by))):
        raise ConfigError(f"--set {min(unknown)}: an option of none of {', '.join(engine_tables(by))}")
    found: Losses = measure_loss(
        files, model, loss=loss, columns=named_columns(columns), prompt_format=prompt_format, on_bad_rows=on_bad_rows,
        device=device, engine=by, said=said_of_prompts(system, template, of_template),
    )  # fmt: skip
    click.echo(loss_table(found))
    if documents is not None:
        from harness.files import replace_file

        replace_file(documents, document_lines(found))
        click.echo(documents)
