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
from harness.parsers.reasoning import closing_of, open_thought, without_reasoning
from harness.runs.folder import Run
from harness.testing.fakes import FakeEngine
from harness.testing.tiny import make_tiny_model, word_problems
from harness.types import Completion, Generation, Prompt, Request
from tests.conftest import Command
from tests.engines.asking import scripted
from tests.prompts.shapes import make

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def shape_to(folder: Path, size: int, end: int) -> None:
    """Give a model as many embeddings as its tokenizer has tokens, and its end."""
    from transformers import LlamaForCausalLM

    network: Any = LlamaForCausalLM.from_pretrained(folder)
    network.resize_token_embeddings(size, mean_resizing=False)
    network.config.eos_token_id = network.generation_config.eos_token_id = end
    network.save_pretrained(folder)


def ask(model: Any, ids: tuple[int, ...], **generation: Any) -> Completion:
    [completion] = model.generate([Request("a", Prompt("", ids), Generation(**generation))])
    assert isinstance(completion, Completion)
    return completion


def thinking(monkeypatch: pytest.MonkeyPatch, closing: list[int], thought: list[int], answer: list[int]) -> None:
    """Let a model think without end, and answer once its thought is closed."""

    def choose(made: list[int]) -> int:
        ends = [at for at in range(len(made) + 1) if made[:at][-len(closing) :] == closing]
        return answer[len(made) - ends[0]] if ends else thought[len(made) % len(thought)]

    scripted(monkeypatch, choose)


def test_an_open_thought_is_closed_after_so_many_tokens_and_the_model_goes_on(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = TransformersEngine().load(str(tiny)), find_model(str(tiny)).tokenizer
    closing, thought, answer = (
        tokenizer.encode(text, add_special_tokens=False)
        for text in ("\n</think>\n\n", "Ada has 5 pens and buys 3, Ben loses all of his, so that there are", "It is 8.")
    )
    thinking(monkeypatch, closing, thought, [*answer, tokenizer.eos_token_id])
    read = list[int]()
    decoder: Any = model._decoder  # type: ignore[attr-defined]
    forward = decoder._forward

    def followed(ids: Any, *rest: Any) -> Any:
        read.extend(ids[0].tolist())
        return forward(ids, *rest)

    monkeypatch.setattr(decoder, "_forward", followed)
    prompt = (*tokenizer.encode("How many?\nAnswer: <think>\n"),)
    free = ask(model, prompt, max_tokens=len(thought))
    assert (free.text, free.finish_reason) == (tokenizer.decode(thought), "length")
    assert free.thought_tokens == free.completion_tokens == len(thought)
    read.clear()
    cut = ask(model, prompt, max_tokens=80, thinking_tokens=9)
    assert (cut.text, cut.finish_reason) == (f"{tokenizer.decode(thought[:9])}\n</think>\n\nIt is 8.", "stop")
    assert cut.thought_tokens == 9 + len(tokenizer.encode("\n</think>", add_special_tokens=False))
    assert read == [*prompt, *thought[:9], *closing, *answer], "the model has read what was put into its mouth"
    plain = (*tokenizer.encode("How many?\nAnswer:"),)
    asked = ask(model, plain, max_tokens=12, thinking_tokens=9)
    assert asked.text == tokenizer.decode(thought[:12]) and not asked.thought_tokens


def test_what_closes_a_thought_is_no_stop_string_and_no_end(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = find_model(str(tiny)).tokenizer
    closing, thought, answer = (
        tokenizer.encode(text, add_special_tokens=False)
        for text in ("\n</think>\n\n", "Ada has 5 pens and buys 3, Ben loses all of his", "It is 8.\n\nQ: 4")
    )
    model = TransformersEngine().load(str(tiny))
    thinking(monkeypatch, closing, thought, [*answer, tokenizer.eos_token_id])
    prompt = (*tokenizer.encode("How many?\nAnswer: <think>\n"),)
    for stop in (("\n\n",), ("\n\nQ", "\n"), (">", "\n\n")):
        cut = ask(model, prompt, max_tokens=80, thinking_tokens=9, stop=stop)
        assert (cut.text, cut.finish_reason) == (f"{tokenizer.decode(thought[:9])}\n</think>\n\nIt is 8.", "stop")
    decoder: Any = model._decoder  # type: ignore[attr-defined]
    monkeypatch.setattr(decoder, "_stop_ids", frozenset([closing[-1], tokenizer.eos_token_id]))
    cut = ask(model, prompt, max_tokens=80, thinking_tokens=9)
    assert cut.text.startswith(f"{tokenizer.decode(thought[:9])}\n</think>\n\nIt is 8.")


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
        ("<|START_THINKING|>Hm", "<|END_THINKING|>"),
        ("<unused94>thought\nHm", "<unused95>"),
        ("<|channel>thought\nHm", "<channel|>"),
        ("◁think▷Hm", "◁/think▷"),
        ("<seed:think>Hm", "</seed:think>"),
        ("<think>Hm</think>B <think>is a tag", None),
        ("B", None),
    ],
)
def test_the_border_that_closes_is_of_the_kind_that_opened(output: str, closing: str | None) -> None:
    assert open_thought(output) == closing
    assert closing is None or open_thought(f"{output}{closing}") is None


