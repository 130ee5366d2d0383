"""Checkpoints: whole or not there, the one before when one is damaged, and only into folders of the same training."""

from __future__ import annotations

import errno
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import RunError
from harness.models import find_model
from harness.training.checkpoint.folder import BEST, LAST, Checkpoints, TrainingProgress
from harness.training.checkpoint.manifest import fault
from harness.training.checkpoint.weights import Weights
from harness.training.model.network import Network, load_network
from harness.training.optim import AdamW
from harness.training.options import TrainingOptions
from harness.training.parallel import join

CARD = {"prompt_format": "plain", "prompt_digest": "0"}


@pytest.fixture
def model(tiny: Path) -> Network:
    return load_network(str(tiny), TrainingOptions(device="cpu"), join("cpu"), packed=True)


@pytest.fixture
def opened(tiny: Path, tmp_path: Path) -> Iterator[Callable[..., Checkpoints]]:
    tokenizer = find_model(str(tiny)).tokenizer
    held: list[Checkpoints] = []

    def open_folder(**identity: Any) -> Checkpoints:
        held.append(
            Checkpoints(tmp_path / "out", join("cpu"), identity=identity or {"seed": 0}, card=CARD, tokenizer=tokenizer)
        )
        return held[-1]

    yield open_folder
    for checkpoints in held:
        checkpoints.close()


def optimizer_of(model: Network) -> AdamW:
    return AdamW(model.lm.named_parameters())


def save(checkpoints: Checkpoints, model: Network, step: int, *places: str) -> None:
    optimizer = optimizer_of(model)
    for tensor in optimizer.state.values():
        tensor.fill_(step)
    optimizer.steps = step
    progress = TrainingProgress(step=step, tokens=10 * step, pending={"loss": 0.1})
    checkpoints.save(model, optimizer, progress, places or [LAST])
    checkpoints.finish()


def step_of(checkpoints: Checkpoints, model: Network) -> int | None:
    folder = checkpoints.latest()
    if folder is None:
        return None
    optimizer = optimizer_of(model)
    progress = checkpoints.restore(folder, model, optimizer)
    assert all(bool((tensor == progress.step).all()) for tensor in optimizer.state.values())
    assert (optimizer.steps, progress.tokens, progress.pending) == (progress.step, 10 * progress.step, {"loss": 0.1})
    return progress.step


def test_a_checkpoint_is_an_ordinary_model_folder(opened: Any, model: Network, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoints = opened()
    assert checkpoints.latest() is None
    save(checkpoints, model, 3)
    for folder in (tmp_path / "out" / "last", tmp_path / "out"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder)
        for name, tensor in model.lm.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)
        assert AutoTokenizer.from_pretrained(folder).eos_token_id == loaded.generation_config.eos_token_id
        assert json.loads((folder / "harness.json").read_text()) == CARD
    assert step_of(checkpoints, model) == 3


def test_random_states_come_back(opened: Any, model: Network) -> None:
    checkpoints = opened()
    torch.manual_seed(5)
    save(checkpoints, model, 1)
    expected = torch.rand(3)
    torch.manual_seed(9)
    step_of(checkpoints, model)
    assert torch.equal(torch.rand(3), expected)


