"""The loop: gradients however a step is cut up, documents that do not see each other, and steps that are not finite."""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.errors import ConfigError, ModelError, RunError
from harness.interfaces import TrainingRun
from harness.training.batch import Batch, microbatches
from harness.training.data.packing import PackedRows
from harness.training.loop import Job, Loop, train
from harness.training.model.attention import implementation
from harness.training.model.network import Network, load_network
from harness.training.options import TrainingOptions
from harness.training.parallel import join
from harness.training.session import Session
from harness_sft import SFT
from harness_sft.trainer import nll, read_rows


def options(problems: Path, **more: Any) -> SFT:
    return SFT(data=(str(problems),), sequence_length=256, prompt_format="plain", device="cpu", **more)


def rows_of(tiny: Path, chosen: SFT) -> PackedRows:
    return read_rows(chosen, Session(chosen, TrainingRun(str(tiny), Path("unused"), {})))[0]


def network(tiny: Path, chosen: TrainingOptions, packed: bool = True) -> Network:
    return load_network(str(tiny), chosen, join("cpu"), packed=packed)


def gradients(model: Network, rows: Any, size: int, world: int, indices: list[int]) -> dict[str, Tensor]:
    """Return the gradients of a step that `world` ranks compute in microbatches of `size`."""
    model.zero_grad()
    weight = rows.weights[indices].sum()
    for rank in range(world):
        for part in microbatches(indices, size, rank, world):
            loss, _ = model(nll, rows.batch(part, size), 1 / weight)
            loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("size", "world"), [(4, 1), (2, 1), (3, 1), (5, 1), (2, 2), (1, 2), (16, 2)])
def test_a_steps_gradients_do_not_depend_on_how_it_is_cut(tiny: Path, problems: Path, size: int, world: int) -> None:
    """Even, uneven, with empty microbatches, and with one row whose labels are all masked."""
    chosen = options(problems, packing="concat", loss_on="all")
    rows = rows_of(tiny, chosen)
    masked = rows.batch

    def batch(indices: Any, count: int = 0) -> Batch:
        made = masked(indices, count)
        for place, index in enumerate(indices):
            if index == 3:
                made.labels[place] = -100
        return made

    rows.batch = batch  # type: ignore[method-assign, assignment]
    rows.weights[3] = 0
    model = network(tiny, chosen, packed=False)
    indices = list(range(8))
    whole = gradients(model, rows, 8, 1, indices)
    cut = gradients(model, rows, size, world, indices)
    for name, gradient in whole.items():
        assert (cut[name] - gradient).norm() <= 1e-6 * gradient.norm(), name


def test_the_loss_is_that_of_transformers(tiny: Path, problems: Path) -> None:
    chosen = options(problems, packing="concat", loss_on="all")
    rows = rows_of(tiny, chosen)
    model = network(tiny, chosen, packed=False)
    batch = rows.batch([0, 1])
    with torch.no_grad():
        _, found = model(nll, batch, 1.0)
        logits = model.lm(batch.input_ids).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_documents_in_a_row_do_not_see_each_other(tiny: Path, problems: Path) -> None:
    """Each gives the hidden states that it gives alone; changing one leaves the others as they were, to the bit."""
    chosen = options(problems)
    rows = rows_of(tiny, chosen)
    model = network(tiny, chosen)
    batch = rows.batch([0, 1])
    assert batch.borders is not None
    borders = batch.borders.tolist()
    assert len(borders) > 4
    with torch.no_grad():
        together = model.hidden(batch)
        ids = batch.input_ids.flatten()
        for start, end in pairwise(borders):
            alone = model.lm.base_model(ids[start:end][None], use_cache=False).last_hidden_state[0]
            torch.testing.assert_close(together[start:end], alone, rtol=1e-5, atol=1e-5)
        batch.input_ids.view(-1)[borders[1] : borders[2]] = 5
        changed = model.hidden(batch)
    assert torch.equal(changed[: borders[1]], together[: borders[1]])
    assert torch.equal(changed[borders[2] :], together[borders[2] :])
    assert not torch.equal(changed[borders[1] : borders[2]], together[borders[1] : borders[2]])


@pytest.mark.parametrize("recompute", ["full", "selective"])
def test_recomputing_activations_changes_no_gradient(tiny: Path, problems: Path, recompute: Any) -> None:
    chosen = options(problems)
    rows = rows_of(tiny, chosen)
    kept = gradients(network(tiny, chosen), rows, 4, 1, [0, 1, 2, 3])
    anew = gradients(network(tiny, replace(chosen, recompute=recompute)), rows, 4, 1, [0, 1, 2, 3])
    assert all(torch.equal(kept[name], anew[name]) for name in kept)


