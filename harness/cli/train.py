"""`harness train`: train a model."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from harness.cli.ending import end_now
from harness.cli.options import plugin_names, tell_place


@click.command("train")
@click.argument("trainer", shell_complete=plugin_names("trainers"))
@click.argument("recipe", required=False, type=click.Path(path_type=Path), metavar="[RECIPE.toml]")
@click.option("-m", "--model", metavar="MODEL", help="Model to start from: a folder or a name on the hub.")
@click.option("-o", "--out", metavar="DIR", help="Folder for checkpoints and metrics.")
@click.option(
    "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="An option, or the trainer's: sft.learning_rate=1e-5."
)
@click.option("--plan", is_flag=True, help="Say what would be done, with an example; load no weights, write nothing.")
@click.option("--no-plugin", "disabled", multiple=True, metavar="NAME", help="Leave out a plugin or a distribution.")
def command(
    trainer: str, recipe: Path | None, pairs: tuple[str, ...], plan: bool, disabled: tuple[str, ...], **flags: Any
) -> None:
    """Train a model with TRAINER, such as sft; `harness plugins` lists those that there are.

    Give the same command again after a crash, SIGTERM or Ctrl-C and it goes on where it stopped. Options come from
    RECIPE.toml, then --set, then flags. On several GPUs: torchrun --nproc-per-node N -m harness train …

    \b
    harness train sft recipes/sft.toml -m base/ -o ckpt/ --plan
    harness train dpo recipes/dpo.toml -m ckpt/ -o aligned/ --set dpo.beta=0.05
    """
    from harness.calls import foreign
    from harness.registry import Registry
    from harness.training.recipe import read_recipe

    chosen, run = read_recipe(trainer, Registry(disabled), file=recipe, pairs=pairs, flags=flags)
    if plan:
        with foreign(chosen):
            said = chosen.plan(run)
        click.echo(said)
        return
    with foreign(chosen):
        folder = chosen.train(run)
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        tell_place(folder)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        end_now(0)  # torch's gloo aborts now and then when C++ destroys its threads, after everything is done
