"""`harness plugins`: options that would do nothing are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Command


def test_a_new_plugin_is_no_json(harness: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = harness("plugins", "--new", "sums", "--kind", "parser", "--json")
    assert (done.code, done.out) == (2, "")
    assert done.err == "harness: --json goes with the list or with --check, not with --new\n"
    assert list(tmp_path.iterdir()) == []
