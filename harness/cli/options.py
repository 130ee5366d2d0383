"""Options that more than one command takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_MODEL = (
    click.option(
        "-m", "--model", metavar="MODEL", help="Checkpoint folder, hub name, server's model, or outputs.jsonl."
    ),
    click.option("-e", "--engine", metavar="NAME", help="vllm, transformers, openai, replay.  [default: auto]"),
    click.option("--prompt-format", metavar="NAME", help="Over the checkpoint's: a shipped format or a .prompt file."),
    click.option(
        "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="An option, or a plugin's: gsm8k.split=train."
    ),
    click.option(
        "--no-plugin", "disabled", multiple=True, metavar="NAME", help="Leave out a plugin or a distribution."
    ),
)

_DATA = click.option("--data", metavar="DIR", help="Data folder; without it, the Hugging Face hub.")

_JUDGE = (
    click.option("-j", "--judge", "judge_model", metavar="MODEL", help="Model that judges; as --model."),
    click.option("--judge-engine", metavar="NAME", help="What runs it, with options judge.*.  [default: auto]"),
    click.option("--judge-prompt-format", metavar="NAME", help="How it is asked; as --prompt-format."),
)


def warn(warnings: Iterable[str]) -> None:
    """Print warnings on standard error, made `printable`."""
    from harness.reports.samples import printable

    for warning in warnings:
        click.echo(f"warning: {printable(warning)}", err=True)


def judge_options(function: F) -> F:
    """Add the options that say who judges."""
    for option in reversed(_JUDGE):
        function = option(function)
    return function


def model_options(function: F) -> F:
    """Add the options that say which model is asked and how."""
    for option in reversed(_MODEL):
        function = option(function)
    return function


def evaluation_options(function: F) -> F:
    """Add the options that say what is evaluated and how."""
    return model_options(_DATA(function))
