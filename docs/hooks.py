"""What mkdocs is told beside mkdocs.yml: the pages that stand elsewhere in the repository, help, doctests, llms.txt."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import griffe
from mkdocs.structure.files import File

from harness.cli import cli

ROOT = Path(__file__).parents[1]

#: Page of the site → the file in the repository that it is.
FROM_ROOT = {"security.md": "SECURITY.md", "contributing.md": "CONTRIBUTING.md", "changes.md": "CHANGELOG.md"}

#: Where a page has what every command says of itself.
COMMANDS = "<!-- commands -->"

_DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")

#: Source path → the Markdown of each page of the site.
_pages: dict[str, str] = {}


class Doctests(griffe.Extension):
    """Puts a docstring's doctests into blocks of code; in Markdown they would be quotations."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object that has one."""
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that stand at the root of the repository."""
    for page, source in FROM_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    place = page.file.src_uri
    folder = "" if place in FROM_ROOT else posixpath.join("docs", posixpath.dirname(place))
    pages = {source: name for name, source in FROM_ROOT.items()}

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[1]))
        name = pages.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        return match[1] if name is None else posixpath.relpath(name, posixpath.dirname(place) or ".")

    _pages[place] = _LINK.sub(link, markdown).replace(
        COMMANDS, "\n".join(helps(cli, click.Context(cli, info_name="harness")))
    )
    return _pages[place]


def helps(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield what `--help` says of a command and of all below it, each under a heading."""
    context.max_content_width = context.terminal_width = 100
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from helps(below, click.Context(below, info_name=name, parent=context))


def on_post_build(config: Any) -> None:
    """Write llms.txt (https://llmstxt.org): every page with its first sentence; and the pages as text."""
    site = Path(config.site_dir)
    for place, text in _pages.items():
        (site / place).write_text(text, encoding="utf-8")
    lines = [f"# {config.site_name}", "", f"> {config.site_description}"]
    for entry in config.nav:
        [(title, below)] = entry.items()
        lines += ["", f"## {title}", ""]
        for each in [entry] if isinstance(below, str) else below:
            [(name, place)] = each.items()
            lines.append(f"- [{name}]({place}): {first_sentence(_pages[place])}")
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def first_sentence(markdown: str) -> str:
    """Return the first sentence of a page's first paragraph, which says what its reader can do after it."""
    paragraph = next((each for each in markdown.split("\n\n") if each[:1].isalpha()), "")
    return re.split(r"(?<=\.) ", " ".join(paragraph.split()))[0]
