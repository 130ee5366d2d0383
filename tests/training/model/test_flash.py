"""Other flash kernels than torch's own: which are taken, and that a training says so; the real ones need a GPU."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import attention

from harness.training.model import flash
from harness.training.model.attention import VARLEN
from harness.training.model.flash import FlashChoice, choose_flash, flash_in_use, flash_kernels, use_flash
from harness.training.model.network import Network
from tests.conftest import Command


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

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *more: Any, **options: Any) -> Tensor:
        """Be the kernels: of numbers that are all 1, or of heads of which fewer are of keys."""
        time.sleep(self.seconds)
        key, value = (part.mean(1, keepdim=True) for part in (key, value))
        return query * key * value + self.offset + self.slope * (value - value.detach())

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

    inputs = [torch.ones(8, 2, 4, dtype=torch.bfloat16).requires_grad_() for _ in range(3)]
    return choose_flash(in_use(registered).attend, inputs, torch.tensor([0, 8]), 8)


def in_use(registered: dict[str, Any]) -> Any:
    """Return kernels that stand for whichever are in use when they attend."""

    class InUse(Kernels):
        def attend(self, *inputs: Any, **options: Any) -> Tensor:
            name = flash_in_use()
            used: Kernels = OWN if name is None else registered[name]
            return used.attend(*inputs, **options)

    return InUse()


def test_the_fastest_kernels_are_taken(registered: dict[str, Any]) -> None:
    kernels = {"FAST": Kernels(seconds=0.001), "SLOW": Kernels(seconds=0.03), "SOSO": Kernels(seconds=0.005)}
    choice = choose(registered, **kernels)
    assert choice.name == "FAST" and flash_in_use() is None
    assert [line.split()[0] for line in choice.said] == ["torch's", "FAST", "SLOW", "SOSO"]


def test_torchs_own_are_measured_whatever_was_in_use_before(registered: dict[str, Any]) -> None:
    attention.register_flash_attention_impl("WRONG", register_fn=Kernels(offset=0.5))
    with flash_kernels("WRONG"):
        assert choose(registered, FAST=Kernels()).name == "FAST"
        assert flash_in_use() == "WRONG"
    assert flash_in_use() is None


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


@pytest.fixture
def train(
    harness: Command, registered: dict[str, Any], tiny: Path, problems: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[str, str | None, set[str | None]]]:  # fmt: skip
    """Train on rows that are long here, as on a GPU; return what it said, what it kept, and what it attended by."""
    monkeypatch.setattr(flash, "LONG", 128)
    monkeypatch.setattr(flash, "implementation", lambda *asked: VARLEN)
    forward, used = Network.forward, set[str | None]()

    def noted(self: Network, *inputs: Any) -> Any:
        used.add(flash_in_use())
        return forward(self, *inputs)

    monkeypatch.setattr(Network, "forward", noted)
    given: list[tuple[Tensor, ...]] = []

    def kernel(*inputs: Any, **options: Any) -> Tensor:
        given.append(inputs[:3])
        return in_use(registered).attend(*inputs, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(flash, "varlen_kernel", lambda: kernel)

    def command(**options: Any) -> tuple[str, str | None, set[str | None]]:
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        chosen = {
            "data": json.dumps([str(problems)]), "prompt_format": "plain", "sequence_length": 128, "batch_size": 4,
            "microbatch_size": 2, "max_steps": 1, "device": "cpu", **options,
        }  # fmt: skip
        words = [word for name, value in chosen.items() for word in ("--set", f"sft.{name}={value}")]
        used.clear()
        done = harness("train", "sft", "--model", tiny, "--out", out, *words)
        assert done.code == 0, done.err
        assert flash_in_use() is None  # whatever is computed next in this process
        for query, key, value in given:  # else a token would attend to itself alone, and hardly anything be compared
            assert not torch.equal(key, value) and not torch.equal(query.flatten()[: key.numel()], key.flatten())
        said = "".join(line for line in done.err.splitlines() if line.startswith("attention: "))
        return said, json.loads((out / "harness.json").read_text()).get("flash_attention"), {*used}

    return command


def test_a_training_attends_by_them_says_so_and_leaves_them(train: Any, registered: dict[str, Any]) -> None:
    assert train() == ("", None, {None})  # none is installed
    attention.register_flash_attention_impl("FAST", register_fn=Kernels())
    said, kept, used = train()
    assert said.startswith("attention: torch's own ") and said.endswith(" ms: taking FAST")
    assert (kept, used) == ("FAST", {"FAST"})
    for options in ({"sequence_length": 64}, {"deterministic": "true"}, {"attention": "sdpa"}):
        assert train(**options) == ("", None, {None}), options
    attention.register_flash_attention_impl("FAST", register_fn=Kernels(seconds=0.03))
    said, kept, used = train()
    assert said.endswith(" ms: taking torch's own") and (kept, used) == (None, {None})


def test_no_rank_attends_by_what_another_one_lacks(train: Any, registered: dict[str, Any]) -> None:
    class Once(Kernels):
        """Are there for the rank that chooses, and then not for the one that is asked."""

        def __call__(self) -> Kernels:
            registered["FAST"] = Kernels(error=ImportError("no module"))
            return self

    attention.register_flash_attention_impl("FAST", register_fn=Once())
    said, kept, used = train()
    assert said.endswith("taking torch's own, as another rank cannot use FAST") and (kept, used) == (None, {None})
