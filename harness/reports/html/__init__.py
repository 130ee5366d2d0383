"""A report of runs as one self-contained page: nothing is fetched, and nothing that a model wrote is executed.

`survey` finds what there is to say, `tables`, `figures`, `findings` and `provenance` say it, `pack` puts the samples
into the page for browser.js, and page.html.j2 is the page. Its Content-Security-Policy allows the one script and the
one style by their digests, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.registry import Registry
from harness.reports.beside_source import HEADS
from harness.reports.html.findings import findings, title_of
from harness.reports.html.survey import Survey, survey
from harness.reports.samples import printable
from harness.runs.columns import Recorded

_HERE = Path(__file__).parent


def render(
    runs: Sequence[Recorded], *, title: str | None = None, home: str | None = None, registry: Registry | None = None
) -> Iterator[str]:
    """Return the page piece by piece; the samples' texts are read from disk as they come up.

    `home` is an address that the page links to as that of all runs, where it is shown beside others. Benchmarks' titles
    and scorers come from `registry`, by default that of what is installed.

    What can be refused is refused before the first piece. Raises RunError for no runs, unfinished ones, and runs of one
    benchmark that are not over the same examples; ConfigError where the packages of the extra `report` are missing.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401
    except ImportError as error:
        message = f"a report needs {error.name}, which is not installed: pip install 'posttrain-harness[report]'"
        raise ConfigError(message) from error
    registry = registry or Registry()
    found = survey(runs, registry)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html.j2").generate({**_content(found, title, registry), "home": home})


def _visible(value: Any) -> Any:
    """Return what the template prints: text without characters that steer, markup as it is."""
    return printable(value) if type(value) is str else value


def _content(found: Survey, title: str | None, registry: Registry) -> dict[str, Any]:
    from markupsafe import Markup

    from harness.reports.html import figures, pack, provenance, tables

    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "browser.js"))
    return {
        "title": title or title_of(found),
        "findings": findings(found),
        "survey": found,
        "methods": tables.methods(found),
        "repeats": tables.repeats(found),
        "samples": sum(len(run) for _, _, _, run in tables.each_run(found)),
        "dates": sorted({run.record.created[:10] for _, _, _, run in tables.each_run(found)} - {""}),
        "headlines": tables.headline_rows(found),
        "metrics": tables.all_rows(found),
        "overview": list(figures.overview(found)),
        "breakdowns": list(figures.breakdowns(found)),
        "lengths": list(figures.lengths(found)),
        "trainings": list(figures.trainings(found)),
        "failures": tables.failures(found),
        "source_heads": list(HEADS),
        "beside_sources": tables.beside_sources(found),
        "doubts": tables.doubts(found),
        "biases": tables.judges_biases(found),
        "detectables": tables.detectables(found),
        "speeds": tables.speeds(found),
        "provenance": provenance.provenance(found),
        "packs": [
            pack.pack(
                section.runs,
                {label: found.place(label) for label in section.runs},
                section.headline.reader if section.headline else None,
                registry,
            )
            for section in found.sections
        ],
        "markup": Markup,
        "style": style,
        "script": script,
        "style_digest": _digest(style),
        "script_digest": _digest(script),
    }


def _digest(text: str) -> str:
    """Return the digest of an inline element as a security policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
