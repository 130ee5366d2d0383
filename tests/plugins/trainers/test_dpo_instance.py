"""The loss of one pair from two models, by hand and in a padded batch, and each loss beside TRL's trainers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from harness.errors import ModelError
from harness.models import find_model
from harness.prompts import find_format
from harness.testing.tiny import make_tiny_model
from harness_dpo import (
    LOSSES,
    PairLogprobs,
    PreferenceLoss,
    per_instance_dpo_loss,
)
from harness_dpo.instance import _logprob

PROMPT, CHOSEN, REJECTED = "Name the colour of the sky, in a word.", "It is blue.", "I would rather talk about cats."


@pytest.fixture(scope="module", params=[True, False], ids=["bos", "no bos"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return find_model(str(make_tiny_model(tmp_path_factory.mktemp("tokenizer"), bos=request.param))).tokenizer


def tiny_gpt2(tokenizer: Any, seed: int) -> Any:
    """Return a GPT-2 of two layers with random weights, dropout in its configuration."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_layer=2, n_head=2, n_embd=16, n_positions=256, initializer_range=0.3
    )
    return GPT2LMHeadModel(config).eval()  # type: ignore[no-untyped-call]


def tiny_llama(tokenizer: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_hidden_layers=2, num_attention_heads=2, hidden_size=16, intermediate_size=32,
        initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()  # type: ignore[no-untyped-call]


def unconditional(lm: Any, tokenizer: Any, response: str) -> float:
    """Return log p(prompt and response), token by token in fp64, of the template written out."""
    text = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\n{PROMPT}\n\n### Response:\n{response}"
    )
    ids = [*tokenizer.encode(text), tokenizer.eos_token_id]
    with torch.no_grad():
        logits = lm(torch.tensor([ids])).logits[0].double().numpy()
    total = 0.0
    for position, token in enumerate(ids[1:]):
        total += logits[position, token] - np.log(np.exp(logits[position]).sum())
    return float(total)


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_one_pair_by_hand(tokenizer: Any, make: Callable[[Any, int], Any]) -> None:
    lm, reference = make(tokenizer, 0), make(tokenizer, 1)
    loss = per_instance_dpo_loss(lm, reference, tokenizer, 0.5, PROMPT, CHOSEN, REJECTED)
    delta = (unconditional(lm, tokenizer, CHOSEN) - unconditional(lm, tokenizer, REJECTED)) - (
        unconditional(reference, tokenizer, CHOSEN) - unconditional(reference, tokenizer, REJECTED)
    )
    assert abs(delta) > 1
    assert (loss.shape, loss.dtype) == ((), torch.float32)
    assert torch.isclose(loss, torch.tensor(np.logaddexp(0.0, -0.5 * delta), dtype=torch.float32), atol=1e-4)
    swapped = per_instance_dpo_loss(lm, reference, tokenizer, 0.5, PROMPT, REJECTED, CHOSEN)
    assert (swapped - loss).item() == pytest.approx(0.5 * delta, abs=1e-3)


