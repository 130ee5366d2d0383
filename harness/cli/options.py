"""Options that more than one command takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from harness.prompts import FormatOptions

F = TypeVar("F", bound=Callable[..., Any])

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def plugin_names(*kinds: str) -> Complete:
    """Return what completes, in a shell, the names of the plugins of some kinds, by default of all."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        from harness.registry import Registry

        found = {plugin.name for plugin in Registry().plugins() if not kinds or plugin.kind in kinds}
        return sorted(name for name in found if name.startswith(incomplete))

    return complete


_SYSTEM = click.option("--system", metavar="TEXT|FILE", help="System message.")

_TEMPLATE = click.option("--template", metavar="NAME", help="Which of the model's several chat templates.")

_MODEL = (
    click.option(
        "-m", "--model", metavar="MODEL", help="Checkpoint folder, hub name, server's model, or outputs.jsonl."
    ),
    click.option(
        "-e",
        "--engine",
        metavar="NAME",
        shell_complete=plugin_names("engines"),
        help="vllm, transformers, openai, replay.  [default: auto]",
    ),
    click.option("--prompt-format", metavar="NAME", help="Over the checkpoint's: a shipped format or a .prompt file."),
    _SYSTEM,
    _TEMPLATE,
    click.option(
        "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="An option, or a plugin's: gsm8k.split=train."
    ),
    click.option(
        "--no-plugin", "disabled", multiple=True, metavar="NAME", help="Leave out a plugin or a distribution."
    ),
)

_DATA = click.option("--data", metavar="DIR", help="Data folder; without it, the Hugging Face hub.")

_SCORING = click.option(
    "--scoring", type=click.Choice(["generated", "loglikelihood", "both"]), default=None,
    help="What is read: the model's words, how likely it finds each option, or both.  [default: generated]",
)  # fmt: skip

_JUDGE = (
    click.option("-j", "--judge", "judge_model", metavar="MODEL", help="Model that judges; as --model."),
    click.option(
        "--judge-engine",
        metavar="NAME",
        shell_complete=plugin_names("engines"),
        help="What runs it, with options judge.*.  [default: auto]",
    ),
    click.option("--judge-prompt-format", metavar="NAME", help="How it is asked; as --prompt-format."),
)


groups_are_option = click.option(
    "--groups-are", type=click.Choice(["auto", "sample", "whole"]), default=None,
    help="Groups (MMLU's subjects) as a sample of more such groups, or the whole; auto: ten and more are a sample.",
)  # fmt: skip


class _RunPath(click.Path):
    """A run's folder, a pattern of folders, or ``latest:gsm8k/sft``: gives the paths that it stands for."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from harness.runs.selecting import found_runs

        return value if isinstance(value, list) else found_runs(str(value))


class _OneRunPath(click.Path):
    """As `_RunPath`, but what is given must stand for one path, which it gives."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from harness.runs.selecting import one_run

        return value if isinstance(value, Path) else one_run(str(value))


#: The type of an option that takes one run.
ONE_RUN = _OneRunPath(path_type=Path)

#: Where a command keeps whether it was asked for the newest: what is given for runs is read after it.
_LATEST = "harness.latest"


def _latest_option(meaning: str) -> Callable[[F], F]:
    def note(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        ctx.meta[_LATEST] = value

    return click.option("--latest", is_flag=True, is_eager=True, expose_value=False, callback=note, help=meaning)


def runs_argument(
    *, required: bool = True, latest: bool = True, compared: bool = False, **settings: Any
) -> Callable[[F], F]:
    """Return an argument that takes any number of runs, as `harness.runs.selecting.found_runs` finds them.

    With ``--latest``, if there is to be one, they are the newest of each benchmark and model among them, or in
    ``runs/`` where none is named; of runs to be `compared`, the newest over the same examples.
    """

    def flat(ctx: click.Context, param: click.Parameter, value: tuple[list[Path], ...]) -> tuple[Path, ...]:
        from harness.runs.selecting import RUNS, newest, newest_comparable

        found = tuple(path for paths in value for path in paths)
        if ctx.meta.get(_LATEST):
            places = found or (Path(RUNS),)
            kept, notes = newest_comparable(places) if compared else (newest(places), [])
            warn(notes)
            return tuple(kept)
        if required and not found:
            raise click.MissingParameter(ctx=ctx, param=param)
        return found

    def add(function: F) -> F:
        argument = click.argument("runs", nargs=-1, type=_RunPath(path_type=Path), callback=flat, **settings)
        over = ", over the same examples" if compared else ""
        meaning = f"The newest finished run of each benchmark and model{over}, of RUNs or of all in runs/."
        return _latest_option(meaning)(argument(function)) if latest else argument(function)

    return add


def run_argument(**settings: Any) -> Callable[[F], F]:
    """Return an argument that takes one run; with ``--latest`` the newest of what it stands for, or in ``runs/``."""

    def one(ctx: click.Context, param: click.Parameter, value: str | None) -> Path:
        from harness.runs.selecting import RUNS, found_runs, latest, one_run

        if ctx.meta[_LATEST]:
            return latest([Path(RUNS)] if value is None else found_runs(value))
        if value is None:
            raise click.MissingParameter(ctx=ctx, param=param)
        return one_run(value)

    def add(function: F) -> F:
        option = _latest_option("The newest finished run, of those that RUN stands for or of all in runs/.")
        return option(click.argument("run", required=False, type=click.Path(), callback=one, **settings)(function))

    return add


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


def prompt_options(function: F) -> F:
    """Add the options that say how texts are rendered, for commands that run no engine; see `said_of_prompts`."""
    pairs = click.option(
        "--set",
        "pairs",
        multiple=True,
        metavar="KEY=VALUE",
        help="An argument of it: chat_template.enable_thinking=false.",
    )
    return _SYSTEM(_TEMPLATE(pairs(function)))


def said_of_prompts(system: str | None, template: str | None, pairs: Iterable[str]) -> FormatOptions:
    """Return what `prompt_options` say; ConfigError for another table than ``chat_template``, and what does not fit."""
    from harness.config import assignments
    from harness.errors import ConfigError
    from harness.prompts import format_options

    table = assignments(pairs)
    arguments = table.pop("chat_template", {})
    for name in table:
        raise ConfigError(f"--set {name}: only arguments of the chat template are set here (chat_template.NAME=VALUE)")
    return format_options(system, template, arguments)


def evaluation_options(function: F) -> F:
    """Add the options that say what is evaluated and how."""
    return model_options(_DATA(_SCORING(function)))


def tell_place(path: Path, more: str = "") -> None:
    """Say where something was written: as it is to what goes on with it, and in a terminal without steering that."""
    from harness.reports.samples import on_one_line

    click.echo((on_one_line(str(path)) if sys.stdout.isatty() else str(path)) + more)
