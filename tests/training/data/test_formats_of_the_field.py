"""Fields that the field's formats give a meaning: each is honoured, refused, or counted in a line."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError, DataError, HarnessError, ModelError
from harness.models import find_model
from harness.prompts import find_format
from harness.testing.tiny import make_tiny_model
from harness.training.data.packing import DocumentRows, StreamRows
from harness.training.data.pairs import Sides, holds_pairs, read_pairs
from harness.training.data.texts import Text, read_texts
from harness.training.data.tokens import Tokens, cache_folder, fitting, tokenize
from tests.training.data.test_texts import written

#: Tools, thoughts and roles as templates of current models write them: thoughts apart, of the last answer alone.
TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>\n"
    "{% set text = m.content %}{% set thought = m.reasoning_content or '' %}"
    "{% if m.role == 'assistant' %}"
    "{% if '</think>' in text %}{% set thought = text.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ text | trim }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}"
    "{% else %}{{ text }}{% endif %}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
#: One that writes thoughts into a channel of their own, under a name of its own.
CHANNELS = (
    "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}{% if m.thinking %}"
    "<|channel|>analysis<|message|>{{ m.thinking }}<|end|><|start|>assistant{% endif %}<|channel|>final{% endif %}"
    "<|message|>{{ m.content }}{% if loop.last and not add_generation_prompt %}{{ eos_token }}{% else %}<|end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
#: One that begins thoughts in the prompt, and drops them from what has been said.
BEGINS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
#: One that knows users, a system message and answers alone.
SIMPLE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
END = "<|end_of_text|>"

USER, TOLD = {"role": "user", "content": "Is it wet?"}, {"role": "assistant", "content": "It rains."}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"function": {"name": "look", "arguments": '{"at": "sky"}'}}],
}
SEEN = {"role": "tool", "content": "drops"}
TOOLS = [{"type": "function", "function": {"name": "look"}}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), chat_template=SIMPLE)


def tokenizer_of(folder: Path, template: str) -> Any:
    tokenizer: Any = find_model(str(folder)).tokenizer
    tokenizer.chat_template = template
    return tokenizer


def encoded(path: Path, tokenizer: Any, **options: Any) -> Tokens:
    form = find_format("chat")
    return tokenize(read_texts([path], fits=fitting(form, tokenizer), **options), form, tokenizer)


def learned(path: Path, tokenizer: Any, **options: Any) -> tuple[str, str]:
    """Return what is read and what is learned of the first text of a file."""
    tokens = encoded(path, tokenizer, **options)
    ids, mask = tokens.document(0), tokens.learned(0, int(tokens.offsets[1]))
    return tokenizer.decode(ids[~mask]), tokenizer.decode(ids[mask])


def one(path: Path, row: Any, **options: Any) -> Text:
    [text] = read_texts([written(path, [row])], **options)
    return text


# What is honoured


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [{"role": "developer", "content": "Be dry."}, USER, TOLD]}, ("Be dry.", 0)),
        ({"messages": [USER, TOLD], "system": "Be dry."}, ("Be dry.", 0)),
        ({"conversations": [{"from": "user", "value": "Is it wet?"}, {"from": "chatgpt", "value": "It rains."}],
          "system": "Be dry.", "tools": "[]"}, ("Be dry.", 0)),
        ({"instruction": "Is it wet?", "input": "", "output": "It rains.", "system": "Be dry.",
          "history": [["Hi", "Hello"]]}, ("Be dry.", 2)),
        ({"messages": json.dumps([USER, TOLD])}, (None, 0)),
        ({"messages": {"role": ["user", "assistant"], "content": ["Is it wet?", "It rains."], "name": None}},
         (None, 0)),
        ({"messages": [{**USER, "content": [{"type": "text", "text": "Is it "}, {"type": "text", "text": "wet?"}]},
                       TOLD]}, (None, 0)),
        ({"prompt": [USER], "completion": [TOLD]}, (None, 0)),
        ({"prompt": [USER], "completion": TOLD}, (None, 0)),
        ({"prompt": "Is it wet?", "response": "It rains.", "system": None, "history": []}, (None, 0)),
        ({"messages": [USER, TOLD, USER, {**TOLD, "content": "Wrong.", "weight": 0}]}, (None, 0)),
        ({"messages": [USER, TOLD, USER, {**TOLD, "content": "Wrong.", "train": False}]}, (None, 0)),
        ({"messages": [USER, TOLD, USER, {**TOLD, "content": "Wrong.", "loss": False}]}, (None, 0)),
        ({"messages": [USER, TOLD, USER, {**TOLD, "content": "Wrong.", "trainable": False}]}, (None, 0)),
        ({"messages": [{"role": "system", "content": None}, USER, TOLD]}, (None, 0)),
        ({"messages": [{"role": "System", "content": "Be dry."}, {"role": "User", "content": "Is it wet?"},
                       {"role": "Chatbot", "content": "It rains."}]}, ("Be dry.", 0)),
        ({"conversation": [{"role": "prompter", "content": "Is it wet?"}, {"role": "ai", "content": "It rains."}]},
         (None, 0)),
        ({"instruction": "Is it wet?", "context": "", "response": "It rains.", "category": "open_qa"}, (None, 0)),
        ({"instruction": "Is it wet?", "response": "It rains."}, (None, 0)),
    ],
)  # fmt: skip
def test_what_a_row_says_is_in_its_text(tmp_path: Path, row: Any, expected: tuple[str | None, int]) -> None:
    text = one(tmp_path / "a.jsonl", row)
    assert (text.prompt, text.response) == ("Is it wet?", "It rains.")
    assert (text.system, len(text.history)) == expected


def test_a_response_that_is_not_to_be_learned_is_not(tmp_path: Path, folder: Path) -> None:
    wrong = {**TOLD, "content": "Wrong.", "weight": 0}
    path = written(tmp_path / "a.jsonl", [{"messages": [USER, wrong, USER, TOLD]}])
    for learn in ("last", "all"):
        read, taught = learned(path, tokenizer_of(folder, SIMPLE), learn=learn)
        assert ("Wrong." in read, taught) == (True, f"It rains.{END}")
    [reading] = read_texts([path]).readings
    assert reading.unused == {"responses of weight 0 or train false": 1}


def test_tools_their_calls_and_results_are_rendered_by_the_template(tmp_path: Path, folder: Path) -> None:
    row = {"messages": [USER, CALL, SEEN, TOLD], "tools": TOOLS}
    tokenizer = tokenizer_of(folder, TEMPLATE)
    read, taught = learned(written(tmp_path / "a.jsonl", [row]), tokenizer)
    assert f"<tools>{json.dumps(TOOLS)}</tools>" in read
    assert '<call>{"name": "look", "arguments": {"at": "sky"}}</call>' in read and f"<|tool|>\ndrops{END}" in read
    assert taught == f"<think>\n\n</think>\n\nIt rains.{END}"
    row = {"messages": [USER, CALL], "tools": TOOLS}
    _, taught = learned(written(tmp_path / "a.jsonl", [row]), tokenizer)
    assert taught.endswith(f'<call>{{"name": "look", "arguments": {{"at": "sky"}}}}</call>{END}')
    older = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": '{"at": "sky"}'}}
    row = {"messages": [USER, older, {"role": "function", "name": "look", "content": "drops"}, TOLD]}
    path = written(tmp_path / "a.jsonl", [{**row, "functions": [{"name": "look"}]}])
    read, _ = learned(path, tokenizer)
    assert f"<tools>{json.dumps(TOOLS)}</tools>" in read
    assert '<call>{"name": "look", "arguments": {"at": "sky"}}</call>' in read and f"<|tool|>\ndrops{END}" in read
    shared = [{"from": "human", "value": "Is it wet?"},
              {"from": "function_call", "value": json.dumps({"name": "look"})},
              {"from": "observation", "value": "drops"}, {"from": "gpt", "value": "It rains."}]  # fmt: skip
    read, _ = learned(written(tmp_path / "a.jsonl", [{"conversations": shared, "tools": json.dumps(TOOLS)}]), tokenizer)
    assert '<call>{"name": "look", "arguments": {}}</call>' in read


@pytest.mark.parametrize(
    "answer",
    [
        {"role": "assistant", "content": "It rains.", "reasoning_content": "look up"},
        {"role": "assistant", "content": "<think>\nlook up\n</think>\n\nIt rains."},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "look up"},
                                          {"type": "text", "text": "It rains."}]},
    ],
)  # fmt: skip
def test_a_thought_is_learned_as_the_template_writes_it_and_once(tmp_path: Path, folder: Path, answer: Any) -> None:
    path = written(tmp_path / "a.jsonl", [{"messages": [USER, answer]}])
    _, taught = learned(path, tokenizer_of(folder, TEMPLATE))
    assert taught == f"<think>\nlook up\n</think>\n\nIt rains.{END}"
    read, taught = learned(path, tokenizer_of(folder, BEGINS))
    assert read.endswith("<think>\n")
    assert taught == f"look up\n</think>\n\nIt rains.{END}"
    _, taught = learned(path, tokenizer_of(folder, CHANNELS))
    assert taught == (
        "<|channel|>analysis<|message|>look up<|end|><|start|>assistant<|channel|>final<|message|>It rains." + END
    )
    if "<think>" not in answer["content"]:
        with pytest.raises(DataError, match="a.jsonl:1: the chat template has no place for the response's thoughts"):
            encoded(path, tokenizer_of(folder, SIMPLE))


@pytest.mark.parametrize("block", ["<think>\n\n</think>\n\n", "<think></think>", "\n<think>\n</think>\n"])
def test_an_empty_block_of_thoughts_is_the_templates(tmp_path: Path, folder: Path, block: str) -> None:
    """Where it writes one; else it is text as any other."""
    path = written(tmp_path / "a.jsonl", [{"messages": [USER, {**TOLD, "content": f"{block}It rains."}]}])
    assert learned(path, tokenizer_of(folder, TEMPLATE))[1] == f"<think>\n\n</think>\n\nIt rains.{END}"
    assert learned(path, tokenizer_of(folder, SIMPLE))[1] == f"{block.lstrip()}It rains.{END}"


def test_a_row_that_a_template_takes_otherwise_is_named(tmp_path: Path, folder: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"messages": [USER, {**TOLD, "content": "look up</think>It rains."}]}])
    with pytest.raises(DataError, match="a.jsonl:1: the chat template"):
        encoded(path, tokenizer_of(folder, TEMPLATE))


def test_a_template_that_trims_trims_what_is_learned(tmp_path: Path, folder: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"messages": [USER, {**TOLD, "content": " It rains.\n"}]}])
    assert learned(path, tokenizer_of(folder, SIMPLE))[1] == f"It rains.{END}"


@pytest.mark.parametrize("template", [SIMPLE, TEMPLATE])
def test_all_responses_can_be_learned(tmp_path: Path, folder: Path, template: str) -> None:
    first = {"role": "assistant", "content": "Who asks?"}
    path = written(tmp_path / "a.jsonl", [{"messages": [USER, first, USER, TOLD]}] * 3)
    tokenizer = tokenizer_of(folder, template)
    read, taught = learned(path, tokenizer, learn="all")
    thoughts = "<think>\n\n</think>\n\n" if template is TEMPLATE else ""
    assert taught == f"Who asks?{END}{thoughts}It rains.{END}"
    assert read.count("Is it wet?") == 2
    tokens = encoded(path, tokenizer, learn="all")
    expected = sum(map(int, tokens.learned(0, len(tokens.ids))))
    again = tokenize(read_texts([path], learn="all"), find_format("chat"), tokenizer, cache=cache_folder())
    assert again.digest == tokens.digest
    for width in (7, 16, 512):
        for rows in (DocumentRows(tokens, width, loss="responses"), StreamRows(tokens, width, loss="responses")):
            labels = [rows.batch([row]).labels for row in range(len(rows))]
            assert [int((one != -100).sum()) for one in labels] == rows.weights.tolist()
            if isinstance(rows, DocumentRows):
                assert rows.report.labels == expected
                ids = Counter(int(label) for one in labels for label in one.flatten() if label != -100)
                assert ids == Counter(tokens.ids[tokens.learned(0, len(tokens.ids))].tolist())


# What is refused, or counted


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "completion": "b", "label": True}, "'label' tells wanted responses from unwanted ones (KTO)"),
        ({"messages": [USER, TOLD], "images": ["a.png"]}, "'images' holds what is no text"),
        ({"messages": [USER, {**TOLD, "weight": 0.5}]}, "the weight of message 2 of 'messages' is 0.5"),
        ({"messages": [USER, {**TOLD, "weight": 0}]}, "'messages' has no response that is to be learned"),
        ({"messages": [USER, {**TOLD, "content": None, "tool_calls": [{"id": "1"}]}]},
         "message 2 of 'messages' calls a tool without the name of a function"),
        ({"messages": [{"role": "system", "content": "A"}, USER, TOLD], "system": "B"}, "two system messages"),
        ({"instruction": "a", "output": "b", "history": ["c"]}, "turn 1 of 'history' is no pair"),
        ({"messages": "[{"}, "'messages' is not JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(tmp_path: Path, row: Any, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        read_texts([written(tmp_path / "a.jsonl", [row])]).check()
    assert f"a.jsonl:1: {reason}" in str(caught.value)


def test_what_the_format_has_no_place_for_is_refused_by_row(tmp_path: Path, folder: Path) -> None:
    tokenizer = tokenizer_of(folder, SIMPLE)
    for row, reason in (
        ({"messages": [USER, TOLD], "tools": TOOLS}, "the chat template does not write 'tools'"),
        ({"messages": [USER, CALL, {**SEEN, "content": "é"}, TOLD]}, "the chat template does not write 'tool_calls'"),
    ):
        with pytest.raises(DataError, match=rf"a\.jsonl:1: {reason}"):
            encoded(written(tmp_path / "a.jsonl", [row]), tokenizer)
    path, form = written(tmp_path / "a.jsonl", [row]), find_format("alpaca_sft")
    with pytest.raises(DataError, match="has a single turn"):
        tokenize(read_texts([path], fits=fitting(form, tokenizer)), form, tokenizer)


def test_bad_rows_can_be_left_out_and_are_counted(tmp_path: Path, folder: Path) -> None:
    rows = [{"messages": [USER, TOLD], "id": 1}, {"messages": [USER]}, {"messages": []}, {"messages": [USER]}]
    path = written(tmp_path / "a.jsonl", [*rows, {"messages": [USER, {**TOLD, "content": f"Yes.{END}"}]}, rows[0]])
    tokenizer = tokenizer_of(folder, SIMPLE)
    for _ in range(2):  # encoded, and from the cache
        form = find_format("chat")
        texts = read_texts([path], on_bad_rows="skip", fits=fitting(form, tokenizer))
        tokens = tokenize(texts, form, tokenizer, cache=cache_folder())
        assert len(tokens) == 2
        first, unused, *left = tokens.readings[0].lines(str(path))
        assert (first, unused) == (f"{path}: 2 texts from messages", "not used: 'id' (2 rows)")
        assert left[0] == f"left out, 2 rows: 'messages' does not end in a response (first: {path}:2)"
        assert f"left out, 1 rows: 'messages' is not a list of messages (first: {path}:3)" in left
        assert any("response ends with" in line and line.endswith(":5)") for line in left)
    assert [texts.place(number)[-2:] for number in range(2)] == [":1", ":6"]
    with pytest.raises(DataError, match="not one row can be used; left out, 1 rows"):
        read_texts([written(path, [{"messages": []}])], on_bad_rows="skip").check()


# Pairs


def said(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[number % 2], "content": turn} for number, turn in enumerate(turns)]


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "c", "input": "", "chosen": "d", "rejected": "e", "history": [["a", "b"]], "system": "s"},
        {"prompt": "a", "chosen": said("a", "b", "c", "d"), "rejected": said("a", "b", "c", "e"), "system": "s"},
        {"conversations": said("a", "b", "c"), "chosen": said("x", "d")[1], "rejected": said("x", "e")[1],
         "system": "s"},
        {"system": "s", "question": "c", "chosen": "d", "rejected": "e", "history": [["a", "b"]]},
    ],
)  # fmt: skip
def test_pairs_have_a_system_message_and_earlier_turns(tmp_path: Path, folder: Path, row: Any) -> None:
    path = written(tmp_path / "a.jsonl", [row])
    assert holds_pairs([path])
    pairs = read_pairs([path], several=True)
    [pair] = pairs
    assert (pair.system, pair.prompt, pair.chosen, pair.rejected) == ("s", "c", "d", "e")
    assert [(each.role, each.content) for each in pair.history] == [("user", "a"), ("assistant", "b")]
    tokenizer = tokenizer_of(folder, SIMPLE)
    tokens = tokenize(Sides(pairs), find_format("chat"), tokenizer)
    read = f"<|system|>s{END}<|user|>a{END}<|assistant|>b{END}<|user|>c{END}<|assistant|>"
    assert tokenizer.decode(tokens.document(1)).removeprefix("<|begin_of_text|>") == f"{read}e{END}"
    assert read_pairs([path]).left_out == {"several turns": 1}


def test_bad_rows_of_pairs_can_be_left_out(tmp_path: Path) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "score": 1}
    path = written(tmp_path / "a.jsonl", [row, {**row, "rejected": None}])
    pairs = read_pairs([path], on_bad_rows="skip")
    [(reason, count)] = pairs.left_out.items()
    assert (len(pairs), count, pairs.firsts[reason], pairs.unused) == (1, 1, f"{path}:2", {"score": 1})


@pytest.mark.parametrize("rejected", [None, "It snows."])
def test_alpacas_own_template_has_a_place_for_the_input(tmp_path: Path, folder: Path, rejected: str | None) -> None:
    """With the system message before the instruction; of a row without an input the template is another."""
    row = {"instruction": "Is it wet?", "input": "Look up.", "output": "It rains.", "system": "Be dry."}
    rows = [row, {**row, "input": "", "system": ""}]
    if rejected is not None:
        rows = [{**row, "chosen": row.pop("output"), "rejected": rejected} for row in rows]
    path, form, tokenizer = written(tmp_path / "a.jsonl", rows), find_format("alpaca"), tokenizer_of(folder, SIMPLE)
    texts = read_texts([path]) if rejected is None else Sides(read_pairs([path]))
    tokens = tokenize(texts, form, tokenizer)
    first, *_, last = (tokenizer.decode(tokens.document(number)[1:]) for number in range(len(tokens)))
    assert first == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nBe dry.\n\nIs it wet?\n\n### Input:\n"
        f"Look up.\n\n### Response:\nIt rains.{END}"
    )
    plain = find_format("alpaca_sft").document("Is it wet?", rejected or "It rains.", tokenizer)
    assert last == tokenizer.decode(plain.token_ids[1:])
    assert form.render("Is it wet?", tokenizer).text == find_format("alpaca_sft").render("Is it wet?").text
    mine = tmp_path / "mine.prompt"
    for wrong in ("{instruction}\n=== without {input}\n{instruction}", "{input}{instruction}\n=== without {input}\nx"):
        mine.write_text(wrong)
        with pytest.raises(ConfigError):
            find_format(str(mine))


# The files that were collected

_CASES = Path(os.environ.get("HARNESS_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data")).parent / "cases"
_FILES = sorted((_CASES / "training").glob("*")) if (_CASES / "training").is_dir() else []

#: What is refused whatever the format, by the words that say why; all others are honoured.
_REFUSED = {
    "d_kto": "KTO", "d_null": "no 'rejected'", "d_responses": "name the columns", "d_same": "chosen equal to rejected",
    "data_key": "not a JSON array", "empty_output": "the response is empty",
    "ends_user": "does not end in a response", "nested": "not an object", "null_output": "no 'output'",
    "num_output": "not text but 3", "oasst_qa": "name the columns", "openai_null_content": "without the name",
    "sharegpt_gpt_first": "where one by 'user' belongs", "text_only": "name the columns",
    "user_user": "where one by 'assistant' belongs",
}  # fmt: skip


@pytest.mark.skipif(not _FILES, reason="no collected files")
@pytest.mark.parametrize("path", _FILES, ids=[path.stem for path in _FILES])
def test_the_collected_files_are_honoured_or_one_line(path: Path, folder: Path) -> None:
    tokenizer = tokenizer_of(folder, TEMPLATE)
    form = find_format("chat")

    def everything() -> str:
        texts: Any = (
            Sides(read_pairs([path], several=True))
            if holds_pairs([path])
            else read_texts([path], fits=fitting(form, tokenizer))
        )
        texts.check()
        return str(tokenizer.decode(tokenize(texts, form, tokenizer).ids))

    if path.stem in _REFUSED:
        with pytest.raises(HarnessError) as caught:
            everything()
        assert isinstance(caught.value, DataError | ConfigError | ModelError)
        assert "\n" not in str(caught.value) and _REFUSED[path.stem] in str(caught.value)
        return
    seen, raw = everything(), path.read_text(encoding="utf-8")
    for said_once in (
        "Answer like a pirate.",
        "Be nice.",
        "Be brief.",
        "count: 3",
        "get_weather",
        "sunny",
        "Ada has 3 apples.",
    ):
        assert (said_once in raw) == (said_once in seen), said_once
    assert "WRONG ANSWER" not in seen
