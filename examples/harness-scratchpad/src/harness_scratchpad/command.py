"""The command ``harness-scratchpad``: training data for ``harness train sft``."""

from __future__ import annotations

import json
from pathlib import Path

import click
from harness.errors import ConfigError

from harness_scratchpad.addition import ADDITION
from harness_scratchpad.polynomial import POLYNOMIAL
from harness_scratchpad.problems import LONGEST, Kind, response
from harness_scratchpad.program import PROGRAM

KINDS = {kind.name: kind for kind in (ADDITION, POLYNOMIAL, PROGRAM)}


@click.group()
def main() -> None:
    """Training data for the benchmarks of harness-scratchpad."""


def _lengths(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Return the lengths in a text such as ``2,3,4``."""
    if value is None:
        return None
    try:
        lengths = tuple(dict.fromkeys(map(int, value.split(","))))
    except ValueError:
        raise click.BadParameter(f"{value!r} must look like 2,3,4") from None
    if not all(1 <= length <= LONGEST for length in lengths):
        raise click.BadParameter(f"lengths must be from 1 to {LONGEST}, not {value}")
    return lengths


@main.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--benchmark", type=click.Choice(list(KINDS)), required=True, help="Which problems.")
@click.option("--count", type=click.IntRange(min=1), default=5000, show_default=True, help="How many in all.")
@click.option("--seed", type=int, default=1, show_default=True, help="Other problems for another seed.")
@click.option(
    "--lengths",
    metavar="2,3,4",
    callback=_lengths,
    help="Digits, degrees or steps.  [default: the benchmark's]",
)
@click.option("--scratchpad/--no-scratchpad", default=True, help="Show the work, or the answer alone.")
def write(file: Path, benchmark: str, count: int, seed: int, lengths: tuple[int, ...] | None, scratchpad: bool) -> None:
    """Write FILE: problems with their answers, as many of each length, a JSON object with prompt and response a line.

    None of them is a problem of the benchmark, whatever its options.
    """
    kind = KINDS[benchmark]
    try:
        lines = _lines(kind, count, seed, lengths or kind.lengths, scratchpad)
        file.write_text("".join(lines), encoding="utf-8")
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.UsageError(f"cannot write {file}: {error.strerror}") from error
    click.echo(f"{file}: {len(lines):,} problems")


def _lines(kind: Kind, count: int, seed: int, lengths: tuple[int, ...], scratchpad: bool) -> list[str]:
    lines = []
    for place, length in enumerate(lengths):
        share = (count - place + len(lengths) - 1) // len(lengths)
        for problem in kind.problems(length, share, seed, test=False):
            texts = {
                "prompt": kind.instruction(problem.question, scratchpad),
                "response": f" {response(problem, scratchpad)}",
            }
            lines.append(json.dumps(texts) + "\n")
    return lines
