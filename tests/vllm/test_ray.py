"""vLLM in Ray's replicas: the same answers as in one process, and a replica that is killed costs none."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.engines.ray.engine import RayEngine
from harness.engines.ray.model import RayModel
from harness.engines.vllm import VllmEngine
from harness.types import Completion, Generation, Prompt, Request
from tests.vllm.conftest import OPTIONS

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")

GENERATION = Generation(max_tokens=12)


@pytest.fixture(scope="module")
def spread(folder: Path) -> Iterator[RayModel]:
    """The tiny model in two replicas."""
    loaded = RayEngine(replicas=2).over(VllmEngine(**OPTIONS)).load(str(folder))
    assert isinstance(loaded, RayModel)
    yield loaded
    loaded.close()


def requests(prompts: list[Prompt], times: int = 1) -> list[Request]:
    return [Request(f"{turn}/{n}", one, GENERATION, n) for turn in range(times) for n, one in enumerate(prompts)]


def by_id(found: Iterator[Completion]) -> dict[str, Completion]:
    completions = [replace(one, seconds=None) for one in found]
    assert len({one.id for one in completions}) == len(completions)
    return {one.id: one for one in completions}


def test_replicas_answer_as_one_process_does(spread: RayModel, model: Any, prompts: list[Prompt]) -> None:
    asked = requests(prompts, times=5)
    assert by_id(spread.generate(asked)) == by_id(model.generate(asked))


def test_a_killed_replica_costs_no_answer(spread: RayModel, model: Any, prompts: list[Prompt]) -> None:
    asked = requests(prompts, times=20)
    expected = by_id(model.generate(asked))
    fleet = spread._fleet
    assert fleet is not None
    victim = fleet.ready[0].process()
    running = spread.generate(asked)
    first = next(running)
    os.kill(victim, signal.SIGKILL)
    found = by_id(iter([first, *running]))
    assert found == expected
    assert any("is lost: its process has died" in notice for notice in spread.notices)