def test_a_kernel_that_cannot_run_here_is_refused() -> None:
    for kernel in ("flash", "varlen"):
        with pytest.raises(ConfigError, match=f"attention={kernel} needs a GPU"):
            implementation(kernel, torch.device("cpu"), torch.float32, packed=True)


def job(tiny: Path, problems: Path, out: Path, objective: Any = nll, **more: Any) -> Job:
    chosen = options(problems, batch_size=4, microbatch_size=2, log_every=4, learning_rate=1e-3, epochs=4, **more)
    run = TrainingRun(str(tiny), out, {})
    session = Session(chosen, run)
    training = replace(chosen.prepare(session), objective=objective, packed=True)
    return replace(session.job(training), identity={"made": "by a test"}, card={})


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_a_step_that_is_not_finite_ends_the_training_before_it(tiny: Path, problems: Path, tmp_path: Path) -> None:
    """Steps 1 to 5 are good and saved at 4, the sixth is not: it is named, and `last/` is as it was before it."""
    seen: list[int] = []

    def poisoned(model: Network, batch: Batch, scale: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss, sums = nll(model, batch, scale)
        seen.append(1)
        return (loss * float("nan") if len(seen) in (11, 12) else loss), sums

    work = job(tiny, problems, tmp_path / "out", poisoned, save_every=4, max_steps=8)
    with pytest.raises(RunError, match=r"step 6: .*not finite.*train.jsonl, text \d+"):
        train(work)
    assert json.loads((tmp_path / "out" / "last" / "training" / "progress.json").read_text())["step"] == 5
    train(job(tiny, problems, tmp_path / "out", save_every=4, max_steps=8))  # as if nothing had been
    train(job(tiny, problems, tmp_path / "whole", save_every=4, max_steps=8))
    ended, expected = (weights(tmp_path / name / "last") for name in ("out", "whole"))
    assert all(torch.equal(ended[name], expected[name]) for name in expected)
    assert "train.jsonl, text" in (tmp_path / "out" / "not-finite.txt").read_text()
    assert [line["step"] for line in metrics(tmp_path / "out")] == [4, 8]


def test_the_norm_of_16_bit_gradients_is_that_of_their_values(tiny: Path, problems: Path, tmp_path: Path) -> None:
    found: list[tuple[float, float]] = []

    class Noted(Loop):
        def update(self, sums: Mapping[str, Tensor], rate: float) -> None:
            gradients = [p.grad.double() for p in self.optimizer.parameters.values() if p.grad is not None]
            exact = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
            super().update(sums, rate)
            found.append((self.norm.item(), exact.item()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.training.loop.Loop", Noted)
        train(job(tiny, problems, tmp_path / "out", max_steps=3, dtype="bfloat16"))
    assert len(found) == 3
    for norm, exact in found:
        assert norm == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("kind", ["stablelm", "qwen3"])
def test_a_model_that_cannot_keep_documents_apart_is_refused(tmp_path: Path, kind: str) -> None:
    """StableLM's layers do not hand the borders of documents on to their attention."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 128, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 1}
    make: Any = AutoModelForCausalLM.from_config  # untyped
    torch.manual_seed(0)
    make(AutoConfig.for_model(kind, **shape, **heads)).save_pretrained(tmp_path)
    given = TrainingOptions(dtype="float32", device="cpu")
    load_network(str(tmp_path), given, join("cpu"), packed=False)
    message = "carry something from one document of a row to the next"
    with pytest.raises(ModelError, match=message) if kind == "stablelm" else nullcontext():
        load_network(str(tmp_path), given, join("cpu"), packed=True)


def test_a_training_goes_on_in_the_dtype_that_it_began_with(tiny: Path, problems: Path, tmp_path: Path) -> None:
    """What auto comes to on this device counts, under whatever name it is given."""
    train(job(tiny, problems, tmp_path / "out", max_steps=1))
    train(job(tiny, problems, tmp_path / "out", max_steps=2, dtype="float32"))
    assert json.loads((tmp_path / "out" / "last" / "training" / "progress.json").read_text())["step"] == 2
    with pytest.raises(RunError, match=r'another training \(dtype was "float32" and is "bfloat16"\)'):
        train(job(tiny, problems, tmp_path / "out", max_steps=3, dtype="bfloat16"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": float("inf")}, "learning_rate must be finite, not inf"),
        ({"clip": float("nan")}, "clip must be finite, not nan"),
        ({"betas": (0.9, float("nan"))}, "betas must be finite, not nan"),
        ({"eps": 0.0}, "eps must be at least 1e-30, not 0.0"),
        ({"eps": 1e-50}, "eps must be at least 1e-30, not 1e-50"),
    ],
)
def test_numbers_that_nothing_can_be_computed_with_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**options)


def test_the_host_waits_for_the_device_once_an_interval(
    tiny: Path, problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but a line of metrics reads a tensor: 8 steps of 2 microbatches, 2 lines."""
    waits: list[str] = []
    made = job(tiny, problems, tmp_path / "out", max_steps=8)
    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        real = getattr(Tensor, name)

        def noted(self: Tensor, *words: Any, _real: Any = real, _name: str = name) -> Any:
            if self.dtype != torch.int32:  # borders of documents, which attention on a CPU goes by
                waits.append(_name)
            return _real(self, *words)

        monkeypatch.setattr(Tensor, name, noted)
    train(made)
    assert len(metrics(tmp_path / "out")) == 2
    assert len(waits) <= 2 + 3  # and the two checks of the model at first and one before the last save


def test_ctrl_c_saves_and_is_still_an_interruption(tiny: Path, problems: Path, tmp_path: Path) -> None:
    calls: list[int] = []

    def interrupted(*words: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return nll(*words)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(job(tiny, problems, tmp_path / "out", interrupted))
    assert signal.getsignal(signal.SIGINT) is handler
    assert json.loads((tmp_path / "out" / "last" / "training" / "progress.json").read_text())["step"] == 2


def test_the_best_model_is_kept_apart(tiny: Path, problems: Path, tmp_path: Path) -> None:
    """With a learning rate that does harm in the end, best/ is from before it did."""

    def harmful(model: Network, batch: Batch, scale: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss, sums = nll(model, batch, scale)
        if model.training:
            calls.append(1)
        return (-loss if len(calls) > 8 else loss), sums

    calls: list[int] = []
    work = job(tiny, problems, tmp_path / "out", harmful, validation_documents=16, validate_every=2, max_steps=8)
    train(work)
    found = {line["step"]: line["validation/loss"] for line in metrics(tmp_path / "out") if "validation/loss" in line}
    assert sorted(found) == [0, 2, 4, 6, 8]
    assert min(found, key=lambda step: found[step]) in (4, 6)
    assert found[8] > min(found.values())
    best, last = weights(tmp_path / "out" / "best"), weights(tmp_path / "out" / "last")
    assert any(not torch.equal(best[name], last[name]) for name in best)
    assert (tmp_path / "out" / "model.safetensors").resolve() == tmp_path / "out" / "best" / "model.safetensors"
    assert (tmp_path / "out" / "harness.json").is_file()


def test_a_checkpoint_that_cannot_be_written_ends_the_training(
    tiny: Path, problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the thread that writes is the training's, one step later, and the checkpoint before is kept."""
    import safetensors.torch

    real, calls = safetensors.torch.save_file, []

    def full(tensors: Any, path: Path, **more: Any) -> None:
        calls.append(path)
        if len(calls) > 2:  # a checkpoint has two such files
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path, **more)

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(RunError, match="No space left on device; free some space and give the same command again"):
        train(job(tiny, problems, tmp_path / "out", save_every=2))
    assert json.loads((tmp_path / "out" / "last" / "training" / "progress.json").read_text())["step"] == 2
    assert not (tmp_path / "out" / "last.new").exists()


def test_a_training_without_progress_stops_early(tiny: Path, problems: Path, tmp_path: Path) -> None:
    """After the best validation it does `patience` more; the same command then finds nothing to do."""
    more: Any = {"validation_documents": 16, "validate_every": 1, "patience": 2, "save_every": 100}

    def harmful(model: Network, batch: Batch, scale: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss, sums = nll(model, batch, scale)
        if model.training:
            calls.append(1)
        return (-loss if len(calls) > 6 else loss), sums

    calls: list[int] = []
    train(job(tiny, problems, tmp_path / "out", harmful, **more))
    lines = metrics(tmp_path / "out")
    found = {line["step"]: line["validation/loss"] for line in lines if "validation/loss" in line}
    best = min(found, key=lambda step: found[step])
    assert max(found) == best + 2 < 12
    assert [line["step"] for line in lines if "loss" in line][-1] == best + 2
    assert json.loads((tmp_path / "out" / "last" / "training" / "progress.json").read_text())["stale"] == 2
    before = len(calls)
    train(job(tiny, problems, tmp_path / "out", harmful, **more))
    assert len(calls) == before


def test_a_signal_that_comes_twice_at_once_is_one(tiny: Path, problems: Path, tmp_path: Path) -> None:
    calls: list[int] = []

    def interrupted(*words: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        return nll(*words)

    train(job(tiny, problems, tmp_path / "out", interrupted))
    assert json.loads((tmp_path / "out" / "last" / "training" / "progress.json").read_text())["step"] == 2
