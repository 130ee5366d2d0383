"""Every shipped plugin keeps the promises of its kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.registry import DISTRIBUTION, Kind, Registry
from harness.testing.conformance import Check, Subject, checks
from tests.completions_server import CompletionsServer
from tests.testing.data import SUBJECTS, write_data
from tests.testing.keeping import skipped

SHIPPED = [(p.kind, p.name) for p in Registry().plugins() if p.distribution == DISTRIBUTION]
CASES = [
    pytest.param(kind, name, check, id=f"{kind}:{name}-{check}") for kind, name in SHIPPED for check in checks(kind)
]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Kind, str], Subject]]:
    """Return the subject of a plugin, the same for all of its checks, with what it has to be checked with."""
    made: dict[tuple[Kind, str], Subject] = {}
    data = write_data(tmp_path_factory.mktemp("data"))
    recording = tmp_path_factory.mktemp("outputs") / "outputs.jsonl"
    recording.write_text("".join(json.dumps({"id": f"q{n}", "output": f"It is {n}."}) + "\n" for n in range(5)))
    with CompletionsServer() as server:
        given: dict[str, dict[str, Any]] = {
            "mmlu": {"options": {"subjects": SUBJECTS}},
            "replay": {"model": recording},
            "openai": {"model": "tiny", "options": {"base_url": server.base_url}},
            "wandb": {"options": {"mode": "offline"}},
        }

        def find(kind: Kind, name: str) -> Subject:
            if (kind, name) not in made:
                found = {"data": data} if kind == "benchmarks" else {}
                made[kind, name] = Subject(kind, name, **{**found, **given.get(name, {})})
            return made[kind, name]

        yield find


@pytest.mark.parametrize(("kind", "name", "check"), CASES)
def test_shipped(subject: Callable[[Kind, str], Subject], kind: Kind, name: str, check: Check) -> None:
    check(subject(kind, name))


@pytest.mark.parametrize("name", ["gsm8k", "mmlu", "alpaca_eval", "simple_safety_tests"])
def test_benchmarks_on_real_data(shared_data: Path, name: str) -> None:
    judged = [] if name in ("gsm8k", "mmlu") else ["gold answers score one", "other answers score less"]
    assert skipped(Subject("benchmarks", name, data=shared_data)) == judged
