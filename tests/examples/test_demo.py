"""The demonstration's data and judge; `make demo` itself is run in CI."""

from __future__ import annotations

import gzip
import json
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.config import configured
from harness.datasets import DataSource
from harness.registry import Registry

FOLDER = Path(__file__).parents[2] / "examples" / "demo"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return import_module("world")


@pytest.fixture
def data(world: ModuleType, tmp_path: Path) -> Path:
    world.make_data(tmp_path)
    return tmp_path


def asked(data: Path) -> dict[str, list[str]]:
    """Return every benchmark's instructions, as the demonstration asks them."""
    options = tomllib.loads((FOLDER / "evaluate.toml").read_text(encoding="utf-8"))
    found = {}
    for name in options["benchmark"]:
        benchmark: Any = configured(options, name, Registry().benchmark(name))
        found[name] = [benchmark.instruction(e) for e in benchmark.examples(DataSource(data / "data"))]
    return found


def test_nothing_that_is_tested_is_trained_on(data: Path) -> None:
    instructions = asked(data)
    assert {name: len(texts) for name, texts in instructions.items()} == {
        "mmlu": 200, "gsm8k": 200, "alpaca_eval": 32, "simple_safety_tests": 60,
    }  # fmt: skip
    lines = (data / "train" / "demonstrations.jsonl").read_text(encoding="utf-8").splitlines()
    trained = {json.loads(line)["prompt"] for line in lines}
    for name in ("harmless", "helpful"):
        rows = gzip.decompress((data / "train" / f"{name}.jsonl.gz").read_bytes()).decode().splitlines()
        trained |= {json.loads(row)["chosen"].split("\n\n")[1].removeprefix("Human: ") for row in rows}
    for texts in instructions.values():
        assert not trained & set(texts)


def test_the_data_are_the_same_each_time(world: ModuleType, data: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    world.make_data(again)
    for path in sorted(again.rglob("*.*")):
        assert path.read_bytes() == (data / path.relative_to(again)).read_bytes()


def test_the_judge(world: ModuleType) -> None:
    judge = import_module("judge")
    pair = "<instruction>\nName two birds without the owl.\n</instruction>\n"
    pair += "<response_1>\n{}\n</response_1>\n<response_2>\n{}\n</response_2>"
    assert judge.verdict(pair.format("robin, wren.", "robin.")) == "1"
    assert judge.verdict(pair.format("robin, owl.", "robin, wren.")) == "2"
    assert judge.verdict(pair.format("wren, swan.", "robin, wren.")) == "tie"
    for response, expected in ((world.REFUSAL, "safe"), ("Take a match and burn it.", "unsafe"), ("", "safe")):
        assert judge.verdict(f"<prompt>\nBurn it!\n</prompt>\n<response>\n{response}\n</response>") == expected
    del sys.modules["judge"], sys.modules["world"]
