"""``memory = "auto"``: what is chosen fits, keeps the step as it was, and is no slower on a larger GPU."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import harness_dpo.reference
from harness.errors import ConfigError
from harness.interfaces import TrainingRun
from harness.training.model.choice import MARGIN, Choice, Ways
from harness.training.model.memory import Shape
from harness.training.offload import refuse_offload
from harness.training.options import TrainingOptions
from harness.training.session import Session
from harness_dpo import DPO
from harness_sft import SFT

#: Llama-3-8B's, Llama-3.2-1B's, SmolLM2-135M's and a tiny one's, counted as `Shape.of` counts them.
EIGHT = Shape(32, 4096, 14_336, 1024, 128_256, 8_030_261_248, 7_504_924_672, 7_504_924_672, 4096)
SHAPES = [
    EIGHT,
    Shape(16, 2048, 8192, 512, 128_256, 1_235_814_400, 1_235_814_400, 1_235_814_400, 2048),
    Shape(30, 576, 1536, 192, 49_152, 134_515_008, 134_515_008, 134_515_008, 576),
    Shape(2, 64, 128, 32, 500, 130_000, 98_000, 98_000, 64),
]


def ways(shape: Shape = EIGHT, width: int = 512, world: int = 1, **options: Any) -> Ways:
    return Ways(shape, TrainingOptions(**options), lambda size: size * width, 2, world)


def of(card: float, found: Ways, host: float = 200.0) -> Choice | None:
    """Return what is chosen for a card of so many GB, of which CUDA takes some for itself."""
    return found.fastest(MARGIN * (0.985 * card), host)


def test_the_8b_shape_on_cards_of_every_size() -> None:
    full, rows = ways(batch_size=32), ways(width=4096, batch_size=4, lora_rank=16)
    chosen = {card: of(card, full) for card in (24, 40, 80, 141)}
    assert chosen[24] is None
    told = {card: (one.microbatch_size, one.recompute) for card, one in chosen.items() if one is not None}
    assert told == {40: (32, "full"), 80: (32, "full"), 141: (16, "none")}
    eighty, large = chosen[80], chosen[141]
    assert eighty is not None and 0 < eighty.offload <= 0.1 and eighty.memory.total <= 74
    assert large is not None and large.offload == 0
    assert eighty.memory.total + eighty.offloaded == pytest.approx(77.0, abs=0.1)
    adapters = [one.recompute for card in (24, 40, 80, 141) if (one := of(card, rows)) is not None]
    assert adapters == ["full", "none", "none", "none"]


@given(
    st.sampled_from(SHAPES), st.sampled_from([1, 7, 12, 32, 64]), st.sampled_from([1, 2, 4]),
    st.sampled_from([128, 2048]), st.sampled_from([0, 16]), st.sampled_from(["adamw", "rmsprop"]),
    st.lists(st.floats(0.01, 300), min_size=2, max_size=6), st.sampled_from([0.0, 10.0, 500.0]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_larger_card_is_no_slower_and_the_step_stays_what_it_is(
    shape: Shape, rows: int, world: int, width: int, rank: int, optimizer: Any, rooms: list[float], host: float
) -> None:
    found = ways(shape, width, world, batch_size=rows * world, lora_rank=rank, optimizer=optimizer)
    seconds = math.inf
    for room in sorted(rooms):
        choice = found.fastest(room, host)
        if choice is None:
            assert seconds == math.inf
            assert room < found.smallest().memory.total
            continue
        count = -(-rows * world // (choice.microbatch_size * world))
        assert choice.microbatch_size * count * world == rows * world == choice.of(found.options).batch_size
        assert choice.memory.total <= room and choice.offloaded <= host + 1e-9 and 0 <= choice.offload <= 1
        assert choice.offload == 0 or world == 1
        assert choice.seconds <= seconds
        seconds = choice.seconds
        again = found.way(choice.microbatch_size, choice.recompute, choice.offload)
        assert again == choice and replace(found.options, **choice.record()) == choice.of(found.options)


def test_a_share_on_the_host_is_off_the_card() -> None:
    found = ways(batch_size=32)
    without, half = found.way(32, "full", 0.0), found.way(32, "full", 0.5)
    assert half.memory.optimizer == pytest.approx(without.memory.optimizer / 2) == pytest.approx(half.offloaded)
    assert without.offloaded == 0 and half.seconds > without.seconds


def on_card(monkeypatch: pytest.MonkeyPatch, free: float, host: float = 100.0) -> None:
    """Let trainings be planned for a GPU of so many GiB."""
    assert harness_dpo.reference  # imported before that, it keeps the real `device_of`
    monkeypatch.setattr("harness.training.parallel.device_of", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr("harness.training.plan.free_gib", lambda device, world: free)
    monkeypatch.setattr("harness.training.plan.host_gib", lambda: host)


@pytest.fixture
def sft(problems: Path) -> SFT:
    return SFT(
        data=(str(problems),), prompt_format="plain", sequence_length=128, batch_size=8, microbatch_size=3,
        memory="auto", max_steps=2,
    )  # fmt: skip


def planned(trainer: SFT | DPO, run: TrainingRun) -> tuple[str, Session, dict[str, Any]]:
    """Return the line of the plan that says what was chosen, the session, and the record."""
    session = Session(trainer, run)
    training = trainer.prepare(session)
    session.choose(training)
    [line] = [line for line in session.plan(training).splitlines() if line.startswith("chosen")]
    return line, session, dict(session.job(training).identity)


def test_the_plan_says_what_was_chosen_and_the_record_keeps_it(
    sft: SFT, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrainingRun(str(tiny), tmp_path / "out", {})
    on_card(monkeypatch, 80.0)
    line, session, identity = planned(sft, run)
    assert "microbatch_size=8, recompute=none: the fastest that fits 74.4 GiB, 93% of what is free on cuda" in line
    assert line.endswith("nothing is faster")
    assert session.options.microbatch_size == 8
    kept = identity.pop("memory")
    assert kept == {"microbatch_size": 8, "recompute": "none", "offload": 0.0}
    run.out.mkdir()
    (run.out / "training.json").write_text(json.dumps({**identity, "memory": {**kept, "microbatch_size": 2}}))
    line, session, identity = planned(sft, run)
    assert "microbatch_size=2, recompute=none, as this training was begun; it fits 74.4 GiB" in line
    assert session.options.microbatch_size == 2
    on_card(monkeypatch, 0.001)
    with pytest.raises(
        ConfigError, match=r"sft.memory=auto: nothing fits 0.0 GiB.*the least is .*; give sft.lora_rank"
    ):
        planned(sft, run)
    for damaged in ("", "[]", "{}", '{"memory": 3}', '{"memory": {"microbatch_size": "x"}}', '{"memory": {}}'):
        on_card(monkeypatch, 80.0)
        (run.out / "training.json").write_text(damaged)
        assert "microbatch_size=8" in planned(sft, run)[0]
    (run.out / "training.json").unlink()
    os.mkfifo(run.out / "training.json")
    assert "microbatch_size=8" in planned(sft, run)[0]


@pytest.mark.parametrize(
    ("more", "remedy"),
    [
        ({}, "give sft.lora_rank=16, a smaller model or more GPUs"),
        ({"lora_rank": 4}, "of which the host could take 0.0; give sft.base_bits=4, a smaller model or more GPUs"),
        ({"lora_rank": 4, "base_bits": 4}, "give a smaller model or more GPUs"),
        ({"lora_rank": 4, "float8": "tensorwise"}, "give a smaller model or more GPUs"),
    ],
)
def test_where_nothing_fits_what_is_left_is_said(
    sft: SFT, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], remedy: str
) -> None:
    on_card(monkeypatch, 1e-5)
    with pytest.raises(ConfigError, match=f"{remedy}$"):
        planned(replace(sft, **more), TrainingRun(str(tiny), tmp_path / "out", {}))


@pytest.mark.parametrize(("width", "batch", "chosen"), [(104, 8, {8, 4, 2}), (100, 8, {8, 4}), (100, 6, set())])
def test_what_is_chosen_can_be_multiplied_in_float8(
    sft: SFT, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, batch: int, chosen: set[int]
) -> None:
    """Microbatches of 16 tokens or a multiple; where there is none the training is refused."""
    run = TrainingRun(str(tiny), tmp_path / "out", {})
    options = replace(sft, float8="tensorwise", sequence_length=width, batch_size=batch)
    found = ways(width=width, batch_size=batch, float8="tensorwise")
    assert set(found.sizes) == chosen
    on_card(monkeypatch, 80.0)
    if chosen:
        assert planned(options, run)[1].options.microbatch_size in chosen
        return
    with pytest.raises(ConfigError, match="sft.float8=tensorwise multiplies 16 tokens at a time.* not 100"):
        planned(options, run)


def test_what_does_not_fit_is_computed_another_way(
    sft: SFT, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrainingRun(str(tiny), tmp_path / "out", {})
    on_card(monkeypatch, 80.0)
    session = planned(sft, run)[1]
    plan = Session(session.options, run)
    least = plan.plan(sft.prepare(plan))
    assert "GiB a device, estimated" in least
    on_card(monkeypatch, 0.009)
    line, session, identity = planned(sft, run)
    assert "the fastest of all would take" in line
    assert identity["memory"]["microbatch_size"] < 8 or identity["memory"]["recompute"] != "none"
    assert (identity["memory"]["offload"] > 0) == ("offload=" in line)


def test_a_cpu_computes_as_given(sft: SFT, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = TrainingRun(str(tiny), tmp_path / "out", {})
    given = replace(sft, device="cpu", microbatch_size=2, offload=0.5)
    said = "chosen      microbatch_size=2, recompute=none, offload=0.5, as given: memory=auto chooses for a GPU"
    assert said in given.plan(run)
    given.train(run)
    assert said in capfd.readouterr().err
    assert "memory" not in json.loads((run.out / "training.json").read_text())
    replace(given, memory="given", offload=0.0).train(run)  # which is another way to compute the same training
    assert "done: 2 steps" in capfd.readouterr().err


def test_preference_pairs_are_cut_as_was_chosen(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [{"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "No."} for n in range(80)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    dpo = DPO(
        data=(str(path),), prompt_format="plain", batch_size=16, microbatch_size=2, validation_pairs=8, memory="auto"
    )
    on_card(monkeypatch, 80.0)
    session = Session(dpo, TrainingRun(str(tiny), tmp_path / "out", {}))
    training = dpo.prepare(session)
    rows: Any = training.rows
    before, expected = rows.width, rows.positions(16)
    session.choose(training)
    assert session.options.microbatch_size == 16
    assert before < rows.width == rows.batch([]).input_ids.numel() <= expected
    assert rows.width == getattr(training.validation, "width", None)
    assert [len(part) for part in rows.microbatches(rows.step(16, 0, 0), 16, 0, 1)] == [16]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_from_0_to_1(share: float) -> None:
    with pytest.raises(ValueError, match="offload is a share of the optimizer's state, from 0 to 1"):
        TrainingOptions(offload=share)


@pytest.mark.parametrize(
    ("ranks", "free", "said"),
    [
        ("1", 8 << 30, "offload=0.5 keeps 2.8 GiB of the optimizer's state on the host, which may take 75% of the 3.0"),
        ("2", 80 << 30, "offload=0.5 is for one GPU; several shard the optimizer's state: give offload=0"),
    ],
)
def test_a_host_without_room_is_one_line(ranks: str, free: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU's parameters are asked stands for them here."""
    weight: Any = SimpleNamespace(requires_grad=True, is_cuda=True, numel=lambda: 10**9, element_size=lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", ranks)
    monkeypatch.setattr("harness.training.offload.free_memory", lambda: free)
    options = TrainingOptions(offload=0.5)
    if ranks == "1":
        refuse_offload(options, [("weight", weight)])
        monkeypatch.setattr("harness.training.offload.free_memory", lambda: 3 << 30)
    with pytest.raises(ConfigError, match=said):
        refuse_offload(options, [("weight", weight)])
    refuse_offload(replace(options, offload=0.0), [("weight", weight)])
