"""`harness curve`: each epoch of a training is kept, its perplexity is measured, and benchmarks are run on it."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path

import pytest

from harness.testing.tiny import make_tiny_model, word_problems
from tests.conftest import Command

RECIPE = Path(__file__).parents[1] / "recipes" / "lima.toml"


def written(path: Path, count: int, seed: int) -> Path:
    rows = [json.dumps({"prompt": asked, "response": answer}) for asked, answer in word_problems(count, seed=seed)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


def test_limas_recipe_on_a_tiny_model(harness: Command, gsm8k_data: Path, tmp_path: Path) -> None:
    """Three epochs in the place of fifteen; figures are those of the commands by themselves."""
    base = make_tiny_model(tmp_path / "base", context=256)
    train, held_out, out = (
        written(tmp_path / "train.jsonl", 24, 1),
        written(tmp_path / "held.jsonl", 8, 2),
        tmp_path / "lima",
    )
    given = {"data": [str(train)], "validation": [str(held_out)], "sequence_length": 128, "epochs": 3, "device": "cpu"}
    given |= {"batch_size": 4, "microbatch_size": 4, "learning_rate": 1e-3, "prompt_format": "plain"}
    words = [word for key, value in given.items() for word in ("--set", f"sft.{key}={json.dumps(value)}")]
    done = harness("train", "sft", RECIPE, "-m", base, "-o", out, *words)
    assert done.code == 0, done.err
    kept = sorted(path.name for path in out.glob("step-*"))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    validated = {f"step-{line['step']:06d}": line["validation/loss"] for line in lines if "validation/loss" in line}
    assert len(kept) == 3 and kept == [name for name in validated if name != "step-000000"]

    asked = ("--data", gsm8k_data, "--out", tmp_path / "runs", "--engine", "transformers", "--limit", "2")
    done = harness("curve", out, held_out, "-b", "gsm8k", *asked)
    assert done.code == 0, done.err
    rows = re.findall(r"^ *(\d+) +([\d.]+) \[.*?\] +([\d.]+)%", done.out, re.MULTILINE)
    assert [f"step-{int(step):06d}" for step, _, _ in rows] == kept
    assert {path.name for path in (tmp_path / "runs" / "gsm8k").iterdir()} == {f"lima--{name}" for name in kept}
    picture = out / "perplexity.svg"
    assert str(picture) in done.out and "<svg" in picture.read_text(encoding="utf-8")
    told = json.loads((out / "curve.json").read_text(encoding="utf-8"))
    assert len(told) == 3
    found = [each["value"] for each in told.values()]
    assert found == pytest.approx([math.exp(validated[name]) for name in kept], rel=1e-5)

    before = (out / "curve.json").stat().st_mtime_ns
    again = harness("curve", out, held_out, "-b", "gsm8k", *asked, "--picture", out / "other.png")
    assert again.code == 0 and again.out.splitlines()[:-1] == done.out.splitlines()[:-1]
    assert (out / "curve.json").stat().st_mtime_ns == before, "nothing is measured twice"
    assert (out / "other.png").stat().st_size > 5000


def test_what_does_not_fit_is_one_line(harness: Command, tmp_path: Path) -> None:
    held_out = written(tmp_path / "held.jsonl", 2, 2)
    for words, said in (
        ((tmp_path, held_out), 'no checkpoints by step in it; train with keep = "epochs"'),
        ((tmp_path, held_out, "--model", tmp_path), "the models are the checkpoints in"),
        ((tmp_path, held_out, "--picture", "a.doc"), "give a file that ends in .svg, .png or .pdf"),
    ):
        done = harness("curve", *words, "-b", "gsm8k")
        assert (done.code, len(done.err.splitlines())) == (2, 1) and said in done.err, done.err


def test_the_recipe_is_limas() -> None:
    table = tomllib.loads(RECIPE.read_text(encoding="utf-8"))["sft"]
    assert (table["epochs"], table["keep"], table["learning_rate"]) == (15, "epochs", 1e-5)
