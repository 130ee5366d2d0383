"""Without Ray: one line with the remedy, and nothing of it is imported by what does not use it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.config import configure
from harness.engines.ray.engine import RayEngine
from harness.errors import ConfigError
from harness.registry import Registry
from tests.conftest import Command


def test_absent_ray_is_one_line(
    harness: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gsm8k_data: Path, outputs: Any
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else found(name, *rest))
    words = ["-e", "ray", "--set", "ray.engine=replay", "-m", outputs("#### 7"), "--data", gsm8k_data]
    done = harness("run", "-b", "gsm8k", *words)
    assert done.code == 2
    assert done.err == (
        "harness: engine 'ray' cannot run here: Ray is not installed: pip install 'posttrain-harness[ray]', or leave "
        "--engine ray out\n"
    )


def test_the_engine_is_listed_without_an_import_of_ray() -> None:
    code = (
        "import sys; from harness.registry import Registry; engine = Registry().engine('ray'); engine.available();"
        "assert 'ray' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"replicas": 0}, "replicas must be at least 1, or auto"),
        ({"gpus": 1.5}, "gpus must be a part of one GPU or a whole number"),
        ({"timeout": 0}, "timeout must be more than 0 seconds"),
        ({"replicas": "many"}, "ray.replicas"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        configure(RayEngine(), options, "ray")


def test_ray_does_not_spread_itself() -> None:
    engine = Registry().engine("ray")
    with pytest.raises(ConfigError, match=r"ray\.engine=ray: the replicas need an engine that loads the model itself"):
        RayEngine().over(engine)
