"""`harness show`: print samples of a run, or of two side by side, for error analysis."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import ONE_RUN, run_argument

_VERDICT = re.compile(r"--[A-Za-z][\w-]*")

if TYPE_CHECKING:
    from harness.comparing.showing import Wanted
    from harness.runs.columns import Recorded

_KINDS = {
    "wrong": "Parsed, but not to the gold answer.",
    "unparsed": "No answer found.",
    "disagreeing": "A letter beside another option's text.",
    "differing-from-source": "Read otherwise than by the source of an imported run.",
    "truncated": "Cut off before the end.",
    "failed": "The engine, or a plugin that reads or scores outputs, failed.",
    "lost": "Judged worse than the reference.",
    "unsafe": "Judged unsafe.",
    "unreadable": "The judge's reply is no verdict.",
}


class _Show(click.Command):
    """Takes any other flag for a verdict: those of a third party's scorer are not known here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes = {name: isinstance(p, click.Option) and not p.is_flag for p in self.get_params(ctx) for name in p.opts}
        left: list[str] = []
        verdicts: list[str] = []
        words = iter(args)
        for word in words:
            if _VERDICT.fullmatch(word) and word not in takes:
                verdicts.append(word[2:])
                continue
            left.append(word)
            if takes.get(word) or word == "--":
                left += words if word == "--" else [value for value in [next(words, None)] if value is not None]
        rest = super().parse_args(ctx, left)
        kinds = ctx.params.pop("kinds")
        ctx.params.update(kinds=(*kinds, *verdicts))
        return rest


def _kinds(command: Callable[..., Any]) -> Callable[..., Any]:
    for kind, meaning in reversed(_KINDS.items()):
        command = click.option(f"--{kind}", "kinds", flag_value=kind, multiple=True, help=meaning)(command)
    return command


@click.command("show", cls=_Show)
@run_argument(metavar="RUN")
@click.argument("other", required=False, type=ONE_RUN)
@_kinds
@click.option("--flipped", type=ONE_RUN, metavar="OTHER", help="Right in RUN or in OTHER alone.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Of this group or category; may be repeated.")
@click.option("--grep", "pattern", metavar="REGEX", help="Found in the prompt or the output.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="This example, or ID#3, its sample 3; may be repeated.")
@click.option("--judge", metavar="NAME", help="Whose verdict counts.  [default: the first judge]")
@click.option("--parser", metavar="NAME", help="Whose reading counts.  [default: the headline parser]")
@click.option("--sample", "count", type=click.IntRange(min=1), default=10, show_default=True, help="How many.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draw.")
@click.option("--prompt", "whole", is_flag=True, help="The whole prompt as it was sent, not the instruction alone.")
@click.option("--json", "form", flag_value="json", help="One JSON object a line.")
@click.option("--markdown", "form", flag_value="markdown", help="As Markdown.")
def command(
    run: Path,
    other: Path | None,
    flipped: Path | None,
    count: int,
    seed: int,
    whole: bool,
    form: str | None,
    **wanted: Any,
) -> None:
    """Print samples of RUN drawn at random: instruction, output, answers and gold answer, or the judge's words.

    Any other flag is a verdict of the run's judge, as its scorer calls it: --polite.

    With OTHER, a run over the same examples, what both made of each stands side by side. Of several kinds, a sample
    needs to be of one; all other conditions hold together.

    \b
    harness show latest:gsm8k/ckpt --wrong --sample 10
    harness show --latest --wrong
    harness show latest:gsm8k/base --flipped latest:gsm8k/ckpt
    harness show RUN --grep 'step [0-9]+' --json
    """
    from harness.comparing.comparison import labels
    from harness.comparing.showing import Wanted, draw, matching
    from harness.errors import ConfigError
    from harness.runs.columns import read_run

    if other is not None and flipped is not None and other.resolve() != flipped.resolve():
        raise ConfigError(f"--flipped {flipped} and {other} are two runs; give one")
    second = other or flipped
    runs = [read_run(path) for path in (run, second) if path is not None]
    asked = Wanted(**wanted)
    found = matching(runs[0], asked, runs[1] if flipped is not None else None)
    rows = draw(found, len(found) if asked.ids else count, seed)
    if form != "json":
        click.echo(_summary(runs[0], len(found), len(rows), asked, flipped, seed))
    _print(runs, labels(runs), rows, asked, whole, form)


def _summary(run: Recorded, found: int, shown: int, wanted: Wanted, flipped: Path | None, seed: int) -> str:
    """Say how many samples there are of those asked for, and how many are shown."""
    from harness.reports.samples import printable

    asked = " or ".join(wanted.kinds)
    conditions = [
        *([f"that are {asked}"] if asked else []),
        *([f"in {' or '.join(wanted.groups)}"] if wanted.groups else []),
        *([f"with {wanted.pattern!r} in them"] if wanted.pattern is not None else []),
    ]
    beside = f" that are right in it alone, or in {flipped} alone" if flipped is not None else ""
    said = printable(f"samples{''.join(f' {each}' for each in conditions)} in {run.path}{beside}")
    if not found:
        return f"no {said}"
    drawn = f", {shown} of them drawn with seed {seed}" if shown < found else ""
    return f"{found:,} of {len(run):,} {said}{drawn}\n"


def _print(
    runs: Sequence[Recorded], names: Sequence[str], rows: list[int], wanted: Wanted, whole: bool, form: str | None
) -> None:
    from harness.comparing.pairing import paired_rows
    from harness.comparing.showing import said_about
    from harness.evaluation.instructions import instructions
    from harness.registry import Registry
    from harness.reports.show import Shown, as_markdown, as_record, print_entry
    from harness.reports.terminal import console

    orders = [paired_rows(runs[0], run) for run in runs]
    ids = {runs[0].ids[row] for row in rows}
    judge = wanted.judge
    said = [said_about(run, judge, ids) if judge in (None, *run.verdicts) else {} for run in runs]
    parsers = [sorted(run.record.parsers, key=lambda name: name != wanted.parser) for run in runs]
    screen, registry = console(), Registry()
    asked = [None if whole else instructions(run.record, registry) for run in runs]
    for row in rows:
        samples = [run.sample(int(order[row])) for run, order in zip(runs, orders, strict=True)]
        shown = [
            Shown(name, sample, readers, verdicts.get(sample.key), None if instruction is None else instruction(sample))
            for name, sample, readers, verdicts, instruction in zip(names, samples, parsers, said, asked, strict=True)
        ]
        if form is None:
            print_entry(shown, screen)
        else:
            click.echo(as_record(shown) if form == "json" else as_markdown(shown) + "\n")
