"""The reference model wherever it is: the same loss everywhere, and a cache that is never used for something else."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from harness.testing.tiny import make_tiny_model, word_problems
from tests.conftest import Command, Done

LOG_2 = 0.693147


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HARNESS_CACHE", str(folder))
    torch.set_num_threads(1)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", context=256)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    lines = [
        json.dumps({"prompt": question, "chosen": answer, "rejected": answer.replace("now", "then")})
        for question, answer in word_problems(40, seed=2)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def train(harness: Command, tiny: Path, pairs: Path, tmp_path: Path) -> Callable[..., Done]:
    def command(out: str, model: Path = tiny, **options: str) -> Done:
        chosen = {
            "data": json.dumps([str(pairs)]), "prompt_format": "plain", "sequence_length": "128", "batch_size": "8",
            "microbatch_size": "3", "validation_pairs": "8", "learning_rate": "1e-3", "warmup": "0", "log_every": "1",
            "max_steps": "4", "device": "cpu", **options,
        }  # fmt: skip
        words = [part for key, value in chosen.items() for part in ("--set", f"dpo.{key}={value}")]
        return harness("train", "dpo", "--model", model, "--out", tmp_path / out, *words)

    return command


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines for name in ("loss", "validation/loss") if name in line]


@pytest.mark.parametrize("lora", [False, True])
def test_all_references_give_the_same_training(train: Callable[..., Done], tmp_path: Path, lora: bool) -> None:
    more = {"lora_rank": "4", "lora_alpha": "64"} if lora else {}
    modes = ["cached", "same", *(["adapter"] if lora else ["cpu"])]
    for mode in modes:
        done = train(mode, reference=mode, **more)
        assert done.code == 0, done.err
    expected = losses(tmp_path / "cached")
    assert len(expected) == 6
    assert expected[:2] == pytest.approx([LOG_2, LOG_2], abs=1e-6)  # validation before the first step, and the first
    assert abs(expected[-1] - LOG_2) > 1e-2
    for mode in modes[1:]:
        assert losses(tmp_path / mode) == pytest.approx(expected, abs=1e-6), mode


def test_shared_prompts_give_the_same_training(train: Callable[..., Done], tmp_path: Path) -> None:
    assert train("apart").code == 0
    assert train("shared", share_prompt="true").code == 0
    assert losses(tmp_path / "shared") == pytest.approx(losses(tmp_path / "apart"), abs=1e-4)  # rounding, grown


def test_another_reference_model_is_another_training(train: Callable[..., Done], tiny: Path, tmp_path: Path) -> None:
    from harness.training.model.network import load_lm
    from harness_dpo.instance import per_instance_dpo_loss

    other = make_tiny_model(tmp_path / "other", context=256, seed=1)
    for file in tiny.glob("tokenizer*"):
        (other / file.name).write_bytes(file.read_bytes())
    for mode in ("cached", "same"):
        done = train(
            mode, reference=mode, reference_model=str(other), prompt_format="alpaca_sft", sequence_length="256"
        )
        assert done.code == 0, done.err
    assert losses(tmp_path / "same") == pytest.approx(losses(tmp_path / "cached"), abs=1e-6)

    from harness.interfaces import TrainingRun
    from harness.models import find_model
    from harness.training.session import Session
    from harness_dpo import DPO
    from harness_dpo.data import read_data

    card = json.loads((tmp_path / "same" / "harness.json").read_text())["recipe"]["dpo"]
    options = DPO(data=tuple(card["data"]), prompt_format="alpaca_sft", sequence_length=256, validation_pairs=8)
    held_out = read_data(options, Session(options, TrainingRun(str(tiny), tmp_path, {}))).validation
    assert held_out is not None
    lm, reference = (load_lm(str(model), torch.float32, torch.device("cpu"), "eager") for model in (tiny, other))
    tokenizer = find_model(str(tiny)).tokenizer
    texts = [held_out.texts[int(pair)] for pair in held_out.pairs]
    with torch.no_grad():
        each = [
            per_instance_dpo_loss(lm, reference, tokenizer, 0.1, text.prompt, text.chosen, text.rejected).item()
            for text in texts
        ]
    assert losses(tmp_path / "same")[0] == pytest.approx(np.mean(each), abs=1e-5)
    assert abs(np.mean(each) - LOG_2) > 1e-3


def test_a_cache_is_computed_once_and_finished_where_it_was_left(
    train: Callable[..., Done], cache: Path, tmp_path: Path
) -> None:
    first = train("first")
    assert "computing the log-probabilities of 40 pairs" in first.err
    again = train("second", learning_rate="1e-4")
    assert again.code == 0 and "computing" not in again.err
    [kept] = (cache / "reference").iterdir()
    before = load_file(kept)["logprobs"]
    assert before.shape == (40, 2) and np.isfinite(before).all()

    torn = before.copy()
    torn[3] = np.nan
    keep(kept, torn, hashlib.sha256(torn.tobytes()).hexdigest())
    third = train("third")
    computed = re.search(r"computing the log-probabilities of (\d+) pairs", third.err)
    assert computed is not None and 1 <= int(computed[1]) < 40  # the step that it stands in
    np.testing.assert_allclose(load_file(kept)["logprobs"], before, rtol=1e-6)
    assert losses(tmp_path / "third") == pytest.approx(losses(tmp_path / "first"), abs=1e-6)

    kept.write_bytes(kept.read_bytes()[:100])
    for number in range(2):
        other = train(f"harmed {number}")
        assert "is damaged; computing it anew" in other.err and other.code == 0
        assert losses(tmp_path / f"harmed {number}") == losses(tmp_path / "first")
        keep(kept, before[::-1].copy())  # of other pairs


def keep(path: Path, values: Any, digest: str | None = None) -> None:
    """Put other values into a cache, with their digest or the one that is there."""
    with safe_open(path, framework="numpy") as file:
        facts = dict(file.metadata())
    save_file({"logprobs": values}, path, metadata={**facts, "values": digest or facts["values"]})


def test_what_another_training_computed_meanwhile_stays(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    from harness.interfaces import TrainingRun
    from harness.training.parallel import join
    from harness.training.session import Session
    from harness_dpo import DPO
    from harness_dpo.data import read_data
    from harness_dpo.reference import Cache

    options = DPO(data=(str(pairs),), prompt_format="plain", sequence_length=128, validation_pairs=8, device="cpu")
    session = Session(options, TrainingRun(str(tiny), tmp_path, {}))
    own = Cache(options, session.model, read_data(options, session), join("cpu"))
    for row in (0, 1):
        values = np.full((40, 2), np.nan, np.float32)
        values[row] = row
        own._write(values)
    found = own._read()
    assert found is not None and found[:2].tolist() == [[0, 0], [1, 1]] and np.isnan(found[2:]).all()
    other = replace(options, lora_rank=4, float8="tensorwise")  # products that round otherwise
    assert Cache(other, session.model, own._data, join("cpu"))._read() is None


def test_in_float8_a_cache_is_of_the_pairs_that_are_held_out(
    tiny: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rounded are the pairs that are learned from: held out with another seed, they are not those that are kept."""
    from harness.interfaces import TrainingRun
    from harness.training.parallel import join
    from harness.training.session import Session
    from harness_dpo import DPO
    from harness_dpo.data import read_data
    from harness_dpo.reference import Cache

    def cache(seed: int, float8: Any) -> Cache:
        options = DPO(
            data=(str(pairs),), prompt_format="plain", sequence_length=128, validation_pairs=8, seed=seed,
            device="cpu", lora_rank=4, float8=float8,
        )  # fmt: skip
        session = Session(options, TrainingRun(str(tiny), tmp_path, {}))
        return Cache(options, session.model, read_data(options, session), join("cpu"))

    for float8 in ("none", "tensorwise"):
        cache(0, float8)._write(np.zeros((40, 2), np.float32))
    assert cache(0, "tensorwise")._read() is not None and cache(1, "none")._read() is not None
    capsys.readouterr()
    assert cache(1, "tensorwise")._read() is None
    assert "are stale (another choice of held-out pairs); not used" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["cached", "same", "adapter"])
