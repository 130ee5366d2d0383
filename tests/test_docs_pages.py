"""The pages as a whole: each says what it is for, stands in the navigation, and quotes messages that there are."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))

#: Pages that docs/hooks.py takes from the root of the repository.
FROM_ROOT = {"security.md": "SECURITY.md", "contributing.md": "CONTRIBUTING.md", "changes.md": "CHANGELOG.md"}


@pytest.mark.parametrize("page", [*PAGES, "security.md", "contributing.md"])
def test_a_page_opens_with_what_its_reader_can_do_after_it(page: str) -> None:
    path = ROOT / FROM_ROOT[page] if page in FROM_ROOT else DOCS / page
    title, opening, *_ = path.read_text(encoding="utf-8").split("\n\n")
    assert title.startswith("# ") and re.match(r"After this page you (can|know) ", opening), opening


def test_every_page_stands_in_the_navigation_once() -> None:
    named = re.findall(r"[\w/-]+\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(named) == sorted([*PAGES, *FROM_ROOT])


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


TEXTS = {page: (DOCS / page).read_text(encoding="utf-8") for page in PAGES}
TEXTS |= {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")}


@pytest.mark.parametrize("page", TEXTS)
def test_what_a_page_names_is_there(page: str) -> None:
    """Run files are TOML; make has the targets, pip the extras, and the repository the files."""
    text = TEXTS[page]
    for block in re.findall(r"(?ms)^```toml\n(.*?)^```$", text):
        tomllib.loads(block)
    code = "\n".join(re.findall(r"(?m)^    .*$|^\$ .*$|`[^`\n]+`", text))  # in blocks and in lines
    targets = " ".join(re.findall(r"(?m)^([a-z][\w -]*):", (ROOT / "Makefile").read_text(encoding="utf-8"))).split()
    for target in re.findall(r"(?m)(?:^    |`|\$ )make ([a-z][\w-]*)", code):
        assert target in targets, f"make {target}"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for named in re.findall(r"pip install '?(?:posttrain-harness|\.)\[([\w,-]+)\]", code):
        assert set(named.split(",")) <= set(extras), named
    for path in re.findall(r"\b((?:perf|recipes|locks|examples|tests|plugins|prompts)/[\w./-]+\.\w+)", code):
        assert (ROOT / path).exists() or (DOCS / page).parent.joinpath(path).exists(), path


@pytest.mark.parametrize("page", TEXTS)
def test_links_between_files_lead_somewhere(page: str) -> None:
    """Where files are read as they are; in the site `make docs` holds them, headings included."""
    folder = ROOT if page in ("README.md", "SECURITY.md", "CONTRIBUTING.md") else (DOCS / page).parent
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", TEXTS[page]):
        assert (folder / target).exists(), target
