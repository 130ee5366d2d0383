"""The training of an evaluated checkpoint, from the metrics.jsonl beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.files import expanded
from harness.reports.html.charts import Curve
from harness.runs.columns import Recorded
from harness.training.metrics import read_metrics

_METRICS, _VALIDATION = "metrics.jsonl", "validation/"


def training_folder(run: Recorded) -> Path | None:
    """Return the folder of the training that made the run's model, None where none is at hand.

    The model is that folder, one of its checkpoints (``last/``, ``best/``), or a file of recorded outputs in it.
    """
    model = run.record.command.model
    if not model or "\0" in model:
        return None
    try:
        path = expanded(model)
        candidates = [path, path.parent] if path.is_dir() else [path.parent] if path.is_file() else []
        return next((folder for folder in candidates if (folder / _METRICS).is_file()), None)
    except (OSError, RuntimeError):
        return None


def learning_curves(folder: Path) -> Mapping[str, list[Curve]]:
    """Return the curves of a training's metrics by name, training and validation side by side; none if unreadable."""
    try:
        lines = list(read_metrics(folder / _METRICS))
    except (OSError, ValueError):
        return {}
    names = dict.fromkeys(name for line in lines for name in line.values if _is_learnt(name))
    panels: dict[str, list[Curve]] = {}
    for name in sorted(names, key=lambda name: (name == "learning_rate", name.startswith(_VALIDATION))):
        points = [(line.step, line.values[name]) for line in lines if _finite([line.step, line.values.get(name)])]
        if points:
            steps, values = zip(*points, strict=True)
            curve = Curve(name, steps, values, name.startswith(_VALIDATION))
            panels.setdefault(name.removeprefix(_VALIDATION).replace("_", " "), []).append(curve)
    return {title: panels[title] for title in sorted(panels, key=lambda title: title == "learning rate")}


def _is_learnt(name: str) -> bool:
    """Return whether a metric says what was learnt, not how fast."""
    return "/" in name or name in ("loss", "accuracy", "learning_rate")


def _finite(values: Iterable[Any]) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)
