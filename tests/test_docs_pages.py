"""The pages as a whole: each says what it is for, stands in the navigation, and quotes messages that there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))

#: Pages that docs/hooks.py takes from the root of the repository, and one that need not be there.
FROM_ROOT = {"security.md": "SECURITY.md", "contributing.md": "CONTRIBUTING.md", "changes.md": "CHANGELOG.md"}
OPTIONAL = {"study.md"}


@pytest.mark.parametrize("page", [*PAGES, "security.md", "contributing.md"])
def test_a_page_opens_with_what_its_reader_can_do_after_it(page: str) -> None:
    path = ROOT / FROM_ROOT[page] if page in FROM_ROOT else DOCS / page
    title, opening, *_ = path.read_text(encoding="utf-8").split("\n\n")
    assert title.startswith("# ") and re.match(r"After this page you (can|know) ", opening), opening


def test_every_page_stands_in_the_navigation_once() -> None:
    named = re.findall(r"[\w/-]+\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(set(named) - OPTIONAL) == sorted({*PAGES, *FROM_ROOT} - OPTIONAL)
    assert len(named) == len(set(named))


def quoted() -> list[str]:
    """Return the messages that the page on troubleshooting quotes, paragraphs of nothing else; `…` is filled in."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    return [found[2] for line in text.split("\n\n") if (found := re.fullmatch(r"(`+)(.+)\1", line))]


@cache
def messages() -> tuple[str, ...]:
    """Return every text in the source that could be part of a message, with `…` for what is filled in."""
    found = []
    for folder in ("harness", "plugins"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            found += [_text(node) for node in _texts(ast.parse(path.read_text(encoding="utf-8")))]
    return tuple(found)


def _texts(node: ast.AST) -> Iterator[ast.Constant | ast.JoinedStr]:
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        yield node
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)


def _text(node: ast.Constant | ast.JoinedStr) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts)  # type: ignore[misc]


def stands_in(message: str, text: str) -> bool:
    """Whether a text of the source, part of it filled in, may come to the message, part of it left out."""
    return re.fullmatch(".*".join(map(re.escape, message.split("…"))), text) is not None


@pytest.mark.parametrize("message", quoted())
def test_a_message_that_is_quoted_is_one_of_this_software(message: str) -> None:
    assert len(re.sub("[…\\W]", "", message)) > 10, "too little to be told from another"
    assert any(stands_in(message, text) for text in messages()), message


def test_messages_that_are_not_there_would_be_found() -> None:
    assert len(quoted()) > 35
    assert not any(stands_in("another process is writing to …; kill it", text) for text in messages())
