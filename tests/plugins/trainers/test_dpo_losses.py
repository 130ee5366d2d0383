"""The losses of preference tuning beside computations by hand in fp64: as functions, and as objects with options."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import harness_dpo
from harness_dpo import (
    LOSSES,
    PairLogprobs,
    PreferenceLoss,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    orpo_loss,
    robust_loss,
    simpo_loss,
)

#: The losses that are functions of Δ alone, by the names that users type.
OF_DELTA: dict[str, Callable[..., Tensor]] = {
    "dpo": dpo_loss, "ipo": ipo_loss, "hinge": hinge_loss, "robust": robust_loss,
}  # fmt: skip
SMOOTHED = ("dpo", "ipo", "hinge")

Two: TypeAlias = tuple[Tensor, Tensor]
Four: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]


def softplus(value: float) -> float:
    """Return −log σ(−value) in fp64."""
    return float(np.logaddexp(0.0, value))


def by_hand(name: str, delta: float, beta: float) -> float:
    """Return the loss at Δ, written out for one number in fp64."""
    if name == "dpo":
        return softplus(-beta * delta)
    if name == "ipo":
        return (delta - 0.5 / beta) ** 2
    return max(0.0, 1.0 - beta * delta)


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
@example((-1025.0, -1025.0, 0.0, -0.3333333432674408), 6.0, 0.0)
def test_losses_are_those_computed_by_hand(
    values: tuple[float, float, float, float], beta: float, smoothing: float
) -> None:
    delta = (values[0] - values[1]) - (values[2] - values[3])
    for name in SMOOTHED:
        expected = (1 - smoothing) * by_hand(name, delta, beta) + smoothing * by_hand(name, -delta, beta)
        exact = OF_DELTA[name](*four(values, torch.float64), beta, smoothing)
        assert exact.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
        single = OF_DELTA[name](*four(values), beta, smoothing)
        assert single.dtype == torch.float32
        off = 2**-21 * max(map(abs, values))  # the difference of large numbers is so far off in fp32
        at = [(each, each + e) for each in (delta, -delta) for e in (off, -off)]
        near = [abs(by_hand(name, moved, beta) - by_hand(name, each, beta)) for each, moved in at]
        assert single.item() == pytest.approx(expected, rel=1e-4, abs=1e-4 + max(near))


@settings(deadline=None)
@given(st.tuples(logprobs, logprobs, logprobs, logprobs), betas, st.floats(0, 0.45))
@example((-100.0, -100.0, -100.0, -100.0), 0.1, 0.0)
def test_the_robust_loss_is_that_of_the_paper(
    values: tuple[float, float, float, float], beta: float, smoothing: float
) -> None:
    """Written out; and where so many labels are wrong, its mean is DPO's under right ones (arXiv:2403.00409)."""
    delta = (values[0] - values[1]) - (values[2] - values[3])
    inputs = four(values, torch.float64)
    right, wrong = softplus(-beta * delta), softplus(beta * delta)
    found = robust_loss(*inputs, beta, smoothing).item()
    assert found == pytest.approx(((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing), rel=1e-9)
    swapped = robust_loss(inputs[1], inputs[0], inputs[3], inputs[2], beta, smoothing).item()
    tolerance = 1e-9 * (abs(found) + abs(swapped))
    assert (1 - smoothing) * found + smoothing * swapped == pytest.approx(right, rel=1e-9, abs=tolerance)


@settings(deadline=None)
@given(st.tuples(logprobs, logprobs, logprobs, logprobs), betas, smoothings)
def test_swapping_the_sides_is_a_wrong_label(
    values: tuple[float, float, float, float], beta: float, smoothing: float
) -> None:
    chosen, rejected, reference, other = four(values, torch.float64)
    for loss in (OF_DELTA[name] for name in SMOOTHED):
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
        for name, value in {"dpo": math.log(2), "ipo": 25.0, "hinge": 1.0, "robust": math.log(2)}.items():
            loss = OF_DELTA[name](chosen, rejected, chosen, rejected, 0.1, 0.0)
            torch.testing.assert_close(loss, torch.full((2, 3), value))


@pytest.mark.parametrize("name", OF_DELTA)
def test_extreme_values_stay_finite(name: str) -> None:
    some = (-1e4, 0.0, 1e4)
    for values in itertools.product(some, some, some, some):
        inputs = four(values)
        loss = OF_DELTA[name](*inputs, beta=0.5, label_smoothing=0.1)
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
    for loss in OF_DELTA.values():
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
    for loss in OF_DELTA.values():
        for beta in (0.0, -0.1, math.inf, math.nan):
            with pytest.raises(ValueError, match="beta must be above 0"):
                loss(*inputs, beta=beta, label_smoothing=0.1)
        with pytest.raises(ValueError, match=r"label_smoothing must be from 0 to 0\.5, not 0\.6"):
            loss(*inputs, beta=0.1, label_smoothing=0.6)
        with pytest.raises(ValueError, match=r"shapes \(1,\), \(1,\), \(2,\), \(1,\): they must be of one shape"):
            loss(*inputs[:2], torch.zeros(2), inputs[3], beta=0.1, label_smoothing=0.1)


def test_the_package_has_no_other_names() -> None:
    assert all(hasattr(harness_dpo, name) for name in harness_dpo.__all__)
    assert not hasattr(harness_dpo, "kto_loss")


# As objects with options


SUMS, TOKENS, REFERENCES = (-12.0, -30.0), (4.0, 12.0), (-14.0, -27.0)
PAIR = PairLogprobs(*(torch.tensor([value], dtype=torch.float64) for value in (*SUMS, *TOKENS, *REFERENCES)))

#: What each loss comes to for `PAIR`, from its formula; sums differ by Δ = 5, averages by (−3 + 3.5) − (−2.5 + 2.25).
EXPECTED: dict[str, Callable[..., float]] = {
    "dpo": lambda beta, label_smoothing: (
        (1 - label_smoothing) * softplus(-beta * 5) + label_smoothing * softplus(beta * 5)
    ),
    "dpo_norm": lambda beta, label_smoothing: (
        (1 - label_smoothing) * softplus(-beta * 0.75) + label_smoothing * softplus(beta * 0.75)
    ),
    "robust": lambda beta, label_smoothing: (
        ((1 - label_smoothing) * softplus(-beta * 5) - label_smoothing * softplus(beta * 5)) / (1 - 2 * label_smoothing)
    ),
    "ipo": lambda beta, label_smoothing: (
        (1 - label_smoothing) * (5 - 0.5 / beta) ** 2 + label_smoothing * (-5 - 0.5 / beta) ** 2
    ),
    "ipo_norm": lambda beta, label_smoothing: (
        (1 - label_smoothing) * (0.75 - 0.5 / beta) ** 2 + label_smoothing * (-0.75 - 0.5 / beta) ** 2
    ),
    "hinge": lambda beta, label_smoothing: (
        (1 - label_smoothing) * max(0, 1 - beta * 5) + label_smoothing * max(0, 1 + beta * 5)
    ),
    "simpo": lambda beta, gamma: softplus(-(beta * (-3 + 2.5) - gamma)),
    "orpo": lambda beta: 3 + beta * softplus(-(log_odds(-3) - log_odds(-2.5))),
}


def log_odds(average: float) -> float:
    return average - math.log(1 - math.exp(average))


def loss_of(loss: PreferenceLoss) -> float:
    return loss(PAIR.averages() if loss.averages else PAIR).item()


@pytest.mark.parametrize("name", EXPECTED)
def test_each_loss_is_its_papers_formula(name: str) -> None:
    loss = LOSSES[name]
    assert loss_of(loss) == pytest.approx(EXPECTED[name](**asdict(loss)), rel=1e-12)
    other = replace(loss, **{option: value / 2 + 0.01 for option, value in asdict(loss).items()})
    assert loss_of(other) == pytest.approx(EXPECTED[name](**asdict(other)), rel=1e-12)
    assert loss_of(other) != pytest.approx(loss_of(loss), rel=1e-6)


def test_every_loss_is_held_against_its_formula() -> None:
    assert LOSSES.keys() == EXPECTED.keys()
    assert {name for name, loss in LOSSES.items() if not loss.needs_reference} == {"simpo", "orpo"}
    assert {name for name, loss in LOSSES.items() if loss.averages} == {"dpo_norm", "ipo_norm", "simpo", "orpo"}


def test_rewards_are_what_beta_makes_of_them() -> None:
    assert [float(side) for side in LOSSES["dpo"].rewards(PAIR)] == pytest.approx([0.1 * 2, 0.1 * -3])
    assert [float(side) for side in LOSSES["dpo_norm"].rewards(PAIR.averages())] == pytest.approx([2.5, -1.25])
    assert [float(side) for side in LOSSES["simpo"].rewards(PAIR.averages())] == pytest.approx([-6, -5])


def test_a_loss_with_a_reference_needs_one() -> None:
    alone = replace(PAIR, reference_chosen=None, reference_rejected=None)
    assert LOSSES["orpo"](alone.averages()).isfinite()
    with pytest.raises(ValueError, match="compares with a reference model, and there is none"):
        LOSSES["dpo"](alone)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("robust", {"label_smoothing": 0.5}, "label_smoothing must be below 0.5"),
        ("dpo", {"label_smoothing": 0.51}, "label_smoothing must be from 0 to 0.5"),
        ("simpo", {"gamma": -0.1}, "gamma must be 0 or more, not -0.1"),
        ("simpo", {"gamma": math.inf}, "gamma must be 0 or more, not inf"),
        ("orpo", {"beta": 0.0}, "beta must be above 0"),
    ],
)
def test_an_option_out_of_range_is_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(LOSSES[name], **options)
