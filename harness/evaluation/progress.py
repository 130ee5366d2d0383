"""How far a run is: a tqdm bar in a terminal and in a notebook, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Counts finished examples and completion tokens and says so on standard error, if it is `shown`.

    `added` and `tokens` are what came in since it began; `resumed` examples were there before. `unit` is what is
    counted in their place.
    """

    def __init__(
        self,
        title: str,
        total: int,
        resumed: int = 0,
        *,
        unit: str = "examples",
        shown: bool = True,
        file: TextIO | None = None,
    ) -> None:
        self.added = 0
        self.tokens = 0
        self._title = repr(title)[1:-1]  # a name out of a file may hold what would steer a terminal
        self._total = total
        self._resumed = resumed
        self._unit = unit
        self._shown = shown
        self._file = sys.stderr if file is None else file
        self._started = self._said = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if not self._shown:
            return self
        if _redraws(self._file):
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total,
                initial=self._resumed,
                desc=self._title,
                unit="ex" if self._unit == "examples" else f" {self._unit}",
                dynamic_ncols=True,
                file=self._file,
            )
        elif self._resumed:
            self._line(f"{self._resumed} of {self._total} were done before")
        return self

    def add(self, tokens: int) -> None:
        """Count one finished example of so many completion tokens."""
        self.added += 1
        self.tokens += tokens
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._rate(self.tokens):,.0f} tok/s", refresh=False)
            self._bar.update()
            return
        now = time.monotonic()
        if self._shown and now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            done = self._resumed + self.added
            left = (self._total - done) / self._rate(self.added)
            self._line(
                f"{done} of {self._total}, {speed(self._rate(self.added), self._unit)}, "
                f"{rate(self._rate(self.tokens))} tokens/s, {left:,.0f} s left"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def _rate(self, count: int) -> float:
        return count / max(time.monotonic() - self._started, 1e-9)

    def _line(self, text: str) -> None:
        print(f"{self._title}: {text}", file=self._file, flush=True)


def rate(value: float | None) -> str:
    """Return something a second to three significant digits, or a dash where it is not known.

    >>> rate(0.0491), rate(12.345), rate(321.8), rate(15720.4), rate(None)
    ('0.0491', '12.3', '322', '15,720', '–')
    """
    return "–" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def pace(value: float | None) -> str:
    """Return examples a second as a column of that name has them; where these are few, seconds an example.

    >>> pace(12.345), pace(0.0491), pace(None)
    ('12.3', '20.4 s each', '–')
    """
    return f"{rate(1 / value)} s each" if value and value < 1 else rate(value)


def speed(value: float | None, units: str = "examples") -> str:
    """Return examples a second, or seconds an example, with their unit; or whatever else the `units` are.

    >>> speed(12.345), speed(0.0491), speed(None, "samples")
    ('12.3 examples/s', '20.4 s/example', '– samples/s')
    """
    return f"{rate(1 / value)} s/{units.removesuffix('s')}" if value and value < 1 else f"{rate(value)} {units}/s"


def _redraws(file: TextIO) -> bool:
    """Whether a line can be written over: in a terminal, and in a notebook, whose standard error is ipykernel's."""
    return file.isatty() or type(file).__module__.startswith("ipykernel.")
