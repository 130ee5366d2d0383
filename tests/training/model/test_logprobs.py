"""The chunked log-probabilities against the full logits: values, gradients, masks and what is never built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.training.model import logprobs
from harness.training.model.logprobs import selected_logprobs, summed_nll


def inputs(rows: int, masked: float = 0.3, *, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(rows)
    hidden = torch.randn(rows, 32).to(dtype).requires_grad_()
    lm_head = (0.3 * torch.randn(301, 32)).to(dtype).requires_grad_()
    labels = torch.randint(0, 301, (rows,)).masked_fill(torch.rand(rows) < masked, -100)
    return hidden, lm_head, labels


def full(hidden: Tensor, lm_head: Tensor, labels: Tensor) -> Tensor:
    return -F.cross_entropy(hidden.float() @ lm_head.float().t(), labels, reduction="none")


@given(rows=st.integers(1, 70), chunk=st.integers(1, 80), masked=st.sampled_from([0.0, 0.4, 1.0]))
@settings(max_examples=30, deadline=None)
def test_chunks_give_the_values_and_gradients_of_the_full_logits(rows: int, chunk: int, masked: float) -> None:
    hidden, lm_head, labels = inputs(rows, masked)
    weights = torch.randn(rows)
    expected = full(hidden, lm_head, labels)
    wanted = torch.autograd.grad((expected * weights).sum(), (hidden, lm_head))
    found = selected_logprobs(hidden, lm_head, labels, chunk=chunk)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad((found * weights).sum(), (hidden, lm_head))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@given(rows=st.integers(1, 70), chunk=st.integers(1, 80), masked=st.sampled_from([0.0, 0.4, 1.0]))
@settings(max_examples=30, deadline=None)
def test_the_summed_loss_has_its_gradients_ready(rows: int, chunk: int, masked: float) -> None:
    hidden, lm_head, labels = inputs(rows, masked)
    expected = -full(hidden, lm_head, labels).sum() / 17
    wanted = torch.autograd.grad(3 * expected, (hidden, lm_head))
    found = summed_nll(hidden, lm_head, labels, 1 / 17, chunk=chunk)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(3 * found, (hidden, lm_head)), wanted, rtol=1e-4, atol=1e-5)


def test_bf16_factors_are_summed_in_fp32() -> None:
    hidden, lm_head, labels = inputs(512, dtype=torch.bfloat16)
    expected = -full(hidden, lm_head, labels).sum()
    wanted = torch.autograd.grad(expected, (hidden, lm_head))
    found = summed_nll(hidden, lm_head, labels, chunk=128)
    assert abs(found.item() / expected.item() - 1) < 1e-5
    for ours, theirs in zip(torch.autograd.grad(found, (hidden, lm_head)), wanted, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - theirs.float()).norm() / theirs.float().norm() < 1e-2


def test_a_frozen_output_layer_gets_no_gradient() -> None:
    hidden, lm_head, labels = inputs(20)
    lm_head.requires_grad_(False)
    for loss in (summed_nll(hidden, lm_head, labels), selected_logprobs(hidden, lm_head, labels).sum()):
        hidden.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        assert hidden.grad is not None and lm_head.grad is None
    [found] = torch.autograd.grad(summed_nll(hidden, lm_head, labels), hidden)
    [wanted] = torch.autograd.grad(F.cross_entropy(hidden @ lm_head.t(), labels, reduction="sum"), hidden)
    torch.testing.assert_close(found, wanted)


def test_without_a_label_the_loss_is_zero_and_still_attached() -> None:
    hidden, lm_head, labels = inputs(20, masked=1.0)
    loss = summed_nll(hidden, lm_head, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert hidden.grad is not None and not hidden.grad.any()


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the most rows that any tensor as wide as the vocabulary has."""

    rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, Tensor) and tensor.ndim == 2 and tensor.shape[1] == 301:
                self.rows = max(self.rows, tensor.shape[0])
        return result


def test_no_more_than_a_chunk_of_logits_ever_exists() -> None:
    hidden, lm_head, labels = inputs(200)
    make: Any = Largest  # torch's class is untyped
    with make() as seen:
        summed_nll(hidden, lm_head, labels, chunk=16).backward()  # type: ignore[no-untyped-call]
        selected_logprobs(hidden, lm_head, labels, chunk=16).sum().backward()  # type: ignore[no-untyped-call]
    assert 0 < seen.rows <= 32  # the output layer's transpose is [32, 301]


def test_shapes_and_dtypes_that_do_not_fit_are_refused() -> None:
    hidden, lm_head, labels = inputs(20)
    with pytest.raises(ValueError, match="do not fit"):
        selected_logprobs(hidden, lm_head, labels[:-1])
    with pytest.raises(ValueError, match="one dtype"):
        summed_nll(hidden.bfloat16(), lm_head, labels)


def test_code_is_compiled_for_one_length_whatever_the_number_of_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where labels of a microbatch come in any number; what stands behind them changes nothing."""
    lengths: dict[Any, set[tuple[int, ...]]] = {}

    def noted(function: Callable[..., Any], like: Tensor) -> Callable[..., Any]:
        def seen(*given: Tensor) -> Any:
            lengths.setdefault(function, set()).update(tuple(each.shape) for each in given if each.ndim == 2)
            return function(*given)

        return seen

    def results(rows: int) -> list[Tensor]:
        hidden, lm_head, labels = inputs(rows)
        chosen = selected_logprobs(hidden, lm_head, labels, chunk=16)
        summed = summed_nll(hidden, lm_head, labels, 0.5, chunk=16)
        return [chosen, summed, *torch.autograd.grad(chosen.sum(), (hidden, lm_head)),
                *torch.autograd.grad(summed, (hidden, lm_head))]  # fmt: skip

    counts = (1, 5, 16, 17, 40, 63)
    plain = [results(rows) for rows in counts]
    monkeypatch.setattr(logprobs, "_compiles", lambda like: True)
    monkeypatch.setattr(logprobs, "_on_device", noted)
    for rows, expected in zip(counts, plain, strict=True):
        torch.testing.assert_close(results(rows), expected, rtol=1e-6, atol=1e-6)
    assert lengths[logprobs._slope] == {(4, 301)}
    assert lengths[logprobs._score] == {(4, 301), (16, 301)}  # a piece of a training's, a chunk of a validation's
