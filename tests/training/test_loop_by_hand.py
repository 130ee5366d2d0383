"""The loop against the plain torch that it stands for: the same batches, by hand, end with the same weights.


Trainings run through `harness train sft`; what they were fed is noted where the network is called.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from harness.training.batch import padded
from harness.training.loop import prepare_process
from harness.training.model.network import Network
from harness.training.optim import AdamW, RMSprop
from tests.conftest import Command, Done

STEPS, MICROBATCH = 4, 3


class Fed:
    """The labelled microbatches that a training was fed, in its steps, and what each update was told."""

    def __init__(self) -> None:
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.validated: list[tuple[Tensor, Tensor]] = []
        self.updates: list[tuple[float, float, int]] = []  # rate, scale, microbatches so far

    def steps(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Yield the microbatches of each step."""
        begun = 0
        for _, _, count in self.updates:
            yield self.batches[begun:count]
            begun = count


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> Fed:
    found, forward = Fed(), Network.forward

    def noted(self: Network, objective: Any, batch: Any, scale: float) -> Any:
        place = found.batches if torch.is_grad_enabled() else found.validated
        place.append((batch.input_ids.clone(), batch.labels.clone()))
        return forward(self, objective, batch, scale)

    monkeypatch.setattr(Network, "forward", noted)
    for kind in (AdamW, RMSprop):

        def step(self: Any, rate: float, scale: Any = 1.0, proceed: Any = True, *, before: Any = kind.step) -> None:
            found.updates.append((rate, float(scale), len(found.batches)))
            before(self, rate, scale, proceed)

        monkeypatch.setattr(kind, "step", step)
    return found