FINAL = "<|end|><|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("output", "closing"),
    [
        ("<think>Hm", "\n</think>\n\n"),
        ("<|begin_of_thought|>Hm", "\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n"),
        ("<|START_THINKING|>Hm", "\n<|END_THINKING|><|START_RESPONSE|>\n\n"),
        ("Here is my thought process:\nHm", "\n\nHere is my response:\n"),
        ("Here is my thought process:\nHm\nHere is my response:\n5", None),
        ("<|channel|>analysis<|message|>Hm", FINAL),
        ("<|channel|>analysis<|message|>Hm<|end|>", FINAL[7:]),
        ("<|channel|>analysis<|message|>Hm<|end|><|start|>", FINAL[16:]),
        ("<|channel|>analysis<|message|>Hm<|end|><|start|>assistant", FINAL[25:]),
        ("<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>", FINAL[36:]),
        ("<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final", FINAL[41:]),
        (f"<|channel|>analysis<|message|>Hm{FINAL}5", None),
        ("<|channel|>analysis", f"<|message|>{FINAL}"),
        ("<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>commentary<|message|>Hm", FINAL),
        ("<|channel|>final<|message|>5", None),
        ("<|channel|>final <|constrain|>json<|message|>5", None),
        ("5", None),
    ],
)
def test_the_answer_is_asked_for_in_the_terms_of_the_envelope(output: str, closing: str | None) -> None:
    """Whatever it is, the answer behind it is the response."""
    before = "<|start|>assistant" if "<|channel|>" in output else ""
    assert closing_of(output, before) == closing
    if closing is not None:
        assert without_reasoning(f"{output}{closing}12").strip() == "12"
        assert closing_of(f"{output}{closing}12", before) is None


def test_an_earlier_turn_is_no_thought_of_this_one() -> None:
    past = "<|start|>assistant<|channel|>analysis<|message|>Hm<|end|><|start|>user<|message|>q<|end|><|start|>assistant"
    assert closing_of("5", past) is None and closing_of("<|channel|>analysis<|message|>Hm", past) == FINAL
    assert closing_of("Hm", f"{past}<|channel|>analysis<|message|>") == FINAL


def make_harmony(folder: Path) -> Path:
    """Write a random model whose tokenizer has harmony's tokens."""
    make_tiny_model(folder)
    tokenizer = make("gpt-oss")
    tokenizer.save_pretrained(folder)
    shape_to(folder, len(tokenizer), tokenizer.eos_token_id)
    return folder


def test_harmonys_analysis_is_cut_and_its_final_channel_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(make_harmony(tmp_path / "model"))
    model, tokenizer = TransformersEngine().load(folder), find_model(folder).tokenizer
    asked = "<|start|>user<|message|>2 + 3?<|end|><|start|>assistant<|channel|>analysis<|message|>"
    prompt = (*tokenizer.encode(asked),)
    closing, thought, answer = (
        tokenizer.encode(text, add_special_tokens=False) for text in (FINAL, "Answer with one word, please", "five")
    )
    thinking(monkeypatch, closing, thought, [*answer, tokenizer.eos_token_id])
    cut = ask(model, prompt, max_tokens=60, thinking_tokens=4)
    assert cut.text == f"{tokenizer.decode(thought[:4])}{FINAL}five" and cut.finish_reason == "stop"
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert cut.thought_tokens == 5 and closing[0] == end
    assert without_reasoning("<|channel|>analysis<|message|>" + cut.text) == "five"
    thoughts = Thoughts(tokenizer, Detokenizer(tokenizer))
    said = tokenizer.encode(f"<|channel|>analysis<|message|>Hm.{FINAL}5", add_special_tokens=False)
    assert thoughts.count(prompt[:-3], said) == said.index(end) + 1


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
