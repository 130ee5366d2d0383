"""Chat templates that do as they like: adapted to, or refused in a line that says what they do."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from harness.errors import ConfigError, ModelError, PromptError
from harness.prompts import FormatOptions, PromptFormat, choose_format, find_format, format_options
from harness.prompts.bounded import MOST_CHARACTERS, render
from harness.types import Message
from tests.prompts.shapes import make

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n%s<|im_end|>\n{% endfor %}"


def tokenizer_with(template: Any) -> Any:
    tokenizer = make("qwen 3")
    tokenizer.chat_template = template
    return tokenizer


def chat(**options: Any) -> PromptFormat:
    return PromptFormat("chat", None, options=FormatOptions(**options))


@pytest.mark.parametrize("how", ["m.content", "m.content | trim", "m.content.lstrip()", "m.content.rstrip('\\n')"])
def test_a_trimmed_text_that_spells_a_control_token_is_asked_all_the_same(how: str) -> None:
    tokenizer = tokenizer_with(TURNS.replace("%s", "{{ " + how + " }}"))
    number = tokenizer.convert_tokens_to_ids("<|im_end|>")
    prompt = find_format("chat").render("\n What does <|im_end|> mean?\n\n", tokenizer)
    assert prompt.token_ids is not None and prompt.token_ids.count(number) == 1
    assert tokenizer.decode(list(prompt.token_ids)) == prompt.text


def test_a_text_that_a_template_changes_fails_alone() -> None:
    tokenizer = tokenizer_with(TURNS.replace("%s", "{{ m.content | replace('dog', 'cat') }}"))
    find_format("chat").check(tokenizer)
    assert find_format("chat").render("a cat", tokenizer).token_ids
    with pytest.raises(PromptError, match=r"changes the text of message 1 \(user\)"):
        find_format("chat").render("a dog", tokenizer)
    counting = tokenizer_with("{{ messages[0].content | length }}" + TURNS.replace("%s", "{{ m.content }}"))
    assert find_format("chat").render("a", counting).text.startswith("1<")
    with pytest.raises(PromptError, match="does not insert the texts as they are"):
        find_format("chat").render("a <|im_end|>", counting)
    refusing = tokenizer_with("{% if 'x' in messages[0].content %}{{ raise_exception('no x') }}{% endif %}" + TURNS)
    refusing.chat_template = refusing.chat_template.replace("%s", "{{ m.content }}")
    assert find_format("chat").render("a", refusing).token_ids
    with pytest.raises(PromptError, match="fails: no x;"):
        find_format("chat").render("x", refusing)


@pytest.mark.parametrize(
    "how",
    [
        "[:300]",
        ".split('\n')[0]",
        " | truncate(400)",
        " | e",
        ".split() | join(' ')",
        " | tojson",
        " | first",
        "|title",
    ],
)
def test_a_template_that_takes_texts_apart_is_refused_before_anything_is_asked(how: str) -> None:
    with pytest.raises(ModelError, match="changes the text of|leaves out the text of") as caught:
        find_format("chat").check(tokenizer_with(TURNS.replace("%s", "{{ m.content" + how + " }}")))
    assert not isinstance(caught.value, PromptError)


def test_a_switch_that_a_template_reads_from_a_system_message_may_be_taken_out() -> None:
    """As `/no_think` is by several."""
    tokenizer = tokenizer_with(TURNS.replace("%s", "{{ m.content | replace('/no_think', '') }}"))
    system = chat(system="/no_think")
    system.check(tokenizer)
    assert system.render("How?", tokenizer).text.startswith("<|im_start|>system\n<|im_end|>")


@pytest.mark.parametrize("name", ["tools", "documents"])
def test_a_template_that_insists_on_lists_gets_empty_ones_or_the_users(name: str) -> None:
    template = "{% for each in " + name + " %}[{{ each.title }}]{% endfor %}" + TURNS.replace("%s", "{{ m.content }}")
    tokenizer, given = tokenizer_with(template), chat(arguments={name: [{"title": "One"}]})
    find_format("chat").check(tokenizer)
    assert find_format("chat").render("How?", tokenizer).text.startswith("<|im_start|>user")
    assert given.render("How?", tokenizer).text.startswith("[One]<|im_start|>user")


def test_a_template_that_demands_a_system_message_is_asked_with_one() -> None:
    demand = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
    tokenizer = tokenizer_with(demand + TURNS.replace("%s", "{{ m.content }}"))
    with pytest.raises(ModelError, match=r"fails: system first; give a system message \(--system\), or choose"):
        find_format("chat").check(tokenizer)
    chat(system="Be fair.").check(tokenizer)
    assert "Be fair." in chat(system="Be fair.").render("How <|im_end|>?", tokenizer).text


def test_a_template_of_parts_gets_parts() -> None:
    inner = "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}"
    tokenizer = tokenizer_with(TURNS.replace("%s", inner))
    prompt = find_format("chat").render("How <|im_end|>?", tokenizer, "Be fair.")
    assert prompt.text.endswith("<|im_start|>system\nBe fair.<|im_end|>\n<|im_start|>user\nHow <|im_end|>?<|im_end|>\n")
    document = find_format("chat").document("How?", "So.", tokenizer)
    assert document.text.endswith("<|im_start|>assistant\nSo.<|im_end|>")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("Hello.", "leaves out the text of the user's message; choose another prompt format"),
        ("{% for m in messages %}{{ m.text }}{% endfor %}", "leaves out the text"),
        ("{{ messages[0].content | upper }}", "changes the text"),
        ("{{ 'x' * 3000000000 }}{{ messages[0].content }}", "it writes more than 4,000,000 characters"),
        ("{% for i in range(5000) %}{{ 'x' * 9999 }}{% endfor %}", "it writes more than 4,000,000 characters"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "more than 200,000 steps"),
        ("{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}", "fails: maximum recursion depth"),
        ("{{ messages[0].content.__class__.mro() }}", "unsafe"),
        ("{{ ['a', 'b'] | random }}{{ messages[0].content }}", "it writes what chance gives"),
        ({"a": "{{ messages[0].content }}", "b": ""}, "several chat templates (a, b); choose one: --template NAME"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_before_anything_is_asked(template: Any, message: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        find_format("chat").check(tokenizer_with(template))
    assert message in str(caught.value) and not isinstance(caught.value, PromptError)
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize(
    "template",
    [
        "{{ '%9999999999d' % 1 }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ 'x'.ljust(9999999999) }}",
        "{{ 'x' | center(9999999999) }}",
        "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{{ [1] * 9999999999 }}",
        "{{ 10 ** 9999999 }}",
        "{{ ((9 ** 64) ** 64) ** 64 }}",
        "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{{ range(100000) | join('x' * 100000) }}",
        "{{ ('x' * 100000).join(['a'] * 90000) }}",
        "{{ ('a' * 1000000) | replace('a', 'b' * 100000) }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 100000) }}",
        "{{ ('a' * 1000000).replace('', 'b' * 100000) }}",
        "{{ ('a' * 1000000).translate({97: 'b' * 100000}) }}",
        "{{ ('\t' * 100000).expandtabs(3999999) }}",
        "{{ ('a\n' * 500000) | indent(width='x' * 100000) }}",
        "{{ 'a b' | wordwrap(1, true, 'x' * 3999999) }}",
        "{{ range(100000) | map('string') | map('center', 100000) | list | length }}",
        "{{ ('%s' * 1000) | format(*(['x' * 1000000] * 1000)) }}",
        "{{ ('%s' * 1000) % ('x' * 1000000) }}",
        "{{ ('{0}' * 1000).format('x' * 1000000) }}",
        "{{ ([[1] * 3000000] * 1000) | sum(start=[]) | length }}",
        "{{ 7 | round(-300000000) }}",
        "{{ [1] | tojson(indent=3000000) }}",
        "{% for i in range(9999) %}{{ ('x' * 3999999) | length }}{% endfor %}",
    ],
)
def test_no_operator_and_no_method_makes_a_text_of_any_length(template: str) -> None:
    from jinja2 import TemplateError

    with pytest.raises(TemplateError, match=f"{MOST_CHARACTERS:,}"):
        render(template, {}, 0)


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{{ messages[0].content }}", "leaves out the text of message 2 (assistant)"),
        ("{{ messages[-1].content }}", "leaves out the text of message 1 (user)"),
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", "message 2"),
        ("{{ messages[0].content }}{% for m in messages[1:] %}{{ m.content | upper }}{% endfor %}", "message 2"),
    ],
)
def test_a_template_that_leaves_out_a_turn_is_not_asked_conversations(template: str, fault: str) -> None:
    tokenizer, past = tokenizer_with(template), (Message("user", "Hi."), Message("assistant", "Hello."))
    find_format("chat").check(tokenizer)
    assert find_format("chat").render("What?", tokenizer).text == "What?"
    with pytest.raises(PromptError, match=re.escape(fault)):
        find_format("chat").render("What?", tokenizer, history=past)


def test_what_templates_commonly_use_is_there() -> None:
    template = (
        "{% set n = namespace(k=0) %}{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}"
        "{% generation %}{{ m | tojson }}{% endgeneration %}{% set n.k = n.k + 1 %}{% endfor %}"
        "{{ '%s-%d' % ('a', n.k) }}{{ ' {}'.format('b') ~ 'c' }}{{ strftime_now('%Y') }}"
    )
    given = {"messages": [{"a": "<é>"}, {"b": 1}], "strftime_now": lambda form: "2001"}
    assert render(template, given, 3) == '{"a": "<é>"}a-1 bc2001'
    tokenizer = tokenizer_with(template.replace("{{ strftime_now('%Y') }}", ""))
    messages = [{"role": "user", "content": "é"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == render(
        tokenizer.chat_template, {"messages": messages}, 1
    )


def test_a_date_is_that_of_the_run() -> None:
    tokenizer = make("llama 3")
    dated = PromptFormat("chat", None, moment=datetime(2001, 2, 3, tzinfo=UTC))
    assert "Today: 03 Feb 2001" in dated.render("How?", tokenizer).text
    assert f"{datetime.now():%d %b %Y}" in find_format("chat").render("How?", tokenizer).text
    assert dated == find_format("chat")


def test_arguments_and_named_templates_are_part_of_the_digest_and_the_card(tmp_path: Any) -> None:
    import json

    tokenizer = make("qwen 3")
    plain, off = chat(), chat(arguments={"enable_thinking": False})
    assert plain.digest == find_format("chat").digest != off.digest
    assert off.render("How?", tokenizer).text == plain.render("How?", tokenizer).text + "<think>\n\n</think>\n\n"
    tokenizer.chat_template = {"default": tokenizer.chat_template, "bare": "{{ messages[0].content }}"}
    assert chat(template="bare").render("How?", tokenizer).text == "How?"
    trained = chat(arguments={"enable_thinking": False}, system="Be fair.")
    (tmp_path / "harness.json").write_text(json.dumps(trained.card()))
    choice = choose_format(str(tmp_path), None, tokenizer)
    assert (choice.format, choice.warnings) == (trained, ())
    over = choose_format(str(tmp_path), None, tokenizer, options=FormatOptions(arguments={"enable_thinking": True}))
    assert over.format.options == FormatOptions("Be fair.", None, {"enable_thinking": True})
    assert "trained with other options of its prompts" in over.warnings[0] and len(over.warnings) == 1


def test_options_that_do_not_fit_are_refused() -> None:
    tokenizer = make("qwen 3")
    with pytest.raises(ModelError, match="no chat template 'bare': the tokenizer has only one"):
        choose_format("m", None, tokenizer, options=FormatOptions(template="bare"))
    tokenizer.chat_template = {"default": "x", "tool_use": "y"}
    with pytest.raises(ModelError, match="no chat template 'tool'; did you mean 'tool_use'"):
        choose_format("m", None, tokenizer, options=FormatOptions(template="tool"))
    with pytest.raises(ConfigError, match="are for the prompt format 'chat', not 'plain'"):
        choose_format("m", "plain", tokenizer, options=FormatOptions(arguments={"a": 1}))
    with pytest.raises(ConfigError, match="the engine applies a chat template of its own"):
        choose_format("m", None, None, applies_chat_template=True, options=FormatOptions(template="x"))
    with pytest.raises(ConfigError, match=r"chat_template\.messages: is not for you to give"):
        format_options(None, None, {"messages": []})
    with pytest.raises(ConfigError, match=r"given as chat_template\.NAME=VALUE, not chat_template=x"):
        format_options(None, None, "x")


def test_a_system_message_is_a_text_or_a_file_and_gives_way_to_a_benchmarks_own(tmp_path: Any) -> None:
    (tmp_path / "system.txt").write_text("Be fair.\n")
    for given in ("Be fair.", str(tmp_path / "system.txt")):
        options = format_options(given, None, {})
        form = PromptFormat("plain", "{instruction}", options=options)
        assert form.render("How?").text == "Be fair.\n\nHow?"
        assert form.render("How?", system="Be kind.").text == "Be kind.\n\nHow?"
        assert form.render("How?", system="").text == "How?"
    assert format_options("x" * 5000 + "\0", None, {}).system is not None
