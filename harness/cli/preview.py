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
    """Show the exact prompt of an example, its token ids at the borders, the stop strings and the parsers."""
    from harness.errors import ConfigError
    from harness.evaluation.options import run_options
    from harness.evaluation.plan import make_plans
    from harness.registry import Registry
    from harness.reports.preview import preview

    options = run_options(pairs=pairs, flags={**flags, "benchmark": (benchmark,)})
    [plan] = make_plans(options, Registry(disabled))
    if not -len(plan.examples) <= index < len(plan.examples):
        raise ConfigError(f"--index {index}: {benchmark} has {len(plan.examples)} examples, counted from 0")
    warn(plan.choice.warnings)
    click.echo(preview(plan, index % len(plan.examples)))
