"""docs/architecture.md is true: its rooms and ways are those of the imports, its links lead somewhere, its loss trains.

`python -m tests.test_architecture` writes the picture of the rooms anew.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Command
from tests.test_dependencies import LAYERS, ROOT, imports

if TYPE_CHECKING:
    from harness.testing.fixtures import FakeDistribution

PAGE = ROOT / "docs" / "architecture.md"

#: What everything stands on, and no picture shows.
GROUND = {"errors", "types", "interfaces", "hookspecs", "config", "behaviour", "files", "limits", "overdue", "version"}

_MARK = "<!-- rooms: python -m tests.test_architecture writes them anew -->\n"
_NODE = re.compile(r'(\w+)\["([^"<]+)(?:<br/>[^"]*)?"\]')
_EDGE = re.compile(r"^\s*(\w+)(?:\[[^\]]*\])? (-->|-\.->) (\w+)", re.MULTILINE)


def rooms() -> dict[str, set[str]]:
    """Return room → the rooms that it imports, those of the ground left out."""
    found: dict[str, set[str]] = {
        room: set() for layer in LAYERS for room in sorted(layer) if room not in {*GROUND, "__main__"}
    }
    for room, below in found.items():
        for path in files(room):
            targets = {name.split(".")[1] for name in imports(path) if name.startswith("harness.")}
            below |= (targets & found.keys()) - {room}
    return found


def files(place: str) -> list[Path]:
    """Return the files of a room, or the one at a path: ``evaluation``, ``evaluation/plan.py``, ``harness_sft``."""
    roots = (ROOT / "harness", ROOT / "plugins" / "benchmarks", ROOT / "plugins" / "trainers")
    for path in (root / name for root in roots for name in (place, f"{place}.py")):
        if path.exists():
            return [path] if path.is_file() else sorted(path.rglob("*.py"))
    raise AssertionError(f"there is no {place}")


def reduced(below: Mapping[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Yield the imports that no others imply."""

    def reached(room: str) -> set[str]:
        return below[room] | {further for each in below[room] for further in reached(each)}

    for room, targets in below.items():
        implied = {further for each in targets for further in reached(each)}
        yield from ((room, target) for target in sorted(targets - implied))


def picture() -> str:
    """Return the picture of the rooms."""
    lines = [f"    {room} --> {target}" for room, target in reduced(rooms())]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```", ""])


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_rooms_are_those_of_the_imports() -> None:
    shown = page().partition(_MARK)[2].partition("\n\n")[0] + "\n"
    assert shown == picture(), "python -m tests.test_architecture writes the picture anew"


def test_every_room_is_explained_once() -> None:
    table = page().partition("| room |")[2].partition("\n\n")[0]
    named = [name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert sorted(named) == sorted(rooms())
    ground = page().partition("the ground that all stand on:")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", ground)) == GROUND


WAYS = re.findall(r"## The way of (.+?)\n.*?```mermaid\n(.*?)```", page(), flags=re.DOTALL)


def module(path: Path) -> str:
    for root in (ROOT, ROOT / "plugins" / "benchmarks", ROOT / "plugins" / "trainers"):
        if path.is_relative_to(root / "harness") or (root != ROOT and path.is_relative_to(root)):
            return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    raise AssertionError(path)


@pytest.mark.parametrize(("way", "drawn"), WAYS, ids=[way for way, _ in WAYS])
def test_a_way_goes_by_imports_and_where_it_is_dotted_by_none(way: str, drawn: str) -> None:
    places = dict(_NODE.findall(drawn))
    edges = _EDGE.findall(drawn)
    assert len(edges) >= 10 and len(edges) == sum(line.count("->") for line in drawn.splitlines())
    for begin, arrow, end in edges:
        wanted = {module(path) for path in files(places[end])}
        found = {name for path in files(places[begin]) for name in imports(path)}
        is_import = any(name == target or name.startswith(f"{target}.") for name in found for target in wanted)
        assert is_import == (arrow == "-->"), f"{way}: {places[begin]} {arrow} {places[end]}"


def test_there_are_four_ways() -> None:
    assert [way for way, _ in WAYS] == ["one example", "one training row", "one pair", "one judgement"]


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    linked = set(re.findall(r"\]\(plugins\.md#([\w-]+)\)", page()))
    assert len(linked) >= 7 and linked <= anchors


def test_the_loss_of_the_page_is_one_that_the_trainer_takes(
    harness: Command, fake_distribution: FakeDistribution
) -> None:
    import torch

    [source] = re.findall(r"^```python\n(.*?)^```$", page(), flags=re.MULTILINE | re.DOTALL)
    fake_distribution(
        "harness-cpo", entry_points={"harness.trainers": {"cpo": "cpo_page"}}, modules={"cpo_page": source}
    )
    from harness.config import configure
    from harness.registry import Registry
    from harness_dpo.losses import PairLogprobs

    trainer: object = configure(Registry().trainer("cpo"), {"beta": 0.2}, "cpo")
    one = torch.ones(1)
    loss = trainer.preference  # type: ignore[attr-defined]
    found = loss(PairLogprobs(-10 * one, -15 * one, 4 * one, 5 * one)).item()
    assert found == pytest.approx(math.log(1 + math.exp(-0.2 * 5)))
    assert not loss.needs_reference


def main() -> None:
    before, mark, after = page().partition(_MARK)
    rest = after.partition("\n\n")[2]
    PAGE.write_text(f"{before}{mark}{picture()}\n{rest}", encoding="utf-8")


if __name__ == "__main__":
    main()
