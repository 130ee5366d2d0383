"""`harness loss`: the loss of a model on files, by file and document."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.models import find_model
from harness.statistics.ratio import clustered_ratio
from harness.testing.tiny import make_tiny_model, word_problems
from tests.conftest import Command


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    return make_tiny_model(tmp_path / "model", context=256)


def nats(model: Path, prompt: str, response: str, every: bool) -> tuple[float, int]:
    """Return what transformers loses on one document by itself, and on how many tokens."""
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(model)
    tokenizer: Any = find_model(str(model)).tokenizer
    ids = torch.tensor([[*tokenizer.encode(prompt + response), tokenizer.eos_token_id]])
    with torch.no_grad():
        found = network(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    counted = found if every else found[len(tokenizer.encode(prompt)) - 1 :]
    return -float(counted.sum()), len(counted)


@pytest.mark.parametrize("which", ["responses", "all"])
@pytest.mark.parametrize("by", [["--device", "cpu"], ["--engine", "transformers", "--set", "transformers.device=cpu"]])
def test_the_loss_is_that_of_each_document_alone(
    harness: Command, model: Path, tmp_path: Path, which: str, by: list[str]
) -> None:
    rows = [(f"{question}\n", answer) for question, answer in word_problems(12, seed=2)]
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, some in zip(files, (rows[:8], rows[8:]), strict=True):
        path.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in some), encoding="utf-8")
    out = tmp_path / "documents.jsonl"
    done = harness("loss", *files, "-m", model, "--prompt-format", "plain", "--loss", which, "--documents", out, *by)
    assert done.code == 0, done.err
    expected = [nats(model, *row, which == "all") for row in rows]
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["tokens"] for line in found] == [tokens for _, tokens in expected]
    assert [line["nats"] for line in found] == pytest.approx([total for total, _ in expected], rel=1e-5)
    assert found[9]["document"] == f"{files[1]}, text 2"
    if which == "responses":
        assert [line["bytes"] for line in found] == [len(answer.encode()) for _, answer in rows]
    mean = sum(total for total, _ in expected) / sum(tokens for _, tokens in expected)
    [line] = re.findall(r"^all +12 +[\d,]+ +(\d\.\d{4}) \[.*?\] +([\d.]+) \[", done.out, re.MULTILINE)
    assert float(line[0]) == pytest.approx(mean, abs=1e-4)
    assert float(line[1]) == pytest.approx(math.exp(mean), abs=2e-2)


def test_what_cannot_be_measured_is_one_line(harness: Command, model: Path, tmp_path: Path) -> None:
    done = harness("loss", tmp_path / "none.jsonl", "-m", model)
    assert (done.code, done.out) == (2, "") and "no such file" in done.err
    file = tmp_path / "one.jsonl"
    file.write_text('{"prompt": "2 + 2 = ", "response": "4"}\n')
    done = harness("loss", file, "-m", model, "--engine", "replay")
    assert done.err == "harness: the engine 'replay' does not say how likely texts are; transformers and vllm do\n"
    done = harness("loss", file, "-m", model, "--set", "vllm.seed=1")
    assert done.err == "harness: --set goes with --engine NAME: it gives the engine's options\n"
    done = harness("loss", file, "-m", model, "--engine", "transformers", "--set", "vllm.seed=1")
    assert done.err == "harness: --set vllm: an option of none of transformers\n"
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    done = harness("loss", file, "-m", model, "--prompt-format", "plain", "--device", "cpu")
    assert done.code == 2 and f"the loss of 1 of 1 documents is no number (the first is {file}, text 1)" in done.err
    by = ["--engine", "transformers", "--set", "transformers.device=cpu"]
    done = harness("loss", file, "-m", model, "--prompt-format", "plain", *by)
    assert done.code == 2 and len(done.err.splitlines()) == 1, done.err


def test_intervals_of_ratios_cover() -> None:
    """Of 400 samples of 40 documents that differ in length and loss, about 95% have the true loss in their interval."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 200, size=100_000)
    means = draw.gamma(4, 0.5, size=100_000) + lengths / 400
    truth = float((means * lengths).sum() / lengths.sum())
    hits = 0
    for _ in range(400):
        some = draw.integers(0, len(lengths), size=40)
        found = clustered_ratio((means * lengths)[some], lengths[some])
        hits += found.low <= truth <= found.high
    assert 0.91 < hits / 400 < 0.98
    assert math.isnan(clustered_ratio([3.0], [2.0]).low) and clustered_ratio([3.0], [2.0]).value == 1.5
