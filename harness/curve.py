"""How a training's checkpoints do, one after the other: perplexity on held-out texts beside figures of benchmarks.

LIMA (arXiv:2305.11206, appendix B) found that the perplexity of held-out answers rises while people like what the model
writes better and better; so here both are measured on each checkpoint that a training has kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.datasets import file_sha256
from harness.errors import DataError, ModelError
from harness.evaluation.plan import RunOptions
from harness.files import expanded, read_json, replace_file
from harness.jobs import Evaluation
from harness.models import find_model
from harness.registry import Registry
from harness.reports.curve import Point
from harness.runs.records import Estimate, as_json

_STEP = re.compile(r"step-(\d{6})")
_KEPT = "curve.json"


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints that a training has kept by their step; ModelError where there are less than two."""
    found = [(int(match[1]), path) for path in sorted(folder.glob("step-*")) if (match := _STEP.fullmatch(path.name))]
    if len(found) < 2:
        raise ModelError(
            f'{folder}: {len(found) or "no"} checkpoints by step in it; train with keep = "epochs", "all" or [steps]'
        )
    return found


def curve(
    folder: Path, texts: Sequence[str], options: RunOptions, registry: Registry, *, progress: bool = True
) -> Iterator[Point]:
    """Yield each kept checkpoint of the training in `folder` as it is measured.

    `texts` are files for `harness loss`, `options` those of `harness run`, whose model each checkpoint is in turn. What
    was measured before is not measured again: perplexities are kept in the folder's curve.json, and runs answer from
    theirs. Raises HarnessError for the first thing that does not fit.
    """
    found = checkpoints(folder)
    data = hashlib.sha256("".join(file_sha256(_file(text)) for text in texts).encode()).hexdigest()
    for step, path in found:
        perplexity = _perplexity(folder, path, texts, data, options.prompt_format)
        evaluation = Evaluation(replace(options, model=str(path)), registry)
        figures: dict[str, Estimate | None] = {}
        for done in evaluation.carry_out(progress=progress):
            figures |= dict([_headline(done.run.record.benchmark, done.run.results.metrics)])
        yield Point(step, perplexity, figures)


def _file(text: str) -> Path:
    path = expanded(text)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return path


def _headline(benchmark: str, metrics: Mapping[str, Mapping[str, Estimate]]) -> tuple[str, Estimate | None]:
    """Return the name and the value of the metric that stands for a benchmark."""
    for reader, named in metrics.items():
        for metric, estimate in named.items():
            return f"{benchmark} {metric} ({reader})", estimate
    return benchmark, None


def _perplexity(folder: Path, model: Path, texts: Sequence[str], data: str, form: str | None) -> Estimate:
    """Return a checkpoint's perplexity on all files together, from the folder's curve.json where it stands there."""
    from harness.training.loss import measure_loss

    key = f"{find_model(str(model)).digest[:32]} {data[:32]} {form or ''}".strip()
    known = _known(folder / _KEPT)
    if key not in known:
        found = measure_loss(texts, str(model), prompt_format=form).files()[-1].perplexity
        known[key] = as_json(Estimate.of(found))
        replace_file(folder / _KEPT, [json.dumps(known, indent=2).encode() + b"\n"])
    return Estimate(**known[key])


def _known(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
        return {key: as_json(Estimate(**said)) for key, said in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # none yet, or not as it is written: it is made anew
        return {}
