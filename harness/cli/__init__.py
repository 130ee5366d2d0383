"""The command `harness`: one module a command, imported when that command is used."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from harness.cli.ending import tell_of_exits
from harness.errors import HarnessError, first_line

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

#: Command → what it does, for ``harness --help``, which imports none of their modules.
COMMANDS = {
    "compare": "Say what changed between runs, and by how much more than chance.",
    "chat": "Talk to a model, and keep a transcript.",
    "curve": "Plot perplexity against benchmarks over a training's checkpoints.",
    "data": "Look at training data.",
    "doctor": "Say what this machine has, what is missing, and how to have it.",
    "export": "Write a run in the form that another tool reads.",
    "import": "Make runs of outputs that another tool recorded.",
    "init": "Write a folder to begin with: the assignment's.",
    "judge": "Have a model judge the responses of finished runs.",
    "loss": "Say how well a model foretells texts: loss, perplexity, bits a byte.",
    "merge": "Make a model of an adapter and its base.",
    "parse": "Read the answers out of model outputs, one a line, without a run.",
    "plan-size": "Say how many examples would show a difference.",
    "plugins": "List the installed plugins and their status.",
    "preview": "Show the exact prompt of an example, without loading the model.",
    "report": "Write a self-contained HTML page on runs.",
    "run": "Evaluate a model on one or more benchmarks.",
    "runs": "List the runs in a folder, or remove some.",
    "score": "Score the recorded outputs of a run again, without a model.",
    "show": "Print samples of a run, for error analysis.",
    "train": "Train a model, such as by instruction tuning.",
    "view": "Show a folder of runs as a local page.",
}


#: The modules of commands whose names are words of the language.
_MODULES = {"import": "import_outputs"}

#: The modules of the extra ``core``, which every other extra brings.
CORE = ("jsonlines", "msgspec", "numpy", "pluggy", "pydantic", "regex", "rich", "scipy", "tqdm")


class _Commands(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = _MODULES.get(cmd_name, cmd_name.replace("-", "_"))
        command: click.Command = import_module(f"harness.cli.{module}").command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin so, without importing their modules, and the options."""
        from click.shell_completion import CompletionItem

        named = [
            CompletionItem(name, help=said) for name, said in sorted(COMMANDS.items()) if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from harness.errors import nearest

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="posttrain-harness", message="harness %(version)s")
def cli() -> None:
    """Measure a language model, tune it, measure it again, and say honestly what changed."""


#: What the machine denies whatever the command does: room, rights, files, a disk that works.
_OF_THE_MACHINE = frozenset(
    {
        errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC,
        errno.EPERM, errno.EROFS, errno.ESTALE,
    }
)  # fmt: skip


#: What no path can be.
_NO_PATH = frozenset({errno.ENAMETOOLONG, errno.ELOOP})

#: What to do where a device's memory does not do; torch's error for that is known by its name, for torch is not loaded.
_LESS_MEMORY = (
    'for a training give a smaller microbatch_size, recompute="full" or lora_rank (--plan says what each needs), for '
    "an engine a smaller batch, and the same command again"
)


def main() -> None:
    """Run the command line: exit 0 on success, 1 when a run has failures, 2 on bad input, 130 when interrupted."""
    tell_of_exits()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode gets question marks, not a traceback
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except HarnessError as error:
        _debug()
        _say(str(error))
        sys.exit(2)
    except click.ClickException as error:
        from harness.reports.samples import printable

        told = io.StringIO()
        error.show(told)
        click.echo(printable(told.getvalue()), nl=False, err=True)  # it may quote a name that the shell has filled in
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted; give the same command again to go on")
        sys.exit(130)
    except Exception as error:
        _debug()
        if (known := _known(error)) is not None:
            _say(known)
            sys.exit(2)
        _say(f"internal error: {type(error).__name__}: {error} (HARNESS_DEBUG=1 shows where; please report it)")
        sys.exit(70)


def _known(error: Exception) -> str | None:
    """Return what is said of an error that no code of ours looks for, and that is no fault of ours; None for others."""
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing in CORE:
        return f"{missing} is not installed: pip install 'posttrain-harness[core]'"
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return f"out of memory: {first_line(error)}; {_LESS_MEMORY}"
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}; mend that and give the same command again"
    if isinstance(error, OSError) and error.errno in _NO_PATH:
        return f"{str(error.filename)[:80]}: {error.strerror}; give another path"
    if isinstance(error, ValueError) and str(error).startswith("embedded null"):
        return "a path holds a null character; give another"
    return None


def _debug() -> None:
    if os.environ.get("HARNESS_DEBUG", "0") not in ("", "0"):
        raise  # called while the error is handled


def _say(message: str) -> None:
    from harness.reports.samples import printable

    with suppress(OSError):  # the terminal may be gone
        click.echo(f"harness: {printable(' '.join(message.split()))}", err=True)


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt
