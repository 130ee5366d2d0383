"""How many files one example, and one training step, pass: a way that can be followed in an afternoon."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import harness
from harness.testing.tiny import make_tiny_model
from tests.made_runs import MadeRuns

ROOT = Path(__file__).parents[1]
SOURCES = tuple(f"{ROOT / name}/" for name in ("harness", "plugins"))


def calls(action: Callable[[], Any]) -> Counter[str]:
    """Return how many functions are called in each file of this project while `action` runs, in all threads."""
    found: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(SOURCES):
            found[frame.f_code.co_filename] += 1

    sys.setprofile(note)
    threading.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def passed(action: Callable[[int], Any]) -> list[str]:
    """Return the files that have more to do where `action` does one thing more."""
    action(1)  # what is done once a process is done
    fewer, more = (calls(lambda count=count: action(count)) for count in (2, 3))  # type: ignore[misc]
    return sorted(name for name in more if more[name] > fewer[name])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_model(tmp_path_factory.mktemp("model"), layers=1, hidden=32, context=512))


def test_one_example_by_the_transformers_engine_passes_fewer_than_52_files(model: str, tmp_path: Path) -> None:
    MadeRuns(tmp_path).gsm8k("recorded", lambda i: True, n=6)

    def evaluate(count: int) -> None:
        harness.evaluate(
            "gsm8k", model, engine="transformers", data=tmp_path / "data-6", limit=count, out=tmp_path / "runs",
            progress=False, fresh=True, prompt_format="plain", transformers={"device": "cpu"},
            gsm8k={"generation": {"max_tokens": 2}},
        )  # fmt: skip

    files = passed(evaluate)
    assert any(name.endswith("engines/transformers.py") for name in files)
    assert len(files) < 52, "\n".join(files)


def test_one_step_of_instruction_tuning_passes_fewer_than_43_files(model: str, tmp_path: Path) -> None:
    def train(count: int) -> None:
        harness.train(
            "sft", model=model, out=tmp_path / f"out-{count}", data=[str(ROOT / "recipes" / "tiny" / "train.jsonl")],
            prompt_format="plain", sequence_length=128, batch_size=2, microbatch_size=1, max_steps=count, device="cpu",
            dtype="float32",
        )  # fmt: skip

    def fresh(count: int) -> None:
        train(count)
        for path in tmp_path.glob("out-*"):
            path.rename(tmp_path / f"done-{len(list(tmp_path.glob('done-*')))}")

    files = passed(fresh)
    assert any(name.endswith("training/loop.py") for name in files)
    assert len(files) < 43, "\n".join(files)
