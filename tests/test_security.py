"""SECURITY.md: the tests that it names are there, and the bounds are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from harness import limits

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_each_promise_names_tests_that_are_there() -> None:
    [table] = re.findall(r"## What is promised\n\n(.*?)\n\n", TEXT, flags=re.DOTALL)
    promises = table.splitlines()[2:]
    assert len(promises) > 8
    for promise in promises:
        held_by = re.findall(r"`(tests/[^`]+)`", promise.rpartition("|")[0].rpartition("|")[2])
        assert held_by, promise
        for name in held_by:
            path = ROOT / name
            files = [path] if path.suffix else sorted(path.rglob("test_*.py"))
            assert files, name
            assert any("def test_" in file.read_text(encoding="utf-8") for file in files), name


def test_each_bound_is_told_with_its_default() -> None:
    known = {str(limit): limit for limit in vars(limits).values() if isinstance(limit, limits.Limit)}
    told = dict(re.findall(r"^\| `(HARNESS_LIMIT_\w+)` \| ([^|]+) \|", TEXT, flags=re.MULTILINE))
    assert told == {name: limit.told for name, limit in known.items()}
