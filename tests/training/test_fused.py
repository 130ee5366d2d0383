"""One launch for all parameters computes what an update of each does; Triton's interpreter stands for a GPU here."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.training.offload import mixed, offloaded
from harness.training.optim import AdamW, Optimizer, RMSprop, _seed
from harness.training.parallel import sent


def at_once(optimizer: Optimizer, rate: float, scale: float, proceed: bool) -> None:
    """Take a step in one launch, on whatever device."""
    parameters = list(optimizer.parameters.values())
    if parameters[0].is_cuda:
        optimizer.step(rate, scale, proceed)
        return
    device = parameters[0].device
    optimizer.steps += 1
    numbers = sent([rate, 0.1, *optimizer._constants()], torch.float32, device)
    seeds = sent([_seed(optimizer.steps, index) for index in range(len(parameters))], torch.int32, device)
    optimizer._step_at_once(numbers, torch.full((), scale), torch.full((), proceed), seeds)


def check_one_launch(make: Any, dtype: torch.dtype, moments: str, even: bool, device: torch.device) -> None:
    """Hold six steps on `device` against those on a CPU, one of which may not proceed.

    Sizes fill blocks or do not, and are divisible by 8 if they are `even`; one parameter has no gradient now and then.
    """
    torch.manual_seed(0)
    shapes = [(8, 16), (64,), (4096,), (8, 1000), (16,)] if even else [(37, 11), (64,), (4096,), (3, 1000), (5,)]
    drawn = [(0.02 * torch.randn(shape)).to(dtype) for shape in shapes]
    named: list[list[tuple[str, torch.nn.Parameter]]] = []
    optimizers: list[Optimizer] = []
    for place in (torch.device("cpu"), device):
        copies = [torch.nn.Parameter(value.to(place, copy=True)) for value in drawn]
        named.append([(str(number), copy) for number, copy in enumerate(copies)])
        optimizers.append(make(named[-1], weight_decay=0.1, moments=moments))
    for number in range(6):
        gradients = [torch.randn(shape).to(dtype) for shape in shapes]
        for parameters in named:
            for (_, parameter), gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.to(parameter.device)
            if number % 2:
                parameters[2][1].grad = None
        optimizers[0].step(1e-3, 0.7, number != 3)
        at_once(optimizers[1], 1e-3, 0.7, number != 3)
    for (_, one), (_, two) in zip(optimizers[0].masters(), optimizers[1].masters(), strict=True):
        torch.testing.assert_close(two.cpu(), one, rtol=1e-5, atol=1e-6)
    for name, state in optimizers[0].state.items():
        if not name.endswith("/residual"):
            torch.testing.assert_close(optimizers[1].state[name].cpu(), state, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("make", [AdamW, RMSprop])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("moments", ["auto", "bfloat16"])
@pytest.mark.parametrize("even", [True, False])
def test_one_launch_is_one_update_a_parameter(
    make: Any, dtype: torch.dtype, moments: str, even: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # read where a kernel is defined
    monkeypatch.delitem(sys.modules, "harness.training.fused", raising=False)
    try:
        check_one_launch(make, dtype, moments, even, torch.device("cpu"))
    finally:
        sys.modules.pop("harness.training.fused", None)


def check_offload(make: Any, device: torch.device) -> None:
    """Hold the steps of an optimizer whose state lies on the host, in part or whole, against one that has its own."""
    shapes, ended = [(8, 16), (64,), (4096,), (8, 1000), (16,), (64, 64)], []
    for share in (0.0, 0.4, 1.0):
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter((0.02 * torch.randn(shape)).bfloat16().to(device)) for shape in shapes]
        optimizer = make([(str(number), one) for number, one in enumerate(parameters)], weight_decay=0.1, offload=share)
        if share and device.type == "cuda":
            assert {state.device.type for state in optimizer.state.values()} >= {"cpu"}
        for _ in range(3):
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape).bfloat16().to(device)
            at_once(optimizer, 1e-3, 0.7, True)
        ended.append([*parameters, *(optimizer.state[name].cpu() for name in sorted(optimizer.state))])
    for other in ended[1:]:
        assert all(torch.equal(one, two) for one, two in zip(ended[0], other, strict=True))


@pytest.mark.parametrize("make", [AdamW, RMSprop])
def test_state_on_the_host_is_updated_as_state_beside_the_weights(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, though blocks whose state is away are computed between the others."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, "harness.training.fused", raising=False)
    try:
        from harness.training import fused

        made: list[int] = []

        def is_away(state: torch.Tensor, device: torch.device) -> bool:  # on a CPU nothing is: every other optimizer's
            made.append(state.numel())
            return state.numel() == 4096 and made.count(8000) > 3

        monkeypatch.setattr(fused, "is_away", is_away)
        check_offload(make, torch.device("cpu"))
    finally:
        sys.modules.pop("harness.training.fused", None)


@given(st.lists(st.booleans(), max_size=300))
def test_blocks_whose_state_is_away_are_spread_evenly(away: list[bool]) -> None:
    order = mixed(np.array(away, bool))
    assert sorted(order.tolist()) == list(range(len(away)))
    seen = np.cumsum(np.array(away, bool)[order])
    expected = seen[-1] * (np.arange(len(away)) + 1) / len(away) if len(away) else seen
    assert np.abs(seen - expected).max(initial=0) <= 1
    for kind in (True, False):  # those of a kind stay in their order
        own = [place for place in order.tolist() if away[place] == kind]
        assert own == sorted(own)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=60), st.floats(0, 1))
def test_what_the_host_keeps_is_about_the_share_asked_for(sizes: list[int], share: float) -> None:
    named = {str(number): size for number, size in enumerate(sizes)}
    kept = sum(named[name] for name in offloaded(named, share))
    assert share * sum(sizes) - max(sizes) <= kept <= share * sum(sizes)
    assert offloaded(named, 0) == set() and offloaded(named, 1) == {name for name, size in named.items() if size}
