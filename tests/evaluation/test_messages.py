"""Benchmarks that ask in messages, and worked examples as text and as turns, in the order of their file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import harness as library
from harness.calls import messages_of
from harness.datasets import DataSource
from harness.interfaces import BaseBenchmark
from harness.models import find_model
from harness.prompts import find_format
from harness.runs.folder import Run
from harness.testing.conformance import Subject
from harness.testing.fakes import FakeEngine
from harness.testing.tiny import make_tiny_model
from harness.types import Choices, Example, Generation, Message, Request
from harness_gsm8k import GSM8K
from harness_mmlu import MMLU
from tests.conftest import QUESTIONS, Command
from tests.plugins.benchmarks.test_mmlu import ROWS, WORKED, write_csv
from tests.testing.keeping import skipped

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")  # the wheel is tested without
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", chat_template=TEMPLATE)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Asking(FakeEngine):
    """Keeps what it is asked."""

    applies_chat_template = True

    def __init__(self) -> None:
        super().__init__(self.told)
        self.asked: list[Request] = []

    def told(self, request: Request) -> str:
        self.asked.append(request)
        return "It is 7."


def test_a_row_of_messages_is_a_conversation(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Name a number."},
        {"role": "assistant", "content": "7"},
        {"role": "user", "content": "Again?"},
    ]
    file = write(tmp_path / "talk.jsonl", {"messages": messages}, {"messages": messages[1:], "system": "Be long."})
    engine = Asking()
    run = library.evaluate(file, "m", engine=engine, out=tmp_path / "runs", system="Never.", progress=False)
    assert isinstance(run, Run)
    first, second = (request.prompt for request in engine.asked)
    assert first.messages == tuple(Message(each["role"], each["content"]) for each in messages)
    assert second.messages == (Message("system", "Be long."), *first.messages[1:])
    [sample, _] = run.samples()
    assert sample.fields["instruction"] == "Again?" and sample.fields["messages"] == messages
    assert sample.prompt == "system: Be brief.\n\nuser: Name a number.\n\nassistant: 7\n\nuser: Again?"


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([], "messages are a list"),
        ([{"role": "user"}], "message 1 has no 'role' and 'content' that are texts"),
        (
            [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
            "message 1 is of 'user', where 'assistant'",
        ),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "the last is the user's"),
        ([{"role": "system", "content": "a"}], "asks nothing"),
    ],
)
def test_other_messages_are_refused_with_the_line(
    harness: Command, outputs: Any, tmp_path: Path, messages: list[Any], fault: str
) -> None:
    file = write(tmp_path / "talk.jsonl", {"messages": [{"role": "user", "content": "Why?"}]}, {"messages": messages})
    done = harness("run", "-b", file, "-m", outputs("A", "B"), "-e", "replay", "-o", tmp_path / "runs")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "talk.jsonl, line 2" in done.err.replace(":2:", ", line 2") and fault in done.err


class Talk(BaseBenchmark):
    name, title, citation = "talk", "Talk", "none"
    parsers, scorer, generation = ("final-number",), "exact", Generation(max_tokens=3)

    def examples(self, source: Any) -> Sequence[Example]:
        return [Example("a", {"question": "Which?"}, gold="7")]

    def instruction(self, example: Example) -> Sequence[Message]:
        return [Message("user", "1?"), Message("assistant", "1"), Message("user", example.fields["question"])]


def test_a_plugin_s_messages_go_through_the_model_s_template(tiny: Path, tmp_path: Path) -> None:
    run = library.evaluate(Talk(), tiny, engine="transformers", out=tmp_path, progress=False, prompt_format="chat")
    assert isinstance(run, Run)
    [sample] = run.samples()
    assert sample.prompt == "<user>1?<assistant>1<user>Which?<a>"
    with pytest.raises(library.HarnessError, match="'plain' has a single turn; conversations need 'chat'"):
        library.evaluate(Talk(), tiny, engine="transformers", out=tmp_path, prompt_format="plain")


def test_worked_examples_are_text_or_turns_in_the_file_s_order(gsm8k_data: Path, tmp_path: Path) -> None:
    train = [{"question": f"What is {n}?", "answer": f"It is {n}.\n#### {n}"} for n in range(4)]
    write(gsm8k_data / "gsm8k" / "train.jsonl", *train)
    text, turns = GSM8K(shots=2), GSM8K(shots=2, shots_as="turns")
    [example, *_] = text.examples(DataSource(gsm8k_data))
    assert example.fields["shots"] == train[:2] and turns.examples(DataSource(gsm8k_data))[0] == example
    asked = f"{QUESTIONS[0][0]}\nAnswer:"
    shown = [("What is 0?\nAnswer:", "It is 0.\n#### 0"), ("What is 1?\nAnswer:", "It is 1.\n#### 1")]
    assert text.instruction(example) == "\n\n".join([*(" ".join(each) for each in shown), asked])
    assert turns.instruction(example) == (
        *(Message(role, said) for each in shown for role, said in zip(("user", "assistant"), each, strict=True)),
        Message("user", asked),
    )
    subject = Subject("benchmarks", "gsm8k", data=gsm8k_data, options={"shots": 2, "shots_as": "turns"})
    assert skipped(subject) == []
    write_csv(tmp_path, "test", ROWS)
    write_csv(tmp_path, "dev", WORKED)
    mmlu = MMLU(subjects=("anatomy",), shots=1, shots_as="turns")
    [first, answer, last] = messages_of(mmlu.instruction(mmlu.examples(DataSource(tmp_path))[0]))
    assert first.content.startswith("Answer the following multiple choice question about")
    assert first.content.endswith("Question: Worked question 0 on anatomy?\nA. w0\nB. x0\nC. y0\nD. z0\nAnswer:")
    assert answer == Message("assistant", "The correct answer is A.")
    assert last.content.startswith("Question: Which of these, in a person")


def test_turns_are_what_the_likelihood_of_options_is_asked_behind(tiny: Path) -> None:
    tokenizer, form = find_model(str(tiny)).tokenizer, find_format("chat")
    choices = Choices({"A": "4", "B": "5"}, lead="It is")
    history = (Message("user", "1 + 1?"), Message("assistant", "2"))
    [found, _] = form.continuations("2 + 2?", tokenizer, choices, None, history)
    assert str(tokenizer.decode(list(found.token_ids))).endswith("<user>1 + 1?<assistant>2<user>2 + 2?<a>It is 4")


def test_a_file_of_prompts_takes_its_worked_examples_from_another(
    tmp_path: Path, harness: Command, outputs: Any
) -> None:
    file = write(tmp_path / "sums.jsonl", {"question": "1 + 1 =", "answer": 2}, {"question": "2 + 2 =", "answer": 4})
    dev = write(tmp_path / "dev.jsonl", {"question": "3 + 3 =", "answer": 6}, {"question": "4 + 4 =", "answer": "8"})
    engine = Asking()
    options = {"parser": "final-number", "shots": 2, "dev": str(dev)}
    out = tmp_path / "runs"
    run = library.evaluate(file, "m", engine=engine, out=out, prompts=options, prompt_format="plain", progress=False)
    assert isinstance(run, Run)
    assert [one.prompt.text for one in engine.asked] == [f"3 + 3 = 6\n\n4 + 4 = 8\n\n{n} + {n} =" for n in (1, 2)]
    assert next(iter(run.samples())).fields["shots"] == [
        {"question": "3 + 3 =", "answer": "6"}, {"question": "4 + 4 =", "answer": "8"}
    ]  # fmt: skip
    turns = {**options, "shots_as": "turns"}
    library.evaluate(file, "m", engine=engine, out=out, prompts=turns, progress=False)
    assert [message.content for message in engine.asked[-1].prompt.messages or ()] == [
        "3 + 3 =", "6", "4 + 4 =", "8", "2 + 2 ="
    ]  # fmt: skip
    words = [
        "run",
        "-b",
        file,
        "-m",
        outputs("2", "4"),
        "-e",
        "replay",
        "--set",
        "prompts.parser=final-number",
        "--set",
    ]
    assert "--set prompts.dev=FILE" in harness(*words, "prompts.shots=1").err
    few = harness(*words, "prompts.shots=3", "--set", f"prompts.dev={dev}")
    assert few.code == 2 and "2 rows, fewer than the 3 worked examples asked for" in few.err
    write(dev, {"question": "3 + 3 ="})
    assert (
        "a worked example has its answer in 'gold'"
        in harness(*words, "prompts.shots=1", "--set", f"prompts.dev={dev}").err
    )
