"""`harness plugins`: options that would do nothing are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command


def test_a_new_plugin_is_no_json(harness: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = harness("plugins", "--new", "sums", "--kind", "parser", "--json")
    assert (done.code, done.out) == (2, "")
    assert done.err == "harness: --json goes with the list or with --check, not with --new\n"
    assert list(tmp_path.iterdir()) == []


def test_the_options_of_a_plugin_are_shown_with_types_defaults_and_docs(harness: Command) -> None:
    said = harness("plugins", "mmlu").out
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert "mmlu.shots int 0" in lines and 'mmlu.split test | validation | dev "test"' in lines
    assert "mmlu.generation.max_tokens int 2048" in lines and "mmlu.generation.seed int | none –" in lines
    assert "`shots` is the number of worked examples" in said and "`temperature` 0 is" in said
    assert "passes over the data" in harness("plugins", "sft").out  # of the options that all trainers share
    assert "it takes no options" in harness("plugins", "parsers:choice").out
    [told] = json.loads(harness("plugins", "vllm", "--json").out)
    assert {"name": "engine_args", "type": "table", "default": {}} in told["options"]
    for words, message in (
        (["winrat"], "no plugin 'winrat'; did you mean 'winrate'?"),
        (["trivia"], "no plugin 'trivia'; known: alpaca-eval, alpaca_eval, answered, choice, choices, dpo, "),
        (["mmlu", "--check", "gsm8k"], "'mmlu' is shown alone"),
        (["mmlu", "--data", "DIR"], "--data goes with --check NAME"),
    ):
        done = harness("plugins", *words)
        assert (done.code, message in done.err) == (2, True), done.err
