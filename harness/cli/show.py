"""`harness show`: print samples of a run, or of two side by side, for error analysis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from harness.evaluation.recorded import Recorded

_KINDS = {
    "wrong": "Parsed, but not to the gold answer.",
    "unparsed": "No answer found.",
    "truncated": "Cut off before the end.",
    "failed": "The engine failed.",
    "lost": "Judged worse than the reference.",
    "unsafe": "Judged unsafe.",
    "unreadable": "The judge's reply is no verdict.",
}


def _kinds(command: Callable[..., Any]) -> Callable[..., Any]:
    for kind, meaning in reversed(_KINDS.items()):
        command = click.option(f"--{kind}", "kinds", flag_value=kind, multiple=True, help=meaning)(command)
    return command


@click.command("show")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("other", required=False, type=click.Path(path_type=Path))
@_kinds
@click.option("--flipped", type=click.Path(path_type=Path), metavar="OTHER", help="Right in RUN or in OTHER alone.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Of this group or category; may be repeated.")
@click.option("--grep", "pattern", metavar="REGEX", help="Found in the prompt or the output.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="This sample; may be repeated.")
@click.option("--judge", metavar="NAME", help="Whose verdict counts.  [default: the first judge]")
@click.option("--parser", metavar="NAME", help="Whose reading counts.  [default: the headline parser]")
@click.option("--sample", "count", type=click.IntRange(min=1), default=10, show_default=True, help="How many.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draw.")
@click.option("--json", "form", flag_value="json", help="One JSON object a line.")
@click.option("--markdown", "form", flag_value="markdown", help="As Markdown.")
def command(
    run: Path, other: Path | None, flipped: Path | None, count: int, seed: int, form: str | None, **wanted: Any
) -> None:
    """Print samples of RUN drawn at random: prompt, output, answers and gold answer, or the judge's words.

    With OTHER, a run over the same examples, what both made of each stands side by side. Of several kinds, a sample
    needs to be of one; all other conditions hold together.
    """
    from harness.errors import ConfigError
    from harness.evaluation.comparison import labels
    from harness.evaluation.picking import Wanted, draw, matching
    from harness.evaluation.recorded import read_run

    if other is not None and flipped is not None and other.resolve() != flipped.resolve():
        raise ConfigError(f"--flipped {flipped} and {other} are two runs; give one")
    second = other or flipped
    runs = [read_run(path) for path in (run, second) if path is not None]
    found = matching(runs[0], Wanted(**wanted), runs[1] if flipped is not None else None)
    rows = draw(found, len(found) if wanted["ids"] else count, seed)
    if form != "json":
        click.echo(_summary(runs[0], len(found), len(rows), wanted, flipped, seed))
    _print(runs, labels(runs), rows, wanted, form)


def _summary(run: Recorded, found: int, shown: int, wanted: dict[str, Any], flipped: Path | None, seed: int) -> str:
    """Say how many samples there are of those asked for, and how many are shown."""
    from harness.reports.samples import printable

    asked = " or ".join(wanted["kinds"])
    conditions = [
        *([f"that are {asked}"] if asked else []),
        *([f"flipped in {flipped}"] if flipped is not None else []),
        *([f"in {' or '.join(wanted['groups'])}"] if wanted["groups"] else []),
        *([f"with {wanted['pattern']!r} in them"] if wanted["pattern"] is not None else []),
    ]
    said = printable(f"samples{''.join(f' {each}' for each in conditions)} in {run.folder.path}")
    if not found:
        return f"no {said}"
    drawn = f", {shown} of them drawn with seed {seed}" if shown < found else ""
    return f"{found:,} of {len(run):,} {said}{drawn}\n"


def _print(
    runs: Sequence[Recorded], names: Sequence[str], rows: list[int], wanted: dict[str, Any], form: str | None
) -> None:
    from harness.evaluation.pairing import aligned
    from harness.evaluation.picking import said_about
    from harness.reports.show import Shown, as_markdown, as_record, print_entry
    from harness.reports.terminal import console

    orders = [aligned(runs[0], run) for run in runs]
    ids = {runs[0].ids[row] for row in rows}
    judge = wanted["judge"]
    said = [said_about(run, judge, ids) if judge in (None, *run.verdicts) else {} for run in runs]
    parsers = [sorted(run.config["parsers"], key=lambda name: name != wanted["parser"]) for run in runs]
    screen = console()
    for row in rows:
        samples = [run.sample(int(order[row])) for run, order in zip(runs, orders, strict=True)]
        shown = [
            Shown(name, sample, readers, verdicts.get(sample.id))
            for name, sample, readers, verdicts in zip(names, samples, parsers, said, strict=True)
        ]
        if form is None:
            print_entry(shown, screen)
        else:
            click.echo(as_record(shown) if form == "json" else as_markdown(shown) + "\n")
