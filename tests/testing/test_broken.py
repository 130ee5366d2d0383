"""Every check can fail: a plugin that breaks one promise fails the check of that promise, in a clear sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.registry import KINDS, Kind
from harness.testing.conformance import Check, Subject, checks
from harness.testing.new import plugin_files
from tests.testing.broken import BREAKS, ENGINE, EVERY, JUDGED, TRAINER_BREAKS, Break, broken
from tests.testing.keeping import skipped

if TYPE_CHECKING:
    from harness.testing.fixtures import FakeDistribution

Install = Callable[[Kind, str], Subject]
CASES = [pytest.param(kind, one, id=f"{kind}-{one.check}") for kind in BREAKS for one in BREAKS[kind]]


@pytest.fixture
def install(fake_distribution: FakeDistribution, tmp_path: Path, request: pytest.FixtureRequest) -> Install:
    """Install a module with a plugin called ``odd`` of a kind, and return what is needed to check it."""

    def put(kind: Kind, source: str) -> Subject:
        points = {f"harness.{kind}": {"odd": "harness_odd"}}
        given: dict[str, Any] = {}
        if kind == "benchmarks":
            points["harness.scorers"] = {"odd": "harness_odd"}
            given["data"] = tmp_path / "data"
            (tmp_path / "data" / "odd").mkdir(parents=True)
            (tmp_path / "data/odd/test.jsonl").write_text(plugin_files("odd", "benchmark")["data/odd/test.jsonl"])
        elif kind == "formats":
            given["data"] = tmp_path / "outputs.odd"
            given["data"].write_text(plugin_files("odd", "format")["data/outputs.odd"])
        elif kind == "engines":
            given["model"] = request.getfixturevalue("tiny_model") if "class Model" in source else "any"
        elif "class Polite" in source:
            given["outputs"] = ("polite", "very rude")
        fake_distribution("harness-odd", entry_points=points, modules={"harness_odd": source})
        return Subject(kind, "odd", **given)

    return put


def check_called(kind: Kind, name: str) -> Check:
    [found] = [check for check in checks(kind) if check.name == name]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_has_a_plugin_that_fails_it(kind: Kind) -> None:
    breaks = [*EVERY, *(TRAINER_BREAKS if kind == "trainers" else BREAKS[kind])]
    assert [check.name for check in checks(kind)] == [one.check for one in breaks]


@pytest.mark.parametrize(("kind", "one"), CASES)
def test_a_plugin_that_breaks_a_promise_fails(install: Install, kind: Kind, one: Break) -> None:
    subject = install(kind, broken(kind, one))
    with pytest.raises(AssertionError, match=one.says) as caught:
        check_called(kind, one.check)(subject)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.check)
def test_a_plugin_of_any_kind_that_breaks_a_promise_fails(install: Install, one: Break) -> None:
    subject = install("parsers", broken("parsers", one))
    with pytest.raises(AssertionError, match=one.says):
        check_called("parsers", one.check)(subject)


@pytest.mark.parametrize(("kind", "source"), [("scorers", JUDGED), ("engines", ENGINE)], ids=["judged", "engine"])
def test_what_is_broken_here_was_sound_before(install: Install, kind: Kind, source: str) -> None:
    assert skipped(install(kind, source)) == []


def test_a_trainer_that_breaks_every_promise_fails_every_check(install: Install) -> None:
    subject = install("trainers", broken("trainers", *TRAINER_BREAKS))
    for one in TRAINER_BREAKS:
        with pytest.raises(AssertionError, match=one.says):
            check_called("trainers", one.check)(subject)
