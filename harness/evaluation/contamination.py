"""Which of a run's examples its model was trained on, as far as that is known: 13 words in a row are the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.prompts import CHECKPOINT_FILE, read_checkpoint_file

if TYPE_CHECKING:
    from harness.evaluation.plan import Plan


def contamination(plan: Plan) -> dict[str, Any] | None:
    """Return what run.json says of contamination, None where nothing is known.

    It is known from the checkpoint's harness.json, where the training was held against the benchmark, and from files
    that the user names. `found` are ids of selected examples, in their order. Raises DataError for files that cannot be
    read, ModelError for a harness.json that cannot be.
    """
    ids: set[str] = set()
    sources = list[str]()
    said = read_checkpoint_file(Path(plan.options.model)).get("contamination", {})
    if plan.benchmark.name in said:
        sources.append(CHECKPOINT_FILE)
        ids |= {*said[plan.benchmark.name].get("found")}
    if plan.options.trained_on:
        from harness.training.data.contamination import overlap, parts_in

        sources += plan.options.trained_on
        found = overlap(plan.benchmark.name, plan.examples, parts_in(plan.options.trained_on)).found
        ids |= {each.item for each in found}
    if not sources:
        return None
    selected = (plan.examples[index].id for index in plan.selection)
    return {"sources": sources, "found": [each for each in selected if each in ids]}
