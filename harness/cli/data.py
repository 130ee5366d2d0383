"""`harness data`: look at training data before hours of GPU time are spent on it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from harness.cli.options import prompt_options, said_of_prompts, warn

if TYPE_CHECKING:
    from harness.prompts import PromptFormat
    from harness.reports.data_preview import Look
    from harness.reports.pairs_preview import PairLook
    from harness.training.data.texts import BadRows, Learn

_Columns: TypeAlias = Mapping[str, str] | None


@click.group("data")
def command() -> None:
    """Look at training data."""


@command.command("look")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-m", "--model", required=True, metavar="DIR", help="Model whose tokenizer reads it; no weights needed.")
@click.option("--sample", type=click.IntRange(min=0), default=10, show_default=True, help="How many examples.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the draw.")
@click.option("--prompt-format", metavar="NAME", help="Over the model's: a shipped format or a .prompt file.")
@prompt_options
@click.option("--columns", metavar="NAMES", help="Such as prompt=q,response=a; of pairs, prompt=q,chosen=a,rejected=b.")
@click.option("--loss", type=click.Choice(["responses", "all"]), default="responses", show_default=True)
@click.option(
    "--learn", type=click.Choice(["last", "all"]), default="last", help="The last response of a chat, or all."
)
@click.option(
    "--on-bad-rows", type=click.Choice(["refuse", "skip"]), default="refuse", help="Or leave them out, counted."
)
@click.option("--seq-length", type=click.IntRange(min=1), default=2048, show_default=True, help="Tokens a row.")
@click.option("--against", multiple=True, metavar="BENCHMARK", help="Count texts that hold 13 words of its items.")
@click.option("--data", metavar="DIR", help="Data folder of that benchmark; without it, the Hugging Face hub.")
def look(
    files: tuple[str, ...],
    model: str,
    sample: int,
    seed: int,
    prompt_format: str | None,
    system: str | None,
    template: str | None,
    pairs: tuple[str, ...],
    columns: str | None,
    loss: str,
    learn: Learn,
    on_bad_rows: BadRows,
    seq_length: int,
    against: tuple[str, ...],
    data: str | None,
) -> None:
    """Show examples of FILE drawn at random, as text and as tokens with the loss mask, and a summary of the whole.

    Files are JSON Lines, JSON, CSV (also .gz, .zst) or Parquet with prompt and response, Alpaca's columns, or messages;
    or preference pairs, with chosen and rejected: texts beside a prompt, messages, or transcripts as in Anthropic's HH.

    \b
    harness data look train.jsonl.gz -m base/ --sample 3
    harness data look harmless-base.jsonl.gz -m base/
    """
    from harness.models import find_model
    from harness.training.data.pairs import holds_pairs
    from harness.training.data.texts import training_format

    folder = find_model(model)
    tokenizer = folder.tokenizer
    choice = training_format(model, prompt_format, tokenizer, said_of_prompts(system, template, pairs))
    names = named_columns(columns)
    if holds_pairs(files, names):
        shown = _pairs(files, names, choice.format, tokenizer, loss, on_bad_rows)
    else:
        shown = _texts(files, names, choice.format, tokenizer, loss, on_bad_rows, learn)
    for index in shown.drawn(sample, seed):
        click.echo(f"{shown.example(index)}\n", color=shown.colour)
    click.echo(f"prompt format {choice.format.name} ({choice.reason})")
    click.echo(shown.summary(seq_length))
    for benchmark in against:
        click.echo("\n" + "\n".join(_shared(benchmark, data, shown)))
    warnings = [*choice.warnings]
    if folder.context is not None and seq_length > folder.context:
        warnings.append(
            f"--seq-length {seq_length:,} is above the {folder.context:,} tokens that the model can attend to"
        )
    warn(warnings)


def _texts(
    files: Sequence[str],
    columns: _Columns,
    form: PromptFormat,
    tokenizer: Any,
    loss: str,
    on_bad_rows: BadRows,
    learn: Learn,
) -> Look | PairLook:
    from harness.reports.data_preview import Look
    from harness.training.data.texts import read_texts
    from harness.training.data.tokens import cache_folder, fitting, tokenize

    texts = read_texts(
        files, columns=columns, empty=True, learn=learn, on_bad_rows=on_bad_rows, fits=fitting(form, tokenizer)
    )
    tokens = tokenize(texts, form, tokenizer, cache=cache_folder())
    return Look(texts, tokens, tokenizer, "all" if loss == "all" else "responses", _colour())


def _pairs(
    files: Sequence[str], columns: _Columns, form: PromptFormat, tokenizer: Any, loss: str, on_bad_rows: BadRows
) -> Look | PairLook:
    from harness.errors import ConfigError
    from harness.reports.pairs_preview import PairLook
    from harness.training.data.pairs import Sides, read_pairs
    from harness.training.data.tokens import cache_folder, tokenize

    if loss == "all":
        raise ConfigError("--loss all is for texts; of pairs the responses are compared")
    pairs = read_pairs(files, columns=columns, several=not form.single_turn, on_bad_rows=on_bad_rows)
    pairs.check()
    tokens = tokenize(Sides(pairs), form, tokenizer, cache=cache_folder())
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    return PairLook(pairs, tokens, tokenizer, width, _colour())


def _shared(name: str, data: str | None, shown: Look | PairLook) -> Sequence[str]:
    """Return what the texts that are looked at share with a benchmark, in lines."""
    from harness.reports.samples import printable
    from harness.training.data.contamination import against

    return [printable(line) for found in against([name], data, shown.parts) for line in found.lines()]


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def named_columns(text: str | None) -> _Columns:
    """Return the columns in ``prompt=question,response=answer``."""
    from harness.errors import ConfigError

    if text is None:
        return None
    columns = {}
    for pair in text.split(","):
        role, equals, name = pair.partition("=")
        if not (role.strip() and equals and name.strip()):
            raise ConfigError(f"--columns {text!r} must look like prompt=question,response=answer")
        columns[role.strip()] = name.strip()
    return columns
