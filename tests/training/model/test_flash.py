"""Other flash kernels than torch's own: which are taken, and that a training says so; the real ones need a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import attention

from harness.training.model.flash import FlashChoice, choose_flash, flash_in_use, use_flash


class Kernels:
    """What torch registers under a name: how far result and gradient are off, and the seconds that it takes."""

    def __init__(
        self, offset: float = 0.0, slope: float = 0.0, seconds: float = 0.0, error: Exception | None = None
    ) -> None:
        self.offset, self.slope, self.seconds, self.error = offset, slope, seconds, error

    def __call__(self) -> Kernels:
        if self.error is not None:
            raise self.error
        return self

    def remove(self) -> None:
        """Do what torch asks for when others are taken."""


OWN = Kernels(seconds=0.01)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """torch's registry, empty."""
    kernels: dict[str, Any] = {}
    monkeypatch.setattr("torch.nn.attention._registry._FLASH_ATTENTION_IMPLS", kernels)
    yield kernels
    use_flash(None)


def choose(registered: dict[str, Any], **kernels: Kernels) -> FlashChoice:
    for name, each in kernels.items():
        attention.register_flash_attention_impl(name, register_fn=each)

    def attend(query: Tensor, key: Tensor, value: Tensor, borders: Tensor, longest: int) -> Tensor:
        name = flash_in_use()
        used = OWN if name is None else registered[name]
        time.sleep(used.seconds)
        return query * key * value + used.offset + used.slope * (value - value.detach())

    inputs = [torch.ones(8, 2, 4, dtype=torch.bfloat16).requires_grad_() for _ in range(3)]
    choice = choose_flash(attend, inputs, torch.tensor([0, 8]), 8)
    assert flash_in_use() is None
    return choice


def test_the_fastest_kernels_are_taken(registered: dict[str, Any]) -> None:
    choice = choose(registered, FAST=Kernels(seconds=0.001), SLOW=Kernels(seconds=0.03), SOSO=Kernels(seconds=0.005))
    assert choice.name == "FAST"
    assert [line.split()[0] for line in choice.said] == ["torch's", "FAST", "SLOW", "SOSO"]


def test_kernels_that_compute_something_else_are_not_taken(registered: dict[str, Any]) -> None:
    wrong = {"A": Kernels(offset=0.5), "B": Kernels(slope=-0.25), "C": Kernels(slope=float("nan"))}
    choice = choose(registered, **wrong)
    assert choice.name is None
    assert [line.rpartition("results are ")[2] for line in choice.said[1:]] == ["50.0% away", "25.0% away", "nan% away"]


def test_kernels_that_cannot_be_used_leave_torchs_own(registered: dict[str, Any]) -> None:
    missing, broken = Kernels(error=ImportError("no module")), Kernels(error=TypeError("another version\nof it"))
    choice = choose(registered, MISSING=missing, BROKEN=broken)
    assert choice.name is None
    assert choice.said[1:] == ("BROKEN is installed and cannot be used (another version)",)
    with pytest.raises(ImportError):
        use_flash("MISSING")


def test_kernels_are_put_in_use_and_out_of_it(registered: dict[str, Any]) -> None:
    attention.register_flash_attention_impl("FAST", register_fn=Kernels())
    for name in ("FAST", "FAST", None, None):
        use_flash(name)
        assert flash_in_use() == name
