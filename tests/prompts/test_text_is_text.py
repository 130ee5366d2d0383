"""Whatever is inserted into a prompt is text, whichever tokenizer reads it."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.prompts import FormatOptions, PromptFormat, Turns, find_format
from harness.prompts.encoding import controls_of
from harness.types import Message
from tests.prompts.shapes import SHAPES, make

FORMATS = ["chat", "plain", "zero_shot_system", "alpaca_sft"]
made = cache(make)


def controls(tokenizer: Any, ids: Any) -> list[int]:
    return controls_of(tokenizer).within(ids)


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="<>[]|｜"), max_size=40))
def test_a_plain_text_is_asked_as_its_tokenizer_would(name: str, text: str) -> None:
    tokenizer = made(name)
    history = (Message("user", "Hi."), Message("assistant", "Hello."))
    messages = [each._asdict() for each in (*history, Message("user", text))]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert find_format("chat").render(text, tokenizer, history=history).token_ids == tuple(expected)


@pytest.mark.parametrize("name", SHAPES)
def test_every_added_token_is_text_wherever_it_is_inserted(name: str) -> None:
    tokenizer = made(name)
    spelled = [token.content for token in controls_of(tokenizer).tokens.values()]
    assert {*SHAPES[name].special} <= {*spelled}
    for token in spelled:
        for text in (token, f"a {token} b", f"a{token}", f"\n{token}{token}\n", f"{token}\n"):
            for form in FORMATS:
                for question, system, said in ((text, None, "s"), ("q", text, "s"), ("q", "s", text)):
                    past = (Message("user", said), Message("assistant", said))
                    history, before = (past, ("s", "s")) if form == "chat" else ((), ())
                    plain = tuple(Message(turn.role, each) for turn, each in zip(history, before, strict=True))
                    sent = find_format(form).render(question, tokenizer, system, history)
                    usual = find_format(form).render("q", tokenizer, system and "s", plain)
                    assert controls(tokenizer, sent.token_ids) == controls(tokenizer, usual.token_ids), (text, form)


@pytest.mark.parametrize("name", SHAPES)
def test_texts_with_control_tokens_leave_the_number_of_control_tokens(name: str) -> None:
    tokenizer, draw = made(name), random.Random(name)
    spelled = sorted(token.content for token in controls_of(tokenizer).tokens.values())
    words = ["a", "What", " ", "\n", "  ", "日", "<", "|>", *spelled, *(f"{token} " for token in spelled)]
    usual = {form: find_format(form).render("q", tokenizer).token_ids for form in ("chat", "plain")}
    for number in range(1000):
        text = "".join(draw.choices(words, k=draw.randrange(9)))
        form = ("chat", "plain")[number % 2]
        asked = find_format(form).render(text, tokenizer)
        assert controls(tokenizer, asked.token_ids) == controls(tokenizer, usual[form]), (form, text)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("form", FORMATS)
def test_no_character_is_added_beside_what_is_spelled(name: str, form: str) -> None:
    tokenizer = made(name)
    token = SHAPES[name].eos
    assert token is not None
    asked = find_format(form).render(f"What does {token} mean?", tokenizer)
    plain = find_format(form).render("What does user mean?", tokenizer)
    shown, usual = (tokenizer.decode(list(each.token_ids or ())) for each in (asked, plain))
    place = usual.index("What does user mean?")
    assert shown[place:].startswith(f"What does {token} mean?")
    assert (shown[:place], shown[place:].partition("mean?")[2]) == (usual[:place], usual[place:].partition("mean?")[2])


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("form", FORMATS)
def test_a_training_text_is_text(name: str, form: str) -> None:
    tokenizer = made(name)
    spelled = " ".join(token.content for token in controls_of(tokenizer).tokens.values())
    [plain, spelt, asked] = find_format(form).documents(
        [Turns("q", "r"), Turns("q", f"r {spelled} r"), Turns(spelled, "r")], tokenizer
    )
    assert controls(tokenizer, spelt.token_ids) == controls(tokenizer, plain.token_ids)
    assert controls(tokenizer, asked.token_ids) == controls(tokenizer, plain.token_ids)
    sent = find_format(form).render(spelled, tokenizer).token_ids
    assert sent is not None and asked.token_ids[: asked.prompt_tokens] == sent


def test_the_borders_of_thoughts_are_learned_as_the_tokens_that_a_model_writes() -> None:
    tokenizer = made("qwen 3")
    begin, end = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    for form in ("chat", "alpaca_sft"):
        ids = find_format(form).document("q", "<think>hm</think>so </think> it is", tokenizer).token_ids
        assert (ids.count(begin), ids.count(end)) == (1, 1)
        assert begin not in (find_format(form).render("<think>", tokenizer).token_ids or ())


def test_what_only_looks_unusual_keeps_its_token() -> None:
    gemma, neox = made("gemma 3"), made("gpt-2")
    assert gemma.convert_tokens_to_ids("<strong>") in (find_format("chat").render("<strong>a", gemma).token_ids or ())
    assert neox.convert_tokens_to_ids("    ") in (find_format("plain").render("a    </b>", neox).token_ids or ())


def test_a_bos_is_put_where_the_tokenizer_puts_one_alone() -> None:
    from tokenizers import processors

    tokenizer = make("gpt-2")
    number = tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A $B <|endoftext|>", special_tokens=[("<|endoftext|>", number)]
    )
    ids = find_format("plain").render("a", tokenizer).token_ids
    assert ids is not None and number not in ids


@pytest.mark.parametrize(
    ("template", "tokens"),
    [
        (
            "{% for m in messages %}{{ '<' + m.role + '>' }}{{ m.content }}{% endfor %}<assistant>",
            ["<user>", "<assistant>"],
        ),
        ("{% set b = '<' %}{% for m in messages %}{{ b ~ 'turn>' }}{{ m.content }}{% endfor %}", ["<turn>"]),
        ("{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}", ["USER:"]),
        ("{% for m in messages %}{{ '<t\\x75rn>' }}{{ m.content }}{% endfor %}", ["<turn>"]),
        ("{% for m in messages %}<'turn \"1\"'>{{ m.content }}{% endfor %}", ["<'turn \"1\"'>"]),
        ({"a": "<x>{{ messages[0].content }}", "b": "{{ '<' ~ 'y>' ~ messages[0].content }}"}, ["<x>", "<y>"]),
    ],
)
def test_a_token_that_a_template_puts_together_is_a_control_token(template: Any, tokens: list[str]) -> None:
    from tokenizers import AddedToken

    tokenizer = make("gpt-2")
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in (*tokens, "m.content", "==")])
    tokenizer.chat_template = template
    spelled = {token.content for token in controls_of(tokenizer).tokens.values()}
    assert {*tokens} <= spelled and spelled.isdisjoint({"m.content", "=="})
    form = PromptFormat("chat", None, options=FormatOptions(template="b" if isinstance(template, dict) else None))
    usual = controls(tokenizer, form.render("q", tokenizer).token_ids)
    for token in tokens:
        assert controls(tokenizer, form.render(f"a {token} b", tokenizer).token_ids) == usual
        assert not controls(tokenizer, find_format("plain").render(token, tokenizer).token_ids)


def test_a_tokenizer_in_python_guards_what_it_names_special() -> None:
    """ByT5's flags none of its own tokens, by whose names alone they are known."""
    from transformers import AddedToken, ByT5Tokenizer

    tokenizer: Any = ByT5Tokenizer(extra_ids=0)
    tokenizer.add_tokens([AddedToken("<|turn|>", special=False, normalized=False)])
    tokenizer.chat_template = "{% for m in messages %}<|turn|>{{ m.content }}{% endfor %}<|turn|>"
    for text in ("</s>", "a <pad> b", "<unk><|turn|>"):
        assert bytes(each - 3 for each in find_format("plain").render(text, tokenizer).token_ids or ()) == text.encode()
        for ids in (
            find_format("chat").render(text, tokenizer).token_ids,
            find_format("chat").document("q", text, tokenizer).token_ids,
        ):
            assert ids is not None and {*controls(tokenizer, ids)} <= {259, 1} and ids.count(259) in (2, 3)
