"""Architectures that are not Llama's, tiny and random: a checkpoint is what was measured, or there is none and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import HarnessError, ModelError, RunError
from harness.interfaces import TrainingRun
from harness.models import find_model, quiet
from harness.training.checkpoint.weights import _check_shapes
from harness.training.loop import train
from harness.training.model.network import load_network
from harness.training.parallel import join
from harness.training.session import Session
from harness_sft import SFT

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::RuntimeWarning:peft")

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "experts": ("MixtralConfig", {**SIZES, "num_local_experts": 4}),
    "conv1d": ("GPT2Config", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "functional dropout": (
        "OPTConfig",
        {"hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "dropout": 0.5,
         "max_position_embeddings": 256, "word_embed_proj_dim": 64},
    ),
    "sliding window": ("Gemma3TextConfig", {**SIZES, "head_dim": 16, "sliding_window": 64}),
}  # fmt: skip

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Callable[[str], Path]:
    """Make a tiny random model of a kind."""
    import transformers

    tokenizer: Any = find_model(str(tiny)).tokenizer
    models: Any = transformers.AutoModelForCausalLM

    def make(kind: str) -> Path:
        name, sizes = KINDS[kind]
        folder = tmp_path_factory.mktemp("made") / "model"
        config = getattr(transformers, name)(
            vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, **sizes,
        )  # fmt: skip
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            models.from_config(config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return folder

    return make


def options(problems: Path, **more: Any) -> SFT:
    return SFT(
        data=(str(problems),), prompt_format="plain", sequence_length=64, batch_size=4, microbatch_size=2,
        learning_rate=1e-2, max_steps=2, validation_documents=12, device="cpu", **more,
    )  # fmt: skip


def validated(model: Path, out: Path, chosen: SFT) -> list[float]:
    """Train and return the validation losses, the first before any step."""
    session = Session(chosen, TrainingRun(str(model), out, {}))
    train(session.job(chosen.prepare(session)))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["validation/loss"] for line in lines if "validation/loss" in line]


@pytest.mark.parametrize(
    ("kind", "targets"),
    [("experts", ATTENTION), ("conv1d", ()), ("functional dropout", ()), ("sliding window", ())],
)
def test_a_merged_adapter_is_the_model_that_was_measured(
    made: Callable[[str], Path], problems: Path, tmp_path: Path, kind: str, targets: tuple[str, ...]
) -> None:
    chosen = options(problems, lora_rank=4, lora_targets=targets)
    before, measured = validated(made(kind), tmp_path / "out", chosen)
    assert measured < before - 0.01
    reloaded, _ = validated(tmp_path / "out", tmp_path / "again", replace(chosen, lora_rank=0, lora_targets=()))
    assert reloaded == pytest.approx(measured, abs=1e-5)


def test_adapters_of_experts_are_refused_before_training(
    made: Callable[[str], Path], problems: Path, tmp_path: Path
) -> None:
    with pytest.raises(HarnessError, match=r"experts holds several matrices in one tensor .*lora_targets=\[\"q_proj\""):
        validated(made("experts"), tmp_path / "out", options(problems, lora_rank=4))


def test_no_dropout_of_any_kind_is_left_in_training(made: Callable[[str], Path], problems: Path) -> None:
    network = load_network(str(made("functional dropout")), options(problems), join("cpu"), packed=False).train()
    assert network.training
    ids = torch.arange(40)[None]
    assert torch.equal(network.lm(ids).logits, network.lm(ids).logits)


def test_a_model_that_lacks_weights_is_not_trained(tiny: Path, problems: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if name.endswith("up_proj.weight"))
    save_file({name: weights[name] for name in weights if name != gone}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"1 weights are missing, such as {gone}; save the model anew"):
        validated(folder, tmp_path / "out", options(problems))


def test_weights_of_other_names_or_shapes_are_no_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2, 3), "b.base_layer": torch.zeros(2)}, tmp_path / "model.safetensors")
    _check_shapes(tmp_path, {"a": (2, 3), "b.base_layer": (2,)})
    for other in ({"a": (2, 3), "b": (2,)}, {"a": (3, 2), "b.base_layer": (2,)}):
        with pytest.raises(RunError, match="merging the adapter made another model"):
            _check_shapes(tmp_path, other)
