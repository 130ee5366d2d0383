"""The start of a training: code that was compiled once is found again, for all layers alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

#: The variable by which torch is told where to keep what it compiles.
NAMED = "TORCHINDUCTOR_CACHE_DIR"

#: Compiles layers as a training does, and tells torch's counters.
START = """
import json
import torch._dynamo  # as loading any model does, long before
from harness.training.loop import prepare_process
prepare_process()
import torch
from torch import nn
from harness.training.model.network import compile_layers

class Layer(nn.Linear):
    def forward(self, input):
        return super().forward(input).tanh()

layers = nn.ModuleList(Layer(8, 8) for _ in range(3))
compile_layers(layers)
with torch.no_grad():
    value = torch.ones(2, 8)
    for layer in layers:
        value = layer(value)
from torch._dynamo.utils import counters
print(json.dumps({kind: dict(found) for kind, found in counters.items()}))
"""


def test_what_was_compiled_once_is_compiled_no_more(tmp_path: Path) -> None:
    own, cache = ("TORCHINDUCTOR", "TRITON"), tmp_path / "cache"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environment |= {"HARNESS_CACHE": str(cache), "TMPDIR": str(tmp_path)}
    found = []
    for _ in range(2):
        words = [sys.executable, "-c", START]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(json.loads(done.stdout.splitlines()[-1]))
    assert [each["stats"]["unique_graphs"] for each in found] == [1, 1]
    assert found[0]["inductor"]["fxgraph_cache_miss"] == 1
    assert "fxgraph_cache_miss" not in found[1]["inductor"] and found[1]["inductor"]["fxgraph_cache_hit"] == 1
    folder = cache / "compiled" / f"torch-{torch.__version__}"
    assert list((cache / "compiled").iterdir()) == [folder] and (folder / "fxgraph").is_dir()


@pytest.mark.parametrize("compiler", [True, False])
def test_code_is_kept_where_the_user_says(tmp_path: Path, compiler: bool) -> None:
    """Whether torch's compiler, which names a folder where none is named, was imported before or not."""
    words = "import os; from harness.training.loop import prepare_process; prepare_process()"
    words = f"{'import torch._dynamo; ' * compiler}{words}; print(os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    found = {}
    for own in (None, "mine"):
        given = {"HARNESS_CACHE": str(tmp_path / "cache"), **({} if own is None else {NAMED: str(tmp_path / own)})}
        environment = {name: value for name, value in os.environ.items() if name != NAMED} | given
        done = subprocess.run([sys.executable, "-c", words], env=environment, capture_output=True, text=True)
        found[own] = done.stdout.strip()
    kept = tmp_path / "cache" / "compiled" / f"torch-{torch.__version__}"
    assert found == {None: str(kept), "mine": str(tmp_path / "mine")}
