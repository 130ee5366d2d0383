"""What is said about prompts on the command line, and what becomes of a model's chat template, from end to end."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command, Done

pytest.importorskip("tokenizers")  # the wheel is tested without

TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}<|assistant|>"
DATED = "{{ strftime_now('%Y-%m-%d') }} " + TURNS
THINKING = TURNS + "{% if enable_thinking is false %}<no-thoughts>{% endif %}"


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str], Path]:
    from harness.testing.tiny import make_tiny_model

    return lambda template: make_tiny_model(tmp_path / "model", chat_template=template)


@pytest.fixture
def run(harness: Command, gsm8k_data: Path, tmp_path: Path) -> Callable[..., Done]:
    def command(*words: str | Path) -> Done:
        few = ("--set", "gsm8k.generation.max_tokens=2")
        base = ["-b", "gsm8k", "-e", "transformers", "-m", tmp_path / "model", "--data", gsm8k_data, *few]
        return harness("run", *base, "-o", tmp_path / "runs", *words)

    return command


def record(tmp_path: Path) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    [path] = [each.parent for each in (tmp_path / "runs").rglob("run.json")]
    lines = (path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return path, json.loads((path / "run.json").read_text()), [json.loads(line) for line in lines]


def test_one_example_that_cannot_be_rendered_fails_alone_and_is_counted(
    run: Command, model: Callable[[str], Path], tmp_path: Path
) -> None:
    refuses = "{% if 'nails' in messages[0].content %}{{ raise_exception('no nails') }}{% endif %}" + TURNS
    model(refuses)
    done = run()
    assert done.code == 1
    _, _, samples = record(tmp_path)
    assert [sample["status"] == "engine_error" for sample in sorted(samples, key=lambda each: each["index"])] == [
        False, True, False, False,
    ]  # fmt: skip
    assert "1 × the tokenizer's chat template fails: no nails" in done.out and "(test-0001)" in done.out


def test_a_template_that_leaves_the_question_out_is_refused_at_once(
    run: Command, model: Callable[[str], Path], tmp_path: Path
) -> None:
    model("Hello.")
    for words in ((), ("--dry-run",)):
        done = run(*words)
        assert done.code == 2 and "leaves out the text of the user's message" in done.err
    assert not (tmp_path / "runs").exists()


def test_a_resumed_run_keeps_the_date_and_the_versions_of_its_samples(
    run: Command, model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model(DATED)
    assert run().code == 0
    path, found, samples = record(tmp_path)
    today = samples[0]["prompt"][:10]
    assert today == found["created"][:10] and "formerly" not in found
    begun = {**found, "created": "2001-02-03T04:05:06+00:00", "versions": {**found["versions"], "transformers": "4.0"}}
    (path / "run.json").write_text(json.dumps(begun))
    (path / "results.json").unlink()
    lines = (path / "samples.jsonl").read_text().splitlines(keepends=True)
    (path / "samples.jsonl").write_text("".join(lines[:3]))
    done = run()
    assert done.code == 0
    path, again, samples = record(tmp_path)
    assert [sample["prompt"][:10] for sample in samples] == [today] * 3 + ["2001-02-03"]
    assert again["formerly"] == [{"versions": begun["versions"], "samples": 3}]
    assert again["versions"] == found["versions"]
    assert f"the first 3 samples were made with transformers 4.0, now {found['versions']['transformers']}" in done.err
    page = tmp_path / "report.html"
    from harness import report

    report(path, out=page)
    assert "versions of 3 samples, before it was resumed" in page.read_text(encoding="utf-8")
    assert datetime.fromisoformat(again["created"]).year == 2001


def test_system_message_and_template_arguments_define_a_run_and_are_shown(
    harness: Command, run: Command, model: Callable[[str], Path], gsm8k_data: Path, tmp_path: Path
) -> None:
    folder = model(THINKING)
    (tmp_path / "system.txt").write_text("Be brief.\n")
    words = ("--system", tmp_path / "system.txt", "--set", "chat_template.enable_thinking=false")
    shown = harness("preview", "gsm8k", "-m", folder, "-e", "transformers", "--data", gsm8k_data, *words)
    assert "Be brief." in shown.out and '{"enable_thinking": false}' in shown.out
    assert "<|assistant|><no-thoughts>" in shown.out
    assert run(*words).code == 0
    _, found, samples = record(tmp_path)
    assert found["identity"]["prompt_format"]["options"] == {
        "system": "Be brief.", "arguments": {"enable_thinking": False},
    }  # fmt: skip
    assert all(each["prompt"].startswith("<|system|>Be brief.<|end_of_text|><|user|>") for each in samples)
    assert run().code == 0
    assert len(list((tmp_path / "runs").rglob("run.json"))) == 2


def test_prompt_files_have_system_messages(harness: Command, model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = model(TURNS)
    rows = [{"prompt": "One?", "system": "Be kind."}, {"prompt": "Two?"}]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["-m", folder, "-e", "transformers", "--set", "prompts.system=Be fair."]
    for index, told in ((0, "Be kind."), (1, "Be fair.")):
        shown = harness("preview", tmp_path / "asked.jsonl", *words, "--index", str(index))
        assert f"<|system|>{told}<|end_of_text|><|user|>" in shown.out
    (tmp_path / "asked.jsonl").write_text(json.dumps({"prompt": "One?", "system": 3}))
    assert "'system' must be text, not 3" in harness("preview", tmp_path / "asked.jsonl", *words).err


def test_a_judge_is_asked_with_what_is_said_for_it_and_why_it_failed_is_told(
    harness: Command, model: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = model(THINKING + "{% if 'lock' in messages[-1].content %}{{ raise_exception('no locks') }}{% endif %}")
    rows = [{"id": name, "prompt": f"How is a {name} picked?"} for name in ("lock", "rose")]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "outputs.jsonl").write_text("".join(json.dumps({"id": r["id"], "output": "No."}) + "\n" for r in rows))
    said = ["--set", "judge.chat_template.enable_thinking=false", "--set", "judge.system=Be fair."]
    few = ["-b", tmp_path / "asked.jsonl", "--set", "prompts.scorer=safety", "-o", tmp_path / "runs"]
    judge = ["--judge", folder, "--judge-engine", "transformers", *said]
    done = harness("run", *few, "-m", tmp_path / "outputs.jsonl", "-e", "replay", *judge)
    assert done.code == 1
    assert "1 × model: the tokenizer's chat template fails: no locks" in done.out and "(lock)" in done.out
    [path] = (tmp_path / "runs").rglob("results.json")
    [found] = json.loads(path.read_text())["judges"].values()
    assert found["prompt_format"]["options"] == {"system": "Be fair.", "arguments": {"enable_thinking": False}}
    assert (found["n"], found["failed"]["count"]) == (1, 1)


def test_a_training_is_asked_with_the_same_options(model: Callable[[str], Path]) -> None:
    from harness.models import find_model
    from harness.prompts import FormatOptions, Turns
    from harness.training.data.texts import training_format

    folder = str(model(THINKING))
    tokenizer: Any = find_model(folder).tokenizer
    options = FormatOptions(system="Be fair.", arguments={"enable_thinking": False})
    form = training_format(folder, None, tokenizer, options).format
    with pytest.raises(Exception, match="does not put the response behind the prompt"):
        form.documents([Turns("Hi", "Hello.")], tokenizer)  # a template that closes thoughts in the prompt alone
    plain = training_format(folder, None, tokenizer, FormatOptions(system="Be fair.")).format
    [document] = plain.documents([Turns("Hi", "Hello.")], tokenizer)
    assert document.text.startswith("<|system|>Be fair.<|end_of_text|><|user|>Hi")
    assert document.token_ids[: document.prompt_tokens] == plain.render("Hi", tokenizer).token_ids
    assert plain.card()["prompt_options"] == {"system": "Be fair."}


def test_options_that_do_not_fit_are_one_line(run: Command, model: Callable[[str], Path]) -> None:
    model(TURNS)
    for words, message in (
        (("--template", "bare"), "no chat template 'bare'"),
        (("--prompt-format", "plain", "--set", "chat_template.a=1"), "are for the prompt format 'chat'"),
        (("--set", "chat_template=1"), "given as chat_template.NAME=VALUE"),
        (("--set", "chat_template.messages=1"), "is not for you to give"),
    ):
        done = run(*words)
        assert done.code == 2 and message in done.err and len(done.err.splitlines()) == 1


@pytest.mark.parametrize("vllm", [True, False])
def test_a_dry_run_on_a_gpu_says_what_would_be_faster(
    run: Command, model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, vllm: bool
) -> None:
    pytest.importorskip("transformers")
    model(TURNS)
    assert "faster" not in run("--dry-run", "--set", "transformers.device=cpu").out
    monkeypatch.setattr("harness.engines.transformers._has_gpu", lambda: True)
    found = importlib.util.find_spec

    def known(name: str, package: str | None = None) -> Any:
        return (object() if vllm else None) if name == "vllm" else found(name, package)

    monkeypatch.setattr("importlib.util.find_spec", known)
    [line] = [line for line in run("--dry-run").out.splitlines() if line.startswith("faster ")]
    assert "vLLM, for the models that it runs: 89.5 examples/s on an H200 where this engine gives 10" in line
    assert line.endswith("--engine vllm" if vllm else "pip install 'posttrain-harness[vllm]'")
