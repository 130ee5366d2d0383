"""Log-probabilities of states and labels of any shape, with gradients and without, as torch has them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from harness.training.model.logprobs import selected_logprobs, summed_nll

SIZE, VOCABULARY = 7, 11


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("with_gradients", [True, False])
def test_any_shape(shape: tuple[int, ...], with_gradients: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(*shape, SIZE, generator=draw).requires_grad_(with_gradients)
    head = torch.randn(VOCABULARY, SIZE, generator=draw).requires_grad_(with_gradients)
    labels = torch.randint(VOCABULARY, shape, generator=draw)
    labels.view(-1)[1] = -100
    scores = log_softmax(hidden @ head.T, dim=-1)
    expected = scores.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels != -100)
    with torch.set_grad_enabled(with_gradients):
        found = selected_logprobs(hidden, head, labels, chunk=2)
        total = summed_nll(hidden, head, labels, 0.5, chunk=2)
    assert found.shape == labels.shape and found.dtype == total.dtype == torch.float32 and total.shape == ()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(total, -0.5 * expected.sum(), rtol=1e-5, atol=1e-5)
    if with_gradients:
        torch.autograd.backward(total)
        assert hidden.grad is not None and head.grad is not None
        own = (hidden.grad.clone(), head.grad.clone())
        hidden.grad = head.grad = None
        logits = (hidden @ head.T).flatten(0, -2)
        torch.autograd.backward(0.5 * cross_entropy(logits, labels.flatten(), ignore_index=-100, reduction="sum"))
        for one, other in zip(own, (hidden.grad, head.grad), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