def test_policy_and_reference_round_alike_in_float8(
    train: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Also with other pairs held out than before: what was kept of those that are learned from now is not rounded."""
    monkeypatch.setattr("harness.training.model.network.check_float8", lambda options, device: None)
    seen = []
    for seed in ("0", "1"):
        done = train(f"seed {seed}", reference=mode, seed=seed, float8="tensorwise", lora_rank="4")
        assert done.code == 0, done.err
        assert losses(tmp_path / f"seed {seed}")[:2] == pytest.approx([LOG_2, LOG_2], abs=1e-6)
        seen.append("computing the log-probabilities" in done.err)
    assert seen == [mode == "cached"] * 2


def test_a_cache_of_another_model_or_template_is_not_used(train: Callable[..., Done], tmp_path: Path) -> None:
    texts = [f"{question} {answer}" for question, answer in word_problems(500)]
    model = make_tiny_model(tmp_path / "model", texts=texts, context=256)
    assert train("first", model=model).code == 0
    make_tiny_model(model, texts=texts, context=256, seed=5)
    done = train("second", model=model)
    assert done.code == 0
    assert re.search(r"reference: those kept in .* are stale \(another model\); not used", done.err)
    assert losses(tmp_path / "second")[0] == pytest.approx(LOG_2, abs=1e-6)
    assert "computing" in train("third", model=model, prompt_format="alpaca_sft", sequence_length="256").err


def test_a_model_that_gives_no_number_is_refused(train: Callable[..., Done], tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file as load
    from safetensors.torch import save_file as save

    model = tmp_path / "broken"
    shutil.copytree(tiny, model)
    weights = load(model / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save(weights, model / "model.safetensors", metadata={"format": "pt"})
    check_one_line(train("out", model=model), r"gives no finite log-probability to .*pairs.jsonl:\d+ \(and \d+ more\)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "adapter"}, "give dpo.lora_rank too"),
        ({"reference": "adapter", "lora_rank": "4", "reference_model": "x"}, "leave dpo.reference_model out"),
        ({"reference": "cashed"}, "dpo.reference=cashed: give cached, same, adapter, or a device"),
        ({"reference": "cuda:7"}, r"dpo.reference=cuda:7: give .* \(device=cuda:7"),
        ({"reference_model": "nowhere/at/all"}, "nowhere/at/all: no such folder"),
    ],
)
def test_a_reference_that_cannot_be_is_one_line(
    train: Callable[..., Done], options: dict[str, str], message: str
) -> None:
    check_one_line(train("out", **options), message)


def test_a_reference_with_another_tokenizer_is_refused(train: Callable[..., Done], tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", texts=["abc abd abe " * 20], context=256)
    check_one_line(train("out", reference_model=str(other)), "other: its tokenizer is not that of")


def test_a_reference_that_is_too_small_is_refused(train: Callable[..., Done], tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    short = make_tiny_model(tmp_path / "short", context=64)
    check_one_line(
        train("out", reference_model=str(short)), r"sequence_length=128 is above the 64 tokens of the reference"
    )
    shutil.copytree(tiny, tmp_path / "few")
    few: Any = AutoModelForCausalLM.from_pretrained(tiny)
    few.resize_token_embeddings(300)
    few.save_pretrained(tmp_path / "few")
    check_one_line(train("out", reference_model=str(tmp_path / "few")), "few: the data has token .* embeddings are 300")


def check_one_line(done: Any, message: str) -> None:
    assert done.code == 2, done
    [line] = [line for line in done.err.splitlines() if line.startswith("harness: ")]
    assert re.search(message, line), line