def damage_by_cutting(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def damage_by_a_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_by_loss(folder: Path) -> None:
    shutil.rmtree(folder / "training" / "optimizer")


def damage_of_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


@pytest.mark.parametrize("damage", [damage_by_cutting, damage_by_a_bit, damage_by_loss, damage_of_the_manifest])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    opened: Any, model: Network, tmp_path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = opened()
    save(checkpoints, model, 1)
    save(checkpoints, model, 2)
    damage(tmp_path / "out" / "last")
    assert step_of(checkpoints, model) == 1
    assert re.search(r"warning: \S*last is damaged \(.*\); going on from \S*previous", capsys.readouterr().err)
    save(checkpoints, model, 3)
    assert step_of(checkpoints, model) == 3
    assert fault(tmp_path / "out" / "previous") is None  # the damaged one has not become the reserve


def test_with_nothing_before_it_a_damaged_checkpoint_is_an_error(opened: Any, model: Network, tmp_path: Path) -> None:
    checkpoints = opened()
    save(checkpoints, model, 1)
    damage_by_cutting(tmp_path / "out" / "last")
    for _ in range(2):  # the same command once more does not start anew either
        with pytest.raises(RunError, match=r"last is damaged \(model.safetensors has .* bytes instead"):
            checkpoints.latest()
        assert (tmp_path / "out" / "last").exists()


def test_with_the_one_before_it_damaged_too_nothing_starts_anew(opened: Any, model: Network, tmp_path: Path) -> None:
    checkpoints = opened()
    save(checkpoints, model, 1)
    save(checkpoints, model, 2)
    damage_by_cutting(tmp_path / "out" / "last")
    assert step_of(checkpoints, model) == 1
    damage_by_cutting(tmp_path / "out" / "previous")
    for _ in range(2):
        with pytest.raises(RunError, match=r"previous is damaged \(model.safetensors has"):
            checkpoints.latest()


def test_an_optimizer_of_another_dtype_is_one_line(opened: Any, model: Network, tiny: Path) -> None:
    checkpoints = opened()
    save(checkpoints, model, 1)
    other = load_network(str(tiny), TrainingOptions(device="cpu", dtype="bfloat16"), join("cpu"), packed=True)
    with pytest.raises(RunError, match=r"last/training does not fit this training \(.*\); give another out="):
        checkpoints.restore(checkpoints.folder / LAST, other, optimizer_of(other))


class Died(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("call", range(2))
def test_a_death_between_two_renames_loses_nothing(
    opened: Any, model: Network, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    checkpoints = opened()
    for step in (1, 2):
        save(checkpoints, model, step, BEST, LAST)
    real, calls = Path.rename, [0]

    def rename(self: Path, target: Any) -> Path:
        calls[0] += self.parent == checkpoints.folder
        if self.parent == checkpoints.folder and calls[0] == call + 1:
            raise Died
        return real(self, target)

    for place in (LAST, BEST):
        calls[0] = 0
        monkeypatch.setattr(Path, "rename", rename)
        with pytest.raises(Died):
            save(checkpoints, model, 3, place)
        monkeypatch.setattr(Path, "rename", real)
        assert step_of(checkpoints, model) in (2, 3)
        assert fault(checkpoints.folder / "best") is None
    save(checkpoints, model, 4)
    assert step_of(checkpoints, model) == 4


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(
    opened: Any, model: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoints = opened()
    save(checkpoints, model, 1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(RunError, match="No space left on device; free some space and give the same command again"):
        save(checkpoints, model, 2)
    assert not (tmp_path / "out" / "last.new").exists()
    assert step_of(checkpoints, model) == 1


def test_a_disk_that_is_full_for_torchs_writer_is_the_same_line(
    opened: Any, model: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wraps what the file system says in an exception that is no Exception, and loses its cause on the way."""
    from torch.distributed.checkpoint.filesystem import FileSystemWriter

    def full(*_: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")

    checkpoints = opened()
    monkeypatch.setattr(FileSystemWriter, "write_data", full)
    with pytest.raises(RunError, match="unexpected pos 704 vs 598; mend it"):
        save(checkpoints, model, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(RunError, match="No space left on device; free some space"):
        save(checkpoints, model, 1)


def test_training_goes_on_while_a_checkpoint_is_written(
    opened: Any, model: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is changed after `save` has returned is not in it, whenever it is written."""
    import safetensors.torch

    checkpoints, optimizer, real, go = opened(), optimizer_of(model), safetensors.torch.save_file, threading.Event()

    def slow(*words: Any, **named: Any) -> None:
        assert go.wait(30)
        real(*words, **named)

    monkeypatch.setattr("safetensors.torch.save_file", slow)
    before = {name: tensor.clone() for name, tensor in model.lm.state_dict().items()}
    for step in (1, 2):  # the second uses the first's copies again
        go.clear()
        checkpoints.save(
            model, optimizer, TrainingProgress(step=step, tokens=10 * step, pending={"loss": 0.1}), [BEST, LAST]
        )
        with torch.no_grad():
            for tensor in (*model.lm.parameters(), *optimizer.state.values()):
                tensor.add_(1)
        go.set()
        checkpoints.finish()
        for place in (BEST, LAST):
            saved = safetensors.torch.load_file(checkpoints.folder / place / "model.safetensors")
            assert all(torch.equal(saved[name], before[name] + (step - 1)) for name in saved)
        other = optimizer_of(model)
        checkpoints.restore(checkpoints.folder / LAST, model, other)
        assert all(bool((tensor == step - 1).all()) for tensor in other.state.values())


def test_without_memory_for_copies_training_waits(
    opened: Any, model: Network, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.training.checkpoint.background.free_memory", lambda: 1000)
    checkpoints = opened()
    checkpoints.save(model, optimizer_of(model), TrainingProgress(), [LAST])
    assert fault(checkpoints.folder / LAST) is None
    assert "training waits for checkpoints" in capsys.readouterr().err
    save(checkpoints, model, 4)
    assert step_of(checkpoints, model) == 4


def test_files_are_those_that_transformers_writes(opened: Any, tmp_path: Path) -> None:
    """For tied weights and for experts too, which it computes with in another form; in several files of a size."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

    sizes: dict[str, Any] = {
        "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1,
    }  # fmt: skip
    configs: list[Any] = [LlamaConfig(**sizes, tie_word_embeddings=True), MixtralConfig(**sizes, num_local_experts=2)]
    for config in configs:
        lm: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        expected, found = tmp_path / config.model_type / "expected", tmp_path / config.model_type / "found"
        lm.save_pretrained(expected)
        lm = AutoModelForCausalLM.from_pretrained(expected)
        lm.save_pretrained(expected)
        for keep in (None, lambda name, tensor: tensor.clone()):
            found.mkdir(exist_ok=True)
            Weights(lm, {}, join("cpu"), keep).write(found)
            assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}
            first, second = (load_file(folder / "model.safetensors") for folder in (expected, found))
            assert first.keys() == second.keys()
            assert all(torch.equal(first[name], second[name]) for name in first)
            for name in ("config.json", "generation_config.json"):
                assert json.loads((found / name).read_text()) == json.loads((expected / name).read_text())


def test_a_large_model_is_written_in_several_files(
    model: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr("harness.training.checkpoint.weights._FILE_BYTES", 100_000)
    Weights(model.lm, {}, join("cpu"), None).write(tmp_path)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.lm.state_dict().items())


def test_a_folder_of_something_else_is_refused(opened: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(RunError, match="holds something else already"):
        opened()


def test_a_folder_of_another_training_is_refused(opened: Any, tmp_path: Path) -> None:
    opened(data="1" * 64, seed=0, learning_rate=1e-5).close()
    (tmp_path / "out" / "best").mkdir()
    with pytest.raises(RunError, match=r"another training \(learning_rate was 1e-05 and is 2e-05; data was"):
        opened(data="2" * 64, seed=0, learning_rate=2e-5)


def test_a_training_that_left_nothing_may_begin_anew_with_other_options(opened: Any, tmp_path: Path) -> None:
    opened(seed=0).close()
    opened(seed=1).close()
    assert json.loads((tmp_path / "out" / "training.json").read_text())["seed"] == 1
    with pytest.raises(RunError, match="another training"):
        opened(rate=1)


@pytest.mark.parametrize("content", ['[{"prompt": "a"}]', '{"prompt": "a"}\n{"prompt": "b"}', '{"prompt": "a"}'])
def test_a_file_of_that_name_that_is_none_of_a_training_stays(opened: Any, tmp_path: Path, content: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "training.json").write_text(content)
    with pytest.raises(RunError, match="give another out="):
        opened()
    assert (tmp_path / "out" / "training.json").read_text() == content


def test_two_processes_never_write_to_one_folder(opened: Any) -> None:
    first = opened()
    with pytest.raises(RunError, match="another process is training"):
        opened()
    first.close()
    opened().close()
