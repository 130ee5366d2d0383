"""What docs/python.md shows can be done."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.testing.fakes import FakeEngine

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_page_names_what_there_is() -> None:
    assert len(BLOCKS) >= 6
    for block in BLOCKS:
        compile(block, "docs/python.md", "exec")
    for name in re.findall(r"\bharness\.([A-Za-z_]+)", PAGE):
        assert name in harness.__all__ or name in ("types", "testing"), name


def test_the_objects_of_the_page_are_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = [block for block in BLOCKS if "class Capitals" in block]
    engine = FakeEngine(lambda request: "Paris. It lies on the Seine.")
    fixed: dict[str, Any] = {"engine": engine, "prompt_format": "plain", "out": tmp_path, "progress": False}
    monkeypatch.setattr(harness, "evaluate", partial(harness.evaluate, **fixed), raising=False)
    names: dict[str, Any] = {"harness": harness, "__name__": "page"}
    exec(compile(block, "docs/python.md", "exec"), names)
    run: harness.Run = names["run"]
    assert run.results.metrics["first-word"]["accuracy"].value == 0.5
    assert names["again"] == run.results
