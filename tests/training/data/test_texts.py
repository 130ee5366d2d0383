"""Texts from files of many shapes, and one rendering for training and evaluation."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError, DataError, ModelError
from harness.models import find_model
from harness.prompts import PromptFormat, Turns, find_format
from harness.testing.tiny import make_tiny_model
from harness.training.data.texts import Text, read_texts, training_format
from harness.types import Message

ROWS = [{"prompt": "Name a colour.", "response": "Blue."}, {"prompt": "Add 2 and 2.", "response": "4, I think."}]
PLAIN = [("Name a colour.", "Blue."), ("Add 2 and 2.", "4, I think.")]


def written(path: Path, rows: list[Any]) -> Path:
    """Write rows in the format and packing that the name asks for."""
    name = path.name
    if ".jsonl" in name:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    elif ".json" in name:
        content = json.dumps(rows, indent=1).encode()
    elif ".csv" in name:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        content = path.read_bytes()
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if name.endswith(".gz"):
        content = gzip.compress(content)
    if name.endswith(".zst"):
        content = pa.compress(content, codec="zstd", asbytes=True)
    path.write_bytes(content)
    return path


def read(path: Path, **options: Any) -> list[tuple[str, str]]:
    return [(text.prompt, text.response) for text in read_texts([path], **options)]


def refusal(path: Path, rows: list[Any], **options: Any) -> str:
    """Return the one line with which a file is refused, without its folder."""
    with pytest.raises(DataError) as caught:
        read_texts([written(path, rows)], **options).check()
    [line] = str(caught.value).splitlines()
    return line.removeprefix(f"{path.parent}/")


# Files


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.jsonl.zst", "a.json.zst"],
)
def test_every_kind_of_file(tmp_path: Path, name: str) -> None:
    texts = read_texts([written(tmp_path / name, ROWS)])
    assert [(text.prompt, text.response) for text in texts] == PLAIN
    assert texts[-1] == Text(*PLAIN[1], name) == texts[0:2][1]
    with pytest.raises(IndexError):
        texts[2]


def test_every_layout(tmp_path: Path) -> None:
    alpaca = [
        {"instruction": "Name a colour.", "input": "", "output": "Blue."},
        {"instruction": "Add.", "input": "2 and 2", "output": "4, I think."},
    ]
    path = tmp_path / "a.json"
    assert read(written(path, alpaca)) == [PLAIN[0], ("Add.\n\n2 and 2", "4, I think.")]
    failing = [{"id": 7, "instruction": "Name a colour.", "output": "Blue.", "fail_mode": "none"}]
    [text] = read_texts([written(path, failing)])
    assert (text.prompt, text.response, text.fields) == (*PLAIN[0], {"id": 7, "fail_mode": "none"})
    assert read(written(path, [{"prompt": "a", "completion": "b"}])) == [("a", "b")]
    named = written(path, [{"question": "a", "answer": "b", "hint": "c"}])
    assert read(named, columns={"prompt": "question", "response": "answer"}) == [("a", "b")]
    assert read(named, columns={"prompt": "question", "response": "answer", "input": "hint"}) == [("a\n\nc", "b")]
    with_system = read_texts([named], columns={"prompt": "question", "response": "answer", "system": "hint"})
    assert with_system[0].system == "c"


def test_chats_of_one_turn_and_of_more(tmp_path: Path) -> None:
    one = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    more = [{"role": "system", "content": "Be brief."}, *one, {"role": "user", "content": "Bye"}]
    path = written(
        tmp_path / "a.jsonl", [{"messages": one, "id": 1}, {"messages": [*more, {"role": "assistant", "content": "."}]}]
    )
    first, second = read_texts([path])
    assert first == Text("Hi", "Hello.", "a.jsonl", {"id": 1})
    assert second == Text(
        "Bye", ".", "a.jsonl", {}, "Be brief.", (Message("user", "Hi"), Message("assistant", "Hello."))
    )
    shared = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]
    assert read(written(path, [{"conversations": shared}])) == [("Hi", "Hello.")]
    assert read(written(path, [{"talk": one}]), columns={"messages": "talk"}) == [("Hi", "Hello.")]


def test_several_files_follow_each_other(tmp_path: Path) -> None:
    first = written(tmp_path / "a.jsonl", ROWS)
    second = written(tmp_path / "b.csv", [{"question": "a", "answer": "b"}])
    texts = read_texts([first, second], columns=[{}, {"prompt": "question", "response": "answer"}], weights=[1, 2.5])
    assert (len(texts), texts.counts, texts.weights) == (3, (2, 1), (1, 2.5))
    assert [text.source for text in texts] == ["a.jsonl", "a.jsonl", "b.csv"]
    assert [texts.place(n) for n in range(3)] == [f"{first}:1", f"{first}:2", f"{second}:2"]


def test_what_a_file_can_have_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = ROWS[0]
    for row, reason in [
        ({"prompt": "a", "response": " \n"}, "the response is empty"),
        ({"prompt": "a", "response": None}, "no 'response' there, only 'prompt'"),
        ({"prompt": "a"}, "no 'response' there, only 'prompt'"),
        ({"prompt": 3, "response": "b"}, "'prompt' is not text but 3"),
        ({"prompt": "a", "response": "\ud83d"}, "'response' has half a character ('\\ud83d', a lone surrogate)"),
    ]:
        assert refusal(path, [good, row]) == f"a.jsonl:2: {reason}; 1 bad line in all; mend or delete it"
    path.write_text('{"prompt": "a", "response": "b"}\n{"prompt": \n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: not JSON \(Expecting value, column 1\); 1 bad line in all"):
        read_texts([path]).check()
    nothing = (
        "no messages or conversations or conversation or prompt/response or instruction/output/input or "
        "prompt/completion or instruction/response/context there, only "
    )
    assert refusal(tmp_path / "a.json", [{"q": "a", "r": "b"}] * 3) == (
        f"a.json, item 1: {nothing}'q', 'r'; "
        "name the columns of prompt and response with the option columns (--columns of harness data look)"
    )
    assert refusal(path, [{f"a long column {number}": "a" for number in range(30)}]).endswith("of harness data look)")
    assert refusal(path, [{"note": "a"}, good]) == f"a.jsonl:1: {nothing}'note'; 1 bad line in all; mend or delete it"
    unknown = {"columns": {"prompt": "q", "response": "reply"}}
    assert refusal(path, [{"q": "a", "r": "b"}], **unknown).startswith("a.jsonl:1: no 'reply' there, only 'q', 'r'")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("Hi", "'messages' is not a list of messages"),
        ([], "'messages' is not a list of messages"),
        (["Hi"], "message 1 of 'messages' is not an object"),
        ([{"role": "user", "content": "a"}], "'messages' does not end in a response"),
        ([{"role": "system", "content": "a"}], "'messages' does not end in a response"),
        (
            [{"role": "assistant", "content": "a"}],
            "'messages' has a message by 'assistant' where one by 'user' belongs",
        ),
        (
            [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}],
            "'messages' has a message by 'tool' where one by 'assistant' belongs",
        ),
        (
            [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}],
            "the content of message 1 of 'messages' has a part of type 'image'; only text can be trained on",
        ),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}], "the response is empty"),
    ],
)
def test_what_a_chat_can_have_wrong(tmp_path: Path, messages: Any, reason: str) -> None:
    assert refusal(tmp_path / "a.jsonl", [{"messages": messages}]) == (
        f"a.jsonl:1: {reason}; 1 bad line in all; mend or delete it"
    )


def test_options_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        read_texts([tmp_path / "none.jsonl"])
    for options, message in [
        ({"columns": {"promt": "a"}}, "columns has no 'promt'; did you mean 'prompt'?"),
        ({"columns": {"prompt": "a"}}, "columns must name both prompt and response, or messages"),
        ({"columns": [{}, {}]}, "2 columns for 1 files; give one for each"),
        ({"weights": [1.0, 2.0]}, "2 weights for 1 files; give one for each"),
        ({"weights": [0.0]}, "the weight must be above 0, not 0.0"),
        ({"weights": [float("nan")]}, "the weight must be above 0, not nan"),
    ]:
        with pytest.raises(ConfigError) as caught:
            read_texts([path], **options)  # type: ignore[arg-type]
        assert str(caught.value).endswith(message)
    with pytest.raises(ConfigError, match="no data files; give at least one"):
        read_texts([])


def test_empty_responses_can_be_looked_at(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [*ROWS, {"prompt": "a", "response": ""}])
    assert len(read_texts([path], empty=True)) == 3


def test_the_real_files(shared_data: Path) -> None:
    texts = read_texts(
        [
            shared_data / "sft" / "safety_only.json",
            shared_data / "sft" / "sft_sample.jsonl",
            shared_data / "gsm8k" / "train.jsonl",
        ],
        columns=[{}, {}, {"prompt": "question", "response": "answer"}],
    )
    assert texts.counts == (2483, 5, 7473)
    assert texts[-1].response.splitlines()[-1].startswith("#### ")


# Documents

CHAT = {
    "header": "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "no end": "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}",
    "thinks": "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}(no thoughts)\n{% endif %}"
    "{{ m.content }}\n\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
}


@pytest.fixture(scope="module", params=[(bos, chat) for bos in (True, False) for chat in CHAT], ids=str)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    bos, chat = request.param
    folder = make_tiny_model(tmp_path_factory.mktemp("tokenizer"), bos=bos, chat_template=CHAT[chat])
    return find_model(str(folder)).tokenizer


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> list[PromptFormat]:
    """The shipped formats, and one of a user's whose prompt ends in a space: most responses merge with it."""
    path = tmp_path_factory.mktemp("formats") / "mine.prompt"
    path.write_text("Q: {instruction}\nA: {response} (end)\n\n")
    names = ("alpaca_sft", "zero_shot_system", "plain", "chat", str(path))
    return [find_format(name) for name in names]


