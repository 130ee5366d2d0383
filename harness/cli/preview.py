"""`harness preview`: the exact prompt of an example, without loading the model."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.options import evaluation_options, warn


@click.command("preview")
@click.argument("benchmark")
@evaluation_options
@click.option("--index", type=int, default=0, show_default=True, help="Position of the example in the benchmark.")
def command(benchmark: str, index: int, pairs: tuple[str, ...], disabled: tuple[str, ...], **flags: Any) -> None:
    """Show the exact prompt of an example, its token ids at the borders, the stop strings and the parsers.

    \b
    harness preview gsm8k -m ckpt/ --data DIR --index -1
    """
    from harness.evaluation.options import run_options
    from harness.jobs import Evaluation
    from harness.registry import Registry

    options = run_options(pairs=pairs, flags={**flags, "benchmark": (benchmark,)})
    evaluation = Evaluation(options, Registry(disabled))
    text = evaluation.preview(index)
    warn(evaluation.warnings)
    click.echo(text)
