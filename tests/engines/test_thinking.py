"""Thoughts are cut where they take too long, the answer is asked for, and both are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import harness as library
from harness.engines.detokenizing import Detokenizer
from harness.engines.thinking import Thoughts
from harness.engines.transformers import TransformersEngine
from harness.errors import HarnessError
from harness.models import find_model
from harness.parsers.reasoning import open_thought
from harness.runs.folder import Run
from harness.testing.fakes import FakeEngine
from harness.testing.tiny import make_tiny_model, word_problems
from harness.types import Completion, Generation, Prompt, Request
from tests.conftest import Command

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", steps=60)


def ask(model: Any, ids: tuple[int, ...], **generation: Any) -> Completion:
    [completion] = model.generate([Request("a", Prompt("", ids), Generation(**generation))])
    assert isinstance(completion, Completion)
    return completion


def test_an_open_thought_is_closed_after_so_many_tokens_and_the_model_goes_on(tiny: Path) -> None:
    model, tokenizer = TransformersEngine().load(str(tiny)), find_model(str(tiny)).tokenizer
    prompt = (*tokenizer.encode("How many?\nAnswer: <think>\n"),)
    free, cut = ask(model, prompt, max_tokens=40), ask(model, prompt, max_tokens=40, thinking_tokens=9)
    closing = tokenizer.encode("\n</think>\n\n", add_special_tokens=False)
    thought, answer = cut.text.split("\n</think>\n\n")
    assert free.text.startswith(thought) and free.thought_tokens == free.completion_tokens
    assert cut.thought_tokens == 9 + len(tokenizer.encode("\n</think>", add_special_tokens=False))
    thought_ids = tokenizer.encode(f"How many?\nAnswer: <think>\n{thought}\n</think>\n\n")
    assert len(thought_ids) == len(prompt) + 9 + len(closing)
    assert ask(model, tuple(thought_ids), max_tokens=40 - 9 - len(closing)).text == answer
    plain = (*tokenizer.encode("How many?\nAnswer:"),)
    asked = ask(model, plain, max_tokens=40, thinking_tokens=9)
    assert asked.text == ask(model, plain, max_tokens=40).text and not asked.thought_tokens


def test_thoughts_are_counted_with_their_borders(tiny: Path) -> None:
    tokenizer = find_model(str(tiny)).tokenizer
    thoughts = Thoughts(tokenizer, Detokenizer(tokenizer))
    for question, answer in word_problems(5):
        ids = tokenizer.encode(f"<think>{question}</think>", add_special_tokens=False)
        behind = tokenizer.encode(f"\n{answer}", add_special_tokens=False)
        assert thoughts.count([], [*ids, *behind]) == len(ids)
        assert thoughts.count([], ids[:9]) == 9 and thoughts.count([], behind) == 0
        assert thoughts.closing([], behind) == [] != thoughts.closing([], ids[:9])


@pytest.mark.parametrize(
    ("output", "closing"),
    [
        ("<think>Hm", "</think>"),
        ("<Thinking a='b'>Hm", "</thinking>"),
        ("[THINK]Hm", "[/THINK]"),
        ("<|begin_of_thought|>Hm", "<|end_of_thought|>"),
        ("<|think_start|>Hm", "<|think_end|>"),
        ("<seed:think>Hm", "</seed:think>"),
        ("<think>Hm</think>B <think>is a tag", None),
        ("B", None),
    ],
)
def test_the_border_that_closes_is_of_the_kind_that_opened(output: str, closing: str | None) -> None:
    assert open_thought(output) == closing
    assert closing is None or open_thought(f"{output}{closing}") is None


def test_outputs_that_were_cut_off_while_thinking_are_a_figure_of_their_own(tmp_path: Path, harness: Command) -> None:
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(f'{{"question": "{n} + {n}?", "answer": {2 * n}}}\n' for n in range(6)))

    def answer(request: Request) -> Completion:
        number = request.index
        if number < 2:
            return Completion(request.id, "<think>Well, 0", "length", completion_tokens=9, thought_tokens=9)
        if number == 2:
            return Completion(request.id, "It could be 4", "length", completion_tokens=9, thought_tokens=9)
        text = f"<think>Hm.</think>{2 * number}"
        return Completion(request.id, text, "stop", completion_tokens=9, thought_tokens=7)

    settings: dict[str, Any] = {"prompts": {"parser": "final-number"}, "prompt_format": "plain", "progress": False}
    run = library.evaluate(file, "m", engine=FakeEngine(answer), out=tmp_path / "runs", **settings)
    assert isinstance(run, Run) and run.results.cut_thinking is not None and run.results.thoughts is None
    assert run.results.cut_thinking.ids == ["sums-0000", "sums-0001", "sums-0002"]
    figures = run.results.metrics["final-number"]
    assert figures["accuracy_finished"].value == 1 and figures["accuracy_finished"].n == 3
    assert figures["accuracy"].n == 6 and run.results.tokens["thought"] == 48
    limited = {"prompts": {"parser": "final-number", "generation": {"thinking_tokens": 3}}}
    with pytest.raises(HarnessError, match="thinking_tokens 3: the engine 'fake' does not cut thoughts"):
        library.evaluate(file, "m", engine=FakeEngine(answer), out=tmp_path / "runs", **{**settings, **limited})
    words = ["run", "-b", file, "-m", "m", "--set", "prompts.generation.thinking_tokens=2000"]
    done = harness(*words)
    assert done.code == 2 and "thinking_tokens must be at least 1 and below max_tokens (1024), not 2000" in done.err
