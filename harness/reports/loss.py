"""The loss of a model on files, for people and as lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from harness.reports.samples import printable
from harness.reports.tables import table
from harness.training.loss import Losses
from harness.types import Estimate


def loss_table(losses: Losses) -> str:
    """Return loss, perplexity and bits per byte by file, and what they are of."""
    rows = [
        [
            printable(file.name), f"{file.loss.n:,}", f"{file.tokens:,}",
            _figure(file.loss), _figure(file.perplexity), _figure(file.bits_per_byte),
        ]
        for file in losses.files()
    ]  # fmt: skip
    head = ["file", "documents", "tokens", "loss (nats a token)", "perplexity", "bits a byte"]
    lines = [table(head, rows), f"prompt format {losses.format}; 95% intervals over documents"]
    for left in losses.documents.readings:
        if left.skipped:
            lines += list(left.lines(left.layout))[1:]
    if losses.alone is not None:
        lines.append(printable(f"{losses.alone}; documents were read one by one"))
    if losses.cut:
        lines.append(f"{losses.cut:,} documents are longer than the model can attend to, and were read in pieces")
    return "\n".join(lines)


def document_lines(losses: Losses) -> Iterator[bytes]:
    """Yield a line of JSON for each document: where it stands, its nats, and the tokens and bytes they are of."""
    for number in range(len(losses.documents)):
        line = {
            "document": losses.documents.place(number),
            "nats": float(losses.totals[number]),
            "tokens": int(losses.tokens[number]),
            "bytes": int(losses.bytes[number]),
        }
        yield json.dumps(line).encode() + b"\n"


def _figure(found: Estimate) -> str:
    if math.isnan(found.low):
        return f"{found.value:.4f}"
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
