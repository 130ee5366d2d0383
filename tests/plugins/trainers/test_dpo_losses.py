"""The losses of preference tuning beside computations by hand in fp64, and the loss of one pair from two models."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import harness_dpo
from harness.engines.models import load_tokenizer
from harness.errors import ModelError
from harness.prompts import find_format
from harness.testing.tiny import make_tiny_model
from harness_dpo import LOSSES, dpo_loss, hinge_loss, ipo_loss, orpo_loss, per_instance_dpo_loss, simpo_loss
from harness_dpo.instance import _logprob

NAMES = sorted(LOSSES)


def by_hand(name: str, delta: float, beta: float) -> float:
    """Return the loss at Δ, written out for one number in fp64."""
    if name == "dpo":
        return float(np.logaddexp(0.0, -beta * delta))
    if name == "ipo":
        return (delta - 0.5 / beta) ** 2
    return max(0.0, 1.0 - beta * delta)


Two: TypeAlias = tuple[Tensor, Tensor]
Four: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]


def one(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor([value], dtype=dtype, requires_grad=True)


def two(values: tuple[float, float], dtype: torch.dtype = torch.float32) -> Two:
    return one(values[0], dtype), one(values[1], dtype)


def four(values: tuple[float, float, float, float], dtype: torch.dtype = torch.float32) -> Four:
    return *two(values[:2], dtype), *two(values[2:], dtype)


logprobs = st.floats(-2000, 0, width=32)
betas = st.floats(0.01, 10)
smoothings = st.floats(0, 0.5)


@settings(deadline=None)
@given(st.tuples(logprobs, logprobs, logprobs, logprobs), betas, smoothings)
@example((-100.0, -100.0, -100.0, -100.0), 0.1, 0.0)
@example((0.0, -1e4, -1e4, 0.0), 0.1, 0.3)
@example((-1e4, 0.0, 0.0, -1e4), 0.5, 0.0)
def test_losses_are_those_computed_by_hand(
    values: tuple[float, float, float, float], beta: float, smoothing: float
) -> None:
    delta = (values[0] - values[1]) - (values[2] - values[3])
    for name, loss in LOSSES.items():
        expected = (1 - smoothing) * by_hand(name, delta, beta) + smoothing * by_hand(name, -delta, beta)
        exact = loss(*four(values, torch.float64), beta, smoothing)
        assert exact.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
        single = loss(*four(values), beta, smoothing)
        assert single.dtype == torch.float32
        assert single.item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@settings(deadline=None)
@given(st.tuples(logprobs, logprobs, logprobs, logprobs), betas, smoothings)
def test_swapping_the_sides_is_a_wrong_label(
    values: tuple[float, float, float, float], beta: float, smoothing: float
) -> None:
    chosen, rejected, reference, other = four(values, torch.float64)
    for loss in LOSSES.values():
        plain = loss(chosen, rejected, reference, other, beta)
        swapped = loss(rejected, chosen, other, reference, beta)
        smoothed = loss(chosen, rejected, reference, other, beta, smoothing)
        torch.testing.assert_close(smoothed, (1 - smoothing) * plain + smoothing * swapped)
        even = [
            loss(chosen, rejected, reference, other, beta, 0.5),
            loss(rejected, chosen, other, reference, beta, 0.5),
        ]
        torch.testing.assert_close(*even)


def test_a_policy_that_is_the_reference_has_the_loss_of_no_difference() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        chosen, rejected = (torch.randn(2, 3, dtype=dtype) * 100 for _ in range(2))
        losses = {name: LOSSES[name](chosen, rejected, chosen, rejected, 0.1) for name in NAMES}
        for name, value in {"dpo": math.log(2), "ipo": 25.0, "hinge": 1.0}.items():
            torch.testing.assert_close(losses[name], torch.full((2, 3), value))


@pytest.mark.parametrize("name", NAMES)
def test_extreme_values_stay_finite(name: str) -> None:
    some = (-1e4, 0.0, 1e4)
    for values in itertools.product(some, some, some, some):
        inputs = four(values)
        loss = LOSSES[name](*inputs, beta=0.5, label_smoothing=0.1)
        assert loss.isfinite()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        assert all(value.grad is not None and value.grad.isfinite() for value in inputs)


def test_the_gradient_is_what_the_paper_says() -> None:
    inputs = four((-10.0, -12.0, -11.0, -9.0), torch.float64)
    dpo_loss(*inputs, beta=0.3).sum().backward()  # type: ignore[no-untyped-call]
    slope = 0.3 / (1 + math.exp(0.3 * 4.0))
    assert [value.grad.item() for value in inputs if value.grad is not None] == pytest.approx(
        [-slope, slope, slope, -slope]
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradients_of_all_losses(smoothing: float) -> None:
    draw = torch.Generator().manual_seed(0)
    inputs = [(-5 * torch.rand(7, generator=draw, dtype=torch.float64)).requires_grad_() for _ in range(4)]
    for loss in LOSSES.values():
        assert torch.autograd.gradcheck(lambda a, b, c, d, f=loss: f(a, b, c, d, 0.7, smoothing), inputs)
    assert torch.autograd.gradcheck(lambda chosen, rejected: simpo_loss(chosen, rejected, 2.0, 0.5), inputs[:2])
    assert torch.autograd.gradcheck(lambda chosen, rejected: orpo_loss(chosen, rejected, 0.1), inputs[:2])


def test_16_bit_log_probabilities_are_subtracted_in_fp32() -> None:
    values = (-301.0, -401.0, -300.0, -402.0)
    halves = four(values, torch.float16)
    loss = dpo_loss(*halves, beta=0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, dpo_loss(*four(values), beta=0.1))
    mixed = dpo_loss(*four(values)[:2], *halves[2:], beta=0.1)
    torch.testing.assert_close(loss, mixed)


averages = st.floats(-20, -1e-3)


@settings(deadline=None)
@given(averages, averages, betas)
def test_simpo_and_orpo_by_hand(chosen: float, rejected: float, beta: float) -> None:
    pair = two((chosen, rejected), torch.float64)
    expected = np.logaddexp(0.0, -(beta * (chosen - rejected) - 0.5))
    assert simpo_loss(*pair, beta=beta, gamma=0.5).item() == pytest.approx(expected)
    odds = [math.exp(average) / (1 - math.exp(average)) for average in (chosen, rejected)]
    expected = -chosen - beta * math.log(odds[0] / (odds[0] + odds[1]))  # σ(log a − log b) = a / (a + b)
    assert orpo_loss(*pair, beta=beta).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("loss", [lambda c, r: simpo_loss(c, r, 2.0, 0.5), lambda c, r: orpo_loss(c, r, 0.1)])
def test_extreme_averages_stay_finite(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    some = (-1e4, -1e-9, 0.0)
    for values in itertools.product(some, some):
        inputs = two(values)
        result = loss(*inputs)
        assert result.isfinite()
        result.sum().backward()  # type: ignore[no-untyped-call]
        assert all(value.grad is not None and value.grad.isfinite() for value in inputs)


def test_what_is_out_of_range_is_refused() -> None:
    inputs = four((-1.0, -2.0, -1.0, -2.0))
    for loss in (dpo_loss, ipo_loss, hinge_loss):
        for beta in (0.0, -0.1, math.inf, math.nan):
            with pytest.raises(ValueError, match="beta must be above 0"):
                loss(*inputs, beta=beta)
        with pytest.raises(ValueError, match=r"label_smoothing must be from 0 to 0\.5, not 0\.6"):
            loss(*inputs, beta=0.1, label_smoothing=0.6)
        with pytest.raises(ValueError, match=r"shapes \(1,\), \(1,\), \(2,\), \(1,\): they must be of one shape"):
            loss(*inputs[:2], torch.zeros(2), inputs[3], beta=0.1)


def test_the_package_has_no_other_names() -> None:
    assert all(hasattr(harness_dpo, name) for name in harness_dpo.__all__)
    assert not hasattr(harness_dpo, "kto_loss")


# One pair


PROMPT, CHOSEN, REJECTED = "Name the colour of the sky, in a word.", "It is blue.", "I would rather talk about cats."


@pytest.fixture(scope="module", params=[True, False], ids=["bos", "no bos"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(str(make_tiny_model(tmp_path_factory.mktemp("tokenizer"), bos=request.param)))


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "kind"), [("dpo", "sigmoid"), ("hinge", "hinge")])
def test_the_losses_are_trls(tokenizer: Any, tmp_path: Path, name: str, kind: str) -> None:
    """The first loss that TRL's DPOTrainer logs for two models, against ours of the same pairs."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    lm, reference = tiny_llama(tokenizer, 0), tiny_llama(tokenizer, 1)
    pairs = [(PROMPT, CHOSEN, REJECTED), (CHOSEN, PROMPT, CHOSEN), (REJECTED, CHOSEN, PROMPT)]
    template = find_format("alpaca_sft")
    ours = []
    for prompt, *responses in pairs:
        documents = [template.document(prompt, response, tokenizer) for response in responses]
        with torch.no_grad():
            chosen, rejected, *others = [_logprob(model, one) for model in (lm, reference) for one in documents]
        ours.append(LOSSES[name](chosen, rejected, others[0], others[1], 0.1).item())
    rows = [{"prompt": template.text(prompt), "chosen": one, "rejected": other} for prompt, one, other in pairs]
    config = trl.DPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=len(pairs), max_steps=1, learning_rate=1e-9, beta=0.1,
        loss_type=[kind], use_cpu=True, bf16=False, gradient_checkpointing=False, logging_steps=1, report_to=[],
        save_strategy="no", max_length=None, disable_tqdm=True,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=lm, ref_model=reference, args=config, train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    [logged] = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert logged == pytest.approx(np.mean(ours), rel=1e-5)


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
    tokenizer: Any = load_tokenizer(str(make_tiny_model(tmp_path)))
    lm = tiny_gpt2(tokenizer, 0)
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="the tokenizer has no end token"):
        per_instance_dpo_loss(lm, lm, tokenizer, 0.1, PROMPT, CHOSEN, REJECTED)
