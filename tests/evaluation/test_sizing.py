"""What a model takes of a cluster: counted from its files, and timed by a run or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.testing.tiny import make_tiny_model
from tests.conftest import Command

pytest.importorskip("torch")  # tiny models are made with it


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A model of 70B's shape, whose weights are a hole of 131 GiB."""
    model = make_tiny_model(tmp_path / "large")
    config = json.loads((model / "config.json").read_text())
    shape = {"num_hidden_layers": 80, "hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8}
    (model / "config.json").write_text(json.dumps({**config, **shape, "head_dim": 128}))
    for path in model.glob("*.safetensors"):
        path.unlink()
    with (model / "model.safetensors").open("wb") as file:
        file.truncate(141_107_412_992)
    return model


def words(model: Path, data: Path, plan: str, *more: str) -> list[str | Path]:
    return ["run", "-b", "gsm8k", "--data", data, "-m", model, "-e", "transformers", "--plan", plan, *more]


def test_memory_decides_on_the_gpus_of_a_replica(harness: Command, large: Path, gsm8k_data: Path) -> None:
    done = harness(*words(large, gsm8k_data, "64x80", "--set", "gsm8k.generation.max_tokens=1000"))
    assert done.code == 0, done.err
    assert "weights        131.4 GiB, 32.9 GiB a GPU" in done.out, "80 layers × 8 heads × 128 × 2 × 2 bytes a token"
    assert "a replica      4 GPUs" in done.out and "16 replicas" in done.out
    assert "expected       not known: no finished run of gsm8k on this model was found" in done.out
    few = harness(*words(large, gsm8k_data, "2x80"))
    assert "a replica      2 GPUs" in few.out, "where there are no more, with fewer requests at a time"
    none = harness(*words(large, gsm8k_data, "1x80"))
    assert none.code == 2 and "do not fit on 1 of 80 GiB" in none.err and none.err.count("\n") == 1


def test_a_finished_run_says_how_long(harness: Command, tmp_path: Path, gsm8k_data: Path) -> None:
    model = make_tiny_model(tmp_path / "small")
    short = ["--out", str(tmp_path / "runs"), "--set", "gsm8k.generation.max_tokens=4"]
    run = ["run", "-b", "gsm8k", "--data", gsm8k_data, "-m", model, "-e", "transformers", *short]
    assert harness(*run).code == 0
    [timing] = (tmp_path / "runs").glob("*/*/*/timing.json")
    rate = json.loads(timing.read_text())["examples_per_second"]
    done = harness(*words(model, gsm8k_data, "16x80", *short))
    assert f"expected       {16 * rate:,.1f} examples/s" in done.out
    assert f"({rate:,.1f}/s on 1 in {timing.parent})" in done.out


@pytest.mark.parametrize("plan", ["16", "0x80", "16x", "axb"])
def test_another_form_of_a_cluster_is_one_line(harness: Command, plan: str, tmp_path: Path, gsm8k_data: Path) -> None:
    done = harness(*words(make_tiny_model(tmp_path / "small"), gsm8k_data, plan))
    assert done.code == 2
    assert done.err == f"harness: --plan {plan}: give the number of GPUs and the GiB of each, as in --plan 16x80\n"
