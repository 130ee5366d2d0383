"""Where reports for people are printed: in a terminal with Rich, elsewhere as plain text."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.reports.samples import on_one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: How wide a table may become where there is no terminal, in characters.
_PLAIN_WIDTH = 120

Tone = Literal["plain", "quiet", "better", "worse", "strong"]

_STYLES: dict[Tone, str] = {"plain": "", "quiet": "dim", "better": "green", "worse": "red", "strong": "bold"}


@dataclass(frozen=True)
class Line:
    """One line of text, and how it is to look where there are colours."""

    text: str
    tone: Tone = "plain"


def console() -> Console:
    """Return a console for standard output: as wide as the terminal, which the variable COLUMNS overrules.

    Nothing that is printed is taken for markup.
    """
    from rich.console import Console

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if known else _PLAIN_WIDTH, markup=False, highlight=False, emoji=False)


def styled(*lines: Line) -> Text:
    """Return lines for a console, each kept `on_one_line`."""
    from rich.text import Text

    return Text("\n").join(Text(on_one_line(line.text), style=_STYLES[line.tone], overflow="fold") for line in lines)
