"""Checkpoints that are kept by their step: ``step-000200/``, models without what a training goes on from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal, TypeAlias

from harness.training.checkpoint.manifest import MANIFEST, write_manifest

#: Which are kept: the newest so many, all that are saved, those at the end of each epoch, or those of these steps.
Kept: TypeAlias = int | Literal["all", "epochs"] | tuple[int, ...]


def is_asked(rule: Kept, step: int, epoch: int) -> bool:
    """Whether a checkpoint is to be saved at `step` in order to be kept; an epoch has so many steps."""
    return step in rule if isinstance(rule, tuple) else rule == "epochs" and step % epoch == 0


def is_kept(rule: Kept, step: int, epoch: int) -> bool:
    """Whether a checkpoint that is saved at `step` is kept."""
    return is_asked(rule, step, epoch) or rule == "all" or (isinstance(rule, int) and rule > 0)


def keep_step(checkpoint: Path, step: int, rule: Kept, leave_out: str) -> None:
    """Keep `checkpoint` beside itself as that of `step`, but for its folder `leave_out`, and remove what is too many.

    Its files are linked where the file system can do so, and take no room of their own while both are there.
    """
    place = checkpoint.parent / f"step-{step:06d}"
    new = checkpoint.parent / f"{place.name}.new"
    for path in (new, place):
        remove(path)
    shutil.copytree(checkpoint, new, ignore=shutil.ignore_patterns(leave_out, MANIFEST), copy_function=_linked)
    write_manifest(new)
    new.rename(place)
    if isinstance(rule, int):
        for old in sorted(checkpoint.parent.glob("step-??????"))[:-rule]:
            remove(old)


def remove(folder: Path) -> None:
    """Remove a folder where there is one; a link of its name goes, and what it leads to stays."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
