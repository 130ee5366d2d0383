"""`harness data`: look at training data before hours of GPU time are spent on it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from harness.cli.options import warn

if TYPE_CHECKING:
    from harness.prompts import PromptFormat
    from harness.reports.look import Look
    from harness.reports.look_pairs import PairLook

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
@click.option("--columns", metavar="NAMES", help="Such as prompt=q,response=a; of pairs, prompt=q,chosen=a,rejected=b.")
@click.option("--loss", type=click.Choice(["responses", "all"]), default="responses", show_default=True)
@click.option("--seq-length", type=click.IntRange(min=1), default=2048, show_default=True, help="Tokens a row.")
def look(
    files: tuple[str, ...],
    model: str,
    sample: int,
    seed: int,
    prompt_format: str | None,
    columns: str | None,
    loss: str,
    seq_length: int,
) -> None:
    """Show examples of FILE drawn at random, as text and as tokens with the loss mask, and a summary of the whole.

    Files are JSON Lines, JSON, CSV (also .gz, .zst) or Parquet with prompt and response, Alpaca's columns, or messages;
    or preference pairs, with chosen and rejected: texts beside a prompt, messages, or transcripts as in Anthropic's HH.
    """
    from harness.engines.models import context_length, load_tokenizer
    from harness.training.pairs import holds_pairs
    from harness.training.texts import training_format

    tokenizer = load_tokenizer(model)
    choice = training_format(model, prompt_format, tokenizer)
    names = _columns(columns)
    look_at = _pairs if holds_pairs(files, names) else _texts
    shown = look_at(files, names, choice.format, tokenizer, loss)
    for index in shown.drawn(sample, seed):
        click.echo(f"{shown.example(index)}\n", color=shown.colour)
    click.echo(f"prompt format {choice.format.name} ({choice.reason})")
    click.echo(shown.summary(seq_length))
    context = context_length(model)
    warnings = [*choice.warnings]
    if context is not None and seq_length > context:
        warnings.append(f"--seq-length {seq_length:,} is above the {context:,} tokens that the model can attend to")
    warn(warnings)


def _texts(files: Sequence[str], columns: _Columns, form: PromptFormat, tokenizer: Any, loss: str) -> Look | PairLook:
    from harness.reports.look import Look
    from harness.training.texts import read_texts
    from harness.training.tokens import cache_folder, tokenize

    texts = read_texts(files, columns=columns, empty=True)
    tokens = tokenize(texts, form, tokenizer, cache=cache_folder())
    return Look(texts, tokens, tokenizer, "all" if loss == "all" else "responses", _colour())


def _pairs(files: Sequence[str], columns: _Columns, form: PromptFormat, tokenizer: Any, loss: str) -> Look | PairLook:
    from harness.errors import ConfigError
    from harness.reports.look_pairs import PairLook
    from harness.training.pairs import Sides, read_pairs
    from harness.training.tokens import cache_folder, tokenize

    if loss == "all":
        raise ConfigError("--loss all is for texts; of pairs the responses are compared")
    pairs = read_pairs(files, columns=columns)
    pairs.check()
    tokens = tokenize(Sides(pairs), form, tokenizer, cache=cache_folder())
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    return PairLook(pairs, tokens, tokenizer, width, _colour())


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _columns(text: str | None) -> _Columns:
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
