"""One launch for all parameters computes what an update of each does; Triton's interpreter stands for a GPU here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness.training.optim import AdamW, Optimizer, RMSprop, _seed
from harness.training.parallel import sent


def check_one_launch(make: Any, dtype: torch.dtype, moments: str, even: bool, device: torch.device) -> None:
    """Hold six steps on `device` against those on a CPU, one of which may not proceed.

    Sizes fill blocks or do not, and are divisible by 8 if they are `even`; one parameter has no gradient now and then.
    """
    torch.manual_seed(0)
    shapes = [(8, 16), (64,), (4096,), (8, 1000), (16,)] if even else [(37, 11), (64,), (4096,), (3, 1000), (5,)]
    drawn = [(0.02 * torch.randn(shape)).to(dtype) for shape in shapes]
    named: list[list[tuple[str, torch.nn.Parameter]]] = []
    optimizers: list[Optimizer] = []
    step: Callable[[float, float, bool], None]
    for place in (torch.device("cpu"), device):
        copies = [torch.nn.Parameter(value.to(place, copy=True)) for value in drawn]
        named.append([(str(number), copy) for number, copy in enumerate(copies)])
        optimizers.append(make(named[-1], weight_decay=0.1, moments=moments))
    if device.type == "cpu":

        def at_once(rate: float, scale: float, proceed: bool) -> None:
            one = optimizers[1]
            one.steps += 1
            numbers = sent([rate, 0.1, *one._constants()], torch.float32, device)
            seeds = sent([_seed(one.steps, index) for index in range(len(shapes))], torch.int32, device)
            one._step_at_once(numbers, torch.full((), scale), torch.full((), proceed), seeds)

        step = at_once
    else:
        step = optimizers[1].step
    for number in range(6):
        gradients = [torch.randn(shape).to(dtype) for shape in shapes]
        for parameters in named:
            for (_, parameter), gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.to(parameter.device)
            if number % 2:
                parameters[2][1].grad = None
        optimizers[0].step(1e-3, 0.7, number != 3)
        step(1e-3, 0.7, number != 3)
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
