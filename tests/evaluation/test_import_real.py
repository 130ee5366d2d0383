"""lm-eval and Inspect, run for real on a tiny model: their logs import, score, and compare with a run of our own.

Skipped where they are not installed; each starts a process that loads torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import harness as package
from harness.testing.tiny import make_tiny_model, word_problems

TASK = """\
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer.split('####')[-1].strip()}}"
generation_kwargs: {until: ["\\n\\n\\n"], do_sample: false, max_gen_toks: 48}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
filter_list:
  - name: last-number
    filter: [{function: regex, regex_pattern: "(-?[0-9]+)", group_select: -1}, {function: take_first}]
"""

INSPECT = """\
import json
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.scorer import match
from inspect_ai.solver import generate

rows = [json.loads(line) for line in open("DATA")]
gold = [row["answer"].split("#### ")[1] for row in rows]
samples = [Sample(input=row["question"], target=gold[n], id=f"q{n}") for n, row in enumerate(rows)]
task = Task(dataset=samples, solver=generate(), scorer=match(numeric=True), name="sums")
model = get_model("hf/local", model_path="MODEL", device="cpu", do_sample=False, config=GenerateConfig(max_tokens=48))
for form in ("eval", "json"):
    eval(task, model=model, log_dir="logs", log_format=form, display="none")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tiny``, a model that can nearly add, and ``data``, twelve word problems."""
    root = tmp_path_factory.mktemp("real")
    make_tiny_model(root / "tiny", steps=300, context=256)
    (root / "data" / "gsm8k").mkdir(parents=True)
    lines = "".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in word_problems(12))
    (root / "data" / "gsm8k" / "test.jsonl").write_text(lines)
    return root


def compared(folder: Path, log: Path) -> tuple[package.Run, package.Run]:
    """Import a log, and compare it with our own run of the same model on the same questions."""
    theirs = package.import_outputs(log, "gsm8k", data=folder / "data", out=folder / "runs", progress=False)
    assert theirs.record.imported is not None and theirs.record.imported.by_text == 12
    own = package.evaluate(
        "gsm8k", folder / "tiny", engine="transformers", prompt_format="plain", data=folder / "data",
        out=folder / "runs", progress=False, gsm8k={"generation": {"max_tokens": 48}},
    )  # fmt: skip
    assert package.score(theirs, parsers=["last-number"]).n == 12
    [found] = package.compare(own, theirs).benchmarks
    assert found.metrics[0].values
    return own, theirs


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed")
def test_lm_eval(folder: Path) -> None:
    data = folder / "data" / "gsm8k" / "test.jsonl"
    (folder / "sums.yaml").write_text(TASK.replace("DATA", str(data)))
    words = ["--model", "hf", "--model_args", f"pretrained={folder / 'tiny'},dtype=float32", "--tasks", "sums"]
    words += ["--include_path", str(folder), "--log_samples", "--output_path", "out", "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "lm_eval", *words], cwd=folder, check=True, capture_output=True)
    [log] = (folder / "out").rglob("samples_*.jsonl")
    own, theirs = compared(folder, log)
    assert [each.answers for each in own.samples()] == [each.answers for each in theirs.samples()]


@pytest.mark.skipif(find_spec("inspect_ai") is None, reason="inspect_ai is not installed")
def test_inspect(folder: Path) -> None:
    data = folder / "data" / "gsm8k" / "test.jsonl"
    program = INSPECT.replace("DATA", str(data)).replace("MODEL", str(folder / "tiny"))
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, capture_output=True)
    for log in sorted((folder / "logs").iterdir()):
        compared(folder, log)  # it writes the roles into the prompt, so that outputs need not be the same
