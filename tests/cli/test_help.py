"""What the command line says of itself: help with examples that hold, completion in shells, no colours where asked."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from harness.cli import COMMANDS, cli
from harness.reports.terminal import console
from tests.conftest import Command

ROOT = Path(__file__).parents[2]


def commands() -> list[tuple[str, click.Command]]:
    """Return every command that does something, with the words that name it."""
    found, context = [], click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        within = command.commands if isinstance(command, click.Group) else {"": command}
        found += [(f"{name} {sub}".strip(), each) for sub, each in within.items()]
    return found


def check_options(line: str) -> None:
    """Check that a line names a command, and options that it has."""
    words = shlex.split(line.split("| ")[-1])
    assert words.pop(0) == "harness"
    command: click.Command = cli
    while isinstance(command, click.Group):
        lists = command.name == "runs" and words[:1] != ["rm"]  # where no subcommand is named
        found = command.get_command(click.Context(cli), "list" if lists else words.pop(0))
        assert found is not None, line
        command = found
    options = {name for parameter in command.get_params(click.Context(cli)) for name in parameter.opts}
    assert {word for word in words if re.fullmatch(r"-[a-z]|--[a-z-]+", word)} <= options, line


def test_the_help_of_every_command_has_examples_that_hold(harness: Command) -> None:
    for name in COMMANDS:
        said = harness(name, "--help").out
        below = "".join(
            harness(*words.split(), "--help").out for words, _ in commands() if words.startswith(f"{name} ")
        )
        examples = re.findall(rf"(?m)^  ((?:echo .*)?harness {name}\b.*?)(?:  .*)?$", said + below)
        assert examples, name
        for line in examples:
            check_options(line)


PAGES = [*ROOT.glob("README.md"), *sorted((ROOT / "docs").glob("*.md"))]  # none beside a wheel


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_commands_that_pages_name_are_there(page: Path) -> None:
    for line in re.findall(r"(?m)^    (harness [^#|…\n]*)(?:#.*)?$", page.read_text(encoding="utf-8")):
        check_options(line.replace("[", "").replace("]", ""))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_commands_options_and_plugins(shell: str) -> None:
    def asked(**variables: str) -> str:
        program = "import sys; sys.argv = ['harness']; from harness.cli import main; main()"
        command, environment = [sys.executable, "-c", program], {**os.environ, **variables}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert not done.stderr
        return done.stdout

    assert "_HARNESS_COMPLETE" in asked(_HARNESS_COMPLETE=f"{shell}_source")
    begun = (
        ("harness ru", "1", "runs"),
        ("harness run -b gsm", "3", "gsm8k"),
        ("harness run --run-", "2", "--run-dir"),
    )
    for words, place, known in begun:
        last = words.split()[-1] if shell == "fish" else place
        assert known in asked(_HARNESS_COMPLETE=f"{shell}_complete", COMP_WORDS=words, COMP_CWORD=last)


def test_colours_are_left_out_where_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert console().no_color
    monkeypatch.setenv("NO_COLOR", "")
    assert not console().no_color
