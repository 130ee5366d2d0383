"""What a training tells: metrics.jsonl, the live line, trackers, and the learning curve as a picture."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from harness.errors import RunError
from harness.files import each_line, open_append, open_read, replace_file
from harness.interfaces import TrackerRun

#: Live-line names and formats, in their order.
_SHOWN = {
    "loss": "loss {:.4f}",
    "accuracy": "accuracy {:.1%}",
    "rewards/margins": "margin {:.3f}",
    "validation/loss": "validation loss {:.4f}",
    "validation/accuracy": "validation accuracy {:.1%}",
    "validation/rewards/margins": "margin {:.3f}",
    "learning_rate": "lr {:.2e}",
    "gradient_norm": "norm {:.3g}",
    "tokens_per_second": "{:,.0f} tok/s",
    "mfu": "{:.1%} MFU",
    "memory_gib": "{:.1f} GiB",
    "seconds_left": "{} left",
}

#: Dense bf16 operations a second, by a part of the GPU's name (the makers' data sheets).
_PEAKS = (
    (r"H100 PCIe|H800 PCIe", 756e12), (r"H100 NVL|H200 NVL", 835e12), (r"G?H[128]00", 989e12), (r"G?B200", 2250e12),
    (r"A100.*|A800.*", 312e12), (r"L40S", 362e12), (r"L40", 181e12), (r"L4", 121e12), (r"A10", 125e12),
    (r"RTX 4090", 165e12), (r"RTX A6000", 155e12), (r"RTX 6000 Ada Generation", 364e12),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """A line of metrics.jsonl: the values of a step by name."""

    step: int
    values: Mapping[str, Any]

    def json(self) -> str:
        """Return the line as it is written; values that are not finite are NaN and Infinity there."""
        return json.dumps({"step": self.step, **self.values}) + "\n"


class Metrics:
    """The lines of a training's metrics, on disk, on the screen and in trackers.

    Lines of steps after `step` that an earlier, interrupted process left behind are dropped: they come again. Raises
    RunError when the file cannot be written.
    """

    def __init__(
        self, path: Path, steps: int, step: int, trackers: Sequence[TrackerRun] = (), screen: TextIO | None = None
    ) -> None:
        self._path, self._steps, self._trackers = path, steps, trackers
        self._screen = sys.stderr if screen is None else screen
        try:
            _drop_later(path, step)
            self._file = TextIOWrapper(open_append(path), "utf-8")
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record named values of a step; values that are not finite are recorded as they are (NaN, Infinity)."""
        try:
            self._file.write(Line(step, values).json())
            self._file.flush()
        except OSError as error:
            raise RunError(f"cannot write {self._path}: {error.strerror or error}") from error
        for tracker in self._trackers:
            tracker.log(step, values)
        self._screen.write(f"{self.line(step, values)}\n")
        self._screen.flush()

    def line(self, step: int, values: Mapping[str, float]) -> str:
        """Return the live line of a step."""
        parts = [f"step {step:,}/{self._steps:,}"]
        for name, form in _SHOWN.items():
            if name in values:
                parts.append(form.format(duration(values[name]) if name == "seconds_left" else values[name]))
        return " · ".join(parts)

    def close(self) -> None:
        """Finish the file and the trackers."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


def means(sums: Mapping[str, float], weight: float) -> dict[str, float]:
    """Return what named sums over all that counts come to on average.

    A sum is divided by `weight`, or, if there is one of its name and ``#`` behind it, by that: the number of those that
    it is over. Of none there is no mean.

    >>> means({"loss": 6.0, "accuracy/a": 1.0, "accuracy/a#": 2.0, "accuracy/b": 0.0, "accuracy/b#": 0.0}, 4)
    {'loss': 1.5, 'accuracy/a': 0.5}
    """
    found = {}
    for name, value in sums.items():
        count = sums.get(f"{name}#", weight)
        if count and not name.endswith("#"):
            found[name] = value / count
    return found


#: Larger whole numbers are no floats any more, and no training's.
_MOST_STEPS = 1 << 53

_LONGEST_NAME = 200

#: A picture has so many panels, and a panel so many curves, each of which takes its time.
_MOST_PANELS, _MOST_CURVES = 32, 64


def read_metrics(path: Path) -> Iterator[Line]:
    """Yield the lines of a metrics.jsonl; what is not one is left out, and all behind a torn one.

    Of a line that others wrote, what is no number by a name of some length is left out too.
    """
    with open_read(path) as file:
        lines = each_line(file)
        while True:
            try:
                line = json.loads(next(lines))
            except (StopIteration, ValueError, RecursionError):
                return
            if isinstance(line, dict) and type(step := line.pop("step", None)) is int and 0 <= step < _MOST_STEPS:
                yield Line(step, {name: value for name, value in line.items() if _is_metric(name, value)})


def _is_metric(name: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or len(name) > _LONGEST_NAME:
        return False
    return isinstance(value, float) or abs(value) < _MOST_STEPS


def _drop_later(path: Path, step: int) -> None:
    """Leave the lines up to `step` in a metrics.jsonl; where others go, it is replaced as a whole."""
    if not path.exists():
        return
    kept = "".join(line.json() for line in read_metrics(path) if line.step <= step) if step else ""
    with open_read(path) as file:
        alike = kept.encode() == file.read()
    if alike:
        return
    replace_file(path, [kept.encode()])


def duration(seconds: float) -> str:
    """Return a time span as people read it.

    >>> duration(42), duration(61), duration(7384)
    ('42s', '1m01s', '2h03m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def peak_flops(device: str) -> float | None:
    """Return the dense bf16 operations a second of the GPU called `device`, None for one that is not known.

    >>> peak_flops("NVIDIA H200"), peak_flops("NVIDIA H100 PCIe") == 756e12, peak_flops("cpu")
    (989000000000000.0, True, None)
    """
    return next((peak for name, peak in _PEAKS if re.search(rf"(?<![\w-])(?:{name})(?![\w])", device)), None)


def draw_curves(metrics: Path, folder: Path, title: str) -> list[Path]:
    """Draw what a metrics.jsonl says was learnt, and the learning rate, as ``curve.png`` and ``curve.svg`` in `folder`.

    Metrics of one kind share a panel (loss, accuracies, rewards), those of validation as dots. Returns the files; none
    where there is nothing to draw. Names stand as they are, with dollar signs in them too. Raises ImportError where
    matplotlib is not installed.
    """
    from matplotlib import rc_context

    lines = list(read_metrics(metrics))
    panels: dict[str, list[str]] = {}
    for name in sorted({name for line in lines for name in line.values}):
        if panel := _panel(name):
            panels.setdefault(panel, []).append(name)
    panels = {panel: panels[panel][:_MOST_CURVES] for panel in sorted(panels, key=_place)[:_MOST_PANELS]}
    if not panels:
        return []
    made = []
    with rc_context({"text.parse_math": False}):
        figure = _figure(lines, panels, title)
        for suffix in ("png", "svg"):
            path, drawn = folder / f"curve.{suffix}", BytesIO()
            figure.savefig(drawn, format=suffix, dpi=150)
            replace_file(path, [drawn.getvalue()])
            made.append(path)
    return made


def _figure(lines: Sequence[Line], panels: Mapping[str, Sequence[str]], title: str) -> Any:
    """Return the figure of the metrics in these panels, with the learning rate below them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # In inches; to have matplotlib find margins that fit takes longer than to draw.
    width, names = 0.8 + 6.6, 0.7 + 0.07 * max(len(name) for names in panels.values() for name in names)
    height = 2.6 * (len(panels) + 1)
    margins = {"left": 0.8 / (width + names), "right": width / (width + names)}
    margins |= {"bottom": 0.5 / height, "top": 1 - 0.4 / height, "hspace": 0.12}
    figure = Figure(figsize=(width + names, height))
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(len(panels) + 1, 1, sharex=True, gridspec_kw=margins)
    for axis, panel in zip(axes, [*panels, "learning_rate"], strict=True):
        for name in panels.get(panel, [panel]):
            points = [(line.step, line.values[name]) for line in lines if name in line.values]
            if points:
                style = "o-" if name.startswith("validation/") else "-"
                axis.plot(*zip(*points, strict=True), style, label=name, linewidth=1.2, markersize=3)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")
    axes[0].set_title(title)
    axes[-1].set_xlabel("step")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


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
