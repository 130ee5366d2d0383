"""The study of a real model, with a tiny one: which commands it gives, and that its recipes are plans."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness.testing.tiny import make_tiny_model, word_problems
from tests.conftest import Command

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "examples" / "study"
TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a chat template."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", context=1024, chat_template=TURNS)


def test_each_model_is_measured_after_it_is_made_and_all_are_compared(tmp_path: Path) -> None:
    for name in ("train.jsonl", "safety.json", "pairs.jsonl.gz"):
        (tmp_path / name).touch()
    given = [
        "MODEL=base",
        "DATA=data",
        "GSM8K_TRAIN=train.jsonl",
        "SAFETY=safety.json",
        "PAIRS=pairs.jsonl.gz",
        "OUT=out",
    ]
    command = ["make", "-n", "-f", str(STUDY / "Makefile"), *given]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    commands = [line for line in said.replace("\\\n", " ").splitlines() if line.startswith("harness ")]
    steps = [" ".join(line.split()[1:3]) for line in commands]
    assert steps.count("train sft") == steps.count("train dpo") == 1
    runs = [line.split("--model ")[1].split()[0] for line in commands if line.startswith("harness run")]
    assert sorted(runs) == sorted(["base", "out/sft", "out/dpo"] * 2)
    assert (
        steps.index("train sft")
        < steps.index("train dpo")
        < commands.index(next(line for line in commands if "--model out/dpo" in line))
    )
    assert {line.split()[1] for line in commands[-4:]} >= {"compare", "report"}


@pytest.mark.parametrize("trainer", ["sft", "dpo"])
def test_its_recipes_are_plans(trainer: str, model: Path, harness: Command, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    if trainer == "sft":
        rows = [{"question": question, "answer": answer} for question, answer in word_problems(250)]
        files = f'[{{file = "{data}", columns = {{prompt = "question", response = "answer"}}}}]'
    else:
        rows = [{"prompt": question, "chosen": answer, "rejected": "No."} for question, answer in word_problems(250)]
        files = f'["{data}"]'
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = harness(
        "train", trainer, STUDY / f"{trainer}.toml", "--model", model, "--out", tmp_path / "out", "--plan",
        "--set", f"{trainer}.data={files}", "--set", f"{trainer}.device=cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "chat" in done.out + done.err and "200" in done.out + done.err
