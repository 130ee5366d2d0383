"""Recorded microbatches: the same gradients and sums as computed ones, whatever is recorded and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.errors import ConfigError
from harness.training.batch import Batch
from harness.training.graphs import Graphs, Launches, recorder
from harness.training.model.network import Network
from harness.training.options import TrainingOptions
from harness.training.parallel import join
from harness_sft.trainer import nll
from tests.training.test_loop import network, options, rows_of


class Recorder:
    """Stands for CUDA graphs on a CPU: a replay computes once more, into the tensors that the recording made."""

    def __init__(self, model: Network) -> None:
        self.model, self.made = model, [0, 0]

    def __call__(self, launches: Launches, first: bool) -> tuple[Mapping[str, Tensor], Callable[[], None]]:
        self.made[first] += 1
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        before = [None if p.grad is None else p.grad.clone() for p in parameters]
        sums = dict(launches())
        gradients = [p.grad for p in parameters]
        for gradient, value in zip(gradients, before, strict=True):
            assert gradient is not None
            gradient.copy_(torch.full_like(gradient, float("nan")) if value is None else value)

        def replay() -> None:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = None if first else gradient
            for name, value in launches().items():
                sums[name].copy_(value)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                assert gradient is not None and parameter.grad is not None
                if first:
                    gradient.copy_(parameter.grad)
                parameter.grad = gradient

        return sums, replay


@pytest.fixture
def rows(tiny: Path, problems: Path) -> Any:
    return rows_of(tiny, options(problems))


def plain(model: Network) -> Callable[[Batch, Tensor], Mapping[str, Tensor]]:
    def compute(batch: Batch, scale: Tensor) -> Mapping[str, Tensor]:
        found: Mapping[str, Tensor]
        loss, found = model(nll, batch, scale)
        loss.backward()
        return found

    return compute


def steps(model: Network, compute: Callable[[Batch, float], Mapping[str, Tensor]], batches: list[list[Batch]]) -> Any:
    """Return the sums of every microbatch and the gradients of every step, weights moved a little after each."""
    found: list[Any] = []
    for number, step in enumerate(batches):
        for batch in step:
            found += [{name: value.clone() for name, value in compute(batch, 1 / (7 + number)).items()}]
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                found.append({"": parameter.grad.clone()})
                parameter.sub_(0.01 * parameter.grad)
        for parameter in model.parameters():
            parameter.grad = None
    return found


@pytest.mark.parametrize("count", [1, 3])
def test_recorded_microbatches_are_those_computed(tiny: Path, problems: Path, rows: Any, count: int) -> None:
    """With steps of one and of several microbatches, and with ever more documents in a batch on the way."""
    chosen, device = options(problems), torch.device("cpu")
    batches = [[rows.batch([(step + part) % len(rows)], 1) for part in range(count)] for step in range(9)]
    model = network(tiny, chosen)
    recorder = Recorder(model)
    graphs = Graphs(plain(model), list(model.parameters()), device, recorder)
    recorded = steps(model, graphs, batches)
    assert recorder.made == ([0, 1] if count == 1 else [1, 1])
    other = network(tiny, chosen)
    compute = plain(other)
    computed = steps(other, lambda batch, scale: compute(batch, torch.tensor(scale)), batches)
    for one, two in zip(recorded, computed, strict=True):
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def wider(batch: Batch, documents: int) -> Batch:
    """Return the batch with so many more empty documents at its end."""
    assert batch.borders is not None
    return replace(batch, borders=torch.cat([batch.borders, batch.borders[-1:].expand(documents)]))


def test_other_shapes_are_recorded_anew_until_there_are_too_many(tiny: Path, problems: Path, rows: Any) -> None:
    chosen, device = options(problems), torch.device("cpu")
    model = network(tiny, chosen)
    made = Recorder(model)
    graphs = Graphs(plain(model), list(model.parameters()), device, made)
    batches = [[rows.batch([0], 1)]] * 4 + [[wider(rows.batch([0], 1), 90)]] * 4 + [[rows.batch([0], 1)]] * 2
    steps(model, graphs, batches)
    assert made.made == [0, 2]  # one with more documents is another shape; one with fewer is padded to it
    for width in range(4, 64, 4):
        batch = rows.batch([0], 1)
        cut = replace(
            batch, input_ids=batch.input_ids[:, :width], labels=batch.labels[:, :width],
            position_ids=batch.position_ids[:, :width], borders=torch.tensor([0, width], dtype=torch.int32),
        )  # fmt: skip
        steps(model, graphs, [[cut]] * 5)
    assert made.made[1] == 2 + 6  # eight shapes in all


def test_what_cannot_be_recorded_goes_on_without(
    tiny: Path, problems: Path, rows: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = network(tiny, options(problems))

    def refuse(launches: Launches, first: bool) -> Any:
        launches()  # what a recording leaves behind where it fails must not count
        raise RuntimeError("CUDA out of memory. Tried …")

    batches = [[rows.batch([step], 1)] for step in range(6)]
    found = steps(model, Graphs(plain(model), list(model.parameters()), torch.device("cpu"), refuse), batches)
    assert "microbatches are not recorded: CUDA out of memory" in capsys.readouterr().err
    other = network(tiny, options(problems))
    compute = plain(other)
    expected = steps(other, lambda batch, scale: compute(batch, torch.tensor(scale)), batches)
    for one, two in zip(found, expected, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_graphs_are_refused_where_there_are_none() -> None:
    assert recorder(TrainingOptions(), join("cpu")) is None
    with pytest.raises(ConfigError, match="graphs=true records what one GPU does"):
        recorder(TrainingOptions(graphs=True), join("cpu"))
