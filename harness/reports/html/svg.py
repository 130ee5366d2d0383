"""Matplotlib figures as inline SVG that takes its colours from the page, so that dark mode and print need no second."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from harness.reports.samples import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colours as charts give them to matplotlib → what stands in their place in the page.
INK, FAINT = "#0a0b0c", "#0a0b0d"

#: How many colours there are, and how many markers.
SERIES = 6

_MARKERS = "os^DvP"
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

#: What may stand in a style attribute, which the page's security policy forbids, and is as good as an attribute.
_ATTRIBUTES = {
    "fill", "fill-opacity", "font-size", "font-weight", "opacity", "stroke", "stroke-dasharray", "stroke-dashoffset",
    "stroke-linecap", "stroke-linejoin", "stroke-opacity", "stroke-width", "text-anchor",
}  # fmt: skip


def series_colour(place: int) -> str:
    """Return the colour of the series at `place`, for matplotlib."""
    return f"#0c0d{place % SERIES:02x}"


def series_marker(place: int) -> str:
    """Return the marker of the series at `place`, for matplotlib: with its colour, unlike that of 35 others."""
    return _MARKERS[(place + place // SERIES) % SERIES]


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """Give a figure of so many inches, in the page's manner: no frame, text as text, names never read as formulas."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that matplotlib's font lacks; the page's will have them
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
}


def inline(figure: Figure, name: str, label: str) -> str:
    """Return `figure` as an ``<svg>`` element without styles of its own; `name` makes its ids unique in the page.

    `label` is what a screen reader says for it.
    """
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(out.getvalue())  # noqa: S314 (what matplotlib has just written)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"):
                parent.remove(child)
    for element in root.iter():
        _without_style(element)
        _rename(element, name)
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
    width, height = (float(root.attrib.pop(side).removesuffix("pt")) for side in ("width", "height"))
    root.attrib.pop("version", None)
    root.attrib.update(
        {"role": "img", "aria-label": printable(label), "viewBox": f"0 0 {width:g} {height:g}", "class": "chart"}
    )
    return ElementTree.tostring(root, encoding="unicode")


def _without_style(element: ElementTree.Element) -> None:
    """Turn an element's style into attributes, with the page's colours."""
    declared = [part.partition(":") for part in element.attrib.pop("style", "").split(";") if ":" in part]
    for key, _, value in declared:
        key, value = key.strip(), value.strip()
        if key == "font":  # such as "9px 'DejaVu Sans', sans-serif"; the family is the page's
            size = re.search(r"([\d.]+)px", value)
            element.set("font-size", size[1] if size else "9")
            if "bold" in value or "700" in value:
                element.set("font-weight", "600")
        elif key in _ATTRIBUTES:
            element.set(key, value)
    for key in ("fill", "stroke"):
        if key in element.attrib:
            element.set(key, _page_colour(element.attrib[key]))
    if element.tag == f"{{{_SVG}}}text" and "fill" not in element.attrib:
        element.set("fill", "currentColor")


def _page_colour(colour: str) -> str:
    if colour in (INK, "#000000"):
        return "currentColor"
    if colour == FAINT:
        return "var(--line)"
    return f"var(--series-{int(colour[-2:], 16)})" if colour.startswith("#0c0d") else colour


def _rename(element: ElementTree.Element, name: str) -> None:
    if "id" in element.attrib:
        element.set("id", f"{name}-{element.attrib['id']}")
    link = element.attrib.pop(f"{{{_XLINK}}}href", None)
    if link is not None:
        element.set("href", f"#{name}-{link.removeprefix('#')}")
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("#", f"#{name}-"))
