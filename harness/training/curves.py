"""The learning curve of a training as a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from harness.training.metrics import read_metrics


def draw(metrics: Path, folder: Path, title: str) -> list[Path]:
    """Draw what a metrics.jsonl says was learnt, and the learning rate, as ``curve.png`` and ``curve.svg`` in `folder`.

    Metrics of one kind share a panel (loss, accuracies, rewards), those of validation as dots. Returns the files; none
    where there is nothing to draw. Raises ImportError where matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = list(read_metrics(metrics))
    panels: dict[str, list[str]] = {}
    for name in sorted({key for line in lines for key in line}):
        if panel := _panel(name):
            panels.setdefault(panel, []).append(name)
    if not panels:
        return []
    figure = Figure(figsize=(10, 2.6 * (len(panels) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(len(panels) + 1, 1, sharex=True)
    for axis, panel in zip(axes, [*sorted(panels, key=_place), "learning_rate"], strict=True):
        for name in panels.get(panel, [panel]):
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                style = "o-" if name.startswith("validation/") else "-"
                axis.plot(*zip(*points, strict=True), style, label=name, linewidth=1.2, markersize=3)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")
    axes[0].set_title(title)
    axes[-1].set_xlabel("step")
    made = []
    for suffix in ("png", "svg"):
        path, aside = folder / f"curve.{suffix}", folder / f".curve.{suffix}"
        figure.savefig(aside, format=suffix, dpi=150)
        os.replace(aside, path)
        made.append(path)
    return made


def _panel(name: str) -> str | None:
    """Return the panel that a metric is drawn in, None for one that is not drawn.

    Drawn is what is learnt, not how fast; of single files only how accurate the model is on their validation data.

    >>> [_panel(name) for name in ("loss", "validation/loss", "rewards/margins", "rewards/accuracies", "mfu")]
    ['loss', 'loss', 'rewards', 'accuracy', None]
    >>> [_panel(name) for name in ("accuracy/file", "validation/accuracy/file", "validation/rewards/margins/file")]
    [None, 'accuracy', None]
    """
    bare = name.removeprefix("validation/")
    kind, _, rest = bare.partition("/")
    validation = bare != name
    if kind == "accuracy":
        return kind if validation or not rest else None
    if "/" in rest or not (rest or validation or kind == "loss"):
        return None
    return "accuracy" if "accurac" in rest else kind


def _place(panel: str) -> tuple[bool, str]:
    return panel != "loss", panel
