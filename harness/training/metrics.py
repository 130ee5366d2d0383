"""What a training tells: metrics.jsonl, the live line, and trackers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from harness.errors import RunError
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
_PEAKS = {"H200": 989e12, "H100": 989e12, "H800": 989e12, "B200": 2250e12, "A100": 312e12, "A800": 312e12,
          "L40S": 362e12, "4090": 165e12, "A6000": 155e12, "L4": 121e12}  # fmt: skip


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
            self._file = path.open("a")
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record named values of a step; values that are not finite are recorded as they are (NaN, Infinity)."""
        try:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
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


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a metrics.jsonl; what is not one is left out, and all behind a torn one."""
    with path.open() as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                return
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                yield line


def _drop_later(path: Path, step: int) -> None:
    """Leave the lines up to `step` in a metrics.jsonl; where others go, it is replaced as a whole."""
    if not path.exists():
        return
    kept = "".join(json.dumps(line) + "\n" for line in read_metrics(path) if line["step"] <= step) if step else ""
    if kept == path.read_text():
        return
    new = path.with_name(f"{path.name}.new")
    with new.open("w") as file:
        file.write(kept)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


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

    >>> peak_flops("NVIDIA H200"), peak_flops("cpu")
    (989000000000000.0, None)
    """
    return next((peak for part, peak in _PEAKS.items() if part in device), None)
