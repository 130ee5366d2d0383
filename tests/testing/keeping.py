"""All checks of a plugin in one test."""

from __future__ import annotations

from unittest import SkipTest

from harness.testing.conformance import Subject, checks


def skipped(subject: Subject) -> list[str]:
    """Run all checks; return the names of those that were skipped, and raise the first failure."""
    found = []
    for check in checks(subject.kind):
        try:
            check(subject)
        except SkipTest:
            found.append(check.name)
    return found
