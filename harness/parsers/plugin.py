"""The parser library as plugins: the same door that other people's parsers come through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from harness.hookspecs import hookimpl
from harness.parsers.named import PARSERS

if TYPE_CHECKING:
    from harness.interfaces import Parser


@hookimpl
def harness_parsers() -> Iterable[Parser]:
    """Return the parsers of `harness.parsers`."""
    return PARSERS
