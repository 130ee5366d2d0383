"""What the core does for every trainer: it reads the data, tells the plan, and says what a training is."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from harness import __version__
from harness.errors import ConfigError, ModelError
from harness.interfaces import TrainingRun
from harness.models import ModelFolder, find_model
from harness.prompts import find_format
from harness.training.data.packing import DocumentRows
from harness.training.model.network import load_network
from harness.training.parallel import join
from harness.training.session import LoopTrainer, Session, TextTrainer, Training
from harness_sft import SFT
from harness_sft.trainer import nll


@dataclass(frozen=True)
class Own(LoopTrainer):
    """A trainer with nothing but an option of its own, one that may change in between, and what it must give."""

    name: ClassVar[str] = "own"
    free: ClassVar[frozenset[str]] = LoopTrainer.free | {"said"}

    power: float = 1.0
    said: str = ""

    def prepare(self, session: Session) -> Training:
        rows = DocumentRows(session.tokens(session.texts()), self.sequence_length)
        return Training(rows, nll, rows.digest, identity={"more": "of it"})


@pytest.fixture
def run(tiny: Path, tmp_path: Path) -> TrainingRun:
    return TrainingRun(str(tiny), tmp_path / "out", {"own": {"power": 2}})


@pytest.fixture
def own(problems: Path) -> Own:
    return Own(
        data=(str(problems),), prompt_format="plain", sequence_length=128, power=2.0, max_steps=4, device="cpu",
        batch_size=4, microbatch_size=2, log_every=2,
    )  # fmt: skip


def test_a_training_is_its_options_data_model_and_format(own: Own, run: TrainingRun) -> None:
    session = Session(own, run)
    job = session.job(own.prepare(session))
    assert {
        "trainer": "own", "model": find_model(run.model).digest, "prompt_digest": find_format("plain").digest,
        "data": own.prepare(session).digest, "more": "of it", "power": 2.0, "sequence_length": 128,
    }.items() <= job.identity.items()  # fmt: skip
    assert not {"said", "device", "columns", "microbatch_size", "prompt_format"} & job.identity.keys()
    assert job.card == {
        **find_format("plain").card(), "trainer": "own", "base_model": run.model, "recipe": run.recipe,
        "harness": __version__,
    }  # fmt: skip


@dataclass(frozen=True)
class Tokens(TextTrainer):
    """A trainer that is the loss of a token, one that is not 0 where nothing is to be learned."""

    name: ClassVar[str] = "tokens"

    more: float = 0.0

    def loss(self, logprobs: torch.Tensor) -> torch.Tensor:
        return self.more - logprobs


def test_a_trainer_that_is_the_loss_of_a_token_learns_what_sft_learns(
    problems: Path, tiny: Path, run: TrainingRun
) -> None:
    given: dict[str, Any] = {
        "data": (str(problems),),
        "prompt_format": "plain",
        "sequence_length": 128,
        "device": "cpu",
    }
    ours, more, theirs = Tokens(**given), Tokens(**given, more=0.5), SFT(**given)
    of_ours, of_theirs = (each.prepare(Session(each, run)) for each in (ours, theirs))
    assert of_ours.digest == of_theirs.digest and list(of_ours.facts) == ["files"]
    batch = of_ours.rows.batch([0, 1, 2], 3)
    network = load_network(str(tiny), ours, join("cpu"), packed=True)
    labels = int((batch.labels != -100).sum())
    assert 0 < labels < batch.labels.numel()
    expected, _ = nll(network, batch, 0.25)
    for trainer, added in ((ours, 0.0), (more, 0.5 * labels)):
        scaled, sums = trainer.objective(network, batch, 0.25)
        assert sums["loss"].item() == pytest.approx(4 * expected.item() + added, rel=1e-5)
        assert scaled.item() == pytest.approx(sums["loss"].item() / 4, rel=1e-6) and scaled.requires_grad


def test_a_trainer_with_rows_and_a_loss_trains_and_goes_on(
    own: Own, run: TrainingRun, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = own.plan(run)
    assert [line.split()[0] for line in plan.splitlines()] == ["model", "format", "steps", "memory"]
    assert "4 of 4 rows (2 x 256 tokens on 1 of cpu)" in plan
    assert not run.out.exists()
    assert own.train(run) == run.out
    assert plan in capfd.readouterr().err
    assert json.loads((run.out / "harness.json").read_text())["trainer"] == "own"
    replace(own, said="done").train(run)
    assert "done: 4 steps" in capfd.readouterr().err


def test_the_kernel_that_a_trainer_names_is_for_where_the_options_leave_it_open(own: Own, run: TrainingRun) -> None:
    session = Session(own, run)
    training = replace(own.prepare(session), attention="sdpa")
    assert session.job(training).options.attention == "sdpa"
    other = replace(own, attention="varlen")
    assert Session(other, run).job(training).options.attention == "varlen"


def test_files_of_every_trainer_have_weights(own: Own, run: TrainingRun, problems: Path) -> None:
    twice = replace(own, data=({"file": str(problems), "weight": 2},))
    once, more = (one.prepare(Session(one, run)) for one in (own, twice))
    assert int(more.rows.tokens.sum()) == 2 * int(once.rows.tokens.sum())
    assert more.digest != once.digest


def test_what_every_trainer_refuses(own: Own, run: TrainingRun) -> None:
    with pytest.raises(ConfigError, match=r"no data given: data = \[\"FILE\"\] under \[own\], or --set 'own.data="):
        replace(own, data=()).plan(run)
    with pytest.raises(ConfigError, match="own.sequence_length=4096 is above the model's 1,024 tokens"):
        replace(own, sequence_length=4096).plan(run)
    with pytest.raises(ConfigError, match="an entry of own's data has no option 'wieght'"):
        replace(own, data=({"file": "a", "wieght": 2},)).plan(run)


@pytest.mark.parametrize("kept", [{"quant_method": "gptq", "bits": 4}, {}, "4 bits\nor so"])
def test_a_model_in_few_bits_is_not_trained(own: Own, run: TrainingRun, tiny: Path, tmp_path: Path, kept: Any) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    described = json.loads((model / "config.json").read_text()) | {"quantization_config": kept}
    (model / "config.json").write_text(json.dumps(described))
    with pytest.raises(
        ModelError, match=r"quantized already \('(gptq|unknown|4 bits..or so)'\).* own.base_bits=4"
    ) as found:
        own.plan(replace(run, model=str(model)))
    assert "\n" not in str(found.value)
    described["quantization_config"] = None
    (model / "config.json").write_text(json.dumps(described))
    own.plan(replace(run, model=str(model)))


def test_the_models_files_are_read_once(
    tiny: Path, problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[str] = Counter()
    before = ModelFolder._json

    def counted(self: ModelFolder, file: str) -> Mapping[str, Any]:
        read[file] += 1
        return before(self, file)

    monkeypatch.setattr(ModelFolder, "_json", counted)
    model, files = shutil.copytree(tiny, tmp_path / "model"), (str(problems),)
    trainer = SFT(
        data=files, validation_documents=8, prompt_format="plain", sequence_length=128, max_steps=1, device="cpu"
    )  # fmt: skip
    trainer.train(TrainingRun(str(model), tmp_path / "out", {}))
    assert read == {"config.json": 1, "generation_config.json": 1}
