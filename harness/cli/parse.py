"""`harness parse`: read the answers out of model outputs, without a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from harness.cli.options import plugin_names

if TYPE_CHECKING:
    from harness.interfaces import Parser
    from harness.parsers import Explanation

#: So many characters before and behind the deciding words are shown.
_AROUND = 40


@click.command("parse")
@click.argument("name", shell_complete=plugin_names("parsers"))
@click.argument("file", required=False, type=click.Path(path_type=Path), default=Path("-"), metavar="[FILE]")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line: answer, and id where there is one.")
@click.option("--explain", is_flag=True, help="Say which rule read each answer, and mark where it stands.")
@click.option("--no-plugin", "disabled", multiple=True, metavar="NAME", help="Leave out a plugin or a distribution.")
def command(name: str, file: Path, as_json: bool, explain: bool, disabled: tuple[str, ...]) -> None:
    """Run the parser NAME over FILE, or over standard input, and print one answer a line as they are found.

    FILE holds an output a line, or JSON objects with an "output" and, for multiple choice, its "options"
    (samples.jsonl of a run will do); a name ending in .jsonl or .txt says which, else the first line does. An output
    without an answer gives an empty line. Bad lines do so too, and are told at the end with exit code 2.

    With --explain a line has three columns between tabs: the answer, the rule that read it, and the words around it
    with the deciding ones between »these marks«.

    \b
    harness parse final-number outputs.jsonl --explain
    echo 'So it is (B).' | harness parse choice
    """
    from harness.datasets.faults import Faults
    from harness.evaluation.outputs import read_answers

    parser = _parser(name, disabled)
    faults = Faults(Path("standard input") if file == Path("-") else file)
    out = sys.stdout
    records = {".jsonl": True, ".txt": False}.get(file.suffix)
    with _open(file) as stream, redirect_stdout(sys.stderr):  # what the parser prints is no answer
        for found in read_answers(_lines(stream, faults.path), parser, records=records, explain=explain):
            faults.add_any(found.line, found.fault)
            if as_json:
                known: dict[str, Any] = {
                    "line": found.line,
                    "id": found.id,
                    "answer": found.answer,
                    "error": found.fault,
                }
                if (why := found.explanation) is not None:
                    known |= {"rule": why.rule, "start": why.start, "end": why.end, "disagrees": why.disagrees}
                text = json.dumps({k: v for k, v in known.items() if v is not None or k == "answer"})
            elif found.explanation is not None:
                text = f"{found.answer or ''}\t{found.explanation.rule}\t{_marked(found.output, found.explanation)}"
            else:
                text = found.answer or ""
            out.write(text + "\n")
            out.flush()  # whoever reads a pipe waits for each answer
    faults.check()


def _parser(name: str, disabled: tuple[str, ...]) -> Parser:
    """Return the parser called `name`: without the core's packages, one of those that come with this package."""
    from harness.errors import PluginError, nearest

    if find_spec("pluggy") is not None:
        from harness.registry import Registry

        return Registry(disabled).parser(name)
    from harness.parsers.named import PARSERS

    own = {parser.name: parser for parser in PARSERS}
    if name not in own or disabled:
        remedy = "other packages' need pip install 'posttrain-harness[core]'"
        raise PluginError(f"no parser {name!r} among this package's own{nearest(name, own)}; {remedy}")
    return own[name]


def _marked(output: str, why: Explanation[str]) -> str:
    """Return the words around the deciding ones, on one line, these between marks; nothing where no words decide."""
    if why.end <= why.start:
        return ""
    before, behind = output[max(0, why.start - _AROUND) : why.start], output[why.end : why.end + _AROUND]
    deciding = output[why.start : why.end]
    if len(deciding) > 4 * _AROUND:
        deciding = f"{deciding[: 2 * _AROUND]} … {deciding[-2 * _AROUND :]}"
    return " ".join(f"{before}»{deciding}«{behind}".split())


def _lines(stream: BinaryIO, path: Path) -> Iterator[bytes]:
    from harness.errors import DataError
    from harness.files import each_line

    try:
        yield from each_line(stream)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _open(file: Path) -> BinaryIO:
    """Return the file, or standard input for ``-``, open for reading."""
    from harness.errors import DataError
    from harness.files import open_given

    if file == Path("-"):
        return sys.stdin.buffer
    try:
        return open_given(file)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error
