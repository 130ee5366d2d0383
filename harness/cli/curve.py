"""`harness curve`: perplexity against benchmarks over the checkpoints of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.cli.options import evaluation_options, judge_options, plugin_names, tell_place, warn


@click.command("curve")
@click.argument("folder", type=click.Path(path_type=Path), metavar="TRAINING")
@click.argument("texts", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "-b", "--benchmark", multiple=True, required=True, metavar="NAME", shell_complete=plugin_names("benchmarks"),
    help="Benchmark, or a file of prompts; repeatable.",
)  # fmt: skip
@evaluation_options
@judge_options
@click.option("-o", "--out", metavar="DIR", help="Folder for run folders.  [default: runs]")
@click.option("-n", "--limit", type=int, metavar="N", help="A seeded sample of N examples, stratified by group.")
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE", help="[default: TRAINING/perplexity.svg]")
def command(
    folder: Path, texts: tuple[str, ...], pairs: tuple[str, ...], disabled: tuple[str, ...], picture: Path | None,
    **flags: Any,
) -> int:  # fmt: skip
    """Measure each checkpoint that TRAINING has kept: perplexity on FILE, and benchmarks; print and plot the two.

    It is `harness loss` and `harness run` for each. What is measured already is not measured again, so the same command
    goes on after an interruption.

    \b
    harness train sft recipes/lima.toml -m base/ -o lima/
    harness curve lima/ held-out.jsonl -b alpaca_eval --judge JUDGE
    """
    from harness.curve import curve
    from harness.errors import ConfigError
    from harness.evaluation.options import run_options
    from harness.registry import Registry
    from harness.reports.curve import curve_table, draw_curve

    if flags.pop("model") is not None:
        raise ConfigError(f"--model: the models are the checkpoints in {folder}; leave it out")
    place = folder / "perplexity.svg" if picture is None else picture
    if place.suffix not in (".svg", ".png", ".pdf"):
        raise ConfigError(f"--picture {place}: give a file that ends in .svg, .png or .pdf")
    points = list(curve(folder, texts, run_options(pairs=pairs, flags=flags), Registry(disabled)))
    click.echo(curve_table(points))
    try:
        draw_curve(points, place, folder.resolve().name)
    except ImportError:
        warn(["no picture: pip install matplotlib"])
    else:
        tell_place(place)
    return 0
