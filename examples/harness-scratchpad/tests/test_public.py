"""What the distribution uses of the harness is what docs/plugins.md names."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module

import pytest

PUBLIC = {"harness.errors", "harness.hookspecs", "harness.interfaces", "harness.parsers", "harness.types"}


@pytest.mark.parametrize("name", ["addition", "benchmarks", "command", "parser", "polynomial", "problems", "program"])
def test_it_imports_public_modules_alone(name: str) -> None:
    tree = ast.parse(inspect.getsource(import_module(f"harness_scratchpad.{name}")))
    froms = [each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)]
    used = {
        each.module: [alias.name for alias in each.names] for each in froms if f"{each.module}".startswith("harness.")
    }
    assert used.keys() <= PUBLIC
    assert not any(part.startswith("_") for names in used.values() for part in names)