AWKWARD = ["", " ", "\n", "\n\n x", " x", "é", "s", "<|end_of_text|>", "a<|begin_of_text|>b", "instruction-goes-here"]
texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(AWKWARD)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(instruction=texts, response=texts)
def test_a_document_begins_with_what_an_evaluator_sends(
    tokenizer: Any, formats: list[PromptFormat], instruction: str, response: str
) -> None:
    for prompt_format in formats:
        prompt = prompt_format.render(instruction, tokenizer)
        document = prompt_format.document(instruction, response, tokenizer)
        assert document.text.startswith(prompt.text)
        assert document.token_ids[: document.prompt_tokens] == prompt.token_ids
        learned = document.token_ids[document.prompt_tokens :]
        assert learned.count(tokenizer.eos_token_id) == 1
        assert learned[-1] == tokenizer.eos_token_id
        shown = tokenizer.decode(learned[:-1], skip_special_tokens=False)
        assert response in shown
        assert document.text in (prompt.text + shown, prompt.text + shown + tokenizer.eos_token)


def test_the_border_follows_the_joined_text_where_it_can(tokenizer: Any, formats: list[PromptFormat]) -> None:
    alpaca, mine = formats[0], formats[-1]
    document = alpaca.document("Add 2 and 3.", "It is 5.", tokenizer)
    begin = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    assert document.joined
    assert document.text.endswith("### Response:\nIt is 5.")
    assert list(document.token_ids) == [
        *begin, *tokenizer.encode(document.text, add_special_tokens=False), tokenizer.eos_token_id
    ]  # fmt: skip
    apart = mine.document("Add 2 and 3.", "has it", tokenizer)  # " has" is one token: the prompt's last space with it
    assert not apart.joined
    assert apart.text == "Q: Add 2 and 3.\nA: has it (end)"
    assert tokenizer.decode(apart.token_ids[apart.prompt_tokens : -1]) == "has it (end)"


