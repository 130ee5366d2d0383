"""lm-eval, run for real on a tiny model: it finds options as likely as we do, and reads the same answers from that.

Skipped where it is not installed; it runs in processes of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import harness as package
from harness.testing.tiny import make_tiny_model, word_problems

pytestmark = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed")

TASK = """\
task: NAME
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: options
doc_to_target: "{{'ABCD'.index(answer)}}"
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}]
"""

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\nI say: {% endif %}"
)

ENDS = {"bare": "", "colon": "\nAnswer:", "space": "\nAnswer: ", "lines": "\n\n", "chat": "\n"}

OPTIONS = [
    ["A", "B", "C", "D"],
    ["3", "3 apples", "3 apples and 4 pears", "none of them, as far as anyone knows"],
    ["yes", "no"],
    ["été", "日本", "x  y", "(a)"],
]


def rows(name: str, count: int = 24) -> list[dict[str, Any]]:
    """Return questions with options, some behind worked examples."""
    problems = word_problems(3 * count, seed=7)
    found = []
    for number in range(count):
        question, options = problems[number][0], OPTIONS[number % 4]
        shots = [f"{q}\nAnswer: {a}" for q, a in problems[count : count + number % 3]]
        text = "\n\n".join([*shots, question]) + ENDS[name]
        found.append({"question": text, "options": options, "answer": "ABCD"[number % len(options)]})
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, files of questions, and what lm-eval logged of them."""
    root = tmp_path_factory.mktemp("real")
    make_tiny_model(root / "tiny", steps=40, chat_template=TEMPLATE, context=2048)
    for name in ENDS:
        data = root / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows(name)), encoding="utf-8")
        task = TASK.replace("NAME", name).replace("DATA", str(data))
        if name in ("space", "lines"):  # lm-eval puts one more before an option
            task += 'target_delimiter: ""\n'
        (root / f"{name}.yaml").write_text(task)
    for out, tasks, more in (("texts", [*ENDS][:-1], []), ("chats", ["chat"], ["--apply_chat_template"])):
        words = ["--model", "hf", "--model_args", f"pretrained={root / 'tiny'},dtype=float32", "--device", "cpu"]
        words += ["--tasks", ",".join(tasks), "--include_path", str(root), "--log_samples", "--output_path", out, *more]
        subprocess.run([sys.executable, "-m", "lm_eval", *words], cwd=root, check=True, capture_output=True)
    return root


@pytest.mark.parametrize("name", ENDS)
def test_options_are_as_likely_as_by_lm_eval_and_read_alike(folder: Path, name: str) -> None:
    [log] = folder.rglob(f"samples_{name}_*.jsonl")
    logged = sorted(map(json.loads, log.read_text(encoding="utf-8").splitlines()), key=lambda each: each["doc_id"])
    parsers = ("loglikelihood", "loglikelihood_tokens", "loglikelihood_bytes")
    run = package.evaluate(
        folder / f"{name}.jsonl", folder / "tiny", engine="transformers", out=folder / "runs", progress=False,
        prompt_format="chat" if name == "chat" else "plain", parsers=parsers, prompts={"continuation": "option"},
    )  # fmt: skip
    assert isinstance(run, package.Run)
    samples = sorted(run.samples(), key=lambda each: each.index)
    assert len(samples) == len(logged) == 24
    read = 0
    for sample, their in zip(samples, logged, strict=True):
        values = [float(value) for ((value, _),) in their["resps"]]
        assert [each.logprob for each in sample.likelihoods] == pytest.approx(values, abs=1e-4)
        right = {parser: sample.scores[parser]["accuracy"] for parser in parsers}
        assert (right["loglikelihood"], right["loglikelihood_bytes"]) == (their["acc"], their["acc_bytes"])
        if all(option.isascii() for option in sample.fields["options"]):  # theirs is by characters
            assert right["loglikelihood_bytes"] == their["acc_norm"]
        by_token = [value / each.tokens for value, each in zip(values, sample.likelihoods, strict=True)]
        assert sample.answers["loglikelihood_tokens"] == "ABCD"[by_token.index(max(by_token))]
        read += len({*sample.answers.values()}) > 1
    assert read, "some are read differently by token or byte"