def test_one_pair_as_in_a_padded_batch(tokenizer: Any) -> None:
    """Both sides padded into one batch and masked, as other implementations (TRL's `DPOTrainer`) compute the loss."""
    lm, reference = tiny_gpt2(tokenizer, 0), tiny_gpt2(tokenizer, 1)
    text = f"### Instruction:\n{PROMPT}\n\n### Response:\n"
    prompt = tokenizer.encode(
        f"Below is an instruction that describes a task. Write a response that appropriately completes the request."
        f"\n\n{text}"
    )
    sides = [[*tokenizer.encode(r, add_special_tokens=False), tokenizer.eos_token_id] for r in (CHOSEN, REJECTED)]
    width = len(prompt) + max(map(len, sides))
    ids = torch.full((2, width), tokenizer.pad_token_id)
    attended, completion = torch.zeros(2, width), torch.zeros(2, width)
    for row, side in enumerate(sides):
        ids[row, : len(prompt) + len(side)] = torch.tensor(prompt + side)
        attended[row, : len(prompt) + len(side)] = 1
        completion[row, len(prompt) : len(prompt) + len(side)] = 1
    ratios = []
    for model in (lm, reference):
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=attended).logits[:, :-1]
        picked = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        ratios.append((picked * completion[:, 1:]).sum(-1))
    scores = ratios[0] - ratios[1]
    expected = -torch.nn.functional.logsigmoid(0.1 * (scores[0] - scores[1]))
    loss = per_instance_dpo_loss(lm, reference, tokenizer, 0.1, PROMPT, CHOSEN, REJECTED)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def logprobs_of(models: Sequence[Any], pairs: Sequence[tuple[str, str, str]], tokenizer: Any) -> PairLogprobs:
    """Return what policy and reference, if given, make of pairs, each document by itself and from all of its logits."""
    template = find_format("alpaca_sft")
    documents = [
        [template.document(prompt, response, tokenizer) for response in responses] for prompt, *responses in pairs
    ]
    lengths = [[len(one.token_ids) - one.prompt_tokens for one in sides] for sides in documents]
    with torch.no_grad():
        found = [torch.tensor([[_logprob(model, one) for one in sides] for sides in documents]) for model in models]
    policy, *references = (values.double() for values in found)
    others = references[0].unbind(1) if references else ()
    return PairLogprobs(*policy.unbind(1), *torch.tensor(lengths, dtype=torch.float64).unbind(1), *others)


def mean_loss(loss: PreferenceLoss, pairs: PairLogprobs) -> float:
    return loss(pairs.averages() if loss.averages else pairs).mean().item()


TRL = [
    ("dpo", "sigmoid", {}),
    ("dpo_norm", "sigmoid_norm", {}),
    ("robust", "robust", {"label_smoothing": 0.1}),
    ("ipo_norm", "ipo", {}),
    ("hinge", "hinge", {}),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "kind", "options"), TRL)