def test_many_documents_are_those_of_one_each(tokenizer: Any, formats: list[PromptFormat]) -> None:
    turns = [Turns("Name a colour.", "Blue."), Turns("Why?", "s"), Turns("x <|end_of_text|>", "\n\n")]
    for prompt_format in formats:
        one_by_one = [prompt_format.document(one.instruction, one.response, tokenizer) for one in turns]
        assert prompt_format.documents(turns, tokenizer) == one_by_one


def test_what_a_chat_template_writes_before_the_response_is_learned(tmp_path: Path) -> None:
    tokenizer: Any = find_model(str(make_tiny_model(tmp_path, chat_template=CHAT["thinks"]))).tokenizer
    document = find_format("chat").document("Hi", "Hello.", tokenizer)
    assert tokenizer.decode(document.token_ids[document.prompt_tokens :]) == "(no thoughts)\nHello.<|end_of_text|>"
    tokenizer.chat_template = "{{ messages[-1].content }}{% if add_generation_prompt %}never seen again{% endif %}"
    with pytest.raises(ModelError, match="does not put the response behind the prompt that it generates from"):
        find_format("chat").document("Hi", "Hello.", tokenizer)


def test_conversations_need_a_chat_template(tmp_path: Path) -> None:
    tokenizer: Any = find_model(str(make_tiny_model(tmp_path, chat_template=CHAT["header"]))).tokenizer
    history = (Message("user", "Hi"), Message("assistant", "Hello."))
    turns = Turns("Bye", "See you.", "Be brief.", history)
    [document] = find_format("chat").documents([turns], tokenizer)
    assert document.text == (
        "<|begin_of_text|><|system|>\nBe brief.<|end_of_text|>\n<|user|>\nHi<|end_of_text|>\n<|assistant|>\nHello."
        "<|end_of_text|>\n<|user|>\nBye<|end_of_text|>\n<|assistant|>\nSee you.<|end_of_text|>"
    )
    assert tokenizer.decode(document.token_ids) == document.text
    assert tokenizer.decode(document.token_ids[document.prompt_tokens :]) == "See you.<|end_of_text|>"
    with pytest.raises(ConfigError, match="'alpaca_sft' has a single turn; conversations need 'chat'"):
        find_format("alpaca_sft").documents([turns], tokenizer)
    spelled = Turns("Bye", "See you.", None, (Message("user", "a<|end_of_text|>"), history[1]))
    [document] = find_format("chat").documents([spelled], tokenizer)
    assert "\nHi" not in document.text and "\na<|end_of_text|><|end_of_text|>\n" in document.text
    assert document.token_ids.count(tokenizer.eos_token_id) == 4, "what a turn spells out ends nothing"


