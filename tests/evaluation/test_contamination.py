"""What a model was trained on and is asked about: said before training, kept with the checkpoint, left out later."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.testing.tiny import make_tiny_model, word_problems
from tests.conftest import Command

ASKED = [
    f"{name} walks {number} miles along the river every single morning before breakfast and then {number} more at "
    f"night. How many miles does {name} walk in a day?"
    for number, name in enumerate(("Ada", "Ben", "Chloe", "Dev"), start=2)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")  # the wheel is tested without
    return make_tiny_model(tmp_path_factory.mktemp("model") / "base", context=256)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """GSM8K of four questions, and training data that holds the second of them in other letters and marks."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "gsm8k"
    folder.mkdir(parents=True)
    rows = [json.dumps({"question": each, "answer": f"#### {2 * n}"}) for n, each in enumerate(ASKED, start=2)]
    (folder / "test.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    taught = [*word_problems(30, seed=3), (ASKED[1].upper().replace(" ", "  "), "6")]
    lines = [json.dumps({"prompt": asked, "response": answer}) for asked, answer in taught]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder.parent


def outputs(folder: Path, *answers: int) -> Path:
    path = folder / f"{'-'.join(map(str, answers))}.jsonl"
    path.write_text("".join(json.dumps({"output": f"#### {each}"}) + "\n" for each in answers), encoding="utf-8")
    return path


def ran(harness: Command, data: Path, *words: str | Path) -> Path:
    done = harness("run", "-b", "gsm8k", "--data", data, "--out", data.parent / "runs", "--engine", "replay", *words)
    assert done.code == 0, done.err
    return Path(done.out.strip().splitlines()[-1].strip())


@pytest.mark.parametrize("trainer", ["sft", "dpo"])
def test_a_training_says_and_keeps_what_its_data_shares(
    harness: Command, model: Path, data: Path, tmp_path: Path, trainer: str
) -> None:
    train = tmp_path / "train.jsonl"
    if trainer == "dpo":
        rows = [json.loads(line) for line in train.read_text(encoding="utf-8").splitlines()]
        pairs = [{"prompt": row["prompt"], "chosen": row["response"], "rejected": "No idea."} for row in rows]
        train.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    given: dict[str, Any] = {
        "data": [str(train)],
        "against": ["gsm8k"],
        "against_data": str(data),
        "prompt_format": "plain",
    }
    given |= {"sequence_length": 256, "batch_size": 8, "microbatch_size": 4, "max_steps": 1, "device": "cpu"}
    given |= {"validation_pairs": 0} if trainer == "dpo" else {}
    words = [word for key, value in given.items() for word in ("--set", f"{trainer}.{key}={json.dumps(value)}")]
    out = tmp_path / "out"
    done = harness("train", trainer, "-m", model, "-o", out, *words, "--plan")
    assert done.code == 0, done.err
    assert "against     gsm8k: 1 of 31 texts share 13 words in a row with 1 of 4 items" in done.out
    assert re.search(r"train.jsonl(, text |:)31 and test-0*1\b.*ben walks 3 miles along", done.out), done.out
    assert harness("train", trainer, "-m", model, "-o", out, *words).code == 0
    kept = json.loads((out / "harness.json").read_text(encoding="utf-8"))["contamination"]["gsm8k"]
    assert (kept["words"], kept["items"], kept["texts"], len(kept["found"])) == (13, 4, 1, 1)

    run = ran(harness, data, "-m", out, "--engine", "transformers")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["contamination"] == {"sources": ["harness.json"], "found": kept["found"]}
    if trainer == "sft":  # what is trained on top of it was trained on that, too
        more = [*words, "--set", "sft.against=[]"]
        assert harness("train", "sft", "-m", out, "-o", tmp_path / "more", *more).code == 0
        assert json.loads((tmp_path / "more" / "harness.json").read_text())["contamination"]["gsm8k"] == kept


def test_runs_are_compared_without_what_was_trained_on(harness: Command, data: Path, tmp_path: Path) -> None:
    first = ran(harness, data, "-m", outputs(tmp_path, 4, 0, 8, 0))
    second = ran(harness, data, "-m", outputs(tmp_path, 4, 6, 8, 10))
    done = harness("compare", first, second, "--without-contaminated")
    assert done.code == 2 and "do not say what was trained on" in done.err and len(done.err.splitlines()) == 1
    again = harness(
        "run", "-b", "gsm8k", "--data", data, "--out", tmp_path / "runs", "-m", outputs(tmp_path, 4, 6, 8, 10),
        "--engine", "replay",
        "--trained-on", tmp_path / "train.jsonl",
    )  # fmt: skip
    assert again.code == 0 and str(second) in again.out, "the run that is there says it now"
    assert "1 (25.0%) examples share 13 words in a row with what the model was trained on" in again.out
    found = json.loads(harness("compare", first, second, "--json").out)["benchmarks"][0]
    assert (found["examples"], found["contaminated"]) == (4, None)
    difference = next(iter(found["metrics"][0]["against_baseline"].values()))
    assert difference["estimate"]["value"] == pytest.approx(0.5)
    done = harness("compare", first, second, "--without-contaminated", "--json")
    found = json.loads(done.out)["benchmarks"][0]
    assert (found["examples"], found["contaminated"]) == (3, 1)
    metric = found["metrics"][0]
    [difference] = metric["against_baseline"].values()
    assert difference["estimate"]["value"] == pytest.approx(1 / 3) and len(difference["gained"]) == 1
    assert sorted(each["value"] for each in metric["values"].values()) == pytest.approx([2 / 3, 1])
    assert {each["n"] for each in metric["values"].values()} == {3}
    done = harness("compare", first, second, "--without-contaminated")
    assert "gsm8k: without 1 examples that a model was trained on; 3 are left" in done.out


def test_what_cannot_be_read_is_one_line(harness: Command, data: Path, tmp_path: Path) -> None:
    words = ("run", "-b", "gsm8k", "--data", data, "--out", tmp_path / "runs", "-m", outputs(tmp_path, 4, 6, 8, 10))
    done = harness(*words, "--engine", "replay", "--trained-on", tmp_path / "none.jsonl")
    assert done.code == 2 and "none.jsonl" in done.err and len(done.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "said", ['"gsm8k"', "[1]", '{"gsm8k": 1}', '{"gsm8k": {"found": 2}}', '{"mmlu": {"found": [3]}}']
)
def test_what_a_checkpoint_does_not_say_as_a_training_does_is_one_line(
    harness: Command, model: Path, data: Path, tmp_path: Path, said: str
) -> None:
    model = shutil.copytree(model, tmp_path / "model")
    (model / "harness.json").write_text(f'{{"prompt_format": "plain", "contamination": {said}}}', "utf-8")
    words = ("run", "-b", "gsm8k", "--data", data, "--out", tmp_path / "runs", "--limit", "1", "--model", model)
    done = harness(*words, "--dry-run")
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert "harness.json: contamination must name the ids found of each benchmark" in done.err
