"""`harness import`: make runs of outputs that another tool recorded."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("-b", "--benchmark", required=True, metavar="NAME", help="Benchmark, or a file of prompts.")
@click.option("--format", "form", metavar="NAME", help="The files' format.  [default: the one that recognises them]")
@click.option("--map", "fields", multiple=True, metavar="NAME=FIELD", help="Field of a row: output=generated_text.")
@click.option("-m", "--model", metavar="NAME", help="The model's name; all files are then one run.")
@click.option("--data", metavar="DIR", help="The benchmark's data folder; without it, the Hugging Face hub.")
@click.option("-o", "--out", default="runs", metavar="DIR", help="Folder for run folders.  [default: runs]")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="An option, or a plugin's: mmlu.split=dev.")
@click.option("--groups", is_flag=True, help="Print the figures of every group, however many there are.")
@click.option("--no-plugin", "disabled", multiple=True, metavar="NAME", help="Leave out a plugin or a distribution.")
def command(
    files: tuple[Path, ...],
    benchmark: str,
    form: str | None,
    fields: tuple[str, ...],
    model: str | None,
    data: str | None,
    out: str,
    pairs: tuple[str, ...],
    groups: bool,
    disabled: tuple[str, ...],
) -> int:
    """Make runs of recorded outputs, without a model: logs of lm-eval and Inspect, published results, any rows.

    Each output is read and scored as a run's would be, and every other command takes such a run. Files of one model are
    one run. Outputs are found by the examples' ids, or by the question's text. Importing a file again adds nothing.

    \b
    harness import results_*.json samples_*.jsonl -b gsm8k
    harness import theirs.jsonl -b gsm8k --map output=generated_text
    """
    from harness.evaluation.importing import fields_of
    from harness.evaluation.options import run_options
    from harness.jobs import Importing
    from harness.registry import Registry

    flags = {"benchmark": (benchmark,), "model": model, "data": data, "out": out}
    options = run_options(pairs=pairs, flags=flags)
    importing = Importing(files, options, Registry(disabled), form=form, fields=fields_of(fields))
    failed = 0
    for done in importing.carry_out():
        click.echo(done.summary(groups=groups))
        failed += done.failed
    return 1 if failed else 0