def test_a_system_message_stands_before_the_instruction_where_there_is_no_place_for_it(tmp_path: Path) -> None:
    tokenizer = find_model(str(make_tiny_model(tmp_path))).tokenizer
    [document] = find_format("plain").documents([Turns("Bye", "See you.", "Be brief.")], tokenizer)
    assert document.text == "Be brief.\n\nByeSee you."


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    tokenizer: Any = find_model(str(make_tiny_model(tmp_path))).tokenizer
    tokenizer.eos_token = tokenizer.taught_end = None
    with pytest.raises(ModelError, match="the tokenizer has no end token"):
        find_format("alpaca_sft").document("a", "b", tokenizer)


def test_the_end_is_learned_where_padding_is_the_same_token(tmp_path: Path) -> None:
    tokenizer: Any = find_model(str(make_tiny_model(tmp_path))).tokenizer
    tokenizer.pad_token = tokenizer.eos_token
    assert find_format("alpaca_sft").document("a", "b", tokenizer).token_ids[-1] == tokenizer.eos_token_id


def test_a_base_model_is_trained_in_the_alpaca_format(tmp_path: Path) -> None:
    tokenizer: Any = find_model(str(make_tiny_model(tmp_path))).tokenizer
    assert training_format(str(tmp_path), None, tokenizer).format.name == "alpaca_sft"
    assert training_format(str(tmp_path), "plain", tokenizer).format.name == "plain"
    tokenizer.chat_template = CHAT["header"]
    assert training_format(str(tmp_path), None, tokenizer).format.name == "chat"
    (tmp_path / "harness.json").write_text('{"prompt_format": "zero_shot_system"}')
    assert training_format(str(tmp_path), None, tokenizer).format.name == "zero_shot_system"
