"""What only a GPU can show: kernels that repeat themselves, agree with exact ones, and train a 4-bit base."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from harness.testing.tiny import make_tiny_model, word_problems
from harness.training.optim import AdamW, RMSprop
from tests.training.test_fused import check_offload, check_one_launch
from tests.training.test_parallel import untied
from tests.training.test_resume import assert_same, check_interruptions, command, finished, outcome

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA GPUs here")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    torch.cuda.empty_cache()


def train(trainer: str, model: Path, out: Path, options: Mapping[str, str], *, ranks: int = 1) -> str:
    """Train by the command line in processes of their own and return what they said on stderr."""
    words = ["-m", "harness", "train", trainer, "--model", str(model), "--out", str(out)]
    words += [part for name, value in options.items() for part in ("--set", f"{trainer}.{name}={value}")]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    done = subprocess.run([sys.executable, *launcher, *words], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def metrics(out: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


@pytest.mark.parametrize("packing", ["documents", "concat"])
def test_deterministic_trainings_may_be_interrupted(tmp_path: Path, packing: str) -> None:
    """In documents this long flash attention adds up gradients in any order, unless it is told not to."""
    model, data = make_tiny_model(tmp_path / "model", hidden=128), tmp_path / "long.jsonl"
    solved = [f"{question} {answer}" for question, answer in word_problems(800, seed=3)]
    lines = [json.dumps({"prompt": "Go on:", "response": " ".join(solved[at : at + 20])}) for at in range(0, 800, 20)]
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    check_interruptions(
        model, data, tmp_path, device="cuda", deterministic="true", packing=packing, sequence_length="1024"
    )


@pytest.mark.parametrize("packing", ["documents", "concat"])
def test_recorded_trainings_end_as_computed_ones_do(tmp_path: Path, problems: Path, packing: str) -> None:
    """Steps of two microbatches and, at the end of an epoch, of one; to the bit, validations and saves in between."""
    model, ended = make_tiny_model(tmp_path / "model", hidden=128), []
    for graphs in ("true", "false"):
        out = tmp_path / graphs
        said = finished(command(model, problems, out, device="cuda", graphs=graphs, packing=packing), tmp_path)
        assert "not recorded" not in said
        ended.append(outcome(out))
    assert_same(*ended)


@pytest.mark.parametrize("make", [AdamW, RMSprop])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("moments", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("even", [True, False])
def test_one_launch_updates_parameters_as_the_cpu_does(make: Any, dtype: torch.dtype, moments: str, even: bool) -> None:
    check_one_launch(make, dtype, moments, even, torch.device("cuda"))


@pytest.mark.parametrize("trained", [{}, {"lora_rank": "8", "recompute": "full"}])
def test_trainings_end_alike_wherever_state_lies(tmp_path: Path, problems: Path, trained: dict[str, str]) -> None:
    """On the card, on the host, and as is chosen; to the bit, of whole models and of adapters."""
    model, ended = make_tiny_model(tmp_path / "model", hidden=128), []
    more = {"device": "cuda", "deterministic": "true", **trained}
    for number, memory in enumerate(({}, {"offload": "0.5"}, {"offload": "1"})):
        out = tmp_path / str(number)
        finished(command(model, problems, out, **more, **memory), tmp_path)
        ended.append(outcome(out))
    for other in ended[1:]:
        assert_same(ended[0], other)
    said = finished(command(model, problems, tmp_path / "auto", **more, memory="auto"), tmp_path)
    assert "chosen      microbatch_size=" in said and "nothing is faster" in said


@pytest.mark.parametrize("make", [AdamW, RMSprop])
def test_state_on_the_host_is_updated_as_state_beside_the_weights(make: Any) -> None:
    check_offload(make, torch.device("cuda"))


def test_a_training_in_float8_learns_as_one_in_bf16_does(tmp_path: Path, problems: Path) -> None:
    pytest.importorskip("torchao")
    model, losses = make_tiny_model(tmp_path / "model", hidden=128), []
    settings = {
        "data": json.dumps([str(problems)]), "prompt_format": "plain", "sequence_length": "128", "batch_size": "8",
        "learning_rate": "3e-3", "epochs": "20", "validation_documents": "8", "validate_every": "10",
    }  # fmt: skip
    for recipe in ("none", "tensorwise"):
        out = tmp_path / recipe
        train("sft", model, out, {**settings, "float8": recipe})
        losses.append(metrics(out, "validation/loss"))
    assert losses[0][-1] < losses[0][0] - 0.5
    assert losses[1][-1] == pytest.approx(losses[0][-1], rel=0.05)


@pytest.fixture(params=[None, "FA3", "FA4"])
def flash(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each of the flash kernels that torch can attend by, where they are installed."""
    from harness.training.model.flash import use_flash

    try:
        use_flash(request.param)
    except ImportError:
        pytest.skip(f"{request.param} is not installed")
    yield
    use_flash(None)


