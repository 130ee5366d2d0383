"""What the command line says of itself: help with examples that hold, completion in shells, no colours where asked."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import cast

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
    """Check that a line names a command, and that click takes its words: options that there are, values of theirs."""
    words = shlex.split(line.replace("…", ""))
    assert words.pop(0) == "harness"
    command, context = cast(click.Command, cli), click.Context(cli, info_name="harness")
    while isinstance(command, click.Group) and words and words[0] not in ("-h", "--help", "--version"):
        lists = command.name == "runs" and words[0] != "rm"  # where no subcommand is named
        found = command.get_command(context, "list" if lists else words.pop(0))
        assert found is not None, line
        command, context = found, click.Context(found, info_name=found.name, parent=context)
    verdicts = command.name == "show"  # takes any other flag for a verdict
    try:
        given, _, order = command.make_parser(context).parse_args(list(words))
    except click.NoSuchOption:
        assert verdicts, line
        return
    except click.BadOptionUsage:
        assert words[-1].startswith("-"), line  # an option that is spoken of, without a value
        return
    for parameter in order:
        if isinstance(parameter.type, click.Choice) and isinstance(value := given[str(parameter.name)], str):
            assert value.isupper() or value in parameter.type.choices, line


def test_the_help_of_every_command_has_examples_that_hold(harness: Command) -> None:
    for name in COMMANDS:
        said = harness(name, "--help").out
        below = "".join(
            harness(*words.split(), "--help").out for words, _ in commands() if words.startswith(f"{name} ")
        )
        examples = re.findall(rf"(?m)^  ((?:echo .*)?harness {name}\b.*?)(?:  .*)?$", said + below)
        assert examples, name
        for line in examples:
            check_options(line.split("| ")[-1])


#: None beside a wheel.
PAGES = [path for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md") if (path := ROOT / name).exists()]
PAGES += [*sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]

#: A command in a block, behind a prompt, variables, torchrun or a shell's words; and one in a line of text.
_IN_BLOCK = re.compile(r"(?m)^(?:    )?(?:\$ )?(?:for .* do |[A-Z_]+=\S+ |torchrun .* -m )*(harness [^#\n]*)")
_IN_LINE = re.compile(r"(?<!`)`(harness [^`\n]+)`(?!`)")


def commands_of(text: str) -> list[str]:
    """Return the commands that a page names, each up to what the shell does with it."""
    fenced = re.findall(r"(?ms)^```(?:console|sh)?\n(.*?)^```$", text)
    blocks = "\n".join([*fenced, *re.findall(r"(?m)^    .*$", text)])
    found = [*_IN_BLOCK.findall(blocks), *_IN_LINE.findall(text)]
    return [re.split(r" [|&;>] | && |; |(?<=\S)  +", line)[0].replace("[", "").replace("]", "") for line in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_commands_that_pages_name_are_there(page: Path) -> None:
    for line in commands_of(page.read_text(encoding="utf-8")):
        if line != "harness COMMAND --help":
            check_options(line)


def test_commands_are_found_wherever_they_stand() -> None:
    page = "    A=b harness run -m x | jq  # …\n\n```console\n$ harness show RUN --wrong\n```\n"
    page += "See `harness runs rm RUN`.\n"
    page += "    torchrun --nproc-per-node 4 -m harness train sft [CONFIG]\n"
    assert commands_of(page) == [
        "harness show RUN --wrong", "harness run -m x", "harness train sft CONFIG", "harness runs rm RUN",
    ]  # fmt: skip
    for wrong in ("rum -m x", "compare --marckdown", "train --recipe x", "export --forced RUN", "report --format pdf"):
        with pytest.raises((AssertionError, click.UsageError)):
            check_options(f"harness {wrong}")


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
