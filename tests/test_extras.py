"""What a plugin lacks, by the extra that its entry point names."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import NamedTuple

import pytest

from harness.extras import lacking


class Fake(NamedTuple):
    """What is read of a distribution."""

    name: str
    requires: tuple[str, ...]


@pytest.mark.parametrize(
    ("extra", "requires", "said"),
    [
        ("fast", ["pytest>=1; extra == 'fast'"], None),
        ("fast", ['absent-one[x]>=2,<3 ; extra == "slow"', "absent-two"], None),  # another extra, and none
        ("fast", ["absent_one; extra == 'fast' and sys_platform == 'win32'"], None),
        ("fast", ["absent-one<3,>=2; extra == 'fast'"], "missing absent-one: pip install 'harness-sums[fast]'"),
        (
            "fast",
            ["absent-one; extra == 'fast'", "pytest; extra == 'fast'", "absent.two (>=1); extra == 'fast'"],
            "missing absent-one, absent.two: pip install 'harness-sums[fast]'",
        ),
        ("fast", ["json-absent-not; extra == 'fast'", "json; extra == 'fast'"], "missing json-absent-not: "),
    ],
)
def test_what_an_extra_brings_is_there_or_named(extra: str, requires: Sequence[str], said: str | None) -> None:
    entry_point = EntryPoint("sums", f"harness_sums [{extra}]", "harness.engines")
    vars(entry_point)["dist"] = Fake("harness-sums", tuple(requires))
    found = lacking(entry_point)
    assert found == said or (found is not None and said is not None and found.startswith(said))


def test_a_plugin_that_names_no_extra_lacks_nothing() -> None:
    entry_point = EntryPoint("sums", "harness_sums", "harness.engines")
    assert lacking(entry_point) is None