@pytest.mark.usefixtures("flash")
@pytest.mark.parametrize("heads", [4, 2])
def test_packed_attention_is_as_exact_as_attention_of_each_document(heads: int) -> None:
    from harness.training.model.attention import VARLEN, implementation

    device, lengths = torch.device("cuda"), [5, 1, 130, 64, 56]
    assert implementation("varlen", device, torch.bfloat16, True) == VARLEN
    from transformers import AttentionInterface

    torch.manual_seed(0)
    shapes = [(1, count, sum(lengths), 64) for count in (4, heads, heads)]
    given = [torch.randn(shape, dtype=torch.bfloat16, device=device).requires_grad_() for shape in shapes]
    exact = [part.detach().double().requires_grad_() for part in given]
    ends = [0, *torch.tensor(lengths).cumsum(0).tolist()]

    def attend(begin: int, end: int) -> torch.Tensor:
        query, key, value = (part[:, :, begin:end] for part in exact)
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)

    wanted = torch.cat([attend(*both) for both in pairwise(ends)], dim=2).transpose(1, 2)
    borders = torch.tensor(ends, dtype=torch.int32, device=device)
    options = {f"cu_seq_lens_{side}": borders for side in "qk"} | {f"max_length_{side}": 130 for side in "qk"}
    kernels: Any = AttentionInterface  # untyped
    found, _ = kernels()[VARLEN](None, *given, None, **options)
    weights = torch.randn_like(wanted)
    torch.autograd.backward((wanted * weights).sum())
    torch.autograd.backward((found.double() * weights).sum())
    for one, other in [(found, wanted), *((a.grad, b.grad) for a, b in zip(given, exact, strict=True))]:
        assert one is not None and other is not None
        assert ((one.double() - other).norm() / other.norm()).item() < 0.01


def test_a_4_bit_base_learns(problems: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    base = make_tiny_model(tmp_path / "base", hidden=128)
    settings = {
        "data": json.dumps([str(problems)]), "prompt_format": "plain", "sequence_length": "128", "batch_size": "8",
        "base_bits": "4", "lora_rank": "16", "learning_rate": "1e-2", "epochs": "20", "validation_documents": "8",
        "validate_every": "10",
    }  # fmt: skip
    said = train("sft", base, tmp_path / "out", settings)
    losses = metrics(tmp_path / "out", "validation/loss")
    assert losses[-1] < losses[0] - 0.3, said
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "best").config.vocab_size > 0


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    lines = [
        json.dumps({"prompt": question, "chosen": answer, "rejected": answer.replace("now", "then")})
        for question, answer in word_problems(200, seed=2)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


MODES = [
    *(pytest.param(mode, 1) for mode in ("cached", "same", "adapter")),
    *(pytest.param(mode, 2, marks=two_gpus) for mode in ("cached", "same", "adapter")),
    pytest.param("cuda:1", 1, marks=two_gpus),
]


@pytest.mark.parametrize("share", ["false", "true"])
@pytest.mark.parametrize(("mode", "ranks"), MODES)
def test_the_first_loss_is_log_2_wherever_the_reference_is(
    pairs: Path, tmp_path: Path, mode: str, ranks: int, share: str
) -> None:
    check_first_loss(pairs, tmp_path, {"reference": mode, "share_prompt": share}, ranks)


@pytest.mark.parametrize(("mode", "ranks"), [*MODES[:3], MODES[3]])
def test_the_first_loss_is_log_2_in_float8(pairs: Path, tmp_path: Path, mode: str, ranks: int) -> None:
    """Policy and reference round in training, and neither does in a validation."""
    pytest.importorskip("torchao")
    check_first_loss(pairs, tmp_path, {"reference": mode, "float8": "tensorwise"}, ranks)


def check_first_loss(pairs: Path, folder: Path, more: Mapping[str, str], ranks: int) -> None:
    """Train with preference pairs and hold losses and rewards before the first step against what they must be."""
    model, out = make_tiny_model(folder / "model", hidden=256, layers=4), folder / "out"
    settings = {
        "data": json.dumps([str(pairs)]), "prompt_format": "plain", "batch_size": "160", "microbatch_size": "8",
        "validation_pairs": "40", "epochs": "3", "log_every": "1", "learning_rate": "1e-4", "warmup": "0",
        "lora_rank": "8" if more["reference"] == "adapter" else "0", **more,
    }  # fmt: skip
    train("dpo", model, out, settings, ranks=ranks)
    assert metrics(out, "loss")[0] == pytest.approx(0.6931472, abs=1e-6)
    assert metrics(out, "validation/loss")[0] == pytest.approx(0.6931472, abs=1e-6)
    for side in ("chosen", "rejected"):
        assert abs(metrics(out, f"rewards/{side}")[0]) < 1e-4  # β · 1e-3 nats
    first, _, last = metrics(out, "loss")  # of all pairs each
    assert last < first


@two_gpus
@pytest.mark.parametrize("float8", ["none", "tensorwise"])
@pytest.mark.parametrize("trainer", ["sft", "dpo"])
def test_two_gpus_train_as_one_and_one_goes_on(
    pairs: Path, problems: Path, tmp_path: Path, trainer: str, float8: str
) -> None:
    if float8 != "none":
        pytest.importorskip("torchao")
    model = untied(make_tiny_model(tmp_path / "model", hidden=256, layers=4), tmp_path / "untied")
    of_its_own = (
        {"data": json.dumps([str(problems)]), "sequence_length": "128", "batch_size": "4", "microbatch_size": "2"}
        if trainer == "sft"
        else {"data": json.dumps([str(pairs)]), "batch_size": "16", "validation_pairs": "40", "reference": "same"}
    )
    settings = {
        **of_its_own, "prompt_format": "plain", "log_every": "1", "learning_rate": "1e-4", "save_every": "4",
        "max_steps": "8", "float8": float8,
    }  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    train(trainer, model, one, settings)
    train(trainer, model, two, settings, ranks=2)
    # One scale holds for all tokens of a microbatch, and two GPUs cut a step into others.
    expected = pytest.approx(metrics(one, "loss"), rel=0.02 if float8 == "none" else 0.05)
    assert metrics(two, "loss") == expected
    for name in ("last", "best"):  # back to where it was before its last save
        if (two / name).exists():
            (two / name).rename(two / f"{name}.gone")
    assert "going on behind step 4" in train(trainer, model, two, settings)
    assert metrics(two, "loss") == expected
