"""Every branch of the parsers' regular expressions has a golden case that fails without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_a_golden_case_needs_each_branch() -> None:
    pytest.importorskip("math_verify")  # which some cases of `math` are read by
    command = [sys.executable, "-m", "tests.mutants.branches"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
