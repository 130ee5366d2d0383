"""Runs as Markdown, for a write-up: the closing table of each, and what changed between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.comparing.comparison import compare
from harness.registry import Registry
from harness.reports.comparison import as_markdown, sections
from harness.reports.samples import on_one_line
from harness.reports.summary import benchmark_title, summary
from harness.runs.columns import Recorded


def render(runs: Sequence[Recorded], *, title: str | None = None, registry: Registry | None = None) -> Iterator[str]:
    """Yield a document on runs piece by piece; runs of one benchmark are compared, the first being the baseline."""
    yield f"# {on_one_line(title or 'Runs')}\n"
    for run in runs:
        record = run.record
        name = benchmark_title(record.benchmark, registry)
        asked = f"{name} · {record.model} · {record.engine} · {record.prompt_format.name}"
        yield f"\n## {on_one_line(name)} · {on_one_line(record.model)}\n\n"
        yield f"~~~text\n{summary(asked, run.results, run.timing, str(run.path), groups=False)}\n~~~\n"
    if len({run.benchmark for run in runs}) < len(runs):
        yield f"\n## Comparison\n\n{as_markdown(sections(compare(runs, registry=registry), flips=3))}\n"
