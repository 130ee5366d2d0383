"""Thoughts that are cut by vLLM: the same texts and counts as by the transformers engine, which cuts them itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.engines.transformers import TransformersEngine
from harness.engines.vllm import VllmEngine
from harness.models import find_model
from harness.types import Generation, Prompt, Request
from tests.engines.test_likelihood import answered
from tests.engines.test_thinking import make_harmony
from tests.vllm.conftest import OPTIONS
from tests.vllm.thinking import EMPTY, conversations


def requests(folder: Path, asked: Sequence[str]) -> list[Request]:
    tokenizer: Any = find_model(str(folder)).tokenizer
    return [
        Request(f"{number} {limit}", Prompt("", (*tokenizer.encode(text),)), Generation(64, thinking_tokens=limit))
        for number, text in enumerate(asked)
        for limit in (None, 1, 7, 30)
    ]


def said(folder: Path, asked: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return what both engines make of it, which is the same."""
    wanted = requests(folder, asked)
    model = VllmEngine(**OPTIONS).load(str(folder))
    try:
        found = answered(model, wanted)
    finally:
        model.close()
    both = [
        [(one.text, one.finish_reason, one.completion_tokens, one.thought_tokens or 0) for one in each]
        for each in (found, answered(TransformersEngine().load(str(folder)), wanted))
    ]
    assert both[0] == both[1]
    return both[0]


def test_thoughts_are_cut_as_by_transformers(thinking: Path) -> None:
    found = said(thinking, [asked for asked, _ in conversations(9) if not asked.endswith(EMPTY)])
    free, one, some, many = (found[start::4] for start in range(4))
    assert all(text.startswith("<think>") for text, *_ in found)
    assert many == free
    for cuts, limit in ((one, 1), (some, 7)):
        for (whole, *_), (text, _, _, tokens) in zip(free, cuts, strict=True):
            thought = text.partition("\n</think>\n\n")[0]
            assert whole.startswith(thought) and thought != text and tokens >= limit + 2  # with what closes it


def test_harmonys_analysis_is_cut_as_by_transformers(tmp_path: Path) -> None:
    folder = make_harmony(tmp_path / "model")
    begun = "<|start|>user<|message|>{} + 3?<|end|><|start|>assistant<|channel|>analysis<|message|>"
    found = said(folder, [begun.format(number) for number in range(4)])
    for number, (text, _, tokens, thought) in enumerate(found):
        limit = (None, 1, 7, 30)[number % 4]
        if limit is not None and tokens == 64:
            assert "<|end|><|start|>assistant<|channel|>final<|message|>" in text and thought <= limit + 1
