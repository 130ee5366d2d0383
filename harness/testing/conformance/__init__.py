"""Checks of what a plugin promises, kind by kind: for pytest, and for ``harness plugins --check NAME``.

A check is a function of a `Subject`, an installed plugin with what it is to be checked with. It raises AssertionError
with one sentence where the promise is broken, and unittest.SkipTest, which pytest knows, where something is missing::

    CAPITALS = Subject("benchmarks", "capitals", data="data")

    @pytest.mark.parametrize("check", checks("benchmarks"), ids=str)
    def test_it_keeps_its_promises(check):
        check(CAPITALS)

The promises are those of `harness.interfaces`. Nothing here imports torch but the checks of engines and trainers.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from harness.registry import Kind
from harness.testing.conformance.check import Check
from harness.testing.conformance.subject import Subject

__all__ = ["Check", "Subject", "checks"]


def checks(kind: Kind) -> Sequence[Check]:
    """Return the checks of a kind of plugin, in the order in which they say most: the first is that it loads."""
    found: list[Check] = []
    for module in ("all_kinds", kind):
        found += import_module(f"{__name__}.{module}").CHECKS
    return found