def test_the_losses_are_trls(tokenizer: Any, tmp_path: Path, name: str, kind: str, options: dict[str, float]) -> None:
    """The first loss that TRL's DPOTrainer logs for two models, against ours of the same pairs."""
    trl = pytest.importorskip("trl")
    lm, reference = tiny_llama(tokenizer, 0), tiny_llama(tokenizer, 1)
    ours = mean_loss(replace(LOSSES[name], beta=0.1, **options), logprobs_of([lm, reference], TRIO, tokenizer))
    config = trl.DPOConfig(loss_type=[kind], beta=0.1, **options, **trl_settings(tmp_path))
    trainer = trl.DPOTrainer(
        model=lm, ref_model=reference, args=config, train_dataset=trl_rows(), processing_class=tokenizer
    )
    assert first_logged(trainer)["loss"] == pytest.approx(ours, rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_simpo_is_trls(tokenizer: Any, tmp_path: Path) -> None:
    cpo = pytest.importorskip("trl.experimental.cpo")
    lm = tiny_llama(tokenizer, 0)
    ours = mean_loss(replace(LOSSES["simpo"], beta=2.0, gamma=0.5), logprobs_of([lm], TRIO, tokenizer))  # type: ignore[call-arg]
    config = cpo.CPOConfig(
        loss_type="simpo",
        beta=2.0,
        simpo_gamma=0.5,
        cpo_alpha=0.0,
        **trl_settings(tmp_path),
        max_completion_length=None,
    )
    trainer = cpo.CPOTrainer(model=lm, args=config, train_dataset=trl_rows(), processing_class=tokenizer)
    assert first_logged(trainer)["loss"] == pytest.approx(ours, rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_the_odds_ratio_is_trls(tokenizer: Any, tmp_path: Path) -> None:
    """TRL's likelihood of the chosen side is that of prompt and response, so that the ratio is held against its own."""
    orpo = pytest.importorskip("trl.experimental.orpo")
    lm = tiny_llama(tokenizer, 0)
    pairs = logprobs_of([lm], TRIO, tokenizer).averages()
    ratio = (LOSSES["orpo"](pairs) + pairs.chosen).mean().item() / -0.1
    config = orpo.ORPOConfig(beta=0.1, **trl_settings(tmp_path), max_completion_length=None)
    trainer = orpo.ORPOTrainer(model=lm, args=config, train_dataset=trl_rows(), processing_class=tokenizer)
    assert float(first_logged(trainer)["log_odds_ratio"]) == pytest.approx(ratio, rel=1e-4)


TRIO = [(PROMPT, CHOSEN, REJECTED), (CHOSEN, PROMPT, CHOSEN), (REJECTED, CHOSEN, PROMPT)]


def trl_settings(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "per_device_train_batch_size": len(TRIO), "max_steps": 1, "learning_rate": 1e-9,
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "logging_steps": 1, "report_to": [],
        "save_strategy": "no", "max_length": None, "disable_tqdm": True,
    }  # fmt: skip


def trl_rows() -> Any:
    datasets, template = pytest.importorskip("datasets"), find_format("alpaca_sft")
    rows = [{"prompt": template.text(prompt), "chosen": one, "rejected": other} for prompt, one, other in TRIO]
    return datasets.Dataset.from_list(rows)


def first_logged(trainer: Any) -> dict[str, Any]:
    """Return what a trainer of TRL's logs of its first step."""
    trainer.train()
    [logged] = [line for line in trainer.state.log_history if "loss" in line]
    return dict(logged)


def test_gradients_flow_to_the_policy_alone(tokenizer: Any) -> None:
    lm, reference = tiny_gpt2(tokenizer, 0), tiny_gpt2(tokenizer, 0)
    loss = per_instance_dpo_loss(lm, reference, tokenizer, 0.1, PROMPT, CHOSEN, REJECTED)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in reference.parameters())
    assert all(parameter.grad is not None for parameter in lm.parameters())
    with torch.no_grad():
        for parameter in lm.parameters():
            assert parameter.grad is not None
            parameter.sub_(1e-3 * parameter.grad)
    assert per_instance_dpo_loss(lm, reference, tokenizer, 0.1, PROMPT, CHOSEN, REJECTED) < loss


def test_models_in_16_bits_give_a_loss_in_fp32(tokenizer: Any) -> None:
    lm, reference = (tiny_gpt2(tokenizer, seed).to(torch.bfloat16) for seed in (0, 1))
    exact = per_instance_dpo_loss(lm.float(), reference.float(), tokenizer, 0.1, PROMPT, CHOSEN, REJECTED)
    loss = per_instance_dpo_loss(lm.bfloat16(), reference.bfloat16(), tokenizer, 0.1, PROMPT, CHOSEN, REJECTED)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, atol=0.2, rtol=0.2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device: a GPU")
@pytest.mark.parametrize("devices", [("cpu", "cuda"), ("cuda", "cpu")])
def test_models_may_be_on_different_devices(tokenizer: Any, devices: tuple[str, str]) -> None:
    models = [tiny_gpt2(tokenizer, seed) for seed in (0, 1)]
    expected = per_instance_dpo_loss(models[0], models[1], tokenizer, 0.1, PROMPT, CHOSEN, REJECTED)
    lm, reference = (model.to(device) for model, device in zip(models, devices, strict=True))
    loss = per_instance_dpo_loss(lm, reference, tokenizer, 0.1, PROMPT, CHOSEN, REJECTED)
    assert loss.device.type == devices[0]
    torch.testing.assert_close(loss.cpu(), expected, atol=1e-3, rtol=1e-3)


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    tokenizer: Any = find_model(str(make_tiny_model(tmp_path))).tokenizer
    lm = tiny_gpt2(tokenizer, 0)
    tokenizer.eos_token = tokenizer.taught_end = None
    with pytest.raises(ModelError, match="the tokenizer has no end token"):
        per_instance_dpo_loss(lm, lm, tokenizer, 0.1, PROMPT, CHOSEN, REJECTED)
