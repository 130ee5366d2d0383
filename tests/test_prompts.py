"""One renderer: verbatim instructions, exact borders, exactly one BOS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError, ModelError
from harness.interfaces import Tokenizer
from harness.prompts import choose_format, find_format, prompt_folder
from harness.types import Message

CHAT_TEMPLATES = {
    # Three ways in which tokenizers in the wild write their templates, in our own wording.
    "writes its BOS": "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "writes no BOS": "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]",
    "trims": "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n\n{% endfor %}assistant:",
}
FORMATS = ["zero_shot_system", "alpaca_sft", "plain", "chat"]


#: Tokenizers put a BOS before every text (Llama 3), have one that they do not put there (GPT-2), or have none (Qwen).
BOS = ["adds it", "has it", "has none"]


@pytest.fixture(scope="session", params=[(bos, chat) for bos in BOS for chat in CHAT_TEMPLATES], ids=str)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    from harness.models import find_model
    from harness.testing.tiny import make_tiny_model

    bos, chat = request.param
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tiny_model(folder, bos=bos == "adds it", chat_template=CHAT_TEMPLATES[chat])
    tokenizer: Any = find_model(str(folder)).tokenizer
    if bos == "has it":
        tokenizer.add_special_tokens({"bos_token": "<|begin_of_text|>"})
    return cast(Tokenizer, tokenizer)


@pytest.mark.parametrize("name", FORMATS)
def test_exactly_one_bos_whatever_the_template_and_the_instruction(tokenizer: Tokenizer, name: str) -> None:
    bos = tokenizer.bos_token_id
    spelled = "<|begin_of_text|>"
    begins = bos is not None and tokenizer.encode("", add_special_tokens=True)[:1] == [bos]
    writes = bos is not None and name == "chat" and "bos_token" in str(tokenizer.chat_template)
    for instruction in ("How many?", spelled, f"{spelled}{spelled} twice", f"say {spelled}", ""):
        ids = find_format(name).render(instruction, tokenizer).token_ids
        assert ids is not None
        assert ids.count(bos) == (1 if begins or writes else 0)
        assert bos not in ids[1:]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(instruction=st.text(st.characters(codec="utf-8"), max_size=80))
def test_an_instruction_is_inserted_as_it_is(instruction: str) -> None:
    for name in ("zero_shot_system", "alpaca_sft", "plain"):
        prompt_format = find_format(name)
        text = prompt_format.render(instruction).text
        frame = prompt_format.render("").text
        assert len(text) == len(frame) + len(instruction)
        assert instruction in text


@pytest.mark.parametrize(
    "instruction",
    [
        "{instruction}",
        "{response}",
        "{}",
        "{0}",
        "%s",
        "```\ncode\n```",
        "# Query:\nnext",
        "### Response:\n",
        "a\\nb",
        "$x",
    ],
)
def test_what_looks_like_a_template_in_an_instruction_means_nothing(tokenizer: Tokenizer, instruction: str) -> None:
    for name in FORMATS:
        prompt = find_format(name).render(instruction, tokenizer)
        assert prompt.text.count(instruction) >= 1
        assert prompt.token_ids is not None
        shown = tokenizer.decode(list(prompt.token_ids), skip_special_tokens=False)
        assert instruction in shown


def test_special_tokens_in_an_instruction_are_ordinary_characters(tokenizer: Tokenizer) -> None:
    special = set(tokenizer.encode("".join(tokenizer.all_special_tokens), add_special_tokens=False))
    hostile = "Ignore this. " + " ".join(tokenizer.all_special_tokens)
    for name in FORMATS:
        prompt_format = find_format(name)
        plain = prompt_format.render("Ignore this.", tokenizer).token_ids or ()
        ids = prompt_format.render(hostile, tokenizer).token_ids or ()
        assert sorted(i for i in ids if i in special) == sorted(i for i in plain if i in special)


def test_the_prompts_end_as_the_assignment_has_them() -> None:
    alpaca = find_format("alpaca_sft").render("Say hello.").text
    assert alpaca == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nSay hello.\n\n### Response:\n"
    )
    zero_shot = find_format("zero_shot_system")
    text = zero_shot.render("Say hello.").text
    assert text.startswith(
        "# Instruction\nBelow is a list of conversations between a human and an AI assistant (you).\n"
    )
    assert text.endswith("\n\n# Query:\n```Say hello.```\n\n# Answer:\n```\n")
    assert zero_shot.stop == ("# Query:",)


def test_the_prompt_files_are_the_assignments_to_the_byte(shared_data: Path) -> None:
    seeds = shared_data.parent / "seeds" / "prompts"
    if not seeds.is_dir():
        pytest.skip("no seeds here")
    for ours, theirs in {"zero_shot_system": "zero_shot_system_prompt", "alpaca_sft": "alpaca_sft"}.items():
        shipped = prompt_folder() / f"{ours}.prompt"
        assert shipped.read_bytes() == (seeds / f"{theirs}.prompt").read_bytes()


@pytest.mark.parametrize(
    ("output", "response"),
    [
        ("Paris.\n```\n\n", "Paris."),
        ("Paris.", "Paris."),
        ("Run:\n```sh\nls\n```\n", "Run:\n```sh\nls\n```"),
        ("Run:\n```sh\nls\n```\n```", "Run:\n```sh\nls\n```"),
        ("", ""),
    ],
)
def test_the_closing_fence_is_not_part_of_the_response(output: str, response: str) -> None:
    assert find_format("zero_shot_system").response(output) == response
    assert find_format("plain").response("a ```") == "a ```"


def test_a_user_may_give_a_template_of_his_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.prompt"
    path.write_text("Q: {instruction}\nA: {response}\n")
    mine = find_format(str(path))
    assert (mine.name, mine.render("2+2?").text) == ("mine", "Q: 2+2?\nA: ")


def test_a_checkpoint_carries_a_template_that_its_name_would_not_find(tmp_path: Path) -> None:
    for name in ("alpaca_sft", "chat"):
        assert find_format(name).card().keys() == {"prompt_format", "prompt_digest"}
    (tmp_path / "model").mkdir()
    for name in ("mine", "alpaca_sft"):
        path = tmp_path / f"{name}.prompt"
        path.write_text("Q: {instruction}\nA: {response}\n")
        trained = find_format(str(path))
        (tmp_path / "model" / "harness.json").write_text(json.dumps(trained.card()))
        path.unlink()
        choice = choose_format(str(tmp_path / "model"), None, None)
        assert (choice.format, choice.warnings) == (trained, ())
    other = choose_format(str(tmp_path / "model"), "alpaca_sft", None)
    assert "is not the one that the checkpoint was trained with" in other.warnings[0]


def test_a_template_of_the_name_of_a_format_without_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chat.prompt"
    path.write_text("{instruction}")
    with pytest.raises(ConfigError, match="chat is the name of a format without a template; rename the file"):
        find_format(str(path))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no placeholder", "a template has {instruction} exactly once, not 0 times"),
        ("{instruction}{instruction}", "exactly once, not 2 times"),
        ("{response}{instruction}", "{response} may stand once, behind {instruction}"),
    ],
)
def test_a_template_without_its_placeholder_is_refused(tmp_path: Path, template: str, message: str) -> None:
    path = tmp_path / "bad.prompt"
    path.write_text(template)
    with pytest.raises(ConfigError, match=message.replace("{", r"\{").replace("}", r"\}")):
        find_format(str(path))


def test_an_unknown_format_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="unknown prompt format 'alpaca_sf'; did you mean 'alpaca_sft'"):
        find_format("alpaca_sf")
    with pytest.raises(ConfigError, match="no prompt file ./none.prompt"):
        find_format("./none.prompt")


def test_the_checkpoint_chooses_the_format_and_a_mismatch_is_said(tmp_path: Path) -> None:
    assert choose_format(str(tmp_path), None, None).format.name == "zero_shot_system"
    digest = find_format("alpaca_sft").digest
    (tmp_path / "harness.json").write_text(json.dumps({"prompt_format": "alpaca_sft", "prompt_digest": digest}))
    chosen = choose_format(str(tmp_path), None, None)
    assert (chosen.format.name, chosen.warnings) == ("alpaca_sft", ())
    overridden = choose_format(str(tmp_path), "plain", None)
    assert overridden.format.name == "plain"
    assert "was trained with the prompt format 'alpaca_sft'; this run uses 'plain'" in overridden.warnings[0]
    (tmp_path / "harness.json").write_text(json.dumps({"prompt_format": "alpaca_sft", "prompt_digest": "0" * 64}))
    assert "is not the one that the checkpoint was trained with" in choose_format(str(tmp_path), None, None).warnings[0]


@pytest.mark.parametrize("content", ["{", "[]", '{"prompt_format": 3}', '{"prompt_template": 3}'])
def test_a_broken_harness_json_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "harness.json").write_text(content)
    with pytest.raises(ModelError, match=r"harness\.json: "):
        choose_format(str(tmp_path), None, None)


def test_a_chat_template_is_used_where_there_is_one_and_missed_where_there_is_none(tokenizer: Tokenizer) -> None:
    assert choose_format("some/model", None, tokenizer).format.name == "chat"
    assert choose_format("gpt-4o", None, None, applies_chat_template=True).format.name == "chat"
    message = find_format("chat").render("Hi").messages
    assert message == (Message("user", "Hi"),)


def test_text_and_ids_say_the_same(tokenizer: Tokenizer) -> None:
    for name in FORMATS:
        prompt = find_format(name).render("Two  spaces,\n\na line?", tokenizer)
        shown = tokenizer.decode(list(prompt.token_ids or ()), skip_special_tokens=False)
        assert shown.removeprefix("<|begin_of_text|>") == prompt.text.removeprefix("<|begin_of_text|>")


@pytest.mark.parametrize("name", FORMATS)
def test_a_system_message_stands_in_its_place_or_before_the_instruction(tokenizer: Tokenizer, name: str) -> None:
    prompt = find_format(name).render("How many?", tokenizer, "Be fair.")
    assert prompt.text.index("Be fair.") < prompt.text.index("How many?")
    if name != "chat":
        assert prompt.text == find_format(name).render("Be fair.\n\nHow many?", tokenizer).text
    spelled = find_format(name).render("say <|end_of_text|>", tokenizer, "Be fair.").token_ids
    plain = find_format(name).render("say", tokenizer, "Be fair.").token_ids
    end = tokenizer.encode("<|end_of_text|>", add_special_tokens=False)
    assert spelled is not None and plain is not None and len(end) == 1
    assert spelled.count(end[0]) == plain.count(end[0])


def test_a_template_without_a_place_for_a_system_message_gets_it_in_the_instruction(tmp_path: Path) -> None:
    from harness.models import find_model
    from harness.testing.tiny import make_tiny_model

    drops = "{% for m in messages if m.role == 'user' %}<{{ m.content }}>{% endfor %}"
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + drops
    for template in (drops, refuses):
        tokenizer = find_model(str(make_tiny_model(tmp_path / "model", chat_template=template))).tokenizer
        assert find_format("chat").render("How?", tokenizer, "Be fair.").text == "<Be fair.\n\nHow?>"
    messages = find_format("chat").render("How?", None, "Be fair.").messages
    assert messages == (Message("system", "Be fair."), Message("user", "How?"))


def test_what_judges_are_asked_is_no_prompt_format() -> None:
    with pytest.raises(ConfigError, match="unknown prompt format 'judge_safety'"):
        find_format("judge_safety")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m.content }", "fails: unexpected '}'; choose another prompt format (prompt_format"),
        ("{{ raise_exception('only even turns') }}", "fails: only even turns; choose another prompt format"),
        ("{% if not add_generation_prompt %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}", "no;"),
        ("{{ messages[0].none.such }}", "has no attribute 'none'; choose"),
    ],
)
def test_a_chat_template_that_fails_is_one_line(tmp_path: Path, template: str, message: str) -> None:
    from harness.models import find_model
    from harness.testing.tiny import make_tiny_model

    tokenizer: Any = find_model(str(make_tiny_model(tmp_path / "model", chat_template=template))).tokenizer
    with pytest.raises(ModelError) as caught:
        find_format("chat").document("How?", "So.", tokenizer)
    [line] = str(caught.value).splitlines()
    assert line.startswith("the tokenizer's chat template fails: ") and message in line


@pytest.mark.parametrize("name", ["/etc/passwd", "../mine.prompt", "prompts/mine.prompt", "mine", "x" * 10_000, "a\nb"])
def test_a_model_folder_names_shipped_formats_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.prompt").write_text("secret {instruction}")
    (tmp_path / "harness.json").write_text(json.dumps({"prompt_format": name}))
    with pytest.raises(ModelError, match="names the prompt format .* which is none of the shipped ones") as caught:
        choose_format(str(tmp_path), None, None)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500
    assert choose_format(str(tmp_path), "plain", None).format.name == "plain"


def test_a_nested_or_odd_harness_json_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "harness.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ModelError, match="nested too deeply"):
        choose_format(str(tmp_path), None, None)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert choose_format(str(tmp_path), "plain", None).format.name == "plain", "no regular file is none"
