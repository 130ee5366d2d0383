"""Every block of Python on a page is run: here, or by the test that is named."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.testing.fakes import FakeEngine
from harness.types import Request

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("README.md"), *sorted((ROOT / "docs").rglob("*.md"))]

#: Page → the test that runs its blocks.
ELSEWHERE = {
    "architecture.md": "tests/test_architecture.py",
    "plugins.md": "tests/test_docs_plugins.py",
    "preferences.md": "tests/plugins/trainers/test_dpo.py",
}

#: A block, and what may stand before it: why it is not run.
_BLOCK = re.compile(r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n)?^```python\n(?P<code>.*?)^```$", re.M | re.DOTALL)


def blocks(page: Path) -> list[re.Match[str]]:
    return list(_BLOCK.finditer(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_every_block_of_a_page_is_python_and_somebody_runs_it(page: Path) -> None:
    assert len(blocks(page)) == page.read_text(encoding="utf-8").count("```python\n")
    for block in blocks(page):
        compile(block["code"], page.name, "exec")
    if page.name in ELSEWHERE:
        assert page.name in (ROOT / ELSEWHERE[page.name]).read_text(encoding="utf-8")
    else:
        assert page.name == "python.md", "say in ELSEWHERE which test runs its blocks"


def test_the_page_on_python_names_what_there_is() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for name in re.findall(r"\bharness\.([A-Za-z_]+)", page):
        assert name in harness.__all__ or name in ("types", "testing"), name


def answer(request: Request) -> str:
    """Answer as a model might: a capital, or a letter and a number that are right or wrong."""
    asked = str(request.prompt.text)
    return "Paris. It lies on the Seine." if "capital" in asked else f"B. The answer is {request.index}."


def faked(function: Callable[..., Any], **fixed: Any) -> Callable[..., Any]:
    return partial(function, engine=FakeEngine(answer), prompt_format="plain", progress=False, **fixed)


def test_the_page_on_python_runs_from_top_to_bottom(
    gsm8k_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one session, a function in the place of the models."""
    pytest.importorskip("pandas")
    (gsm8k_data / "mmlu" / "test").mkdir(parents=True)
    rows = "".join(f"Where is {part}?,here,there,nowhere,everywhere,B\n" for part in ("the heart", "the liver"))
    (gsm8k_data / "mmlu" / "test" / "anatomy_test.csv").write_text(rows, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(harness, "evaluate", faked(harness.evaluate, data=gsm8k_data), raising=False)
    names: dict[str, Any] = {"__name__": "page"}
    run = [block for block in blocks(ROOT / "docs" / "python.md") if block["why"] is None]
    assert len(run) >= 5
    for block in run:
        exec(compile(block["code"], "docs/python.md", "exec"), names)
    assert [run.record.benchmark for run in names["runs"]] == ["gsm8k", "mmlu"]
    assert names["run"].results.metrics["first-word"]["accuracy"].value == 0.5
    assert names["again"] == names["run"].results


def test_the_examples_of_the_readme_hold() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = doctest.DocTestParser().get_doctest(text, {}, "README.md", "README.md", 0)
    assert len(found.examples) >= 3
    assert doctest.DocTestRunner().run(found).failed == 0