@pytest.fixture
def trained(harness: Command, tiny: Path, problems: Path, tmp_path: Path) -> Callable[..., tuple[Done, Path]]:
    """Train a tiny model on rows of one stream for a few steps, each of eight rows but the last of an epoch."""

    def train(**options: Any) -> tuple[Done, Path]:
        given: dict[str, Any] = {
            "data": [str(problems)], "packing": "concat", "sequence_length": 64, "prompt_format": "plain",
            "batch_size": 8, "microbatch_size": MICROBATCH, "learning_rate": 1e-3, "max_steps": STEPS, "epochs": 9,
            "log_every": 1, "device": "cpu", "dtype": "float32", **options,
        }  # fmt: skip
        out = tmp_path / "out"
        pairs = [f"sft.{name}={json.dumps(value)}" for name, value in given.items()]
        words = [word for pair in (f"model={tiny}", f"out={out}", *pairs) for word in ("--set", pair)]
        return harness("train", "sft", *words), out

    return train


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def loss_of(model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss summed over the labels of a microbatch."""
    ids, labels = batch
    return cross_entropy(model(ids).logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")


def labels_of(batches: list[tuple[Tensor, Tensor]]) -> int:
    return sum(int((labels != -100).sum()) for _, labels in batches)


@pytest.mark.parametrize("clip", [0.0, 0.5, 1000.0])
@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_it_is_the_training_that_torch_does(
    trained: Callable[..., tuple[Done, Path]], fed: Fed, tiny: Path, optimizer: str, clip: float
) -> None:
    """Loss a label token, clipping, schedule, accumulation, decay of matrices alone: all of it ends in the weights."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    done, out = trained(optimizer=optimizer, clip=clip, weight_decay=1.0, warmup=0.5, schedule="linear")
    assert done.code == 0, done.err
    model: Any = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    named = list(model.named_parameters())
    kind: Any = torch.optim.AdamW if optimizer == "adamw" else torch.optim.RMSprop
    by_hand = kind([p for _, p in named], lr=0.0, weight_decay=0.0)
    rates = [5e-4, 1e-3, 1e-3, 5e-4]  # up over two of four steps, and down along a line
    assert len(list(fed.steps())) == STEPS and any(len(each) > 1 for each in fed.steps())
    for batches, rate, line in zip(fed.steps(), rates, lines(out), strict=True):
        total = torch.zeros(())
        for batch in batches:
            loss = loss_of(model, batch) / labels_of(batches)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        by_hand.param_groups[0]["lr"] = rate
        with torch.no_grad():
            for _, parameter in named:
                if parameter.dim() >= 2:
                    parameter.mul_(1 - rate)  # of the decay 1.0
        by_hand.step()
        model.zero_grad()
        assert line["loss"] == pytest.approx(total.item(), rel=1e-4)
        assert line["gradient_norm"] == pytest.approx(norm.item(), rel=1e-3)
        assert line["learning_rate"] == pytest.approx(rate)
        assert line["tokens"] == line["step"] * 8 * 64
    begun, ended = load_file(tiny / "model.safetensors"), load_file(out / "last" / "model.safetensors")
    for name, parameter in model.state_dict().items():
        if name in ended:  # a gradient that rounding makes of nothing may move one weight as far as any other, once
            moved, apart = (parameter - begun[name]).norm(), (parameter - ended[name]).norm()
            assert apart < 2e-3 * moved, name


def test_gradients_are_scaled_down_to_the_clip_and_never_up(
    trained: Callable[..., tuple[Done, Path]], fed: Fed
) -> None:
    _, out = trained(clip=1.0, learning_rate=3e-3, max_steps=12, epochs=99)
    norms = [line["gradient_norm"] for line in lines(out)]
    assert len(norms) == len(fed.updates) == 12
    for (_, scale, _), norm in zip(fed.updates, norms, strict=True):
        assert scale == pytest.approx(min(1.0, 1.0 / norm), rel=1e-4)


def test_a_clip_of_none_and_one_that_is_never_reached(trained: Callable[..., tuple[Done, Path]], fed: Fed) -> None:
    trained(clip=1e6, max_steps=2)
    assert [scale for _, scale, _ in fed.updates] == [1.0, 1.0]


def test_validation_is_the_mean_over_the_labels(
    trained: Callable[..., tuple[Done, Path]], fed: Fed, tiny: Path
) -> None:
    """Of the model as it is then, in parts of a microbatch, the last one short."""
    from transformers import AutoModelForCausalLM

    _, out = trained(validation_documents=30, max_steps=2, loss_on="all")
    validations = [line for line in lines(out) if "validation/loss" in line]
    assert [line["step"] for line in validations] == [0, 2]  # at both ends, as nothing else was asked for
    batches = fed.validated[len(fed.validated) // 2 :]
    model: Any = AutoModelForCausalLM.from_pretrained(out / "best", dtype=torch.float32)
    with torch.no_grad():
        total = sum(loss_of(model, batch).item() for batch in batches)
    assert len(batches) > 1
    assert validations[-1]["validation/loss"] == pytest.approx(total / labels_of(batches), rel=1e-5)


def test_a_line_tells_the_mean_over_its_interval(trained: Callable[..., tuple[Done, Path]], fed: Fed) -> None:
    _, out = trained(max_steps=7, log_every=3)
    told = lines(out)
    assert [line["step"] for line in told] == [3, 6, 7]
    for line in told:
        assert line["seconds_left"] >= 0 and line["tokens_per_second"] > 0
    assert told[-1]["seconds_left"] == 0
    assert [line["seconds"] for line in told] == sorted(line["seconds"] for line in told)
    assert [rate for rate, _, _ in fed.updates][2] == told[0]["learning_rate"]
    span = told[1]["seconds"] - told[0]["seconds"]
    assert told[1]["seconds_left"] == pytest.approx((7 - 6) * span / 3, rel=0.01, abs=1e-4)


def test_the_first_step_that_is_not_finite_is_the_one_that_is_named(
    trained: Callable[..., tuple[Done, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third and the fifth of six are not, and the host asks behind the sixth."""
    forward, calls = Network.forward, []

    def poisoned(self: Network, objective: Any, batch: Any, scale: float) -> Any:
        loss, found = forward(self, objective, batch, scale)
        calls.append(1)
        return (loss * math.nan if len(calls) in (3 * 3, 5 * 3) else loss), found

    monkeypatch.setattr(Network, "forward", poisoned)
    done, out = trained(max_steps=6, log_every=6)
    assert len(calls) >= 5 * 3
    assert done.code == 2 and "step 3: the loss or its gradient is not finite" in done.err
    assert json.loads((out / "last" / "training" / "progress.json").read_text())["step"] == 2
    assert len((out / "not-finite.txt").read_text().splitlines()) == 8


def test_a_loss_that_is_not_finite_stops_it_though_gradients_are(
    trained: Callable[..., tuple[Done, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Network.forward

    def infinite(self: Network, objective: Any, batch: Any, scale: float) -> Any:
        loss, found = forward(self, objective, batch, scale)
        return loss, {name: value + math.inf for name, value in found.items()}

    monkeypatch.setattr(Network, "forward", infinite)
    done, out = trained(max_steps=3)
    assert len(list(out.glob("metrics.jsonl"))) == 0 or not lines(out), "the first line is not written any more"
    assert (
        done.code == 2 and "step 1: the loss or its gradient is not finite, and the weights are as before" in done.err
    )
    assert not (out / "last").exists()


def test_saving_and_validating_fall_due(trained: Callable[..., tuple[Done, Path]], tiny: Path) -> None:
    done, out = trained(max_steps=5, save_every=2, validate_every=2, validation_documents=6, log_every=2)
    assert done.code == 0
    steps = [line["step"] for line in lines(out) if "validation/loss" in line]
    assert steps == [0, 2, 4, 5]
    assert [line["step"] for line in lines(out) if "loss" in line] == [2, 4, 5]
    assert json.loads((out / "last" / "training" / "progress.json").read_text())["step"] == 5
    assert not list(out.glob("step-*"))
    assert (out / "best" / "model.safetensors").exists()
    assert "done: 5 steps in" in done.err
    losses = {line["step"]: line["validation/loss"] for line in lines(out) if "validation/loss" in line}
    step = min(losses, key=lambda each: losses[each])
    assert f"best: validation/loss {losses[step]:.4g} after step {step}, in {out / 'best'}" in done.err


def test_of_what_is_saved_each_is_kept_and_nothing_else(trained: Callable[..., tuple[Done, Path]]) -> None:
    done, out = trained(max_steps=5, save_every=2, keep="all")
    assert done.code == 0, done.err
    assert sorted(path.name for path in out.glob("step-*")) == ["step-000002", "step-000004", "step-000005"]


def test_a_process_is_prepared_as_far_as_the_user_has_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    for given in ({}, {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64", "TRITON_CACHE_DIR": "theirs"}):
        for name in names:
            monkeypatch.setenv(name, "")  # so that it is as it was in the end
            monkeypatch.delenv(name)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        prepare_process()
        found = {name: os.environ.get(name) for name in names}
        expected = given.get("PYTORCH_ALLOC_CONF"), None if given else "expandable_segments:True"
        assert (found["PYTORCH_ALLOC_CONF"], found["PYTORCH_CUDA_ALLOC_CONF"]) == expected
        folder = Path(found["TORCHINDUCTOR_CACHE_DIR"] or "")
        assert folder.is_dir() and found["TRITON_CACHE_DIR"] == given.get("TRITON_CACHE_DIR", str(folder / "triton"))
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # what torch itself chooses

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", os.path.abspath(default_cache_dir()))
    prepare_process()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder)


@pytest.mark.parametrize("asked", [False, True])
def test_kernels_that_repeat_themselves_are_asked_for_where_they_are_wanted(
    trained: Callable[..., tuple[Done, Path]], monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    for name in ("CUBLAS_WORKSPACE_CONFIG", "FLASH_ATTENTION_DETERMINISTIC"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        assert trained(max_steps=1, deterministic=asked)[0].code == 0
        assert torch.are_deterministic_algorithms_enabled() == asked
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == asked
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize(
    ("count", "least", "padded_to"), [(3, 64, 64), (64, 64, 64), (65, 64, 128), (5, 2, 8), (8, 2, 8)]
)
def test_borders_are_padded_to_a_power_of_two(count: int, least: int, padded_to: int) -> None:
    borders = torch.arange(count) * 3
    found = padded(borders, least)
    assert len(found) == padded_to and found[:count].equal(borders) and (found[count:] == borders[-1]).all()


def test_a_finished_training_goes_on_to_more_steps(trained: Callable[..., tuple[Done, Path]]) -> None:
    """It says from where, and its metrics go on in the same file."""
    trained(max_steps=2, schedule="constant")
    done, out = trained(max_steps=2, schedule="constant")
    assert done.code == 0 and [line["step"] for line in lines(out)] == [1, 2]
    assert "going on behind step 2 of 2" in done.err


def test_speed_by_hand(
    trained: Callable[..., tuple[Done, Path]], fed: Fed, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share of a device's operations that are used, had the CPU a number of its own; padding costs, too."""
    from transformers import AutoConfig

    from harness.training.loop import Loop
    from harness.training.model.memory import Shape

    begun = Loop.__init__

    def with_peak(self: Any, *given: Any) -> None:
        begun(self, *given)
        self.peak = 1e9

    monkeypatch.setattr(Loop, "__init__", with_peak)
    _, out = trained(max_steps=4, log_every=2)
    shape = Shape.of(AutoConfig.from_pretrained(tiny))
    steps = list(fed.steps())
    for line, begin in zip(lines(out), (0, 2), strict=True):
        squares = sum(ids.numel() * ids.shape[1] for step in steps[begin : begin + 2] for ids, _ in step)
        expected = shape.flops(2 * 8 * 64, squares) / (2 * 8 * 64)
        assert line["mfu"] * 1e9 / line["tokens_per_second"] == pytest.approx(expected, rel=1e-6)


def test_what_attention_costs_by_hand() -> None:
    """Documents of 3 and 2 tokens; then the first has 4 more before it that it sees, and the second none."""
    from harness.training.batch import Batch

    def batch(**parts: Any) -> Batch:
        ids = torch.zeros(1, 5, dtype=torch.int64)
        return Batch(ids, ids, ids, torch.tensor([0, 3, 5], dtype=torch.int32), 7, **parts)

    assert batch().squares == 3 * 3 + 2 * 2
    more = batch(keys=torch.zeros(9, dtype=torch.int64), key_borders=torch.tensor([0, 7, 9], dtype=torch.int32))
    assert more.squares == 3 * (2 * 7 - 3) + 2 * 2
    plain = Batch(torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(2, 4), None, 4)
    assert plain.squares == 2 * 4 * 4
