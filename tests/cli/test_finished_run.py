"""A finished run given again answers from its folder; what cannot be asked is refused before there is a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Command

#: Runs the command line and ends with an error where a heavy library has been imported.
WATCHED = """
import sys
from harness.cli import main
try:
    main()
except SystemExit as end:
    loaded = {"torch", "transformers"} & set(sys.modules)
    sys.exit(f"imported {sorted(loaded)}" if loaded else end.code)
"""


@pytest.fixture
def words(tiny_model: Path, gsm8k_data: Path, tmp_path: Path) -> list[str]:
    """What runs GSM8K on a tiny model, with few tokens."""
    words = [
        "run",
        "-b",
        "gsm8k",
        "-m",
        tiny_model,
        "-e",
        "transformers",
        "--data",
        gsm8k_data,
        "-o",
        tmp_path / "runs",
    ]
    return [*map(str, words), "--set", "gsm8k.generation.max_tokens=3", "--set", "transformers.device=cpu"]


@pytest.mark.parametrize("prompt_format", ["chat", "plain"])
def test_a_finished_run_is_answered_without_torch_and_transformers(
    harness: Command, words: list[str], tmp_path: Path, prompt_format: str
) -> None:
    model = Path(shutil.copytree(words[4], tmp_path / "model"))
    (model / "chat_template.jinja").write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    words = [*words[:4], str(model), *words[5:], "--prompt-format", prompt_format]
    first = harness(*words)
    assert first.code == 0, first.err
    done = subprocess.run([sys.executable, "-c", WATCHED, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, first.out), done.stderr


def test_a_model_that_cannot_be_asked_leaves_no_folder(harness: Command, words: list[str], tmp_path: Path) -> None:
    broken = Path(shutil.copytree(words[4], tmp_path / "broken"))
    (broken / "tokenizer.json").write_text("{}", encoding="utf-8")
    words[4] = str(broken)
    for more in ([], ["--dry-run"]):
        done = harness(*words, *more)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "the tokenizer cannot be loaded" in done.err
    assert not os.path.exists(tmp_path / "runs")
