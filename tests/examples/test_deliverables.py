"""Each deliverable of the assignment is answered by a command on its page: all are given here, on a tiny world.

The model is random, so the figures are too; that they are printed is what is held.
"""

from __future__ import annotations

import csv
import io
import json
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Command

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "assignment.md").read_text(encoding="utf-8")
SHARE = r"\d+\.\d%"

#: What the page's words stand for here.
STAND_INS = {
    "BASE": "base", "JUDGE": "rule", "train.jsonl.gz": "train/demonstrations.jsonl",
    "harmless-base.jsonl.gz": "train/harmless.jsonl.gz", "helpful-base.jsonl.gz": "train/helpful.jsonl.gz",
}  # fmt: skip

#: What deliverables.toml's words stand for.
MEANT = {
    r"ASKED:(\w+)": r"--data data -e transformers --limit 6 --set \1.generation.max_tokens=8 "
    "--set transformers.device=cpu",
    r"SMALL:(\w+)": r"--set \1.max_steps=2 --set \1.batch_size=4 --set \1.microbatch_size=4 --set \1.device=cpu "
    r"--set \1.dtype=float32 --set \1.sequence_length=256 --set \1.validate_every=1",
    "SUBJECTS": """--set 'mmlu.subjects=["college_chemistry", "high_school_biology"]'""",
    "DATA": """--set 'sft.data=["train/demonstrations.jsonl"]' --set sft.validation_documents=8""",
    "PAIRS": """--set 'dpo.data=["train/harmless.jsonl.gz", "train/helpful.jsonl.gz"]' --set dpo.validation_pairs=8""",
}
RATE = r"\d+\.\d%"

DELIVERABLES = tomllib.loads(Path(__file__).with_name("deliverables.toml").read_text(encoding="utf-8"))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harness: Command) -> Path:
    """A folder as `harness init` writes it, with small data of all kinds and a random model that talks of them."""
    from harness.testing.tiny import make_tiny_model

    folder = tmp_path / "work"
    assert harness("init", "assignment", folder).code == 0
    demonstrations = runpy.run_path(str(ROOT / "examples" / "demo" / "world.py"))["make_data"](folder)
    make_tiny_model(folder / "base", hidden=32, layers=1, context=1024)
    rows = [{"prompt": prompt, "response": response} for prompt, response in demonstrations]
    for name, few in (("train/demonstrations", rows[:200]), ("few", rows[:24]), ("held-out", rows[200:212])):
        text = "".join(json.dumps(row) + "\n" for row in few)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    for recipe in ("qlora", "lima"):
        shutil.copyfile(ROOT / "recipes" / f"{recipe}.toml", folder / f"{recipe}.toml")
    annotated = "".join(f'{n},"Say {n}.","It is {n}.",Grammar\n' for n in range(12))
    (folder / "CS412_HW4_Step1_Data.csv").write_text(f"id,instruction,output,fail_mode\n{annotated}", encoding="utf-8")
    (folder / "red-team-prompts.jsonl").write_text('{"prompt": "How do I pick a lock?"}\n' * 2, encoding="utf-8")
    asked = "".join(f'{n},"Say {n}."\n' for n in range(4))
    (folder / "CS412_HW4_Test_Data.csv").write_text(f"id,instruction\n{asked}", encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The demonstration's judge, in a process of its own; what a command needs to ask it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = subprocess.Popen([sys.executable, str(ROOT / "examples" / "demo" / "judge.py"), str(port)])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = f"judge.base_url=http://127.0.0.1:{port}/v1"
    yield ["--judge-engine", "openai", "--set", "judge.api=chat", "--set", url]
    serving.kill()
    serving.wait()


def words_of(command: str, more: str, judge: list[str]) -> list[str]:
    """Return the words of a command of the page as they are given here."""
    for name, meaning in MEANT.items():
        more = re.sub(rf"\b{name}\b", meaning, more)
    if (left_out := re.search(r"WITHOUT:(\S+)", more)) is not None:  # it needs AlpacaEval's own 805 instructions
        command, more = command.replace(f" --set {left_out[1]}", ""), more.replace(left_out[0], "")
    words = [STAND_INS.get(word, word) for word in shlex.split(command)[1:]]
    return [*words, *shlex.split(more), *(judge if "--judge" in words else [])]


def test_every_deliverable_is_printed_by_the_command_of_the_page(
    world: Path, judge: list[str], harness: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"How do I pick a lock?\n")))
    for problem, commands in DELIVERABLES.items():
        for command, (more, printed) in commands.items():
            assert f"    {command}\n" in PAGE, f"{problem}: the page does not give {command}"
            if "--labels" in command:
                label(world)
            done = harness(*words_of(command, more, judge))
            assert done.code == 0, f"{command}: {done.err}"
            found = re.search(printed.replace("RATE", RATE), done.out + done.err)
            assert found, f"{command} does not print {printed!r}:\n{done.out}{done.err}"
    with (world / "CS412_HW4_Step2_Predictions.csv").open(encoding="utf-8", newline="") as file:
        exported = list(csv.DictReader(file))
    assert [(row["id"], row["instruction"]) for row in exported] == [(str(n), f"Say {n}.") for n in range(4)]
    tables = (world / "tables.md").read_text(encoding="utf-8")
    assert all(title in tables for title in ("MMLU", "GSM8K", "AlpacaEval", "SimpleSafetyTests"))
    for name in ("report.html", "sft/curve.png", "dpo/curve.png", "sft/metrics.jsonl", "lima/perplexity.svg"):
        assert (world / name).stat().st_size > 0
    for name in ("alpaca_eval/base", "simple_safety_tests/base"):
        assert [path for path in (world / "runs" / name / "exports").iterdir() if path.stat().st_size]


def label(world: Path) -> None:
    samples = (world / "runs" / "alpaca_eval" / "base" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [f"{json.loads(line)['id']},{'won' if number % 2 else 'lost'}\n" for number, line in enumerate(samples)]
    (world / "people.csv").write_text("id,label\n" + "".join(rows), encoding="utf-8")


def test_every_problem_of_the_page_is_tried() -> None:
    headings = re.findall(r"(?m)^## (.*)$", PAGE)
    assert all(any(problem in heading for heading in headings) for problem in DELIVERABLES)
    untried = [heading for heading in headings if not any(problem in heading for problem in DELIVERABLES)]
    assert untried == []
