"""Plain text tables."""

from __future__ import annotations

from collections.abc import Sequence

from harness.reports.samples import on_one_line


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under their heads in aligned columns, two spaces apart; the last column may be of any length."""
    lines = [[on_one_line(str(cell)) for cell in row] for row in (heads, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )
