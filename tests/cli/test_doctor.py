"""`harness doctor`, and that the commands one gives first load nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Command

#: Runs the command line and ends with the heavy libraries that it has loaded.
LIGHT = """
import sys
from harness.cli import main
try:
    main()
except SystemExit:
    heavy = {"torch", "transformers", "numpy", "scipy", "pyarrow", "huggingface_hub", "openai", "vllm"}
    sys.exit(str(heavy & set(sys.modules)))
"""


def test_what_there_is_and_what_is_missing_is_said(
    harness: Command, gsm8k_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB, 4 MiB, 570.1'\n", encoding="utf-8")
    tool.chmod(0o755)
    (tmp_path / "hub" / "datasets--openai--gsm8k").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    done = harness("doctor", "--data", gsm8k_data)
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "GPU 0 NVIDIA H100, 81559 MiB, 4 MiB in use, driver 570.1" in said
    assert "replay ok" in said and "gsm8k 4 examples" in said and "mmlu mmlu/test.parquet is missing: put it at" in said
    assert f"openai/gsm8k in {tmp_path / 'hub'}" in said
    assert "secret-key" not in done.out and "a server to ask" not in done.out
    found = json.loads(harness("doctor", "--json", "--no-plugin", "engines:replay").out)
    assert found["engines"]["replay"] == "disabled"
    assert found["gpus"] == ["NVIDIA H100, 81559 MiB, 4 MiB in use, driver 570.1"]
    tool.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
    assert "none that nvidia-smi shows" in harness("doctor").out
    for extra, how in found["missing"].items():
        assert f"pip install 'posttrain-harness[{extra}]'" in how


@pytest.mark.parametrize("words", [["doctor"], ["runs", "--help"], ["runs", "."], ["plugins"], ["plugins", "mmlu"]])
def test_the_commands_that_one_gives_first_load_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *words], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stderr.strip() == "set()"
