"""Real Ray, and replicas to which all happens that may: each request has one completion, whatever does."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.engines.ray.engine import RayEngine
from harness.engines.ray.model import RayModel
from harness.errors import ModelError
from harness.types import Completion, Request
from tests.engines.ray.odd import OddEngine, asked

pytestmark = pytest.mark.usefixtures("ray_here")


def load(inner: OddEngine, **options: Any) -> RayModel:
    model = RayEngine(**{"replicas": 2, **options}).over(inner).load("odd")
    assert isinstance(model, RayModel)
    return model


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[Any]:
    """Load the odd engine with options of its own and of ray's, and close what is left open."""
    models: list[RayModel] = []

    def loaded(own: dict[str, Any] | None = None, **options: Any) -> RayModel:
        models.append(load(OddEngine(str(tmp_path), **(own or {})), **options))
        return models[-1]

    yield loaded
    for model in models:
        model.close()


def answers(model: RayModel, requests: Sequence[Request]) -> dict[str, Completion]:
    """Return the completions by id, of which there is one for each request."""
    found = list(model.generate(requests))
    assert Counter(each.id for each in found) == Counter(each.id for each in requests)
    return {each.id: each for each in found}


@pytest.mark.parametrize("fed", [False, True])
def test_results_are_the_same_set_whatever_the_number_of_replicas(odd: Any, fed: bool) -> None:
    sets = []
    for replicas in (1, 2, 4):
        model = odd({"fed": fed}, replicas=replicas)
        first, second = answers(model, asked(300)), answers(model, asked(10))
        assert {name: first[name] for name in second} == second, "the model stays loaded, and can be asked again"
        sets.append(first)
        assert model.notices == []
        model.close()
    assert sets[0] == sets[1] == sets[2]


def test_all_replicas_take_part(odd: Any, tmp_path: Path) -> None:
    model = odd({"seconds": 0.002}, replicas=4)
    answers(model, asked(400))
    assert len(list(tmp_path.glob("*.pid"))) == 4


@pytest.mark.parametrize("fed", [False, True])
@pytest.mark.parametrize("word", ["twice", "wrong"])
def test_what_was_not_asked_or_is_told_again_is_dropped(odd: Any, word: str, fed: bool) -> None:
    model = odd({"fed": fed})
    found = answers(model, asked(60, q7=word, q50=word))
    assert all(each.error is None for each in found.values())
    assert model.notices == ["2 completions were dropped: their ids had been answered before, or were never asked"]


def test_the_order_of_completions_is_the_engines(odd: Any) -> None:
    answers(odd({"backwards": True}), asked(200))


def test_a_request_that_an_engine_leaves_out_fails_alone(odd: Any) -> None:
    found = answers(odd(), asked(60, q7="silent"))
    assert [name for name, each in found.items() if each.error] == ["q7"]
    assert "without a completion" in str(found["q7"].error)


@pytest.mark.parametrize("word", ["die", "raise"])
@pytest.mark.parametrize("fed", [False, True])
def test_a_poisonous_prompt_fails_alone(odd: Any, word: str, fed: bool) -> None:
    model = odd({"fed": fed})
    found = answers(model, asked(300, q123=word))
    assert [name for name, each in found.items() if each.error] == ["q123"]
    assert "alone was lost" in str(found["q123"].error)
    assert any("is lost" in notice for notice in model.notices)
    answers(model, asked(50))


@pytest.mark.parametrize("word", ["hang", "stop"])
def test_a_replica_that_hangs_is_replaced(odd: Any, word: str) -> None:
    model = odd(timeout=1.5)
    found = answers(model, asked(60, q7=word))
    assert all(each.error is None for each in found.values())
    assert any("no completion for 1.5 s" in notice for notice in model.notices)


def test_killed_workers_cost_no_request(odd: Any, tmp_path: Path) -> None:
    model = odd({"seconds": 0.01}, replicas=3)
    killed = []

    def kill() -> None:
        for _ in range(4):
            time.sleep(0.4)
            for mark in sorted(tmp_path.glob("*.pid"))[:1]:
                mark.unlink()
                os.kill(int(mark.stem), signal.SIGKILL)
                killed.append(mark.stem)

    killer = threading.Thread(target=kill)
    killer.start()
    found = answers(model, asked(900))
    killer.join()
    assert len(killed) >= 3
    assert all(each.error is None for each in found.values())


def test_a_call_that_is_broken_off_leaves_nothing_behind(odd: Any) -> None:
    model = odd({"seconds": 0.01})
    running = model.generate(asked(200))
    first = next(running)
    running.close()
    assert first.error is None
    found = answers(model, [Request(each.id, each.prompt, each.generation) for each in asked(30, q3="answer twenty")])
    assert found["q3"].text == "q3 is 13", "an answer to the same id in the call before does not count"


def test_an_engine_that_cannot_load_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load(OddEngine(fails="load"))
    line = str(caught.value)
    assert line.startswith("no replica can start: there is no such model; give another (all 2 failed); each asks for ")
    assert "\n" not in line and "there is" in line


def test_a_model_that_is_another_there_is_one_line() -> None:
    with pytest.raises(ModelError, match=r"no replica can start: the model is not the same there: here is \d+, and"):
        load(OddEngine(fails="identity"))


def test_a_replica_that_fits_nowhere_is_one_line() -> None:
    with pytest.raises(ModelError, match=r"no replica has found a place: each asks for 64 GPUs.* there is .*; lower"):
        load(OddEngine(), gpus=64)


def test_a_full_object_store_costs_nothing(odd: Any) -> None:
    """Large prompts go by it; what is in it is put on disk by Ray."""
    import ray

    model = odd()
    held = [ray.put(os.urandom(8 << 20)) for _ in range(20)]
    large = {f"q{n}": f"answer {'x' * 300_000}" for n in range(12)}
    found = answers(model, asked(40, **large))
    assert found["q3"].text == "q3 is 300007"
    del held


def test_what_ray_says_of_lost_workers_is_not_printed(odd: Any, capfd: pytest.CaptureFixture[str]) -> None:
    answers(odd(), asked(60, q7="die"))
    time.sleep(1)
    assert capfd.readouterr() == ("", "")
