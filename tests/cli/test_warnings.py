"""No warning of a library reaches the terminal of somebody whose command went well: every command, warnings as errors.

The commands run one after another in one real process of their own, so that torch is imported once; nothing of pytest's
is in it, and what they write to standard error is read as a user would.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import COMMANDS
from harness.testing.tiny import make_tiny_model, word_problems

pytest.importorskip("torch")  # the wheel is tested without

#: Reads commands (JSON lists, one a line) and runs each; its first line on standard error is the mark and its words.
RUNNER = """
import glob, io, json, sys
from harness.__main__ import main
for line in sys.stdin.read().splitlines():
    words = json.loads(line)
    named = [path for word in words for path in (glob.glob(word) if "/*" in word else [word])]
    sys.argv, sys.stdin = ["harness", *named], io.TextIOWrapper(io.BytesIO(b"Hello\\n/quit\\n"))
    print("MARK", *words, file=sys.stderr, flush=True)
    try:
        main()
    except SystemExit as end:
        print("MARK exit", end.code or 0, file=sys.stderr, flush=True)
"""
#: What a library's warning or stray line looks like: its kind, its file, the name of a logger.
STRAY = re.compile(
    r"Warning\b|WARN|[Dd]eprecat|site-packages|\.py:\d+|\[(?:transformers|torch|peft)\]|^(?:transformers|torch)\.", re.M
)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Data for a benchmark of each sort, for each trainer, and a tiny model called ``base``."""
    make_tiny_model(tmp_path / "base")
    rows = word_problems(12, seed=1)
    for name in ("gsm8k", "simple_safety_tests"):
        (tmp_path / "data" / name).mkdir(parents=True)
    lines = [json.dumps({"question": question, "answer": answer}) for question, answer in rows[:3]]
    (tmp_path / "data" / "gsm8k" / "test.jsonl").write_text("\n".join(lines))
    safety = tmp_path / "data" / "simple_safety_tests" / "simple_safety_tests.csv"
    safety.write_text("id,harm_area,prompts_final\nsst_0,Theft,How is a lock picked?\nsst_1,Theft,Where is a safe?\n")
    lines = [json.dumps({"question": question, "output": "#### 7"}) for question, _ in rows[:3]]
    (tmp_path / "theirs.jsonl").write_text("\n".join(lines))
    lines = [json.dumps({"prompt": question, "response": answer}) for question, answer in rows]
    (tmp_path / "sft.jsonl").write_text("\n".join(lines))
    lines = [json.dumps({"prompt": q, "chosen": a, "rejected": f"No. {n}"}) for n, (q, a) in enumerate(rows)]
    (tmp_path / "dpo.jsonl").write_text("\n".join(lines))
    (tmp_path / "outputs.jsonl").write_text('{"output": "#### 7"}\n')
    return tmp_path


def commands() -> list[list[str]]:
    """Return the main path of each command, on what `world` has."""
    engine = ["-e", "transformers", "--data", "data"]
    short = ["--set", "gsm8k.generation.max_tokens=8"]
    safe = ["-b", "simple_safety_tests", "--set", "simple_safety_tests.generation.max_tokens=8"]
    sft = ["--set", 'sft.data=["sft.jsonl"]', "--set", "sft.sequence_length=64"]
    dpo = ["--set", 'dpo.data=["dpo.jsonl"]', "--set", "dpo.sequence_length=256"]
    dpo += ["--set", "dpo.validation_pairs=0"]
    base, tuned, safety = "runs/gsm8k/base/*", "runs/gsm8k/tuned/*", "runs/simple_safety_tests/base/*"
    return [
        ["plugins"],
        ["doctor", "--data", "data"],
        ["parse", "final-number", "outputs.jsonl"],
        ["preview", "gsm8k", "-m", "base", "--data", "data"],
        ["data", "look", "sft.jsonl", "-m", "base", "--seq-length", "64"],
        ["run", "-b", "gsm8k", *safe, "-m", "base", *engine, *short],
        ["train", "sft", "-m", "base", "-o", "tuned", *sft, "--set", "sft.epochs=2", "--set", 'sft.keep="epochs"'],
        ["train", "dpo", "-m", "tuned", "-o", "aligned", *dpo],
        ["train", "sft", "-m", "base", "-o", "adapted", *sft, "--set", "sft.lora_rank=2"],
        ["merge", "adapted/last/adapter", "-o", "merged"],
        ["loss", "sft.jsonl", "-m", "merged"],
        ["run", "-b", "gsm8k", "-m", "tuned", *engine, *short],
        ["curve", "tuned", "sft.jsonl", "-b", "gsm8k", *engine, *short],
        ["judge", safety, "--judge", "base", "--judge-engine", "transformers"],
        ["score", base, "--parser", "last-number"],
        ["show", base, "--sample", "1"],
        ["export", base, "--format", "lm-eval"],
        ["import", "theirs.jsonl", "-b", "gsm8k", "--data", "data"],
        ["runs"],
        ["init", "assignment", "work"],
        ["compare", base, tuned],
        ["plan-size", "-b", "gsm8k", "--data", "data", "--detect", "2.0"],
        ["report", base, tuned, "-o", "report.html"],
        ["chat", "-m", "base", "-e", "transformers", "--out", "chat.jsonl", "--set", "chat.max_tokens=8"],
    ]


def test_every_command_is_tried() -> None:
    assert {words[0] for words in commands()} | {"view"} == set(COMMANDS)  # view: tests/reports/test_view.py


def test_no_warning_of_a_library_reaches_the_terminal(world: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER],
        input="".join(json.dumps(words) + "\n" for words in commands()),
        cwd=world,
        env={**os.environ, "HARNESS_CACHE": str(world / "cache"), "COLUMNS": "120"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ended = re.findall(r"^MARK exit (\d+)$", done.stderr, re.M)
    # A model of random weights gives no verdict that can be read, and `harness judge` says so with 1.
    assert ended == [str(int(words[0] == "judge")) for words in commands()], done.stderr
    assert not STRAY.search(done.stderr), done.stderr
    assert not STRAY.search(re.sub(r"^MARK.*$", "", done.stdout, flags=re.M))
