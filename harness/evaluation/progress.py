"""How far a run is: a tqdm bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Counts finished examples and completion tokens and says so on standard error.

    `added` and `tokens` are what came in since it began; `resumed` examples were there before.
    """

    def __init__(self, title: str, total: int, resumed: int = 0, file: TextIO | None = None) -> None:
        self.added = 0
        self.tokens = 0
        self._title = repr(title)[1:-1]  # a name out of a file may hold what would steer a terminal
        self._total = total
        self._resumed = resumed
        self._file = sys.stderr if file is None else file
        self._started = self._said = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self._file.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total,
                initial=self._resumed,
                desc=self._title,
                unit="ex",
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
        if now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            done = self._resumed + self.added
            left = (self._total - done) / self._rate(self.added)
            self._line(
                f"{done} of {self._total}, {self._rate(self.added):,.1f} examples/s, "
                f"{self._rate(self.tokens):,.0f} tokens/s, {left:,.0f} s left"
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
